"""Fetching: ask for a segment, judge the answer, write its bytes.

The stable URL is asked. If it redirects, its target is remembered, in memory only, and asked directly until it expires
or refuses. `mdl.net.client` keeps the token with the hub's own origin. What follows from a failure is decided in
`mdl.downloader.schedule`, never here.
"""

from __future__ import annotations

import time

from mdl.downloader.download import Download
from mdl.downloader.open_file import OpenFile, TransferContext, name_impostor
from mdl.downloader.plan import Item, Reason, Wanted, decide_on, too_large
from mdl.downloader.segment import Segment
from mdl.errors import DigestMismatch, NetworkError, NoSpace, ProtocolError
from mdl.hashing import Digest
from mdl.net.allowlist import host_of, origin_of
from mdl.net.connection import Interrupter
from mdl.net.follower import OpenResponse
from mdl.net.headers import content_length, parse_size, recorded_digest
from mdl.net.policy import VersionChanged
from mdl.net.ranges import ByteRange
from mdl.net.responses import Accept, ContentChanged, Invalid, RangeIgnored, differs, judge

_RESERVE = 16 * 2**20
"""Bytes left free on the disk while a file of unknown size is fetched; checked every so many bytes."""


class Fetcher:
    """Fetches segments of the files of one transfer."""

    def __init__(self, context: TransferContext) -> None:
        self._context = context
        self._store = context.store
        self._http = context.http
        self._shared = context.shared
        self._most = context.most

    def fetch(self, file: OpenFile, segment: Segment) -> None:
        """Fetch what the segment asks for, or as much of it as the server sends. The head of the answer that says what
        an unasked file is begins the file. Raises `MdlError`, `OSError` from the disk."""
        download = file.download
        interrupter = Interrupter()
        segment.ask(download.address(time.time()), interrupter)
        with self._http.open(
            "GET",
            segment.asked_url,
            self._headers(file, segment),
            start=download.url,
            allow=(412, 416) if segment.asked_range else (),
            interrupter=interrupter,
            is_file=True,
        ) as opened:
            if not download.is_current(segment):
                return  # that server was given up on meanwhile
            self._note_cache(segment, opened)
            _check_published(file, opened)
            if download.is_unasked:
                self._identify(file, opened)
                if file.part.total:
                    return  # a part of it is here: only the rest is asked for
            accept = self._judge(file, segment, opened)
            if accept is None:
                return
            self._note_answer(file, segment, accept, opened)
            self._write(file, segment, accept, opened)

    def fetch_small(self, file: OpenFile, segment: Segment) -> bytes | None:
        """Fetch all bytes of a small file; None if the server has another version than the one that was begun. Raises
        `MdlError`."""
        download = file.download
        size = download.size
        validator = None
        if download.heeds_validators and download.remote.digest is None:
            validator = download.remote.validator
        segment.ask(download.address(time.time()))
        headers = self._headers(file, segment)
        with self._http.open("GET", segment.asked_url, headers, start=download.url, is_file=True) as opened:
            _check_published(file, opened)
            accept = self._verdict(download, opened, None, validator)
            if not isinstance(accept, Accept):
                return None
            data = bytearray()
            for block in self._http.body(opened, content_length(opened.headers), decode=accept.encoded):
                data += block
                if len(data) > size:
                    raise name_impostor(ProtocolError(f"the server sent more than the file's {size} bytes"), data)
            if len(data) < size:
                error = ProtocolError(f"the response ended early: {len(data)} of {size} bytes")
                raise name_impostor(error, data)
            file.answered(opened.url)
            return bytes(data)

    def _headers(self, file: OpenFile, segment: Segment) -> dict[str, str]:
        """Return the headers of the request for a segment. A bucket or a remote compares the ETag itself."""
        download = file.download
        headers: dict[str, str] = {}
        if download.attempts.is_suspicious:
            headers["Cache-Control"] = "no-cache"
        if segment.asked_range is None:
            return headers
        headers["Range"] = segment.asked_range.header
        etag = self._validator(file, segment.asked_url)
        if etag and etag.startswith('"') and self._http.is_located(download.url):
            headers["If-Match"] = etag
        return headers

    def _validator(self, file: OpenFile, url: str) -> str | None:
        """Return the validator with which the file was begun at the origin of ``url``, if it was one and counts. Where
        a digest decides, that of another origin says nothing."""
        download = file.download
        if not download.heeds_validators:
            return None
        noted = file.part.validators.get(origin_of(url))
        return noted or (download.remote.validator if download.remote.digest is None else None)

    def _note_cache(self, segment: Segment, opened: OpenResponse) -> None:
        """Note that something on the way fetches whole files for every range: squid, or a proxy that sees plain
        http."""
        is_plain = opened.url.startswith("http:")
        is_seen_by_proxy = is_plain and self._http.proxy_for(opened.url) is not None
        if is_seen_by_proxy or "squid" in opened.headers.get("via", "").lower():
            with self._shared.locked() as (schedule, _):
                schedule.note_caching_proxy(segment)

    def _identify(self, file: OpenFile, opened: OpenResponse) -> None:
        """Begin a file of which nobody was asked before. The head of its first answer says what it is: its size, digest
        and validator, and its name if the URL has none. Raises what the plan would have refused: `Unsafe`, `Occupied`,
        `StorageError`; and `ProtocolError`."""
        download = file.download
        remote = self._context.describe(download.remote, opened, self._context.tell)
        wanted = Wanted(download.model, remote, self._store.check(download.model, remote))
        refused = decide_on(wanted, force=download.item.reason == Reason.FORCED).refused
        if refused:
            raise refused
        if remote.path != download.remote.path:
            self._store.receipts.begin(download.model, [remote.path])
        free = self._store.free_space()
        with self._shared.locked() as (schedule, _):
            download.identify(Item(wanted, Reason.MISSING))
            schedule.check_room(self._most, free)
        file.open()
        file.report_start()

    # Judge an answer.

    def _judge(self, file: OpenFile, segment: Segment, opened: OpenResponse) -> Accept | None:
        """Judge an answer and carry out what follows; None if none of its bytes are to be written. Raises
        `ProtocolError`, `NetworkError`, `OSError`."""
        download = file.download
        validator = self._validator(file, opened.url)
        verdict = self._verdict(download, opened, segment.asked_range, validator)
        if verdict is None:
            return None
        if isinstance(verdict, RangeIgnored):
            self._prepare_whole(file, segment, opened)
            return verdict.accept
        if validator and download.remote.digest is None and not verdict.validator:
            raise ProtocolError("the server no longer says which version of the file it sends")
        if not verdict.ranged:
            self._prepare_whole(file, segment, opened)
        return verdict

    def _prepare_whole(self, file: OpenFile, segment: Segment, opened: OpenResponse) -> None:
        """Prepare for an answer that holds the whole file. Raises `NetworkError` if other connections fetch parts of
        it, `OSError`."""
        download = file.download
        is_range_ignored = segment.asked_range is not None
        with self._shared.locked() as (schedule, _):
            is_taken = schedule.accept_whole(download, is_range_ignored=is_range_ignored)
        if not is_taken:
            why = f"{host_of(opened.url)} sent the complete file in answer to a request for a part of it"
            raise NetworkError(why, final=True, is_answer=True)
        if file.part.total or download.length_discovered:
            why = "the server does not serve ranges"
            if file.part.is_in_order:
                why = "this folder takes no part of a file"
            file.discard_bytes(why)
        if is_range_ignored or download.attempts.is_plain:
            file.forget_expected()  # everything is fetched again: only the digest of the whole file decides
        with self._shared.locked():
            download.expect_whole(segment)

    def _verdict(
        self, download: Download, opened: OpenResponse, asked: ByteRange | None, validator: str | None
    ) -> Accept | RangeIgnored | None:
        """Judge an answer; None if the server has another version of the file, which was handled. Raises
        `ProtocolError`."""
        verdict = judge(
            opened.status,
            opened.headers,
            asked=asked,
            size=download.remote.size,
            validator=validator,
            pinned=download.remote.digest is not None,
            names=(download.name, download.url),
        )
        if isinstance(verdict, Invalid):
            raise self._named(verdict.error, opened)
        if isinstance(verdict, ContentChanged):
            self._handle_change(download, opened, verdict)
            return None
        return verdict

    def _handle_change(self, download: Download, opened: OpenResponse, change: ContentChanged) -> None:
        """Carry out what follows if the server has another version of the file. Raises `ProtocolError` if it is not the
        one that was promised, `NetworkError` if another connection brings bytes of the first one, `Unsafe` if the new
        one is too large."""
        size = download.remote.size
        is_pinned = download.remote.digest is not None
        is_other_size = differs(change.total, size)
        is_same_size = size is not None and not is_other_size
        error = ProtocolError(change.why, hint="the source is not what was asked for; look at the source")
        if is_other_size and self._is_promised(download):
            # asked past every cache, it would say the same again
            raise self._named(error.but(final=download.attempts.is_suspicious), opened)
        if is_same_size and not is_pinned and len(download.running) > 1:  # what runs is of one version
            why = f"{host_of(opened.url)} has another validator (ETag or Last-Modified) on another connection"
            raise NetworkError(why, final=True, is_answer=True)
        with self._shared.locked() as (schedule, now):
            schedule.decide(download, VersionChanged(error, is_same_size), now)
        if download.rewind_why and not is_pinned:
            self._expect_other_version(download, change)

    def _is_promised(self, download: Download) -> bool:
        """Return whether the size of a file cannot change: it belongs to a digest, or to an object that a bucket or a
        remote described."""
        if download.remote.digest is not None:
            return True
        return download.item.remote.validator is None and self._http.is_located(download.url)

    def _expect_other_version(self, download: Download, change: ContentChanged) -> None:
        """Have the version that the server has now fetched from its start. Raises `Unsafe` if it is too large."""
        size = download.remote.size if change.total is None else change.total
        if (size or 0) > self._most:
            raise too_large("the server has more than was announced", self._most)
        validator = change.validator if download.heeds_validators else None
        with self._shared.locked():
            download.is_another(size, validator)

    def _named(self, error: ProtocolError, opened: OpenResponse) -> ProtocolError:
        """Return the error, which also says if the server sent a page or a pointer."""
        return name_impostor(error, self._http.beginning(opened)) if opened.status == 200 else error

    def _note_answer(self, file: OpenFile, segment: Segment, accept: Accept, opened: OpenResponse) -> None:
        """Note what an answer that is written tells of the file. Raises `OSError`."""
        download = file.download
        file.answered(opened.url)
        if accept.validator and (download.remote.digest or download.heeds_validators):
            file.part.note_validator(origin_of(opened.url), accept.validator)
        segment.note_answer_end(accept.stop)
        is_weak = download.remote.digest is None and accept.validator is None
        with self._shared.locked():
            download.answered(opened.location, is_single=is_weak or accept.stop is None)

    # Write the body.

    def _write(self, file: OpenFile, segment: Segment, accept: Accept, opened: OpenResponse) -> None:
        """Write the body. Raises `NoSpace` if one of unknown length would fill the disk, `ProtocolError` if the body is
        cut or may be, `OSError`."""
        download = file.download
        partial = file.part
        length = content_length(opened.headers)
        came = 0
        for block in self._http.body(opened, length, decode=accept.encoded):
            came += len(block)
            if segment.answered is None:
                with self._shared.locked() as (schedule, now):
                    schedule.first_byte_came(download, segment, now)
            if not download.is_wanted(segment):
                return
            start = segment.at
            if segment.stop is None:
                self._check_unknown_length(start, start + len(block))
            taken = self._shared.begin_block(segment, len(block))
            if taken == 0:
                return  # the segment was cut while the last block was written
            if taken < len(block):
                if not accept.ranged and start + taken == download.remote.size:
                    raise ProtocolError(f"the server sent more than the file's {download.remote.size} bytes")
                block = block[:taken]
            partial.write(start, block)
            segment.wrote(len(block))
            file.wake_hasher()
            if segment.at == segment.stop and came != length:
                return  # a body that was read to its end gives its connection back
        self._check_end(download, segment, accept)

    def _check_end(self, download: Download, segment: Segment, accept: Accept) -> None:
        """Check the end of a body. Raises `ProtocolError` if it is cut, or may be."""
        if segment.stop is not None:
            if accept.stop is None and segment.left > 0:
                raise ProtocolError(f"the response ended early: {segment.at} of {segment.stop} bytes")
            return
        if download.remote.digest is None and accept.ends_with_connection:
            raise ProtocolError("without a length or a digest, mdl cannot see whether the file is complete")
        with self._shared.locked():
            download.ended_at(segment.at)

    def _check_unknown_length(self, start: int, at: int) -> None:
        """Check the bytes from ``start`` to ``at`` of a file without an announced end. Raises `NoSpace` before it has
        filled the disk, `Unsafe` if it has too many bytes."""
        if at // _RESERVE != start // _RESERVE:
            free = self._store.free_space()
            if free is not None and free < _RESERVE:
                hint = "free some space"
                raise NoSpace("the file has no announced end and the disk is nearly full", hint=hint)
        if at > self._most:
            raise too_large("the server sends more than it may", self._most)


def _check_published(file: OpenFile, opened: OpenResponse) -> None:
    """Compare the size and digest that the server publishes beside the file with those that are known, and note a
    digest that is not.

    The hub puts them on its own answers (X-Linked-Size, X-Linked-Etag), not on those of the host that serves the body.
    A bucket sends the metadata with which an object was written, of which it knows nothing. Raises `ProtocolError`.
    """
    remote = file.download.remote
    for headers in (*opened.hops, opened.headers):
        size = parse_size(headers.get("x-linked-size", ""))
        if differs(size, remote.size):
            error = ProtocolError(f"the hub has a file of {size} bytes there, expected {remote.size}")
            raise error.but(final=file.download.attempts.is_suspicious)
        linked = Digest.of_etag(headers.get("x-linked-etag"))
        if linked and remote.digest and linked.contradicts(remote.digest):
            raise DigestMismatch(f"the hub has another file there: {linked}, expected {remote.digest}")
    recorded = recorded_digest(opened.headers)
    if recorded:
        file.note_digest(recorded)
