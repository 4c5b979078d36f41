"""What mdl says, to people and to programs, whatever is at the other end of its streams."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.schemas import events_of

from mdl.console import Console, progress_bars
from mdl.console.bars import Frame
from mdl.console.documents import json_text
from mdl.console.streams import NonBlockingStream, Streams
from mdl.describe import ProgressState, ended_by
from mdl.errors import Cancelled, Deadline, MdlError, NetworkError, NotFound
from mdl.events import (
    Ended,
    Event,
    Failed,
    FileProgress,
    Finished,
    Noticed,
    Planned,
    Progressed,
    Retrying,
    Rewound,
    Started,
    Verifying,
)
from mdl.formatting import cells

ROOT = Path(__file__).parents[3]
PERSIAN = "مدل‌فارسی"
ESC = "\x1b"
FIELDS = [
    "event",
    "schema",
    "time",
    "job",
    "model",
    "method",
    "file",
    "file_index",
    "file_count",
    "file_bytes",
    "file_total",
    "bytes_done",
    "bytes_total",
    "bytes_per_second",
    "eta_seconds",
    "status",
    "error",
]

START = """
import itertools, os, sys
from mdl.console import Console
from mdl.errors import MdlError
from mdl.events import *
console = Console(**dict({how}), clock=itertools.count(step=0.3).__next__)
"""
DOWNLOAD = """
NAMES = ["x [/] y.bin", "ESC\\x1b[31m.bin", "\\u0645\\u062f\\u0644.bin", "a-very-" * 20 + "long-name.bin"]
with console.watch("job-1") as tell:
    tell(Planned(files=4, bytes_total=4000, bytes_to_fetch=4000))
    for index, name in enumerate(NAMES, 1):
        tell(Started("m", name, index, 4, 1000, 300 if index == 1 else 0))
    for step in range(0, 1000, 90):
        running = tuple(FileProgress("m", name, at, step, 1000) for at, name in enumerate(NAMES, 1))
        tell(Progressed(bytes_done=step * 4, bytes_total=4000, bytes_per_second=9e7, eta_seconds=9.0, files=running))
    tell(Retrying("m", NAMES[1], "reset by peer " * 20, 2, 4.0))
    tell(Rewound("m", NAMES[1], 100, "ETag changed"))
    for name in NAMES[:3]:
        tell(Finished("m", name, 1000, "fetched", "sha256"))
    tell(Failed("m", NAMES[3], "NET", "503 Service Unavailable", "try later"))
    tell(Progressed(bytes_done=4000, bytes_total=4000))
"""
FAILURE = 'tell(Failed("m", NAMES[3], "NET", "503 Service Unavailable", "try later"))'
NO_FAILURE = DOWNLOAD.replace("NAMES[:3]", "NAMES").replace(FAILURE, "")
"""A failure is told in full, and so may wrap."""


def environment(**changes: str) -> dict[str, str]:
    """Nothing but what a terminal and Python need."""
    return {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "LANG": "C.UTF-8", **changes}


def run(script: str, how: str = "", *, shell: str = '"$0" -c "$1"', **changes: str) -> subprocess.CompletedProcess[str]:
    """Run ``script`` after a Console is made, through a shell that may redirect its streams."""
    command = ["bash", "-c", shell, sys.executable, START.format(how=how) + script]
    return subprocess.run(
        command, env=environment(**changes), capture_output=True, encoding="utf-8", errors="replace", timeout=60
    )


def on_terminal(script: str, how: str = "", columns: int = 80, *, both: bool = False, **changes: str) -> str:
    """What a terminal gets to see: stderr, or both streams."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", START.format(how=how) + script],
        stdin=subprocess.DEVNULL,
        stdout=slave if both else subprocess.DEVNULL,
        stderr=slave,
        env=environment(**changes),
    )
    os.close(slave)
    seen = bytearray()
    while piece := _read(master):
        seen += piece
    os.close(master)
    process.wait(60)
    return seen.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux says that the other side of a terminal is gone
        return b""


class Screen:
    """As much of a terminal as bars use. ``widest`` is the widest line ever written, before it could wrap."""

    def __init__(self, output: str, columns: int = sys.maxsize) -> None:
        self.columns = columns
        self.rows, self.row, self.column, self.widest, self.cursor = [""], 0, 0, 0, True
        self.feed(output)

    def feed(self, output: str) -> None:
        for text, code, kind in re.findall(r"([^\x1b]+)|\x1b\[([?0-9;]*)([A-Za-z])", output):
            if text:
                self._write(text)
            elif kind == "A":
                self.row -= int(code or 1)
            elif kind == "K":
                assert code == "2"
                self.rows[self.row] = ""
            elif kind == "J":
                self.rows = [*self.rows[: self.row], self.rows[self.row][: self.column]]
            elif code == "?25":
                self.cursor = kind == "h"
            else:
                assert kind == "m", f"an escape code that is not known here: {code}{kind}"

    def made_narrower(self, columns: int) -> None:
        """What most terminals do: a row that has no room any more goes on in the next one."""
        self.columns, rows = columns, self.rows
        assert max(map(cells, rows[: self.row]), default=0) <= columns, "rows above the cursor are not moved here"
        self.rows = [row[at : at + columns] for row in rows for at in range(0, max(1, len(row)), columns)]

    def _write(self, text: str) -> None:
        for char in text:
            if char == "\n":
                self.row += 1
                self.rows += [""] * (self.row + 1 - len(self.rows))
            elif char == "\r":
                self.column = 0
            else:
                if self.column == self.columns:
                    self._write("\r\n")
                row = self.rows[self.row]
                self.rows[self.row] = row[: self.column] + char + row[self.column + 1 :]
                self.column += 1
                self.widest = max(self.widest, cells(self.rows[self.row]))


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(progress: Any = "lines", **options: Any) -> tuple[Console, io.StringIO, io.StringIO, Clock]:
    """A Console on two texts."""
    out, err, clock = io.StringIO(), io.StringIO(), Clock()
    environ = options.pop("environ", {})
    console = Console(progress, environ=environ, stdout=out, stderr=err, clock=clock, **options)
    return console, out, err, clock


