"""Terminal: Rich's console on a stream of mdl's, and tables drawn on it. Imported only when something is drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import IO

from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from mdl.console.streams import NonBlockingStream
from mdl.formatting import cells, is_number, shorten_all, wrap


class Output(io.TextIOBase):
    """A file for Rich, whose text goes to ``stream``: it waits for the terminal, but not past a stop."""

    def __init__(self, stream: NonBlockingStream) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(text)
        return len(text)


def terminal_console(stream: NonBlockingStream, file: IO[str]) -> Console:
    """Rich for the terminal ``stream``, writing to ``file``: in its size, and in its colours if it has any. Names are
    taken as they are: no markup, no ``:emoji:``, nothing highlighted."""
    width, height = stream.size
    return Console(
        file=file,
        width=width,
        height=height,
        color_system="standard" if stream.has_colors else None,
        force_terminal=True,
        force_interactive=True,
        force_jupyter=False,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )


class Shortened:
    """A name in one line: if there is no room for it, it is cut where it does not differ from ``others``."""

    def __init__(self, name: str, others: Sequence[str] = ()) -> None:
        self._name = name
        self._others = others

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(_cut_names((self._name, *self._others), options.max_width)[0], no_wrap=True)

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(1, options.max_width), min(cells(self._name), options.max_width))


@lru_cache(maxsize=64)
def _cut_names(names: Sequence[str], width: int) -> list[str]:
    return shorten_all(names, width)


_GAP = 2
_LEAST = 10
_LEAST_OF_WIDE = 26
_WIDE = 40
"""A column is cut to no fewer cells than this, and to no fewer than 26 if it was a wide one."""
_FEWEST = 6
"""A column of words has no fewer cells than this, however narrow the terminal is."""
_LEAST_FOLDED = 12
"""A column goes on in the next line in no fewer cells than this."""
_INDENT = "  "
_STYLES = {
    **dict.fromkeys(("present", "ok", "done", "fetched", "kept", "linked"), "green"),
    **dict.fromkeys(("partial", "unverified", "changed", "paused", "stalled", "cancelled", "would delete"), "yellow"),
    **dict.fromkeys(("corrupt", "failed", "dead", "gone"), "red"),
    "running": "cyan",
    "missing": "dim",
}
"""The looks of statuses, by their first word or by all of them."""


def drawn_table(
    stream: NonBlockingStream,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    cut: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    below: str = "",
) -> str:
    """Return a table for the terminal ``stream``. If it is too wide, the text of the column ``below`` stands under
    each row, which then stays one line.

    A table that is too wide gets narrower in this order: the columns ``cut`` are cut, those of ``drop`` are left out,
    and other words are cut, the widest first and the name last. With ``cut``, and above a text ``below``, each row
    stays one line. Otherwise no letter is lost: the widest column of words goes on in the next line before others get
    narrower. A number is never broken.
    """
    width = stream.size[0]
    columns = _columns(headers, rows)
    least = {name: _widest(name, column) for name, column in columns.items()}
    """The fewest cells of each column that is shown."""
    texts_below: list[str] = []
    if below and _needed(least) > width:
        texts_below = columns[below]
        del least[below]
    shrinking: list[str] = []
    if cut is not None:
        _cut(least, cut)
        shrinking += cut
    _leave_out(least, drop, width)
    stays_one_line = cut is not None or bool(texts_below)
    words = [name for name in least if not _has_numbers(columns[name])]
    if not stays_one_line:
        shrinking += _fold_widest(least, words)
    shrinking += _narrowed(least, [name for name in words if name in shrinking], width)
    shrinking += _narrowed(least, words, width)
    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    drawn_cells = []
    for name in least:
        is_right = _has_numbers(columns[name])
        justify: JustifyMethod = "right" if is_right else "left"
        table.add_column(Text(name), justify=justify, no_wrap=name not in shrinking, overflow="fold")
        is_cut = stays_one_line and name in shrinking
        drawn_cells.append([_cell(name, text, is_cut=is_cut) for text in columns[name]])
    for row in zip(*drawn_cells, strict=True):
        table.add_row(*row)
    lines = _lines(stream, table, _needed(least))
    if not texts_below:
        return "".join(lines)
    head, *row_lines = lines
    text = head
    for line, text_below in zip(row_lines, texts_below, strict=True):
        text += line
        if text_below != "-":
            for part in wrap(_INDENT + text_below, width - 1, _INDENT):
                text += f"{part}\n"
    return text


def _fold_widest(least: dict[str, int], names: Sequence[str]) -> Sequence[str]:
    """Let the widest of the columns ``names`` go on in the next line; returns its name."""
    if not names:
        return ()
    widest = max(names, key=least.__getitem__)
    least[widest] = min(least[widest], _LEAST_FOLDED)
    return (widest,)


def _cut(least: dict[str, int], cut: Sequence[str]) -> None:
    """Let the columns ``cut`` have fewer cells."""
    for name in cut:
        if name in least:
            least[name] = _LEAST_OF_WIDE if least[name] >= _WIDE else min(least[name], _LEAST)


def _leave_out(least: dict[str, int], drop: Sequence[str], width: int) -> None:
    """Leave out columns of ``drop`` until ``width`` cells are enough."""
    for name in drop:
        if name in least and _needed(least) > width:
            del least[name]


def _columns(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """The texts of each column by its head."""
    return {header: texts for header, *texts in zip(headers, *rows, strict=True)}


def _narrowed(least: dict[str, int], names: Sequence[str], width: int) -> list[str]:
    """Make the columns ``names`` narrower until ``width`` cells are enough, the widest first. Returns which columns
    that took."""
    narrowed: list[str] = []
    while names and _needed(least) > width:
        name = max(names, key=least.__getitem__)
        if least[name] <= _FEWEST:
            break
        least[name] -= 1
        narrowed.append(name)
    return narrowed


def _has_numbers(column: Sequence[str]) -> bool:
    return all(map(is_number, column))


def _widest(name: str, column: Sequence[str]) -> int:
    return max(map(cells, (name, *column)))


def _needed(widths: dict[str, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def _lines(stream: NonBlockingStream, table: Table, least: int) -> list[str]:
    """The table as lines, in ``least`` columns if the terminal is narrower: it breaks them itself."""
    file = io.StringIO()
    console = terminal_console(stream, file)
    console.width = max(console.width, least)
    console.print(table)
    return [f"{line.rstrip()}\n" for line in file.getvalue().splitlines()]


def _cell(header: str, text: str, *, is_cut: bool) -> Text | Shortened:
    if is_cut and text.startswith("/"):
        return Shortened(text)  # the end of a path tells the most
    style = _STYLES.get(text) or _STYLES.get(text.partition(" ")[0], "")
    cell = Text(text, style if header in ("STATUS", "ACTION") else "")
    if is_cut:
        cell.no_wrap = True
        cell.overflow = "ellipsis"
    return cell
