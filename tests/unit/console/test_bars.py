"""Bars and tables on a terminal: they fit it, obey no name, and leave it as it was."""

from __future__ import annotations

import functools
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest
import rich.console
from hypothesis import given
from hypothesis import strategies as st
from support.cases import each
from support.console import NAMES, download, is_under_way, on_terminal, one, piped, progress, seen_download, ticking
from support.long import some
from support.polling import until
from support.terminal import Screen, Terminal

from mdl.cancel import CancelToken
from mdl.console import Console, progress_bars
from mdl.console.bars import Bars
from mdl.console.state import State
from mdl.console.streams import NonBlockingStream
from mdl.errors import MdlError
from mdl.events import Event, Failed, Finished, Noticed, Planned, Progressed, Retrying, Started, Verifying
from mdl.formatting import cells

ESC = "\x1b"
finished = functools.partial(seen_download, fails=False)
"""No file fails: a failure is told in full, and so may wrap."""


@pytest.mark.fault(137)
@each(
    ("progress", "options", "has_bars", "has_colors"),
    [
        ("auto", {}, True, True),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"color": False}, True, False),
        ("auto", {"encoding": "ascii"}, False, True),
        ("auto", {"TERM": "dumb"}, False, False),
        ("auto", {"TERM": ""}, False, False),
        ("auto", {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}, False, True),
        ("bars", {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}, True, True),
        ("bars", {"TERM": "dumb"}, False, False),
        ("lines", {}, False, True),
    ],
)
def test_who_gets_bars(progress: str, options: dict[str, Any], has_bars: bool, has_colors: bool) -> None:
    """A dumb terminal, one without the signs, the hub's switch and the flag each lead to plain lines, in which an error
    has its colours if they can be shown; the flag wins over the switch. NO_COLOR and --no-color each leave bars without
    any colour; an empty NO_COLOR asks for nothing."""
    seen = on_terminal(progress=progress, **options)
    assert ("━" in seen, ESC in seen, "failed    m  1 of 4" in seen) == (has_bars, has_bars or has_colors, not has_bars)
    assert bool(re.search(r"\x1b\[[0-9;]*m", seen)) == has_colors
    assert seen.isascii() or has_bars


@pytest.mark.fault(137)
@each(
    ("columns", "wished", "widest"),
    [
        *((columns, "", columns - 1) for columns in (80, 120)),
        *((80, odd, 79) for odd in ("0", "1", "1000000", "-5", "x", "9" * 5000, "²²")),
        (80, "60", 59),
    ],
)
def test_bars_never_wrap(columns: int, wished: str, widest: int) -> None:
    """No line of the bars reaches the last column, whatever the names. A COLUMNS that makes sense narrows them, any
    other changes nothing. The speed and time left are shown."""
    seen = on_terminal(finished, columns=columns, COLUMNS=wished)
    assert wished == "60" or ("━" in seen and "4 B/s  10 s left" in seen)
    assert widest - 4 < Screen(seen).widest <= widest


@each("columns", [20, 40, 79, 80, 81, 120])
def test_what_a_terminal_echoes_leaves_no_row(columns: int) -> None:
    """If the terminal echoes a Ctrl-C at the cursor, no row of the bars is left behind."""

    def echoed(console: Console, terminal: Terminal) -> None:
        def is_echoed() -> bool:
            if not is_under_way(terminal):
                return False
            descriptor = console.stderr.descriptor
            assert descriptor is not None
            os.write(descriptor, b"^C")
            return True

        download(console, fails=False, is_seen=is_echoed)

    seen = on_terminal(echoed, columns=columns)
    assert seen.count("^C") == 1
    assert not [row for row in Screen(seen, columns).rows if "%" in row]


