"""Threads: as many as the system allows, several calls at once whose results come in order, and work in batches."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Generic, ParamSpec, Self, TypeVar

from mdl.errors import MdlError

Result = TypeVar("Result")
Item = TypeVar("Item")
Arguments = ParamSpec("Arguments")

_LOOK_SECONDS = 0.05


def start_threads(
    name: str, tasks: Sequence[Callable[[], None]], threads: list[threading.Thread] | None = None
) -> list[threading.Thread]:
    """Start a daemon thread for each task, or for the first ones only if the system allows no more: perhaps none. They
    are in ``threads`` from before they start, for one who has to end them if a signal handler raises meanwhile."""
    threads = [] if threads is None else threads
    for number, task in enumerate(tasks):
        threads.append(threading.Thread(target=task, name=f"{name}-{number}", daemon=True))
        try:
            threads[-1].start()
        except RuntimeError:
            threads.pop()
            break
    return threads


def keep_together(threads: Iterable[threading.Thread]) -> None:
    """Have these threads run on the processor of the calling thread, if the system tells and allows that (ADR 64)."""
    with contextlib.suppress(OSError, AttributeError, IndexError, ValueError):
        stat = Path("/proc/thread-self/stat").read_text()
        processor = int(stat.rpartition(")")[2].split()[36])  # proc(5), "processor"
        for thread in threads:
            if thread.native_id and thread.is_alive():  # the number of one that has ended may be another's
                os.sched_setaffinity(thread.native_id, {processor})


def in_thread(call: Callable[[], Result], look: Callable[[], None]) -> Result:
    """What ``call`` returns or raises. ``look`` is called meanwhile; if it raises, the call is left to itself."""
    done = threading.Event()
    outcome = list[Result]()
    faults = list[BaseException]()

    def work() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            faults.append(error)
        done.set()

    if not start_threads("mdl-wait", [work]):
        work()
    while not done.wait(_LOOK_SECONDS):
        look()
    if faults:
        raise faults[0]
    return outcome[0]


def in_parallel(
    calls: Sequence[Callable[[], Result]], most: int, look: Callable[[], None]
) -> Generator[Result | MdlError, None, None]:
    """What each call returns, or the `MdlError` that it raises, in the order of ``calls``; ``most`` run at once.

    ``look`` is called in the caller's thread while it waits, and may raise. Any other exception of a call is raised
    here. If the caller closes it, calls that were not begun are not made.
    """
    ready = [threading.Event() for _ in calls]
    results: dict[int, Result | MdlError] = {}
    faults: dict[int, BaseException] = {}
    numbers = iter(range(len(calls)))
    lock = threading.Lock()
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                results[number] = _outcome(calls[number])
            except BaseException as error:
                faults[number] = error
            ready[number].set()

    threads = start_threads("mdl-call", [work] * min(most, len(calls))) if min(most, len(calls)) > 1 else []
    if not threads:
        yield from map(_outcome, calls)
        return
    try:
        for number in range(len(calls)):
            while not ready[number].wait(_LOOK_SECONDS):
                look()
            look()
            if number in faults:
                raise faults[number]
            yield results[number]
    finally:
        is_over.set()


def _outcome(call: Callable[[], Result]) -> Result | MdlError:
    try:
        return call()
    except MdlError as error:
        return error


class Workers:
    """Threads, ``most`` of them at once, that make calls; fewer if the system allows no more. If it allows none, the
    caller makes them itself. Leaving the context waits for all of them."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._threads: list[threading.Thread] = []
        self._calls = SimpleQueue[Callable[[], None] | None]()

    def submit(
        self, call: Callable[Arguments, Result], *args: Arguments.args, **named: Arguments.kwargs
    ) -> Future[Result]:
        """What ``call`` will return, or raise."""
        future = Future[Result]()

        def make() -> None:
            try:
                future.set_result(call(*args, **named))
            except BaseException as error:
                future.set_exception(error)

        if len(self._threads) < self._most:
            started = start_threads(self._name, [self._work])
            self._most = self._most if started else len(self._threads)
            self._threads += started
        if self._threads:
            self._calls.put(make)
        else:
            make()
        return future

    def _work(self) -> None:
        while (make := self._calls.get()) is not None:
            make()

    def shutdown(self) -> None:
        """Wait for all calls; no further one is made."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._most = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


class Batches(Generic[Item]):
    """Items that several threads add one by one and that ``process`` gets in batches: a group commit.

    A thread that adds an item while no other is processing does so, until none is left; the others go on at once. So
    the first item waits for nobody, and the longer a batch takes the larger is the next one.
    """

    def __init__(self, process: Callable[[list[Item]], None]) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._added: list[Item] = []
        self._is_busy = False

    def add(self, item: Item) -> None:
        """Raises what ``process`` raises, once no item is left."""
        with self._lock:
            self._added.append(item)
            if self._is_busy:
                return
            self._is_busy = True
        faults: list[BaseException] = []
        while batch := self._take():
            try:
                self._process(batch)
            except BaseException as error:
                faults.append(error)
        if faults:
            raise faults[0]

    def _take(self) -> list[Item]:
        with self._lock:
            batch = self._added
            self._added = []
            self._is_busy = bool(batch)
        return batch
