"""Threads: as many as the system gives, and several calls at once whose results come in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from mdl.errors import MdlError

Result = TypeVar("Result")

_LOOK_SECONDS = 0.05


def start_threads(name: str, tasks: Sequence[Callable[[], None]]) -> list[threading.Thread]:
    """A daemon thread for each task, or as many as the system gives: none at all at worst."""
    threads: list[threading.Thread] = []
    for number, task in enumerate(tasks):
        thread = threading.Thread(target=task, name=f"{name}-{number}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            break
        threads.append(thread)
    return threads


def in_parallel(
    calls: Sequence[Callable[[], Result]], most: int, look: Callable[[], None]
) -> Iterator[Result | MdlError]:
    """What each call returns, or the `MdlError` that it raises, in the order of ``calls``; ``most`` run at once.

    ``look`` is called in the caller's thread while it waits, and may raise. Any other exception of a call is raised
    here. Calls that were not begun when the caller stops asking are not made.
    """
    task = _Task(calls)
    threads = start_threads("mdl-call", [task.run] * min(most, len(calls))) if min(most, len(calls)) > 1 else []
    if not threads:
        for call in calls:
            yield _outcome(call)
        return
    try:
        for number in range(len(calls)):
            while not task.ready[number].wait(_LOOK_SECONDS):
                look()
            look()
            error = task.faults[number]
            if error:
                raise error
            yield task.results[number]
    finally:
        task.is_over = True


class _Task(Generic[Result]):
    """Calls that several threads make, each the next that nobody has begun."""

    def __init__(self, calls: Sequence[Callable[[], Result]]) -> None:
        self._calls, self._numbers, self._lock = calls, iter(range(len(calls))), threading.Lock()
        self.ready = [threading.Event() for _ in calls]
        self.results: dict[int, Result | MdlError] = {}
        self.faults: dict[int, BaseException | None] = {}
        self.is_over = False

    def run(self) -> None:
        while not self.is_over:
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            self.faults[number] = None
            try:
                self.results[number] = _outcome(self._calls[number])
            except BaseException as error:
                self.faults[number] = error
            self.ready[number].set()


def _outcome(call: Callable[[], Result]) -> Result | MdlError:
    try:
        return call()
    except MdlError as error:
        return error
