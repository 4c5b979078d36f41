"""Threads: a pool that makes calls, threads that live as long as a piece of work, and work in batches.

That the system refuses a thread is found out in `start_threads` alone, which returns those that it started.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar

from mdl.errors import MdlError

if TYPE_CHECKING:
    from concurrent.futures import Future

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
    for task in tasks:
        threads.append(threading.Thread(target=task, name=f"{name}-{len(threads)}", daemon=True))
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


class Pool:
    """Makes calls in threads, at most ``most`` at once: fewer if the system allows no more, and if it allows none the
    caller makes them itself. Leaving the context waits for all of them.

    Its threads are daemons, unlike those of `concurrent.futures.ThreadPoolExecutor`: one that waits for a name server
    must not keep the process from its end. (ADR 1)
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._threads: list[threading.Thread] = []
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()

    def submit(
        self, call: Callable[Arguments, Result], /, *args: Arguments.args, **named: Arguments.kwargs
    ) -> Future[Result]:
        """Have ``call`` made, and return what it will return or raise."""
        from concurrent.futures import Future  # with a first call: it imports logging

        future: Future[Result] = Future()
        if len(self._threads) < self._most:
            started = start_threads(self._name, [self._work])
            if not started:
                self._most = len(self._threads)
            self._threads += started
        if self._threads:
            self._calls.put((future, partial(call, *args, **named)))
        else:
            _make(future, partial(call, *args, **named))
        return future

    def _work(self) -> None:
        while True:
            submitted = self._calls.get()
            if submitted is None:
                return
            _make(*submitted)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further call. With ``cancel_futures`` the calls that were not begun are never made."""
        while cancel_futures and not self._calls.empty():
            with contextlib.suppress(Empty):
                submitted = self._calls.get_nowait()
                if submitted is not None:
                    submitted[0].cancel()
        for _ in self._threads:
            self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join()
        self._threads = []
        self._most = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


def _make(future: Future[Result], call: Callable[[], Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)


def result_of(future: Future[Result], look: Callable[[], None]) -> Result:
    """Wait for the result of a call and return it, or raise what the call raised. ``look`` is called meanwhile, and may
    raise."""
    from concurrent.futures import wait

    while not wait([future], _LOOK_SECONDS).done:
        look()
    return future.result()


def in_thread(call: Callable[[], Result], look: Callable[[], None]) -> Result:
    """Make a call in another thread, and return or raise what it does. ``look`` is called meanwhile; if it raises, the
    call is left to itself."""
    pool = Pool(1, "mdl-wait")
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return result_of(future, look)


def in_parallel(
    calls: Sequence[Callable[[], Result]], most: int, look: Callable[[], None]
) -> Generator[Result | MdlError, None, None]:
    """Make calls, ``most`` at once, and yield what each returns, or the `MdlError` that it raises, in their order.

    ``look`` is called in the caller's thread while it waits, and may raise. Any other exception of a call is raised
    here. If the caller closes the generator, calls that were not begun are not made. A single call, or one at a time,
    is made by the caller.
    """
    most = min(most, len(calls))
    if most <= 1:
        for call in calls:
            yield _outcome(call)
        return
    pool = Pool(most, "mdl-call")
    try:
        for future in [pool.submit(_outcome, call) for call in calls]:
            outcome = result_of(future, look)
            look()
            yield outcome
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _outcome(call: Callable[[], Result]) -> Result | MdlError:
    try:
        return call()
    except MdlError as error:
        return error


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
