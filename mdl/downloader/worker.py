"""The worker: does what a piece of `Work` says, and tells the schedule how it went.

Open, fetch (`mdl.downloader.fetch`), verify, publish, close. All threads of a transfer share one `Worker`. What follows
from a failure is decided in `mdl.downloader.schedule`, never here.
"""

from __future__ import annotations

import copy
import errno
import io
from collections.abc import Callable
from pathlib import Path

from mdl.disk import explain_oserror
from mdl.disk.names import name_too_long
from mdl.disk.pool import Batches
from mdl.disk.publish import StagedFile
from mdl.downloader.content_check import LOOKED_AT
from mdl.downloader.download import Download
from mdl.downloader.fetch import Describe, Fetcher
from mdl.downloader.hub_client import HubClient
from mdl.downloader.open_file import OpenFile
from mdl.downloader.partial import FileModified, Partial
from mdl.downloader.schedule import Work
from mdl.downloader.segment import Segment
from mdl.downloader.shared_schedule import SharedSchedule
from mdl.downloader.store import Ready, Store
from mdl.errors import MdlError, Occupied, internal_error
from mdl.events import Event, Failed, Finished, Noticed, Started, Verifying
from mdl.files import Stamp
from mdl.formatting import human_bytes
from mdl.hashing import Digest, Fingerprint, new_hasher
from mdl.net.allowlist import host_of
from mdl.net.client import HttpClient
from mdl.net.policy import Verified

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
        shared: SharedSchedule,
        tell: Callable[[Event], None],
        describe: Describe,
        *,
        count: int,
        repair: bool = False,
        hub_client: HubClient | None = None,
        most: float,
    ) -> None:
        self._store = store
        self._http = http
        self._shared = shared
        self._tell = tell
        self._count = count
        self._repair = repair
        self._hub_client = hub_client
        self._fetcher = Fetcher(store, http, shared, tell, describe, self._open_and_tell, most)
        self._files: dict[Download, OpenFile] = {}
        self._small = Batches(self._publish_batch)

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
        if work.segment is not None:
            self._fetch(file, work, work.segment)
        elif work.kind == "begin":
            self._begin(file)
            self._is_ready(file)
        elif work.kind == "rewind":
            self._rewind(file)
        elif work.kind == "finish":
            self._finish(file)
        else:
            self._close(file)

    def _fetch(self, file: OpenFile, work: Work, segment: Segment) -> None:
        if work.download.via_hub:
            self._fetch_via_hub(file, segment)
        elif work.download.small:
            self._fetch_small(file, work, segment)
        else:
            self._fetcher.fetch(file, segment)
            self._request_ended(file, segment)

    def _file(self, download: Download) -> OpenFile:
        file = self._files.get(download)
        if file is None:  # whoever has its first work is alone with it
            file = OpenFile(download)
            self._files[download] = file
        return file

    def failed(self, work: Work, error: BaseException) -> None:
        """Tell the schedule that a piece of work ended by an error; one that a stop caused means nothing."""
        if self._http.cancel.is_set():
            return
        segment = work.segment
        if segment and self._writes_in_order_after(work.download, error):
            with self._shared.locked() as (schedule, now):
                schedule.request_ended(work.download, segment, now)
            return
        explained = self._explained(work.download, error)
        with self._shared.locked() as (schedule, now):
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
            with self._shared.locked() as (schedule, _):
                schedule.fail(file.download, explained)

    def _explained(self, download: Download, error: BaseException) -> MdlError:
        if isinstance(error, MdlError):
            return error
        if not isinstance(error, OSError):
            return internal_error(error)
        if error.errno == errno.ENAMETOOLONG:
            return name_too_long(self._store.visible_path(download.model, download.remote)).but(item=download.name)
        return explain_oserror(error, download.name, self._store.root)

    # What a worker tells the schedule.

    def _is_ready(self, file: OpenFile) -> None:
        with self._shared.locked() as (schedule, _):
            schedule.ready(file.download)

    def _request_ended(self, file: OpenFile, segment: Segment) -> None:
        with self._shared.locked() as (schedule, now):
            schedule.request_ended(file.download, segment, now)

    def _ends(self, download: Download) -> None:
        self._files.pop(download, None)
        with self._shared.locked() as (schedule, _):
            schedule.end(download)

    # Open a file.

    def _begin(self, file: OpenFile) -> None:
        """Open the partial, or remove one that is not needed. Raises `MdlError`, `OSError`."""
        download = file.download
        if not download.small and not download.via_hub:
            self._open(file)
        else:
            lost = self._store.discard_partials(download.model, download.remote)
            self._shared.discarded(download, lost, "the file comes in one piece")
        self._tell_started(download)

    def _open_and_tell(self, file: OpenFile) -> None:
        """Open the partial of a file that has just been described."""
        self._open(file)
        self._tell_started(file.download)

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
        file.start_hasher(self._shared.block_is_bad)

    def _open_anywhere(self, file: OpenFile) -> None:
        download = file.download
        size = download.remote.size
        file.open_anywhere(self._store, repair=self._repair)
        if size is not None:
            file.part.set_length(size)
            self._borrow(file, size)
        self._shared.discarded(download, file.part.dropped, file.part.dropped_why)
        download.opened(file.part)
        file.start_hasher(self._shared.block_is_bad)

    def _borrow(self, file: OpenFile, size: int) -> None:
        """Take over what another program has left unfinished of the file, if there is anything."""
        download = file.download
        half = download.item.half
        borrowed = file.borrow(half, size, self._check_cancel) if half else 0
        if half and borrowed:
            why = f"{human_bytes(borrowed)} of it are taken from {half.path}; its digest decides whether they are right"
            self._tell(Noticed(download.model, download.name, why))

    def _switches_to_order(self, error: OSError) -> bool:
        """Return whether an error of a partial's means that this folder takes writes in order alone. It is told
        once."""
        is_news = self._store.write_in_order(error)
        if is_news:
            words = error.strerror or str(error)
            self._tell(
                Noticed(message=f"{_IN_ORDER} ({words}): one connection per file, and a broken download starts again")
            )
        return is_news is not None

    def _writes_in_order_after(self, download: Download, error: BaseException) -> bool:
        """Return whether the error means that the folder takes writes in order alone; then the file begins anew, in
        order."""
        file = self._files.get(download)
        if not isinstance(error, OSError) or file is None or not file.is_written_anywhere:
            return False
        if not self._switches_to_order(error):
            return False
        with self._shared.locked() as (schedule, _):
            schedule.rewind(download, _IN_ORDER)
        return True

    def _rewind(self, file: OpenFile) -> None:
        """Begin anew. No byte of a small file is kept that could be discarded, but its new version may be large."""
        download = file.download
        why = download.rewind_why
        if file.partial is None:
            download.begin_anew()
            if not download.small and not download.is_unasked:
                self._open(file)
        elif file.is_written_anywhere and self._store.writes_in_order:
            lost = file.drop()
            download.begin_anew()
            self._open(file)
            self._shared.discarded(download, lost, why)
        else:
            self._shared.discarded(download, file.rewind(self._shared.block_is_bad), why)
        self._is_ready(file)

    # Fetch a whole file at once.

    def _fetch_small(self, file: OpenFile, work: Work, segment: Segment) -> None:
        """Fetch and verify a small file, and have it published together with others. Raises `MdlError`, `OSError`."""
        download = file.download
        if not file.is_begun:
            file.begin()
            self._begin(file)
        data = self._fetcher.fetch_small(file, segment)
        if data is None:
            self._request_ended(file, segment)
            return
        segment.count(len(data))
        algorithm = download.remote.hash_algorithm
        hasher = new_hasher(algorithm, len(data))
        hasher.update(data)
        print_ = Fingerprint(Digest(algorithm, hasher.hexdigest()), len(data))
        error = file.why_wrong(print_, data[:LOOKED_AT]) or file.why_cut(print_, io.BytesIO(data))
        if error:
            self._shared.discarded(download, len(data), error.message)
            raise error
        staged = self._store.stage(data)
        with self._shared.locked() as (schedule, now):
            schedule.fetched(download, segment, now)
        self._small.add((work, self._ready(file, staged, print_)))

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
                with self._shared.locked() as (schedule, _):
                    schedule.abandon(work, internal_error(fault))

    def _fetch_via_hub(self, file: OpenFile, segment: Segment) -> None:
        """Fetch the whole file by the hub's own client; verify and publish it. Raises `MdlError`, `OSError`."""
        download = file.download
        remote = download.remote
        assert self._hub_client is not None
        assert remote.hub is not None
        with self._store.scratch_folder(download.model, remote) as folder:
            path = self._hub_client.fetch(remote.hub, folder, segment.count)
            stamp = Stamp.of(path.lstat())
            print_ = self._store.fingerprint(path, remote)
            if remote.digest not in (None, print_.digest):
                raise file.mismatch(print_)
            with self._shared.locked() as (schedule, now):
                schedule.fetched(download, segment, now)
            self._publish(file, path, print_, stamp)

    # Verify, publish, close.

    def _finish(self, file: OpenFile) -> None:
        """Verify a file whose bytes have all come, and publish it or begin again. Raises `MdlError`, `OSError`."""
        download = file.download
        size = download.remote.size
        if file.hasher is None and not self._hash_at_the_end(file):
            return
        assert file.hasher is not None
        self._tell(Verifying(download.model, download.name, done=file.hasher.done, total=size))
        print_: Fingerprint | None = None
        try:
            print_ = file.hasher.result(self._check_cancel)
            if print_ is None:
                self._is_ready(file)  # a block was bad, and is missing again
                return
            error, may_help = self._verify(file, print_)
        except FileModified as modified:
            error = modified
            may_help = True
        self._http.cancel.check()
        with self._shared.locked() as (schedule, now):
            schedule.decide(download, Verified(error, may_help, download.fetched), now)
        if print_ and error is None and download.error is None:
            self._publish(file, file.part, print_)
            return
        if error and download.error:
            file.part.discard()  # the file failed, and no byte of it is worth keeping
            self._shared.discarded(download, file.part.total, error.message)
        file.forget_expected()
        self._is_ready(file)

    def _hash_at_the_end(self, file: OpenFile) -> bool:
        """Begin to hash a file whose size is known since it ended. Returns whether that is possible: a folder may show
        only now that it takes writes in order alone. Raises `OSError`."""
        assert file.download.remote.size is not None
        try:
            file.part.set_length(file.download.remote.size)
        except OSError as refusal:
            if not self._writes_in_order_after(file.download, refusal):
                raise
            self._is_ready(file)
            return False
        file.start_hasher(self._shared.block_is_bad)
        return True

    def _verify(self, file: OpenFile, print_: Fingerprint) -> tuple[MdlError | None, bool]:
        """Return what is wrong with the bytes of a file, and whether to fetch it once more may help. Raises
        `FileModified`, `OSError`."""
        self._check_as_written(file, print_)
        error = file.why_wrong_on_disk(print_)
        if error is None:
            return file.why_cut_on_disk(print_), True
        if isinstance(error, Occupied) or file.expected:
            return error, False
        return error, file.download.resumed_at > 0 or file.responses > 1

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
        source = host_of(self._files[download].answered_by or download.url)
        size = ready.fingerprint.size
        download.published(ready.fingerprint, ready.verified)
        self._ends(download)
        self._tell(Finished(download.model, download.name, size=size, verified=ready.verified, source=source))

    def _close(self, file: OpenFile) -> None:
        """Close a file that failed, and report it. The bytes that came are kept."""
        download = file.download
        assert download.error is not None
        error = download.error.on(download.remote.label or f"{download.model}/{download.name}")
        if not download.done or file.is_in_order:
            error = error.of_nothing_kept()
        try:
            file.close()
        finally:
            download.failed(error)
            self._tell(Failed(download.model, download.name, error.code, error.message, error.advice, error.item))
            self._ends(download)
