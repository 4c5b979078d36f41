"""Frame: how a download looks as rows of a given width. Pure but for the time, which is given.

A file has a row once it has lasted a second; the others are counted. Columns never move while a download runs, and the
figures that jump (speed, time left) change once a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mdl.console.failures import Clean
from mdl.console.style import Line
from mdl.describe import FileState, ProgressState, item_of
from mdl.formatting import cells, clip, counted, human_bytes, human_rate, pad, shorten_all
from mdl.values import value_class

_MOST_ROWS = 8
_LASTING = 1.0
"""Seconds after which a file has a row, and for which a count of others stays."""
_CALM = 1.0
"""Seconds for which a speed stays."""
_PERCENT, _BYTES, _SPEED, _TIME_LEFT = 4, 19, 10, 11
"""Columns that the figures take."""
_WIDE = 71
"""Columns of name, bar and speed from which there is room for the speed of each file."""
_INDENT, _GAP = "  ", "  "
_FULL, _HALF, _REST = "━", "╸", "─"
"""What bars are made of."""

_Key = tuple[str, str]


class Frame:
    """How a `ProgressState` looks at one moment after the other."""

    def __init__(self, state: ProgressState, clean: Clean) -> None:
        self._state, self._clean = state, clean
        self._began: dict[_Key, float] = {}
        self._seen: dict[_Key, int] = {}
        """How many bytes of each running file were done when its speed was measured last."""
        self._speeds: dict[_Key, str] = {}
        self._speed, self._time_left, self._measured_at = "", "", -math.inf
        self._others, self._others_at = set[_Key](), -math.inf
        """The files that were counted last, without those that have a row since."""

    def draw(self, width: int, height: int, now: float) -> list[Line]:
        """The rows of the running files, and that of the whole once it is known. None is wider than ``width`` - 1."""
        if now - self._measured_at >= _CALM and self._state.is_measured:
            self._measure(now)
        columns = _Columns.of(width - 1)
        self._began = {key: self._began.get(key, now) for key in self._state.running}
        lasting = [one for key, one in self._state.running.items() if now - self._began[key] >= _LASTING or one.waiting]
        rows = lasting[: max(0, min(_MOST_ROWS, height - 4))]
        shown = {(one.model, one.file) for one in rows}
        self._others -= shown
        if others := self._state.running.keys() - shown:
            self._others, self._others_at = others, now
        names = shorten_all([self._clean(item_of(one)) for one in rows], columns.name)
        lines = [self._draw_file(one, name, columns) for one, name in zip(rows, names, strict=True)]
        is_counted = self._state.count or self._state.is_measured
        if self._others and is_counted and self._state.count != 1 and now - self._others_at < _LASTING:
            text = f"{_INDENT}{'+ ' if rows else ''}{counted(len(self._others), 'file')} on the way"
            lines.append([(clip(text, width - 1), "rest")])
        return [*lines, self._draw_whole(columns)] if is_counted else lines

    def _measure(self, now: float) -> None:
        """Take the speeds of now."""
        passed, running = now - self._measured_at, self._state.running
        self._speeds = {
            key: human_rate(max(0, one.done - self._seen[key]) / passed)
            for key, one in running.items()
            if key in self._seen
        }
        self._seen = {key: one.done for key, one in running.items()}
        self._speed, self._time_left, self._measured_at = self._state.speed, self._state.time_left, now

    def _draw_file(self, file: FileState, name: str, columns: _Columns) -> Line:
        line: Line = [(_INDENT + pad(name, columns.name) + _GAP, "")]
        if file.waiting:
            return [*line, (clip(self._clean(file.waiting), columns.figures), "note")]
        look = "checking" if file.checking else "bar"
        line += [*self._draw_bar(file.done, file.total, columns, look), *_amount(file.done, file.total, columns, look)]
        speed = "" if file.checking or not columns.has_speed else self._speeds.get((file.model, file.file), "")
        return [*line, (f"{_GAP}{speed:>{_SPEED}}", "")] if speed else line

    def _draw_whole(self, columns: _Columns) -> Line:
        """The row of the whole. Without columns for speed and time left, they are in the place of the bar."""
        done, total = self._state.whole.bytes_done, self._state.bytes_total
        amount = _amount(done, total, columns, "total")
        count = self._state.counted if self._state.count > 1 else ""
        title = _GAP.join(filter(None, ("total", count)))
        if columns.has_speed:
            line: Line = [(_INDENT + pad(title, columns.name) + _GAP, "label")]
            speed = f"{_GAP}{self._speed:>{_SPEED}}{_GAP}{self._time_left}"
            return [*line, *self._draw_bar(done, total, columns, "total"), *amount, (speed.rstrip(), "label")]
        speed = f"{self._speed:>{_SPEED}}"
        texts = _fitting([title, speed, self._time_left], columns.label), _fitting([count, speed], columns.label)
        label = next(filter(None, (*texts, _fitting([speed], columns.label))), "")
        return [(_INDENT + pad(label, columns.label) + _GAP, "label"), *amount]

    def _draw_bar(self, done: int, total: int | None, columns: _Columns, look: str) -> Line:
        if not columns.bar:
            return []
        full, half = divmod(math.floor((_share(done, total) or 0.0) * columns.bar * 2), 2)
        return [(_FULL * full + _HALF * half, look), (_REST * (columns.bar - full - half), "rest"), (_GAP, "")]


def _fitting(parts: Sequence[str], width: int) -> str:
    """The parts as one text; nothing if there is no room for it."""
    text = _GAP.join(filter(None, parts))
    return text if cells(text) <= width else ""


def _share(done: int, total: int | None) -> float | None:
    """How much is done, of 1; None if the total is not known or cannot be right."""
    return None if total is None or not 0 <= done <= total else done / total if total else 1.0


def _amount(done: int, total: int | None, columns: _Columns, look: str) -> Line:
    """The percentage and the bytes. Nothing is guessed."""
    share = _share(done, total)
    percent = "" if share is None else f"{math.floor(share * 100)}%"
    line: Line = [(f"{percent:>{_PERCENT}}", "checking" if look == "checking" else "")]
    if columns.has_bytes:
        whole = "?" if share is None else human_bytes(total)
        text = f"checking {whole}" if look == "checking" else f"{human_bytes(done):>8} / {whole}"
        line.append((f"{_GAP}{text:<{_BYTES}}" if columns.has_speed else f"{_GAP}{text}", ""))
    return line


@value_class
class _Columns:
    """How a line is divided; depends on nothing that changes while a download runs."""

    name: int
    bar: int
    has_bytes: bool
    has_speed: bool

    @property
    def label(self) -> int:
        """The width of name and bar."""
        return self.name + (len(_GAP) + self.bar if self.bar else 0)

    @property
    def figures(self) -> int:
        """The width of all that stands behind the name."""
        return self.label - self.name + _PERCENT + (len(_GAP) + _BYTES if self.has_bytes else 0)

    @classmethod
    def of(cls, width: int) -> _Columns:
        """Name and bar share what the figures leave; a narrow terminal loses the speeds first, then the bar, then the
        bytes."""
        spare = width - len(_INDENT + _GAP) - _PERCENT
        if spare < 8 + len(_GAP) + _BYTES:
            return cls(max(1, spare), 0, False, False)
        spare -= len(_GAP) + _BYTES
        has_speed = spare >= _WIDE
        spare -= len(_GAP + _GAP) + _SPEED + _TIME_LEFT if has_speed else 0
        bar = min(48, spare // 3) if spare >= 32 else 0
        return cls(spare - len(_GAP) - bar if bar else spare, bar, True, has_speed)
