"""mdl jobs watch: another process follows a job to its end, from its record and its log."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.data import DATA
from support.faults import answers
from support.faulty_server import FaultyServer
from support.jobs import GATE, Gate, arrived, state_of, the_job, waits
from support.polling import until
from support.schemas import events_of
from support.shell import Process, Run, Shell, done, ended, machine, started, with_environ


@pytest.fixture
def server(gate: Gate) -> Iterator[FaultyServer]:
    with FaultyServer(gate) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return machine(tmp_path / "home", catalog_of(one=f"{server.url}/f"))


def line_with(process: Process, text: str) -> str:
    """The first line of a watcher's stderr that has ``text`` in it."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it ended without a line with {text!r}")


def test_a_detached_job_is_followed(shell: Shell, server: FaultyServer, gate: Gate) -> None:
    """Of a job in the background another process tells plan, start, live progress, finish and end as they happen, each
    with the job's id and its source, and ends with the job's exit code."""
    name = done(shell.run("get", "one", "--detach")).out.strip()
    waits(shell, gate)
    with started(shell, "jobs", "watch", "--progress", "json") as watcher:
        first = [line_with(watcher, f'"{event}"') for event in ("planned", "started", "progress")]
        until(lambda: the_job(shell).bytes_done == GATE)
        gate.opened.set()
        rest = ended(watcher, 0).err
    events = events_of("".join(first) + rest)
    assert arrived(shell)
    assert {event["job"] for event in events} == {name}
    kinds = [(event["event"], event["status"]) for event in events]
    assert kinds[:2] == [("planned", "running"), ("started", "running")]
    assert ("progress", "file-finished") in kinds
    assert kinds[-1] == ("finished", "finished")
    started_file = events[1]
    assert (started_file["file"], started_file["file_index"], started_file["file_count"]) == ("f.bin", 1, 1)
    assert (started_file["repo"], started_file["kind"]) == (f"{server.url}/f", "model")
    assert started_file["time"] <= the_job(shell).finished_at  # type: ignore[operator]
    live = [event for event in events if event["status"] == "running" and event["event"] == "progress"]
    assert {event["bytes_total"] for event in live} == {len(DATA)}
    assert {event["file_total"] for event in live if event["file"]} <= {len(DATA)}  # one may come before the file
    assert max(event["bytes_done"] for event in live) >= GATE


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("pause", 75, ("paused", "hint: ")),
        ("cancel", 143, ("terminated", "hint: ")),
        ("kill", 1, ("mdl: {job}: dead", "mdl jobs resume {job}")),
    ],
)
def test_it_ends_as_the_job_does(
    shell: Shell, gate: Gate, run: Run, how: str, code: int, words: tuple[str, ...]
) -> None:
    """A job that is paused or cancelled ends its watcher with the same code, which says why and what to do; after
    SIGKILL it says that the job is dead and how to go on, and ends with 1."""
    with started(shell, "get", "one") as process:
        job = waits(shell, gate)
        with started(shell, "jobs", "watch", job.id[-4:], "--progress", "lines") as watcher:
            line_with(watcher, "plan: ")
            if how == "kill":
                process.kill()
            else:
                run(f"jobs {how} {job.id}")
                ended(process, code)
            said = ended(watcher, code).err
    assert [word for word in words if word.format(job=job.id) not in said] == [], said


def test_ctrl_c_ends_only_the_watcher(shell: Shell, gate: Gate) -> None:
    """SIGINT is 130 for the watcher, which says so; the job goes on to its end."""
    name = done(shell.run("get", "one", "--detach")).out.strip()
    waits(shell, gate)
    with started(shell, "jobs", "watch", name) as watcher:
        line_with(watcher, "plan: ")
        watcher.send_signal(signal.SIGINT)
        said = ended(watcher, 130).err
    assert (f"the job continues; 'mdl jobs cancel {name}'" in said, "cancelled" in said) == (True, False)
    assert the_job(shell).status == "running"
    gate.opened.set()
    until(lambda: the_job(shell).status == "done")


def test_one_that_is_over(shell: Shell, server: FaultyServer, gate: Gate, run: Run) -> None:
    """Of a job that is over the end is told at once: its words and its code, and nothing of what came before."""
    server.handler = answers(404, body=b"moved to the moon")
    run("get one", 3)
    failed = the_job(shell).id
    told = run(f"jobs watch {failed}", 3)
    assert ("mdl: one/f.bin: " in told.err, "moved to the moon" in told.err, "started" in told.err) == (
        True,
        True,
        False,
    )
    document = run(f"jobs watch {failed} --json", 3).document
    assert (document["error"]["code"], document["jobs"][0]["status"]) == ("NOTFOUND", "failed")
    gate.opened.set()
    server.handler = gate
    run("get one")
    assert run("jobs watch").err == f"{the_job(shell).id}: done, {len(DATA) / 1e6:.1f} MB\n"
    [event] = run("jobs watch --progress json").events
    assert (event["event"], event["job"], event["error"]) == ("finished", the_job(shell).id, None)


def test_without_a_log_the_record_is_enough(shell: Shell, gate: Gate) -> None:
    """A job that keeps no log is followed by its record: plan, progress of the whole and of its file, end."""
    asked = with_environ(shell, MDL_LOG_FILE="")
    with started(asked, "get", "one") as process:
        gate.wait()
        until(lambda: the_job(shell).bytes_done == GATE)
        with started(shell, "jobs", "watch", "--progress", "json") as watcher:
            first = line_with(watcher, '"planned"') + line_with(watcher, '"progress"')
            gate.opened.set()
            ended(process, 0)
            events = events_of(first + ended(watcher, 0).err)
    assert [events[0]["event"], events[-1]["event"]] == ["planned", "finished"]
    assert {(event["file"], event["bytes_done"]) for event in events[1:2]} == {("f.bin", GATE)}


def test_a_resumed_job_is_followed_from_its_resumption(shell: Shell, gate: Gate, run: Run) -> None:
    """What an earlier run of the same job told is not told again."""
    with started(shell, "get", "one") as process:
        job = waits(shell, gate)
        run(f"jobs pause {job.id}")
        ended(process, 75)
    done(shell.run("jobs", "resume", job.id, "--detach"))
    with started(shell, "jobs", "watch", job.id, "--progress", "json") as watcher:
        first = line_with(watcher, '"started"')
        gate.opened.set()
        events = events_of(first + ended(watcher, 0).err)
    assert [event["event"] for event in events].count("started") == 1
    assert events[0]["file_bytes"] > 0, "it does not begin with the resumed file"


def test_there_is_none(shell: Shell, run: Run) -> None:
    """Without any job, and for an id that none has: 3."""
    assert "there is no job" in run("jobs watch", 3).err
    assert "no such job" in run("jobs watch 0101-zzzz", 3).err
    assert json.loads(run("jobs watch --json", 3).out)["jobs"] == []
    assert not (state_of(shell) / "jobs").exists() or not os.listdir(state_of(shell) / "jobs")
