"""Hints: what to do about a failure, from what the answer, the error and the environment show. Pure.

A hint names the one thing to change: a variable, a setting, a server. It never sends a person to do what cannot help.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mdl.net.allowlist import bracketed, host_of, is_public
from mdl.net.proxies import Proxy

_GUARDS = (
    ("cf-mitigated", "challenge", "Cloudflare"),
    ("x-amzn-waf-action", "challenge|captcha", "AWS WAF"),
    ("x-datadome", ".*", "DataDome"),
    ("server", "ddos-guard", "DDoS-Guard"),
)
"""Headers by which a guard before a server says that it wants a browser: name, value, the guard."""
_CHALLENGE = re.compile(r"just a moment|attention required|checking your browser|verify you are (a )?human", re.I)


def guard_of(headers: Mapping[str, str], words: str) -> str:
    """The guard before a server that refused because it wants a browser; '' if there is no sign of one."""
    for name, value, guard in _GUARDS:
        found = headers.get(name)
        is_certain = name != "server" or bool(_CHALLENGE.search(words))
        if found is not None and is_certain and re.fullmatch(value, found.strip(), re.I):
            return guard
    if _CHALLENGE.search(words):
        return "Cloudflare" if "cloudflare" in headers.get("server", "").lower() else "a guard before it"
    return ""


def browser_hint(url: str, guard: str) -> str:
    """What to do about a host that wants a browser."""
    return f"{host_of(url)} ({guard}) wants a browser: download it there, then mdl import, or take another source"


def proxy_login_hint(proxy: Proxy | None, offers: str) -> str:
    """What to do about a proxy that wants another login. ``offers`` are its Proxy-Authenticate headers."""
    variable = proxy.variable if proxy else "the proxy variable"
    words = [part.split()[0] for part in offers.split(",") if part.strip()]
    schemes = [word for word in dict.fromkeys(words) if "=" not in word]
    if schemes and "basic" not in (scheme.lower() for scheme in schemes):
        return (
            f"the proxy takes {', '.join(schemes)} alone, and mdl speaks Basic: a password in {variable} cannot help; "
            "run a local helper that signs in, such as px or cntlm, and name that"
        )
    if proxy and "@" in proxy.url:
        return f"check the user name and password of {variable}; in a password / is %2F, : is %3A and @ is %40"
    return f"write user name and password into {variable}: http://USER:PASSWORD@HOST:PORT"


def proxy_trouble_hint(url: str, proxy: Proxy) -> str:
    """What to do about a proxy that cannot be reached, or cannot reach the host of ``url``."""
    host = host_of(url)
    if not is_public(host):
        return f"{host} is of your own network: NO_PROXY={host} has it asked directly; else check {proxy.variable}"
    return f"check {proxy.variable}; if {host} needs no proxy, add it to NO_PROXY"


def is_of_proxy(headers: Mapping[str, str]) -> bool:
    """Whether a proxy wrote this answer to a plain request itself."""
    names = ("x-squid-error", "proxy-status", "proxy-connection", "x-proxy-error")
    return any(name in headers for name in names) or "squid" in headers.get("server", "").lower()


def loop_hint(hops: Sequence[Mapping[str, str]]) -> str:
    """What to do about redirects without an end. ``hops`` are their headers, and the URL of each as ``:url``."""
    urls = [hop[":url"] for hop in hops]
    if any("set-cookie" in hop for hop in hops):
        return "the answers set a cookie, which mdl never sends: download it in a browser, then mdl import"
    if len(set(urls)) < len(urls):
        hosts = " and ".join(dict.fromkeys(host_of(url) for url in urls))
        return f"its addresses lead back to one another: that is a setting of {hosts}; take another URL or a mirror"
    return "give the URL at which the redirects end"


def plain_http_hint(current: str, target: str) -> str:
    """What to do about a redirect from https to http."""
    if host_of(current) == host_of(target):
        return (
            f"that is a setting of {host_of(current)}: behind a TLS proxy it must be told its own address "
            "(X-Forwarded-Proto: https), or name the http:// URL yourself"
        )
    return f"that is a setting of {host_of(current)}: ask its owner for an https URL, or name the http:// URL yourself"


def not_http_hint(words: str, url: str) -> str:
    """What to do about a server whose answer is no HTTP/1.1. ``words`` quote how it begins."""
    place = bracketed(host_of(url))
    if r"\x15\x03" in words:
        return f"{place} speaks TLS on this port: write https://"
    if "SSH-" in words:
        return "an SSH server answers there: check the port in the URL"
    if re.search(r"\\x00\\x00.{1,4}\\x04\\x00", words):
        return f"{place} speaks HTTP/2 alone on this port, and mdl speaks HTTP/1.1: use another port or URL of it"
    return f"what answers at {place} on this port is no web server: check host and port in the URL, and the proxy"
