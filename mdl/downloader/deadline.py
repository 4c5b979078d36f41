"""When a command has to stop: after so many seconds of work, or outside of its hours of the day."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator

from mdl.cancel import CancelToken
from mdl.disk.pool import start_threads
from mdl.errors import DeadlineReached
from mdl.units import Window

_LOOK_SECONDS = 1.0
"""How often the wall clock is looked at: clocks are set, and machines sleep."""


class TimeLimit:
    """When a command has to stop: after ``seconds`` of work, and as soon as the wall clock is outside of ``window``,
    also if the machine slept, the clock was set, or daylight saving began."""

    def __init__(
        self,
        seconds: float = math.inf,
        window: Window | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], time.struct_time] = time.localtime,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._window = window
        self._until = clock() + seconds

    def reason(self) -> str:
        """Why to stop now, in words; "" as long as the work may go on."""
        if self._window is not None:
            now = self._wall()
            if not self._window.is_open(now.tm_hour * 60 + now.tm_min + now.tm_sec / 60):
                return f"outside the download window ({self._window})"
        return "the time limit (--max-duration) is over" if self._clock() >= self._until else ""

    def next_look(self) -> float:
        """In how many seconds to ask again at the latest; infinite if there is no limit."""
        left = max(self._until - self._clock(), 0.001)
        return left if self._window is None else min(left, _LOOK_SECONDS)


@contextlib.contextmanager
def time_limit(limit: TimeLimit, cancel: CancelToken) -> Iterator[None]:
    """Within the block, ``cancel`` is set with a `DeadlineReached` as soon as the limit is over, by a thread."""
    if not math.isfinite(limit.next_look()):
        yield
        return
    is_done = threading.Event()

    def look() -> None:
        while not is_done.wait(min(limit.next_look(), threading.TIMEOUT_MAX)):
            reason = limit.reason()
            if reason:
                cancel.set(DeadlineReached(reason))
                return

    watchers = start_threads("mdl-deadline", [look])
    try:
        yield
    finally:
        is_done.set()
        for watcher in watchers:
            watcher.join()
