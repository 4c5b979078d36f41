"""Timing: the end of the time a command was given, wherever it is then."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator


@contextlib.contextmanager
def time_limit(until: float) -> Iterator[None]:
    """At that moment of the monotonic clock the command is told to stop, with a `Deadline`, as by any other signal."""
    if not math.isfinite(until):
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, max(until - time.monotonic(), 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
