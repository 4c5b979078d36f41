"""Transfer: fetch the files of a plan. Workers fetch, hashers hash, one thread syncs, and the calling thread reports.

Every event reaches the listener from the thread that called `transfer`, so a listener needs no lock. That thread also
supervises the others: an unexpected exception in a worker ends the file that it worked on, never the worker, and if no
worker is left the transfer ends.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass, field

from mdl.engine.download import Download, Tuning
from mdl.engine.fetch import Fetcher
from mdl.engine.finalize import Finalizer
from mdl.engine.hub_client import HubClient
from mdl.engine.plan import Item
from mdl.engine.queue import Work, WorkQueue
from mdl.engine.store import Store
from mdl.errors import Cancelled, MdlError, NetworkError, StorageError, internal_error
from mdl.events import Event, Failed, FileProgress, Listener, Progressed
from mdl.http.client import HttpClient
from mdl.threads import start_threads
from mdl.units import Speed

_TICK = 0.1
_SYNC_BYTES = 2**20
_SYNC_SECONDS = 1.0
_SYNC_WORTH_SECONDS = 0.025
"""Bytes are synced once there is a megabyte of them, or what comes in this time: frequent syncs slow the writers."""
_LAST_SYNC_SECONDS = 0.25
DEFAULT = Tuning()


@dataclass
class Outcome:
    """How the fetching of one file ended. ``error`` is None if it was published."""

    download: Download
    error: MdlError | None
    verified: str = "none"


@dataclass
class Result:
    """All outcomes, and how many bytes came from the network and were discarded."""

    outcomes: list[Outcome] = field(default_factory=list)
    bytes_fetched: int = 0
    bytes_discarded: int = 0


def transfer(
    items: tuple[Item, ...],
    store: Store,
    http: HttpClient,
    tell: Listener,
    *,
    bytes_kept: int = 0,
    repair: bool = False,
    hub_client: HubClient | None = None,
    tuning: Tuning | None = None,
) -> Result:
    """Fetch, verify and publish every item, over at most ``http.connections`` connections at once.

    ``tell`` gets the events. ``bytes_kept`` are the bytes of whole files that are on the disk already, for the
    progress. With ``repair`` only the bad blocks of damaged files are fetched. The ``hub_client``, if there is one,
    fetches the hub's files. Raises `Cancelled`, also for a ``KeyboardInterrupt``, once what was written is safe, with
    the `Result` so far in ``so_far``; every other error is in the outcomes.
    """
    return _Transfer(items, store, http, tell, bytes_kept, repair, hub_client, tuning or DEFAULT).run()


class _Transfer:
    def __init__(
        self,
        items: tuple[Item, ...],
        store: Store,
        http: HttpClient,
        tell: Listener,
        bytes_kept: int,
        repair: bool,
        hub_client: HubClient | None,
        tuning: Tuning,
    ) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._downloads = [
            Download(item, n, http.connections, via_hub=hub_client is not None, tuning=tuning)
            for n, item in enumerate(items, 1)
        ]
        self._queue = WorkQueue(self._downloads, http.connections, http.policy, http.pacer, self._events.put)
        self._fetcher = Fetcher(http, self._queue, store.free_space)
        self._store, self._http, self._tell = store, http, tell
        self._bytes_kept, self._hub_client = bytes_kept, hub_client
        self._finalizer = Finalizer(
            store, self._queue, self._fetcher, self._events.put, http.cancel, count=len(items), repair=repair
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
            while self._queue.wait(_TICK):
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
        """How many workers could work at the same time."""
        return sum(1 if download.small else self._http.connections for download in self._downloads)

    def _stopped(self, stopped: Cancelled) -> None:
        """Wake every blocked thread, then sync and claim what was written, without making the user wait."""
        self._http.cancel.set(stopped)
        self._queue.close()
        self._stop_syncing.set()
        last = start_threads("mdl-last-sync", [self._sync_all])
        for download in list(self._queue.active):
            if download.hasher:
                download.hasher.stop(wait=False)
        for thread in last:
            thread.join(_LAST_SYNC_SECONDS)
        if not any(thread.is_alive() for thread in last):
            self._close_partials(time.monotonic() + _LAST_SYNC_SECONDS)
        while not self._events.empty():
            self._tell(self._events.get())

    def _close_partials(self, until: float) -> None:
        """Close the partials, so that this process could go on with them, if all threads that use them have ended by
        then; they end at once unless a disk keeps them waiting."""
        active = list(self._queue.active)
        hashers = [one.hasher.thread for one in active if one.hasher and one.hasher.thread]
        for thread in (*self._workers, *hashers):
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                return
        for download in active:
            if download.partial:
                with contextlib.suppress(OSError):
                    download.partial.close()

    def _sync_all(self) -> None:
        for download in list(self._queue.active):
            with contextlib.suppress(OSError):
                if download.partial:
                    download.partial.sync_and_claim()

    def _tick(self) -> None:
        while not self._events.empty():
            self._tell(self._events.get())
        now = time.monotonic()
        running = [download for download in list(self._queue.active) if not download.ended]
        for download in running:
            download.scaler.observe(now, download.fetched)
        fetched = sum(download.fetched for download in self._downloads)
        total = self._bytes_kept + sum(download.remote.size or 0 for download in self._downloads)
        done = self._bytes_kept + sum(download.done for download in self._downloads)
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
        """What the syncer does. If it fails for lack of memory, the calling thread syncs instead."""
        with contextlib.suppress(Exception):
            while not self._stop_syncing.wait(0.02):
                self._sync_due()

    def _sync_due(self) -> None:
        """Claim what was written, soon and often: then a kill costs next to nothing, and the last sync is short."""
        now = time.monotonic()
        is_due = now - self._synced_at > _SYNC_SECONDS
        enough = max(_SYNC_BYTES, int(self._rate * _SYNC_WORTH_SECONDS))
        for download in list(self._queue.active):
            partial = download.partial
            if partial is None or download.exclusive or partial.unclaimed < (1 if is_due else enough):
                continue
            try:
                partial.sync_and_claim()
            except OSError as error:
                self._queue.fail(download, self._store.explain_oserror(error, download.name))
            except Exception as error:
                self._queue.fail(download, internal_error(error))
        self._synced_at = now if is_due else self._synced_at

    def _work(self) -> None:
        """What one worker does until nothing is left."""
        try:
            while (work := self._queue.take()) is not None:
                self._carry_out(work)
        except Cancelled:
            return
        except BaseException as error:
            self._fault = internal_error(error)

    def _carry_out(self, work: Work) -> None:
        """Do the work; an error ends this file only. Raises `Cancelled`."""
        try:
            self._do(work)
        except BaseException as error:
            if self._http.cancel.is_set():
                raise Cancelled from error
            self._failed(work, error)

    def _failed(self, work: Work, error: BaseException) -> None:
        download, segment = work.download, work.segment
        if isinstance(error, OSError):
            self._queue.abandon(work, self._store.explain_oserror(error, download.name))
        elif isinstance(error, MdlError) and segment:
            self._queue.request_ended(download, segment, error)
        else:
            self._queue.abandon(work, error if isinstance(error, MdlError) else internal_error(error))

    def _do(self, work: Work) -> None:
        download, segment = work.download, work.segment
        if work.kind == "begin":
            self._finalizer.begin(download)
        elif work.kind == "rewind":
            self._finalizer.rewind(download)
        elif work.kind == "finish":
            self._finalizer.finish(download)
        elif work.kind == "close":
            self._close(download)
        elif segment and download.via_hub and self._hub_client:
            self._finalizer.fetch_via_hub(download, self._hub_client)
        elif segment and download.small:
            self._finalizer.fetch_small(download, segment)
        elif segment:
            self._fetcher.fetch(download, segment)
            self._queue.request_ended(download, segment)

    def _close(self, download: Download) -> None:
        """Close a file that failed, and report it. The bytes that came are kept."""
        error = download.error or NetworkError("not reached")
        error.on(f"{download.model}/{download.name}")
        try:
            if download.hasher:
                download.hasher.stop()
            if download.partial:
                download.partial.sync_and_claim()
        except OSError:
            pass  # what could not be synced is not claimed, and will be fetched again
        finally:
            if download.partial:
                with contextlib.suppress(OSError):
                    download.partial.close()
            self._events.put(Failed(download.model, download.name, error.code, error.message, error.hint))
            self._queue.end(download)

    def _result(self, lost: MdlError) -> Result:
        """How every file ended; ``lost`` is the error of those that did not."""
        return Result(
            [Outcome(d, d.error if d.ended else lost, d.verified) for d in self._downloads],
            sum(d.fetched for d in self._downloads),
            sum(d.discarded for d in self._downloads),
        )
