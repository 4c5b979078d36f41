"""Judging a server's response to a request for a file or a range of it. Pure: no socket, no clock.

The rules follow RFC 9110, sections 8.4, 13, 14 and 15.3.7: a response is accepted only if it provably holds the bytes
that were requested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_to_bytes, urlsplit

from mdl.errors import ProtocolError
from mdl.hashing import Digest
from mdl.net.ranges import ByteRange
from mdl.values import value_class

_SUFFIXES = {
    "gzip": (".gz", ".tgz", ".svgz"),
    "compress": (".z", ".taz"),
    "bzip2": (".bz2", ".tbz2", ".tbz"),
    "xz": (".xz", ".txz"),
    "zstd": (".zst", ".tzst"),
    "br": (".br",),
}
"""How the names of files end that are stored in a coding."""
_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.IGNORECASE | re.ASCII)
_UNSATISFIED = re.compile(r"bytes\s+\*/(\d{1,19})", re.IGNORECASE | re.ASCII)
_TOO_LARGE = 2**63
_PARAMETER = re.compile(r';\s*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))')
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE)


@value_class
class Accept:
    """The body holds ``[start, stop)`` of the file; ``stop`` is None if its end is not announced.

    ``ranged``: the server honoured the range. ``encoded``: the body has to be decoded.
    """

    start: int
    stop: int | None
    total: int | None
    validator: str | None
    ranged: bool
    encoded: bool = False


@value_class
class ContentChanged:
    """The server has another version of the file than the one begun: another size or validator."""

    why: str
    total: int | None = None
    validator: str | None = None


@value_class
class RangeIgnored:
    """The server sends the file from its start though a later range was requested: it does not serve ranges."""

    accept: Accept


@value_class
class Invalid:
    """A response that must not be written to any file."""

    error: ProtocolError


Verdict = Accept | ContentChanged | RangeIgnored | Invalid


def parse_content_range(text: str) -> tuple[ByteRange, int | None] | None:
    """``bytes 0-9/20`` as a range and a total (None for ``*``); None if the text is not a content range."""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if not match:
        return None
    start = int(match[1])
    last = int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if last < start or last >= _TOO_LARGE or (total is not None and not last < total < _TOO_LARGE):
        return None
    return ByteRange(start, last + 1), total


def unsatisfied_total(headers: Mapping[str, str]) -> int | None:
    """Return the file's size as a 416 announces it (``Content-Range: bytes */N``), or None."""
    match = _UNSATISFIED.fullmatch(headers.get("content-range", "").strip())
    return parse_size(match[1]) if match else None


def content_length(headers: Mapping[str, str]) -> int | None:
    """Return the Content-Length in bytes, or None."""
    return parse_size(headers.get("content-length", ""))


def parse_size(text: str) -> int | None:
    """Return a size in bytes as a header announces it; None if the text is not one, or is larger than any file."""
    text = text.strip(" \t")
    size = int(text) if re.fullmatch(r"[0-9]{1,19}", text) else _TOO_LARGE
    return size if size < _TOO_LARGE else None


def validator_of(headers: Mapping[str, str]) -> str | None:
    """Return what tells two versions of a file apart: a strong ETag, else a Last-Modified that is safely in the past.

    RFC 9110, 8.8.1 and 8.8.2.2: weak ETags do not count, and a Last-Modified counts only if it is at least 60 seconds
    older than the response's Date.
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


def recorded_digest(headers: Mapping[str, str]) -> Digest | None:
    """Return the sha256 in the metadata with which an object of a bucket was written (``x-amz-meta-sha256`` and its
    like on Google's and Azure's stores). The bucket never compared it."""
    names = (f"x-{vendor}-meta-sha256" for vendor in ("amz", "goog", "ms"))
    text = next((headers[name].strip().lower() for name in names if name in headers), "")
    return Digest("sha256", text) if re.fullmatch(r"[0-9a-f]{64}", text) else None


def codings_of(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the content codings in the order in which they were applied, in lower case; empty if the body is not
    encoded."""
    names = (name.strip().lower() for name in headers.get("content-encoding", "").split(","))
    return tuple(name for name in names if name not in ("", "identity"))


