"""Judging a server's answer to a request for a file or a range of it. Pure: no socket, no clock.

The rules follow RFC 9110, sections 13, 14 and 15.3.7: an answer is taken only where it provably holds the bytes
asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from mdl.errors import ProtocolError
from mdl.http.codings import codings_of, is_as_stored, is_readable, unreadable
from mdl.http.ranges import ByteRange


@dataclass(frozen=True)
class Accept:
    """The body holds ``[start, stop)`` of the file; ``stop`` is None where its end is not announced.
    ``ranged`` says the server honoured the range, ``encoded`` that the body is to be decoded."""

    start: int
    stop: int | None
    total: int | None
    validator: str | None
    ranged: bool
    encoded: bool = False


@dataclass(frozen=True)
class Changed:
    """The file there is not the one begun: another size or validator."""

    why: str
    total: int | None = None
    validator: str | None = None


@dataclass(frozen=True)
class Whole:
    """The server sends the file from its start though a later range was asked: it serves no ranges."""

    accept: Accept


@dataclass(frozen=True)
class Lie:
    """An answer that must not be written to any file."""

    error: ProtocolError


Verdict = Accept | Changed | Whole | Lie

_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.IGNORECASE | re.ASCII)
_TOO_LARGE = 2**63
_UNSATISFIED = re.compile(r"bytes\s+\*/(\d{1,19})", re.IGNORECASE | re.ASCII)


def parse_content_range(text: str) -> tuple[ByteRange, int | None] | None:
    """``bytes 0-9/20`` as a range and a total (None for ``*``); None where the text is not one."""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if not match:
        return None
    start, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if last < start or last >= _TOO_LARGE or (total is not None and not last < total < _TOO_LARGE):
        return None
    return ByteRange(start, last + 1), total


def unsatisfied_total(headers: Mapping[str, str]) -> int | None:
    """The file's size as a 416 tells it (``Content-Range: bytes */N``), or None."""
    match = _UNSATISFIED.fullmatch(headers.get("content-range", "").strip())
    return parse_size(match[1]) if match else None


def content_length(headers: Mapping[str, str]) -> int | None:
    return parse_size(headers.get("content-length", ""))


def parse_size(text: str) -> int | None:
    """A size in bytes as a header tells it; None for what is none, or is more than any file."""
    text = text.strip(" \t")
    size = int(text) if re.fullmatch(r"[0-9]{1,19}", text) else _TOO_LARGE
    return size if size < _TOO_LARGE else None


def validator_of(headers: Mapping[str, str]) -> str | None:
    """What tells two versions of a file apart: a strong ETag, else a date safely in the past.

    RFC 9110, 8.8.1 and 8.8.2.2: weak tags do not count, and a Last-Modified counts only where it is
    at least 60 seconds older than the answer's Date.
    """
    etag = headers.get("etag", "").strip()
    if etag and not etag.startswith("W/"):
        return etag
    try:
        modified = parsedate_to_datetime(headers["last-modified"])
        now = parsedate_to_datetime(headers["date"])
        settled = (now - modified).total_seconds() >= 60
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return headers["last-modified"] if settled else None


def announced_size(
    status: int, headers: Mapping[str, str], names: Iterable[str] = (), *, pinned: bool = False
) -> int | None:
    """The size of the whole file as an answer of status 200, 206 or 416 tells it, to whatever was asked; None if it
    does not. For ``names`` and ``pinned`` see `judge`: the length of an encoding is not the file's."""
    if status == 416:
        return unsatisfied_total(headers)
    codings, is_part = codings_of(headers), status == 206 or "content-range" in headers
    stored = is_as_stored(codings, names, pinned=pinned, length=None, size=None) or (pinned and is_part)
    if codings and not stored:
        return None
    if not is_part:
        return content_length(headers)
    parsed = parse_content_range(headers.get("content-range", ""))
    return parsed[1] if parsed else None


