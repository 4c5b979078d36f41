"""Address: where a file is asked for, its stable URL or the signed place that led to, while that is good."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from mdl.download.segments import Download

_SOON = 60.0


def address_of(download: Download) -> str:
    """Where to ask for the file now: the place its URL led to, unless that expires in a minute."""
    if download.location and _expires_in(download.location) < _SOON:
        download.location = None
    return download.location or download.url


def _expires_in(url: str) -> float:
    """Seconds until a signed URL expires, as its own query tells; infinite where it does not."""
    query = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
    try:
        if "Expires" in query:
            return float(query["Expires"]) - time.time()
        if "X-Amz-Date" in query and re.fullmatch(r"\d{1,7}", query.get("X-Amz-Expires", "")):
            signed = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            return signed.timestamp() + float(query["X-Amz-Expires"]) - time.time()
    except ValueError:
        pass
    return float("inf")
