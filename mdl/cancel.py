"""CancelToken: one switch that stops every thread and wakes those that are blocked, and why it was set.

A signal handler may set it: nothing in `CancelToken.set` waits for a lock that the interrupted thread could hold.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from _thread import TIMEOUT_MAX, allocate_lock

from mdl.errors import Cancelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator


class CancelToken:
    """From the first `set` on, `check` and `wait` raise the reason, and every registered socket is shut down."""

    def __init__(self, parent: CancelToken | None = None) -> None:
        """One with a ``parent`` is set with it, and may be set alone."""
        self._reason: Cancelled | None = None
        self._parent = parent
        self._children = set[weakref.ref[CancelToken]]()
        self._gate = allocate_lock()
        """Held until it is set: sleeping threads wait for it, and a signal handler can release it."""
        self._gate.acquire()
        self._sockets: weakref.WeakValueDictionary[int, socket.socket] = weakref.WeakValueDictionary()
        self._is_polled = False
        if parent:
            parent.link(self)

    def link(self, child: CancelToken) -> None:
        """Have ``child`` set with this one."""
        self._children.add(weakref.ref(child, self._children.discard))
        if self._reason:
            child.set(self._reason)

    @property
    def is_polled(self) -> bool:
        """The main thread looks at it now and then: a signal handler sets it and raises nothing."""
        return self._parent.is_polled if self._parent else self._is_polled

    @is_polled.setter
    def is_polled(self, value: bool) -> None:
        if self._parent:
            self._parent.is_polled = value
        else:
            self._is_polled = value

    @property
    def reason(self) -> Cancelled | None:
        """Why it was set; None if it was not."""
        return self._reason

    def set(self, reason: Cancelled | None = None) -> None:
        """Stop everything. The first ``reason`` stays, but a pause gives way to an end."""
        reason = reason or Cancelled()
        if self._reason is None or (self._reason.status == "paused" and reason.status != "paused"):
            self._reason = reason
        self._open_gate()
        for reference in tuple(self._children):  # at once: another thread may add one meanwhile
            if (child := reference()) is not None:
                child.set(reason)
        for found in self._sockets.valuerefs():
            if (sock := found()) is not None:
                wake(sock)

    @contextlib.contextmanager
    def polled(self) -> Iterator[None]:
        """Meanwhile the main thread looks at it: an exception at any other moment would leave half of a step undone."""
        before = self.is_polled
        self.is_polled = True
        try:
            yield
        finally:
            self.is_polled = before

    def is_set(self) -> bool:
        return self._reason is not None

    def check(self) -> None:
        """Raises the reason once it is set: a `Cancelled`, `Paused` or `DeadlineReached` of the caller's own."""
        if self._reason is not None:
            raise copy.copy(self._reason)

    def wait(self, seconds: float) -> None:
        """Sleep, but not past a `set`. Raises as `check`."""
        if self._gate.acquire(timeout=min(max(seconds, 0.0), TIMEOUT_MAX)):
            self._open_gate()
        self.check()

    def register(self, sock: socket.socket) -> None:
        """Have ``sock`` shut down when it is set; forgotten by itself when it is closed and collected."""
        self._sockets[id(sock)] = sock
        if self.is_set():
            wake(sock)

    def _open_gate(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is open
            self._gate.release()


def wake(sock: socket.socket) -> None:
    """End what another thread does on ``sock``. It is right for TLS too: no goodbye is attempted."""
    import socket

    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
