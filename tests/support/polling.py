"""Waiting for what other threads and processes make true."""

from __future__ import annotations

import threading
from collections.abc import Callable

_LONGEST_PAUSE = 0.02


def until(holds: Callable[[], object]) -> None:
    """Poll until it holds; the only time limit is pytest's own. What takes longer is asked for less often, for it has
    to run as well."""
    pause = threading.Event()
    seconds = 0.003
    while not holds():
        pause.wait(seconds)
        seconds = min(_LONGEST_PAUSE, seconds * 1.05)
