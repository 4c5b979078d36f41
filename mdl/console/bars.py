"""Bars: the running files live at the foot of a terminal; what is over scrolls up above them as plain lines.

Between two writes the cursor stands at the start of the first row of the bars. To draw is to erase from there on, to
write the rows, and to go back up: one text, which the terminal gets whole or not at all. So nothing has to be known of
what the terminal shows: rows that it wrapped when it was resized, or a ``^C`` that it echoed, go with the next frame,
and a frame that a slow terminal was never given leaves nothing wrong. A row of the bars is cut, not wrapped, by a
terminal that was made narrower a moment ago: the way back up is always as many rows as were written.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from mdl.console.failures import Clean, Failures
from mdl.console.frame import Frame
from mdl.console.lines import dropped_text
from mdl.console.narrator import Narrator, Remark
from mdl.console.streams import NonBlockingStream
from mdl.console.style import Style
from mdl.console.window import Window
from mdl.describe import ProgressState
from mdl.events import Ended, Event, Failed, Finished, Progressed, Retrying, Started, Verifying
from mdl.formatting import cells, shorten

_BETWEEN_FRAMES = 0.1
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_CUT, _WRAP = "\x1b[?7l", "\x1b[?7h"
_CLEAR = "\r\x1b[2K\n\x1b[J\x1b[A"
"""Erases from the start of the cursor's row on. The row itself goes first: what tmux erases from the top of the screen
to its end it would put into its history."""
REMOVE_BARS = f"{_CLEAR}{_WRAP}{_SHOW_CURSOR}"
"""What takes away the bars of a process that was killed."""

_SIGNS = {"finished": ("✓", "good"), "failed": ("✗", "bad"), "started": ("→", "bar"), "rewound": ("→", "note")}
_SIGNS |= {"retrying": ("→", "note")}
"""What scrolls up behind a sign: the sign and its look."""
_NOT_SAID = ("planned", "verifying")
"""What the bars show themselves."""


class Bars:
    """A renderer that draws. `close` gives the terminal back as it was."""

    def __init__(
        self,
        stream: NonBlockingStream,
        clean: Clean,
        failures: Failures,
        clock: Callable[[], float],
        window: Window,
        *,
        verbose: int = 0,
    ) -> None:
        self._stream, self._clock, self._window = stream, clock, window
        self._style, self._verbose = Style(stream), verbose
        self._state = ProgressState()
        self._narrator = Narrator(self._state, clean, failures, clock, verbose=verbose)
        self._frame = Frame(self._state, clean)
        self._is_shown = False
        """Bars were drawn, and the cursor is hidden."""
        self._drawn_at, self._drawn = -math.inf, ("", (0, 0))
        """When the bars were drawn last, and how."""

    def __call__(self, event: Event) -> None:
        """Draw what happened."""
        self._state.update(event)
        is_in_row = isinstance(event, Retrying) and event.file and not self._verbose
        above = "".join([self._line_of(remark) for remark in self._narrator.remarks(event) if not is_in_row])
        keep = isinstance(event, Finished | Failed | Ended)
        if isinstance(event, Ended) or not (self._is_shown or isinstance(event, Started | Progressed | Verifying)):
            self._write(above, keep=keep)
        elif above or self._clock() - self._drawn_at >= _BETWEEN_FRAMES:
            self._draw(above, keep=keep)

    def say(self, text: str) -> None:
        """Put plain lines above the bars."""
        text = text if text.endswith("\n") else f"{text}\n"
        self._draw(text, keep=True) if self._is_shown else self._write(text, keep=True)

    def hide(self) -> None:
        """Take the bars away and show the cursor again, unless the terminal takes nothing; the next frame draws anew,
        wherever the cursor is then."""
        if self._is_shown and self._stream.offer(f"{_CLEAR}{self._window.restore()}{_SHOW_CURSOR}"):
            self._is_shown, self._drawn = False, ("", (0, 0))

    def close(self) -> None:
        """Take the bars away and show the cursor again."""
        try:
            if self._is_shown:
                self._stream.post(f"{_CLEAR}{self._window.restore()}{_SHOW_CURSOR}", keep=True)
                self._is_shown = False
            self._write(dropped_text(self._stream.take_dropped()), keep=True)
        finally:
            self._stream.drain()

    def _draw(self, above: str, *, keep: bool = False) -> None:
        """Write ``above`` in the place of the bars, and the bars below it if the terminal keeps up."""
        if not self._stream.is_ready():
            self._write(above, keep=keep)
            return
        now, size = self._clock(), self._stream.size
        lines = self._frame.draw(*size, now)
        rows = "\n".join(map(self._style.paint, lines)) + self._window.show(self._state)
        self._drawn_at = now
        if self._drawn == (rows, size) and not above:
            return
        self._drawn = rows, size
        is_first, self._is_shown = not self._is_shown, True  # before the cursor is hidden, so that it comes back
        up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
        begun = _HIDE_CURSOR if is_first else _CLEAR
        self._stream.post(f"{begun}{above}{_CUT}{rows}\r{up}{_WRAP}", keep=keep or is_first)

    def _write(self, text: str, *, keep: bool = False) -> None:
        """Write ``text`` in the place of the bars, which come back with the next frame."""
        if text:
            self._drawn = "", (0, 0)
            self._stream.post(f"{_CLEAR if self._is_shown else ''}{text}", keep=keep)

    def _line_of(self, remark: Remark) -> str:
        """What is said above the bars: a sign, a name and a text. A name is cut so that the line fits, but keeps half
        of it."""
        item, text = remark.item, remark.text
        if remark.kind in _NOT_SAID or not text:
            return ""
        if remark.kind == "failure":
            return text
        if remark.kind not in _SIGNS:
            head, look = (f"{item}: ", "") if item else ("", "label" if remark.kind == "summary" else "")
            return self._style.line(head, look, text)
        sign, look = _SIGNS[remark.kind]
        if remark.kind not in ("failed", "retrying"):
            width, _ = self._stream.size
            item = shorten(item, max(width // 2, width - 1 - cells(f"{sign} {text}  ")))
        return self._style.line(sign, look, f" {item}  {text}")