def is_readable(codings: tuple[str, ...]) -> bool:
    """Return whether mdl can decode this. It decodes one coding: a coding within a coding is how a bomb is built."""
    return codings in (("gzip",), ("x-gzip",))


def is_as_stored(
    codings: tuple[str, ...], names: Iterable[str], *, pinned: bool, length: int | None, size: int | None
) -> bool:
    """Return whether a body that is declared as encoded holds the file's own bytes, which are to be stored as they
    come.

    mdl asks for no coding, but many servers declare an archive's own compression as one (Apache: .tar.gz is
    ``x-gzip``). If a digest decides in the end (``pinned``) and the file's ``size`` is known, the announced ``length``
    tells. Otherwise one of the file's ``names``, a path or a URL, does. A coding that mdl cannot decode is stored as it
    comes if there is a digest.
    """
    if pinned and is_readable(codings) and None not in (length, size):
        return length == size
    suffixes = tuple(suffix for coding in codings for suffix in _SUFFIXES.get(coding.removeprefix("x-"), ()))
    named = len(codings) == 1 and any(urlsplit(name).path.lower().endswith(suffixes) for name in names)
    return named or (pinned and not is_readable(codings))


def unreadable(codings: tuple[str, ...]) -> ProtocolError:
    """Return the error for codings that mdl cannot decode."""
    return ProtocolError(
        f"the server sends it in an encoding that mdl cannot read ({', '.join(codings)})",
        hint="the server or a proxy on the way is at fault: mdl asks for no encoding; try another mirror",
    )


def announced_size(
    status: int, headers: Mapping[str, str], names: Iterable[str] = (), *, pinned: bool = False
) -> int | None:
    """Return the size of the whole file as a response of status 200, 206 or 416 announces it, or None.

    For ``names`` and ``pinned`` see `judge`: the length of an encoded body is not the file's.
    """
    if status == 416:
        return unsatisfied_total(headers)
    codings = codings_of(headers)
    is_part = status == 206 or "content-range" in headers
    stored = is_as_stored(codings, names, pinned=pinned, length=None, size=None) or (pinned and is_part)
    if codings and not stored:
        return None
    if not is_part:
        return content_length(headers)
    parsed = parse_content_range(headers.get("content-range", ""))
    return parsed[1] if parsed else None


@value_class
class _Known:
    """What was requested, what the file was begun with, and the validator in the response."""

    asked: ByteRange | None
    size: int | None
    validator: str | None
    pinned: bool
    names: tuple[str, ...]

    def is_as_stored(self, headers: Mapping[str, str], length: int | None) -> bool:
        codings = codings_of(headers)
        return not codings or is_as_stored(codings, self.names, pinned=self.pinned, length=length, size=self.size)


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
    """Return what a response with status 200, 206, 412 or 416 is good for.

    ``headers`` has lower-case keys. ``asked`` is the requested range, None for the whole file. ``size`` in bytes and
    ``validator`` are what the file was begun with, None if unknown. ``pinned``: a digest will decide in the end.
    ``names`` are the file's path and URL, which tell whether a declared coding is the file's own compression.
    """
    seen = validator_of(headers)
    if validator and seen and seen != validator:
        # The message does not quote the validators: an ETag may repeat the request, and with it a signature.
        why = "the server's file changed: its validator (ETag or Last-Modified) is different now"
        return ContentChanged(why, announced_size(status, headers, names, pinned=pinned), seen)
    if status in (200, 206):
        known = _Known(asked, size, seen, pinned, tuple(names))
        return _judge_partial(headers, known) if _is_part(status, headers, asked) else _judge_whole(headers, known)
    if status == 412:
        return ContentChanged("the server's file changed: it has another ETag now")
    if status != 416:
        return _invalid(f"the server answered with status {status}, which carries no file")
    if asked is None:
        return _invalid("the server answered 416 (range not satisfiable), but no range was asked for")
    total = unsatisfied_total(headers)
    if total == 0 and not size:
        return Accept(0, 0, 0, seen, ranged=True)
    if total is not None and total != size:
        return ContentChanged(f"the server's file has {total} bytes, expected {size}", total, seen)
    return _invalid("the server refused a range that lies inside the file (416)")


