"""One mdl at a time on one model. A lock only saves work; correctness does not rest on it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mdl.cancel import Cancel
from mdl.errors import Busy, Unsafe
from mdl.private import open_new, open_own, private_folder, read_regular

_POLL_SECONDS = 0.2
_LARGEST = 1000


@contextlib.contextmanager
def held(
    folder: Path, name: str, wait: float, on_wait: Callable[[str], None], cancel: Cancel | None = None
) -> Iterator[None]:
    """Hold the lock ``name`` in ``folder``; wait up to ``wait`` seconds for it.

    ``on_wait`` is told once for whom. Raises `Busy` saying who holds it, `Cancelled`.
    """
    private_folder(folder)
    _drop_of_stranger(folder / f"{name}.lock")
    lock = FileLock(folder / f"{name}.lock", mode=0o600)
    who = folder / f"{name}.who"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait(_holder(who))
        _wait_for(lock, who, name, wait, cancel or Cancel())
    try:
        with contextlib.suppress(OSError):
            _say_who(who)
        yield
    finally:
        with contextlib.suppress(OSError):
            who.unlink(missing_ok=True)
        lock.release()


def _drop_of_stranger(lock: Path) -> None:
    """A lock file of another user, who may hold it for ever, goes. None is made: without ``flock`` its being there is
    the lock."""
    try:
        os.close(open_own(lock, os.O_RDONLY))
    except Unsafe:
        lock.unlink()
    except FileNotFoundError:
        return


def _say_who(who: Path) -> None:
    with os.fdopen(open_new(who, os.O_WRONLY), "w") as file:
        json.dump({"pid": os.getpid(), "since": time.strftime("%H:%M:%S")}, file)


def _wait_for(lock: FileLock, who: Path, name: str, wait: float, cancel: Cancel) -> None:
    until = time.monotonic() + wait
    while (left := until - time.monotonic()) > 0:
        cancel.wait(min(_POLL_SECONDS, left))
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            return
    hint = "wait for it, or give it longer with --lock-wait"
    raise Busy(f"{_holder(who)} is at work on it", item=name, hint=hint)


def _holder(who: Path) -> str:
    try:
        data = json.loads(read_regular(who, _LARGEST) or b"")
        return f"another mdl (process {int(data['pid'])}, since {str(data['since'])[:8]})"
    except (OSError, ValueError, OverflowError, KeyError, TypeError):
        return "another mdl"
