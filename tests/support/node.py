"""One of several machines that share a folder, as a process: ``python -m support.node NUMBER LIES WORDS…`` runs mdl.

The mdl of another node cannot see this process, and the folder seems to be on NFS. What its file system lies about is
among ``LIES``: ``flock`` (every process gets every lock), ``enolck`` (there are no locks), ``estale`` (every third
lease cannot be read, for another node has replaced it). With ``killed`` a dead one is found out soon.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import sys

from mdl.__main__ import main
from mdl.disk import mutex, process
from support.long import LONG

QUIET_SECONDS = 20.0 if LONG else 5.0
"""A node of which one is killed counts as dead after so long without a touch. Many nodes on one machine take a while
until they show any sign of life."""


def _granted(_fd: int, _kind: int) -> None:
    pass


def _no_locks(_fd: int, _kind: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def _become(number: str, lies: list[str]) -> None:
    if "killed" in lies:
        mutex.QUIET_SECONDS, mutex.TOUCH_SECONDS = QUIET_SECONDS, 0.1
    vars(mutex)["filesystem_type"] = lambda _path: "nfs4"
    vars(process)["_machine"] = lambda: f"{int(number):012x}"
    if "flock" in lies or "enolck" in lies:
        vars(fcntl)["flock"] = _granted if "flock" in lies else _no_locks
    if "estale" in lies:
        really, calls = mutex.read_own, itertools.count()

        def stale(*words: object, **more: object) -> bytes | None:
            if next(calls) % 3 == 1:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return really(*words, **more)  # type: ignore[arg-type]

        vars(mutex)["read_own"] = stale


if __name__ == "__main__":
    _become(sys.argv[1], sys.argv[2].split(","))
    sys.argv = ["mdl", *sys.argv[3:]]
    main()
