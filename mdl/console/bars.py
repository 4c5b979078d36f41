"""Bars: the running files and the whole, drawn by Rich. Only the drawing thread imports this.

A file has a row once it has lasted a second. Columns keep their places while a download runs, and the speed and the
time left of the whole change once a second. A narrow terminal loses columns, and nothing is cut in two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, TextIO, cast

from rich import get_console
from rich.console import ConsoleDimensions, Group, JustifyMethod, RenderableType
from rich.jupyter import JupyterMixin
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from mdl.console.messages import Clean
from mdl.console.state import FileState, Key, State
from mdl.console.streams import NonBlockingStream
from mdl.console.terminal import Output, Shortened, terminal_console
from mdl.formatting import counted, human_bytes, human_rate, shorten

_MOST_ROWS = 8
_LASTING = 1.0
"""Seconds after which a file has a row."""
_STILL = 10.0
"""Seconds without a byte after which a file is said to be waiting."""
_CALM = 1.0
"""Seconds for which the speed of the whole stays."""
_SPEED_PERIOD = 5.0
"""Seconds over which Rich measures the speed of a file."""
_WITH_SPEED = 99
_WITH_BAR = 61
_WITH_BYTES = 35
"""How wide a terminal is that has room for speeds and the time left; for bars; for bytes."""
_INDENT = "  "
_WHOLE: Key = ("", "")
"""The row of the whole among those of files."""


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
    """How fast the whole comes, or a file, once Rich has measured it."""

    def __init__(self) -> None:
        super().__init__(Column(width=11, no_wrap=True))

    def render(self, task: Task) -> Text:
        measured = human_rate(task.speed) if task.speed else ""
        return Text(task.fields["speed"] or measured, justify="right")


def _field(name: str, width: int, justify: JustifyMethod = "right") -> TextColumn:
    """A column with one text of each row."""
    column = Column(no_wrap=True, width=width)
    return TextColumn(f"{{task.fields[{name}]}}", justify=justify, markup=False, table_column=column)


class Bars(JupyterMixin):
    """The rows at the foot of the terminal, or in the cell of a notebook. Call `take` for each frame, then `draw`."""

    def __init__(self, stream: NonBlockingStream, clean: Clean, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clean = clean
        self._clock = clock
        self._console = get_console()
        if stream.is_terminal:
            self._console = terminal_console(stream, cast(TextIO, Output(stream)))
        self._rows = Progress(console=self._console, expand=True, get_time=clock, speed_estimate_period=_SPEED_PERIOD)
        self._live: Live | None = None
        self._in_notebook: Any = None
        """The output of a cell that has the rows."""
        self._began: dict[Key, float] = {}
        self._tasks: dict[Key, TaskID] = {}
        """Rich's id of each row."""
        self._texts: list[Text] = []
        """Lines above the rows: files that wait, and how many have no row."""
        self._below: list[Text] = []
        self._measured_at = -math.inf
        self._speed = ""
        self._time_left = ""

    def take(self, state: State) -> None:
        """Copy the figures to be shown from ``state``."""
        if self._stream.is_terminal:
            columns, rows = self._stream.size
            self._console.size = ConsoleDimensions(columns - 1, rows)
        width, height = self._console.size
        self._rows.columns = _columns(width)
        now = self._clock()
        self._began = {key: self._began.get(key, now) for key in state.running}
        lasting = [file for key, file in state.running.items() if now - self._began[key] >= _LASTING or file.waits_for]
        shown = lasting[: max(0, min(_MOST_ROWS, height - 4))]
        self._texts = [self._waiting(file, state, width) for file in shown if file.waits_for]
        if len(lasting) > len(shown):
            self._texts.append(_line(f"+ {counted(len(lasting) - len(shown), 'file')} on the way", "bright_black"))
        files = {(file.model, file.file): file for file in shown if not file.waits_for}
        for key in self._tasks.keys() - files.keys() - {_WHOLE}:
            self._rows.remove_task(self._tasks.pop(key))
        names = {key: self._name(file, state) for key, file in files.items()}
        for key, file in files.items():
            others = [name for other, name in names.items() if other != key]
            done = file.done
            doing = ""
            color = "cyan"
            if file.is_checked:
                done = file.checked
                doing = f"checking {human_bytes(file.total)}"
                color = "magenta"
            elif now - file.moved_at >= _STILL and file.done != file.total:
                doing = "waiting"
                color = "yellow"
            self._take_row(key, names[key], done, file.total, color, others=others, doing=doing)
        self._below = []
        if state.file_count or state.is_measured:
            self._take_whole(state, width, now)

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
        self._stream.post(text)
        if self._in_notebook is None:
            self._in_notebook = import_module("IPython.display").display(self, display_id=True)
        else:
            self._in_notebook.update(self)

    def __rich__(self) -> RenderableType:
        """The rows as they are now, that of the whole last."""
        tasks = sorted(self._rows.tasks, key=lambda task: task.id == self._tasks.get(_WHOLE))
        rows: list[RenderableType] = [*self._texts]
        if tasks:
            rows.append(self._rows.make_tasks_table(tasks))
        rows += self._below
        if self._stream.is_terminal:
            rows.append(Text())  # for the cursor, and for a "^C" or "Killed" that is written there
        return Group(*rows)

    def _take_whole(self, state: State, width: int, now: float) -> None:
        """The row of the whole. Where there are no columns for speed and time left, a line below has them."""
        if state.is_measured and now - self._measured_at >= _CALM:
            self._measured_at = now
            self._speed = state.speed
            self._time_left = state.time_left
        counted_files = state.counted if state.file_count > 1 else ""
        name = f"total  {counted_files}" if width >= _WITH_BAR else "total"
        total = state.bytes_total
        speed = self._speed
        self._take_row(_WHOLE, name, state.bytes_done, total, "green", speed=speed, time_left=self._time_left)
        if speed and width < _WITH_SPEED:
            line = f"{speed:>10}  {self._time_left}" + (f"  {counted_files}" if width < _WITH_BAR else "")
            self._below = [_line(line, "bold")]

    def _take_row(
        self,
        key: Key,
        name: str,
        done: int,
        total: int | None,
        color: str,
        *,
        others: Sequence[str] = (),
        doing: str = "",
        speed: str = "",
        time_left: str = "",
    ) -> None:
        """Add a row, or change it. A size that cannot be right counts as unknown. ``doing`` is said in place of the
        bytes."""
        if total is not None and not 0 <= done <= total:
            total = None
        percent = ""
        if total is not None:
            percent = f"{done * 100 // total if total else 100}%"
        amount = f"{human_bytes(done):>8} / {human_bytes(total):<8}"
        if key not in self._tasks:
            self._tasks[key] = self._rows.add_task("", total=None, completed=done)
        self._rows.update(
            self._tasks[key],
            description=_INDENT + name,
            completed=done,
            others=[_INDENT + other for other in others],
            bytes_total=total,
            color=color,
            percent=percent,
            amount=doing or amount,
            speed=speed,
            time_left=f" {time_left}",
        )

    def _name(self, file: FileState, state: State) -> str:
        """The name of a file as it is shown."""
        return self._clean(file.file if state.is_of_one_model and file.file else file.item)

    def _waiting(self, file: FileState, state: State, width: int) -> Text:
        """The line of a file that waits, in place of its row."""
        name = shorten(self._name(file, state), width // 2)
        return _line(f"{name}  waiting: {self._clean(file.waits_for)}", "yellow")


def _columns(width: int) -> tuple[ProgressColumn, ...]:
    """The columns for which there is room."""
    columns: list[ProgressColumn] = [_Name()]
    if width >= _WITH_BAR:
        columns.append(_Bar())
    columns.append(_field("percent", 4))
    if width >= _WITH_BYTES:
        columns.append(_field("amount", 20))
    if width >= _WITH_SPEED:
        columns += [_Speed(), _field("time_left", 13, "left")]
    return tuple(columns)


def _line(text: str, style: str) -> Text:
    return Text(_INDENT + text, style, no_wrap=True, overflow="ellipsis")
