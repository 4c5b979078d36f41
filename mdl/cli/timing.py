"""Timing: the end of the time a command was given, wherever it is then."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

from mdl.cli.signals import the_signals
from mdl.cli.units import Window

_LOOK_SECONDS = 1.0
"""How often the clock on the wall is looked at while nobody else asks."""


class TimeLimit:
    """When a command has to stop: after ``seconds`` of work, and as soon as the clock on the wall is outside of
    ``window``, whether the machine slept, the clock was set, or daylight saving began."""

    def __init__(
        self,
        seconds: float = math.inf,
        window: Window | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], time.struct_time] = time.localtime,
    ) -> None:
        self._clock, self._wall, self._window = clock, wall, window
        self._until = clock() + seconds

    def is_over(self) -> bool:
        """Asked at every tick."""
        if self._window is not None:
            now = self._wall()
            if not self._window.is_open(now.tm_hour * 60 + now.tm_min + now.tm_sec / 60):
                return True
        return self._clock() >= self._until

    def next_look(self) -> float:
        """In how many seconds to ask again at the latest; infinite if there is no limit."""
        left = max(self._until - self._clock(), 0.001)
        return left if self._window is None else min(left, _LOOK_SECONDS)


@contextlib.contextmanager
def time_limit(limit: TimeLimit) -> Iterator[None]:
    """As soon as the limit is over the command is told to stop, with a `Deadline`, as by any other signal."""
    if not math.isfinite(limit.next_look()):
        yield
        return
    signals = the_signals()

    def look(number: int, frame: FrameType | None) -> None:
        if limit.is_over():
            signals.hear(number, frame)
        else:
            signal.setitimer(signal.ITIMER_REAL, limit.next_look())

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, limit.next_look())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
