"""Outlet: one stream of the process, written so that nothing at its other end can hurt mdl.

A closed stream swallows what it is given; a broken one is remembered, once, and swallows the rest; a
character that the stream's encoding lacks is escaped. Bytes go straight to the file descriptor, so
that nothing is left for the interpreter to stumble over when it ends. A reader that takes nothing costs a
bounded amount of memory, and no time: what is posted meanwhile is dropped from its oldest on, and counted.
"""

from __future__ import annotations

import errno
import os
import select
import time
from _thread import RLock
from collections import deque

from mdl.cancel import Cancel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

_CHUNK = select.PIPE_BUF
"""As many bytes can be written without waiting once `select` calls a pipe ready."""
_MOST = 4 * 2**20
"""Bytes of posted text that wait for the reader at most; what must not be dropped comes on top."""
_TICK, _PATIENCE = 0.05, 0.25
"""How often somebody who waits for the reader looks whether all is stopped, and how long the reader has then, in
seconds."""


class Outlet:
    """Where text leaves the process. ``trouble`` is the errno that broke it, or 0. Once ``cancel`` is set nobody
    waits for the reader any more."""

    def __init__(self, stream: IO[str] | None, cancel: Cancel | None = None) -> None:
        self._stream, self._cancel = stream, cancel or Cancel()
        self._backlog: deque[tuple[bytes, bool]] = deque()
        """What waits for the reader, and whether it may be dropped."""
        self._begun = bytearray()
        """What is being written."""
        self._loose = 0
        """Bytes in the backlog that may be dropped."""
        self._lock = RLock()
        self.trouble = self._dropped = 0
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

    def write(self, text: str) -> bool:
        """Write ``text``, waiting for the reader if need be; False if all was stopped before it was taken."""
        with self._lock:
            self._put(text, wait=True)
            return not self._is_waiting

    def post(self, text: str, *, keep: bool = False) -> None:
        """Write ``text`` as soon as the reader has room for it, and wait for nobody. It may be dropped, if newer text
        needs its place, unless it is to be kept."""
        self._put(text, wait=False, keep=keep)

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
            return not self._is_waiting and self._has_room()

    def take_dropped(self) -> int:
        """How many texts were posted and dropped since this was asked last."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            return dropped

    def drain(self) -> None:
        """Wait until all that was posted is written, or all is stopped and the reader takes nothing."""
        with self._lock:
            self._push(wait=True)

    @property
    def _is_waiting(self) -> bool:
        return bool(self._begun or self._backlog)

    def _put(self, text: str, *, wait: bool, keep: bool = True) -> None:
        with self._lock:
            if self._stream is None or self.trouble:
                return
            if self.descriptor is None:
                self._write_object(text)
                return
            data = self._encoded(text)
            self._backlog.append((data, keep))
            self._loose += 0 if keep else len(data)
            self._push(wait=wait)
            if self._loose > _MOST:
                self._drop()

    def _drop(self) -> None:
        """Make room for what is newer: the older half of what may be dropped."""
        left: deque[tuple[bytes, bool]] = deque()
        for data, keep in self._backlog:
            if keep or self._loose <= _MOST // 2:
                left.append((data, keep))
            else:
                self._loose -= len(data)
                self._dropped += 1
        self._backlog = left

    def _encoded(self, text: str) -> bytes:
        """As bytes: undecodable file names as they were, what the encoding lacks as an escape."""
        try:
            return text.encode(self.encoding, "surrogateescape")
        except UnicodeEncodeError:
            return text.encode(self.encoding, "backslashreplace")

    def _push(self, *, wait: bool) -> None:
        try:
            if self._stream is not None and self.descriptor is not None and self._is_waiting:
                self._stream.flush()
            while self._is_waiting and self.descriptor is not None:
                if not (self._waits_for_room() if wait else self._has_room()):
                    return
                if not self._write_chunk(self.descriptor) and not wait:
                    return
        except (OSError, ValueError) as error:
            self._break(error)

    def _write_chunk(self, descriptor: int) -> int:
        while self._backlog and len(self._begun) < _CHUNK:
            data, keep = self._backlog.popleft()
            self._loose -= 0 if keep else len(data)
            self._begun += data
        try:
            written = os.write(descriptor, self._begun[:_CHUNK])
        except BlockingIOError:
            return 0
        del self._begun[:written]
        return written

    def _waits_for_room(self) -> bool:
        """False once all is stopped and the reader still takes nothing."""
        until = 0.0
        while not self._has_room(_TICK):
            if self._cancel.is_set():
                until = until or time.monotonic() + _PATIENCE
                if time.monotonic() >= until:
                    return False
        return True

    def _has_room(self, seconds: float = 0.0) -> bool:
        if self.descriptor is None:
            return True
        try:
            return bool(select.select([], [self.descriptor], [], seconds)[1])
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
        self._begun.clear()
        self._loose = 0
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
