"""Presigned URLs: which parts of a URL identify the resource, which only sign it and change each time, and when it
expires. Pure."""

from __future__ import annotations

import hashlib
import math
import re
from datetime import UTC, datetime
from urllib.parse import parse_qs, parse_qsl, urlsplit

from mdl.bounds import parse_number
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
    if not query and ";" not in path:
        return []
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


def expires_at(url: str) -> float:
    """The moment, in seconds since 1970, at which a signed URL expires, as its own query tells; infinite if it does not
    tell.

    CloudFront and S3 (version 2) sign with ``Expires``, S3 and Google Cloud Storage with a date and seconds
    (``X-Amz-…``, ``X-Goog-…``), Azure with the moment ``se``.
    """
    query = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
    try:
        if "Expires" in query:
            return parse_number(query["Expires"])
        if "se" in query and "sig" in query:
            moment = datetime.fromisoformat(query["se"])
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        for maker in ("X-Amz", "X-Goog"):
            if f"{maker}-Date" in query and re.fullmatch(r"\d{1,7}", query.get(f"{maker}-Expires", "")):
                signed = datetime.strptime(query[f"{maker}-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return signed.timestamp() + float(query[f"{maker}-Expires"])
    except (ValueError, OverflowError):
        pass
    return math.inf
