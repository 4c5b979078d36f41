"""A `Console` on texts, pipes and terminals that belong to a test, and a download to show on it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import IO, Any

import pytest

from mdl.console import Console, ConsoleOptions
from mdl.events import Event, Failed, FileProgress, Finished, Planned, Progressed, Retrying, Rewound, Started
from support.polling import until
from support.schemas import events_of
from support.terminal import Reader, Terminal

NAMES = ["x [/] y.bin", "ESC\x1b[31m.bin", "مدل.bin", "a-very-" * 20 + "long-name.bin"]


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ticking(step: float) -> Callable[[], float]:
    """A clock that goes on by ``step`` seconds whenever it is read."""
    ticks = count(step=step)
    return lambda: float(next(ticks))


def made(progress: Any = "lines", **options: Any) -> tuple[Console, io.StringIO, io.StringIO, Clock]:
    """A Console on two texts."""
    out, err, clock = io.StringIO(), io.StringIO(), Clock()
    environ = options.pop("environ", {})
    cancel = options.pop("cancel", None)
    how = ConsoleOptions(progress, **options)
    console = Console(how, environ, stdout=out, stderr=err, cancel=cancel, clock=clock)
    return console, out, err, clock


def told(events: Iterable[Event], progress: Any = "lines", *, step: float = 0.0, **options: Any) -> list[str]:
    """The lines that a Console writes about events, which happen ``step`` seconds after one another."""
    console, _, err, clock = made(progress, **options)
    with console.watch() as tell:
        for event in events:
            clock.now += step
            tell(event)
    return err.getvalue().splitlines()


def objects(lines: list[str]) -> list[dict[str, Any]]:
    return events_of("\n".join(lines))


def one(name: str, done: int, total: int | None = 1000, index: int = 1) -> FileProgress:
    return FileProgress("m", name, index, done, total)


def progress(done: int, total: int = 1000, *files: FileProgress) -> Progressed:
    return Progressed(bytes_done=done, bytes_total=total, bytes_per_second=5.0, files=files)


@contextmanager
def piped(encoding: str = "utf-8") -> Iterator[tuple[IO[str], Reader]]:
    """The writing end of a pipe, and a reader that has not started. The pipe is closed in the end."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding=encoding) as file:
        yield file, Reader(reading)


def download(console: Console, *, fails: bool = True, is_seen: Callable[[], object] = lambda: True) -> None:
    """Four files with odd names, of which the last one fails. They are under way until ``is_seen``."""
    with console.watch("job-1") as tell:
        tell(Planned(files=4, bytes_total=4000, bytes_to_fetch=4000, models=(("m", 4),)))
        for index, name in enumerate(NAMES, 1):
            tell(Started("m", name, index, 4, 1000, 300 if index == 1 else 0))
        for step in range(0, 1000, 90):
            running = tuple(one(name, step, index=index) for index, name in enumerate(NAMES, 1))
            last_look = Progressed("", "", step * 4, 4000, 4.0, running)
            tell(last_look)
        until(lambda: is_seen() or tell(last_look))
        tell(Retrying("m", NAMES[1], f"{NAMES[1]} is reset " * 20, 2, 4.0))
        tell(Rewound("m", NAMES[1], 100, "ETag changed"))
        for name in NAMES[:3] if fails else NAMES:
            tell(Finished("m", name, 1000, "fetched", "sha256"))
        if fails:
            tell(Failed("m", NAMES[3], "NET", "503 Service Unavailable", "try later"))
        tell(Progressed(bytes_done=4000, bytes_total=4000))


def seen_download(console: Console, terminal: Terminal, *, fails: bool = True) -> None:
    """`download`, in which all files are seen under way: as bars, or as lines."""
    download(console, fails=fails, is_seen=lambda: is_under_way(terminal))


def is_under_way(terminal: Terminal) -> bool:
    seen = terminal.reader.so_far()
    return "90%" in seen or seen.count("99%") > len(NAMES) + 1


def on_terminal(
    use: Callable[[Console, Terminal], object] = seen_download,
    progress: Any = "auto",
    *,
    columns: int = 80,
    encoding: str = "utf-8",
    both: bool = False,
    color: bool = True,
    **environ: str,
) -> str:
    """What a terminal gets to see of ``use``: stderr, or both streams."""
    terminal = Terminal(columns, encoding=encoding)
    out, environ = terminal.file if both else io.StringIO(), {"TERM": "xterm-256color", **environ}
    options = ConsoleOptions(progress, color=color)
    console = Console(options, environ, stdout=out, stderr=terminal.file, clock=ticking(0.3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mdl.console.drawing.BEFORE_DRAWING", 0.01)
        patch.setattr("mdl.console.drawing.BETWEEN_FRAMES", 0.01)
        use(console, terminal)
    return terminal.text()