def objects(err: io.StringIO) -> list[dict[str, Any]]:
    return events_of(err.getvalue())


def progress(done: int, total: int = 1000, *, files: tuple[FileProgress, ...] = ()) -> Progressed:
    return Progressed(bytes_done=done, bytes_total=total, bytes_per_second=5.0, eta_seconds=7.0, files=files)


# --- who looks ---------------------------------------------------------------------------------------------


def test_import_is_cheap() -> None:
    """Importing the console brings neither Rich nor anything else that takes a while."""
    heavy = {"rich", "json", "re", "typing", "dataclasses", "pathlib", "asyncio", "logging", "mdl.paths", "mdl.events"}
    code = "import sys; before = set(sys.modules); import mdl.console; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-S", "-c", code], env=environment(), capture_output=True, text=True)
    assert "mdl.console.reporter" in loaded.stdout.split(), loaded.stderr
    assert not heavy & set(loaded.stdout.split())


@pytest.mark.fault(137)
def test_pipe_gets_plain_lines() -> None:
    """Without a terminal there are lines about everything that matters, and not one escape code."""
    done = run(DOWNLOAD)
    assert done.returncode == 0, done.stderr
    assert ESC not in done.stderr
    assert "plan: 4 files, 4.0 kB: 4.0 kB to fetch\n" in done.stderr
    assert "started   m/x [/] y.bin  resumed at 300 B of 1.0 kB\n" in done.stderr
    assert "started   m/ESC\\x1b[31m.bin  1.0 kB\n" in done.stderr
    assert "attempt 2 in 4 s: reset by peer" in done.stderr
    assert "100 B thrown away: ETag changed\n" in done.stderr
    assert "finished  m/x [/] y.bin  1.0 kB  sha256 ok\n" in done.stderr
    assert "503 Service Unavailable\n" in done.stderr
    assert done.stdout == ""


@pytest.mark.fault(137)
@pytest.mark.parametrize(
    ("how", "changes"),
    [
        ("", {"TERM": "dumb"}),
        ("", {"TERM": ""}),
        ("", {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}),
        ("progress='lines'", {}),
        ("progress='bars'", {"TERM": "dumb"}),
    ],
)
def test_terminal_that_wants_no_bars(how: str, changes: dict[str, str]) -> None:
    """A dumb terminal, the hub's switch and the flag each lead to plain lines, even on a terminal."""
    seen = on_terminal(DOWNLOAD, how, **changes)
    assert "finished  m/x [/] y.bin" in seen
    assert ESC not in seen


def test_flag_beats_the_hubs_switch() -> None:
    """Bars asked for by name are drawn although the hub's own are switched off."""
    assert "━" in on_terminal(DOWNLOAD, "progress='bars'", HF_HUB_DISABLE_PROGRESS_BARS="1")


def test_bars_asked_for_without_a_terminal() -> None:
    """Bars never go to a pipe, even when asked for by name."""
    assert ESC not in run(DOWNLOAD, "progress='bars'").stderr


# --- bars --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 120])
def test_bars_never_wrap(columns: int) -> None:
    """No line of the bars reaches the last column, whatever the names; the speed and time left are shown."""
    seen = on_terminal(NO_FAILURE, columns=columns)
    assert "━" in seen
    assert "90.0 MB/s  9 s left" in seen
    assert 0 < Screen(seen).widest < columns


@pytest.mark.parametrize("columns", [20, 40, 79, 80, 81, 120])
def test_what_a_terminal_echoes_leaves_no_row(columns: int) -> None:
    """Ctrl-C is shown by the terminal itself, where the cursor is: no row is left of the bars all the same."""
    echo = NO_FAILURE.replace("    tell(Retrying", "    os.write(2, b'^C')\n    tell(Retrying")
    assert echo.count("^C") == 1
    screen = Screen(on_terminal(echo, "{'progress': 'bars'}", columns), columns)
    assert not [row for row in screen.rows if "%" in row]


def test_names_on_bars_are_literal() -> None:
    """Markup in a name is shown as it is, and an escape character as an escape, never obeyed."""
    seen = on_terminal(DOWNLOAD)
    assert "m/x [/] y.bin  " in seen
    assert "m/ESC\\x1b[31m.bin" in seen
    assert "ESC\x1b" not in seen


def test_what_stays_on_the_terminal() -> None:
    """In the end the bars are gone, the cursor is back, and one line a file tells how it went."""
    screen = Screen(on_terminal(DOWNLOAD, columns=300))
    assert screen.cursor
    assert [row.rstrip() for row in screen.rows if row] == [
        "↻ m/x [/] y.bin  resumed at 300 B of 1.0 kB",
        "↺ m/ESC\\x1b[31m.bin  100 B thrown away: ETag changed",
        "✓ m/x [/] y.bin  1.0 kB  sha256 ok",
        "✓ m/ESC\\x1b[31m.bin  1.0 kB  sha256 ok",
        "✓ m/مدل.bin  1.0 kB  sha256 ok",
        f"✗ m/{'a-very-' * 20}long-name.bin  503 Service Unavailable",
    ]


@pytest.mark.parametrize("error", ["KeyboardInterrupt()", "MdlError('no')", "SystemExit(3)"])
def test_cursor_comes_back_after_an_error(error: str) -> None:
    """Whatever ends a download, the cursor that the bars hid is shown again."""
    seen = on_terminal(DOWNLOAD + f"    raise {error}\n")
    assert "\x1b[?25l" in seen
    assert Screen(seen).cursor


