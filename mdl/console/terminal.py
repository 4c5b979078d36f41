"""Terminal: Rich, writing through one of our outlets. Imported only when somebody looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, cast

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from mdl.console.humans import is_number
from mdl.console.outlet import Outlet
from mdl.console.streams import Streams


class _Tap:
    """An outlet in the shape of a file, as Rich wants it. It waits for nobody, and nothing it is given raises."""

    def __init__(self, outlet: Outlet) -> None:
        self.encoding = outlet.encoding
        self._outlet = outlet

    def write(self, text: str) -> int:
        self._outlet.post(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return True


def rich_console(streams: Streams, outlet: Outlet) -> RichConsole:
    """A Rich console that draws on ``outlet``: no markup, no emoji, no guesses about the environment."""
    width, height = streams.size(outlet)
    return RichConsole(
        file=cast(IO[str], _Tap(outlet)),
        width=width,
        height=height,
        color_system="standard" if streams.colored(outlet) else None,
        force_terminal=True,
        force_interactive=True,
        force_jupyter=False,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
        _environ={"TERM": streams.environ.get("TERM", "")},
    )


def draw_table(streams: Streams, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for a terminal: nothing is cut, long cells go on in the next line of their column."""
    console = rich_console(streams, streams.stdout)
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for at, header in enumerate(headers):
        numbers = bool(rows) and all(is_number(row[at]) for row in rows if at < len(row))
        grid.add_column(Text(header), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)
    streams.stdout.drain()
