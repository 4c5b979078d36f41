"""Hooks: what is run when a download is over: without a shell, with facts, and never to the download's harm."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.cases import each
from support.catalogs import catalog_of, entry_of
from support.data import SMALL
from support.faults import answers, honest, routes
from support.faulty_server import FaultyServer
from support.jobs import Gate, arrived, log_of, program, put_job, records_of, state_of, the_job
from support.polling import until
from support.schemas import events_of
from support.shell import ExitCode, Process, Shell, done, ended, machine, settings, started, with_environ

from mdl.cancel import CancelToken
from mdl.disk import process
from mdl.errors import Cancelled, UsageError
from mdl.events import Ended
from mdl.jobs.job import Invocation, Job
from mdl.jobs.records import Records
from mdl.jobs.run import hook_environment, hook_facts

TOKEN = "hf_" + "s3cr3t" * 5
GONE = answers(404, body=f"{TOKEN} is not known, see https://h/x?sig=5ignature".encode())
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(routes({"/f": honest(SMALL), "/gate": Gate(), "/gone": GONE})) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    others = entry_of("one", f"{server.url}/f", SMALL) + entry_of("two", f"{server.url}/gone", b"2")
    return machine(tmp_path / "home of mine", catalog_of(slow=f"{server.url}/gate") + others)


@pytest.fixture
def hook(tmp_path: Path) -> str:
    return str(program(tmp_path))


def configured(shell: Shell, **hooks: str) -> None:
    settings(shell, "[hooks]\n" + "".join(f"{key} = {json.dumps(one)}\n" for key, one in hooks.items()))


def calls(hook: str) -> list[tuple[list[str], dict[str, str]]]:
    """The words and the MDL_… variables of each call of the hook so far."""
    told = Path(hook).with_name("told")
    return [tuple(json.loads(line)) for line in told.read_text().splitlines()] if told.exists() else []


def test_what_a_hook_is_told(shell: Shell, exit_code: ExitCode, hook: str, capfd: Captured) -> None:
    """It has the facts of the job in its environment; what it says is on stderr, and stdout is the folder's alone. A
    job that is resumed has its own id, and what the hook starts is not taken for that job."""
    words = ("get", "one", "--on-complete", hook)
    assert exit_code(with_environ(shell, MDL_JOB=""), *words) == exit_code(shell, *words, "--json", "-q") == 0
    out, err = capfd.readouterr()
    assert (out.splitlines()[0], err.count("said by the hook\n")) == (str(shell.models / "one"), 2)
    assert "said by the hook" not in out
    (_, first), (_, second) = calls(hook)
    job = records_of(shell).find(first["MDL_HOOK_JOB"])
    assert not Path(first.pop("MDL_HOOK_FILE")).exists()
    facts = {"COUNT": "1", "EVENT": "complete", "JOB": job.id, "COMMAND": "get", "MODELS": "one", "ERROR": ""}
    facts |= {"PATHS": str(shell.models / "one"), "BYTES": str(len(SMALL)), "EXIT_CODE": "0", "ITEM": ""}
    facts["LOG"] = str(job.log)
    told = {key: value for key, value in first.items() if key.startswith("MDL_HOOK_")}
    assert told == {f"MDL_HOOK_{key}": value for key, value in facts.items()}
    assert job.status == "done"
    assert second["MDL_HOOK_JOB"] == the_job(shell).id != job.id
    put_job(records_of(shell), replace(the_job(shell), status="paused", exit_code=75))
    assert exit_code(with_environ(shell, MDL_JOB=the_job(shell).id), *words) == 0
    third = calls(hook)[-1][1]
    assert (third["MDL_HOOK_JOB"], "MDL_JOB" in third) == (second["MDL_HOOK_JOB"], False)
    assert len(records_of(shell).all()) == 2


def test_a_hook_finds_the_job_as_it_is(shell: Shell, exit_code: ExitCode, tmp_path: Path) -> None:
    """However short the download was, the job's record has all its bytes while the hook runs."""
    (tmp_path / "copy").mkdir()
    copy = f"sh -c 'cp \"$MDL_HOOK_LOG\" {tmp_path}/copy'"
    assert exit_code(shell, "get", "one", "--on-complete", copy) == 0
    seen = Records(tmp_path / "copy").all()[0]
    assert (seen.bytes_done, seen.bytes_total, seen.file) == (len(SMALL), len(SMALL), "one/f.bin")


