"""Bars: the running files live at the foot of a terminal; what is over scrolls up above them as plain lines.

Between two writes the cursor stands at the start of the first row of the bars. To draw is to erase from there on, to
write the rows, and to go back up: one text, which the terminal gets whole or not at all. So nothing has to be known of
what the terminal shows: rows that it wrapped when it was resized, or a ``^C`` that it echoed, go with the next frame,
and a frame that a slow terminal was never given leaves nothing wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mdl.console.lines import Clean, dropped_text
from mdl.console.streams import NonBlockingStream
from mdl.describe import FileState, ProgressState, describe, item_of
from mdl.events import Ended, Event, Failed, Finished, Progressed, Retrying, Started, Verifying
from mdl.formatting import cells, clip, human_bytes, pad, shorten

_BETWEEN_FRAMES = 0.1
_MOST_ROWS = 8
_PERCENT, _BYTES, _SPEED, _TIME_LEFT = 4, 19, 10, 12
"""Columns that the figures take."""
_INDENT, _GAP = "  ", "  "
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_CLEAR = "\r\x1b[2K\n\x1b[J\x1b[A"
"""Erases from the start of the cursor's row on. The row itself goes first: what tmux erases from the top of the screen
to its end it would put into its history."""

REMOVE_BARS = f"{_CLEAR}{_SHOW_CURSOR}"
"""Leaves the terminal as it was before the bars."""

Line = list[tuple[str, str]]
"""Pieces of text, each with its look: a key of `_COLORS`, or nothing."""
_COLORS = {"bar": 36, "checking": 35, "total": 32, "rest": 90, "label": 1, "good": 32, "bad": 31, "note": 33}
_SIGNS = {
    "finished": ("✓", "good"),
    "failed": ("✗", "bad"),
    "started": ("↻", "bar"),
    "rewound": ("↺", "note"),
    "retrying": ("↺", "note"),
}
"""What scrolls up behind a sign: the sign and its look."""
_FULL, _HALF, _REST = "━", "╸", "─"
"""What bars are made of."""


class Bars:
    """A renderer that draws. `close` gives the terminal back as it was."""

    def __init__(self, stream: NonBlockingStream, clean: Clean, clock: Callable[[], float]) -> None:
        self._stream, self._clean, self._clock = stream, clean, clock
        self._state = ProgressState()
        self._frame = Frame(self._state, clean)
        self._is_shown = False
        """Bars were drawn, and the cursor is hidden."""
        self._drawn_at, self._drawn = -math.inf, ("", (0, 0))
        """When the bars were drawn last, and how."""

    def __call__(self, event: Event) -> None:
        """Draw what happened."""
        self._state.update(event)
        above, keep = self._line_of(event), isinstance(event, Finished | Failed | Ended)
        if isinstance(event, Ended) or not (self._is_shown or isinstance(event, Started | Progressed | Verifying)):
            self._write(above, keep=keep)
        elif above or isinstance(event, Started | Failed) or self._clock() - self._drawn_at >= _BETWEEN_FRAMES:
            self._draw(above, keep=keep)

    def say(self, text: str) -> None:
        """Put plain lines above the bars."""
        text = text if text.endswith("\n") else f"{text}\n"
        self._draw(text, keep=True) if self._is_shown else self._write(text, keep=True)

    def close(self) -> None:
        """Take the bars away and show the cursor again."""
        try:
            if self._is_shown:
                self._stream.post(REMOVE_BARS, keep=True)
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
        rows = "\n".join(map(self._colored, lines))
        self._drawn_at = now
        if not above and self._drawn == (rows, size):
            return
        self._drawn = rows, size
        is_first, self._is_shown = not self._is_shown, True  # before the cursor is hidden, so that it comes back
        up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
        self._stream.post(f"{_HIDE_CURSOR if is_first else _CLEAR}{above}{rows}\r{up}", keep=keep or is_first)

    def _write(self, text: str, *, keep: bool = False) -> None:
        """Write ``text`` in the place of the bars, which come back with the next frame."""
        if text:
            self._drawn = "", (0, 0)
            self._stream.post(f"{_CLEAR if self._is_shown else ''}{text}", keep=keep)

    def _line_of(self, event: Event) -> str:
        """What is said above the bars: a sign, a name and a text. All of a failure, else the name fits the line."""
        description = describe(event)
        text = self._clean(description.text)
        if description.kind == "ended":
            return f"{text} at {self._state.amount}\n" if text and self._is_shown else ""
        if description.kind == "notice":
            return f"{text}\n"
        is_in_row = isinstance(event, Retrying) and event.file
        is_new = isinstance(event, Started) and not event.resumed_at
        if description.kind not in _SIGNS or is_in_row or is_new:
            return ""
        sign, look = _SIGNS[description.kind]
        name = self._clean(description.item)
        if description.kind not in ("failed", "retrying"):
            width, _ = self._stream.size
            name = shorten(name, max(12, width - 1 - cells(f"{sign} {text}  ")))
        return self._colored([(sign, look), (f" {name}  {text}\n", "")])

    def _colored(self, line: Line) -> str:
        if not self._stream.has_colors:
            return "".join(text for text, _ in line)
        return "".join(f"\x1b[{_COLORS[look]}m{text}\x1b[0m" if look and text else text for text, look in line)


class Frame:
    """How a `ProgressState` looks as lines of a given width. Columns never move while a download runs, and the
    figures that jump (speed, time left) change once a second."""

    def __init__(self, state: ProgressState, clean: Clean) -> None:
        self._state, self._clean = state, clean
        self._speed, self._time_left = "", ""
        self._speed_at = -math.inf

    def draw(self, width: int, height: int, now: float) -> list[Line]:
        """The rows of the running files and the one of the whole, none wider than ``width`` - 1 columns."""
        if now - self._speed_at >= 1 and self._state.is_measured:
            self._speed, self._time_left, self._speed_at = self._state.speed, self._state.time_left, now
        columns = _Columns.of(width - 1, len(self._counted()))
        room = max(0, min(_MOST_ROWS, height - 3))
        running = list(self._state.running.values())
        lines = [self._draw_file(file, columns) for file in running[:room]]
        if len(running) > room:
            lines.append([(f"{_INDENT}+{len(running) - room} more", "note")])
        return [*lines, self._draw_whole(columns)]

    def _draw_file(self, file: FileState, columns: _Columns) -> Line:
        name = pad(shorten(self._clean(item_of(file)), columns.name), columns.name)
        line: Line = [(_INDENT + name + _GAP, "")]
        if file.waiting:
            return [*line, (clip(self._clean(file.waiting), columns.figures), "note")]
        return [*line, *self._draw_amount(file.done, file.total, columns, "checking" if file.checking else "bar")]

    def _draw_whole(self, columns: _Columns) -> Line:
        """The line of the whole: files done, speed and time left in the place of a name, as far as there is room."""
        speed = f"{self._speed:>{_SPEED}}"
        texts = (_GAP.join((self._counted(), speed, self._time_left)), f"{self._counted()}{_GAP}{speed}", speed, "")
        label = pad(next(text for text in texts if cells(text) <= columns.name), columns.name)
        amount = self._draw_amount(self._state.whole.bytes_done, self._state.bytes_total, columns, "total")
        return [(_INDENT + label + _GAP, "label"), *amount]

    def _counted(self) -> str:
        count = self._state.count
        return f"{len(self._state.finished):>{len(str(count))}}/{count}" if count else ""

    def _draw_amount(self, done: int, total: int | None, columns: _Columns, look: str) -> Line:
        """The bar, the percentage and the bytes. Nothing is guessed if the total is not known or cannot be right."""
        share = None if total is None or not 0 <= done <= total else done / total if total else 1.0
        line: Line = []
        if columns.bar:
            full, half = divmod(math.floor((share or 0.0) * columns.bar * 2), 2)
            line = [(_FULL * full + _HALF * half, look), (_REST * (columns.bar - full - half), "rest"), (_GAP, "")]
        percent = "" if share is None else f"{math.floor(share * 100)}%"
        line.append((f"{percent:>{_PERCENT}}", "checking" if look == "checking" else ""))
        if columns.has_bytes:
            whole = "?" if share is None or total is None else human_bytes(total)
            text = f"checking {whole}" if look == "checking" else f"{human_bytes(done):>8} / {whole}"
            line.append((f"{_GAP}{text:<{_BYTES}}", ""))
        return line


@dataclass(frozen=True)
class _Columns:
    """How a line is divided; depends on nothing that changes while a download runs."""

    name: int
    bar: int
    has_bytes: bool

    @property
    def figures(self) -> int:
        """The width of all that stands behind the name."""
        return (self.bar + len(_GAP) if self.bar else 0) + _PERCENT + (len(_GAP) + _BYTES if self.has_bytes else 0)

    @classmethod
    def of(cls, width: int, counted: int) -> _Columns:
        """Name and bar share what the figures leave; a narrow terminal loses the bar first, then the bytes."""
        spare = width - len(_INDENT + _GAP) - _PERCENT
        if spare < 8 + len(_GAP) + _BYTES:
            return cls(max(1, spare), 0, False)
        spare -= len(_GAP) + _BYTES
        label = counted + len(_GAP) + _SPEED + len(_GAP) + _TIME_LEFT
        if spare < label + len(_GAP) + 8:
            return cls(spare, 0, True)
        spare -= len(_GAP)
        bar = min(48, spare - max(label, min(60, spare * 2 // 3)))
        return cls(spare - bar, bar, True)
