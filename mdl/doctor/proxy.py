"""Proxy: the one, if any, that the endpoint is asked through."""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from urllib.request import getproxies

from mdl.doctor.finding import Finding
from mdl.errors import UsageError
from mdl.http.allowlist import host_of
from mdl.http.proxies import exemption, proxy_of, without_userinfo


def proxy(url: str) -> Finding:
    """Which proxy ``url`` is asked through and because of what; whether it answers shows when the endpoint is asked."""
    settings, host = getproxies(), host_of(url)
    if not any(settings.get(scheme) for scheme in ("http", "https", "all")):
        return Finding("proxy", True, "none set")
    chosen = proxy_of(url, settings)
    scheme = urlsplit(url).scheme
    if chosen is None:
        entry = exemption(url, settings)
        why = f"NO_PROXY has {entry}" if entry else f"no proxy is set for {scheme}"
        return Finding("proxy", True, f"none for {host}, as {why}")
    source = _variable(scheme if settings.get(scheme) else "all")
    try:
        return Finding("proxy", True, f"{without_userinfo(chosen)} for {host}, from {source}")
    except ValueError:
        advice = f"write {source} as http://host:port; in a password write / as %2F, : as %3A and @ as %40"
        return Finding("proxy", False, f"{source} is not the URL of a proxy", advice, UsageError.exit_code)


def through(url: str) -> str:
    """``, through http://proxy:3128`` where ``url`` is asked through a proxy, else nothing."""
    chosen = proxy_of(url, getproxies())
    try:
        return f", through {without_userinfo(chosen)}" if chosen else ""
    except ValueError:
        return ""


def _variable(scheme: str) -> str:
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    return next((name for name in names if os.environ.get(name)), "the system's settings")
