"""Jobs as users see them: real processes, paused, cancelled, killed and gone on with, from any terminal."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from support.bench import claimed_in
from support.catalogs import catalog_of
from support.data import DATA, MIB, noise
from support.faults import honest, routes
from support.faulty_server import Answer, FaultyServer, Request, reply
from support.jobs import GATE, Gate, arrived, log_of, put_job, records_of, the_job, waits
from support.loopback_hub import LoopbackHub, Repo
from support.polling import until
from support.processes import free_ports
from support.shell import Process, Ran, Run, Shell, done, ended, machine, started, with_environ

from mdl.config.settings import Config
from mdl.console.state import State
from mdl.disk.process import ProcessId
from mdl.errors import Cancelled, Paused
from mdl.events import Event, Progressed, Retrying
from mdl.jobs.job import Invocation, Job
from mdl.jobs.run import JobRun, Tracker
from mdl.redact import Secrets

terminated = functools.partial(Cancelled, terminated=True)


@pytest.fixture
def server(gate: Gate) -> Iterator[FaultyServer]:
    with FaultyServer(gate) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return machine(tmp_path / "home", catalog_of(one=f"{server.url}/f", two=f"{server.url}/f"))


@contextmanager
def at_the_gate(shell: Shell, gate: Gate, *words: str, folder: Path | None = None) -> Iterator[Process]:
    """A download that has what its server gives, and waits for the rest."""
    with started(shell, *words, folder=folder) as process:
        waits(shell, gate)
        yield process


def test_in_the_background(shell: Shell, server: FaultyServer, gate: Gate, run: Run) -> None:
    """--detach: the id is all of stdout, which ends at once; figures are live; cancel is 143; resume goes on there."""
    ran = done(shell.run("get", "one", "--detach"))  # read to the end of both pipes, though the job goes on
    name = ran.out.strip()
    assert (ran.out, ran.err, the_job(shell).id) == (f"{name}\n", "", name)
    job = waits(shell, gate)
    process = ProcessId(job.owner).pid
    until(lambda: the_job(shell).bytes_done == GATE)
    streams = [os.readlink(f"/proc/{process}/fd/{number}") for number in range(3)]
    assert (os.getsid(process) == os.getsid(0), streams) == (False, [os.devnull, os.devnull, job.log])
    facts = run("jobs --json").document["jobs"][0]
    assert (facts["status"], facts["bytes_total"], facts["file"]) == ("running", len(DATA), "one/f.bin")
    assert (facts["bytes_per_second"] > 0, facts["eta_seconds"] is not None) == (True, True)
    assert (facts["kind"], facts["repo"]) == ("model", f"{server.url}/f")
    assert facts["percent"] == round(100 * GATE / len(DATA), 1)
    run(f"jobs cancel {name[:-1]}")
    until(lambda: ProcessId(job.owner).is_alive() is False)
    assert (the_job(shell).status, the_job(shell).exit_code) == ("cancelled", 143)
    gate.opened.set()
    assert done(shell.run("jobs", "resume", name, "--detach")).out == f"{name}\n"
    until(lambda: the_job(shell).status == "done")
    assert (arrived(shell), went_on(server)) == (True, True)
    assert (the_job(shell).started_at, the_job(shell).exit_code) == (job.started_at, 0)


@pytest.mark.fault(182)
def test_paused_here_and_gone_on_with_there(shell: Shell, server: FaultyServer, gate: Gate, tmp_path: Path) -> None:
    """Paused from another process it ends with 75; resume goes on from any folder, with its paths and variables, and
    with no other variable of mdl's that the shell has then. A file of the job's folder is never taken for a part of mdl
    or of Python."""
    work = shell.home / "work"
    machine(work, catalog_of(other=f"{server.url}/f"))
    words = ("get", "other", "--to", "here", "--catalog", "catalog.toml", "--limit-rate", "100M", "--json")
    asked = with_environ(shell, MDL_CONNECTIONS="3")
    with at_the_gate(asked, gate, *words, folder=work) as process:
        assert done(shell.run("jobs", "pause", the_job(shell).id)).err == f"{the_job(shell).id}: paused\n"
        document = ended(process, 75).document
    assert (document["error"]["code"], document["bytes_fetched"]) == ("PAUSED", GATE)
    job = the_job(shell)
    assert (job.status, job.exit_code, job.bytes_done, job.bytes_per_second) == ("paused", 75, GATE, None)
    gate.opened.set()
    (work / "mdl.py").write_text("print('not mdl')")
    (tmp_path / "elsewhere").mkdir()
    later = with_environ(shell, MDL_INCLUDE="*.txt", XDG_DATA_HOME=str(tmp_path / "elsewhere"), MDL_REVISION="v2")
    with started(later, "jobs", "resume", job.id, folder=tmp_path / "elsewhere") as process:
        assert ended(process, 0).out == f"{work / 'here' / 'other'}\n"
    assert (work / "here" / "other" / "f.bin").read_bytes() == DATA
    assert (went_on(server), the_job(shell).again, the_job(shell).status) == (True, job.again, "done")
    assert the_job(shell).again.variables["MDL_CONNECTIONS"] == "3"


def test_killed_it_is_dead_and_goes_on(shell: Shell, server: FaultyServer, gate: Gate, run: Run) -> None:
    """After SIGKILL the job is dead: nothing to pause (2), its end unknown; resume brings the rest, and only that."""
    with at_the_gate(shell, gate, "get", "one") as process:
        until(lambda: claimed_in(shell.models) >= 2**20)
        run(f"jobs resume {the_job(shell).id}", 9)
        process.kill()
        process.wait()
    job = the_job(shell)
    assert (job.status, job.exit_code, job.finished_at, job.bytes_per_second) == ("dead", None, None, None)
    run(f"jobs pause {job.id}", 2)
    gate.opened.set()
    done(shell.run("jobs", "resume", job.id, "-q"))
    assert arrived(shell)
    assert (went_on(server), the_job(shell).id, the_job(shell).status) == (True, job.id, "done")


@pytest.mark.parametrize(
    ("meanwhile", "code", "status"), [("cancel", 143, "cancelled"), ("resume", 9, "running"), ("", 0, "done")]
)
def test_resumed_while_another_process_decides(
    shell: Shell, gate: Gate, run: Run, monkeypatch: pytest.MonkeyPatch, meanwhile: str, code: int, status: str
) -> None:
    """A resume that has seen a job, and begins it after another process has cancelled or resumed it: it leaves the job
    to that one, and its record too."""
    with at_the_gate(shell, gate, "get", "one") as process:
        done(shell.run("jobs", "pause", the_job(shell).id))
        ended(process, 75)
    job = the_job(shell)
    if meanwhile == "cancel":
        run(f"jobs cancel {job.id}")
    if meanwhile == "resume":  # by a process that is about to begin it, when the other one looks a second time
        other = replace(job, status="running", owner=str(ProcessId.current()))
        take_over = JobRun.take_over
        monkeypatch.setattr(JobRun, "take_over", lambda self: (put_job(records_of(shell), other), take_over(self))[1])
    gate.opened.set()
    ran = run("get one", code, MDL_JOB=f"{job.id} {job.stamp}")
    assert the_job(shell).status == status
    assert not meanwhile or f"another process has {meanwhile}" in ran.err


def went_on(server: FaultyServer) -> bool:
    """What was asked for last begins where something was already, and goes to the end."""
    found = server.requests[-1].range(len(DATA))
    return found is not None and 0 < found[0] <= GATE and found[1] == len(DATA)


@pytest.mark.parametrize(("how", "code", "status"), [("pause", 75, "paused"), ("cancel", 143, "cancelled")])
def test_stopped_before_it_knows_what_to_fetch(tmp_path: Path, how: str, code: int, status: str) -> None:
    """While the first model's server is silent a pause or cancel ends the whole job: the next model is not begun."""
    gate, came = Gate(at=None), []

    def second(request: Request, number: int) -> Answer:
        came.append(request)
        return honest(DATA)(request, number)

    with FaultyServer(routes({"/first": gate, "/second": second})) as server:
        no_size = re.sub(r"(size|sha256) = .*\n", "", catalog_of(one=f"{server.url}/first"))
        two = catalog_of(two=f"{server.url}/second").removeprefix("schema = 1\n")
        shell = machine(tmp_path / "home", no_size + two, MDL_CONNECTIONS="1")
        with started(shell, "get", "one", "two") as process:
            gate.wait()
            process.send_signal(signal.SIGUSR1 if how == "pause" else signal.SIGTERM)
            gate.opened.set()
            assert process.wait(30) == code
    assert (the_job(shell).status, the_job(shell).exit_code, came) == (status, code, [])