def test_settings_and_flags(shell: Shell, exit_code: ExitCode, hook: str) -> None:
    """[hooks] name what is run when all is there and when something failed; a flag or variable wins, and an empty one
    switches the hook off; never both hooks; neither if the time was over, nor for a plan that is only shown."""
    configured(shell, on_complete=f"{hook} set", on_failure=f"{hook} failed")
    variable, secret = with_environ(shell, MDL_ON_COMPLETE=f"{hook} variable"), with_environ(shell, HF_TOKEN=TOKEN)
    off = with_environ(shell, MDL_ON_COMPLETE="")
    flag = ("--on-complete", f"{hook} flag")
    assert exit_code(shell, "get", "one") == exit_code(variable, "prefetch", "one") == 0
    assert exit_code(variable, "get", "one", *flag) == exit_code(off, "get", "one", *flag) == 0
    assert exit_code(off, "get", "one") == exit_code(shell, "get", "one", "--on-complete=") == 0
    assert (exit_code(shell, "get", "slow", "--max-duration", "0.3"), exit_code(shell, "get", "one", "-n")) == (75, 0)
    assert exit_code(secret, "get", "one", "two", *flag) == 3
    told = calls(hook)
    assert [words for words, _ in told] == [["set"], ["variable"], ["flag"], ["flag"], ["failed"]]
    facts = {key.removeprefix("MDL_HOOK_"): value for key, value in told[-1][1].items()}
    assert (facts["EVENT"], facts["EXIT_CODE"], facts["ITEM"]) == ("failure", "3", "two/f.bin")
    assert (facts["MODELS"], facts["COMMAND"], "is not known" in facts["ERROR"]) == ("one\ntwo", "get", True)
    assert facts["PATHS"].split("\n") == [str(shell.models / name) for name in ("one", "two")]
    assert ("s3cr3t" in json.dumps(told), "5ignature" in facts["ERROR"]) == (False, False)


@each(
    ("said", "words"),
    [
        ("*.bin ~ {a,b} [x] ?", ["*.bin", "~", "{a,b}", "[x]", "?"]),
        ("'a; b | c && d > e $HOME `id`' \"x; y\"", ["a; b | c && d > e $HOME `id`", "x; y"]),
        (r"two\ words 'one  word' \"", ["two words", "one  word", '"']),
        ("فارسی  -- --x=1 !", ["فارسی", "--", "--x=1", "!"]),
        ("'' a ''", ["", "a", ""]),
        ("a#b 'c' --to #ops now", ["a#b", "c", "--to", "#ops", "now"]),
        ("';' '|'", [";", "|"]),
        ('sh -c "echo $MDL_HOOK_MODELS | wc"', ["sh", "-c", "echo $MDL_HOOK_MODELS | wc"]),
        ("/bin/bash -lc 'echo `id`'", ["/bin/bash", "-lc", "echo `id`"]),
        *((said, None) for said in ("sh -c x $HOME", 'echo "$HOME"', "sh x | y")),
        *((said, None) for said in ("x | y", "x && y", "x > y", "x $HOME", "x `y`", "x 'y", "(x)", '"$(x)"', "x; y")),
    ],
)
def test_no_shell_looks_at_the_words(said: str, words: list[str] | None) -> None:
    """Globs, tildes, quoted signs and empty words are passed to the letter; what needs a shell is refused."""
    if words is None:
        with pytest.raises(UsageError):
            process.split_command(said, "--on-complete")
    else:
        assert process.split_command(said, "--on-complete") == words


def test_words_are_passed_as_they_are(shell: Shell, exit_code: ExitCode, hook: str) -> None:
    """They reach the program as they were said."""
    assert exit_code(shell, "get", "one", "--on-complete", f"{hook} *.bin '' 'a; b $HOME `id`' فارسی") == 0
    assert [told for told, _ in calls(hook)] == [["*.bin", "", "a; b $HOME `id`", "فارسی"]]


