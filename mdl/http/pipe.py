"""Pipe: bytes that go from a socket into a file without coming into this process.

That is splice(2): Linux alone, and only where what is on the wire is the body as it is, so not for TLS. It saves two
copies of every byte. A socket, or a file, that will not have it gets its bytes by way of memory.
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
"""Bytes that a pipe of anybody's may hold, by the kernel's own limit (``/proc/sys/fs/pipe-max-size``)."""
_WORTH = 256 * 1024
"""In a smaller pipe, which who has many is left with, the bytes would go slower than by memory."""
REFUSALS = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
"""What a system says that does not splice this."""


class Pipe:
    """For one body at a time: what was drawn is poured before more is drawn."""

    def __init__(self, mouth: int, end: int, size: int) -> None:
        self._mouth, self._end, self.size = mouth, end, size
        self._poll = select.poll()

    @classmethod
    def open(cls) -> Pipe | None:
        """None where this system has none that is worth it."""
        if sys.platform != "linux":
            return None
        try:
            end, mouth = os.pipe()
        except OSError:
            return None
        pipe = cls(mouth, end, _sized(mouth))
        if pipe.size >= _WORTH:
            return pipe
        pipe.close()
        return None

    def close(self) -> None:
        os.close(self._mouth)
        os.close(self._end)

    def draw(self, sock: socket.socket, most: int) -> Piped:
        """What has come by a socket, ``most`` bytes at most; none at its end. Waits for it where nothing has.

        Raises `TimeoutError` after as long a silence as the socket's own time-out, `OSError`.
        """
        while True:
            fd = sock.fileno()
            try:
                return Piped(self, os.splice(fd, self._mouth, min(most, self.size), flags=os.SPLICE_F_NONBLOCK))
            except BlockingIOError:
                self._await(fd, sock.gettimeout())

    def pour(self, count: int, fd: int, offset: int) -> int:
        """Put at most ``count`` of the bytes in the pipe into a file; tells how many. Raises `OSError`."""
        try:
            return os.splice(self._end, fd, count, offset_dst=offset, flags=os.SPLICE_F_NONBLOCK)
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
        data = os.read(self._end, count)
        write_at(fd, offset, data)
        return len(data)

    def _await(self, fd: int, seconds: float | None) -> None:
        self._poll.register(fd, select.POLLIN)
        if not self._poll.poll(None if seconds is None else seconds * 1000):
            raise TimeoutError


class Piped:
    """So many bytes in a pipe."""

    def __init__(self, pipe: Pipe, size: int) -> None:
        self._pipe, self._size = pipe, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> Piped:
        """The first of them, as ``[:count]``: where those are poured the pipe is of no use any more."""
        return Piped(self._pipe, len(range(self._size)[: part.stop]))

    def pour(self, fd: int, offset: int) -> None:
        """Put them into a file. Raises `OSError`."""
        left = self._size
        while left:
            count = self._pipe.pour(left, fd, offset)
            left, offset = left - count, offset + count


def write_at(fd: int, offset: int, data: memoryview | bytes) -> None:
    """Put all of ``data`` there. Raises `OSError`."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def _sized(fd: int) -> int:
    """Make a pipe as large as it may be; tells how large that is, in bytes."""
    try:
        return fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _SIZE)
    except OSError:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
