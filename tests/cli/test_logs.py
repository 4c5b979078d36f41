"""Logs: what happened, to which file, in the server's words; whole lines however many write; no secret, no failure."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import each
from support.catalogs import catalog_of, entry_of
from support.data import DATA
from support.faults import answers, first, honest, redirects, routes
from support.faulty_server import FaultyServer
from support.jobs import log_of, parsed, secrets_in, state_of, the_job
from support.shell import ExitCode, Shell, machine

from mdl.events import Ended, Event, Failed, FileProgress, Planned, Progressed
from mdl.jobs.log import Log, LogListener, LogSource
from mdl.redact import Secrets

TOKEN = "hf_" + "s3cr3t" * 5
BUSY = answers(503, ("X-Request-Id", "req-17"), ("Retry-After", "0"), body=b"the disk array is on fire")
GONE = answers(404, ("X-Request-Id", "req-18"), body=b"moved to the moon")


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(routes({"/f": first(1, BUSY, honest(DATA)), "/gone": GONE})) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return machine(tmp_path / "home", catalog_of(one=f"{server.url}/f") + entry_of("two", f"{server.url}/gone", b"2"))


def test_what_happened_is_written_down(shell: Shell, exit_code: ExitCode, capfd: pytest.CaptureFixture[str]) -> None:
    """Plan, start, retry, progress, check, finish, failure and end are there, with file, words and request id."""
    assert exit_code(shell, "get", "one", "two", "--connections", "1") == 3
    lines = parsed(log_of(shell))
    by_kind = {line["what"]: line for line in lines}
    assert set(by_kind) >= {"planned", "started", "retrying", "progress", "verifying", "finished", "failed", "ended"}
    job = the_job(shell)
    assert {(line["job"], line["pid"], line["command"]) for line in lines} == {(job.id, str(os.getpid()), "get")}
    retry, failure, end = by_kind["retrying"], by_kind["failed"], by_kind["ended"]
    assert retry.items() >= {"level": "WARN", "model": "one", "file": "f.bin", "attempt": "1"}.items()
    assert retry["why"] == "127.0.0.1 answered 503 Service Unavailable: the disk array is on fire (request req-17)"
    assert failure.items() >= {"level": "ERROR", "model": "two", "file": "f.bin", "code": "NOTFOUND"}.items()
    assert failure["error"] == "127.0.0.1 answered 404 Not Found: moved to the moon (request req-18)"
    assert by_kind["finished"].items() >= {"model": "one", "verified": "sha256"}.items()
    assert (lines[-1], end["level"], end["status"], end["exit_code"]) == (end, "ERROR", "failed", "3")
    capfd.readouterr()
    assert exit_code(shell, "jobs", "log", "--raw", job.id) == 0
    assert capfd.readouterr().out == log_of(shell)
    modes = {path.stat().st_mode & 0o777 for path in (state_of(shell) / "downloads.log", Path(job.log or ""))}
    assert modes == {0o600}


@pytest.mark.parametrize("what", ["not resolved", "in the way"])
def test_every_failure_is_written_down(shell: Shell, server: FaultyServer, exit_code: ExitCode, what: str) -> None:
    """Of several models that fail before anything is fetched, each is there with its own reason."""
    if what == "not resolved":
        server.handler = GONE
        (shell.home / "catalog.toml").write_text(
            f'schema = 1\n[models.one]\nsource = "{server.url}/a"\n[models.two]\nsource = "{server.url}/b"\n'
        )
    for name in ("one", "two") if what == "in the way" else ():
        (shell.models / name / "f.bin").mkdir(parents=True)
    assert exit_code(shell, "get", "one", "two") in (3, 7)
    reason = "req-18" if what == "not resolved" else "is a folder"
    told = [line for line in parsed(log_of(shell)) if line["level"] == "ERROR" and reason in line.get("error", "")]
    assert {line.get("model") for line in told} >= {"one", "two"}


class Kept(Log):
    """A log that keeps its lines here."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def append(self, text: str) -> None:
        self.lines.append(text)


def logged(*events: Event, secrets: Secrets | None = None) -> str:
    """What is logged of events."""
    log = Kept()
    listener = LogListener(log, secrets or Secrets(), LogSource("0101-abcd", 7, "get"), lambda _path, _error: None)
    for event in events:
        listener(event)
    return "\n".join(log.lines)