def test_what_stays_on_the_terminal() -> None:
    """In the end the bars are gone, the cursor is back, and each name is there literally. What failed is told as an
    error; the model and the whole have one line each."""
    seen = on_terminal(columns=300)
    screen = Screen(seen)
    assert (screen.cursor, "ESC\x1b" in seen) == (True, False)
    assert screen.text[:-1] == [
        "→ m/x [/] y.bin  resumed at 300 B of 1.0 kB",
        "→ m/ESC\\x1b[31m.bin  100 B discarded: ETag changed",
        f"mdl: m/{NAMES[3]}: 503 Service Unavailable",
        "  hint: try later",
        "✗ m  1 of 4 files failed",
    ]
    assert re.fullmatch(
        r"1 file failed; 3 files, 3.0 kB, 2.8 kB of it fetched in .*, verified by sha256", screen.text[-1]
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MdlError("no"), SystemExit(3)], ids=repr)
def test_cursor_comes_back_after_an_error(error: BaseException) -> None:
    """Whatever ends a download, the cursor that the bars hid is shown again."""

    def broken(console: Console, terminal: Terminal) -> None:
        with suppress(BaseException), console.watch() as tell:
            tell(progress(300, 1000, one("f", 300)))
            terminal.until_shown("30%")
            raise error

    seen = on_terminal(broken)
    assert "\x1b[?25l" in seen
    assert Screen(seen).cursor


def test_words_above_the_bars() -> None:
    """A warning given while bars are drawn stands above them; data comes below."""

    def use(console: Console, terminal: Terminal) -> None:
        with console.watch() as tell:
            tell(progress(300, 1000, one("f", 300)))
            terminal.until_shown("30%")
            console.warn("mind [red]this :smile:")
            terminal.until_shown("mind")
            tell(Finished("m", "f", 10))
        console.data("/models/m")

    screen = Screen(on_terminal(use, both=True))
    assert screen.text[:2] == ["mdl: warning: mind [red]this :smile:", "✓ m/f  10 B  unverified"]
    assert screen.text[2].startswith("1 file, 10 B from this disk in ")
    assert screen.text[3:] == ["/models/m"]


