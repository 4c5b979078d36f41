"""Transfer: fetch the files of a plan. Workers fetch, hashers hash, one thread syncs, and the calling thread reports.

Every event reaches the listener from the thread that called `Transfer.run`, so a listener needs no lock. That thread
also supervises the others: an unexpected exception in a worker ends the file that it worked on, never the worker, and
if no worker is left the transfer ends.
"""

from __future__ import annotations

import contextlib
import math
import queue
import random
import threading
import time
from functools import partial

from mdl.disk.pool import keep_together, start_threads
from mdl.disk.process import free_descriptors
from mdl.downloader.connection_scaler import Tuning
from mdl.downloader.download import Download, FileResult
from mdl.downloader.hub_client import HubClient
from mdl.downloader.open_file import Describe, OpenFile, TransferContext
from mdl.downloader.plan import Item
from mdl.downloader.schedule import MOST_BEGUN, Schedule
from mdl.downloader.shared_schedule import SharedSchedule
from mdl.downloader.store import Store
from mdl.downloader.worker import Worker
from mdl.errors import Cancelled, MdlError, NetworkError, StorageError, internal_error
from mdl.events import Event, FileProgress, Listener, Progressed
from mdl.net.client import HttpClient
from mdl.units import Speed
from mdl.values import value_class

_TICK = 0.1
_SYNC_BYTES = 2**20
_SYNC_SECONDS = 1.0
_SYNC_WORTH_SECONDS = 0.025
"""Bytes are synced once there is a megabyte of them, or what comes in this time: frequent syncs slow the writers. After
a second there may be fewer. Of a large file there are at least as many as are claimed at once."""
_LAST_SYNC_SECONDS = 0.5
_TINY = 128 * 1024
"""Bytes. The work on files that have no more on average is Python's, which runs in one thread at a time."""
_TOGETHER_SECONDS = 1.0
"""So often the threads that work on tiny files are brought to the processor of the reporting thread. That one sleeps
between two looks, and the system wakes it on an idle processor if there is one."""
_OTHER_DESCRIPTORS = 16
"""What a transfer opens besides, and for a moment."""


@value_class
class Result:
    """How every file ended."""

    files: tuple[FileResult, ...]

    @property
    def bytes_fetched(self) -> int:
        """Bytes that came from the network."""
        return sum(file.fetched for file in self.files)

    @property
    def bytes_discarded(self) -> int:
        return sum(file.discarded for file in self.files)


