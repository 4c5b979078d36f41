"""Run a command on a machine that stands still now and then: again and again all its processes are stopped for a second
and a half. A test that depends on how quick the machine is fails here, and not once in a hundred runs.

    .ci/standstill.py .venv/bin/python -m pytest -q tests/unit
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

_STILL = 1.5
_LONGEST_WORK = 4.0
"""Seconds for which all stand still, and the most for which they work before that."""


def family(top: int) -> set[int]:
    """The process ``top``, and all below it."""
    children: dict[int, set[int]] = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, set()).add(int(place.name))
    found: set[int] = set()
    waiting = {top}
    while waiting:
        found |= waiting
        waiting = set().union(*(children.get(one, set()) for one in waiting)) - found
    return found


def tell(processes: set[int], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def main() -> int:
    process = subprocess.Popen(sys.argv[1:])
    while True:
        try:
            return process.wait(random.uniform(0.2, _LONGEST_WORK))
        except subprocess.TimeoutExpired:
            stopped = family(process.pid)
            try:
                tell(stopped, signal.SIGSTOP)
                time.sleep(_STILL)
            finally:
                tell(stopped, signal.SIGCONT)


if __name__ == "__main__":
    raise SystemExit(main())
