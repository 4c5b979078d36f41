"""Signed URLs: whatever stands behind the path of a URL is in nothing that mdl says or keeps, whoever repeats it."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from support import faults
from support.catalogs import catalog_of
from support.data import DATA
from support.faulty_server import Answer, FaultyServer, Request, json_reply, reply
from support.jobs import Gate, program, records_of, state_of, the_job, waits
from support.long import LONG
from support.polling import until
from support.shell import ExitCode, Inside, Shell, done, machine, settings, write_catalog

from mdl.disk.mutex import file_lock
from mdl.disk.process import ProcessId
from mdl.jobs import processes

SIGNED = {
    "quote": "?filename*=UTF-8''x&auth=canary-1",
    "double quote": '?name="x"&auth=canary-1',
    "angle bracket": "?name=<x>&auth=canary-1",
    "semicolon": "?name=x;auth=canary-1",
    "empty part": "?a&&auth=canary-1",
    "no name": "?canary-1",
    "no name, equals": "?=canary-1",
    "encoded": "?auth=c%61nary%2B1",
    "URL in it": "?next=https%3A%2F%2Fh%2Ff%3Fauth%3Dcanary-1",
    "fragment": "#canary-1",
    "query and fragment": "?a=1#canary-1",
    "parameter": ";sid=canary-1",
    "parameter of a folder": ";sid=canary-1/g.bin",
}
"""What may stand behind the path of a URL."""

Repeat = Callable[[Request], Answer]


def _url(request: Request) -> str:
    return f"{request.origin}{request.target}"


def _json(request: Request) -> Answer:
    return json_reply({"error": f"you asked: {_url(request)}"}, status=403)


def _values(request: Request) -> Answer:
    """Nothing but the values, without their names."""
    values = " and ".join(part.rpartition("=")[2] for part in unquote(request.target).replace("?", "&").split("&"))
    return reply(403, f"who is {values}?".encode())


REPEATS: dict[str, Repeat] = {
    "text": lambda request: reply(403, f"cannot GET {request.target} for you".encode()),
    "decoded": lambda request: reply(403, f"cannot GET {unquote(unquote(request.target))} for you".encode()),
    "encoded": lambda request: reply(403, f"no {quote(request.target, safe='')} here".encode()),
    "JSON": _json,
    "XML": lambda request: reply(403, f"<Error><Message>no {html.escape(_url(request))}</Message></Error>".encode()),
    "title": lambda request: reply(404, f"<title>Cannot GET {html.escape(request.target)}</title>".encode()),
    "header": lambda request: reply(403, b"", ("X-Error-Message", f"no {request.target} here")),
    "request id": lambda request: reply(403, b"", ("X-Request-Id", request.target)),
    "values": _values,
    "far into it": lambda request: reply(403, b"x" * 290 + b" " + request.target.partition("=")[2].encode()),
    "status line": lambda one: Answer(f"HTTP/1.1 no {_url(one)} {unquote(one.target)}", end="close"),
    "Content-Range": lambda request: reply(206, b"x", ("Content-Range", request.target)),
    "Location": lambda request: reply(302, b"", ("Location", f"ftp://h/{request.target}")),
    "bad Location": lambda request: reply(302, b"", ("Location", f"http://h:{unquote(request.target)}/")),
}


def leaks(home: Path, *said: str) -> list[str]:
    """What was said, and each file below ``home``, with ``canary`` in it or in its name. The catalog is the user's own
    file, and the lock repeats its addresses."""
    found = [text for text in said if "canary" in text]
    files = (path for path in home.rglob("*") if path.name not in ("catalog.toml", "mdl.lock"))
    return found + [str(path) for path in files if "canary" in str(path) or b"canary" in _bytes_of(path)]


def _bytes_of(path: Path) -> bytes:
    """What is in a file; nothing if it is a folder, or was removed just now by a job that ended."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return b""


@pytest.fixture
def checked(exit_code: ExitCode, capfd: pytest.CaptureFixture[str]) -> Callable[..., int]:
    """A command's exit code; neither its words nor a file hold the secret after it."""

    def run(shell: Shell, *words: str) -> int:
        capfd.readouterr()
        code = exit_code(shell, *words)
        assert leaks(shell.home, *capfd.readouterr()) == [], words
        return code

    return run


def look_at_jobs(shell: Shell, checked: ExitCode) -> None:
    """Ask all that can be asked about the jobs."""
    of_each = [f"{words} {job.id}" for job in records_of(shell).all() for words in ("show", "show --json", "log")]
    for words in ("", *of_each):
        assert checked(shell, "jobs", *words.split()) in (0, 3)


@pytest.mark.fault(171, 240)
@pytest.mark.parametrize("form", SIGNED)
def test_a_signed_url_that_works(checked: ExitCode, tmp_path: Path, form: str) -> None:
    """A file that came by a signed URL, named by the user, the catalog or a redirect: none of it is shown or kept. Each
    form is tried with every sixth of the commands that only look, and with all of them in the long run."""
    fetch = "get URL -v | get two -v --json | prefetch one --metrics m.prom --ready-file ready.json -v"
    look = """get URL --json --progress json | show URL | show one --json | lock --json | lock | list | list --json |
        show one | get one -n | verify one --json | jobs --json | verify one"""
    some = look.split("|") if LONG else look.split("|")[list(SIGNED).index(form) % 6 :: 6]
    with FaultyServer(faults.honest(DATA)) as server:
        url = f"{server.url}/a/f.bin{SIGNED[form]}"
        with FaultyServer(faults.redirects(url)) as other:
            shell = machine(tmp_path, catalog_of(one=url.replace('"', '\\"'), two=f"{other.url}/f.bin"))
            for words in (*fetch.split("|"), *some):
                assert checked(shell, *(url if word == "URL" else word for word in words.split())) == 0, words
        look_at_jobs(shell, checked)


