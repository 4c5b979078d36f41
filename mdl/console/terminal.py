"""Terminal: Rich's console on a stream of mdl's. Imported only when something is drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import IO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from mdl.console.streams import NonBlockingStream
from mdl.formatting import cells, shorten_all


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
