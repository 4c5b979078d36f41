"""Drawing: a download on a terminal or in a notebook, drawn by a thread of its own.

Whoever reports an event changes numbers in a `State`, and goes on: only the drawing thread imports Rich, and only it
waits for a terminal that does not read. It imports Rich when a download has lasted a moment, so a short one
never does.
"""

from __future__ import annotations

import math
import time
from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING

from mdl.cancel import CancelToken
from mdl.console.messages import Clean, Messages
from mdl.console.remarks import Remark
from mdl.console.state import State
from mdl.console.streams import NonBlockingStream
from mdl.disk.pool import start_threads
from mdl.events import Event, Progressed, Retrying, Started, Verifying
from mdl.formatting import cells, shorten

if TYPE_CHECKING:
    from mdl.console.bars import Bars

BEFORE_DRAWING = 0.4
"""Seconds that a download has to last to be drawn."""
BETWEEN_FRAMES = 0.25
"""Seconds until the next frame."""
_AFTER_HIDING = 1.0
"""Seconds without a frame after the bars were hidden: meanwhile the process is suspended."""
_PATIENCE = 0.35
"""Seconds that the drawing thread is waited for if a stop came, or if the process is to be suspended."""
_TICK = 0.05
_MOST_LINES = 10_000
"""Lines that wait for a terminal that does not read, at most; of more the newest."""

_SIGNS = {
    "finished": ("✓", "good"),
    "failed": ("✗", "bad"),
    "started": ("→", "started"),
    "rewound": ("→", "note"),
    "retrying": ("→", "note"),
}
"""Of each kind of remark that scrolls up behind a sign: the sign and its look."""
_SHOWN_BY_BARS = ("planned", "verifying")
"""Kinds of remarks that the bars show themselves."""


class Drawing:
    """A printer: bars at the foot of the terminal, and above them a line for all that is over.

    ``lock`` is held while ``state`` is changed. ``cancel`` ends the wait for a terminal that does not read. `close`
    gives the terminal back as it was.
    """

    def __init__(
        self,
        stream: NonBlockingStream,
        state: State,
        lock: Lock,
        clean: Clean,
        messages: Messages,
        clock: Callable[[], float],
        cancel: CancelToken,
        *,
        verbose: int = 0,
    ) -> None:
        self._stream = stream
        self._clean = clean
        self._messages = messages
        self._clock = clock
        self._cancel = cancel
        self._verbose = verbose
        self._lock = lock
        """Held while one of the next four is used, and never while anything is written with Rich."""
        self._state = state
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        """Lines that scroll up with the next frame."""
        self._is_drawing = False
        """The terminal belongs to the drawing thread. Before and after, lines are posted by whoever has one."""
        self._events = 0
        self._drawn: tuple[int, tuple[int, int]] | None = None
        """How many events the last frame knew, and how large the terminal was."""
        self._thread: Thread | None = None
        self._is_asked_for = False
        """The thread was started, or could not be."""
        self._commands: SimpleQueue[LockType | None] = SimpleQueue()
        """For the drawing thread: a lock to release once the bars are hidden, or None to end. A signal handler may put
        something in at any moment, which it could not with `threading.Event` or `queue.Queue`."""

    def show(self, event: Event, remarks: Sequence[Remark]) -> None:
        """Have the event drawn with the next frame. Returns at once, whatever the terminal does."""
        has_row = isinstance(event, Retrying) and event.file and not self._verbose
        text = ""
        if not has_row:
            text = "".join(self._line_of(remark) for remark in remarks)
        with self._lock:
            self._events += 1
            self._add(text)
        if isinstance(event, Started | Progressed | Verifying) and not self._is_asked_for:
            self._is_asked_for = True
            self._thread = next(iter(start_threads("mdl-drawing", [self._run])), None)

    def say(self, text: str) -> None:
        """Put plain lines above the bars."""
        with self._lock:
            self._add(text if text.endswith("\n") else f"{text}\n")

    def hide(self) -> None:
        """Take the bars away for a moment and show the cursor, unless the terminal takes nothing. A signal handler may
        call this."""
        if self._thread and self._thread.is_alive():
            is_hidden = allocate_lock()
            is_hidden.acquire()
            self._commands.put(is_hidden)
            is_hidden.acquire(timeout=_PATIENCE)

    def close(self) -> None:
        """Take the bars away, show the cursor again, and write the lines that are left."""
        if self._thread:
            self._commands.put(None)
            self._wait_for(self._thread)
        with self._lock:
            self._is_drawing = False
            self._stream.post(self._take_lines())
        self._stream.drain()

    def _wait_for(self, thread: Thread) -> None:
        """Wait for the end of the thread: after a stop only for a moment."""
        until = math.inf
        while thread.is_alive() and time.monotonic() < until:
            thread.join(_TICK)
            if self._cancel.is_set():
                until = min(until, time.monotonic() + _PATIENCE)

    def _add(self, text: str) -> None:
        """Write ``text``, or have it written with the next frame."""
        if not self._is_drawing:
            self._stream.post(text)
        elif text:
            self._lines.append(text)

    def _take_lines(self) -> str:
        """Return the lines that scroll up, and forget them."""
        text = "".join(self._lines)
        self._lines.clear()
        return text

    def _run(self) -> None:
        """The drawing thread."""
        bars: Bars | None = None
        seconds = BEFORE_DRAWING
        while True:
            try:
                is_hidden = self._commands.get(timeout=seconds)
            except Empty:
                bars = bars or self._begin()
                self._draw(bars)
                seconds = BETWEEN_FRAMES
                continue
            if bars:
                bars.hide()
            if is_hidden is None:
                return
            is_hidden.release()
            self._drawn = None
            seconds = _AFTER_HIDING

    def _begin(self) -> Bars:
        from mdl.console.bars import Bars

        bars = Bars(self._stream, self._clean, self._clock)
        with self._lock:
            self._is_drawing = True
        return bars

    def _draw(self, bars: Bars) -> None:
        """Draw a frame, if anything has changed since the last one."""
        with self._lock:
            text = self._take_lines()
            drawn = (self._events, self._stream.size)
            if not text and drawn == self._drawn:
                return
            self._drawn = drawn
            bars.take(self._state)
        bars.draw(text)

    def _line_of(self, remark: Remark) -> str:
        """Make the line above the bars: a sign, a name and a text. A name is cut so that the line fits, but keeps half
        of it."""
        if remark.kind == "failure":
            return self._messages.failure(remark)
        item = self._clean(remark.item)
        text = self._clean(remark.text)
        if remark.kind in _SHOWN_BY_BARS or not text:
            return ""
        if remark.kind == "summary":
            return self._messages.line(text, "summary", "")
        if remark.kind not in _SIGNS:
            return self._messages.line("", "", f"{item}: {text}" if item else text)
        sign, look = _SIGNS[remark.kind]
        if remark.kind not in ("failed", "retrying"):
            width, _ = self._stream.size
            item = shorten(item, max(width // 2, width - 1 - cells(f"{sign} {text}  ")))
        return self._messages.line(sign, look, f" {item}  {text}")