@pytest.mark.fault(137)
def test_no_color() -> None:
    """NO_COLOR and --no-color each leave bars without any colour; without them there is some."""
    color = re.compile(r"\x1b\[[0-9;]*m")
    assert color.search(on_terminal(DOWNLOAD))
    for seen in (on_terminal(DOWNLOAD, NO_COLOR="1"), on_terminal(DOWNLOAD, "color=False")):
        assert "━" in seen
        assert not color.search(seen)
    assert color.search(on_terminal(DOWNLOAD, NO_COLOR="")), "an empty NO_COLOR asks for nothing"


@pytest.mark.fault(137)
@pytest.mark.parametrize("columns", ["0", "1", "1000000", "-5", "x", "9" * 5000, "²²"])
def test_odd_columns(columns: str) -> None:
    """A COLUMNS that makes no sense changes nothing: the bars fit the real terminal."""
    seen = on_terminal(NO_FAILURE, COLUMNS=columns)
    assert "━" in seen
    assert Screen(seen).widest == 79


def test_columns_is_heeded() -> None:
    """A sensible COLUMNS narrows the bars."""
    assert Streams({"COLUMNS": "60"}, stderr=io.StringIO()).size(NonBlockingStream(io.StringIO()))[0] == 60


def test_ascii_bars() -> None:
    """Where the encoding has no signs for it, bars and lines are drawn in ASCII alone."""
    seen = on_terminal(DOWNLOAD, PYTHONIOENCODING="ascii")
    assert seen.isascii()
    assert "====" in seen
    assert "ok m/x [/] y.bin  1.0 kB  sha256 ok" in re.sub(r"\x1b\[\d*m", "", seen)


class Pty:
    """A terminal in this process, with bars on it. Nothing is read from it but by `read`."""

    def __init__(self, columns: int = 100) -> None:
        self.master, slave = pty.openpty()
        self.resize(columns)
        self.stderr = os.fdopen(slave, "w", encoding="utf-8")
        ticks = count(step=0.3)
        environ = {"TERM": "xterm"}
        self.console = Console(environ=environ, stdout=io.StringIO(), stderr=self.stderr, clock=lambda: next(ticks))

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read(self) -> str:
        """All that was written and not read yet."""
        got = bytearray()
        while select.select([self.master], [], [], 0.1)[0]:
            got += os.read(self.master, 65536)
        return got.decode()


@pytest.fixture
def terminal() -> Iterator[Pty]:
    made = Pty()
    yield made
    made.stderr.close()
    os.close(made.master)


def running(step: int, files: int = 4) -> Progressed:
    names = [f"unet/a-long-folder/model-{at:05d}.safetensors" for at in range(files)]
    return progress(step, files=tuple(FileProgress("m", name, at, step, 1000) for at, name in enumerate(names, 1)))


def test_a_terminal_that_is_made_narrower(terminal: Pty) -> None:
    """Rows that the terminal wraps when it is made narrower leave nothing behind, and what is above them stays."""
    with terminal.console.watch() as tell:
        tell(Finished("m", "first", 10))
        tell(running(300))
        screen = Screen(terminal.read(), 100)
        screen.made_narrower(45)
        assert len(screen.rows) > 10
        terminal.resize(45)
        tell(running(400))
        screen.feed(terminal.read())
        assert len(screen.rows) == 6
        assert screen.widest < 100
        tell(Finished("m", "second", 10))
    screen.feed(terminal.read())
    assert [row for row in screen.rows if row] == ["✓ m/first  10 B  unverified", "✓ m/second  10 B  unverified"]
    assert screen.cursor


@pytest.mark.fault(136)
def test_a_terminal_that_stands_still(terminal: Pty) -> None:
    """A terminal that takes nothing (Ctrl-S) holds no event up; what matters is on it later, in order, and no row."""
    shown: list[str] = []
    is_over = threading.Event()

    def read_all() -> None:
        while not is_over.is_set():
            shown.append(terminal.read())

    reader = threading.Thread(target=read_all)
    with terminal.console.watch() as tell:
        for step in range(2000):
            tell(running(step % 1000))
            if step % 10 == 0:
                tell(Finished("m", f"file-{step}", 1))
        assert sum(len(data) for data, _ in terminal.console.streams.stderr._backlog) < 100_000
        reader.start()
        terminal.console.streams.stderr.drain()
        tell(running(990))
    is_over.set()
    reader.join()
    screen = Screen("".join(shown))
    assert [re.findall(r"file-(\d+)", row) for row in screen.rows if row] == [[str(at)] for at in range(0, 2000, 10)]
    assert "99%" in "".join(shown)
    assert screen.cursor


def test_words_above_the_bars() -> None:
    """A warning given while bars are drawn stands above them; data for the same terminal waits for their end."""
    script = DOWNLOAD + '    console.warn("mind [red]this")\n    console.data("/models/m")\n'
    rows = [row for row in Screen(on_terminal(script, both=True)).rows if row]
    assert rows[-2:] == ["mdl: warning: mind [red]this", "/models/m"]


class Board:
    """A frame that is drawn again and again of one state."""

    def __init__(self) -> None:
        self.state = ProgressState()
        self.frame = Frame(self.state, lambda text: text)

    def take(self, *events: Event) -> None:
        for event in events:
            self.state.update(event)

    def text(self, width: int = 80, height: int = 24, now: float = 0.0) -> list[str]:
        return ["".join(piece for piece, _ in line) for line in self.frame.draw(width, height, now)]


def board(total: int | None = 1000, files: int = 1) -> Board:
    drawn = Board()
    drawn.take(progress(250, files=tuple(FileProgress("m", f"{at}.bin", at, 250, total) for at in range(files))))
    return drawn


