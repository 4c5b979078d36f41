"""Heads: an answer's status line and headers must be there in time, however busily they trickle in.

A read that brings one byte now and then never times out by itself, nor do interim answers (1xx) without end.
Which socket a pooled connection waits on is not told by httpx, so when one head is overdue every socket that
is not in the middle of a body is shut down: what was idle is opened anew, what waited as well is tried again.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator

from mdl.cancel import wake
from mdl.errors import NetworkError


class Heads:
    """Watches the requests of one client; ``longest`` is in seconds."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._lock = threading.Lock()
        self._waiting: dict[int, float] = {}
        self._overdue: set[int] = set()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._bodies: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._looks: set[Callable[[], None]] = set()
        self._watcher: threading.Thread | None = None

    def opened(self, sock: socket.socket) -> None:
        """A fresh connection of the client's."""
        with self._lock:
            self._sockets.add(sock)

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """The calling thread asks and waits for a head. Raises `NetworkError` where it did not come in time."""
        me = threading.get_ident()
        with self._lock:
            self._waiting[me] = time.monotonic() + self._longest
            self._begin()
        try:
            yield
        except BaseException as error:
            if me in self._overdue and isinstance(error, Exception):
                raise NetworkError(f"no whole answer head within {self._longest:.0f} s") from error
            raise
        finally:
            with self._lock:
                self._waiting.pop(me, None)
                self._overdue.discard(me)

    @contextlib.contextmanager
    def body(self, sock: socket.socket | None) -> Iterator[None]:
        """A body is read from ``sock``: leave it alone."""
        if sock is None:
            yield
            return
        with self._lock:
            self._bodies.add(sock)
        try:
            yield
        finally:
            with self._lock:
                self._bodies.discard(sock)

    @contextlib.contextmanager
    def also(self, look: Callable[[], None]) -> Iterator[None]:
        """Meanwhile call ``look`` now and then, from the watching thread."""
        with self._lock:
            self._looks.add(look)
            self._begin()
        try:
            yield
        finally:
            with self._lock:
                self._looks.discard(look)

    def _begin(self) -> None:
        if self._watcher is None:
            self._watcher = threading.Thread(target=_watch, args=(weakref.ref(self),), name="mdl-heads", daemon=True)
            self._watcher.start()

    def check(self) -> None:
        """End what is overdue."""
        with self._lock:
            now = time.monotonic()
            late = {thread for thread, due in self._waiting.items() if due <= now} - self._overdue
            self._overdue |= late
            sockets = [sock for sock in self._sockets if sock not in self._bodies] if late else []
            looks = list(self._looks)
        for sock in sockets:
            wake(sock)
        for look in looks:
            look()


def _watch(heads: weakref.ref[Heads]) -> None:
    """Look now and then, for as long as anybody holds the client."""
    while (here := heads()) is not None:
        pause = min(1.0, here._longest / 4)
        here.check()
        del here
        time.sleep(pause)
