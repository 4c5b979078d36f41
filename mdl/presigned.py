"""Presigned URLs: which parts of a URL identify the resource, and which only sign it and change each time. Pure."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import parse_qsl

from mdl.redact import bare_url

_SIGNING_PARAMETERS = {
    "x-amz-signature": r"x-amz-.*",
    "x-goog-signature": r"x-goog-.*",
    "signature": r"signature|expires|policy|key-pair-id|(aws|oss)?accesskeyid|googleaccessid|(x-amz-)?security-token",
    "sig": r"sig|s[evtrps]|s[pk]r|srt|sip|sdd|sk[tesv]|s[ksa]oid|sktid|suoid|scid",
    "q-signature": r"q-.*",
}
"""For each parameter that carries a signature, the parameters that belong to it: S3, Google Cloud Storage, CloudFront
and older S3, Azure, Tencent. Without the signature they are parameters like any other."""
_DELIVERY_PARAMETERS = {("download", value) for value in ("", "1", "true")}
"""Parameters that say how the bytes are sent, not which bytes."""


def identifying_parameters(url: str) -> list[tuple[str, str]]:
    """The parameters of a URL's path and query, in order, without those that only sign the URL."""
    path, _, query = url.partition("#")[0].partition("?")
    pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    names = {name.lower() for name, _ in pairs}
    signing = "|".join(pattern for signature, pattern in _SIGNING_PARAMETERS.items() if signature in names)
    return [(";", text) for text in re.findall(";([^;/]*)", path)] + [
        (name, value)
        for name, value in pairs
        if not re.fullmatch(signing, name.lower()) and (name.lower(), value.lower()) not in _DELIVERY_PARAMETERS
    ]


def query_hash(url: str) -> str:
    """`identifying_parameters` as 16 hex digits, because they may hold a secret; "" if there are none."""
    found = identifying_parameters(url)
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16] if found else ""


def url_identity(url: str) -> str:
    """A text that stays the same when a URL is signed again, and differs if the URL asks for something else."""
    found = query_hash(url)
    return f"{bare_url(url)}?{found}" if found else bare_url(url)
