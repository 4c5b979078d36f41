"""The shared schedule: several threads use one schedule, one after the other.

A worker takes work, does it without the lock, and takes the lock again to say how it went. The lock, the clock and the
waiting are here, and nothing else. (ADR 98)
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from mdl.downloader.download import Download
from mdl.downloader.schedule import Schedule, Work
from mdl.downloader.segment import Segment
from mdl.net.ranges import ByteRange


class SharedSchedule:
    """The schedule of one transfer, for all of its threads. ``add_worker`` starts one more of them, if there may be
    more: it is called when one has got work and no other waits for some."""

    def __init__(self, schedule: Schedule, add_worker: Callable[[], None]) -> None:
        self._schedule = schedule
        self._add_worker = add_worker
        self._waiting = 0
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._over = threading.Condition(lock)
        self._is_closed = False

    @contextlib.contextmanager
    def locked(self) -> Iterator[tuple[Schedule, float]]:
        """Give the schedule, which no other thread uses within the block, and the time. There may be work
        afterwards."""
        with self._changed:
            yield self._schedule, time.monotonic()
            self._changed.notify()
            if self._schedule.is_over:
                self._wake_all()

    def begin_block(self, segment: Segment, length: int) -> int:
        """Return how many of the next ``length`` bytes the segment writes now; no other thread cuts it meanwhile."""
        with self._changed:
            return segment.begin_block(length)

    def discarded(self, download: Download, count: int, why: str, start: int | None = None) -> None:
        """Report that bytes of a file were discarded, unless there were none."""
        if count:
            with self.locked() as (schedule, _):
                schedule.discarded(download, count, why, start)

    def block_is_bad(self, download: Download, block: ByteRange) -> None:
        """Have a block of a running file fetched again."""
        with self.locked() as (schedule, _):
            schedule.discarded(download, block.length, "this block is damaged", block.start)
            download.pending.add(block.start, block.stop)

    def take(self) -> Work | None:
        """Return the next piece of work; waits for one. None if there will be no more."""
        with self._changed:
            while not self._is_closed and not self._schedule.is_over:
                now = time.monotonic()
                work = self._schedule.next(now)
                if work:
                    self._call_another()
                    return work
                self._waiting += 1
                try:
                    self._changed.wait(self._schedule.seconds_to_next_look(now))
                finally:
                    self._waiting -= 1
            return None

    def _call_another(self) -> None:
        """There may be more work, for a thread that waits or for a new one."""
        if self._waiting:
            self._changed.notify()
        else:
            self._add_worker()

    def wait(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the end; returns whether work is left."""
        with self._over:
            if not self._is_closed and not self._schedule.is_over:
                self._over.wait(seconds)
            return not self._is_closed and not self._schedule.is_over

    def close(self) -> None:
        """Hand out no more work."""
        with self._changed:
            self._is_closed = True
            self._wake_all()

    def _wake_all(self) -> None:
        self._changed.notify_all()
        self._over.notify_all()
