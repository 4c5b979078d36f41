"""prefetch: silent, one at a time, within its hours, giving way to everybody; what it leaves for others to read."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from support.catalogs import catalog_of, entry_of
from support.data import DATA
from support.faults import answers, honest, routes
from support.faulty_server import FaultyServer
from support.jobs import GATE, Gate, arrived, log_of, put_job, records_of, the_job, waits
from support.polling import until
from support.shell import Ran, Run, Shell, done, ended, machine, settings, started, write_catalog

from mdl.disk.process import ProcessId
from mdl.jobs.prefetch import write_metrics
from mdl.net.throttle import minute_of_day
from mdl.reports import ModelReport, Report

GONE = answers(404, ("X-Request-Id", "req-18"), body=b"moved to the moon")
PREFETCH = "prefetch --metrics mdl.prom"
ALL = f"{PREFETCH} --all"
HANDLER = routes({"/f": honest(DATA), "/gone": GONE, "/lost": GONE})


def metrics(shell: Shell, name: str = "mdl.prom") -> dict[str, float]:
    """A file of Prometheus' text format, read by its grammar; the samples by name and labels, all of them gauges.

    https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details
    """
    text, found, said = (shell.home / name).read_text(), {}, set()
    label = r'[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*"'
    assert text.endswith("\n")
    for line in text.splitlines():
        if comment := re.fullmatch(r"# (HELP|TYPE) ([a-zA-Z_:][\w:]*) (.+)", line):
            kind, metric, rest = comment.groups()
            assert (kind, metric) not in said
            assert kind == "HELP" or rest == "gauge"
            said.add((kind, metric))
            continue
        sample = re.fullmatch(
            rf"([a-zA-Z_:][\w:]*)((?:\{{{label}(?:,{label})*\}})?) ([-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?)", line
        )
        assert sample, line
        assert {("HELP", sample[1]), ("TYPE", sample[1])} <= said, line
        key = sample[1].removeprefix("mdl_prefetch_") + sample[2]
        assert key not in found
        found[key] = float(sample[3])
    return found


def clock(minutes: int) -> str:
    moment = (minute_of_day() + minutes) % 1440
    return f"{moment // 60:02}:{moment % 60:02}"


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return machine(tmp_path / "home", catalog_of(one=f"{server.url}/f"))


def is_silent(ran: Ran) -> bool:
    return (ran.out, ran.err) == ("", "")


def priorities(process: int) -> set[tuple[int, int]]:
    """The scheduling policy and the niceness of all its threads."""
    found = set()
    for thread in map(int, os.listdir(f"/proc/{process}/task")):
        with suppress(ProcessLookupError):
            found.add((os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)))
    return found


def test_one_at_a_time_and_last_of_all(shell: Shell, server: FaultyServer, gate: Gate, run: Run) -> None:
    """A real one says nothing at all, and has the lowest priority in every thread; a second is 9, or 0 if so wished."""
    server.handler = gate
    before = time.time()
    with started(shell, *ALL.split()) as process:
        waits(shell, gate)
        assert priorities(process.pid) == {(os.SCHED_IDLE, 19)}
        assert str(process.pid) in run(ALL, 9).err
        assert is_silent(run(f"{ALL} --skip-if-running"))
        assert run("prefetch --all --skip-if-running --json").document["models"] == []
        assert not (shell.home / "mdl.prom").exists()
        gate.opened.set()
        assert is_silent(ended(process, 0))
    assert arrived(shell)
    found = metrics(shell)
    assert before < found["last_success_timestamp_seconds"] == found["last_run_timestamp_seconds"] < time.time()
    assert (found["exit_code"], found["fetched_bytes"], found["kept_bytes"]) == (0, len(DATA), 0)
    assert (found['files{action="fetched"}'], found['model_present{model="one"}']) == (1, 1)
    assert [job.command for job in records_of(shell).all()] == ["prefetch"]


@pytest.mark.fault(143)
def test_silent_when_all_is_here(shell: Shell, run: Run) -> None:
    """Again and again, for the whole catalog or by name, not a byte is said; entries without data are left out."""
    with (shell.home / "catalog.toml").open("a") as catalog:
        catalog.write('[models.lost]\ngone = "it burnt down"\n[groups]\nall = ["one"]\n')
    for words in ("--all", "one", "all", "all one --progress auto", "--all -q"):
        assert is_silent(run(f"prefetch {words}"))
    ran = run("prefetch --all --json")
    assert (ran.document["models"][0]["status"], ran.err) == ("present", "")
    assert log_of(shell).count(" ended ") == 6


@pytest.mark.fault(143)
def test_one_block_of_text(shell: Shell, server: FaultyServer, run: Run) -> None:
    """Each failure once, what to do below it, and where the log is; what could be brought is there."""
    with (shell.home / "catalog.toml").open("a") as catalog:
        catalog.write(entry_of("two", f"{server.url}/gone", b"2") + entry_of("three", f"{server.url}/lost", b"3"))
        catalog.write(f'[models.four]\nsource = "{server.url}/gone/f.bin"\n')
    ran = run(ALL, 3)
    lines = ran.err.splitlines()
    failures = [line for line in lines if line.startswith("mdl: ") and "warning" not in line]
    assert (ran.out, len(failures)) == ("", 3)
    for name in ("two/f.bin", "three/f.bin", "four/f.bin"):
        assert sum(f"mdl: {name}: " in line for line in failures) == 1, ran.err
    assert lines[-1] == f"log: mdl jobs log {the_job(shell).id}"
    assert all(line.startswith(("mdl: ", "  hint: ")) for line in lines[:-1])
    assert arrived(shell)
    found = metrics(shell)
    assert (found["exit_code"], found["last_success_timestamp_seconds"]) == (3, 0)
    assert found['model_present{model="two"}'] == 0
    assert (found['files{action="fetched"}'], found['files{action="failed"}']) == (1, 3)


def test_within_its_hours(shell: Shell, server: FaultyServer, run: Run) -> None:
    """Outside its window it is 75 in silence, asks nobody, and the metrics have that and what is on the disk; inside it
    works."""
    closed = f"{ALL} --window {clock(120)}-{clock(180)}"
    for is_here in (0, 1):
        assert is_silent(run(closed, 75))
        ran = run(f"{closed} --json", 75)
        assert (ran.document["error"]["code"], ran.err) == ("DEADLINE", "")
        found = metrics(shell)
        assert (found["exit_code"], found['model_present{model="one"}']) == (75, is_here)
        assert (found['models{status="present"}'], len(server.requests) > 0) == (is_here, is_here)
        run(ALL, MDL_WINDOW=f"{clock(-60)}-{clock(60)}")
        assert (arrived(shell), metrics(shell)["exit_code"]) == (True, 0)


def test_stopped_by_its_time_it_goes_on(shell: Shell, server: FaultyServer, gate: Gate, run: Run) -> None:
    """After --max-duration it ends with 75 in silence; the next run fetches the rest, and the bytes are the same. The
    paused jobs of earlier nights are gone then; jobs of other models stay."""
    server.handler = gate
    words = f"{PREFETCH} one --max-duration 1.5 --ready-file ready"
    assert is_silent(run(words, 75))
    assert (the_job(shell).status, the_job(shell).bytes_done, metrics(shell)["exit_code"]) == ("paused", GATE, 75)
    assert (metrics(shell)['files{action="failed"}'], metrics(shell)['files{action="unfinished"}']) == (0, 1)
    assert not (shell.home / "ready").exists()
    for name, model in (("0101-same", "one"), ("0101-rest", "two")):
        put_job(records_of(shell), replace(the_job(shell), id=name, models=(model,), started_at="2026-01-01"))
    run(f"{words} --max-duration 0.2", 75)
    assert [(job.status, job.models) for job in records_of(shell).all()] == [("paused", ("one",)), ("paused", ("two",))]
    gate.opened.set()
    run(words, MDL_LIMIT_RATE="00:00,50M 12:00,off")
    found = metrics(shell)
    kept = int(found["kept_bytes"])
    assert (0 < kept <= GATE, found["fetched_bytes"], found["exit_code"]) == (True, len(DATA) - kept, 0)
    assert server.requests[-1].header("range") == f"bytes={kept}-{len(DATA) - 1}"
    assert (arrived(shell), (shell.home / "ready").exists()) == (True, True)
    assert [(job.status, job.models) for job in records_of(shell).all()] == [("done", ("one",)), ("paused", ("two",))]


def test_a_silent_server_does_not_outlast_its_time(shell: Shell, server: FaultyServer, run: Run) -> None:
    """The time is over also while a server is only asked what it has: 75 then, and not what its silence means."""
    server.handler = Gate(at=None)
    write_catalog(shell, f'schema = 1\n[models.one]\nsource = "{server.url}/f.bin"\n')
    run("prefetch --all --max-duration 0.2 --stall 1 --retries 1", 75)


def test_metrics_are_well_formed_whatever_a_name_is(tmp_path: Path) -> None:
    """Quotes, backslashes and line ends of a model's name are escaped, and read back as they were."""
    names = ['a"b', "back\\slash", "line\nend", "فارسی"]
    report = Report(tuple(ModelReport(name, "/m", "present") for name in names), bytes_fetched=2**60)
    write_metrics(tmp_path / "mdl.prom", report, exit_code=0, seconds=1e-7, ended=1.79e9)
    found = metrics(Shell(tmp_path))
    assert (found["fetched_bytes"], found["duration_seconds"], found['models{status="present"}']) == (2**60, 0, 4)
    labels = [key.removeprefix("model_present{model=").removesuffix("}") for key in found if "model=" in key]
    assert [json.loads(label) for label in labels] == names