def _is_part(status: int, headers: Mapping[str, str], asked: ByteRange | None) -> bool:
    """Return whether the body is a part of the file: a 206, or a 200 with a Content-Range, which some servers send
    (rclone's S3), unless that Content-Range covers the whole file and a later part was requested."""
    if status == 206 or "content-range" not in headers:
        return status == 206
    parsed = parse_content_range(headers["content-range"])
    is_whole = parsed is not None and parsed[0].start == 0 and parsed[0].stop == parsed[1]
    return not is_whole or (asked is not None and asked.start == 0)


def _judge_partial(headers: Mapping[str, str], known: _Known) -> Verdict:
    asked = known.asked
    size = known.size
    if asked is None:
        return _invalid("the server sent a part of the file in answer to a request for all of it")
    if headers.get("content-type", "").lower().startswith("multipart/"):
        return _invalid("the server sent a multipart answer to a single range")
    parsed = parse_content_range(headers.get("content-range", ""))
    if not known.is_as_stored(headers, parsed[1] if parsed else None):
        return _invalid(
            f"the server sent a range of a {headers['content-encoding']} encoding instead of the file's own bytes"
        )
    if parsed is None:
        said = headers.get("content-range", "none")
        return _invalid(f"the server sent a partial answer without a usable Content-Range ({said!r})")
    got, total = parsed
    if got.start != asked.start:
        return _invalid(f"asked for bytes from {asked.start}, the server sent bytes from {got.start}")
    if total is not None and size is not None and total != size:
        return ContentChanged(f"the server's file has {total} bytes, expected {size}", total, known.validator)
    length = content_length(headers)
    if length is not None and length != got.length:
        return _invalid(f"the server sent a Content-Length of {length} for a range of {got.length} bytes")
    return Accept(got.start, min(got.stop, asked.stop), total, known.validator, ranged=True)


def _judge_whole(headers: Mapping[str, str], known: _Known) -> Verdict:
    asked = known.asked
    size = known.size
    length = content_length(headers)
    codings = codings_of(headers)
    if not known.is_as_stored(headers, length):
        if not is_readable(codings):
            return Invalid(unreadable(codings))
        accept = Accept(0, None, size, known.validator, ranged=False, encoded=True)
    else:
        if length is not None and size is not None and length != size:
            return ContentChanged(f"the server announces {length} bytes, expected {size}", length, known.validator)
        accept = Accept(0, length, length if length is not None else size, known.validator, ranged=False)
    return RangeIgnored(accept) if asked is not None and asked.start > 0 else accept


def _invalid(why: str) -> Invalid:
    return Invalid(
        ProtocolError(why, hint="the server or a proxy on the way is at fault; try again, or another mirror")
    )


def attached_name(headers: Mapping[str, str]) -> str:
    """Return the last part of the name in a Content-Disposition; '' if it has none. It may still be no safe name."""
    found: dict[str, str] = {}
    for name, quoted, token in _PARAMETER.findall(headers.get("content-disposition", "")):
        found.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted else token.strip())
    name = _decoded_parameter(found.get("filename*", "")) or found.get("filename", "")
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def _decoded_parameter(text: str) -> str:
    """Return the value of a parameter like ``filename*``: ``UTF-8''na%C3%AFve.bin``; '' if it is not one."""
    match = _EXTENDED.fullmatch(text)
    try:
        return unquote_to_bytes(match[2]).decode(match[1]) if match else ""
    except UnicodeDecodeError:
        return ""
