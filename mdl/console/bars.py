"""Bars: the running files and the whole, drawn by Rich. Only the drawing thread imports this.

A file has a row once it has lasted a second. Columns keep their places while a download runs, and the speed and the
time left of the whole change once a second. A narrow terminal loses columns, and nothing is cut in two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any, TextIO, cast

from rich import get_console
from rich.console import ConsoleDimensions, Group, RenderableType
from rich.jupyter import JupyterMixin
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from mdl.console.failures import Clean
from mdl.console.streams import NonBlockingStream
from mdl.console.terminal import Output, Shortened, terminal_console
from mdl.describe import FileState, ProgressState, item_of
from mdl.formatting import cells, counted, human_bytes, human_rate, shorten

_MOST_ROWS = 8
_LASTING = 1.0
"""Seconds after which a file has a row."""
_CALM = 1.0
"""Seconds for which the speed of the whole stays."""
_SPEED_PERIOD = 5.0
"""Seconds over which Rich measures the speed of a file."""
_WITH_SPEED, _WITH_BAR, _WITH_BYTES = 99, 61, 35
"""How wide a terminal is that has room for the speed of each file; for its bar; for its bytes."""
_PERCENT, _FIGURES = 5, 26
"""Columns of the percentage, and of percentage and bytes, with the gaps before them."""
_INDENT = "  "
_Key = tuple[str, str]


class _Name(ProgressColumn):
    """A file's name, cut where it does not differ from the others."""

    def __init__(self) -> None:
        super().__init__(Column(ratio=2, no_wrap=True))

    def render(self, task: Task) -> RenderableType:
        return Shortened(task.description, task.fields["others"])


class _Bar(BarColumn):
    """A bar in the colour of what is done. It moves to and fro while the size is not known."""

    def __init__(self) -> None:
        super().__init__(bar_width=None, table_column=Column(ratio=1))

    def render(self, task: Task) -> ProgressBar:
        return ProgressBar(
            total=task.fields["bytes_total"],
            completed=task.completed,
            style="bright_black",
            complete_style=task.fields["color"],
            finished_style=task.fields["color"],
            pulse_style=task.fields["color"],
            animation_time=task.get_time(),
        )


class _Speed(ProgressColumn):
    """How fast a file comes, once Rich has measured it."""

    def __init__(self) -> None:
        super().__init__(Column(width=11, no_wrap=True))

    def render(self, task: Task) -> Text:
        return Text(human_rate(task.speed) if task.speed else "", justify="right")


def _field(name: str, width: int | None = None, *, style: str = "none") -> TextColumn:
    """A column with a text of each row, to the right if its ``width`` is fixed, else in all the room that is left."""
    column = Column(no_wrap=True, overflow="ellipsis", width=width, ratio=None if width else 1)
    return TextColumn(
        f"{{task.fields[{name}]}}", style=style, justify="right" if width else "left", markup=False, table_column=column
    )


