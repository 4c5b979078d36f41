"""Board: where the running files stand, and how that looks as lines of a given width. Pure: no terminal here.

Columns never move while a download runs, and the figures that jump (speed, time left) change once a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mdl.console.humans import cells, clip, human_bytes, human_duration, human_rate, pad, shorten
from mdl.console.wording import Clean, item_of, retrying_words
from mdl.events import Event, Failed, FileProgress, Finished, Planned, Progressed, Retrying, Rewound, Started, Verifying

Line = list[tuple[str, str]]
"""Pieces of text, each with the name of its look: "", name, bar, half, rest, total, note."""

MOST_ROWS = 8
_PERCENT, _BYTES, _RATE, _LEFT = 4, 19, 10, 12
_INDENT, _GAP = "  ", "  "


@dataclass(frozen=True)
class Glyphs:
    """The signs of the board, as far as the stream's encoding has them."""

    full: str = "━"
    half: str = "╸"
    rest: str = "─"
    ellipsis: str = "…"
    good: str = "✓"
    bad: str = "✗"
    resumed: str = "↻"
    lost: str = "↺"


ASCII = Glyphs(full="=", half=">", rest="-", ellipsis="...", good="ok", bad="FAILED", resumed="resumed", lost="rewound")


@dataclass
class _Row:
    label: str
    done: int = 0
    total: int | None = None
    checking: bool = False
    waiting: str = ""