REPEATED = [*(("typed", form) for form in SIGNED), ("redirect", "quote"), ("relative redirect", "no name")]


@pytest.mark.fault(171, 241)
@pytest.mark.parametrize(("way", "form"), REPEATED)
def test_a_server_that_repeats_a_signed_url(checked: ExitCode, tmp_path: Path, way: str, form: str) -> None:
    """However a server repeats what it was asked, and whoever named the URL: it is not shown, logged or kept. Each form
    is tried with one way to repeat it, each way with one form, and all with all in the long run."""
    step = 1 if LONG else len(REPEATS)
    for kind, repeat in list(REPEATS.items())[REPEATED.index((way, form)) % step :: step]:
        shell = machine(tmp_path / kind)
        settings(shell, f'[hooks]\non_failure = "{program(shell.home)}"')
        with FaultyServer(lambda request, _number, repeat=repeat: repeat(request)) as server:
            url = f"{server.url}/f.bin{SIGNED[form]}"
            if way == "relative redirect":
                again = faults.redirects(f"/away/f.bin{SIGNED[form]}")
                server.handler = faults.choose(lambda one: one.target == "/f.bin", again, server.handler)
            with FaultyServer(faults.redirects(url)) as other:
                start = {"typed": url, "redirect": f"{other.url}/f.bin", "relative redirect": f"{server.url}/f.bin"}
                for words in (["-v"], ["--json", "--progress", "json", "-v"]):
                    assert checked(shell, "get", start[way], "--retries", "1", *words) in (3, 4, 5, 6, 11), kind
            look_at_jobs(shell, checked)
        assert "ERROR" in (state_of(shell) / "downloads.log").read_text()


@pytest.mark.fault(171, 242)
def test_a_signed_url_in_the_background(tmp_path: Path, gate: Gate) -> None:
    """Everybody may read a process's arguments: those of a detached job are its id. Its environment is clean too."""
    with FaultyServer(gate) as server:
        shell = machine(tmp_path / "home")
        ran = done(shell.run("get", f"{server.url}/one/f.bin?a=ü&auth='canary-1'", "--detach"))
        job = waits(shell, gate)
        place = Path("/proc", str(ProcessId(job.owner).pid))
        assert (ran.out, ran.err, job.again.withheld) == (f"{job.id}\n", "", True)
        if place.exists():
            assert job.id in (place / "cmdline").read_text()
            assert "canary" not in (place / "cmdline").read_text() + (place / "environ").read_text()
        assert leaks(shell.home) == []
        gate.opened.set()
        until(lambda: the_job(shell).status == "done")
        assert any("canary-1" in request.target for request in server.requests)
    assert next(shell.models.glob("*/f.bin")).read_bytes() == DATA
    assert leaks(shell.home) == []


@pytest.mark.fault(242)
def test_the_flag_of_the_background_is_nobody_elses(tmp_path: Path) -> None:
    """Typed by hand it is no flag (2): nothing is read from a terminal, a file or a pipe."""
    done(machine(tmp_path).run(processes.FLAG, "1122-abcd"), 2)


@pytest.fixture
def unreached(tmp_path: Path) -> Shell:
    """A machine whose one model has a server that nobody asks."""
    return machine(tmp_path, catalog_of(one="http://127.0.0.1:9/f"))


def before_start(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Have something happen just before the process in the background is started."""
    start = processes.start
    monkeypatch.setattr("mdl.jobs.run.start", lambda *arguments: (happens(), start(*arguments))[1])


@pytest.mark.fault(243)
@pytest.mark.parametrize(("words", "code"), [("", 9), ("--skip-if-running", 0)])
def test_another_prefetch_is_quicker(
    unreached: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch, words: str, code: int
) -> None:
    """One that begins before the process in the background does is told at once, and leaves no job behind."""
    locks = state_of(unreached) / "locks"
    with contextlib.ExitStack() as held:
        before_start(monkeypatch, lambda: held.enter_context(file_lock(locks, "prefetch", 0.0, print)))
        assert mdl(unreached, "prefetch", "one", "--detach", *words.split()).code == code
    assert records_of(unreached).all() == []


@pytest.mark.fault(242)
def test_a_job_that_cannot_begin(unreached: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends before it has begun in the background gives the command its code; where its words are is said."""
    before_start(monkeypatch, lambda: write_catalog(unreached, "schema = 0"))
    ran = mdl(unreached, "get", "one", "--detach")
    job = the_job(unreached)
    assert (ran.code, job.status, f"mdl jobs log {job.id}" in ran.err) == (2, "paused", True)
    assert "schema" in mdl(unreached, "jobs", "log", job.id).out