class Bars(JupyterMixin):
    """The rows at the foot of the terminal, or in the cell of a notebook. `take` what there is to be shown, then
    `draw`."""

    def __init__(self, stream: NonBlockingStream, clean: Clean, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clean = clean
        self._clock = clock
        self._console = get_console()
        if stream.is_terminal:
            self._console = terminal_console(stream, cast(TextIO, Output(stream)))
        self._files = Progress(console=self._console, expand=True, get_time=clock, speed_estimate_period=_SPEED_PERIOD)
        self._whole = Progress(console=self._console, expand=True, get_time=clock)
        self._live: Live | None = None
        self._in_notebook: Any = None
        """The output of a cell that has the rows."""
        self._began: dict[_Key, float] = {}
        self._tasks: dict[_Key, TaskID] = {}
        self._texts: list[Text] = []
        """Rows between the files and the whole."""
        self._whole_task: TaskID | None = None
        self._measured_at = -math.inf
        self._speed = ""
        self._time_left = ""

    def take(self, state: ProgressState) -> None:
        """Copy what there is to be shown of ``state``."""
        if self._stream.is_terminal:
            columns, rows = self._stream.size
            self._console.size = ConsoleDimensions(columns - 1, rows)
        width, height = self._console.size
        self._choose_columns(width)
        now = self._clock()
        self._began = {key: self._began.get(key, now) for key in state.running}
        lasting = [file for key, file in state.running.items() if now - self._began[key] >= _LASTING or file.waiting]
        shown = lasting[: max(0, min(_MOST_ROWS, height - 4))]
        self._take_files({(file.model, file.file): file for file in shown if not file.waiting})
        self._texts = []
        for file in shown:
            if file.waiting:
                name = shorten(self._clean(item_of(file)), width // 2)
                self._texts.append(_row_of(f"{_INDENT}{name}  {self._clean(file.waiting)}", "yellow"))
        if len(lasting) > len(shown):
            more = counted(len(lasting) - len(shown), "file")
            self._texts.append(_row_of(f"{_INDENT}+ {more} on the way", "bright_black"))
        self._take_whole(state, now)

    def draw(self, text: str) -> None:
        """Draw the rows, and ``text``, whole lines, above them. Waits for the terminal."""
        if not self._stream.is_terminal:
            self._draw_in_notebook(text)
            return
        with self._console:
            if self._live is None:
                self._live = Live(
                    self,
                    console=self._console,
                    auto_refresh=False,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                    vertical_overflow="crop",
                )
                self._live.start()
            if text:
                self._console.print(Text.from_ansi(text.rstrip("\n")), soft_wrap=True)
            else:
                self._live.refresh()

    def hide(self) -> None:
        """Take the rows away, and show the cursor. The next frame is drawn wherever the cursor is then."""
        if self._live:
            self._live.stop()
            self._live = None
        if self._in_notebook:
            self._in_notebook.update(Text())
            self._in_notebook = None

    def _draw_in_notebook(self, text: str) -> None:
        """Draw the rows in one output of the cell, which changes; lines go to the notebook's stderr."""
        self._stream.post(text, keep=True)
        if self._in_notebook is None:
            self._in_notebook = import_module("IPython.display").display(self, display_id=True)
        else:
            self._in_notebook.update(self)

    def __rich__(self) -> RenderableType:
        """The rows as they are now."""
        rows: list[RenderableType] = []
        if self._tasks:
            rows.append(self._files.get_renderable())
        rows += self._texts
        if self._whole_task is not None:
            rows.append(self._whole.get_renderable())
        if self._stream.is_terminal:
            rows.append(Text())  # for the cursor, and for a "^C" or "Killed" that is written there
        return Group(*rows)

    def _choose_columns(self, width: int) -> None:
        """Which columns there is room for. Without room for its bar the row of the whole has its speed there."""
        columns: list[ProgressColumn] = [_Name()]
        whole: list[ProgressColumn] = [_field("label", style="bold")]
        figures: list[ProgressColumn] = [_field("percent", 4)]
        if width >= _WITH_BYTES:
            figures.append(_field("amount", 20))
        if width >= _WITH_BAR:
            columns.append(_Bar())
        if width >= _WITH_SPEED:
            whole = [_Name(), _Bar()]
            columns += [*figures, _Speed(), _field("nothing", 12)]
            figures.append(_field("pace", 24, style="bold"))
        else:
            columns += figures
        self._files.columns = tuple(columns)
        self._whole.columns = (*whole, *figures)

    def _take_files(self, files: dict[_Key, FileState]) -> None:
        for key in self._tasks.keys() - files.keys():
            self._files.remove_task(self._tasks.pop(key))
        names = {key: _INDENT + self._clean(item_of(file)) for key, file in files.items()}
        for key, file in files.items():
            if key not in self._tasks:
                self._tasks[key] = self._files.add_task(names[key], total=None, completed=file.done)
            total = _total(file.done, file.total)
            amount = f"checking {human_bytes(total)}" if file.checking else _amount(file.done, total)
            self._files.update(
                self._tasks[key],
                completed=file.done,
                bytes_total=total,
                others=[name for other, name in names.items() if other != key],
                color="magenta" if file.checking else "cyan",
                percent=_percent(file.done, total),
                amount=amount,
                nothing="",
            )

    def _take_whole(self, state: ProgressState, now: float) -> None:
        if not (state.count or state.is_measured):
            return
        if state.is_measured and now - self._measured_at >= _CALM:
            self._measured_at = now
            self._speed = state.speed
            self._time_left = state.time_left
        counted_files = state.counted if state.count > 1 else ""
        title = f"{_INDENT}total  {counted_files}"
        pace = f"{self._speed:>10}  {self._time_left:<12}"
        labels = [f"{_INDENT}total  {pace}  {counted_files}", f"{_INDENT}total  {pace}", pace, self._speed]
        room = self._console.width - (_FIGURES if self._console.width >= _WITH_BYTES else _PERCENT)
        label = next((text for text in labels if cells(text.rstrip()) <= room), "")
        if self._whole_task is None:
            self._whole_task = self._whole.add_task(title, total=None)
        done = state.whole.bytes_done
        total = _total(done, state.bytes_total)
        self._whole.update(
            self._whole_task,
            description=title,
            completed=done,
            bytes_total=total,
            others=[],
            color="green",
            label=label,
            percent=_percent(done, total),
            amount=_amount(done, total),
            pace=pace,
        )


def _row_of(text: str, style: str) -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _total(done: int, total: int | None) -> int | None:
    """The size; None if it is not known or cannot be right."""
    return total if total is not None and 0 <= done <= total else None


def _percent(done: int, total: int | None) -> str:
    if total is None:
        return ""
    return f"{done * 100 // total if total else 100}%"


def _amount(done: int, total: int | None) -> str:
    return f"{human_bytes(done):>8} / {human_bytes(total):<8}"
