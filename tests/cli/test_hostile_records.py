"""Jobs' records as hostile input: whatever they hold, mdl shows only harmless words, and does nothing unsafe."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.jobs import file_of, records_of
from support.partials import dead_owner
from support.shell import ExitCode, Shell, machine
from support.terminal import EVIL, NAME, Told, all_harmless

from mdl.disk.process import hostname
from mdl.jobs.job import Invocation, Job


def tampered(shell: Shell, status: str) -> None:
    """A record with a hostile text in every field, under a hostile name."""
    again = Invocation((EVIL, EVIL), EVIL, {EVIL: EVIL})
    error = {"code": EVIL, "message": EVIL, "hint": EVIL, "item": EVIL}
    facts = {"file": EVIL, "finished_at": EVIL, "exit_code": 1, "error": error, "log": EVIL, "status": status}
    job = Job(NAME, EVIL, (EVIL,), EVIL, EVIL, again, EVIL, **facts)  # type: ignore[arg-type]
    records_of(shell).folder.mkdir(parents=True)
    (records_of(shell).folder / f"{NAME}.job").write_bytes(file_of(job))


@pytest.mark.parametrize(
    ("status", "commands"),
    [(EVIL, "list -a,show a,resume a"), ("running", "show a,pause a,cancel a,clean --older-than 0")],
)
def test_records_of_jobs(told: Told, tmp_path: Path, status: str, commands: str) -> None:
    """A job's record may hold anything, and may be called anything."""
    shell = machine(tmp_path)
    tampered(shell, status)
    all_harmless(told, shell, *(f"jobs {words}" for words in commands.split(",")))


def test_a_damaged_record_is_named(told: Told, tmp_path: Path) -> None:
    """A file that is no record at all is named by its path."""
    shell = machine(tmp_path)
    records_of(shell).folder.mkdir(parents=True)
    (records_of(shell).folder / f"{NAME}.job").write_bytes(b"none")
    all_harmless(told, shell, "jobs list", "jobs show a")


def test_a_log_that_others_wrote_to(told: Told, tmp_path: Path) -> None:
    """The log of a job, into which a hook of a detached job may have written, is shown as it may be shown."""
    shell = machine(tmp_path)
    tampered(shell, "done")
    [place] = records_of(shell).folder.iterdir()
    place.write_bytes(file_of(replace(records_of(shell).all()[0], log=str(place))) + f"{EVIL}\n{EVIL}\n".encode())
    all_harmless(told, shell, "jobs log a")


def recorded(home: Path, **facts: Any) -> Shell:
    """A machine whose one record, of a job that can go on, says otherwise in some facts."""
    shell = machine(home)
    usual = {"again": Invocation(("get", "--", "one"), str(home)), "started_at": "2026-01-01T00:00:00.000Z"}
    job = Job("a", "get", ("one",), dead_owner(), hostname(), status="paused", **usual)  # type: ignore[arg-type]
    records_of(shell).folder.mkdir(parents=True)
    (records_of(shell).folder / "a.job").write_bytes(file_of(job, **facts))
    return shell


STRANGE: dict[str, dict[str, Any]] = {
    "bytes are words": {"bytes_done": "x", "bytes_total": [1]},
    "a moment is a number": {"started_at": 5},
    "an error is a word": {"error": "text"},
    "the status is a number": {"status": 5},
    "the owner is a number": {"status": "running", "owner": 5},
    "a log is a number": {"log": 5},
}


@pytest.mark.parametrize("facts", STRANGE.values(), ids=STRANGE)
def test_facts_of_another_type(exit_code: ExitCode, tmp_path: Path, facts: dict[str, Any]) -> None:
    """A record whose facts have another type is damaged, and hides no other job: never a fault of mdl's own."""
    shell = recorded(tmp_path, **facts)
    codes = [exit_code(shell, "jobs", *words) for words in (("list",), ("show", "a"), ("log", "a"))]
    assert set(codes) <= {0, 3, 12}


@pytest.mark.fault(152)
def test_an_id_that_climbs(exit_code: ExitCode, tmp_path: Path) -> None:
    """A record whose id is a path is written back only to where it was read."""
    shell = recorded(tmp_path / "home", id="../../../../../x")
    exit_code(shell, "jobs", "cancel", "a")
    assert [path.name for path in tmp_path.rglob("*.job")] == ["a.job"]


RESUMED = {"words": ["get", "a\0b"]}, {"words": []}


@pytest.mark.parametrize("again", RESUMED, ids=["NUL", "no words"])
def test_what_cannot_be_done_again(exit_code: ExitCode, tmp_path: Path, again: dict[str, Any]) -> None:
    """A record that no process can be made of is refused with a word, not as a fault of mdl's own."""
    whole = {"words": ["get"], "folder": str(tmp_path), "variables": {}, "withheld": False}
    assert exit_code(recorded(tmp_path, again=whole | again), "jobs", "resume", "a") in (2, 3, 7, 11, 12)


@pytest.mark.fault(157)
def test_a_record_of_another_user(exit_code: ExitCode, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What another user put among the records is no job of this one's, and is never done again."""
    if os.geteuid():
        pytest.skip("ONLY ROOT CAN GIVE FILES AWAY: no record of another user was tried")
    shell = recorded(tmp_path)
    os.chown(records_of(shell).folder / "a.job", 12345, -1)
    assert exit_code(shell, "jobs", "list") == 0
    assert "another user" in capfd.readouterr().err
    assert exit_code(shell, "jobs", "resume", "a") == 12


@pytest.mark.fault(157)
def test_a_state_folder_open_to_all(exit_code: ExitCode, tmp_path: Path) -> None:
    """A folder of records that everybody could write is shut when it is next used."""
    shell = recorded(tmp_path)
    folder = records_of(shell).folder
    folder.chmod(0o777)
    exit_code(shell, "get", "hf:org/m", "--retries", "1")
    assert folder.stat().st_mode & 0o777 == 0o700