def test_unknown_total_is_not_guessed() -> None:
    """Without a size there is no percentage, neither for the file nor for the whole."""
    assert "25%" in "".join(board().text())
    lines = board(total=None).text()
    assert not any("%" in line for line in lines)
    assert all(line.rstrip().endswith("250 B / ?") for line in lines)


def test_more_bytes_than_there_should_be() -> None:
    """A file that outgrows its size has no percentage rather than one over a hundred."""
    drawn = Board()
    drawn.take(progress(2000, files=(FileProgress("m", "f", 1, 2000, 1000),)))
    assert not any("%" in line for line in drawn.text())


def test_many_running_files() -> None:
    """At most eight files have a row, fewer on a low terminal; the rest is counted."""
    lines = board(files=20).text()
    assert len(lines) == 10
    assert lines[8].strip() == "+12 more"
    assert len(board(files=20).text(height=7)) == 6
    assert [line.split()[0] for line in board(files=2).text(height=2)] == ["+2", "5"]


def test_columns_stand_still() -> None:
    """Every column keeps its place at every width, while names and figures change."""
    for width in range(20, 200):
        drawn = Board()
        places = set()
        for step, name in enumerate(["a", "n" * 300, "模型" * 40, PERSIAN]):
            done = 9**step
            running = (FileProgress("m", name, step, done, 1000), FileProgress("m", "other", 9, 1000, 1000))
            drawn.take(progress(done, files=running))
            lines = drawn.text(width, now=step * 2.0)
            assert all(cells(line) < width for line in lines), (width, lines)
            places |= {cells(line[: line.index("%")]) for line in lines[:2]}
        assert len(places) == 1


def test_narrow_terminals() -> None:
    """A narrow terminal loses the bar first, then the bytes; the name's end and the percentage are always there."""
    at = {width: board().text(width) for width in (20, 40, 80)}
    assert [line.split() for line in at[20]] == [["m/0.bin", "25%"], ["5", "B/s", "25%"]]
    assert ("━" in at[40][0], "250 B / 1.0 kB" in at[40][0]) == (False, True)
    assert ("━" in at[80][0], "250 B / 1.0 kB" in at[80][0]) == (True, True)


def test_figures_that_jump_are_calm() -> None:
    """The speed changes once a second, however often it is measured."""
    drawn = board()
    assert "5 B/s" in drawn.text()[-1]
    drawn.take(Progressed(bytes_done=300, bytes_total=1000, bytes_per_second=9e9))
    assert "5 B/s" in drawn.text(now=0.5)[-1]
    assert "9.0 GB/s" in drawn.text(now=1.0)[-1]


def test_files_that_are_done_are_counted() -> None:
    """The counter of the whole is how many files are there, not how many were begun."""
    drawn = Board()
    drawn.take(Planned(files=3, bytes_total=3000))
    drawn.take(*(Started("m", name, index, 3, 1000) for index, name in enumerate("abc", 1)))
    assert "0/3" in drawn.text()[-1]
    drawn.take(Finished("m", "b", 1000), Failed("m", "c", "NET", "reset"))
    assert "1/3" in drawn.text()[-1]
    drawn.take(Started("m", "b", 2, 3, 1000))
    assert "0/3" in drawn.text()[-1]


def test_row_says_what_it_waits_for() -> None:
    """A row shows a retry until bytes come again, and that it is being checked until it is finished."""
    drawn = board()
    drawn.take(Retrying("m", "0.bin", "reset by peer", 2, 4.0))
    assert "attempt 2 in 4 s: reset by peer" in drawn.text()[0]
    drawn.take(progress(300, files=(FileProgress("m", "0.bin", 1, 300, 1000),)))
    assert "reset" not in drawn.text()[0]
    drawn.take(Verifying("m", "0.bin", 500, 1000), progress(1000))
    assert "checking 1.0 kB" in drawn.text()[0]
    drawn.take(Finished("m", "0.bin", 1000))
    assert len(drawn.text()) == 1


# --- as a library ------------------------------------------------------------------------------------------


def test_progress_bars_on_a_terminal(terminal: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that uses mdl as a library has the same bars, on a stream of its choice and else on stderr."""
    monkeypatch.setenv("TERM", "xterm")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH)]
    with progress_bars(terminal.stderr) as tell:
        tell(running(300))
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH)] == before
    seen = terminal.read()
    assert "━" in seen
    assert Screen(seen).cursor
    assert [row for row in Screen(seen).rows if row] == []


class NotebookStream(io.StringIO):
    """A notebook says that its stderr is a terminal, and its descriptor leads elsewhere."""

    encoding = "UTF-8"

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


def test_progress_bars_elsewhere(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """In a notebook there are plain lines, in its own cell."""
    monkeypatch.setattr("sys.stderr", notebook := NotebookStream())
    with suppress(KeyboardInterrupt), progress_bars() as tell:
        tell(Started("m", "f", total=10))
        raise KeyboardInterrupt
    assert notebook.getvalue() == "started   m/f  10 B\ncancelled at 0 B of ?\n"
    assert capfd.readouterr().err == ""


def test_a_library_leaves_a_broken_stream_as_it_is() -> None:
    """A pipe whose reader left is the caller's: mdl stops writing to it, and nothing is put in its place."""
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    with progress_bars(stream) as tell:
        tell(Started("m", "f", total=10))
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"x")
    with suppress(BrokenPipeError):
        stream.close()


# --- lines -------------------------------------------------------------------------------------------------


def told(events: Iterator[Event] | list[Event], **options: Any) -> list[str]:
    console, _, err, _ = made(**options)
    with console.watch() as tell:
        for event in events:
            tell(event)
    return err.getvalue().splitlines()


