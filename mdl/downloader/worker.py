"""The worker: does what a piece of `Work` says, and tells the schedule how it went.

Ask, judge the answer, write the bytes; open, verify, publish, close. All threads of a transfer share one `Worker`. What
follows from a failure is decided in `mdl.downloader.schedule`, never here.

The stable URL is asked. If it redirects, its target is remembered, in memory only, and asked directly until it expires
or refuses. `mdl.net.client` keeps the token with the hub's own origin.
"""

from __future__ import annotations

import copy
import errno
import io
import time
from collections.abc import Callable
from pathlib import Path

from mdl.disk import explain_oserror
from mdl.disk.names import name_too_long
from mdl.disk.pool import Batches
from mdl.disk.publish import StagedFile
from mdl.downloader.check import LOOKED_AT
from mdl.downloader.download import Download
from mdl.downloader.hub_client import HubClient
from mdl.downloader.open_file import OpenFile, name_impostor
from mdl.downloader.partial import FileModified, Partial
from mdl.downloader.plan import Item, Plan, Reason, Wanted, too_large
from mdl.downloader.schedule import Work
from mdl.downloader.segment import Segment
from mdl.downloader.store import Ready, Store
from mdl.downloader.turns import Turns
from mdl.errors import (
    KEPT,
    DigestMismatch,
    MdlError,
    NetworkError,
    NoSpace,
    Occupied,
    ProtocolError,
    internal_error,
)
from mdl.events import Event, Failed, Finished, Noticed, Started, Verifying
from mdl.files import RemoteFile, Stamp
from mdl.formatting import human_bytes
from mdl.hashing import Digest, Fingerprint, new_hasher
from mdl.listener import Listener
from mdl.net.allowlist import host_of, origin_of
from mdl.net.client import HttpClient, OpenResponse
from mdl.net.connection import Interrupter
from mdl.net.policy import Verified, VersionChanged
from mdl.net.ranges import ByteRange
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

Describe = Callable[[RemoteFile, OpenResponse, Listener], RemoteFile]

_RESERVE = 16 * 2**20
"""Bytes left free on the disk while a file of unknown size is fetched; checked every so many bytes."""
_IN_ORDER = "this folder takes writes in order alone"


