"""Proxies: through which one, if any, a URL is requested. Pure.

``settings`` is what `urllib.request.getproxies` returns: a proxy for ``http``, ``https`` or ``all``, and under ``no``
the hosts that are contacted directly. The rules are those of httpx, which has no public function for them. The rules of
urllib differ (a suffix that begins with a dot, a port, ``ALL_PROXY``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from mdl.http.allowlist import DEFAULT_PORTS, address_of, host_of


def proxy_of(url: str, settings: Mapping[str, str]) -> str | None:
    """The URL of the proxy for ``url``, including its password; None if ``url`` is requested directly."""
    proxy = settings.get(urlsplit(url).scheme) or settings.get("all")
    return _with_scheme(proxy) if proxy and exemption(url, settings) is None else None


def proxies_in(settings: Mapping[str, str]) -> list[str]:
    """The URLs of all proxies that `proxy_of` may return, including their passwords."""
    return [_with_scheme(settings[name]) for name in ("http", "https", "all") if settings.get(name)]


def exemption(url: str, settings: Mapping[str, str]) -> str | None:
    """The entry of NO_PROXY that exempts ``url``; None if there is none."""
    entries = [entry.strip() for entry in settings.get("no", "").split(",")]
    return next((entry for entry in entries if entry and (entry == "*" or _covers(entry, url))), None)


def without_userinfo(proxy: str) -> str:
    """A proxy as it may be shown: scheme, host and port. Raises `ValueError` for what is not a proxy's URL."""
    try:
        parts = urlsplit(_with_scheme(proxy))
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or re.search(r"\s", host) or parts.scheme not in ("http", "https", "socks5", "socks5h"):
        raise ValueError("not the URL of a proxy")
    return f"{parts.scheme}://" + (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _covers(entry: str, url: str) -> bool:
    """Whether an entry of NO_PROXY covers ``url``: its scheme, its host and, if the entry has one, its port."""
    scheme, pattern = _parse_entry(entry)
    try:
        parts, wanted = urlsplit(url), urlsplit(f"//{pattern}")
        port, wanted_port = parts.port, wanted.port
    except ValueError:
        return False
    if scheme not in ("all", parts.scheme) or not _matches(host_of(url), (wanted.hostname or "").lower()):
        return False
    default_port = DEFAULT_PORTS.get(scheme)
    return wanted_port in (None, default_port) or wanted_port == (
        None if port == DEFAULT_PORTS.get(parts.scheme) else port
    )


def _parse_entry(entry: str) -> tuple[str, str]:
    """Scheme and host pattern of an entry. A leading ``*`` means that subdomains match too."""
    if "://" in entry:
        scheme, _, host = entry.partition("://")
        return scheme.lower(), host
    address = entry.split("/")[0]
    if address_of(address) is not None and "[" not in address:
        return "all", f"[{address}]" if ":" in address else address
    return "all", entry if entry.lower() == "localhost" else f"*{entry}"


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and host != pattern[1:]
    if pattern.startswith("*"):
        return host == pattern[1:] or host.endswith(f".{pattern[1:]}")
    return host == pattern
