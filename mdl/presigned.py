"""Presigned: what of a URL says which thing it is, and what only signs it and is another each time. Pure."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import parse_qsl

from mdl.redact import bare_url

_SCHEMES = {
    "x-amz-signature": r"x-amz-.*",
    "x-goog-signature": r"x-goog-.*",
    "signature": r"signature|expires|policy|key-pair-id|(aws|oss)?accesskeyid|googleaccessid|(x-amz-)?security-token",
    "sig": r"sig|s[evtrps]|s[pk]r|srt|sip|sdd|sk[tesv]|s[ksa]oid|sktid|suoid|scid",
    "q-signature": r"q-.*",
}
"""The parameter that bears the signature, and those that belong to it: of S3, Google, CloudFront and older S3, Azure,
and Tencent. Without the signature they are parameters like any other."""
_SWITCHES = {("download", value) for value in ("", "1", "true")}
"""Parameters that say how the bytes are sent and not which."""


def asked(url: str) -> list[tuple[str, str]]:
    """The parameters of a URL's path and query that say which thing it is, in order."""
    path, _, query = url.partition("#")[0].partition("?")
    pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    names = {name.lower() for name, _ in pairs}
    signing = "|".join(pattern for mark, pattern in _SCHEMES.items() if mark in names)
    return [(";", text) for text in re.findall(";([^;/]*)", path)] + [
        (name, value)
        for name, value in pairs
        if not re.fullmatch(signing, name.lower()) and (name.lower(), value.lower()) not in _SWITCHES
    ]


def asked_mark(url: str) -> str:
    """`asked` as 16 hex digits, for it may hold a secret; '' where nothing is asked."""
    found = asked(url)
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16] if found else ""


def identity(url: str) -> str:
    """What stays the same when a URL is signed anew, and differs where another thing is asked for."""
    mark = asked_mark(url)
    return f"{bare_url(url)}?{mark}" if mark else bare_url(url)