def test_a_line_at_every_tenth() -> None:
    """Progress is told at every tenth of the whole, once each, and not in between."""
    lines = told([progress(done) for done in range(0, 1001, 5)])
    assert [line.split("%")[0].strip() for line in lines] == [str(tenth) for tenth in range(10, 101, 10)]
    assert lines[2] == " 30%  300 B of 1.0 kB  5 B/s  7 s left"


@pytest.mark.fault(137)
def test_a_line_every_thirty_seconds() -> None:
    """A slow download is told every 30 seconds, also when its size is not known."""
    console, _, err, clock = made()
    with console.watch() as tell:
        for second in range(91):
            clock.now = 1000.0 + second
            tell(progress(second, total=0))
    assert err.getvalue().splitlines() == ["30 B of ?  5 B/s", "60 B of ?  5 B/s", "90 B of ?  5 B/s"]


def test_kept_bytes_are_not_told_as_progress() -> None:
    """A download that begins at 45 % tells 50 % next, not the tenths it never made."""
    assert [line[:4] for line in told([progress(450), progress(470), progress(520)])] == [" 52%"]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Finished("m", "f", 10, "kept", "size"), "finished  m/f  10 B  only its size checked  already here"),
        (Finished("m", "f", 10, "fetched", "none"), "finished  m/f  10 B  unverified"),
        (Finished("", "f", 10, "fetched", "git-sha1"), "finished  f  10 B  git-sha1 ok"),
        (Started("m", "f", total=None), "started   m/f  size unknown"),
        (Noticed("m", message="gone\nsoon"), "m: gone\\nsoon"),
        (Verifying("m", "f", 0, 9_000_000_000), "checking  m/f  9.0 GB"),
        (Planned("", "", 1, 9, 4, 5), "plan: 1 file, 9 B: 4 B already here, 5 B to fetch"),
        (Ended(status="paused"), "paused at 0 B of ?"),
    ],
)
def test_wording(event: Event, line: str) -> None:
    """Each event is one line, and what was not verified is never called ok."""
    assert told([event]) == [line]


@pytest.mark.parametrize("options", [{"quiet": True}, {"progress": "none"}])
def test_quiet_tells_only_failures(options: dict[str, Any]) -> None:
    """Quiet says nothing but what failed, and says that once although the command ends with the same error."""
    console, _, err, _ = made(**options)
    with console.watch() as tell:
        for event in (Planned(files=1), Started("m", "f"), progress(500), Noticed(message="x"), Finished("m", "g", 1)):
            tell(event)
        tell(Failed("m", "f", "NET", "503", "try later"))
    console.error(NetworkError("503", item="f"))
    assert err.getvalue() == "mdl: m/f: 503\n  hint: try later\n"
    console.error(NetworkError("503", item="another"))
    assert err.getvalue().endswith(
        "mdl: another: 503\n  hint: run the same command again later; what was fetched is kept\n"
    )


# --- JSON lines --------------------------------------------------------------------------------------------


def test_every_object_has_every_field() -> None:
    """Each event becomes one object with exactly the agreed fields and its own name."""
    console, _, err, clock = made("json")
    events = [
        (Planned(files=2, bytes_total=1000, bytes_kept=100), "planned", "running"),
        (Started("m", "f", 1, 2, 900, 100), "started", "running"),
        (progress(500, files=(FileProgress("m", "f", 1, 400, 900),)), "progress", "running"),
        (Retrying("m", "f", "reset", 2, 4.0), "retrying", "retrying"),
        (Rewound("m", "f", 50, "changed"), "rewound", "running"),
        (Verifying("m", "f", 900, 900), "verifying", "running"),
        (Finished("m", "f", 900), "progress", "file-finished"),
        (Failed("m", "g", "NET", "503"), "progress", "file-failed"),
        (Ended(status="failed", code="NET", message="503"), "failed", "failed"),
    ]
    with console.watch("job-7", method="hub") as tell:
        for event, _, _ in events:
            clock.now += 1
            tell(event)
    seen = objects(err)
    assert [(one["event"], one["status"]) for one in seen] == [(name, status) for _, name, status in events]
    for one in seen:
        assert list(one) == FIELDS
        assert (one["schema"], one["job"], one["method"]) == ("mdl.event/1", "job-7", "hub")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one["time"])
    looked = seen[2]
    assert (looked["file"], looked["file_bytes"], looked["file_total"], looked["file_index"]) == ("f", 400, 900, 1)
    assert (looked["bytes_done"], looked["bytes_total"], looked["file_count"]) == (500, 1000, 2)
    assert seen[-1]["error"] == {"code": "NET", "message": "503", "hint": None, "item": None}


def test_at_most_ten_objects_a_second() -> None:
    """However fast files start, move and finish, no second holds more than ten objects, and bytes go on being told."""
    console, _, err, clock = made("json")
    stamps: list[tuple[float, str]] = []
    with console.watch() as tell:
        for step in range(3000):
            clock.now += 0.002
            tell(Started("m", f"{step}", step, 3000, 10))
            tell(progress(step, total=3000))
            tell(Verifying("m", f"{step}", 10, 10))
            tell(Finished("m", f"{step}", 10))
            stamps += [(clock.now, line) for line in err.getvalue().splitlines()[len(stamps) :]]
    times = [at for at, _ in stamps]
    assert all(later - earlier > 1 for earlier, later in zip(times, times[10:], strict=False))
    done = [one["bytes_done"] for one in objects(err)]
    assert len(set(done)) > 20
    assert done == sorted(done)


