"""Transfer: carry a Plan out. Workers fetch, followers hash, one thread syncs, the caller's thread tells.

Every event reaches the listener from the thread that called `transfer`, so a listener needs no lock. That thread also
looks after the others: a fault of a worker ends the file that it had, never the worker, and if no worker is left the
transfer ends.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass, field

from mdl.engine.delivery import Delivery
from mdl.engine.fetch import Fetcher
from mdl.engine.follower import Follower
from mdl.engine.hub_carrier import HubCarrier
from mdl.engine.plan import Item
from mdl.engine.schedule import Schedule, Work
from mdl.engine.segments import Download
from mdl.engine.store import Store
from mdl.errors import Cancelled, MdlError, NetworkError, StorageError, internal_error
from mdl.events import Event, Failed, FileProgress, Listener, Progressed
from mdl.http.client import Http
from mdl.speed import Speed
from mdl.threads import start_threads

_TICK = 0.1
_SYNC_BYTES = 2**20
_SYNC_SECONDS = 1.0
_SYNC_WORTH_SECONDS = 0.025
"""A sync is worth it for a megabyte, or for what comes in this time: at high speed syncs hold the writers up."""
_LAST_SYNC_SECONDS = 0.25


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
    tell: Listener,
    *,
    bytes_kept: int = 0,
    repair: bool = False,
    carrier: HubCarrier | None = None,
) -> Result:
    """Fetch, verify and publish every item, over at most ``http.connections`` at once; the hub's files by the
    ``carrier`` if one is given.

    Raises `Cancelled` (and ``KeyboardInterrupt`` as it) once what is there is safe, with the `Result` so far; every
    other trouble is in the outcomes.
    """
    return _Transfer(items, store, http, tell, bytes_kept, repair, carrier).run()


class _Transfer:
    def __init__(
        self,
        items: tuple[Item, ...],
        store: Store,
        http: Http,
        tell: Listener,
        bytes_kept: int,
        repair: bool,
        carrier: HubCarrier | None,
    ) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._downloads = [
            Download(item, n, http.connections, carried=carrier is not None) for n, item in enumerate(items, 1)
        ]
        self._schedule = Schedule(self._downloads, http.connections, http.policy, http.pacer, self._events.put)
        self._fetcher = Fetcher(http, self._schedule, self._events.put, lambda: store.free_bytes())
        self._store, self._http, self._tell = store, http, tell
        self._whole_files_kept, self._carrier = bytes_kept, carrier
        self._delivery = Delivery(
            store, self._schedule, self._fetcher, self._events.put, http.cancel, count=len(items), repair=repair
        )
        self._speed = Speed(time.monotonic())
        self._rate = 0.0
        self._stop_syncing = threading.Event()
        self._synced_at = time.monotonic()
        self._fault: MdlError | None = None
        self._workers: list[threading.Thread] = []

    def run(self) -> Result:
        most = min(self._http.connections, max(1, self._most_work()))
        try:
            workers = self._workers = start_threads("mdl-worker", [self._work] * most)
            if not workers:
                hint = "raise the limit of processes and threads (ulimit -u, or the container's pids limit)"
                raise StorageError("the system refuses to start a thread", hint=hint)
            syncing = start_threads("mdl-syncer", [self._keep_syncing])
            while self._schedule.wait(_TICK):
                self._tick()
                if not any(thread.is_alive() for thread in syncing):
                    self._sync_due()
                self._http.cancel.check()
                if not any(worker.is_alive() for worker in workers):
                    break
            for worker in workers:
                worker.join()
        except (KeyboardInterrupt, Cancelled) as error:
            stopped = error if isinstance(error, Cancelled) else Cancelled()
            self._stopped(stopped)
            stopped.so_far = self._result(stopped.as_error())
            raise stopped from error
        finally:
            self._stop_syncing.set()
        self._tick()
        return self._result(self._fault or NetworkError("not reached"))

    def _most_work(self) -> int:
        """How many workers could ever be busy."""
        return sum(1 if download.small else self._http.connections for download in self._downloads)

    def _stopped(self, stopped: Cancelled) -> None:
        """Wake every blocked thread, then sync and claim what was written, but do not make the user wait."""
        self._http.cancel.set(stopped)
        self._schedule.close()
        self._stop_syncing.set()
        last = threading.Thread(target=self._checkpoint_all, daemon=True)
        last.start()
        for download in list(self._schedule.active):
            if download.follower:
                download.follower.stop(wait=False)
        last.join(_LAST_SYNC_SECONDS)
        if not last.is_alive():
            self._let_go(time.monotonic() + _LAST_SYNC_SECONDS)
        while not self._events.empty():
            self._tell(self._events.get())

    def _let_go(self, until: float) -> None:
        """Close what is open, if all threads that use it have ended by then, as they do at once if no disk holds them
        up: whoever goes on with it in this process finds it free."""
        active = list(self._schedule.active)
        threads: list[threading.Thread | Follower] = [*self._workers]
        for thread in threads + [one.follower for one in active if one.follower]:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                return
        for download in active:
            if download.partial:
                with contextlib.suppress(OSError):
                    download.partial.close()

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

    def _keep_syncing(self) -> None:
        """What the syncer does; if it cannot, for want of memory, the caller's thread does."""
        with contextlib.suppress(Exception):
            while not self._stop_syncing.wait(0.02):
                self._sync_due()

    def _sync_due(self) -> None:
        """Claim what was written, soon and often: a kill then costs next to nothing, and so does the last sync."""
        now = time.monotonic()
        is_due = now - self._synced_at > _SYNC_SECONDS
        enough = max(_SYNC_BYTES, int(self._rate * _SYNC_WORTH_SECONDS))
        for download in list(self._schedule.active):
            partial = download.partial
            if partial is None or download.busy or partial.unclaimed < (1 if is_due else enough):
                continue
            try:
                partial.checkpoint()
            except OSError as error:
                self._schedule.fail(download, self._store.trouble(error, download.name))
            except Exception as error:
                self._schedule.fail(download, internal_error(error))
        self._synced_at = now if is_due else self._synced_at

    def _work(self) -> None:
        """What one worker does until nothing is left."""
        try:
            while (work := self._schedule.take()) is not None:
                self._carry_out(work)
        except Cancelled:
            return
        except BaseException as error:
            self._fault = internal_error(error)

    def _carry_out(self, work: Work) -> None:
        """Do it; whatever goes wrong ends this file alone. Raises `Cancelled`."""
        try:
            self._do(work)
        except BaseException as error:
            if self._http.cancel.is_set():
                raise Cancelled from error
            self._failed(work, error)

    def _failed(self, work: Work, error: BaseException) -> None:
        download, segment = work.download, work.segment
        if isinstance(error, OSError):
            self._schedule.abandon(work, self._store.trouble(error, download.name))
        elif isinstance(error, MdlError) and segment:
            self._schedule.returned(download, segment, error)
        else:
            self._schedule.abandon(work, error if isinstance(error, MdlError) else internal_error(error))

    def _do(self, work: Work) -> None:
        download, segment = work.download, work.segment
        if work.kind == "begin":
            self._delivery.begin(download)
        elif work.kind == "rewind":
            self._delivery.rewind(download)
        elif work.kind == "finish":
            self._delivery.finish(download)
        elif work.kind == "close":
            self._close(download)
        elif segment and download.carried and self._carrier:
            self._delivery.carried(download, self._carrier)
        elif segment and download.small:
            self._delivery.small(download, segment)
        elif segment:
            self._fetcher.fetch(download, segment)
            self._schedule.returned(download, segment)

    def _close(self, download: Download) -> None:
        """Put a file away that failed, and say so. What is here of it is kept."""
        error = download.error or NetworkError("not reached")
        error.on(f"{download.model}/{download.name}")
        try:
            if download.follower:
                download.follower.stop()
            if download.partial:
                download.partial.checkpoint()
        except OSError:
            pass  # what could not be synced is not claimed: it is fetched again
        finally:
            if download.partial:
                with contextlib.suppress(OSError):
                    download.partial.close()
            self._events.put(Failed(download.model, download.name, error.code, error.message, error.hint))
            self._schedule.end(download)

    def _result(self, lost: MdlError) -> Result:
        """How every file ended; ``lost`` stands for those that did not."""
        return Result(
            [Outcome(d, d.error if d.ended else lost, d.verified) for d in self._downloads],
            sum(d.fetched for d in self._downloads),
            sum(d.discarded for d in self._downloads),
        )
