"""Transfer: carry a Plan out. Workers fetch, followers hash, one thread syncs, the caller's thread tells.

Every event reaches the listener from the thread that called `transfer`, so a listener needs no lock.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mdl.download.delivery import Delivery
from mdl.download.fetch import Fetcher
from mdl.download.hub_carrier import HubCarrier
from mdl.download.plan import Item
from mdl.download.schedule import Schedule, Work
from mdl.download.segments import Download
from mdl.download.store import Store
from mdl.errors import Cancelled, Deadline, MdlError, NetworkError, fault_of
from mdl.events import Event, Failed, FileProgress, Listener, Progressed
from mdl.net.http import Http
from mdl.net.retry import Backoff
from mdl.speed import Speed

_TICK = 0.1
_SYNC_BYTES = 2**20
_SYNC_SECONDS = 1.0
_SYNC_WORTH_SECONDS = 0.025
"""A sync is worth it for a megabyte, or for what comes in this time: at high speed syncs hold the writers up."""
_LAST_SYNC_SECONDS = 0.25


@dataclass(frozen=True)
class Limits:
    """``connections`` in all at once (8), ``retries``: attempts without progress (5), ``is_over``: whether to stop now,
    asked at every tick."""

    connections: int = 8
    retries: int = 5
    is_over: Callable[[], bool] = lambda: False


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
    carrier: HubCarrier | None = None,
) -> Result:
    """Fetch, verify and publish every item; the hub's files by the ``carrier`` where one is given.

    Raises `Cancelled` (and ``KeyboardInterrupt`` as it) once what is there is safe, with the `Result` so far; every
    other trouble is in the outcomes.
    """
    return _Transfer(items, store, http, limits, tell, bytes_kept, repair, carrier).run()


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
        carrier: HubCarrier | None,
    ) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._downloads = [
            Download(item, n, limits.connections, carried=carrier is not None) for n, item in enumerate(items, 1)
        ]
        self._schedule = Schedule(self._downloads, limits.connections, Backoff(limits.retries), self._events.put)
        self._fetcher = Fetcher(http, self._schedule, self._events.put, lambda: store.free_bytes())
        self._store, self._http, self._limits, self._tell = store, http, limits, tell
        self._whole_files_kept, self._carrier = bytes_kept, carrier
        self._delivery = Delivery(
            store, self._schedule, self._fetcher, self._events.put, http.cancel, count=len(items), repair=repair
        )
        self._speed = Speed(time.monotonic())
        self._rate = 0.0
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
                if self._limits.is_over():
                    raise Deadline("its time is over")
            for worker in workers:
                worker.join()
        except (KeyboardInterrupt, Cancelled) as error:
            self._stopped()
            stopped = error if isinstance(error, Cancelled) else Cancelled()
            stopped.so_far = self._result(stopped)
            raise stopped from error
        finally:
            self._stop_syncing.set()
        self._tick()
        return self._result(NetworkError("not reached"))

    def _most_work(self) -> int:
        """How many workers could ever be busy."""
        return sum(1 if download.small else self._limits.connections for download in self._downloads)

    def _stopped(self) -> None:
        """Wake every blocked thread, then sync and claim what was written, but do not make the user wait."""
        self._http.cancel.set()
        self._schedule.close()
        last = threading.Thread(target=self._checkpoint_all, daemon=True)
        last.start()
        for download in list(self._schedule.active):
            if download.follower:
                download.follower.stop(wait=False)
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
        rate = self._rate = self._speed.observe(now, fetched)
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
            enough = max(_SYNC_BYTES, int(self._rate * _SYNC_WORTH_SECONDS))
            for download in list(self._schedule.active):
                partial = download.partial
                if partial is None or download.busy or partial.unclaimed < (1 if due else enough):
                    continue
                try:
                    partial.checkpoint()
                except OSError as error:
                    self._end(download, self._store.trouble(error, download.name))
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
                self._give_up(work, self._store.trouble(error, work.download.name))
            except MdlError as error:
                self._give_up(work, error)
            except BaseException as error:
                self._give_up(work, fault_of(error))

    def _give_up(self, work: Work, error: MdlError) -> None:
        download = work.download
        if self._http.cancel.is_set():
            return
        if work.kind != "fetch" or work.segment is None:
            self._end(download, error)
        elif self._schedule.failed(download, work.segment, error):
            self._failed(download, download.error or error)
        elif download.ended:
            self._close(download)

    def _end(self, download: Download, error: MdlError) -> None:
        if self._schedule.end(download, error):
            self._failed(download, error)

    def _failed(self, download: Download, error: MdlError) -> None:
        self._close(download)
        error.on(f"{download.model}/{download.name}")
        self._events.put(Failed(download.model, download.name, error.code, error.message, error.hint))

    def _do(self, work: Work) -> None:
        download = work.download
        if work.kind == "begin":
            self._delivery.begin(download)
        elif work.kind == "rewind":
            self._fetcher.rewind(download, download.rewind_why)
            self._schedule.ready(download)
        elif work.kind == "finish":
            self._delivery.finish(download)
        elif download.carried and self._carrier:
            self._delivery.carried(download, self._carrier)
        elif download.small and work.segment:
            self._delivery.small(download, work.segment)
        elif work.segment:
            self._fetcher.fetch(download, work.segment)
            self._schedule.returned(download, work.segment)
            if download.ended:
                self._close(download)

    def _close(self, download: Download) -> None:
        """Put a file that failed away, once nothing runs on it any more."""
        if download.running:
            return
        if download.follower:
            download.follower.stop()
        if download.partial:
            try:
                download.partial.checkpoint()
            except OSError:
                pass
            download.partial.close()

    def _result(self, lost: MdlError) -> Result:
        """How every file ended; ``lost`` stands for those that did not."""
        return Result(
            [Outcome(d, d.error if d.ended else lost, d.verified) for d in self._downloads],
            sum(d.fetched for d in self._downloads),
            sum(d.discarded for d in self._downloads),
        )