def test_metrics_are_replaced_as_a_whole(shell: Shell, server: FaultyServer, run: Run) -> None:
    """Who has the old file open reads it to its end; a success is remembered over failures; nothing else is left."""
    words, place = "prefetch --all --metrics node/mdl.prom", shell.home / "node" / "mdl.prom"
    run(words)
    first = metrics(shell, "node/mdl.prom")
    with place.open() as old:
        server.handler = GONE
        (shell.models / "one" / "f.bin").unlink()
        run(words, 3)
        assert "exit_code 0\n" in old.read()
    second = metrics(shell, "node/mdl.prom")
    assert second["last_success_timestamp_seconds"] == first["last_success_timestamp_seconds"]
    assert second["last_run_timestamp_seconds"] > first["last_run_timestamp_seconds"]
    assert (second["exit_code"], [entry.name for entry in place.parent.iterdir()]) == (3, ["mdl.prom"])
    place.write_bytes(b"\xff\x00 no metrics")
    run(words, 3)
    assert metrics(shell, "node/mdl.prom")["last_success_timestamp_seconds"] == 0
    server.handler = honest(DATA)
    (shell.home / "file").touch()
    told = run("prefetch --all --metrics file/mdl.prom").err
    assert re.match("mdl: warning: the metrics file .*file/mdl.prom: ", told)


