"""Tables for a terminal, drawn by Rich. Imported only when a table is drawn on one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.console import Console as RichConsole
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from mdl.console.streams import NonBlockingStream
from mdl.formatting import cells, is_number

_LOOKS = {"ok": "green", "present": "green", "done": "green", "running": "cyan"}
_LOOKS |= {"corrupt": "red", "failed": "red", "dead": "red", "missing": "yellow", "partial": "yellow"}
_LOOKS |= {"paused": "yellow", "cancelled": "yellow", "unverified": "magenta"}
"""The colours of what stands under STATUS."""
_LEAST = 12
"""The widest column may become so narrow before the others have to give room, too."""


def drawn_table(stream: NonBlockingStream, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal ``stream``. Nothing is cut: without room the widest column goes on in the next line."""
    color_system: Literal["standard"] | None = "standard" if stream.has_colors else None
    width, height = stream.size
    console = RichConsole(width=width, height=height, color_system=color_system, force_terminal=True, _environ={})
    columns = [[row[at] for row in rows if at < len(row)] for at in range(len(headers))]
    widths = [max(map(cells, (header, *column))) for header, column in zip(headers, columns, strict=True)]
    widest = max(widths, default=0)
    left = width - sum(widths) + widest
    gap = 2 if left - 2 * len(widths) >= min(widest, 2 * _LEAST) else 1
    has_room = left - gap * len(widths) >= min(widest, _LEAST)
    grid = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for header, column, column_width in zip(headers, columns, widths, strict=True):
        justify: JustifyMethod = "right" if column and all(map(is_number, column)) else "left"
        grid.add_column(Text(header), justify=justify, overflow="fold", no_wrap=has_room and column_width < widest)
    for row in rows:
        looks = (_LOOKS.get(cell, "") if header == "STATUS" else "" for header, cell in zip(headers, row, strict=False))
        grid.add_row(*(Text(cell, style) for cell, style in zip(row, looks, strict=False)))
    with console.capture() as captured:
        console.print(grid)
    return captured.get()
