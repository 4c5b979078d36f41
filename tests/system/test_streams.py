"""mdl's streams, if what reads them is full, closed, broken or slow, or if the encoding lacks letters."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.console import piped, progress, ticking
from support.schemas import events_of

from mdl.console import Console, ConsoleOptions
from mdl.console.streams import NonBlockingStream
from mdl.events import Failed, Finished, Retrying

ROOT = Path(__file__).parents[2]
ENVIRON = {"PATH": os.defpath, "PYTHONPATH": f"{ROOT}:{ROOT}/tests", "TERM": "xterm-256color", "LANG": "C.UTF-8"}
START = """
import os, sys
from mdl.console import Console, ConsoleOptions
from support.console import download
console = Console(ConsoleOptions(sys.argv[1] if len(sys.argv) > 1 else "auto"))
{script}
sys.exit(console.stdout_trouble())
"""
SAYS_ALL = "console.data('x'); console.table(['A'], [['b']]); console.document('get', {}); console.note('there')"
MUCH = "for at in range(20000): console.data('line ' * 20)\nprint('from elsewhere')"
FULL = "mdl: stdout: No space left on device\n  hint: the output could not be written; send it elsewhere\n"


def test_import_is_cheap() -> None:
    """Importing the console brings neither Rich nor anything else that takes a while."""
    heavy = {"rich", "asyncio", "logging", "mdl.events", "mdl.describe"}
    code = "import sys; before = set(sys.modules); import mdl.console; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-S", "-c", code], env=ENVIRON, capture_output=True, text=True)
    assert "mdl.console.reporter" in loaded.stdout.split(), loaded.stderr
    assert not heavy & set(loaded.stdout.split())


@pytest.mark.parametrize("kind", ["auto", "bars", "lines", "json", "none"])
def test_a_pipe_imports_no_rich(kind: str) -> None:
    """Whatever is asked for, and whatever is said: without a terminal Rich is not imported."""
    script = f"download(console); {SAYS_ALL}; console.error(Failure('no')); print('rich' in sys.modules)"
    code = f"from mdl.errors import MdlError as Failure\n{START.format(script=script)}"
    ran = subprocess.run([sys.executable, "-c", code, kind], env=ENVIRON, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "False"), ran.stderr


@pytest.mark.fault(135)
@pytest.mark.parametrize(
    ("script", "streams", "ended"),
    [
        ("console.data('x'); console.data('y')", ">/dev/full", (7, "", FULL)),
        (MUCH, "| head -1; exit ${PIPESTATUS[0]}", (141, "line " * 20 + "\n", "")),
        (SAYS_ALL, ">&-", (0, "", "there\n")),
        ("assert os.open(os.devnull, os.O_RDONLY) > 2", ">&- 2>&-", (0, "", "")),
        *(
            ("console.note('n'); download(console); console.data('/models/m')", where, (0, "/models/m\n", ""))
            for how in ("", "json ")
            for where in (f"{how}2>&-", f"{how}2>/dev/full", f"{how}2> >(exit 0)")
        ),
    ],
)
def test_streams_that_break(script: str, streams: str, ended: tuple[int, str, str]) -> None:
    """A full disk under stdout is one error line and 7, a reader that left is 141 and not a word; a closed stdout and
    any broken stderr hurt nothing. No file that is opened later gets the number of a closed stream."""
    command = ["bash", "-c", f'"$0" -c "$1" {streams}', sys.executable, START.format(script=script)]
    done = subprocess.run(command, env=ENVIRON, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == ended


def test_data_is_as_it_is() -> None:
    """A path is written byte for byte to a pipe, also one that is no valid text, so that a script can use it. What
    other code printed before stays before it."""
    with piped() as (file, reader):
        reader.start()
        console = Console(environ={}, stdout=file, stderr=io.StringIO())
        file.write("one\n")
        console.data("/a\udcff/b c?d=1")
        console.data("x\x1by")
        file.write("three\n")
    assert reader.data() == b"one\n/a\xff/b c?d=1\nx\x1by\nthree\n"


@pytest.mark.fault(139)
def test_ascii_encoding() -> None:
    """Names that the encoding lacks are escaped on both streams, and the document stays valid JSON."""
    name = "مدل‌فارسی"
    with piped("ascii") as (out, out_reader), piped("ascii") as (err, err_reader):
        out_reader.start(), err_reader.start()
        console = Console(environ={}, stdout=out, stderr=err)
        console.data(name)
        console.note(name)
        console.document("get", {"name": f"{name}é"})
    data, document = out_reader.data().splitlines()
    assert data + b"\n" == err_reader.data() == name.encode("ascii", "backslashreplace") + b"\n"
    assert json.loads(document)["name"] == f"{name}é"


@pytest.mark.fault(136, 279)
@pytest.mark.parametrize("kind", ["json", "lines"])
def test_a_reader_that_takes_nothing(kind: Any) -> None:
    """A reader that reads nothing stops no event. Once it reads, all that matters is there, in order; of retries and of
    progress without end only what there was room for."""
    total = 5000
    with piped() as (stderr, reader):
        console = Console(ConsoleOptions(kind), {}, stdout=io.StringIO(), stderr=stderr, clock=ticking(31.0))
        with console.watch() as tell:
            tell(Failed("m", "g", "NET", "the first failure"))
            for step in range(total):
                tell(progress(step, total))
                tell(Retrying("m", "f", f"try-{step}.", 2, 4.0))
                if step % 50 == 0:
                    tell(Finished("m", f"file-{step}", 10**9))
            console.warn("the disk is nearly full")
            reader.start()
    got = reader.data().decode()
    tried = [int(found) for found in re.findall(r"try-(\d+)\.", got)]
    assert 0 < len(tried) < total / 2
    assert tried == list(range(len(tried)))
    assert re.findall(r"file-(\d+)", got) == [str(step) for step in range(0, total, 50)]
    assert ("the first failure" in got, "the disk is nearly full" in got, got[-1]) == (True, True, "\n")
    assert got.count("\n") < total
    assert kind == "lines" or events_of(got)[-1]["event"] == "failed"


def test_offer_is_dropped_only_when_full() -> None:
    """What is offered to a reader is written while there is room, and dropped whole when there is none."""
    with piped() as (file, reader):
        stream, lines = NonBlockingStream(file, {}), 0
        while stream.offer(f"{lines:0999d}\n"):
            lines += 1
        got = os.read(reader.descriptor, 1 << 20).decode().splitlines()
        assert lines > 10
        assert got == [f"{at:0999d}" for at in range(lines)]
        assert stream.offer("again\n")
        reader.start()
    assert reader.data() == b"again\n"


def test_nonblocking_pipe() -> None:
    """A pipe that another program made non-blocking gets every byte of a long text nevertheless."""
    with piped() as (file, reader):
        os.set_blocking(file.fileno(), False)
        reader.start()
        NonBlockingStream(file, {}).write("x" * 1_000_000)
    assert len(reader.data()) == 1_000_000
