"""Waiting for what other threads and processes make true."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PATIENCE = 30.0


def until(
    holds: Callable[[], object], what: str = "waited in vain", *, seconds: float = PATIENCE, must: bool = True
) -> None:
    """Poll until it holds; fail the test with ``what`` if it never does, but not with ``must=False``. What takes
    longer is asked for less often, for it has to run as well."""
    deadline, between = time.monotonic() + seconds, 0.003
    pause = threading.Event()
    while not holds():
        if time.monotonic() > deadline:
            assert not must, what
            return
        pause.wait(between)
        between = min(0.02, between * 1.05)