@pytest.mark.no_cover
@pytest.mark.parametrize(("lines", "left_out"), [(1000, 0), (10_050, 50)])
def test_the_drawing_thread_alone_draws(lines: int, left_out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reports an event does not wait for what draws it, though that takes for ever. Of the lines that are told
    meanwhile the newest are kept."""
    may_go_on, threads = threading.Event(), list[str]()

    def draw(_text: str) -> None:
        threads.append(threading.current_thread().name)
        may_go_on.wait()

    monkeypatch.setitem(sys.modules, "mdl.console.bars", Mock(Bars=lambda *_: Mock(draw=draw)))

    def use(console: Console, _: Terminal) -> None:
        with console.watch() as tell:
            tell(running(1))
            until(lambda: threads)
            for step in range(lines):
                tell(running(step))
                console.warn(f"line {step}.")
            may_go_on.set()

    seen = on_terminal(use)
    assert [int(step) for step in re.findall(r"line (\d+)\.", seen)] == [*range(left_out, lines)]
    assert set(threads) == {"mdl-drawing-0"}


def test_a_short_download_is_not_drawn() -> None:
    """What is over before it is to be drawn has its lines, and neither a bar nor a hidden cursor."""

    def short(console: Console, _: Terminal) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mdl.console.drawing.BEFORE_DRAWING", 3600.0)  # `on_terminal` has set it to next to nothing
            download(console)

    seen = on_terminal(short)
    assert ("m  1 of 4 files failed" in seen, "\x1b[?25l" in seen, "%" in seen) == (True, False, False)


# --- a terminal that changes or stands still ---------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal(100, is_read=False)
    yield made
    made.file.close()


def running(step: int) -> Progressed:
    names = [f"unet/a-long-folder/model-{at:05d}.safetensors" for at in range(4)]
    return progress(step, 1000, *(one(name, step, index=at) for at, name in enumerate(names, 1)))


def drawn_console(terminal: Terminal, **options: Any) -> Console:
    environ = {"TERM": "xterm"}
    return Console(environ=environ, stdout=io.StringIO(), stderr=terminal.file, clock=ticking(1.1), **options)


def test_a_terminal_that_is_made_narrower(terminal: Terminal) -> None:
    """The next frame fits the new width, and what stands above the bars stays."""
    console = drawn_console(terminal)
    terminal.reader.start()
    with console.watch() as tell:
        tell(Planned(models=(("first", 1), ("second", 1))))
        tell(Finished("first", "f", 10, "linked"))
        tell(running(300))
        terminal.until_shown("30%")
        terminal.resize(45)
        tell(running(400))
        terminal.until_shown("40%")
        tell(Finished("second", "f", 10, "linked"))
    seen = terminal.text()
    later = seen[seen.index("40%") :]
    assert Screen(later).widest < 45
    text = Screen(seen).text
    assert text == [f"✓ {name}/f  10 B  unverified  linked" for name in ("first", "second")] + text[2:]
    assert Screen(seen).cursor


@pytest.mark.fault(136)
def test_a_terminal_that_stands_still(terminal: Terminal) -> None:
    """A terminal that takes nothing (Ctrl-S) holds no event up; what matters is on it later, in order, and no row."""
    console, screen = drawn_console(terminal), Screen("")
    with console.watch() as tell:
        tell(Planned(models=tuple((f"file-{step}", 1) for step in range(0, 2000, 10))))
        tell(running(1))
        until(lambda: screen.feed(terminal.seen()) or "total" in "".join(screen.text))
        for step in range(2000):
            tell(running(step % 1000))
            if step % 10 == 0:
                tell(Finished(f"file-{step}", "f", 1))
        terminal.reader.start()
        tell(running(990))
        terminal.until_shown("99%")
    screen.feed(terminal.text())
    assert [re.findall(r"file-(\d+)", row) for row in screen.text[:-1]] == [[str(at)] for at in range(0, 2000, 10)]
    assert screen.cursor


@pytest.mark.fault(136)
def test_a_stop_while_the_terminal_stands_still(terminal: Terminal) -> None:
    """A stop does not wait for a terminal that takes nothing, though the drawing thread does."""
    stop = CancelToken()
    console = drawn_console(terminal, cancel=stop)
    with suppress(KeyboardInterrupt), console.watch() as tell:
        tell(running(1))
        until(lambda: "%" in terminal.seen())
        for step in range(200):
            console.warn("a line " * 100)
            tell(running(step))
        until(lambda: not terminal_has_room(terminal))
        stop.set()
        raise KeyboardInterrupt
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("mdl-drawing")])
    terminal.reader.start()
    terminal.text()


def terminal_has_room(terminal: Terminal) -> bool:
    return NonBlockingStream(terminal.file, {}).is_ready()


def test_progress_bars_on_a_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that uses mdl as a library has the same bars, on a stream of its choice, and its signals untouched."""
    monkeypatch.setenv("TERM", "xterm")
    terminal.reader.start()
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH)]
    with progress_bars(terminal.file) as tell:
        tell(running(300))
        terminal.until_shown("total")
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH)] == before
    seen = terminal.text()
    assert (Screen(seen).text, Screen(seen).cursor) == ([], True)


class NotebookStream(io.StringIO):
    """A notebook says that its stderr is a terminal, and its descriptor leads elsewhere."""

    encoding = "UTF-8"

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