@given(kept=st.integers(0, 1000), steps=st.lists(st.integers(0, 1000), max_size=60).map(sorted))
def test_each_tenth_is_written_once(kept: int, steps: list[int]) -> None:
    """Progress is a line at each tenth that is reached and never twice, counted on from what was there before."""
    whole = [min(1000, kept + step) for step in steps]
    files = [(FileProgress("m", "f.bin", 1, done, 1000),) for done in whole]
    looks = [Progressed(bytes_done=done, bytes_total=1000, files=one) for done, one in zip(whole, files, strict=True)]
    _, *lines = parsed(logged(Planned(bytes_total=1000, bytes_kept=kept), *looks))
    tenths = sorted({done // 100 for done in whole if done // 100 > kept // 100})
    assert [line["percent"] for line in lines] == [str(10 * tenth) for tenth in tenths]
    assert all(line["file"] == "f.bin" for line in lines)


def test_an_unknown_size_has_no_tenths() -> None:
    """Without a whole there is no progress to write."""
    assert logged(Progressed(bytes_done=10, bytes_total=0)) == ""


@each("text", ["two\nlines\r\n", 'a "quoted" \\ word', "\x1b[31mred\x1b[0m", "فارسی = \udcff", "x=y", ""])
def test_any_words_are_one_line(text: str) -> None:
    """Whatever a server says or a file is called, it is one line of ASCII that can be split again."""
    said = logged(Failed(f"m{text}", text, "NET", text), Ended())
    line, _ = parsed(said)
    assert (line.get("error", ""), line["model"]) == (text, f"m{text}")
    assert said.isascii()
    assert "\x1b" not in said


@pytest.mark.parametrize(
    "said", ['see "https://h/f?sig=5ignature" now', 'token=5ignature" again', 'the key 5ign"ature']
)
def test_a_line_without_its_secret_is_a_line(said: str) -> None:
    """If a secret was taken out of quoted words the line can still be split, and the secret is gone."""
    text = logged(Failed("m", "f", "NET", said), secrets=Secrets(['5ign"ature']))
    [line] = parsed(text)
    assert (line["model"], line["code"], "ature" in text) == ("m", "NET", False)


def test_no_secret_is_ever_written(tmp_path: Path, exit_code: ExitCode) -> None:
    """Neither the token, though the server repeats it, nor a signed address it sends to is in any file or name."""
    echo = answers(403, body=f'{{"error": "token {TOKEN} is not welcome at https://h/x?sig=5ignature"}}'.encode())
    to_store = redirects("/store?X-Amz-Signature=5ignature&Expires=9")
    with FaultyServer(routes({"/o/r/resolve/main/f": to_store, "/store": echo, "/o/r/resolve/main/g": echo})) as server:
        one, two = (f"{server.url}/o/r/resolve/main/{name}" for name in "fg")
        catalog = catalog_of(one=one) + entry_of("two", two, b"2")
        shell = machine(tmp_path / "home", catalog, server.url, HF_TOKEN=TOKEN)
        assert exit_code(shell, "get", "one", "two", "--log-file", "all.log") == 4
        assert any(request.header("authorization") == f"Bearer {TOKEN}" for request in server.requests)
    assert "is not welcome" in (shell.home / "all.log").read_text()
    assert secrets_in(shell.home, "s3cr3t", "5ignature") == set()


_APPEND = """
import sys
from pathlib import Path
from mdl.jobs.log import Log
log, who = Log(Path(sys.argv[1]), largest=20_000, kept=1000), sys.argv[2]
print(flush=True), sys.stdin.readline()
for number in range(400):
    log.append(f"{who}:{number}:" + "x" * (number * 7 % 90))
"""


def test_many_write_and_rotate_at_once(tmp_path: Path) -> None:
    """Four processes that append and rotate lose no line, tear none and write none twice; each keeps its order."""
    place = tmp_path / "logs" / "all.log"
    words = [sys.executable, "-c", _APPEND, str(place)]
    writers = [subprocess.Popen([*words, who], stdin=-1, stdout=-1, text=True) for who in "abcd"]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "\n"
    for writer in writers:
        writer.communicate("\n")
    assert [writer.returncode for writer in writers] == [0] * 4
    old = sorted(place.parent.glob("all.log.[0-9]*"), key=lambda path: -int(path.suffix[1:]))
    lines = [line for path in (*old, place) for line in path.read_text().splitlines()]
    right = [f"{who}:{number}:" + "x" * (number * 7 % 90) for who in "abcd" for number in range(400)]
    assert sorted(lines) == sorted(right)
    assert len(old) >= sum(map(len, right)) // 30_000
    assert max(path.stat().st_size for path in old) < 25_000


def test_a_few_old_ones_are_kept(tmp_path: Path) -> None:
    """A log that is full becomes .1, that one .2 and so on; what is older than the last one kept is gone."""
    log = Log(tmp_path / "log", largest=1, kept=3)
    for number in range(6):
        log.append(str(number))
    log.close()
    names = ("log", "log.1", "log.2", "log.3")
    assert [(tmp_path / name).read_text() for name in names] == ["5\n", "4\n", "3\n", "2\n"]
    assert {path.name for path in tmp_path.iterdir()} <= {*names, "log.lock"}


@pytest.mark.parametrize("is_renamed", [False, True])
def test_another_program_may_put_it_aside(tmp_path: Path, is_renamed: bool) -> None:
    """Removed or renamed by another program, as logrotate does: the next line is in a new file of the name."""
    log, place = Log(tmp_path / "log"), tmp_path / "log"
    log.append("before")
    place.rename(tmp_path / "elsewhere") if is_renamed else place.unlink()
    log.append("after")
    log.close()
    assert place.read_text() == "after\n"


def test_a_line_without_room_is_not_torn(tmp_path: Path) -> None:
    """If only part of a line has room, none of it stays; that is told once, and later lines are written if they fit."""
    log, told = Log(tmp_path / "log"), list[Path | None]()
    listener = LogListener(log, Secrets(), LogSource("0101-abcd", 7, "get"), lambda path, _error: told.append(path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    listener(Failed("m", "f", "NET", "first"))
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "log").stat().st_size + 20, before[1]))
    try:
        listener(Failed("m", "f", "NET", "second"))
        listener(Failed("m", "f", "NET", "third"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    listener(Failed("m", "f", "NET", "fourth"))
    listener.close()
    assert [line["error"] for line in parsed((tmp_path / "log").read_text())] == ["first", "fourth"]
    assert told == [tmp_path / "log"]