def test_trouble_is_never_dropped() -> None:
    """A retry, a rewind, a failed file and a notice are told even in a second that is full."""
    console, _, err, _ = made("json")
    trouble: list[Event] = [Retrying("m", "f"), Rewound("m", "f"), Failed("m", "f", "NET", "503")]
    trouble.append(Noticed("m", message="n"))
    with console.watch() as tell:
        for step in range(30):
            tell(Finished("m", f"{step}", 1))
        for event in trouble * 5:
            tell(event)
    statuses = [(one["event"], one["status"]) for one in objects(err)]
    assert statuses.count(("retrying", "retrying")) == statuses.count(("rewound", "running")) == 5
    assert statuses.count(("progress", "file-failed")) == statuses.count(("progress", "notice")) == 5


@pytest.mark.fault(278)
@pytest.mark.parametrize("count", [1, 8, 100, 3000])
def test_every_finish_is_told(count: int) -> None:
    """However many files finish within a second, each is told once, before the last object, with its own time."""
    console, _, err, clock = made("json")
    with console.watch() as tell:
        for step in range(count):
            tell(Finished("m", f"{step}", 10))
        clock.now += 0.001
        during = err.getvalue().count("\n")
    seen = objects(err)
    finished = [one["file"] for one in seen if one["status"] == "file-finished"]
    assert finished == [f"{step}" for step in range(count)]
    assert during <= 10
    assert (len(seen), seen[-1]["event"]) == (count + 1, "finished")


@pytest.mark.fault(279)
@pytest.mark.parametrize("progress_kind", ["json", "lines"])
def test_a_reader_that_takes_nothing(progress_kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without end cost bounded memory and no time; the newest are there in the end, with the number of those
    that were dropped, what failed and the last word."""
    monkeypatch.setattr("mdl.console.streams._MOST_WAITING", 100_000)
    reading, writing = os.pipe()
    stderr = os.fdopen(writing, "w")
    console = Console(progress_kind, environ={}, stdout=io.StringIO(), stderr=stderr)
    got, total = bytearray(), 5000

    def read_all() -> None:
        while piece := os.read(reading, 65536):
            got.extend(piece)

    reader = threading.Thread(target=read_all)
    with console.watch() as tell:
        tell(Failed("m", "g", "NET", "the first failure"))
        for step in range(total):
            tell(Retrying("m", "f", f"try-{step}.", 2, 4.0))
        outlet = console.streams.stderr
        assert sum(len(data) for data, _ in outlet._backlog) < 110_000
        reader.start()
    stderr.close()
    reader.join()
    os.close(reading)
    tried = [int(found) for found in re.findall(rb"try-(\d+)\.", bytes(got))]
    (dropped,) = re.findall(rb"(\d+) lines are left out here", bytes(got))
    assert len(tried) + int(dropped) == total
    assert (tried, tried[-1]) == (sorted(tried), total - 1)
    assert b"the first failure" in got
    assert progress_kind == "lines" or events_of(got.decode())[-1]["event"] == "failed"


@pytest.mark.parametrize(
    ("error", "last", "code"),
    [
        (None, "finished", None),
        (KeyboardInterrupt(), "cancelled", "SIGINT"),
        (Cancelled(terminated=True), "cancelled", "CANCELLED"),
        (Deadline("out of time"), "paused", "DEADLINE"),
        (NotFound("404", item="m", hint="look"), "failed", "NOTFOUND"),
        (ValueError("oh"), "failed", "INTERNAL"),
    ],
)
@pytest.mark.parametrize("told_by_hand", [True, False])
def test_exactly_one_last_object(error: BaseException | None, last: str, code: str | None, told_by_hand: bool) -> None:
    """However a download ends, its end is told once and last, also when events and words come after it."""
    console, _, err, _ = made("json")
    with suppress(BaseException), console.watch() as tell:
        tell(progress(1))
        if told_by_hand:
            tell(ended_by(error) if error else Ended())
            tell(Ended())
            tell(progress(2))
        if error:
            raise error
    console.warn("late")
    if isinstance(error, MdlError):
        console.error(error)
    seen = objects(err)
    assert [one["event"] for one in seen] == ["progress", last]
    assert (seen[-1]["error"] or {"code": None})["code"] == code


def test_failed_file_fails_the_whole() -> None:
    """A watch left without a word after a file failed ends as failed, with that file's error."""
    console, _, err, _ = made("json")
    with console.watch() as tell:
        tell(Failed("m", "f", "HASH", "wrong", "look at the source"))
    assert objects(err)[-1]["event"] == "failed"
    assert objects(err)[-1]["error"]["item"] == "m/f"


def test_error_before_anything_as_json() -> None:
    """With JSON lines the error of a command that never began is one last object, and only one."""
    console, _, err, _ = made("json")
    console.note("reading")
    console.error(NotFound("no such model", item="x", hint="mdl list"))
    console.error(NotFound("no such model", item="x", hint="mdl list"))
    seen = objects(err)
    assert [(one["event"], one["status"]) for one in seen] == [("progress", "notice"), ("failed", "failed")]
    assert seen[-1]["error"] == {"code": "NOTFOUND", "message": "no such model", "hint": "mdl list", "item": "x"}


def test_json_lines_hold_no_secret_and_no_odd_number() -> None:
    """Signed URLs and tokens are taken out, endless and undefined numbers become null, and all of it is ASCII."""
    console, _, err, _ = made("json", environ={"HF_TOKEN": "sekret-token"})
    with console.watch() as tell:
        tell(Progressed(bytes_done=1, bytes_per_second=float("inf"), eta_seconds=float("nan")))
        tell(Retrying(PERSIAN, "hf_model0123456.bin", "https://u:p@h.example/x?sig=1 with sekret-token", 1, 1.0))
    text = err.getvalue()
    assert text.isascii()
    assert "sekret" not in text
    assert "sig=1" not in text
    first, second, _ = objects(err)
    assert (first["bytes_per_second"], first["eta_seconds"], first["bytes_total"]) == (0.0, None, None)
    assert (second["model"], second["file"]) == (PERSIAN, "hf_model0123456.bin")


# --- errors, notes, data -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MdlError("no", item="m/f", hint="do"), "mdl: m/f: no\n  hint: do\n"),
        (MdlError("no"), "mdl: no\n"),
        (MdlError("2 mistakes\na: 1\nb: 2", item="c.toml"), "mdl: c.toml: 2 mistakes\n  a: 1\n  b: 2\n"),
        (MdlError("no", item="a\nmdl: b: forged"), "mdl: a\\nmdl: b: forged: no\n"),
        (MdlError("\x1b]52;c;x\x07", item="\u202eevil"), "mdl: \\u202eevil: \\x1b]52;c;x\\x07\n"),
        (MdlError("https://u:p@h.example/x?sig=1"), "mdl: https://h.example/x?…\n"),
    ],
)
def test_error_lines(error: MdlError, text: str) -> None:
    """An error is one line that names item and reason, then the hint; nothing in it can forge or hide a line."""
    console, _, err, _ = made()
    console.error(error)
    assert err.getvalue() == text


