"""Judging a server's response to a request for a file or a range of it. Pure: no socket, no clock.

The rules follow RFC 9110, sections 8.4, 13, 14 and 15.3.7: a response is accepted only if it provably holds the bytes
that were requested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from mdl.errors import ProtocolError
from mdl.net.headers import content_length, content_range, unsatisfied_total, validator_of
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
_CODINGS = {*_SUFFIXES, "deflate", "bzip", "lzma", "lz4", "snappy", "dcb", "dcz", "exi", "pack200-gzip"}
"""Every coding that a body may really be in. Buckets repeat what was once uploaded as Content-Encoding, such as
``aws-chunked``, ``utf-8`` or ``binary``: that codes nothing, and browsers and curl pass over it."""


@value_class
class Accept:
    """The body holds ``[start, stop)`` of the file; ``stop`` is None if its end is not announced.

    ``ranged``: the server honoured the range. ``encoded``: the body has to be decoded. ``ends_with_connection``:
    nothing but the end of the connection tells where the body ends, which may be a cut.
    """

    start: int
    stop: int | None
    validator: str | None
    ranged: bool
    encoded: bool = False
    ends_with_connection: bool = False


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


def codings_of(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the content codings in the order in which they were applied, in lower case; empty if the body is not
    encoded."""
    names = [name.strip().lower() for name in headers.get("content-encoding", "").split(",")]
    return tuple(name for name in names if name.removeprefix("x-") in _CODINGS)


def is_readable(codings: tuple[str, ...]) -> bool:
    """Return whether mdl can decode this. It decodes one coding: a coding within a coding is how a bomb is built."""
    return codings in (("gzip",), ("x-gzip",))


def is_as_stored(
    codings: tuple[str, ...],
    names: Iterable[str],
    *,
    pinned: bool,
    length: int | None = None,
    size: int | None = None,
) -> bool:
    """Return whether a body with these ``codings`` holds the file's own bytes, which are to be stored as they come.

    mdl asks for no coding, but many servers declare an archive's own compression as one (Apache: .tar.gz is
    ``x-gzip``). If a digest decides in the end (``pinned``) and the file's ``size`` is known, the announced ``length``
    tells. Otherwise one of the file's ``names``, a path or a URL, does. A coding that mdl cannot decode is stored as it
    comes if there is a digest.
    """
    if not codings:
        return True
    if pinned and not is_readable(codings):
        return True
    if pinned and length is not None and size is not None:
        return length == size
    if len(codings) > 1:
        return False
    suffixes = _SUFFIXES.get(codings[0].removeprefix("x-"), ())
    return any(urlsplit(name).path.lower().endswith(suffixes) for name in names)


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
    is_part = status == 206 or "content-range" in headers
    is_stored = is_as_stored(codings_of(headers), names, pinned=pinned) or (pinned and is_part)
    if not is_stored:
        return None
    return _total_of_part(headers) if is_part else content_length(headers)


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
    if status == 412:
        return ContentChanged("the server's file changed: it has another ETag now")
    if status == 416:
        return _judge_unsatisfied(headers, asked, size, seen)
    if status not in (200, 206):
        return _invalid(f"the server answered with status {status}, which carries no file")

    codings = codings_of(headers)
    if _is_part(status, headers, asked):
        total = _total_of_part(headers)
        is_stored = is_as_stored(codings, names, pinned=pinned, length=total, size=size)
        return _judge_part(headers, asked, size, seen, is_stored=is_stored)
    length = content_length(headers)
    if is_as_stored(codings, names, pinned=pinned, length=length, size=size):
        if differs(length, size):
            return ContentChanged(f"the server announces {length} bytes, expected {size}", length, seen)
        is_open_ended = length is None and "transfer-encoding" not in headers
        accept = Accept(0, length, seen, ranged=False, ends_with_connection=is_open_ended)
    elif is_readable(codings):
        accept = Accept(0, None, seen, ranged=False, encoded=True)
    else:
        return Invalid(unreadable(codings))
    return RangeIgnored(accept) if asked is not None and asked.start > 0 else accept


def _is_part(status: int, headers: Mapping[str, str], asked: ByteRange | None) -> bool:
    """Return whether the body is a part of the file: a 206, or a 200 with a Content-Range, which some servers send
    (rclone's S3). If that Content-Range covers the whole file, no length contradicts it, and all of it or a later part
    was requested, the body is the whole file: some caches answer every request with 206."""
    if "content-range" not in headers:
        return status == 206
    part = content_range(headers)
    if part is None or _is_multipart(headers):
        return True
    sent, total = part
    is_whole = sent.start == 0 and sent.stop == total and not differs(content_length(headers), total)
    return not is_whole or (asked is not None and (status == 206 or asked.start == 0))


def _is_multipart(headers: Mapping[str, str]) -> bool:
    """Return whether the body holds several ranges, each with headers of its own, which mdl never asks for."""
    return headers.get("content-type", "").lower().startswith("multipart/")


def _total_of_part(headers: Mapping[str, str]) -> int | None:
    """Return the size of the whole file that the headers of a part of it announce, if they do."""
    part = content_range(headers)
    return part[1] if part else None


def differs(announced: int | None, size: int | None) -> bool:
    """Return whether two sizes are known, and are not the same."""
    return None not in (announced, size) and announced != size


def _judge_unsatisfied(
    headers: Mapping[str, str], asked: ByteRange | None, size: int | None, seen: str | None
) -> Verdict:
    """Judge a 416: it is right for an empty file alone."""
    if asked is None:
        return _invalid("the server answered 416 (range not satisfiable), but no range was asked for")
    total = unsatisfied_total(headers)
    if total == 0 and not size:
        return Accept(0, 0, seen, ranged=True)
    if total is None or total == size:
        return _invalid("the server refused a range that lies inside the file (416)")
    return ContentChanged(f"the server's file has {total} bytes, expected {size}", total, seen)


def _judge_part(
    headers: Mapping[str, str], asked: ByteRange | None, size: int | None, seen: str | None, *, is_stored: bool
) -> Verdict:
    """Judge an answer that holds a part of the file, or of what encodes it (not ``is_stored``)."""
    if asked is None:
        return _invalid("the server sent a part of the file in answer to a request for all of it")
    if _is_multipart(headers):
        return _invalid("the server sent a multipart answer to a single range")
    if not is_stored:
        coding = headers["content-encoding"]
        return _invalid(f"the server sent a range of a {coding} encoding instead of the file's own bytes")
    part = content_range(headers)
    if part is None:
        said = headers.get("content-range", "none")
        return _invalid(f"the server sent a partial answer without a usable Content-Range ({said!r})")
    sent, total = part
    if sent.start != asked.start:
        return _invalid(f"asked for bytes from {asked.start}, the server sent bytes from {sent.start}")
    if differs(total, size):
        return ContentChanged(f"the server's file has {total} bytes, expected {size}", total, seen)
    length = content_length(headers)
    if differs(length, sent.length):
        return _invalid(f"the server sent a Content-Length of {length} for a range of {sent.length} bytes")
    return Accept(sent.start, min(sent.stop, asked.stop), seen, ranged=True)


def _invalid(why: str) -> Invalid:
    hint = "the server or a proxy on the way is at fault; try again, or another mirror"
    return Invalid(ProtocolError(why, hint=hint))
