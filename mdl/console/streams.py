"""Streams: stdout for data and stderr for the rest, written so that nothing at their other end can hurt mdl.

A closed stream swallows what it is given. A broken one is remembered once and swallows the rest. A character that the
encoding lacks is escaped. Bytes go straight to the file descriptor, so that the interpreter has nothing left to flush
when it ends. A reader that takes nothing costs no time: what is posted waits for it, and what is only offered, of which
there may be any amount, is left out meanwhile (ADR 90).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import sys
import time
from collections import deque
from collections.abc import Mapping
from io import TextIOWrapper
from threading import RLock
from typing import IO

from mdl.cancel import CancelToken

_NARROWEST = 20
_USUAL = 80
_WIDEST = 500
_CHUNK = select.PIPE_BUF
"""As many bytes can be written without waiting once `select` calls a pipe ready."""
_TICK = 0.05
"""Seconds between two looks at ``cancel`` while a write waits for the reader."""
_TINY = 0.001
"""Seconds until the next try if there was less room than `select` said."""
_PATIENCE = 0.25
"""Seconds that a write still waits for the reader after a stop."""


class NonBlockingStream:
    """Where text leaves the process. ``trouble`` is the errno that broke it, or 0.

    ``environ`` and ``color`` tell how a terminal may be used. Once ``cancel`` is set no write waits for the reader any
    more. A stream that ``is_own`` belongs to the process: if it breaks, its descriptor is pointed to the null device,
    so that no other code stumbles over it.
    """

    def __init__(
        self,
        stream: IO[str] | None,
        environ: Mapping[str, str],
        *,
        color: bool = True,
        cancel: CancelToken | None = None,
        is_own: bool = True,
    ) -> None:
        self._stream = stream
        self._cancel = cancel or CancelToken()
        self._is_own = is_own
        self._environ = environ
        self._color = color and not environ.get("NO_COLOR")
        self._backlog: deque[memoryview] = deque()
        """Text that waits for the reader."""
        self._waits_until = 0.0
        """After a stop: when no write waits any longer for a reader that has taken nothing since."""
        self._lock = RLock()
        self.trouble = 0
        self.descriptor: int | None = None
        """The stream's own descriptor. That of a notebook's stream, which is no `TextIOWrapper`, leads elsewhere."""
        if isinstance(stream, TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                self.descriptor = stream.fileno()
        self.encoding = (getattr(stream, "encoding", None) or "utf-8").lower()

    @property
    def is_unicode(self) -> bool:
        """True if every character can be written as itself."""
        return self.encoding.replace("-", "").replace("_", "").startswith("utf")

    @property
    def is_terminal(self) -> bool:
        """True if a terminal is at the other end."""
        return self.descriptor is not None and os.isatty(self.descriptor)

    @property
    def is_notebook(self) -> bool:
        """True if it is the stderr of a notebook's kernel."""
        ipython = sys.modules.get("IPython")
        return self._stream is sys.stderr and ipython is not None and hasattr(ipython.get_ipython(), "kernel")

    @property
    def can_move_cursor(self) -> bool:
        """True if a terminal is at the other end, and not one that only prints."""
        return self.is_terminal and self._environ.get("TERM", "").lower() not in ("", "dumb", "unknown")

    @property
    def has_colors(self) -> bool:
        """True if colours are wanted and can be shown."""
        return self._color and self.can_move_cursor

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines of the terminal; sane whatever ``COLUMNS`` and the terminal claim."""
        real = 0
        lines = 0
        if self.descriptor is not None:
            with contextlib.suppress(OSError):
                real, lines = os.get_terminal_size(self.descriptor)
        columns = real if real >= _NARROWEST else _USUAL
        wished = self._environ.get("COLUMNS", "")
        if re.fullmatch("[0-9]{1,9}", wished) and int(wished) >= _NARROWEST:
            columns = min(int(wished), real or _WIDEST)
        return max(_NARROWEST, min(columns, _WIDEST)), lines or 24

    def write(self, text: str) -> bool:
        """Write ``text`` and wait for the reader if need be. False if a stop came before the reader took it."""
        with self._lock:
            self._add(text)
            self._push(wait=True)
            return not self._backlog

    def post(self, text: str) -> None:
        """Write ``text`` as soon as the reader has room. Returns at once."""
        with self._lock:
            self._add(text)
            self._push(wait=False)

    def offer(self, text: str) -> bool:
        """Write ``text`` if the reader has taken all before it and has room now, else forget it."""
        with self._lock:
            if not self.is_ready():
                return False
            self.post(text)
            return True

    def is_ready(self) -> bool:
        """True if the reader has taken all that was posted, and has room for more."""
        with self._lock:
            self._push(wait=False)
            return not self._backlog and (self.descriptor is None or self._has_room(self.descriptor))

    def drain(self) -> None:
        """Wait until all that was posted is written, or until a stop if the reader takes nothing."""
        with self._lock:
            self._push(wait=True)

    def _add(self, text: str) -> None:
        if self._stream is None or self.trouble or not text:
            return
        data = self._encoded(text)
        if self.descriptor is None:
            self._write_without_descriptor(self._stream, data)
        else:
            self._backlog.append(memoryview(data))

    def _encoded(self, text: str) -> bytes:
        """The bytes of a text: undecodable file names as they were, what the encoding lacks as an escape."""
        try:
            return text.encode(self.encoding, "surrogateescape")
        except UnicodeEncodeError:
            return text.encode(self.encoding, "backslashreplace")

    def _write_without_descriptor(self, stream: IO[str], data: bytes) -> None:
        """Write to a stream such as a notebook's or a test's."""
        try:
            stream.write(data.decode(self.encoding, "surrogateescape"))
            stream.flush()
        except (OSError, ValueError) as error:
            self._break(error)

    def _push(self, *, wait: bool) -> None:
        """Write what is posted as far as the reader has room, or with ``wait`` all of it unless a stop comes."""
        if self._stream is None or self.descriptor is None or not self._backlog:
            return
        writing = self._open_again(self.descriptor)
        try:
            self._stream.flush()
            while self._backlog:
                seconds = _TICK if wait and not self._waits_until else 0.0
                if self._has_room(writing, seconds) and self._write_chunk(writing):
                    self._waits_until = 0.0
                elif not wait or self._is_over_patience():
                    return
                else:
                    time.sleep(_TINY)
        except (OSError, ValueError) as error:
            self._break(error)
        finally:
            if writing != self.descriptor:
                os.close(writing)

    def _open_again(self, descriptor: int) -> int:
        """Open a terminal once more, so that no write to it waits: it calls itself ready for one byte, and a longer
        write would wait in the system if the terminal has stopped reading. Anything else is written as it is."""
        try:
            return os.open(os.ttyname(descriptor), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return descriptor

    def _is_over_patience(self) -> bool:
        """Whether a stop came so long ago that a reader that takes nothing is not waited for any more."""
        if self._waits_until:
            return time.monotonic() >= self._waits_until
        if self._cancel.is_set():
            self._waits_until = time.monotonic() + _PATIENCE
        return False

    def _write_chunk(self, writing: int) -> bool:
        """Write the first piece of the oldest text, if there really is room. It is never written twice, also if a
        signal raises as soon as it is written."""
        data = self._backlog.popleft()
        try:
            written = os.write(writing, data[:_CHUNK])
        except BlockingIOError:
            written = 0
        if written < len(data):
            self._backlog.appendleft(data[written:])
        return written > 0

    def _has_room(self, writing: int, seconds: float = 0.0) -> bool:
        try:
            return bool(select.select([], [writing], [], seconds)[1])
        except (OSError, ValueError):
            return True

    def _break(self, error: Exception) -> None:
        """Remember the trouble, and let what other code has buffered end in nothing."""
        self.trouble = getattr(error, "errno", None) or errno.EIO
        self._backlog.clear()
        if self.descriptor is None or not self._is_own:
            return
        with contextlib.suppress(OSError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.descriptor)
            os.close(nothing)


def hold_standard_descriptors() -> None:
    """Fill closed standard descriptors, so that no model file is ever opened as number 1 or 2."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
