"""The first and the last steps of one file: open its partial; verify and publish it, begin again, or close it."""

from __future__ import annotations

import contextlib
import copy
import io
import os
from collections.abc import Callable
from pathlib import Path

from mdl.cancel import CancelToken
from mdl.disk.copy import copy_range, read_no_further
from mdl.disk.pool import Batches
from mdl.disk.publish import StagedFile
from mdl.disk.safe_open import open_for_reading
from mdl.downloader.check import LOOKED_AT, check_content, check_whole
from mdl.downloader.download import Download, Segment
from mdl.downloader.fetch import Fetcher, forget_answers, name_impostor
from mdl.downloader.hub_client import HubClient
from mdl.downloader.partial import FileModified, Partial
from mdl.downloader.plan import Item, Plan, Reason, Wanted
from mdl.downloader.schedule import Work
from mdl.downloader.store import Ready, Store
from mdl.downloader.turns import Turns
from mdl.errors import KEPT, DigestMismatch, MdlError, NetworkError, Occupied, internal_error
from mdl.events import Event, Failed, Finished, Noticed, Started, Verifying
from mdl.files import HalfFile, RemoteFile, Stamp
from mdl.formatting import human_bytes
from mdl.hashing import Digest, Fingerprint, fingerprint, new_hasher
from mdl.listener import Listener
from mdl.net.allowlist import host_of
from mdl.net.client import OpenResponse
from mdl.net.policy import Verified
from mdl.net.ranges import ByteRange
from mdl.weights.end_records import ReadableFile, read_at

Describe = Callable[[RemoteFile, OpenResponse, Listener], RemoteFile]