@pytest.mark.parametrize("how", ["--on-complete", "MDL_ON_COMPLETE", "on_complete", "on_failure"])
def test_what_needs_a_shell_is_refused(shell: Shell, server: FaultyServer, exit_code: ExitCode, how: str) -> None:
    """It is 2 before a server is asked and before there is a job, wherever it was said; nothing is run."""
    said = "touch ran x; y"
    if how.startswith("on_"):
        configured(shell, **{how: said})
    words = [how, said] if how.startswith("--") else []
    assert exit_code(with_environ(shell, **{how: said} if how.isupper() else {}), "get", "one", *words) == 2
    assert (server.requests, state_of(shell).exists(), (shell.home / "ran").exists()) == ([], False, False)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("false", "the hook ended with 1: false"),
        ("no-such-program x", "the hook no-such-program: it cannot be run: No such file or directory"),
        ("./catalog.toml", "the hook ./catalog.toml: it cannot be run: Permission denied"),
        ("sh -c 'kill -9 $$'", "the hook ended with -9: sh -c kill -9 $$"),
    ],
)
@pytest.mark.parametrize(("name", "code"), [("one", 0), ("two", 3)])
def test_a_hook_that_fails(
    shell: Shell, exit_code: ExitCode, capfd: Captured, said: str, told: str, name: str, code: int
) -> None:
    """It is one warning, and changes neither the exit code nor what the job is."""
    configured(shell, on_complete=said, on_failure=said)
    assert exit_code(shell, "get", name) == code
    warnings = [line for line in capfd.readouterr().err.splitlines() if line.startswith("mdl: warning: ")]
    assert warnings == [f"mdl: warning: {told}"]
    assert (the_job(shell).exit_code, the_job(shell).status) == (code, "failed" if code else "done")


def waiting(folder: Path, *, trap: str = "") -> str:
    """A hook that says ``begun`` in ``folder`` and goes on until ``over`` is there, or it is ended."""
    place = folder / "waiting"
    place.write_text(f"#!/bin/sh\n{trap}\ntouch {folder}/begun\nwhile [ ! -e {folder}/over ]; do sleep 0.05; done\n")
    place.chmod(0o755)
    return str(place)


@contextlib.contextmanager
def at_the_hook(shell: Shell, folder: Path, *words: str) -> Iterator[Process]:
    """A job whose hook has begun and does not end."""
    with started(shell, "get", *words) as process:
        until((folder / "begun").exists)
        yield process


@pytest.mark.fault(276)
@pytest.mark.parametrize("json_lines", [True, False])
@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_while_the_hook_runs(
    shell: Shell, tmp_path: Path, how: signal.Signals, code: int, json_lines: bool
) -> None:
    """The hook is ended. Exit code, record, stdout, document and last event all say that it was cancelled."""
    words = ("one", "--json", f"--progress={'json' if json_lines else 'auto'}", "--on-complete", waiting(tmp_path))
    with at_the_hook(shell, tmp_path, *words) as process:
        assert the_job(shell).status == "running"
        process.send_signal(how)
        ran = ended(process, code)
    assert (the_job(shell).status, the_job(shell).exit_code) == ("cancelled", code)
    assert (ran.document["ok"], ran.document["exit_code"]) == (False, code)
    assert ran.document["models"][0]["files"][0]["action"] == "fetched"
    assert not json_lines or ran.events[-1]["event"] == "cancelled"
    assert arrived(shell, SMALL)


@pytest.mark.fault(276)
def test_paused_while_the_hook_runs(shell: Shell, tmp_path: Path) -> None:
    """There is nothing left to pause: the hook runs to its end, and the job is done."""
    with at_the_hook(shell, tmp_path, "one", "-q", "--on-complete", waiting(tmp_path)) as process:
        process.send_signal(signal.SIGUSR1)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        (tmp_path / "over").touch()
        assert ended(process, 0).out == f"{shell.models / 'one'}\n"
    assert (the_job(shell).status, the_job(shell).exit_code) == ("done", 0)


@pytest.mark.fault(276)
def test_a_hook_that_will_not_end(tmp_path: Path) -> None:
    """A program that ignores that it is told to end is killed."""
    cancel = CancelToken()
    threading.Thread(target=lambda: (until((tmp_path / "begun").exists), cancel.set())).start()
    with pytest.raises(Cancelled):
        process.run_program([waiting(tmp_path, trap="trap '' TERM")], {}, cancel=cancel, grace=0.2)


@pytest.mark.fault(276)
def test_the_hook_of_a_failure_is_stopped(shell: Shell, tmp_path: Path) -> None:
    """The hook is ended, and the failure is how it ended."""
    configured(shell, on_failure=waiting(tmp_path))
    with at_the_hook(shell, tmp_path, "two", "-q") as process:
        process.send_signal(signal.SIGTERM)
        ended(process, 3)
    assert (the_job(shell).status, the_job(shell).exit_code) == ("failed", 3)


