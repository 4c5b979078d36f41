"""Fetching one segment: ask, judge the answer, write the bytes.

The stable URL is asked. If it redirects, its target is remembered, in memory only, and asked directly until it expires
or refuses. `mdl.net.client` keeps the token with the hub's own origin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mdl.downloader.download import Download, Segment
from mdl.downloader.journal import Identity
from mdl.downloader.ordered_partial import OrderedPartial
from mdl.downloader.plan import too_large
from mdl.downloader.stream_hasher import InOrderHasher, StreamHasher
from mdl.downloader.turns import Turns
from mdl.errors import DigestMismatch, NetworkError, NoSpace, ProtocolError
from mdl.hashing import Digest
from mdl.net.allowlist import host_of, origin_of
from mdl.net.client import HttpClient, OpenResponse
from mdl.net.connection import Interrupter
from mdl.net.policy import VersionChanged
from mdl.net.ranges import ByteRange
from mdl.net.refusals import impostor
from mdl.net.responses import (
    Accept,
    ContentChanged,
    Invalid,
    RangeIgnored,
    content_length,
    judge,
    parse_size,
    recorded_digest,
)

_RESERVE = 16 * 2**20
"""Bytes left free on the disk while a file of unknown size is fetched; checked every so many bytes."""
_TELLING = 4096
"""The first bytes of an answer that tell whether it is a page or a pointer instead of the file."""


class Fetcher:
    """Fetches segments. All workers of a transfer share one. ``free_space`` returns the free bytes of the disk. A file
    of unknown size may have ``most`` bytes."""

    def __init__(
        self, http: HttpClient, turns: Turns, free_space: Callable[[], int | None], most: int | None = None
    ) -> None:
        self._http = http
        self._turns = turns
        self._free_space = free_space
        self._most = most

    def fetch(self, download: Download, segment: Segment, meet: Callable[[Download, OpenResponse], None]) -> None:
        """Fetch what the segment asks for, or as much of it as the server sends. The head of the answer that says what
        an unasked file is goes to ``meet``, which begins the file. Raises `MdlError`, `OSError` from the disk."""
        asked = segment.asked_range = segment.asked
        headers = _headers(download) | ({"Range": asked.header} if asked else {})
        if asked and self._http.is_located(download.url) and (etag := _etag(download)):
            headers["If-Match"] = etag
        segment.asked_url = download.address()
        allowed = (412, 416) if asked else ()
        segment.abort = stop = Interrupter()
        with self._http.open(
            "GET", segment.asked_url, headers, start=download.url, allow=allowed, interrupter=stop, is_file=True
        ) as opened:
            if not download.is_current(segment):
                return  # that server was given up on meanwhile
            if self._fetches_whole(opened):
                with self._turns.turn() as (schedule, _):
                    schedule.fetches_whole(segment)
            _check_published(download, opened)
            if download.is_unasked:
                meet(download, opened)
                if download.part.total:
                    return  # a part of it is here: only the rest is asked for
            accept = self._judge(download, segment, asked, opened)
            if accept is None:
                return
            download.responses += 1
            download.answered_by = opened.url
            if accept.validator and (download.remote.digest or download.heeds_validators):
                download.part.note_validator(origin_of(opened.url), accept.validator)
            if opened.location:
                download.location = opened.location
            segment.covers = accept.stop
            if not download.first_response_seen:
                weak = download.remote.digest is None and accept.validator is None
                download.single_stream = download.single_stream or weak or accept.encoded or accept.stop is None
                download.first_response_seen = True
            self._write(download, segment, accept, opened)

    def fetch_small(self, download: Download, segment: Segment) -> bytes | None:
        """All bytes of a small file; None if the server has another version than the one that was begun. Raises
        `MdlError`."""
        size = download.remote.size
        segment.asked_url = download.address()
        with self._http.open("GET", segment.asked_url, _headers(download), start=download.url, is_file=True) as opened:
            _check_published(download, opened)
            heeds = download.remote.digest is None and download.heeds_validators
            validator = download.remote.validator if heeds else None
            verdict = self._verdict(download, opened, None, validator)
            if verdict is None:
                return None
            if isinstance(verdict, RangeIgnored):
                raise self._named(ProtocolError("the server did not send the whole file"), opened)
            data = bytearray()
            length = None if verdict.encoded else content_length(opened.headers)
            for block in self._http.body(opened, length, decode=verdict.encoded):
                data += block
                if size is not None and len(data) > size:
                    raise name_impostor(ProtocolError(f"the server sent more than the file's {size} bytes"), data)
            if size is not None and len(data) != size:
                error = ProtocolError(f"the response ended early: {len(data)} of {size} bytes")
                raise name_impostor(error, data)
            segment.received = len(data)
            download.answered_by = opened.url
            return bytes(data)

    def _judge(
        self, download: Download, segment: Segment, asked: ByteRange | None, opened: OpenResponse
    ) -> Accept | None:
        """Judge an answer and carry out what follows; None if none of its bytes are to be written."""
        pinned = download.remote.digest is not None
        validator = download.part.validators.get(origin_of(opened.url)) or download.remote.validator
        if not download.heeds_validators:
            validator = None
        verdict = self._verdict(download, opened, asked, validator)
        if verdict is None:
            return None
        if validator and not pinned and isinstance(verdict, Accept) and not verdict.validator:
            raise ProtocolError("the server no longer says which version of the file it sends")
        if isinstance(verdict, Accept) and verdict.ranged:
            return verdict
        accept = verdict.accept if isinstance(verdict, RangeIgnored) else verdict
        if asked is not None:
            with self._turns.turn() as (schedule, _):
                is_taken = schedule.takes_whole(download)
            if not is_taken:
                why = f"{host_of(opened.url)} sent the whole file in answer to a request for a part of it"
                raise NetworkError(why, final=True, is_answer=True)
            segment.asked_range = None
        elif download.range_was_refused:
            with self._turns.turn() as (schedule, _):
                schedule.record(download).note_refused_range()
        if download.part.total or download.length_discovered:
            is_in_order = download.part.is_in_order
            why = "this folder takes no part of a file" if is_in_order else "the server does not serve ranges"
            self.rewind(download, why)
        if asked is not None or download.attempts.is_plain:
            download.expected = ()  # everything is fetched anew: only the digest of the whole file decides
        download.pending.remove(0, 2**63)
        segment.at = segment.first = 0
        segment.stop = download.remote.size
        return accept

    def _verdict(
        self, download: Download, opened: OpenResponse, asked: ByteRange | None, validator: str | None
    ) -> Accept | RangeIgnored | None:
        """Judge an answer; None if the server has another version of the file, which was handled. Raises
        `ProtocolError`."""
        size = download.remote.size
        pinned = download.remote.digest is not None
        verdict = judge(
            opened.status,
            opened.headers,
            asked=asked,
            size=size,
            validator=validator,
            pinned=pinned,
            names=(download.name, download.url),
        )
        if isinstance(verdict, Invalid):
            raise self._named(verdict.error, opened)
        if not isinstance(verdict, ContentChanged):
            return verdict
        error = ProtocolError(verdict.why, hint="the source is not what was asked for; look at the source")
        is_promised = pinned or (self._http.is_located(download.url) and download.item.remote.validator is None)
        if is_promised and size is not None and verdict.total not in (None, size):
            # asked past every cache, it would say the same again
            raise self._named(error.but(final=download.attempts.is_suspicious), opened)
        is_same_size = size is not None and verdict.total in (None, size)
        if is_same_size and not pinned and len(download.running) > 1:  # what runs is of one version
            why = f"{host_of(opened.url)} has another validator (ETag or Last-Modified) on another connection"
            raise NetworkError(why, final=True, is_answer=True)
        with self._turns.turn() as (schedule, now):
            schedule.decide(download, VersionChanged(error, is_same_size), now)
        if download.rewind_why and not pinned:
            size = verdict.total if verdict.total is not None else size
            if self._most is not None and size is not None and size > self._most:
                raise too_large("the server has more than was announced", self._most)
            validator = verdict.validator if download.heeds_validators else None
            download.remote = replace(download.remote, size=size, validator=validator)
        return None

    def _fetches_whole(self, opened: OpenResponse) -> bool:
        """Whether something on the way is known to fetch whole files for every range: a proxy that sees plain http, and
        squid."""
        is_seen = opened.url.startswith("http:") and self._http.proxy_for(opened.url) is not None
        return is_seen or "squid" in opened.headers.get("via", "").lower()

    def rewind(self, download: Download, why: str) -> None:
        """Discard the bytes of the file, report it, and begin anew. Nothing else may work on the file."""
        if download.hasher:
            download.hasher.stop()
        forget_answers(download)
        lost = download.part.rewind(Identity.of(download.remote))
        download.rewind_why = ""
        size = download.remote.size
        download.pending.remove(0, 2**63)
        if size is not None:
            download.part.set_length(size)
            if not download.single_stream:
                download.pending.add(0, size)
        has_hasher = size is not None or download.part.is_in_order
        download.hasher = self.start_hasher(download) if has_hasher else None
        with self._turns.turn() as (schedule, _):
            schedule.discarded(download, lost, why)

    def start_hasher(self, download: Download) -> StreamHasher | InOrderHasher:
        """Have the file hashed while it is fetched: by a thread, or as it is written in order."""
        partial = download.part
        size = download.remote.size
        if isinstance(partial, OrderedPartial):
            return partial.hash_from_now_on(download.remote.hash_algorithm, size)
        assert size is not None
        again: set[int] = set()

        def on_bad(lost: ByteRange) -> bool:
            if lost.start in again or download.single_stream:
                return False  # it is still wrong, or cannot be fetched alone: the digest of the whole file decides
            again.add(lost.start)
            partial.mark_missing(lost)
            with self._turns.turn() as (schedule, _):
                schedule.discarded(download, lost.length, "this block is damaged", lost.start)
                schedule.add_missing(download, lost.start, lost.stop)
            return True

        return StreamHasher(partial, download.remote.hash_algorithm, size, expected=download.expected, on_bad=on_bad)

    def _named(self, error: ProtocolError, opened: OpenResponse) -> ProtocolError:
        """The error, which also says if the server sent a page or a pointer."""
        return name_impostor(error, self._http.beginning(opened)) if opened.status == 200 else error

    def _check_reserve(self) -> None:
        """Raises `NoSpace` before a file without an announced end has filled the disk."""
        free = self._free_space()
        if free is not None and free < _RESERVE:
            raise NoSpace("the file has no announced end and the disk is nearly full", hint="free some space")

    def _write(self, download: Download, segment: Segment, accept: Accept, opened: OpenResponse) -> None:
        """Write the body. Raises `NoSpace` if one of unknown length would fill the disk, `ProtocolError` if the body is
        cut or may be, `OSError`."""
        partial = download.part
        hasher = download.hasher
        length = None if accept.encoded else content_length(opened.headers)
        came = 0
        for block in self._http.body(opened, length, decode=accept.encoded):
            came += len(block)
            if segment.answered is None:
                with self._turns.turn() as (schedule, now):
                    is_wanted = schedule.first_byte_came(download, segment, now)
                if not is_wanted:
                    return
            if download.rewind_why or download.error:
                return
            start = segment.at
            stop = segment.stop
            if stop is not None and start >= stop:
                return  # the segment was cut while the last block was written
            room = len(block) if stop is None else stop - start
            if room < len(block) and not accept.ranged and stop == download.remote.size:
                raise ProtocolError(f"the server sent more than the file's {stop} bytes")
            piece = block[:room]
            partial.write(start, piece)
            segment.at += len(piece)
            segment.received += len(piece)
            if stop is None and segment.at // _RESERVE != start // _RESERVE:
                self._check_reserve()
            if stop is None and self._most is not None and segment.at > self._most:
                raise too_large("the server sends more than it may", self._most)
            if hasher:
                hasher.wake()
            if stop is not None and segment.at >= stop and came != length:
                return  # a body that was read to its end gives its connection back
        if segment.stop is not None:
            if accept.stop is None and segment.at < segment.stop:
                raise ProtocolError(f"the response ended early: {segment.at} of {segment.stop} bytes")
            return
        chunked = "transfer-encoding" in opened.headers
        if accept.stop is None and not chunked and not accept.encoded and download.remote.digest is None:
            raise ProtocolError("neither a length nor a digest tells the file's end from a cut")
        download.remote = replace(download.remote, size=segment.at)
        download.length_discovered = True


def forget_answers(download: Download) -> None:
    """Nothing counts any more that answers told of the file, which begins anew."""
    if download.length_discovered:  # the size was only how far the stream came
        download.remote = replace(download.remote, size=None)
    download.first_response_seen = False
    download.length_discovered = False
    download.location = None


def name_impostor(error: ProtocolError, beginning: bytes | bytearray) -> ProtocolError:
    """The error, which also says if ``beginning`` is that of a web page or a git-lfs pointer."""
    found = impostor(bytes(beginning[:_TELLING]))
    if found:
        return error.but(message=f"{error.message}: {found[0]}", hint=found[1])
    return error


def _headers(download: Download) -> dict[str, str]:
    return {"Cache-Control": "no-cache"} if download.attempts.is_suspicious else {}


def _etag(download: Download) -> str | None:
    """The ETag that the file was begun with, if it was one and counts."""
    if not download.heeds_validators:
        return None
    validator = download.part.validators.get(origin_of(download.location or "")) or download.remote.validator
    return validator if validator and validator.startswith('"') else None


def _check_published(download: Download, opened: OpenResponse) -> None:
    """Compare the size and digest that the server publishes beside the file with those that are known, and note a
    digest that is not.

    The hub puts them on its own answers (X-Linked-Size, X-Linked-Etag), not on those of the host that serves the body.
    A bucket sends the metadata with which an object was written, of which it knows nothing. Raises `ProtocolError`.
    """
    size = download.remote.size
    digest = download.remote.digest
    for headers in (*opened.hops, opened.headers):
        linked = parse_size(headers.get("x-linked-size", ""))
        if size is not None and linked is not None and linked != size:
            error = ProtocolError(f"the hub has a file of {linked} bytes there, expected {size}")
            raise error.but(final=download.attempts.is_suspicious)
        found = Digest.of_etag(headers.get("x-linked-etag"))
        if digest and found and found.algorithm == digest.algorithm and found != digest:
            raise DigestMismatch(f"the hub has another file there: {found}, expected {digest}")
    download.recorded = recorded_digest(opened.headers) or download.recorded
