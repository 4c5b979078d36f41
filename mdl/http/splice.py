"""Splice: bytes that go from a socket into a file through a kernel pipe, without a copy in this process.

This uses splice(2), which only Linux has, and only if the bytes on the wire are the bytes of the body: not under TLS.
It saves two copies of every byte. If a socket or a file does not support it, the bytes go through memory.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from typing import TYPE_CHECKING

from mdl.values import value_class

if sys.platform == "linux":
    import fcntl

if TYPE_CHECKING:
    import socket

_SIZE = 1024 * 1024
"""Bytes that a pipe of an ordinary user may hold, by the kernel's default limit (``/proc/sys/fs/pipe-max-size``)."""
_WORTH = 256 * 1024
"""Through a smaller pipe the bytes would be slower than through memory. A user with many pipes gets only small ones."""
REFUSALS = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
"""The errors of a system, socket or file that does not support splice(2)."""


@value_class
class Pipe:
    """A kernel pipe for one body at a time. What it received must be written before it receives more."""

    read_end: int
    write_end: int
    size: int

    @classmethod
    def open(cls, size: int = _SIZE) -> Pipe | None:
        """A pipe of at least 256 KiB; None if this system does not give one."""
        if sys.platform != "linux":
            return None
        try:
            read_end, write_end = os.pipe()
        except OSError:
            return None
        try:
            size = fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, size)
        except OSError:
            size = 0
        pipe = cls(read_end, write_end, size)
        if size >= _WORTH:
            return pipe
        pipe.close()
        return None

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self.write_end)

    def receive(self, sock: socket.socket, most: int) -> Piped:
        """At most ``most`` bytes from a socket; no bytes at the end of the connection. Waits if nothing has come yet.

        Raises `TimeoutError` after a silence as long as the socket's own timeout, `OSError`.
        """
        while True:
            fd, seconds = sock.fileno(), sock.gettimeout()
            try:
                return Piped(self, os.splice(fd, self.write_end, min(most, self.size), flags=os.SPLICE_F_NONBLOCK))
            except BlockingIOError:
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                if not poll.poll(None if seconds is None else seconds * 1000):
                    raise TimeoutError from None


@value_class
class Piped:
    """A number of bytes that are in a pipe."""

    pipe: Pipe
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> Piped:
        """The first of the bytes, as ``[:count]``. The pipe cannot be used again once only these are written."""
        return Piped(self.pipe, len(range(self.size)[: part.stop]))

    def write_to(self, fd: int, offset: int) -> None:
        """Write the bytes into a file, through memory if the file does not support splice(2). Raises `OSError`."""
        left, source = self.size, self.pipe.read_end
        while left:
            try:
                count = os.splice(source, fd, left, offset_dst=offset, flags=os.SPLICE_F_NONBLOCK)
            except OSError as error:
                if error.errno not in REFUSALS:
                    raise
                data = os.read(source, left)
                write_at(fd, offset, data)
                count = len(data)
            left, offset = left - count, offset + count


def write_at(fd: int, offset: int, data: memoryview | bytes) -> None:
    """Write all of ``data`` into a file at ``offset``. Raises `OSError`."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