@pytest.mark.parametrize(
    ("catalog", "words", "code"),
    [("schema = 1\n[models.x]\n", "--all", 2), ("", "--all --catalog none.toml", 2), ("schema = 1\n", "nobody", 3)],
)
def test_what_is_wrong_before_it_begins(shell: Shell, run: Run, catalog: str, words: str, code: int) -> None:
    """A catalog that is wrong or missing and a name it does not have are told, and the metrics have the code."""
    write_catalog(shell, catalog)
    assert re.fullmatch(r"mdl: .+\n  hint: .+\n", run(f"{PREFETCH} {words}", code).err)
    assert metrics(shell)["exit_code"] == code


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, 2), (RuntimeError("a fault"), 1), (OSError(5, "worn out"), 7), (KeyboardInterrupt(), 130)],
)
def test_metrics_of_a_run_that_could_not_be(
    shell: Shell, run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, code: int
) -> None:
    """Settings that are wrong, a fault in mdl itself, a disk that fails and Ctrl-C: the metrics say that it was so."""
    if error is None:
        settings(shell, "[defaults\n")
    else:
        monkeypatch.setattr("mdl.cli.prefetch.download", Mock(side_effect=error))
    run(ALL, code)
    assert metrics(shell)["exit_code"] == code


def test_the_ready_file(shell: Shell, server: FaultyServer, gate: Gate, run: Run) -> None:
    """It is there only while all is there: not while something is fetched, nor after a failure; else it stays. If it
    cannot be written there is one warning, and the download is right."""
    words, ready = "prefetch --all --ready-file run/ready", shell.home / "run" / "ready"
    run(f"{words} -n")
    assert not ready.exists()
    run(words)
    facts = json.loads(ready.read_text())
    assert (facts["schema"], facts["models"]) == ("mdl.ready/1", {"one": str(shell.models / "one")})
    assert ready.stat().st_mode & 0o777 == 0o644
    run(words)
    server.handler = gate
    (shell.models / "one" / "f.bin").unlink()
    with started(shell, *words.split()):
        waits(shell, gate)
        assert not ready.exists()
        gate.opened.set()
        until(ready.exists)
    server.handler = GONE
    (shell.models / "one" / "f.bin").unlink()
    run(words, 3)
    assert list(ready.parent.iterdir()) == []
    server.handler = honest(DATA)
    told = run("prefetch --all --ready-file catalog.toml/ready").err
    assert told.count("mdl: warning: the ready file catalog.toml/ready: ") == told.count("warning") == 1
    assert arrived(shell)


