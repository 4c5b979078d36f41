"""Timing: the end of the time a command was given, wherever it is then."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from types import FrameType

from mdl.errors import Deadline


@contextlib.contextmanager
def time_limit(until: float) -> Iterator[None]:
    """Raises `Deadline` in the main thread at that moment of the monotonic clock, also out of a blocked call."""
    if not math.isfinite(until):
        yield
        return
    before = signal.signal(signal.SIGALRM, _over)
    signal.setitimer(signal.ITIMER_REAL, max(until - time.monotonic(), 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _over(_number: int, _frame: FrameType | None) -> None:
    raise Deadline("its time is over")
