"""SigV4: the headers by which a request proves who sends it, as S3 and its relatives want them. Pure.

Protocol: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. A body is signed with its
sha256, so a store that checks signatures also refuses a body that was damaged on its way.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from urllib.parse import quote, urlsplit

from mdl.values import value_class

EMPTY = hashlib.sha256(b"").hexdigest()
"""The sha256 of a request without a body."""
_ALGORITHM = "AWS4-HMAC-SHA256"


@value_class
class Keys:
    """Whose request it is: the id of a key, its secret and, of temporary keys, their session token."""

    key_id: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


def query_text(parameters: Mapping[str, str]) -> str:
    """The query of a URL as it is signed: sorted and percent-encoded; a parameter without a value keeps its ``=``."""
    pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in parameters.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def signed_headers(
    method: str,
    url: str,
    headers: Mapping[str, str],
    payload_sha256: str,
    keys: Keys,
    region: str,
    now: datetime,
    service: str = "s3",
) -> dict[str, str]:
    """``headers``, with those that sign the request.

    The path of ``url`` must be percent-encoded once, and its query be a `query_text`: what is signed is what is sent.
    ``payload_sha256`` is that of the body, in hex; '' sends no header about it, as services other than S3 want it.
    ``now`` is in UTC. The header Host is signed as httpx sends it.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    own = {"x-amz-date": stamp} | ({"x-amz-security-token": keys.token} if keys.token else {})
    own |= {"x-amz-content-sha256": payload_sha256} if payload_sha256 else {}
    sent = {**headers, **own}
    place = urlsplit(url)
    host, default = place.netloc.rpartition("@")[2].lower(), ":80" if place.scheme == "http" else ":443"
    signed = {"host": host.removesuffix(default)}
    signed |= {name.lower(): " ".join(value.split()) for name, value in sent.items()}
    names = ";".join(sorted(signed))
    lines = [method, place.path or "/", place.query, *(f"{name}:{signed[name]}" for name in sorted(signed))]
    request = "\n".join([*lines, "", names, payload_sha256 or EMPTY])
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{keys.secret}".encode()
    for part in (stamp[:8], region, service, "aws4_request"):
        key = _hmac(key, part)
    proof = f"Credential={keys.key_id}/{scope}, SignedHeaders={names}, Signature={_hmac(key, text).hex()}"
    return sent | {"Authorization": f"{_ALGORITHM} {proof}"}


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