class Finalizer:
    """Does these steps for the files of one transfer. ``count`` is how many there are; with ``repair`` only the bad
    blocks of a damaged file are fetched. ``describe`` reads off the head of an answer what an unasked file is. All
    files together may have ``most`` bytes."""

    def __init__(
        self,
        store: Store,
        turns: Turns,
        fetcher: Fetcher,
        post: Callable[[Event], None],
        cancel: CancelToken,
        *,
        count: int,
        repair: bool,
        on_error: Callable[[Work, Exception], None],
        describe: Describe,
        most: int | None,
    ) -> None:
        self._store = store
        self._turns = turns
        self._fetcher = fetcher
        self._post = post
        self._cancel = cancel
        self._count = count
        self._repair = repair
        self._on_error = on_error
        self._describe = describe
        self._most = most
        self._small = Batches(self._publish_batch)
        self._has_leftovers = store.has_leftovers()

    def begin(self, download: Download) -> None:
        """Open the partial, or remove one that is not needed. Raises `MdlError`, `OSError`."""
        self._begin(download)
        self._ready_for_more(download)

    def _begin(self, download: Download) -> None:
        download.is_begun = True
        if download.small or download.via_hub:
            if self._has_leftovers:
                lost = self._store.discard_partials(download.model, download.remote)
                self._discarded(download, lost, "the file comes in one piece")
        else:
            self._open(download)
        self._tell_started(download)

    def _tell_started(self, download: Download) -> None:
        self._post(
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

    def meet(self, download: Download, opened: OpenResponse) -> None:
        """Begin a file of which nobody was asked before. The head of its first answer says what it is: its size, digest
        and validator, and its name if the URL has none. Raises what the plan would have refused: `Unsafe`, `Occupied`,
        `StorageError`; and `ProtocolError`."""
        remote = self._describe(download.remote, opened, self._post)
        local = self._store.check(download.model, remote)
        decided = Plan.of([Wanted(download.model, remote, local)], force=download.item.reason == Reason.FORCED)
        for item in decided.refuse:
            assert item.refused is not None
            raise item.refused
        if remote.path != download.remote.path:
            self._store.receipts.begin(download.model, [remote.path])
        download.met = Item(Wanted(download.model, remote, local), Reason.MISSING)
        download.remote = remote
        free = self._store.free_space()
        with self._turns.turn() as (schedule, _):
            schedule.check_room(self._most, free)
        download.is_begun = True
        self._open(download)
        self._tell_started(download)

    def _open(self, download: Download) -> None:
        """Open the partial: one that is written at any place, or in order where nothing else is taken."""
        if not self._store.writes_in_order:
            try:
                self._open_anywhere(download)
                return
            except OSError as error:
                if not self.switches_to_order(error):
                    raise
                self._drop(download)
        self._open_in_order(download)

    def switches_to_order(self, error: OSError) -> bool:
        """Whether an error of a partial's means that this folder takes writes in order alone. It is told once."""
        is_news = self._store.write_in_order(error)
        if is_news:
            words = error.strerror or str(error)
            self._post(Noticed(message=f"this folder takes writes in order alone ({words}): {_IN_ORDER}"))
        return is_news is not None

    def _drop(self, download: Download) -> None:
        """Give up a partial that the folder does not take."""
        if download.hasher:
            download.hasher.stop()
        if download.partial:
            with contextlib.suppress(OSError):
                download.partial.close()
            download.partial.discard()
        download.hasher = download.partial = None
        download.expected = ()
        download.pending.remove(0, 2**63)

    def _open_in_order(self, download: Download) -> None:
        download.partial = self._store.open_in_order(download.model, download.remote)
        download.single_stream = True
        download.resumed_at = 0
        download.hasher = self._fetcher.start_hasher(download)

    def _open_anywhere(self, download: Download) -> None:
        remote = download.remote
        receipt = self._store.receipts.get(download.model, remote.path) if self._repair else None
        if receipt and receipt.digest == remote.digest and receipt.prefixes and download.item.local.kind == "file":
            download.expected = (*receipt.prefixes, receipt.digest.hex)
            partial = self._store.open_for_repair(download.model, remote)
        else:
            partial = self._store.open_partial(download.model, remote)
        download.partial = partial
        if download.item.half and remote.size is not None:
            self._borrow(download, download.item.half, remote.size)
        download.resumed_at = partial.total
        self._discarded(download, partial.dropped, partial.dropped_why)
        if remote.size is not None:
            partial.set_length(remote.size)
            for gap in partial.gaps(remote.size):
                download.pending.add(gap.start, gap.stop)
            download.hasher = self._fetcher.start_hasher(download)

    def _borrow(self, download: Download, half: HalfFile, size: int) -> None:
        """Copy what another program has of the file, and mdl has not, into the partial. If that cannot be read, it is
        fetched. Raises `OSError` of mdl's own disk."""
        partial = download.part
        borrowed = 0
        partial.set_length(size)
        with contextlib.suppress(OSError), open_for_reading(half.path, os.O_NOFOLLOW) as source:
            read_no_further(source)
            for wanted in partial.gaps(size):
                for first, last in half.ranges:
                    start = max(first, wanted.start)
                    stop = min(last, wanted.stop)
                    if start < stop:
                        count = copy_range(source, partial.fd, stop - start, self._check_cancel, start)
                        partial.mark_present(ByteRange(start, start + count))
                        borrowed += count
        download.is_borrowed_from_final = borrowed > 0 and half.is_final
        if borrowed:
            why = f"{human_bytes(borrowed)} of it are taken from {half.path}; its digest decides whether they are right"
            self._post(Noticed(download.model, download.name, why))

    def rewind(self, download: Download) -> None:
        """Begin anew. No byte of a small file is kept that could be discarded, but its new version may be large."""
        if download.partial and self._store.writes_in_order and not download.partial.is_in_order:
            lost = download.partial.total
            self._drop(download)
            forget_answers(download)
            self._open(download)
            self._discarded(download, lost, download.rewind_why)
        elif download.partial:
            self._fetcher.rewind(download, download.rewind_why)
        elif not (download.small or download.is_unasked):
            self._open(download)
        download.rewind_why = ""
        self._ready_for_more(download)

    def fetch_small(self, work: Work) -> None:
        """Fetch and verify a small file, and have it published together with others. Raises `MdlError`, `OSError`."""
        download = work.download
        segment = work.segment
        assert segment is not None
        if not download.is_begun:
            self._begin(download)
        data = self._fetcher.fetch_small(download, segment)
        if data is None:
            with self._turns.turn() as (schedule, now):
                schedule.request_ended(download, segment, now)
            return
        download.responses += 1
        algorithm = download.remote.hash_algorithm
        hasher = new_hasher(algorithm, len(data))
        hasher.update(data)
        print_ = Fingerprint(Digest(algorithm, hasher.hexdigest()), len(data))
        error = _why_wrong(download, print_, data[:LOOKED_AT])
        error = error or _why_cut(download, print_, io.BytesIO(data))
        if error:
            self._discarded(download, len(data), error.message)
            raise error
        staged = self._store.stage(data)
        with self._turns.turn() as (schedule, now):
            schedule.fetched(work, now)
        self._small.add((work, self._ready(download, staged, print_)))

    def _publish_batch(self, batch: list[tuple[Work, Ready]]) -> None:
        """Publish small files together. An error ends only the file that it concerns."""
        try:
            errors = self._store.publish_all([ready for _, ready in batch])
        except Exception as error:
            errors = [copy.copy(error) for _ in batch]  # each will name its own file
        for (work, ready), why in zip(batch, errors, strict=True):
            try:
                if why:
                    self._on_error(work, why)
                else:
                    self._published(work.download, ready)
            except Exception as error:
                with self._turns.turn() as (schedule, _):
                    schedule.abandon(work, internal_error(error))

    def fetch_via_hub(self, download: Download, segment: Segment, hub_client: HubClient) -> None:
        """Fetch the whole file by the hub's own client; verify and publish it. Raises `MdlError`, `OSError`."""
        remote = download.remote
        assert remote.hub is not None
        with self._store.scratch_folder(download.model, remote) as folder:
            path = hub_client.fetch(remote.hub, folder, segment.count)
            stamp = Stamp.of(path.lstat())
            print_ = self._store.fingerprint(path, remote)
            if remote.digest not in (None, print_.digest):
                raise _mismatch(download, print_)
            self._publish(download, path, print_, stamp)

    def finish(self, download: Download) -> None:
        """Verify a file whose bytes have all come, and publish it or begin again. Raises `MdlError`, `OSError`."""
        partial = download.part
        size = download.remote.size
        assert size is not None
        if download.hasher is None:
            try:
                partial.set_length(size)
            except OSError as refusal:
                if not self.switches_to_order(refusal):
                    raise
                with self._turns.turn() as (schedule, _):
                    schedule.rewind(download, "this folder takes writes in order alone")
                    schedule.ready(download)
                return
            download.hasher = self._fetcher.start_hasher(download)
        self._post(Verifying(download.model, download.name, done=download.hasher.done, total=size))
        print_: Fingerprint | None = None
        error: MdlError | None = None
        cut: MdlError | None = None
        try:
            print_ = download.hasher.result(self._check_cancel)
            if print_ is None:
                self._ready_for_more(download)
                return
            error = self._why_modified(partial, print_) or _why_wrong(
                download, print_, os.pread(partial.fd, LOOKED_AT, 0)
            )
            if error is None:
                with open(partial.fd, "rb", closefd=False) as file:
                    cut = _why_cut(download, print_, file)
        except FileModified as modified:
            error = modified
        error = error or cut
        if download.is_borrowed_from_final and isinstance(error, DigestMismatch):
            error = _is_another(download)
        self._cancel.check()
        came_in_parts = (download.resumed_at > 0 or download.responses > 1) and not download.expected
        may_help = came_in_parts or cut is not None or isinstance(error, FileModified)
        may_help = may_help and not isinstance(error, Occupied)
        with self._turns.turn() as (schedule, now):
            schedule.decide(download, Verified(error, may_help, download.fetched), now)
        if print_ and error is None and not download.error:
            self._publish(download, partial, print_)
            return
        if download.error and error:
            partial.discard()  # the file failed, and no byte of it is worth keeping
            self._discarded(download, partial.total, error.message)
        download.expected = ()
        self._ready_for_more(download)

    def close(self, download: Download) -> None:
        """Close a file that failed, and report it. The bytes that came are kept."""
        error = download.error or NetworkError("not reached")
        error = error.on(download.remote.label or f"{download.model}/{download.name}")
        is_kept = download.done and not (download.partial and download.partial.is_in_order)
        if not is_kept and error.advice:
            error = error.but(hint=error.advice.removesuffix(KEPT))
        download.error = error
        try:
            if download.hasher:
                download.hasher.stop()
            if download.partial:
                download.partial.sync()
        except OSError:
            pass  # what could not be synced may be fetched again
        finally:
            if download.partial:
                with contextlib.suppress(OSError):
                    download.partial.close()
            self._post(Failed(download.model, download.name, error.code, error.message, error.advice, error.item))
            with self._turns.turn() as (schedule, _):
                schedule.end(download)

    def _discarded(self, download: Download, count: int, why: str) -> None:
        with self._turns.turn() as (schedule, _):
            schedule.discarded(download, count, why)

    def _ready_for_more(self, download: Download) -> None:
        with self._turns.turn() as (schedule, _):
            schedule.ready(download)

    def _why_modified(self, partial: Partial, print_: Fingerprint) -> FileModified | None:
        """The error if another program changed the file while it was written. If that may be, the whole file is hashed
        again: the digest is that of the bytes as they were before. Raises `OSError`."""
        try:
            if partial.seal(print_.size):
                return None
        except OSError as error:
            if partial.is_in_order or not self.switches_to_order(error):
                raise
            return FileModified("this folder does not take a file that is cut")
        if not partial.was_cut:
            now = fingerprint(partial.fd, print_.digest.algorithm, watch=self._check_cancel)
            if now.digest == print_.digest:
                return None
        return FileModified()

    def _check_cancel(self, _done: int) -> None:
        self._cancel.check()

    def _publish(
        self, download: Download, source: Partial | Path, print_: Fingerprint, stamp: Stamp | None = None
    ) -> None:
        ready = self._ready(download, source, print_, stamp)
        self._store.publish(ready)
        self._published(download, ready)

    def _ready(
        self,
        download: Download,
        source: Partial | Path | StagedFile,
        print_: Fingerprint,
        stamp: Stamp | None = None,
    ) -> Ready:
        verified = "none" if download.length_discovered else "size"
        if download.digest:
            verified = download.digest.algorithm
        return Ready(download.model, download.remote, source, print_, verified, download.seen, stamp)

    def _published(self, download: Download, ready: Ready) -> None:
        download.fingerprint = ready.fingerprint
        download.verified = ready.verified
        source = host_of(download.answered_by or download.url)
        size = ready.fingerprint.size
        with self._turns.turn() as (schedule, _):
            schedule.end(download)
        self._post(Finished(download.model, download.name, size=size, verified=ready.verified, source=source))


_IN_ORDER = "one connection a file, and what breaks starts anew"


def _is_another(download: Download) -> Occupied:
    """The error for a file under the final name that turned out to be no part of the one that is wanted."""
    hint = "use --force to replace it, or --to for another folder"
    return Occupied("another file is there, which is no part of this one", item=download.name, hint=hint)


def _why_wrong(download: Download, print_: Fingerprint, beginning: bytes) -> MdlError | None:
    """The error if this is not the file that was asked for, by its digest, or by its first bytes if no digest is
    known."""
    error: MdlError | None = None
    if download.digest is None:
        name = download.remote.name_by_content(beginning)
        error = check_content(name, beginning, print_.size, url=download.answered_by)
    elif download.digest != print_.digest:
        mismatch = _mismatch(download, print_)
        error = name_impostor(mismatch, beginning) if download.small else mismatch
    if error:
        download.redact(error)
    return error


def _why_cut(download: Download, print_: Fingerprint, file: ReadableFile) -> MdlError | None:
    """The error if the end of a file is missing of which no digest is known."""
    if download.digest is not None:
        return None
    name = download.remote.name_by_content(read_at(file, 0, LOOKED_AT))
    return check_whole(file, print_.size, name)


def _mismatch(download: Download, print_: Fingerprint) -> DigestMismatch:
    return DigestMismatch(
        f"wrong bytes from {host_of(download.url)}: {print_.digest}, expected {download.digest}",
        hint="the source or the catalog's digest is wrong; look at both",
    )