class Board:
    """Takes events, and draws itself. ``busy`` once there is something worth drawing."""

    def __init__(self, clean: Clean, glyphs: Glyphs | None = None) -> None:
        self.busy = False
        self._clean = clean
        self._glyphs = glyphs or Glyphs()
        self._rows: dict[tuple[str, str], _Row] = {}
        self._whole = Progressed()
        self._count = 0
        self._done: set[tuple[str, str]] = set()
        self._speed: tuple[str, str] = ("", "")
        self._speed_at = -math.inf

    def take(self, event: Event, now: float) -> None:
        """Note what happened."""
        match event:
            case Planned():
                self._count = event.files
                self._whole = Progressed(bytes_done=event.bytes_kept, bytes_total=event.bytes_total)
            case Started():
                self.busy = True
                self._count = max(self._count, event.count)
                self._forget(event)
                row = self._row(event)
                row.done, row.total = event.resumed_at, event.total
            case Progressed():
                self.busy = True
                self._progress(event, now)
            case Verifying():
                self.busy = True
                row = self._row(event)
                row.checking, row.waiting = True, ""
                row.done, row.total = event.done, event.total
            case Retrying() if event.file:
                self._row(event).waiting = retrying_words(event, self._clean)
            case Rewound():
                row = self._row(event)
                row.done = max(0, row.done - event.bytes_discarded)
            case Finished():
                self._forget(event)
                self._done.add((event.model, event.file))
            case Failed():
                self._forget(event)
            case _:
                pass

    def _forget(self, event: Event) -> None:
        """What was known of the file: it begins, or is over."""
        self._rows.pop((event.model, event.file), None)
        self._done.discard((event.model, event.file))

    def _row(self, event: Event | FileProgress) -> _Row:
        key = (event.model, event.file)
        if key not in self._rows:
            label = item_of(Event(event.model, event.file))
            self._rows[key] = _Row(self._clean(label))
        return self._rows[key]

    def _progress(self, event: Progressed, now: float) -> None:
        running = {(file.model, file.file) for file in event.files}
        for key, row in list(self._rows.items()):
            if key not in running and not row.checking and not row.waiting:
                del self._rows[key]
        for file in event.files:
            self._file_progress(file)
        self._whole = event
        if now - self._speed_at >= 1:
            left = "" if event.eta_seconds is None else f"{human_duration(event.eta_seconds)} left"
            self._speed, self._speed_at = (human_rate(event.bytes_per_second), left), now

    def _file_progress(self, file: FileProgress) -> None:
        row = self._row(file)
        if row.checking and (file.total is None or file.done >= file.total):
            return
        if file.done != row.done:
            row.waiting, row.checking = "", False
        row.done, row.total = file.done, file.total

    def bytes_total(self) -> int | None:
        """The size of the whole, or None while nobody knows it."""
        whole = self._whole
        if whole.bytes_total <= 0 or whole.bytes_done > whole.bytes_total:
            return None
        return None if any(file.total is None for file in whole.files) else whole.bytes_total

    def bytes_done(self) -> int:
        """The bytes that are here, of all files."""
        return self._whole.bytes_done

    def draw(self, width: int, height: int) -> list[Line]:
        """The rows of the running files and the one of the whole, none wider than ``width`` - 1."""
        columns = _Columns.of(width - 1, len(self._counted()))
        room = max(1, min(MOST_ROWS, height - 3))
        rows = list(self._rows.values())
        lines = [self._draw_row(row, columns) for row in rows[:room]]
        if len(rows) > room:
            lines.append([(f"{_INDENT}+{len(rows) - room} more", "note")])
        lines.append(self._draw_whole(columns))
        return lines

    def _draw_row(self, row: _Row, columns: _Columns) -> Line:
        label = pad(shorten(row.label, columns.name, self._glyphs.ellipsis), columns.name)
        line: Line = [(_INDENT, ""), (label, "name"), (_GAP, "")]
        if row.waiting:
            return [*line, (clip(row.waiting, columns.after_name, self._glyphs.ellipsis), "note")]
        look = "check" if row.checking else "bar"
        return [*line, *self._draw_amount(row.done, row.total, columns, look)]

    def _draw_whole(self, columns: _Columns) -> Line:
        rate, left = self._speed
        speed = f"{rate:>{_RATE}}"
        wordings = (f"{self._counted()}{_GAP}{speed}{_GAP}{left}", f"{self._counted()}{_GAP}{speed}", speed, "")
        label = pad(next(words for words in wordings if cells(words) <= columns.name), columns.name)
        amount = self._draw_amount(self.bytes_done(), self.bytes_total(), columns, "total")
        return [(_INDENT, ""), (label, "whole"), (_GAP, ""), *amount]

    def _counted(self) -> str:
        """How many of the files are done."""
        return f"{len(self._done):>{len(str(self._count))}}/{self._count}" if self._count else ""

    def _draw_amount(self, done: int, total: int | None, columns: _Columns, look: str) -> Line:
        known = total is not None and 0 <= done <= total
        share = (done / total if total else 1.0) if known and total is not None else None
        line: Line = []
        if columns.bar:
            line = [*self._draw_bar(share, columns.bar, look), (_GAP, "")]
        percent = "" if share is None else f"{math.floor(share * 100)}%"
        line.append((f"{percent:>{_PERCENT}}", "check" if look == "check" else ""))
        if columns.has_bytes:
            whole = human_bytes(total) if total is not None and known else "?"
            words = f"checking {whole}" if look == "check" else f"{human_bytes(done):>8} / {whole}"
            line.append((f"{_GAP}{words:<{_BYTES}}", ""))
        return line

    def _draw_bar(self, share: float | None, width: int, look: str) -> Line:
        glyphs = self._glyphs
        if share is None:
            return [(glyphs.rest * width, "rest")]
        halves = math.floor(share * width * 2)
        full, half = halves // 2, halves % 2
        return [
            (glyphs.full * full + glyphs.half * half, look),
            (glyphs.rest * (width - full - half), "rest"),
        ]


@dataclass(frozen=True)
class _Columns:
    """How a line of the board is divided; depends on nothing that changes while a download runs."""

    name: int
    bar: int
    has_bytes: bool

    @property
    def after_name(self) -> int:
        bar = self.bar + len(_GAP) if self.bar else 0
        return bar + _PERCENT + (len(_GAP) + _BYTES if self.has_bytes else 0)

    @classmethod
    def of(cls, width: int, counted: int) -> _Columns:
        """Names and bar share what the figures leave; a narrow terminal loses the bar first, then the bytes."""
        spare = width - len(_INDENT + _GAP) - _PERCENT
        if spare < 8 + len(_GAP) + _BYTES:
            return cls(max(1, spare), 0, False)
        spare -= len(_GAP) + _BYTES
        words = counted + len(_GAP) + _RATE + len(_GAP) + _LEFT
        if spare < words + len(_GAP) + 8:
            return cls(spare, 0, True)
        spare -= len(_GAP)
        bar = min(48, spare - max(words, min(60, spare * 2 // 3)))
        return cls(spare - bar, bar, True)
