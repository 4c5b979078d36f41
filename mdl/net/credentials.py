"""Credentials of hosts: what the user's settings have mdl send to one host, how it is sent, and which certificates go
with it. Pure.

A credential goes to the host that it was written down for: over https, or to this machine itself. It goes with the URL
that was asked for and with no redirect, not even with one that leads back.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

from mdl.errors import TlsError, UsageError
from mdl.net.allowlist import DEFAULT_PORTS, address_of, bracketed, host_of, port_of
from mdl.values import value_class

NETRC = "~/.netrc"


@value_class
class HostCredential:
    """What one host is sent. ``place`` is ``host`` or ``host:port``; without a port it is the usual one. ``source``
    names the variable that has the ``secret``, or `NETRC`; the secret is '' if that has none. ``send`` is ``bearer``,
    ``basic`` (the secret is then ``user:password``), ``query:NAME`` or ``header:NAME``. ``problem`` is raised where the
    secret would be sent: it cannot be."""

    place: str
    source: str
    send: str = "bearer"
    secret: str = field(default="", repr=False)
    problem: UsageError | None = field(default=None, repr=False, compare=False)

    @property
    def host(self) -> str:
        return host_of(f"//{self.place}")

    def is_for(self, url: str) -> bool:
        """Return whether ``url`` is of this host and port, whatever its scheme."""
        port = urlsplit(f"//{self.place}").port or DEFAULT_PORTS.get(urlsplit(url).scheme)
        return (host_of(url), port_of(url)) == (self.host, port)

    def may_go_to(self, url: str, *, through_proxy: bool = False) -> bool:
        """Return whether a request for ``url`` may take it along. A proxy can read what comes without TLS."""
        is_private = urlsplit(url).scheme == "https" or (is_loopback(host_of(url)) and not through_proxy)
        return (self.secret != "" or self.problem is not None) and self.is_for(url) and is_private

    def check(self) -> None:
        """Raises `UsageError` if the secret cannot be sent."""
        if self.problem:
            raise self.problem.but()

    def headers(self) -> dict[str, str]:
        """Return the headers that carry it; none if the query does."""
        way, _, name = self.send.partition(":")
        match way:
            case "bearer":
                return {"Authorization": f"Bearer {self.secret}"}
            case "basic":
                return {"Authorization": f"Basic {_base64(self.secret)}"}
            case "header":
                return {name: self.secret}
        return {}

    def url(self, url: str) -> str:
        """``url`` as it is asked for. A parameter that the URL has already stays as it is."""
        way, _, name = self.send.partition(":")
        bare, _, query = url.partition("?")
        if way != "query" or name in (key for key, _ in parse_qsl(query, keep_blank_values=True)):
            return url
        return f"{bare}?{query}{'&' if query else ''}{name}={quote(self.secret, safe='')}"

    def values(self) -> Iterator[str]:
        """Every form of it that no output may have."""
        yield self.secret
        if self.send == "basic":
            yield self.secret.partition(":")[2]
            yield _base64(self.secret)


@value_class
class HostTls:
    """What ``[hosts."HOST"]`` says of TLS: the certificate that mdl shows to this host and port, the file of its key if
    that is another one, the ``password`` of the key, and a file or folder of authorities that are trusted there beside
    the usual ones. ``place`` is ``host`` or ``host:port``; ``password_variable`` has the password."""

    place: str
    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    password: str = field(default="", repr=False)
    password_variable: str = ""

    def is_for(self, host: str, port: int) -> bool:
        return (host_of(f"//{self.place}"), port_of(f"https://{self.place}")) == (host, port)


def certificate_wanted(url: str, words: str) -> TlsError:
    """Return the error of a host that wants a client certificate, as it says in ``words``, and got none."""
    hint = f'write into config.toml: [hosts."{place_of(url)}"]  cert = "CERTIFICATE.pem"  key = "KEY.pem"'
    return TlsError(f"{host_of(url)} wants a client certificate: {words}", hint=hint)


def place_of(url: str) -> str:
    """Return the host of an https URL as ``[hosts."HOST"]`` names it: with its port if that is not the usual one."""
    host = bracketed(host_of(url))
    port = port_of(url)
    return host if port == 443 else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether this host is this machine itself."""
    address = address_of(host)
    return address.is_loopback if address else host == "localhost"


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()