@pytest.mark.fault(276)
def test_the_ready_file_is_there_before_the_hook(shell: Shell, exit_code: ExitCode, capfd: Captured) -> None:
    """What the hook starts may wait for it."""
    assert exit_code(shell, "get", "one", "--ready-file", "ready", "--on-complete", "test -e ready") == 0
    assert "warning" not in capfd.readouterr().err


_READS = """
import json, os, sys
with open(os.environ["MDL_HOOK_FILE"]) as file:
    facts = json.load(file)
lists = [os.environ[name].split("\\n") for name in ("MDL_HOOK_MODELS", "MDL_HOOK_PATHS")]
with open(sys.argv[1], "w") as file:
    json.dump([facts, *lists, os.environ["MDL_HOOK_COUNT"]], file)
"""


@pytest.mark.fault(277)
@pytest.mark.parametrize("count", [1, 20_000])
def test_a_hook_for_many_models(tmp_path: Path, count: int) -> None:
    """It is run however many there are: the file has them all, the variables as many as fit, whole names only; a line
    break in a path is no second path in the file."""
    names = [f"a-model-with-a-long-name-{n:05}" for n in range(count)]
    folders = {name: Path(f"/models/a\nb/{name}") for name in names}
    job = Job("0101-x", "get", tuple(names), "owner", "host", Invocation(), "2026-01-01T00:00:00Z")
    with hook_environment(hook_facts(job, folders, Ended(), str)) as variables:
        assert process.run_program([sys.executable, "-c", _READS, str(tmp_path / "told")], variables) == 0
    facts, models, paths, said = json.loads((tmp_path / "told").read_text())
    assert facts["models"] == [{"name": name, "path": str(path)} for name, path in folders.items()]
    assert (facts["schema"], facts["event"], facts["exit_code"], said) == ("mdl.hook/1", "complete", 0, str(count))
    assert models == names[: len(models)]
    assert len(models) == count or (len(models) > 1000 and paths[-1].startswith("b/"))


def test_a_hook_reads_nothing_of_ours(shell: Shell) -> None:
    """A loop over names that calls mdl keeps its names, also if a hook reads its stdin to the end."""
    source, sink = os.pipe()
    os.write(sink, b"next name\n")
    os.close(sink)
    words = shell.command("get", "one", "-q", "--on-complete", "cat")
    subprocess.run(words, env=shell.environ, cwd=shell.home, stdin=source, capture_output=True, check=True)
    with os.fdopen(source) as left:
        assert left.read() == "next name\n"


@pytest.mark.parametrize("said", ["echo a word of its own", "false"])
def test_a_hook_beside_events(shell: Shell, exit_code: ExitCode, capfd: Captured, said: str) -> None:
    """With --progress json stderr is JSON lines to the end, whatever a hook says; that it failed is told or logged."""
    assert exit_code(shell, "get", "one", "--progress", "json", "--on-complete", said) == 0
    err = capfd.readouterr().err
    assert events_of(err)
    assert said != "false" or "the hook ended with 1" in err + log_of(shell)


def test_in_the_background(shell: Shell, server: FaultyServer, hook: str) -> None:
    """Of a detached job it runs too, when all is there; what it says is in the job's log."""
    name = done(shell.run("get", "one", "--detach", "--on-complete", f"{hook} x")).out.strip()
    log = state_of(shell) / "jobs" / f"{name}.job"
    until(lambda: "said by the hook" in log.read_text())
    assert arrived(shell, SMALL)
    ((words, facts),) = calls(hook)
    assert (words, facts["MDL_HOOK_JOB"], facts["MDL_HOOK_LOG"]) == (["x"], name, str(log))


def test_a_hook_may_call_mdl(shell: Shell, hook: str) -> None:
    """What a hook starts may work on the very same model, and is a job of its own."""
    again = " ".join(shell.command("get", "one", "-q", "--lock-wait", "0", "--on-complete", hook))
    ran = done(shell.run("get", "one", "-q", "--on-complete", again))
    assert ran.out == f"{shell.models / 'one'}\n"
    assert ran.err.splitlines() == ["said by the hook", str(shell.models / "one")]
    assert [job.status for job in records_of(shell).all()] == ["done", "done"]