@pytest.mark.parametrize("count", [1, 2])
def test_without_a_place_for_its_lock(shell: Shell, run: Run, count: int) -> None:
    """If the state folder cannot be made, nor any folder for locks, prefetch says so once and works, as get does."""
    for place in (shell.home / ".local" / "state", shell.models / ".mdl" / "locks")[:count]:
        place.parent.mkdir(parents=True)
        place.write_text("in the way")
    assert run("prefetch one").err.count("mdl: warning: ") == 1
    assert arrived(shell)


def test_a_model_that_a_get_is_at_work_on(shell: Shell, server: FaultyServer, gate: Gate, run: Run) -> None:
    """It waits in silence as long as it may, then it is 9, also with --skip-if-running and if the model is called
    prefetch, for no prefetch runs; nothing is fetched twice."""
    server.handler = gate
    write_catalog(shell, catalog_of(prefetch=f"{server.url}/f"))
    with started(shell, "get", "prefetch") as get:
        waits(shell, gate)
        for flag in ("", "--skip-if-running"):
            assert str(get.pid) in run(f"{PREFETCH} prefetch --lock-wait 0 {flag}", 9).err
            assert metrics(shell)["exit_code"] == 9
        with started(shell, "prefetch", "--all") as waiting:
            until(lambda: log_of(shell).count("waiting for another mdl") == 3)
            gate.opened.set()
            ended(get, 0)
            assert is_silent(ended(waiting, 0))
    assert server.bytes_sent == len(DATA)
    assert (shell.models / "prefetch" / "f.bin").read_bytes() == DATA


def test_in_the_background_it_has_the_lock(shell: Shell, server: FaultyServer, gate: Gate, run: Run) -> None:
    """With --detach the process in the background holds the lock, and leaves the metrics when it ends."""
    server.handler = gate
    ran = done(shell.run(*PREFETCH.split(), "one", "--detach", "--json"))
    job = waits(shell, gate)
    assert (ran.document["job"], (shell.home / "mdl.prom").exists()) == (job.id, False)
    run("prefetch one", 9)
    assert run(f"jobs pause {job.id} --json").document["jobs"][0]["status"] == "paused"
    until(lambda: ProcessId(job.owner).is_alive() is False)
    assert metrics(shell)["exit_code"] == 75
    gate.opened.set()
    run(f"{PREFETCH} one")
    assert [one.status for one in records_of(shell).all() if one.status != "failed"] == ["done", "paused"]
    assert (the_job(shell).bytes_done, arrived(shell)) == (len(DATA), True)
