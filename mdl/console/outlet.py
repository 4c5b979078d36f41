"""Outlet: one stream of the process, written so that nothing at its other end can hurt mdl.

A closed stream swallows what it is given; a broken one is remembered, once, and swallows the rest; a
character that the stream's encoding lacks is escaped. Bytes go straight to the file descriptor, so
that nothing is left for the interpreter to stumble over when it ends.
"""

from __future__ import annotations

import errno
import os
import select
from _thread import RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

_CHUNK = select.PIPE_BUF
"""As many bytes can be written without waiting once `select` calls a pipe ready."""


class Outlet:
    """Where text leaves the process. ``trouble`` is the errno that broke it, or 0."""

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream
        self._backlog = bytearray()
        self._lock = RLock()
        self.trouble = 0
        self.descriptor = _descriptor(stream)
        self.encoding = (getattr(stream, "encoding", None) or "utf-8").lower()

    @property
    def is_unicode(self) -> bool:
        """Every character can be written as itself."""
        return self.encoding.replace("-", "").replace("_", "").startswith("utf")

    @property
    def is_terminal(self) -> bool:
        """A terminal is at the other end."""
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def write(self, text: str) -> None:
        """Write ``text``, waiting for the reader if need be."""
        self._put(text, wait=True)

    def post(self, text: str) -> None:
        """Write ``text`` as soon as the reader has room for it, and wait for nobody."""
        self._put(text, wait=False)

    def offer(self, text: str) -> bool:
        """Write ``text`` if the reader has room now, else forget it."""
        with self._lock:
            if not self.is_ready():
                return False
            self._put(text, wait=False)
            return True

    def is_ready(self) -> bool:
        """The reader has taken all that was posted, and has room for more."""
        with self._lock:
            self._push(wait=False)
            return not self._backlog and self._has_room()

    def drain(self) -> None:
        """Wait until all that was posted is written."""
        with self._lock:
            self._push(wait=True)

    def _put(self, text: str, *, wait: bool) -> None:
        with self._lock:
            if self._stream is None or self.trouble:
                return
            if self.descriptor is None:
                self._write_object(text)
                return
            self._backlog += self._encoded(text)
            self._push(wait=wait)

    def _encoded(self, text: str) -> bytes:
        """As bytes: undecodable file names as they were, what the encoding lacks as an escape."""
        try:
            return text.encode(self.encoding, "surrogateescape")
        except UnicodeEncodeError:
            return text.encode(self.encoding, "backslashreplace")

    def _push(self, *, wait: bool) -> None:
        try:
            if self._stream is not None and self.descriptor is not None and self._backlog:
                self._stream.flush()
            while self._backlog and self.descriptor is not None:
                if not self._has_room(wait=wait):
                    return
                if not self._write_chunk(self.descriptor) and not wait:
                    return
        except (OSError, ValueError) as error:
            self._break(error)

    def _write_chunk(self, descriptor: int) -> int:
        try:
            written = os.write(descriptor, self._backlog[:_CHUNK])
        except BlockingIOError:
            return 0
        del self._backlog[:written]
        return written

    def _has_room(self, *, wait: bool = False) -> bool:
        if self.descriptor is None:
            return True
        try:
            return bool(select.select([], [self.descriptor], [], None if wait else 0)[1])
        except (OSError, ValueError):
            return True

    def _write_object(self, text: str) -> None:
        """Write to a stream without a descriptor, as tests put in the place of the real one."""
        assert self._stream is not None
        try:
            self._stream.write(self._encoded(text).decode(self.encoding, "surrogateescape"))
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._break(error)

    def _break(self, error: Exception) -> None:
        """Remember the trouble, and let whatever is still buffered elsewhere end in nothing."""
        self.trouble = getattr(error, "errno", None) or errno.EIO
        self._backlog.clear()
        if self.descriptor is None:
            return
        try:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.descriptor)
            os.close(nothing)
        except OSError:
            pass


def _descriptor(stream: IO[str] | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