class Worker:
    """Works on the files of one transfer.

    ``tell`` accepts events from any thread. ``describe`` reads off the head of an answer what an unasked file is.
    ``count`` is how many files there are; with ``repair`` only the bad blocks of damaged files are fetched. The
    ``hub_client``, if there is one, fetches the hub's files. All files together may have ``most`` bytes.
    """

    def __init__(
        self,
        store: Store,
        http: HttpClient,
        turns: Turns,
        tell: Callable[[Event], None],
        describe: Describe,
        *,
        count: int,
        repair: bool = False,
        hub_client: HubClient | None = None,
        most: int | None = None,
    ) -> None:
        self._store = store
        self._http = http
        self._turns = turns
        self._tell = tell
        self._describe = describe
        self._count = count
        self._repair = repair
        self._hub_client = hub_client
        self._most = most
        self._files: dict[Download, OpenFile] = {}
        self._small = Batches(self._publish_batch)
        self._has_leftovers = store.has_leftovers()

    @property
    def files(self) -> list[OpenFile]:
        """The files that are worked on now."""
        return list(self._files.values())

    def do(self, work: Work) -> None:
        """Do it. An error ends only the file that it concerns."""
        try:
            self._do(work)
        except BaseException as error:
            self.failed(work, error)

    def _do(self, work: Work) -> None:
        file = self._file(work.download)
        if work.kind == "begin":
            self._begin(file)
            self._is_ready(file)
        elif work.kind == "rewind":
            self._rewind(file)
        elif work.kind == "finish":
            self._finish(file)
        elif work.kind == "close":
            self._close(file)
        elif work.segment and work.download.via_hub and self._hub_client:
            self._fetch_via_hub(file, work.segment, self._hub_client)
        elif work.segment and work.download.small:
            self._fetch_small(file, work, work.segment)
        elif work.segment:
            self._fetch(file, work.segment)
            self._request_ended(file, work.segment)

    def _file(self, download: Download) -> OpenFile:
        file = self._files.get(download)
        if file is None:  # whoever has its first work is alone with it
            file = OpenFile(download)
            self._files[download] = file
        return file

    def failed(self, work: Work, error: BaseException) -> None:
        """A piece of work ended by an error; one that a stop caused means nothing."""
        if self._http.cancel.is_set():
            return
        segment = work.segment
        if segment and self._writes_in_order_after(work.download, error):
            with self._turns.turn() as (schedule, now):
                schedule.request_ended(work.download, segment, now)
            return
        explained = self._explained(work.download, error)
        with self._turns.turn() as (schedule, now):
            if segment and error is explained:
                schedule.request_ended(work.download, segment, now, explained)
            else:
                schedule.abandon(work, explained)

    def sync(self, file: OpenFile) -> None:
        """Sync what was written of a file. An error ends the file."""
        if file.partial is None:
            return
        try:
            file.partial.sync()
        except Exception as error:
            if self._writes_in_order_after(file.download, error):
                return
            explained = self._explained(file.download, error)
            with self._turns.turn() as (schedule, _):
                schedule.fail(file.download, explained)

    def _explained(self, download: Download, error: BaseException) -> MdlError:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            pointer = self._store.layout.pointer(download.remote)
            too_long = name_too_long(pointer or self._store.final_path(download.model, download.remote))
            return too_long.but(item=download.name)
        if isinstance(error, OSError):
            return explain_oserror(error, download.name, self._store.root)
        return error if isinstance(error, MdlError) else internal_error(error)

    # What a worker tells the schedule.

    def _is_ready(self, file: OpenFile) -> None:
        with self._turns.turn() as (schedule, _):
            schedule.ready(file.download)

    def _request_ended(self, file: OpenFile, segment: Segment) -> None:
        with self._turns.turn() as (schedule, now):
            schedule.request_ended(file.download, segment, now)

    def _discarded(self, download: Download, count: int, why: str, start: int | None = None) -> None:
        with self._turns.turn() as (schedule, _):
            schedule.discarded(download, count, why, start)

    def _block_is_bad(self, download: Download, block: ByteRange) -> None:
        with self._turns.turn() as (schedule, _):
            schedule.discarded(download, block.length, "this block is damaged", block.start)
            schedule.add_missing(download, block.start, block.stop)

    def _ends(self, download: Download) -> None:
        self._files.pop(download, None)
        with self._turns.turn() as (schedule, _):
            schedule.end(download)

    # Open a file.

    def _begin(self, file: OpenFile) -> None:
        """Open the partial, or remove one that is not needed. Raises `MdlError`, `OSError`."""
        download = file.download
        if not download.small and not download.via_hub:
            self._open(file)
        elif self._has_leftovers:
            lost = self._store.discard_partials(download.model, download.remote)
            self._discarded(download, lost, "the file comes in one piece")
        self._tell_started(download)

    def _tell_started(self, download: Download) -> None:
        self._tell(
            Started(
                download.model,
                download.name,
                index=download.index,
                count=self._count,
                total=download.remote.size,
                resumed_at=download.resumed_at,
                host=host_of(download.url),
            )
        )

    def _open(self, file: OpenFile) -> None:
        """Open the partial: one that is written at any place, or in order where nothing else is taken."""
        if not self._store.writes_in_order:
            try:
                self._open_anywhere(file)
                return
            except OSError as error:
                if not self._switches_to_order(error):
                    raise
                file.drop()
        file.open_in_order(self._store)
        file.download.opened(file.part)
        file.start_hasher(self._block_is_bad)

    def _open_anywhere(self, file: OpenFile) -> None:
        download = file.download
        size = download.remote.size
        file.open_anywhere(self._store, repair=self._repair)
        if download.item.half and size is not None:
            borrowed = file.borrow(download.item.half, size, self._check_cancel)
            if borrowed:
                place = download.item.half.path
                why = f"{human_bytes(borrowed)} of it are taken from {place}; its digest decides whether they are right"
                self._tell(Noticed(download.model, download.name, why))
        self._discarded(download, file.part.dropped, file.part.dropped_why)
        if size is not None:
            file.part.set_length(size)
        download.opened(file.part)
        if size is not None:
            file.start_hasher(self._block_is_bad)

    def _switches_to_order(self, error: OSError) -> bool:
        """Whether an error of a partial's means that this folder takes writes in order alone. It is told once."""
        is_news = self._store.write_in_order(error)
        if is_news:
            words = error.strerror or str(error)
            self._tell(Noticed(message=f"{_IN_ORDER} ({words}): one connection a file, and what breaks starts anew"))
        return is_news is not None

    def _writes_in_order_after(self, download: Download, error: BaseException) -> bool:
        """Whether the error means that the folder takes writes in order alone; then the file begins anew, in order."""
        file = self._files.get(download)
        if not isinstance(error, OSError) or file is None or file.partial is None or file.is_in_order:
            return False
        if not self._switches_to_order(error):
            return False
        with self._turns.turn() as (schedule, _):
            schedule.rewind(download, _IN_ORDER)
        return True

    def _meet(self, file: OpenFile, opened: OpenResponse) -> None:
        """Begin a file of which nobody was asked before. The head of its first answer says what it is: its size, digest
        and validator, and its name if the URL has none. Raises what the plan would have refused: `Unsafe`, `Occupied`,
        `StorageError`; and `ProtocolError`."""
        download = file.download
        remote = self._describe(download.remote, opened, self._tell)
        wanted = Wanted(download.model, remote, self._store.check(download.model, remote))
        plan = Plan.of([wanted], force=download.item.reason == Reason.FORCED)
        for item in plan.refuse:
            assert item.refused is not None
            raise item.refused
        if remote.path != download.remote.path:
            self._store.receipts.begin(download.model, [remote.path])
        free = self._store.free_space()
        with self._turns.turn() as (schedule, _):
            download.meet(Item(wanted, Reason.MISSING))
            schedule.check_room(self._most, free)
        self._open(file)
        self._tell_started(download)

    def _rewind(self, file: OpenFile) -> None:
        """Begin anew. No byte of a small file is kept that could be discarded, but its new version may be large."""
        download = file.download
        why = download.rewind_why
        if file.partial and self._store.writes_in_order and not file.is_in_order:
            lost = file.drop()
            download.begin_anew()
            self._open(file)
            self._discarded(download, lost, why)
        elif file.partial:
            self._discarded(download, file.rewind(self._block_is_bad), why)
        else:
            download.begin_anew()
            if not download.small and not download.is_unasked:
                self._open(file)
        self._is_ready(file)

    # Fetch a segment.

    def _fetch(self, file: OpenFile, segment: Segment) -> None:
        """Fetch what the segment asks for, or as much of it as the server sends. The head of the answer that says what
        an unasked file is begins the file. Raises `MdlError`, `OSError` from the disk."""
        download = file.download
        asked = segment.asked
        segment.asked_range = asked
        segment.asked_url = download.address(time.time())
        headers = _headers(download)
        if asked:
            headers["Range"] = asked.header
            if self._http.is_located(download.url) and (etag := _etag(file)):
                headers["If-Match"] = etag
        interrupter = Interrupter()
        segment.abort = interrupter
        with self._http.open(
            "GET",
            segment.asked_url,
            headers,
            start=download.url,
            allow=(412, 416) if asked else (),
            interrupter=interrupter,
            is_file=True,
        ) as opened:
            if not download.is_current(segment):
                return  # that server was given up on meanwhile
            if self._fetches_whole(opened):
                with self._turns.turn() as (schedule, _):
                    schedule.fetches_whole(segment)
            _check_published(file, opened)
            if download.is_unasked:
                self._meet(file, opened)
                if file.part.total:
                    return  # a part of it is here: only the rest is asked for
            accept = self._judge(file, segment, asked, opened)
            if accept is None:
                return
            file.responses += 1
            file.answered_by = opened.url
            if accept.validator and (download.remote.digest or download.heeds_validators):
                file.part.note_validator(origin_of(opened.url), accept.validator)
            segment.covers = accept.stop
            is_weak = download.remote.digest is None and accept.validator is None
            with self._turns.turn():
                download.answered(opened.location, is_single=is_weak or accept.encoded or accept.stop is None)
            self._write(file, segment, accept, opened)

    def _judge(self, file: OpenFile, segment: Segment, asked: ByteRange | None, opened: OpenResponse) -> Accept | None:
        """Judge an answer and carry out what follows; None if none of its bytes are to be written."""
        download = file.download
        is_pinned = download.remote.digest is not None
        validator = None
        if download.heeds_validators:
            validator = file.part.validators.get(origin_of(opened.url)) or download.remote.validator
        verdict = self._verdict(download, opened, asked, validator)
        if verdict is None:
            return None
        if isinstance(verdict, Accept):
            if validator and not is_pinned and not verdict.validator:
                raise ProtocolError("the server no longer says which version of the file it sends")
            if verdict.ranged:
                return verdict
        if asked is not None:
            with self._turns.turn() as (schedule, _):
                is_taken = schedule.takes_whole(download)
            if not is_taken:
                why = f"{host_of(opened.url)} sent the whole file in answer to a request for a part of it"
                raise NetworkError(why, final=True, is_answer=True)
        elif download.range_was_refused:
            with self._turns.turn() as (schedule, _):
                schedule.record(download).note_refused_range()
        if file.part.total or download.length_discovered:
            why = "this folder takes no part of a file" if file.is_in_order else "the server does not serve ranges"
            self._discarded(download, file.rewind(self._block_is_bad), why)
        if asked is not None or download.attempts.is_plain:
            file.expected = ()  # everything is fetched anew: only the digest of the whole file decides
        with self._turns.turn():
            download.comes_whole(segment)
        return verdict.accept if isinstance(verdict, RangeIgnored) else verdict

    def _verdict(
        self, download: Download, opened: OpenResponse, asked: ByteRange | None, validator: str | None
    ) -> Accept | RangeIgnored | None:
        """Judge an answer; None if the server has another version of the file, which was handled. Raises
        `ProtocolError`."""
        size = download.remote.size
        is_pinned = download.remote.digest is not None
        verdict = judge(
            opened.status,
            opened.headers,
            asked=asked,
            size=size,
            validator=validator,
            pinned=is_pinned,
            names=(download.name, download.url),
        )
        if isinstance(verdict, Invalid):
            raise self._named(verdict.error, opened)
        if not isinstance(verdict, ContentChanged):
            return verdict
        error = ProtocolError(verdict.why, hint="the source is not what was asked for; look at the source")
        has_same_size = verdict.total in (None, size)
        is_promised = is_pinned or (self._http.is_located(download.url) and download.item.remote.validator is None)
        if is_promised and size is not None and not has_same_size:
            # asked past every cache, it would say the same again
            raise self._named(error.but(final=download.attempts.is_suspicious), opened)
        is_same_size = size is not None and has_same_size
        if is_same_size and not is_pinned and len(download.running) > 1:  # what runs is of one version
            why = f"{host_of(opened.url)} has another validator (ETag or Last-Modified) on another connection"
            raise NetworkError(why, final=True, is_answer=True)
        with self._turns.turn() as (schedule, now):
            schedule.decide(download, VersionChanged(error, is_same_size), now)
        if download.rewind_why and not is_pinned:
            if verdict.total is not None:
                size = verdict.total
            if self._most is not None and size is not None and size > self._most:
                raise too_large("the server has more than was announced", self._most)
            with self._turns.turn():
                download.is_another(size, verdict.validator if download.heeds_validators else None)
        return None

    def _fetches_whole(self, opened: OpenResponse) -> bool:
        """Whether something on the way is known to fetch whole files for every range: a proxy that sees plain http, and
        squid."""
        is_seen = opened.url.startswith("http:") and self._http.proxy_for(opened.url) is not None
        return is_seen or "squid" in opened.headers.get("via", "").lower()

    def _named(self, error: ProtocolError, opened: OpenResponse) -> ProtocolError:
        """The error, which also says if the server sent a page or a pointer."""
        return name_impostor(error, self._http.beginning(opened)) if opened.status == 200 else error

    def _write(self, file: OpenFile, segment: Segment, accept: Accept, opened: OpenResponse) -> None:
        """Write the body. Raises `NoSpace` if one of unknown length would fill the disk, `ProtocolError` if the body is
        cut or may be, `OSError`."""
        download = file.download
        partial = file.part
        hasher = file.hasher
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
            if stop is None:
                self._check_unknown_length(start, segment.at)
            if hasher:
                hasher.wake()
            if stop is not None and segment.at >= stop and came != length:
                return  # a body that was read to its end gives its connection back
        if segment.stop is not None:
            if accept.stop is None and segment.at < segment.stop:
                raise ProtocolError(f"the response ended early: {segment.at} of {segment.stop} bytes")
            return
        is_chunked = "transfer-encoding" in opened.headers
        if accept.stop is None and not is_chunked and not accept.encoded and download.remote.digest is None:
            raise ProtocolError("neither a length nor a digest tells the file's end from a cut")
        with self._turns.turn():
            download.ended_at(segment.at)

    def _check_unknown_length(self, start: int, at: int) -> None:
        """Bytes from ``start`` to ``at`` came of a file without an announced end. Raises `NoSpace` before it has filled
        the disk, `Unsafe` if it has too many bytes."""
        if at // _RESERVE != start // _RESERVE:
            free = self._store.free_space()
            if free is not None and free < _RESERVE:
                hint = "free some space"
                raise NoSpace("the file has no announced end and the disk is nearly full", hint=hint)
        if self._most is not None and at > self._most:
            raise too_large("the server sends more than it may", self._most)

    # Fetch a whole file at once.

    def _fetch_small(self, file: OpenFile, work: Work, segment: Segment) -> None:
        """Fetch and verify a small file, and have it published together with others. Raises `MdlError`, `OSError`."""
        download = file.download
        if not file.is_begun:
            file.is_begun = True
            self._begin(file)
        data = self._small_body(file, segment)
        if data is None:
            self._request_ended(file, segment)
            return
        file.responses += 1
        segment.received = len(data)
        algorithm = download.remote.hash_algorithm
        hasher = new_hasher(algorithm, len(data))
        hasher.update(data)
        print_ = Fingerprint(Digest(algorithm, hasher.hexdigest()), len(data))
        error = file.why_wrong(print_, data[:LOOKED_AT])
        if error is None:
            error = file.why_cut(print_, io.BytesIO(data))
        if error:
            self._discarded(download, len(data), error.message)
            raise error
        staged = self._store.stage(data)
        with self._turns.turn() as (schedule, now):
            schedule.fetched(work, now)
        self._small.add((work, self._ready(file, staged, print_)))

    def _small_body(self, file: OpenFile, segment: Segment) -> bytes | None:
        """All bytes of a small file; None if the server has another version than the one that was begun. Raises
        `MdlError`."""
        download = file.download
        size = download.remote.size
        segment.asked_url = download.address(time.time())
        with self._http.open("GET", segment.asked_url, _headers(download), start=download.url, is_file=True) as opened:
            _check_published(file, opened)
            heeds = download.remote.digest is None and download.heeds_validators
            verdict = self._verdict(download, opened, None, download.remote.validator if heeds else None)
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
            file.answered_by = opened.url
            return bytes(data)

    def _publish_batch(self, batch: list[tuple[Work, Ready]]) -> None:
        """Publish small files together. An error ends only the file that it concerns."""
        errors: list[Exception | None]
        try:
            errors = self._store.publish_all([ready for _, ready in batch])
        except Exception as of_all:
            errors = [copy.copy(of_all) for _ in batch]  # each will name its own file
        for (work, ready), error in zip(batch, errors, strict=True):
            try:
                if error:
                    self.failed(work, error)
                else:
                    self._published(work.download, ready)
            except Exception as fault:
                with self._turns.turn() as (schedule, _):
                    schedule.abandon(work, internal_error(fault))

    def _fetch_via_hub(self, file: OpenFile, segment: Segment, hub_client: HubClient) -> None:
        """Fetch the whole file by the hub's own client; verify and publish it. Raises `MdlError`, `OSError`."""
        download = file.download
        remote = download.remote
        assert remote.hub is not None
        with self._store.scratch_folder(download.model, remote) as folder:
            path = hub_client.fetch(remote.hub, folder, segment.count)
            stamp = Stamp.of(path.lstat())
            print_ = self._store.fingerprint(path, remote)
            if remote.digest not in (None, print_.digest):
                raise file.mismatch(print_)
            self._publish(file, path, print_, stamp)

    # Verify, publish, close.

    def _finish(self, file: OpenFile) -> None:
        """Verify a file whose bytes have all come, and publish it or begin again. Raises `MdlError`, `OSError`."""
        download = file.download
        partial = file.part
        size = download.remote.size
        assert size is not None
        if file.hasher is None:  # its size is known since it ended
            try:
                partial.set_length(size)
            except OSError as refusal:
                if not self._writes_in_order_after(download, refusal):
                    raise
                self._is_ready(file)
                return
            file.start_hasher(self._block_is_bad)
        assert file.hasher is not None
        self._tell(Verifying(download.model, download.name, done=file.hasher.done, total=size))
        print_: Fingerprint | None = None
        error: MdlError | None = None
        is_cut = False
        try:
            print_ = file.hasher.result(self._check_cancel)
            if print_ is None:
                self._is_ready(file)  # a block was bad, and is missing again
                return
            self._check_as_written(file, print_)
            error = file.why_wrong_on_disk(print_)
            if error is None:
                error = file.why_cut_on_disk(print_)
                is_cut = error is not None
        except FileModified as modified:
            error = modified
        self._http.cancel.check()
        came_in_parts = (download.resumed_at > 0 or file.responses > 1) and not file.expected
        may_help = came_in_parts or is_cut or isinstance(error, FileModified)
        if isinstance(error, Occupied):
            may_help = False
        with self._turns.turn() as (schedule, now):
            schedule.decide(download, Verified(error, may_help, download.fetched), now)
        if print_ and error is None and not download.error:
            self._publish(file, partial, print_)
            return
        if download.error and error:
            partial.discard()  # the file failed, and no byte of it is worth keeping
            self._discarded(download, partial.total, error.message)
        file.expected = ()
        self._is_ready(file)

    def _check_as_written(self, file: OpenFile, print_: Fingerprint) -> None:
        """Raises `FileModified` if another program changed the file while it was written, `OSError`."""
        try:
            is_as_written = file.is_as_written(print_, self._check_cancel)
        except OSError as error:
            if file.is_in_order or not self._switches_to_order(error):
                raise
            raise FileModified("this folder does not take a file that is cut") from error
        if not is_as_written:
            raise FileModified

    def _check_cancel(self, _done: int) -> None:
        self._http.cancel.check()

    def _publish(self, file: OpenFile, source: Partial | Path, print_: Fingerprint, stamp: Stamp | None = None) -> None:
        ready = self._ready(file, source, print_, stamp)
        self._store.publish(ready)
        self._published(file.download, ready)

    def _ready(
        self, file: OpenFile, source: Partial | Path | StagedFile, print_: Fingerprint, stamp: Stamp | None = None
    ) -> Ready:
        download = file.download
        verified = "none" if download.length_discovered else "size"
        if file.digest:
            verified = file.digest.algorithm
        return Ready(download.model, download.remote, source, print_, verified, download.seen, stamp)

    def _published(self, download: Download, ready: Ready) -> None:
        file = self._files.get(download)
        answered_by = file.answered_by if file else ""
        download.published(ready.fingerprint, ready.verified)
        size = ready.fingerprint.size
        self._ends(download)
        source = host_of(answered_by or download.url)
        self._tell(Finished(download.model, download.name, size=size, verified=ready.verified, source=source))

    def _close(self, file: OpenFile) -> None:
        """Close a file that failed, and report it. The bytes that came are kept."""
        download = file.download
        error = download.error or NetworkError("not reached")
        error = error.on(download.remote.label or f"{download.model}/{download.name}")
        is_kept = download.done and not file.is_in_order
        if not is_kept and error.advice:
            error = error.but(hint=error.advice.removesuffix(KEPT))
        try:
            file.close()
        finally:
            download.failed(error)
            self._tell(Failed(download.model, download.name, error.code, error.message, error.advice, error.item))
            self._ends(download)


