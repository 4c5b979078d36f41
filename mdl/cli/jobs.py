"""jobs: what runs and ran; pausing, going on, cancelling, from any terminal."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mdl import places
from mdl.cli.command import command, group
from mdl.cli.flags import Common
from mdl.cli.session import Session
from mdl.errors import Busy, MdlError, NotFound, StateError, UsageError, joint_error, storage_error
from mdl.formatting import human_bytes, human_duration, human_rate
from mdl.fs.private import open_regular
from mdl.jobs import control
from mdl.jobs.job import Job, resume_command, shown_facts
from mdl.jobs.records import Records
from mdl.jobs.run import JOB_VARIABLE
from mdl.paths import shown
from mdl.process import ProcessId
from mdl.units import parse_duration

_LOOK = 0.2
_WIDE = 100
"""Columns of a terminal that has room for whole dates."""
_LONGEST_LINE = 2**16
_LATEST = 20
"""How many of those that are over are shown unasked."""


class Status(StrEnum):
    running = "running"
    paused = "paused"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"
    dead = "dead"


Id = Annotated[str, typer.Argument(metavar="ID", help="The job, or how its id begins.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID", help="The jobs, or how their ids begin.")]


def register(app: typer.Typer) -> None:
    own = group(app, "jobs", list_jobs, "Downloads that run or ran: list, show, log, pause, resume, cancel, clean.")
    for name, body in (
        ("list", list_jobs),
        ("show", show_job),
        ("log", log_of_job),
        ("pause", pause),
        ("resume", resume),
        ("cancel", cancel),
        ("clean", clean),
    ):
        command(own, name, of="jobs")(body)


def _records(session: Session) -> Records:
    def damaged(path: Path, why: str) -> None:
        session.console.warn(f"{path}: {why}")

    return Records(places.state_dir() / "jobs", damaged)


def list_jobs(
    session: Session,
    status: Annotated[list[Status] | None, typer.Option("--status", help="Only these, repeatable.")] = None,
    everything: Annotated[bool, typer.Option("-a", "--all", help="Also the old ones that are over.")] = False,
) -> int:
    """The jobs, the newest first: all that can go on, and the last that are over. With --json every one."""
    wants_all = everything or session.common.json
    jobs, older = _records(session).latest(sys.maxsize if wants_all else _LATEST, status or ())
    if session.common.json:
        return _document(session, jobs)
    if not jobs:
        session.console.note("no jobs")
        return 0
    streams = session.console.streams
    is_narrow = streams.stdout.is_terminal and streams.size(streams.stdout)[0] < _WIDE
    rows = [_row(job, _shortly if is_narrow else _local) for job in jobs]
    session.console.table(("ID", "STATUS", "DONE", "OF", "SPEED", "LEFT", "STARTED", "WHAT"), rows)
    if older:
        session.console.note(f"{older} older ones are over: --all")
    return 0


def _row(job: Job, started: Callable[[str], str]) -> tuple[str, ...]:
    return (
        job.id,
        job.status,
        human_bytes(job.bytes_done),
        "?" if job.bytes_total is None else human_bytes(job.bytes_total),
        human_rate(job.bytes_per_second) if job.bytes_per_second is not None else "-",
        human_duration(job.eta_seconds) if job.eta_seconds is not None else "-",
        started(job.started_at),
        shown(" ".join((job.command, *job.models))),
    )


def _local(moment: str) -> str:
    """A moment of a record, which is in UTC, by the clock on the wall here."""
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return "?"


def _shortly(moment: str) -> str:
    """The same in five columns, as ``ps`` has it: the hour of today, the day of this year, else the year."""
    try:
        when, today = datetime.fromisoformat(moment).astimezone(), datetime.now().astimezone()
    except ValueError:
        return "?"
    if when.date() == today.date():
        return when.strftime("%H:%M")
    return when.strftime("%m-%d" if when.year == today.year else "%Y")


def show_job(session: Session, name: Id) -> int:
    """One job: how far it is, how fast, what went wrong, where its log is."""
    job = _records(session).find(name)
    if session.common.json:
        return _document(session, [job])
    for key, value in _facts(job):
        if value:
            session.console.data(f"{key + ':':<10} {shown(value)}")
    return 0


def _facts(job: Job) -> list[tuple[str, str]]:
    total = "?" if job.bytes_total is None else human_bytes(job.bytes_total)
    error = job.error or {}
    running = job.status == "running"
    return [
        ("job", job.id),
        ("command", _typed(job)),
        ("status", f"{job.status}, process {ProcessId(job.owner).pid} on {job.host}" if running else job.status),
        ("bytes", f"{human_bytes(job.bytes_done)} of {total}"),
        ("speed", human_rate(job.bytes_per_second) if job.bytes_per_second is not None else ""),
        ("left", human_duration(job.eta_seconds) if job.eta_seconds is not None else ""),
        ("file", job.file or ""),
        ("started", _local(job.started_at)),
        ("finished", _local(job.finished_at) if job.finished_at else ""),
        ("exit code", "" if job.exit_code is None else str(job.exit_code)),
        ("error", ": ".join(filter(None, (error.get("item"), error.get("message"))))),
        ("hint", error.get("hint") or ""),
        ("log", job.log or "none was kept"),
        ("next", _next(job)),
    ]


def _typed(job: Job) -> str:
    """The command as a shell would take it again."""
    at = job.again.words.index("--") if "--" in job.again.words else len(job.again.words)
    before, after = job.again.words[:at], job.again.words[at:]
    needs_mark = any(word.startswith("-") for word in after[1:])
    return shlex.join((*before, *(after if needs_mark else after[1:])))


def _next(job: Job) -> str:
    if job.status in ("done", "running"):
        return ""
    if job.again.withheld:
        return "the command again, with the secret that it held: mdl does not keep it"
    return resume_command(job) or "the command again"


def log_of_job(
    session: Session,
    name: Id,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job ends.")] = False,
) -> int:
    """The log of one job."""
    records = _records(session)
    job = records.find(name)
    if session.common.json:
        return _document(session, [job])
    if job.log is None or not Path(job.log).exists():
        raise NotFound("no log was kept of it", item=job.id, hint="is MDL_LOG_FILE set to nothing?")
    try:
        fd = open_regular(Path(job.log))
    except OSError as error:
        raise storage_error(error, job.log) from error
    with os.fdopen(fd, encoding="utf-8", errors="replace") as log:
        while True:
            ended = job.status != "running"
            while line := log.readline(_LONGEST_LINE):
                session.console.data(shown(line.rstrip("\n")))
            if ended or not follow:
                return 0
            time.sleep(_LOOK)
            job = records.find(job.id)


def pause(session: Session, names: Ids) -> int:
    """Stop running jobs so that 'resume' goes on with them; what is there is kept."""
    return _each(session, names, control.pause)


def cancel(session: Session, names: Ids) -> int:
    """Stop jobs for good; what is there is kept, and a new get goes on with it."""
    return _each(session, names, control.cancel)


def _each(session: Session, names: list[str], change: Callable[[Job, Records], Job]) -> int:
    """Each job by itself; one that fails hinders no other."""
    records = _records(session)
    is_lines = session.console.progress == "json"
    jobs: list[Job] = []
    errors: list[MdlError] = []
    for name in names:
        try:
            jobs.append(change(records.find(name), records))
            session.console.note(f"{jobs[-1].id}: {jobs[-1].status}")
        except MdlError as error:
            errors.append(error)
            if not is_lines:
                session.console.error(error)
    problem = joint_error(errors)
    code = problem.exit_code if problem else 0
    if problem and is_lines:
        session.console.error(problem)
    if session.common.json:
        facts = {"jobs": [shown_facts(job) for job in jobs]}
        session.console.document("jobs", facts, ok=not code, exit_code=code, error=problem)
    return code


def resume(
    session: Session,
    name: Id,
    detach: Annotated[bool, typer.Option("--detach", help="Go on in the background.")] = False,
) -> int:
    """Go on with a job: the same command again, in its folder, here in the foreground."""
    job = _records(session).find(name)
    if job.status == "running":
        why = f"it is running, as process {ProcessId(job.owner).pid}"
        raise Busy(why, item=job.id, hint=f"mdl jobs log -f {job.id}")
    if job.status == "done":
        raise UsageError("it is done: there is nothing to go on with", item=job.id)
    if job.again.withheld:
        hint = "run the whole command again with it; what is there is kept"
        raise UsageError("its address held a secret, which mdl does not keep", item=job.id, hint=hint)
    if not job.again.words:
        raise StateError("its record does not say how it was called", item=job.id, hint="run the command again")
    try:
        os.chdir(job.again.folder)
    except OSError as error:
        raise storage_error(error, job.again.folder) from error
    environ = {**os.environ, **job.again.variables, JOB_VARIABLE: job.id}
    command, *words = job.again.words
    again = [command, *_as_now(session.common), *(["--detach"] if detach else []), *words]
    os.execve(sys.executable, [sys.executable, "-P", "-m", "mdl", *again], environ)


def _as_now(common: Common) -> list[str]:
    """How this command was to be shown, for the one that takes its place."""
    shown_so = [f"--progress={common.progress.value}"] if common.progress else []
    said = (("--json", common.json), ("--quiet", common.quiet), ("--no-color", common.no_color), ("--yes", common.yes))
    return [*shown_so, *(flag for flag, is_set in said if is_set), *["--verbose"] * common.verbose]


def clean(
    session: Session,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="TIME", help="How long they have been over.")
    ] = "30d",
) -> int:
    """Remove the records and logs of jobs that are over or died; what is paused stays, and so does every model."""
    removed = _records(session).clean(parse_duration(older_than, "--older-than", least=0))
    if session.common.json:
        return _document(session, removed)
    session.console.note(f"removed {len(removed)} of the jobs")
    return 0


def _document(session: Session, jobs: list[Job]) -> int:
    session.console.document("jobs", {"jobs": [shown_facts(job) for job in jobs]}, ok=True, exit_code=0)
    return 0