class Transfer:
    """Fetches, verifies and publishes every item, over at most ``http.connections`` connections at once.

    ``tell`` gets the events. ``describe`` reads off the head of an answer what an unasked file is. ``bytes_kept`` are
    the bytes of whole files that are on the disk already, for the progress. With ``repair`` only the bad blocks of
    damaged files are fetched. The ``hub_client``, if there is one, fetches the hub's files. All files together may have
    ``most`` bytes.
    """

    def __init__(
        self,
        items: tuple[Item, ...],
        store: Store,
        http: HttpClient,
        tell: Listener,
        describe: Describe,
        *,
        bytes_kept: int = 0,
        repair: bool = False,
        hub_client: HubClient | None = None,
        most: int | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        via_hub = hub_client is not None
        tuning = tuning or Tuning()
        self._connections, begun = _fitting(http.connections, free_descriptors())
        downloads = [
            Download(item, number, self._connections, via_hub=via_hub, tuning=tuning)
            for number, item in enumerate(items, 1)
        ]
        size = sum(download.size for download in downloads)
        are_small = all(download.small for download in downloads)
        self._are_tiny = are_small and not via_hub and size <= _TINY * len(downloads)
        self._most_workers = self._connections
        if are_small:
            self._most_workers = max(1, min(self._connections, len(downloads)))
        tell_later = self._events.put
        schedule = Schedule(downloads, self._connections, http.policy, http.pacer, tell_later, random.random, begun)
        self._shared = SharedSchedule(schedule, self._add_worker)
        context = TransferContext(
            store,
            http,
            self._shared,
            self._events.put,
            describe,
            count=len(items),
            repair=repair,
            hub_client=hub_client,
            most=math.inf if most is None else most,
        )
        self._worker = Worker(context)
        self._store = store
        self._http = http
        self._tell = tell
        self._bytes_kept = bytes_kept
        self._speed = Speed(time.monotonic())
        self._rate = 0.0
        self._stop_syncing = threading.Event()
        self._synced_at = time.monotonic()
        self._fault: MdlError | None = None
        self._workers: list[threading.Thread] = []

    def run(self) -> Result:
        """Raises `Cancelled`, also for a ``KeyboardInterrupt``, once what was written is safe, with the `Result` so far
        in ``so_far``; every other error is in the outcomes."""
        try:
            self._add_worker()
            if not self._workers:
                hint = "raise the limit of processes and threads (ulimit -u, or the container's pids limit)"
                raise StorageError("the system refuses to start a thread", hint=hint)
            syncing = start_threads("mdl-syncer", [self._keep_syncing])
            together_at = -math.inf
            while self._shared.wait(_TICK):
                if self._are_tiny and time.monotonic() - together_at >= _TOGETHER_SECONDS:
                    together_at = time.monotonic()
                    keep_together(self._workers)
                is_limited = self._http.throttle.is_full
                with self._shared.locked() as (schedule, now):
                    schedule.scale(now, is_limited=is_limited)
                self._report()
                if not any(thread.is_alive() for thread in syncing):
                    self._sync_due()
                self._store.show_life()
                self._http.cancel.check()
                if not any(worker.is_alive() for worker in self._workers):
                    break
            for worker in self._workers:
                worker.join()
        except (KeyboardInterrupt, Cancelled) as error:
            stopped = error if isinstance(error, Cancelled) else Cancelled()
            self._stop(stopped)
            while not self._events.empty():
                self._tell(self._events.get())
            raise stopped.but(so_far=self._result(stopped.as_error())) from error
        except BaseException:  # of the listener, or of a signal handler
            self._stop(Cancelled())
            raise
        finally:
            self._stop_syncing.set()
        self._report()
        return self._result(self._fault or NetworkError("not reached"))

    def _result(self, lost: MdlError) -> Result:
        """Return how every file ended; ``lost`` is the error of those that did not."""
        with self._shared.locked() as (schedule, _):
            return Result(schedule.results(lost))

    def _stop(self, stopped: Cancelled) -> None:
        """Wake every blocked thread, then sync and claim what was written, without making the user wait: threads that
        are still at work then are noted in the store, whose locks stay until they have ended."""
        self._http.cancel.set(stopped)
        self._shared.close()
        self._stop_syncing.set()
        files = self._worker.files
        for file in files:
            file.stop_hasher(wait=False)
        for thread in start_threads("mdl-last-sync", [partial(self._sync_and_close, files)]):
            self._store.at_work.append(thread)
            thread.join(_LAST_SYNC_SECONDS)

    def _sync_and_close(self, files: list[OpenFile]) -> None:
        """Claim what was written; once no thread uses the partials, close them, so that this process could go on with
        them."""
        for file in files:
            file.claim()
        for file in files:  # a slow disk may take longer than mdl waits for it
            file.sync()
        for thread in self._workers:
            if thread.is_alive():  # one that has not begun finds the queue closed
                thread.join()
        for file in self._worker.files:  # a worker may have opened one since
            file.close()

    def _report(self) -> None:
        """Tell the events that were posted, and the progress."""
        for _ in range(self._events.qsize()):  # not until there are none: they may come as fast as they are told
            self._tell(self._events.get())
        running: list[FileProgress] = []
        connections = 0
        with self._shared.locked() as (schedule, now):
            progress = schedule.progress()
            for download in schedule.active:
                running.append(
                    FileProgress(
                        download.model,
                        download.name,
                        download.index,
                        download.done,
                        download.remote.size,
                        download.resumed_at,
                    )
                )
                connections += len(download.running)
        self._rate = self._speed.observe(now, progress.fetched)
        self._tell(
            Progressed(
                bytes_done=self._bytes_kept + progress.done,
                bytes_total=self._bytes_kept + progress.size,
                bytes_per_second=self._rate,
                files=tuple(running),
                connections=connections,
            )
        )

    def _keep_syncing(self) -> None:
        """Do what the syncer does. If it fails for lack of memory, the calling thread syncs instead."""
        with contextlib.suppress(Exception):
            while not self._stop_syncing.wait(0.02):
                self._sync_due()

    def _sync_due(self) -> None:
        """Sync what was written, soon and often: then a power cut costs little, and the last sync is short."""
        now = time.monotonic()
        is_due = now - self._synced_at > _SYNC_SECONDS
        enough = 0 if is_due else max(_SYNC_BYTES, int(self._rate * _SYNC_WORTH_SECONDS))
        for file in self._worker.files:
            partial = file.partial
            if partial is None or file.download.exclusive:
                continue
            if partial.is_worth_syncing(enough):
                self._worker.sync(file)
        if is_due:
            self._synced_at = now

    def _add_worker(self) -> None:
        """Start one more thread that works, unless there are enough, or the system allows no more."""
        if len(self._workers) < self._most_workers:
            start_threads("mdl-worker", [self._work], self._workers)

    def _work(self) -> None:
        """Do the work of one worker until nothing is left."""
        try:
            while True:
                work = self._shared.take()
                if work is None:
                    return
                self._worker.do(work)
                if self._http.cancel.is_set():
                    return
        except BaseException as error:
            self._fault = internal_error(error)


def _fitting(connections: int, descriptors: int) -> tuple[int, int]:
    """Return how many connections, and how many files that are begun, that many descriptors suffice for. A worker has
    up to two sockets, one at a host and one where that redirects to; a file that is begun has up to two descriptors."""
    pairs = (descriptors - _OTHER_DESCRIPTORS) // 2
    fitting = max(1, min(connections, pairs // 2))
    return fitting, max(1, min(max(MOST_BEGUN, fitting), pairs - fitting))
