"""Proxies: which one a URL is requested through, by the variables that all programs read. Pure.

`proxy_for` answers for every room: the transport, the doctor, remotes, S3, the hub's own client. Only the variable that
the URL in hand needs decides. One that cannot be used is a warning, and the run goes on as if it were not set.

The variables are ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, each also in small letters, which
win, as in curl and Python. ``socks://`` is what GNOME writes for a proxy that also looks names up: ``socks5h://``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import field
from urllib.parse import urlsplit

from mdl.net.allowlist import address_of, bracketed, host_of, is_public, port_of
from mdl.net.headers import sign_in_schemes
from mdl.units import as_meant
from mdl.values import value_class

SCHEMES = ("http", "https", "socks5", "socks5h")
"""The kinds of proxies that work."""
_SAME = {"socks": "socks5h"}
_HOW = "write it as http://host:port, and / in a password as %2F, : as %3A, @ as %40"
_NAMES = ("http", "https", "all")
_WITH_PORT = re.compile(r"(\[[^\]]*\](?:/\d+)?|[^:]*|[0-9a-f:.]*/\d+):(\d{1,5})")
"""An entry of NO_PROXY with a port. An IPv6 address has one only if it stands in brackets, or before its prefix."""
_BRACKETS = re.compile(r"\[([^\]]*)\]")


@value_class
class Proxy:
    """A proxy, as it is connected to: its ``url`` has the password. ``variable`` is the one that names it."""

    url: str
    variable: str

    @property
    def shown(self) -> str:
        """Without user and password, as it may be shown."""
        return without_userinfo(self.url)

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS5, and so only sees host and port of a request."""
        return self.url.startswith("socks5")

    def login_hint(self, offers: str) -> str:
        """Return what to do if it wants another login. ``offers`` are its Proxy-Authenticate headers."""
        ways = sign_in_schemes(offers)
        if ways and "basic" not in offers.lower():
            return (
                f"the proxy takes {', '.join(ways)} alone, and mdl speaks Basic: a password in {self.variable} cannot "
                "help; run a local helper that signs in, such as px or cntlm, and name that"
            )
        if "@" in self.url:
            return f"check the user name and password of {self.variable}; in a password / is %2F, : is %3A and @ is %40"
        return f"write user name and password into {self.variable}, before the host: USER:PASSWORD@HOST:PORT"

    def trouble_hint(self, url: str) -> str:
        """Return what to do if it cannot be reached, or cannot reach the host of ``url``."""
        host = host_of(url)
        if not is_public(host):
            return f"{host} is of your own network: NO_PROXY={host} has it asked directly; else check {self.variable}"
        return f"check {self.variable}; if {host} needs no proxy, add it to NO_PROXY"


UNKNOWN_PROXY = Proxy("", "the proxy variable")
"""A proxy that no variable names, and that answers all the same."""


@value_class
class ProxySettings:
    """The variables, read once. ``proxies`` and ``problems`` are by ``http``, ``https`` and ``all``: a problem is a
    sentence on a variable that cannot be used, without its value. ``exempt`` are the entries of NO_PROXY."""

    proxies: Mapping[str, Proxy]
    exempt: tuple[str, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> ProxySettings:
        """Return what the variables of ``environ`` say."""
        proxies: dict[str, Proxy] = {}
        problems: dict[str, str] = {}
        for scheme in _NAMES:
            variable = _variable(f"{scheme}_proxy", environ)
            value = as_meant(environ.get(variable, ""))
            if not value:
                continue
            try:
                proxies[scheme] = Proxy(read_proxy(value), variable)
            except ValueError as error:
                problems[scheme] = f"{variable} is not used: {error}; {_HOW}"
        entries = re.split(r"[\s,]+", as_meant(environ.get(_variable("no_proxy", environ), "")))
        return cls(proxies, tuple(filter(None, entries)), problems)

    def choose(self, url: str) -> Proxy | None:
        """Return the proxy for ``url``; None if it is requested directly."""
        proxy = self.proxies.get(urlsplit(url).scheme) or self.proxies.get("all")
        return proxy if proxy and self.exemption(url) is None else None

    def problem_of(self, url: str) -> str:
        """Return why the variable that would name the proxy for ``url`` cannot be used; '' if it can, or if there is
        none."""
        scheme = urlsplit(url).scheme
        if scheme in self.problems or scheme in self.proxies:
            return self.problems.get(scheme, "")
        return self.problems.get("all", "")

    def exemption(self, url: str) -> str | None:
        """Return the entry of NO_PROXY that exempts ``url``; None if there is none."""
        return next((entry for entry in self.exempt if covers(entry, url)), None)


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy that a request for ``url`` goes through by the variables of ``environ``; None if there is
    none."""
    return ProxySettings.of(environ).choose(url)


def read_proxy(value: str) -> str:
    """Return the URL of a proxy as it is connected to. Without a scheme it is that of an http proxy.

    Raises `ValueError`, whose words do not have the value, for what is no such URL.
    """
    scheme, separator, place = value.partition("://")
    if not separator:
        scheme = "http"
        place = value
    scheme = scheme.lower()
    url = f"{_SAME.get(scheme, scheme)}://{place}"
    without_userinfo(url)
    return url


def without_userinfo(url: str) -> str:
    """Return a proxy as it may be shown: scheme, host and port. Raises `ValueError` for what is not a proxy's URL."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        port = parts.port
    except ValueError:
        raise ValueError("it is not the URL of a proxy") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"its scheme is none of {', '.join(SCHEMES)}")
    is_cut = "@" in parts.path + parts.query + parts.fragment  # of a password with a slash in it, the host is a part
    if not host or is_cut or not url.isprintable() or not re.fullmatch(r"[A-Za-z0-9._:-]+", host):
        raise ValueError("it is not the URL of a proxy")
    return f"{parts.scheme}://{bracketed(host)}" + (f":{port}" if port else "")


def covers(entry: str, url: str) -> bool:
    """Return whether an entry of NO_PROXY exempts ``url``.

    An entry is ``*``, a name (with its subdomains), ``.suffix`` or ``*.suffix`` (its subdomains alone), an address, or
    a block of addresses, each with or without a port. A port is compared with the one really used. What cannot be read
    exempts nothing.
    """
    pattern = entry.lower()
    with_port = _WITH_PORT.fullmatch(pattern)
    if with_port:
        pattern = with_port[1]
        if int(with_port[2]) != port_of(url):
            return False
    return pattern == "*" or _matches(_BRACKETS.sub(r"\1", pattern), host_of(url))


def _matches(pattern: str, host: str) -> bool:
    """Return whether a pattern without a port covers a host, which is a name or an address."""
    address = address_of(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(pattern, strict=False)
        except ValueError:
            return False
    name = pattern.removeprefix("*").rstrip(".")
    if name.startswith("."):
        return host.endswith(name)
    return host == name or host.endswith(f".{name}")


def _variable(name: str, environ: Mapping[str, str]) -> str:
    """Return the name under which the variable is set: in small letters it wins, also if it is empty there. A server
    that runs CGI programs sets HTTP_PROXY from a header of the client, so it does not count there (httpoxy)."""
    is_of_a_client = name == "http_proxy" and "REQUEST_METHOD" in environ
    return name if name in environ or is_of_a_client else name.upper()
