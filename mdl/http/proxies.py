"""Proxies: which one, if any, a URL is asked through. Pure.

``settings`` is what `urllib.request.getproxies` tells: a proxy for ``http``, ``https`` or ``all``, and in ``no`` the
hosts that are asked directly. The rules are those of httpx, which asks in the end; urllib's own differ (a suffix
that begins with a dot, a port, ``ALL_PROXY``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from mdl.http.hosts import address_of, host_of

_USUAL_PORTS = {"http": 80, "https": 443}


def proxy_of(url: str, settings: Mapping[str, str]) -> str | None:
    """The URL of the proxy for ``url``, with whatever secret is in it; None where it is asked directly."""
    proxy = settings.get(urlsplit(url).scheme) or settings.get("all")
    if not proxy or exemption(url, settings) is not None:
        return None
    return _with_scheme(proxy)


def proxies_in(settings: Mapping[str, str]) -> list[str]:
    """The URLs of all proxies that `proxy_of` may tell, with whatever secrets are in them."""
    return [_with_scheme(settings[name]) for name in ("http", "https", "all") if settings.get(name)]


def exemption(url: str, settings: Mapping[str, str]) -> str | None:
    """The entry of NO_PROXY because of which ``url`` is asked directly."""
    entries = [entry.strip() for entry in settings.get("no", "").split(",")]
    return next((entry for entry in entries if entry and (entry == "*" or _covers(entry, url))), None)


def without_userinfo(proxy: str) -> str:
    """A proxy as it may be shown: scheme, host and port. Raises `ValueError` for what is no URL of a proxy."""
    try:
        parts = urlsplit(_with_scheme(proxy))
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or re.search(r"\s", host) or parts.scheme not in ("http", "https", "socks5", "socks5h"):
        raise ValueError("no URL of a proxy")
    return f"{parts.scheme}://" + (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _covers(entry: str, url: str) -> bool:
    scheme, pattern = _pattern(entry)
    try:
        parts, wanted = urlsplit(url), urlsplit(f"//{pattern}")
        port, wanted_port = parts.port, wanted.port
    except ValueError:
        return False
    if scheme not in ("all", parts.scheme) or not _matches(host_of(url), (wanted.hostname or "").lower()):
        return False
    usual = _USUAL_PORTS.get(parts.scheme), _USUAL_PORTS.get(scheme)
    return wanted_port in (None, usual[1]) or wanted_port == (None if port == usual[0] else port)


def _pattern(entry: str) -> tuple[str, str]:
    """Scheme and host of an entry; a host with ``*`` before it stands for what is below it too."""
    if "://" in entry:
        scheme, _, host = entry.partition("://")
        return scheme.lower(), host
    address = entry.split("/")[0]
    if address_of(address) is not None and "[" not in address:
        return "all", f"[{address}]" if ":" in address else address
    return "all", entry if entry.lower() == "localhost" else f"*{entry}"


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return re.fullmatch(rf".+\.{re.escape(pattern[2:])}", host) is not None
    if pattern.startswith("*"):
        return re.fullmatch(rf"(.+\.)?{re.escape(pattern[1:])}", host) is not None
    return host == pattern