def test_progress_bars_elsewhere(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """What only says that it is a terminal gets plain lines."""
    monkeypatch.setattr("sys.stderr", notebook := NotebookStream())
    with suppress(KeyboardInterrupt), progress_bars() as tell:
        tell(Noticed("m", message="read me"))
        raise KeyboardInterrupt
    assert notebook.getvalue() == "m: read me\ncancelled\n"
    assert capfd.readouterr().err == ""


class Cell:
    """The outputs of a notebook's cell: IPython's `display`, and what it returns."""

    def __init__(self) -> None:
        self.outputs: list[str] = []

    def display(self, shown: Any, *, display_id: bool) -> Cell:
        assert display_id
        self.update(shown)
        return self

    def update(self, shown: Any) -> None:
        self.outputs.append(shown._repr_mimebundle_([], [])["text/html"])


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    """A cell of a notebook in which this process runs."""
    made = Cell()
    shell = Mock(spec=["kernel"])
    monkeypatch.setitem(sys.modules, "IPython", Mock(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", Mock(display=made.display))
    return made


def test_progress_bars_in_a_notebook(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook one output of the cell has the bars, which change and are gone in the end; lines are on its stderr,
    and a name is no markup, neither Rich's nor HTML."""
    monkeypatch.setattr("sys.stderr", notebook := NotebookStream())
    with progress_bars() as tell:
        tell(Noticed("m", message="read me"))
        tell(Planned(files=2, bytes_total=2000))
        tell(Started("m", "x<b>[red].bin"))
        until(lambda: any("x&lt;b&gt;[red].bin" in html for html in cell.outputs) or tell(slow("x<b>[red].bin")))
        tell(Finished("m", "f", 1000, "fetched", "sha256"))
    assert notebook.getvalue().startswith("m: read me\n✓ m/f  1.0 kB  sha256 ok\n")
    assert any("total" in html for html in cell.outputs)
    assert "total" not in cell.outputs[-1]


def slow(name: str) -> Retrying:
    """What has a row at once."""
    return Retrying("m", name, "busy", 1, 4.0)


@pytest.mark.parametrize("has_kernel", [False, True])
def test_another_stream_is_no_notebook(cell: Cell, has_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook a stream of the caller's gets lines; so does stderr in IPython without a notebook."""
    if not has_kernel:
        monkeypatch.setitem(sys.modules, "IPython", Mock(get_ipython=lambda: None))
    monkeypatch.setattr("sys.stderr", notebook := NotebookStream())
    stream = io.StringIO() if has_kernel else notebook
    with progress_bars(stream) as tell:
        tell(Started("m", "f", total=1000, resumed_at=300))
    assert stream.getvalue() == "started   m/f  resumed at 300 B of 1.0 kB\n"
    assert cell.outputs == []


def test_a_library_leaves_a_broken_stream_as_it_is() -> None:
    """A pipe whose reader left is the caller's: mdl stops writing to it, and nothing is put in its place."""
    with piped() as (file, reader):
        os.close(reader.descriptor)
        with progress_bars(file) as tell:
            tell(Noticed("m", message="read me"))
        with pytest.raises(BrokenPipeError):
            os.write(file.fileno(), b"x")


# --- one frame ---------------------------------------------------------------------------------------------


class Board:
    """Bars that are drawn again and again of one state."""

    def __init__(self, *events: Event) -> None:
        self.now = 0.0
        self.state = State(lambda: self.now)
        self.stream = Mock(spec=NonBlockingStream, size=(80, 24), is_terminal=True, has_colors=False)
        self.bars = Bars(self.stream, lambda text: text, lambda: self.now)
        self.take(*events)

    def take(self, *events: Event) -> None:
        for event in events:
            self.state.take(event)

    def text(self, width: int = 80, height: int = 24, now: float = 0.0) -> list[str]:
        self.stream.size = width, height
        self.now = now
        self.bars.take(self.state)
        file = io.StringIO()
        rich.console.Console(file=file, width=width - 1, force_terminal=True, color_system=None).print(self.bars)
        return [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]

    def later(self, width: int = 80, height: int = 24) -> list[str]:
        """What is drawn when the running files have lasted for a while."""
        self.text(width, height)
        return self.text(width, height, 5.0)


def board(total: int | None = 1000, files: int = 1) -> Board:
    return Board(progress(250, 1000, *(one(f"{at}.bin", 250, total, at) for at in range(files))))


def test_unknown_total_is_not_guessed() -> None:
    """Without a size, or with one that a file outgrew, there is no percentage, neither for the file nor the whole."""
    lines = board(total=None).later(90)[:2]
    assert "25%" in "".join(board().later(90))
    assert all(line.rstrip().endswith("250 B / ?") for line in lines)
    outgrown = Board(progress(2000, 1000, one("f", 2000))).later(90)
    assert not any("%" in line for line in (*lines, *outgrown))


def test_only_what_lasts_has_a_row() -> None:
    """A file has a row once it has run for a second, so that rows do not come and go while small files rush through."""
    drawn = Board(Planned(files=101, bytes_total=1000), progress(10, 1000, *(one(name, 10) for name in ("a", "b"))))
    assert [line.split()[:2] for line in drawn.text(120)] == [["total", "0/101"]]
    drawn.take(progress(20, 1000, one("a", 20), one("c", 1)))
    assert [line.split()[0] for line in drawn.text(120, now=1.0)] == ["m/a", "total"]


def test_many_running_files() -> None:
    """At most eight files have a row, fewer on a low terminal; the rest is counted."""
    lines = board(files=20).later(120)
    assert len(lines) == 10
    assert lines[0].strip() == "+ 12 files on the way"
    assert len(board(files=20).later(120, height=8)) == 6
    assert [line.split()[0] for line in board(files=2).later(120, height=2)] == ["+", "total"]


def test_columns_stand_still() -> None:
    """Every column keeps its place at every width, while names and figures change."""
    for width in some([*range(20, 100), *range(100, 200, 7)], 5):
        drawn, places = Board(), set()
        for step, name in enumerate(["a", "n" * 300, "模型" * 40, "مدل‌فارسی"]):
            done = 9**step
            drawn.take(progress(done, 1000, one(name, done), one("other", 1000, index=9)))
            drawn.text(width, now=step * 4.0)
            lines = drawn.text(width, now=step * 4.0 + 2.0)
            assert all(cells(line) < width for line in lines), (width, lines)
            places |= {cells(line[: line.index("%")]) for line in lines if "%" in line}
        assert len(places) == 1


def test_narrow_terminals() -> None:
    """A narrow terminal loses the speed of each file first, then the bar, then the bytes; the name's end and the
    percentage are always there. Where the row of the whole has no room for its speed and the time left, a line below
    has them."""
    at = {width: board().later(width) for width in (20, 40, 80, 120)}
    assert [line.split()[:2] for line in at[20]] == [["m/0.bin", "25%"], ["total", "25%"], ["5", "B/s"]]
    assert ("━" in at[40][0], "250 B / 1.0 kB" in at[40][0]) == (False, True)
    assert ("━" in at[80][0], "250 B / 1.0 kB" in at[80][0]) == (True, True)
    assert re.search(r"total +━+╸? +25% +250 B / 1.0 kB$", at[80][-2])
    assert [at[width][-1].strip() for width in (40, 80)] == ["5 B/s  2m 30s left"] * 2
    assert re.search(r"total +━+╸? +25% +250 B / 1.0 kB +5 B/s  2m 30s left", at[120][-1])


def test_speed_of_each_file() -> None:
    """A wide terminal shows how fast each file comes, measured over the last seconds."""
    drawn = board()
    drawn.later(120)
    for now, done in ((6.0, 450), (7.0, 650)):
        drawn.take(progress(done, 1000, one("0.bin", done, index=0)))
        lines = drawn.text(120, now=now)
    assert lines[0].endswith(" 200 B/s")


def test_names_that_differ_look_different() -> None:
    """Eight shards of one model have eight names, also where there is no room for the whole of one."""
    names = [f"Qwen3-235B-A22B-Instruct-UD-Q8_K_XL.imatrix-part{number}-of-8.gguf" for number in range(1, 9)]
    for width in (40, 80, 120):
        rows = Board(progress(1, 9, *(one(name, 1) for name in names))).later(width)
        assert len({row.split()[0] for row in rows[:8]}) == 8


def test_figures_that_jump_are_calm() -> None:
    """The speed changes once a second, however often it is measured."""
    drawn = board()
    assert "5 B/s" in drawn.text()[-1]
    drawn.take(Progressed(bytes_done=300, bytes_total=1000, bytes_per_second=9e9))
    assert "5 B/s" in drawn.text(now=0.5)[-1]
    assert "9.0 GB/s" in drawn.text(now=1.0)[-1]


def test_files_that_are_done_are_counted() -> None:
    """The counter of the whole is how many files are there, not how many were begun."""
    drawn = Board(Planned(files=3, bytes_total=3000))
    drawn.take(*(Started("m", name, index, 3, 1000) for index, name in enumerate("abc", 1)))
    steps: list[tuple[Event, ...]] = [
        (),
        (Finished("m", "b", 1000), Failed("m", "c", "NET", "reset")),
        (Started("m", "b", 2, 3, 1000),),
    ]
    for events, counted in zip(steps, ("0/3", "1/3", "0/3"), strict=True):
        drawn.take(*events)
        assert counted in drawn.text(120)[-1]


def test_row_says_what_it_waits_for() -> None:
    """A row shows a retry at once and until bytes come again, and that it is being checked until it is finished."""
    drawn = board()
    drawn.take(Retrying("m", "0.bin", "reset by peer", 2, 4.0, 4))
    assert "retry 2 of 4 in 4 s: reset by peer" in drawn.text()[0]
    drawn.take(progress(300, 1000, one("0.bin", 300)))
    assert "reset" not in drawn.later()[0]
    drawn.take(Verifying("m", "0.bin", 500, 1000), progress(1000))
    assert "checking 1.0 kB" in drawn.text(now=6.0)[0]
    drawn.take(Finished("m", "0.bin", 1000))
    assert len(drawn.text(120, now=9.0)) == 1


def test_a_file_that_waits_says_so() -> None:
    """A file of which no byte came for ten seconds is waiting, until one comes; not one that has all its bytes."""
    drawn = board()
    assert "waiting" not in "".join(drawn.later())
    assert "waiting" in drawn.text(now=10.0)[0]
    drawn.take(progress(260, 1000, one("0.bin", 260)))
    assert "waiting" not in "".join(drawn.text(now=10.5))
    drawn.take(progress(1000, 1000, one("0.bin", 1000)))
    assert "waiting" not in "".join(drawn.text(now=99.0))


def test_the_model_is_not_said_with_each_file() -> None:
    """If all files are of one model its name would be the same in every row: the rows have the names of the files."""
    drawn = Board(Planned(files=1, models=(("m", 1),)), progress(250, 1000, one("f.bin", 250)))
    assert drawn.later()[0].split()[0] == "f.bin"
    drawn = Board(Planned(files=2, models=(("m", 1), ("n", 1))), progress(250, 1000, one("f.bin", 250)))
    assert drawn.later()[0].split()[0] == "m/f.bin"


def test_reading_what_is_here() -> None:
    """While files that are here already are read, only the one of this moment has a row, and nothing is said of a whole
    that nobody knows."""
    drawn = Board(*(Verifying("m", name, 0, 1000) for name in "abc"))
    assert drawn.text() == []
    assert [line.split()[0] for line in drawn.later()] == ["m/c"]


# --- tables ------------------------------------------------------------------------------------------------


def drawn_table(
    headers: list[str],
    rows: list[list[str]],
    cut: tuple[str, ...] | None = None,
    drop: tuple[str, ...] = (),
    below: str = "",
    **options: Any,
) -> str:
    return on_terminal(
        lambda console, _: console.table(headers, rows, cut=cut, drop=drop, below=below), both=True, **options
    )


def test_list_on_a_narrow_terminal() -> None:
    """On a narrow terminal only the widest column goes on in a next line: names stay whole, and no letter is lost."""
    rows = [["m" * 24, "dataset", "missing", "-", "cc-by-nc-sa-4.0", "reading comprehension (some, words, here)"]] * 2
    screen = Screen(drawn_table(["NAME", "KIND", "STATUS", "SIZE", "LICENSE", "TITLE"], rows))
    assert screen.widest <= 80
    assert sum(row.startswith("m" * 24 + "  dataset  missing") for row in screen.rows) == 2
    titles = "".join(row[screen.rows[0].index("TITLE") :] for row in screen.rows[1:])
    assert "".join(titles.split()) == "".join(rows[0][5].split()) * 2


@each(
    ("columns", "shown"),
    [
        (120, f"{'n' * 24}  dataset  missing  1.2 GB  cc-by-nc-sa-4.0  {'t' * 50}"),
        (95, f"{'n' * 24}  dataset  missing  1.2 GB  cc-by-nc-sa-4.0  {'t' * 25}…"),
        (86, f"{'n' * 24}  missing  1.2 GB  cc-by-nc-sa-4.0  {'t' * 25}…"),
        (80, f"{'n' * 24}  missing  1.2 GB  {'t' * 36}…"),
        (70, f"{'n' * 24}  missing  1.2 GB  {'t' * 26}…"),
        (50, f"{'n' * 24}  missing  1.2 GB"),
        (40, f"{'n' * 22}…  missing  1.2 GB"),
        (30, f"{'n' * 12}…  missing  1.2 GB"),
    ],
)
def test_one_line_for_each_row(columns: int, shown: str) -> None:
    """The title is cut first, but keeps 26 columns, then the licence; the kind, the licence and the title are left out,
    in this order; at last the name is cut, but no number. The header stands above them."""
    rows = [["n" * 24, "dataset", "missing", "1.2 GB", "cc-by-nc-sa-4.0", "t" * 50]]
    headers, cut, drop = ["NAME", "KIND", "STATUS", "SIZE", "LICENSE", "TITLE"], ("TITLE", "LICENSE"), ("KIND",)
    seen = drawn_table(headers, rows, cut, (*drop, "LICENSE", "TITLE"), columns=columns)
    head, row = Screen(seen).rows[:2]
    assert row == shown
    assert head.index("STATUS") == row.index("missing")
    assert head.index("SIZE") + 4 == row.index("1.2 GB") + 6


def test_reasons_have_room() -> None:
    """A column of sentences stands under its row if the table is too wide, broken between words; nothing stands under a
    row that has none. If all fits, it is a column like the others."""
    headers, path = ["ACTION", "SIZE", "PATH", "WHY"], "/models/" + "m" * 30
    rows = [["kept", "1.0 MB", path, "because " * 9 + "so"], ["deleted", "2 B", path, "-"]]
    first, second = f"kept     1.0 MB  {path}", f"deleted     2 B  {path}"
    under = [f"  {('because ' * 7).strip()}", "  because because so"]
    narrow = [row.rstrip() for row in Screen(drawn_table(headers, rows, below="WHY", columns=60)).rows if row.strip()]
    assert narrow == ["ACTION     SIZE  PATH", first, *under, second]
    wide = [
        row.rstrip() for row in Screen(drawn_table(headers, rows, below="WHY", columns=200), 200).rows if row.strip()
    ]
    assert wide[1] == f"{first}  {rows[0][3]}"
    cut = Screen(drawn_table(headers, rows, ("PATH",), below="WHY", columns=40)).rows
    assert [row.split()[0] for row in cut if row.strip()] == ["ACTION", "kept", *["because"] * 3, "deleted"]
    assert all(len(row.rstrip()) <= 40 for row in cut)


def test_entries_are_wrapped_at_words() -> None:
    """What is said of a thing is broken between words and stands under its own beginning; in a pipe it is one line."""
    seen = on_terminal(lambda console, _: console.entry("note:  ", "two words " * 5), both=True, columns=40)
    first, *more = [row.rstrip() for row in Screen(seen, 40).rows if row.strip()]
    assert first.startswith("note:  two words")
    assert all(row.startswith("       t") for row in more)
    assert more


def test_an_empty_cell() -> None:
    """An empty cell is a dash, also where a status would have a colour."""
    assert Screen(drawn_table(["NAME", "STATUS"], [["one", ""], ["two", "ok"]])).text == [
        "NAME  STATUS",
        "one   -",
        "two   ok",
    ]


def test_table_on_a_terminal() -> None:
    """A table on a terminal fits it, loses no word, and shows markup and escape characters as they are."""
    rows = [["x [/] y", "E\x1b[31m"], ["m", "word " * 40 + "Q" * 90]]
    seen = drawn_table(["NAME", "TITLE"], rows, columns=60, NO_COLOR="1")
    assert "x [/] y  E\\x1b[31m" in seen
    assert ESC not in seen
    assert (seen.count("word"), seen.count("Q")) == (40, 90)
    assert Screen(seen).widest <= 60


def test_a_very_long_table_is_plain() -> None:
    """Nobody waits for Rich to draw what nobody reads as a drawing: it is lines as in a pipe, with nothing left out."""
    rows = [[f"model-{number}", "ok"] for number in range(1001)]
    assert ESC in drawn_table(["NAME", "STATUS"], rows[:1000], cut=("NAME",))
    seen = drawn_table(["NAME", "STATUS"], rows, cut=("NAME",))
    assert (ESC in seen, seen.count("\n"), "model-1000  ok" in seen) == (False, 1002, True)


def test_colors_move_nothing() -> None:
    """In colours every word stands where it stands without them, also one at the right of its column."""
    table = ["NAME", "SIZE", "STATUS"], [["m", "654.0 MB", "running"], ["n", "1 B", "stalled"]]
    colored, plain = drawn_table(*table), drawn_table(*table, NO_COLOR="1")
    assert (Screen(colored).text, ESC in plain) == (Screen(plain).text, False)
    assert f"{ESC}[36mrunning{ESC}[0m" in colored


def test_no_number_is_broken() -> None:
    """A number may be what is widest: words beside it get narrower, and it stays whole, also on a terminal that is
    narrower than all numbers."""
    rows = [["xa", "0", "0", "10000000", "0", "0"], ["xaaaaaa", "0", "0", "0", "10", "10"]]
    seen = drawn_table([f"C{at}" for at in range(6)], rows, columns=20)
    assert [row.split() for row in Screen(seen, 80).rows if row.strip()][1:3] == [
        ["xa", *rows[0][1:]],
        ["xaaaaa", *rows[1][1:]],
    ]
    numbers = ["0", "0", "0", "0", "10000"]
    seen = drawn_table([f"C{at}" for at in range(5)], [numbers], columns=20)
    assert Screen(seen, 80).rows[1].split() == numbers


def test_errors_are_wrapped_at_words() -> None:
    """On a terminal an error is broken between words, under its own beginning, with its colours; in a pipe it is one
    line."""
    error = MdlError("no connection to huggingface.co: Connection refused", item="org/a-long-name", hint="look " * 12)
    seen = on_terminal(lambda console, _: console.error(error), columns=40)
    assert [row.rstrip() for row in Screen(seen, 40).rows if row] == [
        "mdl: org/a-long-name: no connection to",
        "     huggingface.co: Connection refused",
        "  hint: look look look look look look",
        "        look look look look look look",
    ]
    assert (seen.count("\x1b[1;31mmdl:\x1b[0m"), seen.count("\x1b[36m  hint:\x1b[0m")) == (1, 1)
    with piped() as (stderr, reader):
        reader.start()
        Console(environ={"TERM": "xterm", "COLUMNS": "40"}, stdout=io.StringIO(), stderr=stderr).error(error)
    assert reader.data().decode().count("\n") == 2


@given(st.data())
def test_a_table_fits_its_terminal(data: st.DataObject) -> None:
    """No line is wider than the terminal, unless numbers and the least of words need more; no number is broken."""
    width = data.draw(st.integers(20, 100))
    kinds = data.draw(st.lists(st.sampled_from(["number", "word", "sentence"]), min_size=1, max_size=6))
    headers = [f"C{at}" for at in range(len(kinds))]
    texts = {
        "number": st.integers(0, 10**9).map(str),
        "word": st.text("ab-", min_size=1, max_size=40).map(lambda text: f"x{text}"),
        "sentence": st.text("ab ", min_size=1, max_size=60).map(lambda text: f"x{text.strip()}"),
    }
    rows = data.draw(st.lists(st.tuples(*(texts[kind] for kind in kinds)), min_size=1, max_size=4))
    cut = data.draw(st.none() | st.lists(st.sampled_from(headers), unique=True))
    drop = data.draw(st.lists(st.sampled_from(headers[1:] or headers), unique=True))
    seen = Screen(drawn_table(headers, [list(row) for row in rows], cut, tuple(drop), columns=width), 400).rows
    lines = [line.rstrip() for line in seen if line.strip()]
    numbers = [at for at, kind in enumerate(kinds) if kind == "number"]
    widest = [max(len(headers[at]), *(len(row[at]) for row in rows)) for at in numbers]
    least = sum(cells + 2 for cells in widest) + 8 * (len(kinds) - len(numbers))
    assert all(len(line) <= max(width, least) for line in lines)
    whole = " ".join(lines)
    for at in numbers:
        if headers[at] not in drop and headers[at] not in (cut or ()):
            assert all(row[at] in whole for row in rows)