def test_how_much_is_said() -> None:
    """Quiet drops notes but no warnings; details come only when asked for; none of it goes to stdout."""
    for options, wanted in [
        ({}, "n\nmdl: warning: w\n"),
        ({"quiet": True}, "mdl: warning: w\n"),
        ({"verbose": 1}, "n\nmdl: warning: w\ndebug: d\n"),
    ]:
        console, out, err, _ = made(**options)
        console.note("n")
        console.warn("w")
        console.debug("d")
        assert (out.getvalue(), err.getvalue()) == ("", wanted)


def test_all_of_stderr_is_redacted() -> None:
    """A secret given later is taken out of notes, warnings, details and errors alike."""
    console, _, err, _ = made(verbose=1)
    console.secrets.add("open-sesame")
    for say in (console.note, console.warn, console.debug):
        say("try open-sesame")
    console.error(MdlError("open-sesame", item="open-sesame", hint="open-sesame"))
    assert "sesame" not in err.getvalue()
    assert err.getvalue().count("***") == 6


def test_data_is_as_it_is() -> None:
    """A path is written byte for byte to a pipe, also one that is no valid text, so that a script can use it."""
    script = r"console.data('/a\udcff/b c?d=1'); console.data('x\x1by')"
    done = run(script, shell='"$0" -c "$1" | od -An -c | tr -d " \\n"')
    assert done.stdout == r"/a377/bc?d=1\nx033y\n"


def test_document() -> None:
    """The JSON document is one line with what every command says first, and the only thing on stdout."""
    console, out, _, _ = made(json_output=True, environ={"HF_TOKEN": "sekret-token"})
    console.data("/models/m")
    console.table(["A"], [["b"]])
    error = NotFound("see https://h.example/x?sig=1 for sekret-token, Bearer x1", item="m", hint=None)
    model = {"url": "https://u:p@h.example/a?b", "path": Path("/m"), "title": PERSIAN + "\x9b"}
    console.document("get", {"models": [model]}, ok=False, exit_code=3, error=error)
    assert out.getvalue().count("\n") == 1
    assert "\x9b" not in out.getvalue()
    assert PERSIAN in out.getvalue()
    assert json.loads(out.getvalue()) == {
        "schema": "mdl.get/1",
        "ok": False,
        "exit_code": 3,
        "error": {
            "code": "NOTFOUND",
            "message": "see https://h.example/x?… for ***, Bearer ***",
            "hint": "'mdl list' shows what there is",
            "item": "m",
        },
        "models": [{"url": "https://h.example/a?…", "path": "/m", "title": PERSIAN + "\x9b"}],
    }


def test_errors_in_a_document() -> None:
    """Reports hold exceptions; a document has their facts, without what is secret in them."""
    error = NetworkError("https://h.example/x?sig=1 with Bearer x1", item="m/f", hint="try later")
    model = {"name": "m", "error": Cancelled(), "files": ({"path": "f", "error": error}, {"path": "g", "error": None})}
    found = json.loads(json_text({"models": [model]}))["models"][0]
    assert found["error"] == Cancelled().to_dict()
    assert found["files"][0]["error"] == {
        "code": "NET",
        "exit_code": 5,
        "message": "https://h.example/x?… with Bearer ***",
        "hint": "try later",
        "item": "m/f",
    }
    assert found["files"][1]["error"] is None


def test_table_in_a_pipe() -> None:
    """A table in a pipe is plain lines with nothing cut, and what a terminal would obey is escaped."""
    done = run(f"console.table(['NAME', 'TITLE'], [['x [/] y', 'E{ESC}[31m'], ['m', 'long ' * 60]])", COLUMNS="40")
    assert done.stdout == f"NAME     TITLE\nx [/] y  E\\x1b[31m\nm        {('long ' * 60).strip()}\n"


def test_list_on_a_narrow_terminal() -> None:
    """On a narrow terminal only the widest column goes on in a next line: names stay whole, and no letter is lost."""
    rows = [["m" * 24, "dataset", "missing", "-", "cc-by-nc-sa-4.0", "reading comprehension (some, words, here)"]] * 2
    seen = on_terminal(f"console.table(['NAME', 'KIND', 'STATUS', 'SIZE', 'LICENSE', 'TITLE'], {rows})", both=True)
    screen = Screen(seen)
    assert screen.widest <= 80
    assert sum(row.startswith("m" * 24 + " dataset missing") for row in screen.rows) == 2
    titles = "".join(row[62:] for row in screen.rows[1:])
    assert "".join(titles.split()) == "".join(rows[0][5].split()) * 2


