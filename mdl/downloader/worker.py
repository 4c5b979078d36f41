"""The worker: does what a piece of `Work` says, and tells the schedule how it went.

Open, fetch (`mdl.downloader.fetch`), verify, publish, close. All threads of a transfer share one `Worker`. What follows
from a failure is decided in `mdl.downloader.schedule`, never here.
"""

from __future__ import annotations

import copy
import errno
import io
from pathlib import Path

from mdl.disk import explain_oserror
from mdl.disk.names import name_too_long
from mdl.disk.pool import Batches
from mdl.downloader.content_check import LOOKED_AT
from mdl.downloader.download import Download
from mdl.downloader.fetch import Fetcher
from mdl.downloader.open_file import OpenFile, TransferContext
from mdl.downloader.partial import FileModified, Partial
from mdl.downloader.schedule import Work
from mdl.downloader.segment import Segment
from mdl.downloader.store import Ready
from mdl.errors import MdlError, internal_error
from mdl.events import Failed, Finished, Verifying
from mdl.files import Stamp
from mdl.hashing import Digest, Fingerprint, new_hasher
from mdl.net.allowlist import host_of
from mdl.net.policy import Verified


class Worker:
    """Works on the files of one transfer."""

    def __init__(self, context: TransferContext) -> None:
        self._context = context
        self._store = context.store
        self._http = context.http
        self._shared = context.shared
        self._tell = context.tell
        self._fetcher = Fetcher(context)
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
            file.begin()
            self._is_ready(file)
        elif work.kind == "rewind":
            file.rewind(work.download.rewind_why)
            self._is_ready(file)
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
            file = OpenFile(download, self._context)
            self._files[download] = file
        return file

    def failed(self, work: Work, error: BaseException) -> None:
        """Tell the schedule that a piece of work ended by an error; one that a stop caused means nothing."""
        if self._http.cancel.is_set():
            return
        segment = work.segment
        file = self._files.get(work.download)
        if segment and file and file.begins_anew_in_order(error):
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
            if file.begins_anew_in_order(error):
                return
            explained = self._explained(file.download, error)
            with self._shared.locked():
                file.download.fail(explained)

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

    # Fetch a whole file at once.

    def _fetch_small(self, file: OpenFile, work: Work, segment: Segment) -> None:
        """Fetch and verify a small file, and have it published together with others. Raises `MdlError`, `OSError`."""
        download = file.download
        if not file.is_begun:
            file.begin()
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
        self._small.add((work, file.ready(staged, print_)))

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
        hub_client = self._context.hub_client
        assert hub_client is not None
        assert remote.hub is not None
        with self._store.scratch_folder(download.model, remote) as folder:
            path = hub_client.fetch(remote.hub, folder, segment.count)
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
            print_ = file.hasher.result(self._context.check_cancel)
            if print_ is None:
                self._is_ready(file)  # a block was bad, and is missing again
                return
            error, may_help = file.verify(print_)
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
            if not file.begins_anew_in_order(refusal):
                raise
            self._is_ready(file)
            return False
        file.start_hasher()
        return True

    def _publish(self, file: OpenFile, source: Partial | Path, print_: Fingerprint, stamp: Stamp | None = None) -> None:
        ready = file.ready(source, print_, stamp)
        self._store.publish(ready)
        self._published(file.download, ready)

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
