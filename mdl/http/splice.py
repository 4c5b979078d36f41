"""Splice: bytes that go from a socket into a file through a kernel pipe, without a copy in this process.

This uses splice(2), which only Linux has, and only if the bytes on the wire are the bytes of the body: not under TLS.
It saves two copies of every byte. If a socket or a file does not support it, the bytes go through memory.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys

if sys.platform == "linux":
    import fcntl

_SIZE = 1024 * 1024
"""Bytes that a pipe of an ordinary user may hold, by the kernel's default limit (``/proc/sys/fs/pipe-max-size``)."""
_WORTH = 256 * 1024
"""Through a smaller pipe the bytes would be slower than through memory. A user with many pipes gets only small ones."""
REFUSALS = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
"""The errors of a system, socket or file that does not support splice(2)."""


class Pipe:
    """A kernel pipe for one body at a time. What it received must be written before it receives more."""

    def __init__(self, read_end: int, write_end: int, size: int) -> None:
        self._read_end, self._write_end, self.size = read_end, write_end, size
        self._poll = select.poll()

    @classmethod
    def open(cls) -> Pipe | None:
        """A pipe of at least 256 KiB; None if this system does not give one."""
        if sys.platform != "linux":
            return None
        try:
            read_end, write_end = os.pipe()
        except OSError:
            return None
        pipe = cls(read_end, write_end, _enlarge(write_end))
        if pipe.size >= _WORTH:
            return pipe
        pipe.close()
        return None

    def close(self) -> None:
        os.close(self._read_end)
        os.close(self._write_end)

    def receive(self, sock: socket.socket, most: int) -> Piped:
        """At most ``most`` bytes from a socket; no bytes at the end of the connection. Waits if nothing has come yet.

        Raises `TimeoutError` after a silence as long as the socket's own timeout, `OSError`.
        """
        while True:
            fd = sock.fileno()
            try:
                return Piped(self, os.splice(fd, self._write_end, min(most, self.size), flags=os.SPLICE_F_NONBLOCK))
            except BlockingIOError:
                self._wait_for(fd, sock.gettimeout())

    def write_to(self, fd: int, offset: int, count: int) -> int:
        """Write at most ``count`` bytes out of the pipe into a file; returns how many. Raises `OSError`."""
        try:
            return os.splice(self._read_end, fd, count, offset_dst=offset, flags=os.SPLICE_F_NONBLOCK)
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
        data = os.read(self._read_end, count)
        write_at(fd, offset, data)
        return len(data)

    def _wait_for(self, fd: int, seconds: float | None) -> None:
        self._poll.register(fd, select.POLLIN)
        if not self._poll.poll(None if seconds is None else seconds * 1000):
            raise TimeoutError


class Piped:
    """A number of bytes that are in a pipe."""

    def __init__(self, pipe: Pipe, size: int) -> None:
        self._pipe, self._size = pipe, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> Piped:
        """The first of the bytes, as ``[:count]``. The pipe cannot be used again once only these are written."""
        return Piped(self._pipe, len(range(self._size)[: part.stop]))

    def write_to(self, fd: int, offset: int) -> None:
        """Write the bytes into a file. Raises `OSError`."""
        left = self._size
        while left:
            count = self._pipe.write_to(fd, offset, left)
            left, offset = left - count, offset + count


def write_at(fd: int, offset: int, data: memoryview | bytes) -> None:
    """Write all of ``data`` into a file at ``offset``. Raises `OSError`."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def _enlarge(fd: int) -> int:
    """Make a pipe as large as the system allows; returns its size in bytes."""
    try:
        return fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _SIZE)
    except OSError:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