def test_table_on_a_terminal() -> None:
    """A table on a terminal fits it, loses no word, and shows markup and escape characters as they are."""
    script = f"console.table(['NAME', 'TITLE'], [['x [/] y', 'E{ESC}[31m'], ['m', 'word ' * 40 + 'Q' * 90]])"
    seen = on_terminal(script, columns=60, both=True, NO_COLOR="1")
    assert "x [/] y  E\\x1b[31m" in seen
    assert ESC not in seen
    assert (seen.count("word"), seen.count("Q")) == (40, 90)
    assert Screen(seen).widest <= 60


# --- streams that break ------------------------------------------------------------------------------------

END = "\nsys.exit(console.stdout_trouble())"


@pytest.mark.fault(135)
def test_full_stdout() -> None:
    """A full disk under stdout is one error line and exit 7, not a traceback."""
    done = run("console.data('x'); console.data('y')" + END, shell='"$0" -c "$1" >/dev/full')
    assert done.returncode == 7
    assert done.stderr.splitlines()[0] == "mdl: stdout: No space left on device"
    assert done.stderr.count("mdl:") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.fault(135)
def test_stdout_whose_reader_left() -> None:
    """A reader that goes away ends in exit 141 and not a word, also from the interpreter when it ends."""
    many = "for at in range(20000): console.data('line ' * 20)\nprint('from elsewhere')"
    done = run(many + END, shell='"$0" -c "$1" | head -1; exit ${PIPESTATUS[0]}')
    assert (done.returncode, done.stderr) == (141, "")
    assert done.stdout == "line " * 20 + "\n"


@pytest.mark.fault(135)
def test_closed_stdout() -> None:
    """A stdout closed from the start swallows data, tables and documents; the command goes well."""
    script = "console.data('x'); console.table(['A'], [['b']]); console.document('get', {}); console.note('there')"
    done = run(script + END, shell='"$0" -c "$1" >&-')
    assert (done.returncode, done.stderr) == (0, "there\n")


@pytest.mark.fault(135)
@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", "2> >(exit 0)"])
@pytest.mark.parametrize("how", ["", "progress='json'"])
def test_broken_stderr(where: str, how: str) -> None:
    """A stderr that is closed, full or without a reader hurts nothing: the download goes on to its data."""
    done = run("console.note('n')\n" + DOWNLOAD + "console.data('/models/m')" + END, how, shell=f'"$0" -c "$1" {where}')
    assert (done.returncode, done.stdout, done.stderr) == (0, "/models/m\n", "")


def test_no_file_is_opened_as_a_standard_stream() -> None:
    """With closed streams, a file that is opened later never gets number 1 or 2, where foreign code would write."""
    done = run("f = open(os.devnull)\nos._exit(40 + f.fileno())", shell='"$0" -c "$1" >&- 2>&-')
    assert done.returncode >= 43


@pytest.mark.fault(139)
def test_ascii_encoding() -> None:
    """Names that the encoding lacks are escaped on both streams, and the document stays valid JSON."""
    name = ascii(PERSIAN)
    script = f"console.data({name}); console.note({name}); console.document('get', {{'name': {name} + chr(233)}})"
    done = run(script, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii:strict")
    data, document = done.stdout.splitlines()
    assert data + "\n" == done.stderr == PERSIAN.encode("ascii", "backslashreplace").decode() + "\n"
    assert json.loads(document)["name"] == PERSIAN + "é"


@pytest.mark.fault(136)
@pytest.mark.parametrize("progress_kind", ["json", "lines"])
def test_slow_reader_holds_nothing_up(progress_kind: Any) -> None:
    """A reader that reads nothing never stops the events; once it reads, all that matters is there, in order."""
    reading, writing = os.pipe()
    ticks = count(step=31.0)
    stderr = os.fdopen(writing, "w")
    console = Console(progress_kind, environ={}, stdout=io.StringIO(), stderr=stderr, clock=lambda: next(ticks))
    got = bytearray()

    def read_all() -> None:
        while piece := os.read(reading, 65536):
            got.extend(piece)

    reader = threading.Thread(target=read_all)
    with console.watch() as tell:
        for step in range(5000):
            tell(progress(step, 5000))
            if step % 10 == 0:
                tell(Finished("m", f"file-{step}", 1))
        console.warn("the disk is nearly full")
        reader.start()
    stderr.close()
    reader.join()
    os.close(reading)
    finished = re.findall(r"file-(\d+)", got.decode())
    assert finished == [str(step) for step in range(0, 5000, 10)]
    assert b"the disk is nearly full" in got
    assert got.endswith(b"\n")
    assert got.count(b"\n") < 5000
    assert progress_kind == "lines" or events_of(got.decode())


def test_offer_is_dropped_only_when_full() -> None:
    """What is offered to a reader is written while there is room, and dropped whole when there is none."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        outlet = NonBlockingStream(stream)
        lines = 0
        while outlet.offer(f"{lines:0999d}\n"):
            lines += 1
        got = os.read(reading, 1 << 20).decode().splitlines()
        assert lines > 10
        assert got == [f"{at:0999d}" for at in range(lines)]
        assert outlet.offer("again\n")
        assert os.read(reading, 1 << 20) == b"again\n"
    os.close(reading)


def test_nonblocking_pipe() -> None:
    """A pipe that somebody made non-blocking gets every byte of a long text nevertheless."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    got = bytearray()

    def read_all() -> None:
        while piece := os.read(reading, 65536):
            got.extend(piece)

    reader = threading.Thread(target=read_all)
    with os.fdopen(writing, "w") as stream:
        reader.start()
        NonBlockingStream(stream).write("x" * 1_000_000)
    reader.join()
    os.close(reading)
    assert len(got) == 1_000_000


def test_order_with_what_others_print() -> None:
    """What other code printed before stays before what the console writes."""
    done = run("print('one'); console.data('two'); print('three')")
    assert done.stdout == "one\ntwo\nthree\n"
