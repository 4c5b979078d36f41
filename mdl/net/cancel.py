"""Cancel: one switch that stops every thread and wakes every blocked read."""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref

from mdl.errors import Cancelled


class Cancel:
    """Set once; from then on `check` raises and every registered socket is shut down."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()

    def set(self) -> None:
        with self._lock:
            self._event.set()
            sockets = list(self._sockets)
        for sock in sockets:
            wake(sock)

    def is_set(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises `Cancelled` once `set` was called."""
        if self._event.is_set():
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Sleep, but not past a cancel. Raises `Cancelled`."""
        self._event.wait(seconds)
        self.check()

    def register(self, sock: socket.socket) -> None:
        """Have ``sock`` shut down on cancel; forgotten by itself when it is closed and collected."""
        with self._lock:
            self._sockets.add(sock)
            late = self._event.is_set()
        if late:
            wake(sock)


def wake(sock: socket.socket) -> None:
    """End whatever another thread does on ``sock``. Also right for TLS: no goodbye is attempted."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
