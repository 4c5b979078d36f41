"""Address: where a file is asked for, its stable URL or the signed place that led to, while that is good."""

from __future__ import annotations

import math
import re
import time
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from mdl.engine.segments import Download

_SOON = 60.0


def address_of(download: Download) -> str:
    """Where to ask for the file now: the place its URL led to, unless that expires in a minute."""
    if download.location and _expires_in(download.location) < _SOON:
        download.location = None
    return download.location or download.url


def _expires_in(url: str) -> float:
    """Seconds until a signed URL expires, as its own query tells; infinite if it does not.

    CloudFront and S3 (version 2) sign with ``Expires``, S3 and Google Cloud Storage with a date and seconds
    (``X-Amz-…``, ``X-Goog-…``), Azure with the moment ``se``.
    """
    query = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
    try:
        if "Expires" in query:
            return float(query["Expires"]) - time.time()
        if "se" in query and "sig" in query:
            return _moment(query["se"]) - time.time()
        for maker in ("X-Amz", "X-Goog"):
            if f"{maker}-Date" in query and re.fullmatch(r"\d{1,7}", query.get(f"{maker}-Expires", "")):
                signed = datetime.strptime(query[f"{maker}-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return signed.timestamp() + float(query[f"{maker}-Expires"]) - time.time()
    except (ValueError, OverflowError):
        pass
    return math.inf


def _moment(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 moment, in UTC if it names no zone."""
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
