"""Tables for a terminal, drawn by Rich. Imported only when a table is drawn on one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, cast

from rich.console import Console as RichConsole
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from mdl.console.streams import NonBlockingStream, Streams
from mdl.formatting import cells, is_number

_LEAST = 12
"""As narrow may the widest column get before the others must give, too."""


class _File:
    """A stream in the form of the file that Rich writes to."""

    def __init__(self, stream: NonBlockingStream) -> None:
        self.encoding = stream.encoding
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def draw_table(streams: Streams, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Draw a table on stdout. Nothing is cut: if there is no room, the widest column goes on in the next line."""
    console = _rich_console(streams)
    columns = [[row[at] for row in rows if at < len(row)] for at in range(len(headers))]
    widths = [max(map(cells, (header, *column))) for header, column in zip(headers, columns, strict=True)]
    widest = max(widths, default=0)
    left = console.width - sum(widths) + widest
    gap = 2 if left - 2 * len(widths) >= min(widest, 2 * _LEAST) else 1
    has_room = left - gap * len(widths) >= min(widest, _LEAST)
    grid = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for header, column, width in zip(headers, columns, widths, strict=True):
        justify: JustifyMethod = "right" if column and all(map(is_number, column)) else "left"
        grid.add_column(Text(header), justify=justify, overflow="fold", no_wrap=has_room and width < widest)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)


def _rich_console(streams: Streams) -> RichConsole:
    """A Rich console that draws on stdout: no markup, no emoji, no guesses about the environment."""
    width, height = streams.size(streams.stdout)
    return RichConsole(
        file=cast(IO[str], _File(streams.stdout)),
        width=width,
        height=height,
        color_system="standard" if streams.has_colors(streams.stdout) else None,
        force_terminal=True,
        force_interactive=True,
        force_jupyter=False,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
        _environ={"TERM": streams.environ.get("TERM", "")},
    )