@pytest.mark.fault(156)
def test_paused_while_it_waits_for_another(shell: Shell, gate: Gate, run: Run) -> None:
    """A job that waits for another mdl is paused alone; the other one goes on, and neither loses a line of the log."""
    with at_the_gate(shell, gate, "get", "one") as first, started(shell, "get", "one") as second:
        until(lambda: "waiting for" in log_of(shell))
        waiting = the_job(shell)
        assert ProcessId(waiting.owner).pid == second.pid
        run(f"jobs pause {waiting.id}")
        assert "waiting for another mdl" in ended(second, 75).err
        gate.opened.set()
        ended(first, 0)
    assert arrived(shell)
    assert [job.status for job in records_of(shell).all()] == ["paused", "done"]
    for job in records_of(shell).all():
        lines = run(f"jobs log --raw {job.id}").out.splitlines()
        assert [line for line in log_of(shell).splitlines() if f"job={job.id} " in line] == lines


def test_a_log_is_followed_to_its_end(shell: Shell, gate: Gate) -> None:
    """log --follow tells what is there and what comes, in words, and ends with the job."""
    with at_the_gate(shell, gate, "get", "one") as process:
        job = the_job(shell)
        with started(shell, "jobs", "log", "-f", job.id) as follower:
            assert follower.stdout is not None
            assert re.fullmatch(r"\d{4}-\d\d-\d\d\n", follower.stdout.readline())
            assert re.fullmatch(r"\d\d:\d\d:\d\d  planned    plan: .*\n", follower.stdout.readline())
            gate.opened.set()
            ended(process, 0)
            last = ended(follower, 0).out.splitlines()[-1]
            assert re.fullmatch(r"\d\d:\d\d:\d\d  ended      finished  exit code 0", last)


