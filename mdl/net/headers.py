"""Header values: sizes, dates, ranges, waits, digests and names, as a response announces them. Pure.

``headers`` always has lower-case keys. A value that is not what its header may hold counts as absent: it is never
guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_to_bytes

from mdl.hashing import Digest
from mdl.net.ranges import ByteRange

_TOO_LARGE = 2**63
"""No file has so many bytes."""
_SETTLED = timedelta(seconds=60)
"""How much older than the response a Last-Modified must be (RFC 9110, 8.8.2.2)."""
_RECORDED_DIGESTS = ("x-amz-meta-sha256", "x-goog-meta-sha256", "x-ms-meta-sha256")
_CONTENT_RANGE = r"(?ia)bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)"
_UNSATISFIED = r"(?ia)bytes\s+\*/(\d{1,19})"
_RESET_PARAMETER = r";\s*([rt])=([0-9]{1,6})\b"
_PARAMETER = r';\s*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))'
_EXTENDED = r"(?i)(utf-8|iso-8859-1)'[^']*'(.*)"


def parse_size(text: str) -> int | None:
    """Return a size in bytes as a header announces it; None if the text is not one, or is larger than any file."""
    text = text.strip(" \t")
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_TOO_LARGE))):
        return None
    size = int(text)
    return size if size < _TOO_LARGE else None


def content_length(headers: Mapping[str, str]) -> int | None:
    """Return the Content-Length in bytes, or None."""
    return parse_size(headers.get("content-length", ""))


def parse_content_range(text: str) -> tuple[ByteRange, int | None] | None:
    """Return ``bytes 0-9/20`` as a range and a total (None for ``*``); None if the text is not a content range."""
    match = re.fullmatch(_CONTENT_RANGE, text.strip())
    if not match:
        return None
    start = int(match[1])
    stop = int(match[2]) + 1
    if not start < stop <= _TOO_LARGE:
        return None
    if match[3] == "*":
        return ByteRange(start, stop), None
    total = int(match[3])
    if not stop <= total < _TOO_LARGE:
        return None
    return ByteRange(start, stop), total


def content_range(headers: Mapping[str, str]) -> tuple[ByteRange, int | None] | None:
    """Return the Content-Range as `parse_content_range` does."""
    return parse_content_range(headers.get("content-range", ""))


def unsatisfied_total(headers: Mapping[str, str]) -> int | None:
    """Return the file's size as a 416 announces it (``Content-Range: bytes */N``), or None."""
    match = re.fullmatch(_UNSATISFIED, headers.get("content-range", "").strip())
    return parse_size(match[1]) if match else None


def parse_date(text: str) -> datetime | None:
    """Return a date as headers have it, in UTC; None if it is none."""
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # ``-0000``
            moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def validator_of(headers: Mapping[str, str]) -> str | None:
    """Return what tells two versions of a file apart: a strong ETag, else a Last-Modified that is safely in the past.

    RFC 9110, 8.8.1 and 8.8.2.2: weak ETags do not count, and a Last-Modified counts only if it is at least 60 seconds
    older than the response's Date.
    """
    etag = headers.get("etag", "").strip()
    if etag and not etag.startswith("W/"):
        return etag
    modified = parse_date(headers.get("last-modified", ""))
    answered = parse_date(headers.get("date", ""))
    if modified is None or answered is None or answered - modified < _SETTLED:
        return None
    return headers["last-modified"]


def recorded_digest(headers: Mapping[str, str]) -> Digest | None:
    """Return the sha256 in the metadata with which an object of a bucket was written (``x-amz-meta-sha256`` and its
    like on Google's and Azure's stores). The bucket never compared it."""
    for name in _RECORDED_DIGESTS:
        text = headers.get(name, "").strip().lower()
        if text and re.fullmatch(r"[0-9a-f]{64}", text):
            return Digest("sha256", text)
    return None


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds that the server asks to wait: Retry-After in seconds or as a date, else the reset of an
    exhausted RateLimit; None if it does not ask, or what it says is invalid.

    A date is by the server's clock, which is that of its Date; ``now`` is for a server that sends none. RFC 9110,
    10.2.3, and draft-ietf-httpapi-ratelimit-headers-09.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return _reset_of(headers.get("ratelimit", ""))
    if re.fullmatch(r"[0-9]{1,10}", text):
        return float(text)
    until = parse_date(text)
    if until is None:
        return None
    answered = parse_date(headers.get("date", "")) or now or datetime.now(UTC)
    return max(0.0, (until - answered).total_seconds())


def _reset_of(rate_limits: str) -> float | None:
    """Return the seconds until the last of the exhausted limits is reset; None if none is exhausted."""
    waits: list[float] = []
    for limit in rate_limits.split(","):
        parameters = dict(re.findall(_RESET_PARAMETER, limit))
        if parameters.get("r") == "0" and "t" in parameters:
            waits.append(int(parameters["t"]) + 1.0)
    return max(waits, default=None)


def attached_name(headers: Mapping[str, str]) -> str:
    """Return the last part of the name in a Content-Disposition; '' if it has none. It may still be no safe name."""
    parameters: dict[str, str] = {}
    for name, quoted, token in re.findall(_PARAMETER, headers.get("content-disposition", "")):
        value = re.sub(r"\\(.)", r"\1", quoted) or token.strip()
        parameters.setdefault(name.lower(), value)
    name = _decoded(parameters.get("filename*", "")) or parameters.get("filename", "")
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def _decoded(text: str) -> str:
    """Return the value of a parameter like ``filename*``: ``UTF-8''na%C3%AFve.bin``; '' if it is not one."""
    match = re.fullmatch(_EXTENDED, text)
    if not match:
        return ""
    try:
        return unquote_to_bytes(match[2]).decode(match[1])
    except UnicodeDecodeError:
        return ""


def sign_in_schemes(offers: str) -> list[str]:
    """Return the schemes that a Proxy-Authenticate or WWW-Authenticate header offers, without their parameters."""
    return re.findall(r"(?:^|,)\s*([\w-]+)(?![\w-]|\s*=)", offers)
