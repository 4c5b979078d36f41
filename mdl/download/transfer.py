"""Transfer: carry a Plan out. Workers fetch, followers hash, one thread syncs, the caller's thread tells.

Every event reaches the listener from the thread that called `transfer`, so a listener needs no lock.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field

from mdl.digests import Digest, Fingerprint, new_hasher
from mdl.download.fetch import Fetcher
from mdl.download.plan import Item
from mdl.download.schedule import Schedule, Work
from mdl.download.segments import Download
from mdl.download.speed import Speed
from mdl.download.store import Store
from mdl.errors import Cancelled, DigestMismatch, MdlError, NetworkError, storage_error
from mdl.events import Event, Failed, FileProgress, Finished, Listener, Progressed, Rewound, Started, Verifying
from mdl.net.hosts import host_of
from mdl.net.http import Http
from mdl.net.retry import Backoff

_TICK = 0.1
_SYNC_BYTES = 2**20
_SYNC_SECONDS = 1.0
_LAST_SYNC_SECONDS = 0.25


@dataclass(frozen=True)
class Limits:
    """``connections`` in all at once (8), ``retries``: attempts without progress (5)."""

    connections: int = 8
    retries: int = 5


@dataclass
class Outcome:
    """How the fetching of one file ended. ``error`` is None where it stands under its final name."""

    download: Download
    error: MdlError | None
    verified: str = "none"


@dataclass
class Result:
    """All outcomes, and bytes: from the network and thrown away."""

    outcomes: list[Outcome] = field(default_factory=list)
    bytes_fetched: int = 0
    bytes_discarded: int = 0


def transfer(
    items: tuple[Item, ...],
    store: Store,
    http: Http,
    limits: Limits,
    tell: Listener,
    *,
    bytes_kept: int = 0,
    repair: bool = False,
) -> Result:
    """Fetch, verify and publish every item. Raises `Cancelled` (and ``KeyboardInterrupt`` as it) once what is
    there is safe; every other trouble is in the outcomes."""
    return _Transfer(items, store, http, limits, tell, bytes_kept, repair).run()


class _Transfer:
    def __init__(
        self,
        items: tuple[Item, ...],
        store: Store,
        http: Http,
        limits: Limits,
        tell: Listener,
        bytes_kept: int,
        repair: bool,
    ) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._downloads = [Download(item, n, limits.connections) for n, item in enumerate(items, 1)]
        self._schedule = Schedule(self._downloads, limits.connections, Backoff(limits.retries), self._events.put)
        self._fetcher = Fetcher(http, self._schedule, self._events.put)
        self._store, self._http, self._limits, self._tell = store, http, limits, tell
        self._whole_files_kept, self._repair = bytes_kept, repair
        self._verified: dict[Download, str] = {}
        self._speed = Speed(time.monotonic())
        self._stop_syncing = threading.Event()

    def run(self) -> Result:
        workers = [
            threading.Thread(target=self._work, name=f"mdl-worker-{n}", daemon=True)
            for n in range(min(self._limits.connections, max(1, self._most_work())))
        ]
        syncer = threading.Thread(target=self._sync, name="mdl-syncer", daemon=True)
        try:
            for thread in [*workers, syncer]:
                thread.start()
            while self._schedule.wait(_TICK):
                self._tick()
            for worker in workers:
                worker.join()
        except (KeyboardInterrupt, Cancelled) as error:
            self._stopped()
            if isinstance(error, KeyboardInterrupt):
                raise Cancelled from error
            raise
        finally:
            self._stop_syncing.set()
        self._tick()
        return self._result()

    def _most_work(self) -> int:
        """How many workers could ever be busy."""
        return sum(1 if download.small else self._limits.connections for download in self._downloads)

    def _stopped(self) -> None:
        """Wake every blocked thread, then sync and claim what was written, but do not make the user wait."""
        self._http.cancel.set()
        self._schedule.close()
        last = threading.Thread(target=self._checkpoint_all, daemon=True)
        last.start()
        last.join(_LAST_SYNC_SECONDS)
        while not self._events.empty():
            self._tell(self._events.get())

    def _checkpoint_all(self) -> None:
        for download in list(self._schedule.active):
            if download.partial:
                try:
                    download.partial.checkpoint()
                except OSError:
                    continue

    def _tick(self) -> None:
        while not self._events.empty():
            self._tell(self._events.get())
        now = time.monotonic()
        running = [download for download in list(self._schedule.active) if not download.ended]
        for download in running:
            download.ramp.observe(now, download.fetched)
        fetched = sum(download.fetched for download in self._downloads)
        total = self._whole_files_kept + sum(download.remote.size or 0 for download in self._downloads)
        done = self._whole_files_kept + sum(download.done for download in self._downloads)
        rate = self._speed.observe(now, fetched)
        self._tell(
            Progressed(
                bytes_done=done,
                bytes_total=total,
                bytes_per_second=rate,
                eta_seconds=(total - done) / rate if rate else None,
                files=tuple(
                    FileProgress(d.model, d.name, d.index, d.done, d.remote.size, d.resumed_at) for d in running
                ),
            )
        )

    def _sync(self) -> None:
        """Claim what was written, soon and often: a kill then costs next to nothing, and so does the last sync."""
        last = time.monotonic()
        while not self._stop_syncing.wait(0.02):
            due = time.monotonic() - last > _SYNC_SECONDS
            for download in list(self._schedule.active):
                partial = download.partial
                if partial is None or download.busy or partial.unclaimed < (1 if due else _SYNC_BYTES):
                    continue
                try:
                    partial.checkpoint()
                except OSError as error:
                    self._end(download, storage_error(error, download.name))
            last = time.monotonic() if due else last

    def _work(self) -> None:
        while True:
            work = self._schedule.take()
            if work is None:
                return
            try:
                self._do(work)
            except Cancelled:
                return
            except OSError as error:
                self._give_up(work, storage_error(error, work.download.name))
            except MdlError as error:
                self._give_up(work, error)
            except BaseException as error:
                fault = MdlError(f"{type(error).__name__}: {error}", hint="this is a fault in mdl; please report it")
                fault.__cause__ = error
                self._give_up(work, fault)

    def _give_up(self, work: Work, error: MdlError) -> None:
        download = work.download
        if self._http.cancel.is_set():
            return
        if work.kind == "fetch" and work.segment:
            self._schedule.failed(download, work.segment, error)
        else:
            self._end(download, error)
            return
        if download.ended and download.error:
            self._failed(download, download.error)

    def _end(self, download: Download, error: MdlError) -> None:
        if not download.ended:
            self._schedule.end(download, error)
            self._failed(download, error)

    def _failed(self, download: Download, error: MdlError) -> None:
        self._close(download)
        error.on(f"{download.model}/{download.name}")
        self._events.put(Failed(download.model, download.name, error.code, error.message, error.hint))

    def _do(self, work: Work) -> None:
        download = work.download
        if work.kind == "begin":
            self._begin(download)
        elif work.kind == "rewind":
            self._fetcher.rewind(download, download.rewind_why)
            self._schedule.ready(download)
        elif work.kind == "finish":
            self._finish(download)
        elif download.small and work.segment:
            self._small(download)
        elif work.segment:
            self._fetcher.fetch(download, work.segment)
            self._schedule.returned(download, work.segment)

    def _begin(self, download: Download) -> None:
        if not download.small:
            self._open(download)
        self._events.put(
            Started(
                download.model,
                download.name,
                index=download.index,
                count=len(self._downloads),
                total=download.remote.size,
                resumed_at=download.resumed_at,
                host=host_of(download.url),
            )
        )
        self._schedule.ready(download)

    def _open(self, download: Download) -> None:
        remote = download.remote
        receipt = self._store.receipts.get(download.model, remote.path, prefixes=True) if self._repair else None
        if receipt and receipt.digest == remote.digest and receipt.prefixes and download.item.local.kind == "file":
            download.expected = (*receipt.prefixes, receipt.digest.hex)
            partial = self._store.open_damaged(download.model, remote, receipt)
        else:
            partial = self._store.open_partial(download.model, remote)
        download.partial = partial
        download.resumed_at = partial.total
        if partial.dropped:
            download.discarded += partial.dropped
            self._events.put(
                Rewound(download.model, download.name, bytes_discarded=partial.dropped, why=partial.dropped_why)
            )
        if remote.size is not None:
            partial.stretch(remote.size)
            for gap in partial.gaps(remote.size):
                download.pending.add(gap.start, gap.stop)
            download.follower = self._fetcher.follower(download)

    def _small(self, download: Download) -> None:
        data = self._fetcher.fetch_small(download)
        download.answers += 1
        algorithm = download.remote.digest.algorithm if download.remote.digest else "sha256"
        hasher = new_hasher(algorithm, len(data))
        hasher.update(data)
        print_ = Fingerprint(Digest(algorithm, hasher.hexdigest()), len(data))
        download.progressed(len(data))
        if download.remote.digest and print_.digest != download.remote.digest:
            download.discarded += len(data)
            raise _mismatch(download, print_.digest)
        verified = _verified(download)
        self._store.publish_small(download.model, download.remote, data, print_, verified)
        self._published(download, print_, verified)

    def _finish(self, download: Download) -> None:
        partial, size = download.partial, download.remote.size
        assert partial is not None
        assert size is not None
        if download.follower is None:
            partial.stretch(size)
            download.follower = self._fetcher.follower(download)
        self._events.put(Verifying(download.model, download.name, done=download.follower.done, total=size))
        print_ = download.follower.result(self._verify_tick)
        if print_ is None:
            self._schedule.ready(download)
            return
        if download.remote.digest and print_.digest != download.remote.digest:
            self._mismatched(download, print_.digest)
            return
        verified = _verified(download)
        self._store.publish(download.model, download.remote, partial, print_, verified)
        self._published(download, print_, verified)

    def _verify_tick(self, _done: int) -> None:
        self._http.cancel.check()

    def _mismatched(self, download: Download, got: Digest) -> None:
        """Wrong bytes: once more where they came in several answers, then the next mirror, then the end."""
        error = _mismatch(download, got)
        several = download.resumed_at > 0 or download.answers > 1
        if several and not download.clean_retry_done:
            download.clean_retry_done = True
        elif download.candidate + 1 < len(download.candidates):
            download.candidate += 1
            download.others.append(error)
        else:
            lost = download.partial.total if download.partial else 0
            download.discarded += lost
            if download.partial:
                download.partial.discard()
            self._events.put(Rewound(download.model, download.name, bytes_discarded=lost, why=error.message))
            raise error
        download.expected = ()
        self._fetcher.rewind(download, error.message)
        self._schedule.ready(download)

    def _published(self, download: Download, print_: Fingerprint, verified: str) -> None:
        download.fingerprint = print_
        self._verified[download] = verified
        self._schedule.end(download, None)
        self._events.put(Finished(download.model, download.name, size=print_.size, verified=verified))

    def _close(self, download: Download) -> None:
        if download.follower:
            download.follower.stop()
        if download.partial and not download.running:
            try:
                download.partial.checkpoint()
            except OSError:
                pass
            download.partial.close()

    def _result(self) -> Result:
        lost = NetworkError("not reached")
        return Result(
            [Outcome(d, d.error if d.ended else lost, self._verified.get(d, "none")) for d in self._downloads],
            sum(d.fetched for d in self._downloads),
            sum(d.discarded for d in self._downloads),
        )


def _verified(download: Download) -> str:
    """What the bytes were held against."""
    if download.remote.digest:
        return download.remote.digest.algorithm
    return "none" if download.streamed else "size"


def _mismatch(download: Download, got: Digest) -> DigestMismatch:
    return DigestMismatch(
        f"wrong bytes from {host_of(download.url)}: {got}, expected {download.remote.digest}",
        hint="the source or the catalog's digest is wrong; look at both",
    )