def test_a_job_whose_process_is_stopped(shell: Shell, gate: Gate, run: Run) -> None:
    """While its process is stopped, as by Ctrl-Z, a job is listed as stalled, with the reason; then as running."""
    with at_the_gate(shell, gate, "get", "one") as process:
        assert "Ctrl-Z" not in run("jobs").out
        process.send_signal(signal.SIGSTOP)
        until(lambda: ProcessId(the_job(shell).owner).is_stopped())
        assert re.search(r" stalled .*its process is stopped, as by Ctrl-Z", run("jobs").out)
        assert "Ctrl-Z" in run("jobs show").out
        process.send_signal(signal.SIGCONT)
        gate.opened.set()
        ended(process, 0)


def test_resumed_without_an_id_at_another_rate(shell: Shell, gate: Gate, run: Run) -> None:
    """Without an id the last job that stopped is resumed; flags that are given replace those of its command."""
    with at_the_gate(shell, gate, "get", "one", "--limit-rate", "900M", "--connections", "3") as process:
        run(f"jobs pause {the_job(shell).id}")
        ended(process, 75)
    words = the_job(shell).again.words
    gate.opened.set()
    run("jobs resume --connections 99", 2)
    assert the_job(shell).status == "paused"
    ran = done(shell.run("jobs", "resume", "--limit-rate", "2M", "--max-duration", "0.1s"), 75)
    assert f"resuming {the_job(shell).id}: get one" in ran.err
    assert (the_job(shell).status, the_job(shell).again.words) == ("paused", words)
    run(f"jobs cancel {the_job(shell).id[2:]}")
    assert "resuming" in done(shell.run("jobs", "resume")).err
    run("jobs resume", 3)