def judge(
    status: int,
    headers: Mapping[str, str],
    *,
    asked: ByteRange | None,
    size: int | None,
    validator: str | None,
    pinned: bool = False,
    names: Iterable[str] = (),
) -> Verdict:
    """What a 200, 206 or 416 is worth. ``headers`` has lower-case keys; ``asked`` is None for a plain GET.

    ``size`` and ``validator`` are what the file was begun with, None where unknown; ``pinned`` says that a digest
    will decide in the end. ``names`` are the file's path and URL: they tell whether what is called an encoding is the
    file itself, as Apache serves a .tar.gz.
    """
    seen = validator_of(headers)
    if validator and seen and seen != validator:
        # the validators themselves are not quoted: an ETag may repeat the request, and that a signature
        why = "the server's file changed: its validator (ETag or Last-Modified) is different now"
        return Changed(why, announced_size(status, headers, names, pinned=pinned), seen)
    if status in (200, 206):
        known = _Known(asked, size, seen, pinned, tuple(names))
        return _judge_partial(headers, known) if _is_part(status, headers, asked) else _judge_whole(headers, known)
    if status != 416:
        return _lie(f"the server answered with status {status}, which carries no file")
    if asked is None:
        return _lie("the server answered 416 (range not satisfiable), but no range was asked for")
    total = unsatisfied_total(headers)
    if total == 0 and not size:
        return Accept(0, 0, 0, seen, ranged=True)
    if total is not None and total != size:
        return Changed(f"the server's file has {total} bytes, expected {size}", total, seen)
    return _lie("the server refused a range that lies inside the file (416)")


@dataclass(frozen=True)
class _Known:
    """What was asked, what the file was begun with, and the validator that came."""

    asked: ByteRange | None
    size: int | None
    seen: str | None
    pinned: bool
    names: tuple[str, ...]

    def is_as_stored(self, headers: Mapping[str, str], length: int | None) -> bool:
        codings = codings_of(headers)
        return not codings or is_as_stored(codings, self.names, pinned=self.pinned, length=length, size=self.size)


def _is_part(status: int, headers: Mapping[str, str], asked: ByteRange | None) -> bool:
    """True for a 206, and for a 200 with a Content-Range, as which some servers send one (rclone's S3); but not for one
    that tells it of a whole file that is sent instead of a part."""
    if status == 206 or "content-range" not in headers:
        return status == 206
    parsed = parse_content_range(headers["content-range"])
    is_whole = parsed is not None and parsed[0].start == 0 and parsed[0].stop == parsed[1]
    return not is_whole or (asked is not None and asked.start == 0)


def _judge_partial(headers: Mapping[str, str], known: _Known) -> Verdict:
    asked, size = known.asked, known.size
    if asked is None:
        return _lie("the server sent a part of the file in answer to a request for all of it")
    if headers.get("content-type", "").lower().startswith("multipart/"):
        return _lie("the server sent a multipart answer to a single range")
    parsed = parse_content_range(headers.get("content-range", ""))
    if not known.is_as_stored(headers, parsed[1] if parsed else None):
        return _lie(
            f"the server sent a range of a {headers['content-encoding']} encoding instead of the file's own bytes"
        )
    if parsed is None:
        said = headers.get("content-range", "none")
        return _lie(f"the server sent a partial answer without a usable Content-Range ({said!r})")
    got, total = parsed
    if got.start != asked.start:
        return _lie(f"asked for bytes from {asked.start}, the server sent bytes from {got.start}")
    if total is not None and size is not None and total != size:
        return Changed(f"the server's file has {total} bytes, expected {size}", total, known.seen)
    length = content_length(headers)
    if length is not None and length != got.length:
        return _lie(f"the server sent a Content-Length of {length} for a range of {got.length} bytes")
    return Accept(got.start, min(got.stop, asked.stop), total, known.seen, ranged=True)


def _judge_whole(headers: Mapping[str, str], known: _Known) -> Verdict:
    asked, size = known.asked, known.size
    length, codings = content_length(headers), codings_of(headers)
    if not known.is_as_stored(headers, length):
        if not is_readable(codings):
            return Lie(unreadable(codings))
        accept = Accept(0, None, size, known.seen, ranged=False, encoded=True)
    else:
        if length is not None and size is not None and length != size:
            return Changed(f"the server announces {length} bytes, expected {size}", length, known.seen)
        accept = Accept(0, length, length if length is not None else size, known.seen, ranged=False)
    return Whole(accept) if asked is not None and asked.start > 0 else accept


def _lie(why: str) -> Lie:
    return Lie(ProtocolError(why, hint="the server or a proxy on the way is at fault; try again, or another mirror"))
