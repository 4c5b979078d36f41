"""Where a redirect leads, and what to do about one that leads nowhere. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urljoin, urlsplit

from mdl.errors import ProtocolError, Unsafe, UsageError
from mdl.net.allowlist import host_of
from mdl.paths import shown

_UNUSABLE = re.compile(r"^$|[\x00-\x20\x7f]")
"""A Location that is empty, or holds what no URL may hold."""


def redirect_target(headers: Mapping[str, str], current: str) -> str:
    """Return the URL that a redirect from ``current`` leads to, which the allow-list has yet to check. ``headers`` are
    its own, with lower-case keys.

    Raises `Unsafe`, `ProtocolError`, and `UsageError` if a bucket is in another region: S3 names the region then, and
    no URL.
    """
    host = host_of(current)
    location = headers.get("location", "")
    region = headers.get("x-amz-bucket-region", "")
    if region and not location:
        raise UsageError(f"the bucket is in another region: {shown(region)[:40]}", hint="set AWS_REGION to that")
    if _UNUSABLE.search(location):
        raise ProtocolError(f"{host} redirects without a usable Location")
    if location.startswith("//") and not urlsplit(location).netloc:
        raise Unsafe(f"refused: {host} redirects to a URL without a host", item=host)
    target = urljoin(current, location)
    if urlsplit(current).scheme == "https" and urlsplit(target).scheme == "http":
        why = f"refused: a redirect from https to http, to {host_of(target)}"
        raise Unsafe(why, item=host_of(target), hint=plain_http_hint(host, host_of(target)))
    return target.split("#")[0]


def plain_http_hint(host: str, target: str) -> str:
    """Return what to do if ``host`` redirects from https to http on the host ``target``."""
    advice = "ask its owner for an https URL"
    if host == target:
        advice = "behind a TLS proxy it must know its own address (X-Forwarded-Proto: https)"
    return f"that is a setting of {host}: {advice}, or name the http:// URL yourself"


def loop_hint(hops: Sequence[Mapping[str, str]]) -> str:
    """Return what to do about redirects without an end. ``hops`` are their headers, and the URL of each as ``:url``."""
    urls = [hop[":url"] for hop in hops]
    if any("set-cookie" in hop for hop in hops):
        return "the answers set a cookie, which mdl never sends: download it in a browser, then mdl import"
    if len(set(urls)) < len(urls):
        hosts = " and ".join(dict.fromkeys(map(host_of, urls)))
        return f"its addresses lead back to one another: that is a setting of {hosts}; take another URL or a mirror"
    return "give the URL at which the redirects end"