def test_only_what_was_interrupted_is_resumed(tmp_path: Path) -> None:
    """Without an id the newest job that was interrupted goes on, whatever failed by itself before or after it."""
    gate = Gate(len(DATA) // 2)
    with FaultyServer(routes({"/f": gate, "/gone": lambda _request, _number: reply(404)})) as server:
        shell = machine(tmp_path / "home", catalog_of(one=f"{server.url}/f", gone=f"{server.url}/gone"))
        done(shell.run("get", "gone"), 3)
        with started(shell, "get", "one") as process:
            gate.wait()
            process.send_signal(signal.SIGINT)
            ended(process, 130)
        done(shell.run("get", "gone"), 3)
        gate.opened.set()
        ran = done(shell.run("jobs", "resume"))
        assert ": get one" in ran.err
        assert (shell.models / "one" / "f.bin").read_bytes() == DATA
        assert "failed is resumed by its id" in done(shell.run("jobs", "resume"), 3).err


def test_a_smaller_download_finishes_no_larger_one(tmp_path: Path) -> None:
    """A file of a repository is not the repository: the job that was paused goes on."""
    repo = Repo("org/big", {"config.json": b"{}", "weights.dat": noise(4 * MIB)})
    with LoopbackHub([repo], bytes_per_second=100_000) as hub:
        shell = with_environ(machine(tmp_path / "home"), HF_ENDPOINT=hub.url)
        with started(shell, "get", "org/big") as process:
            until(lambda: records_of(shell).all() != [] and the_job(shell).bytes_done > 0)
            done(shell.run("jobs", "pause", the_job(shell).id))
            ended(process, 75)
        paused = the_job(shell).id
        hub.bytes_per_second = None
        done(shell.run("get", "org/big", "config.json", "-q"))
        assert "finished it" not in done(shell.run("jobs")).out
        assert f"resuming {paused}" in done(shell.run("jobs", "resume")).err


_AGAIN = """
import os, signal, sys
from mdl.jobs.records import JobFile
from mdl.cli.main import run
original = JobFile.add_state
def add_state(self, job):
    if job.status == "cancelled":
        os.kill(os.getpid(), signal.SIGTERM)
    original(self, job)
JobFile.add_state = add_state
sys.exit(run(["get", "one", "--json"]))
"""


@pytest.mark.fault(156)
def test_told_to_stop_twice(shell: Shell, gate: Gate) -> None:
    """A second SIGTERM, which comes while the record of the first is written, changes nothing: cancelled, and 143."""
    words, streams = [sys.executable, "-c", _AGAIN], {"stdout": -1, "stderr": -1, "text": True}
    with subprocess.Popen(words, env=shell.environ, cwd=shell.home, **streams) as process:  # type: ignore[call-overload]
        waits(shell, gate)
        process.terminate()
        assert ended(process, 143).document["error"]["code"] == "CANCELLED"
    assert (the_job(shell).status, the_job(shell).exit_code) == ("cancelled", 143)


@pytest.mark.fault(156)
@pytest.mark.parametrize(("stop", "code", "status"), [(Paused, 75, "paused"), (terminated, 143, "cancelled")])
def test_stopped_as_soon_as_it_has_a_record(
    shell: Shell, run: Run, monkeypatch: pytest.MonkeyPatch, stop: Callable[[str], Cancelled], code: int, status: str
) -> None:
    """A signal that comes while the logs are opened ends the job as a later one does; it is not dead then."""
    monkeypatch.setattr("mdl.jobs.run.Log", Mock(side_effect=stop("by a signal")))
    run("get one", code)
    assert (the_job(shell).status, the_job(shell).exit_code) == (status, code)


def test_an_outage_shows_in_jobs() -> None:
    """What a job waits for is in its record while nothing comes, and goes when bytes do."""
    job = Job("1-a", "get", ("m",), "", "", Invocation(), "2026-01-01T00:00:00Z", bytes_done=5, bytes_total=9)
    state = State(lambda: 0.0)
    tracker = Tracker(job, None, state, Secrets(), Mock())

    def waiting_after(event: Event) -> str | None:
        state.take(event)
        tracker(event)
        tracker.write()
        return tracker.job.waiting

    waiting_after(Progressed(bytes_done=5, bytes_total=9))
    outage = Retrying("m", "f", "no connection to h: refused", 7, 30.0, 0, 90.0, 300.0)
    assert waiting_after(outage) == "no connection to h for 2m, still trying until 5m: refused"
    assert waiting_after(Progressed(bytes_done=5, bytes_total=9))
    assert waiting_after(Progressed(bytes_done=6, bytes_total=9)) is None


@pytest.mark.parametrize(
    ("words", "least"),
    [("get one --patience 1s", 1.0), ("get one --retries 2", 0.2), ("prefetch one --patience 1s", 1.0)],
)
def test_patience_of_a_command(tmp_path: Path, mdl: Callable[..., Ran], words: str, least: float) -> None:
    """--patience is the time, and --retries a ceiling, for a host that does not answer."""
    shell = machine(tmp_path / "alone", catalog_of(one=f"http://127.0.0.1:{free_ports(1)[0]}/f"))
    began = time.monotonic()
    done(mdl(shell, *words.split()), 5)
    assert time.monotonic() - began >= least


def test_an_hour_where_nobody_waits() -> None:
    """Unattended, the patience is an hour from the start, or lasts until the deadline; what was given holds."""
    attended = Config({}, {}, read=dict)
    assert attended.patience == (300.0, 15.0)
    assert replace(attended, given={"patience": "5s"}).patience == (5.0, 5.0)
    unattended = replace(attended, is_unattended=True)
    assert unattended.patience == (3600.0, 3600.0)
    assert replace(unattended, given={"patience": "10m"}).patience == (600.0, 600.0)
    assert min(replace(unattended, given={"max_duration": "2d"}).patience) > 2 * 86400