def _headers(download: Download) -> dict[str, str]:
    return {"Cache-Control": "no-cache"} if download.attempts.is_suspicious else {}


def _etag(file: OpenFile) -> str | None:
    """The ETag that the file was begun with, if it was one and counts."""
    download = file.download
    if not download.heeds_validators:
        return None
    validator = file.part.validators.get(origin_of(download.location or "")) or download.remote.validator
    return validator if validator and validator.startswith('"') else None


def _check_published(file: OpenFile, opened: OpenResponse) -> None:
    """Compare the size and digest that the server publishes beside the file with those that are known, and note a
    digest that is not.

    The hub puts them on its own answers (X-Linked-Size, X-Linked-Etag), not on those of the host that serves the body.
    A bucket sends the metadata with which an object was written, of which it knows nothing. Raises `ProtocolError`.
    """
    download = file.download
    size = download.remote.size
    digest = download.remote.digest
    for headers in (*opened.hops, opened.headers):
        linked_size = parse_size(headers.get("x-linked-size", ""))
        if size is not None and linked_size is not None and linked_size != size:
            error = ProtocolError(f"the hub has a file of {linked_size} bytes there, expected {size}")
            raise error.but(final=download.attempts.is_suspicious)
        linked = Digest.of_etag(headers.get("x-linked-etag"))
        if digest and linked and linked.algorithm == digest.algorithm and linked != digest:
            raise DigestMismatch(f"the hub has another file there: {linked}, expected {digest}")
    file.recorded = recorded_digest(opened.headers) or file.recorded
