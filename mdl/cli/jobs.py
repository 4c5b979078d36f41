"""jobs: what runs and ran; pausing, resuming, limiting and cancelling, from any terminal."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated

from mdl import Busy, MdlError, Settings, StateError, UsageError
from mdl.cli.command import all_or_nothing, command
from mdl.cli.flags import Common, argument, bare_flag, flag
from mdl.cli.session import Session, is_recorded, typed, with_flags
from mdl.config import places
from mdl.config.settings import parse_choice
from mdl.disk.process import ProcessId, python_command, users_core_limit
from mdl.errors import EXIT_CODES, Cancelled, storage_error
from mdl.formatting import counted, human_bytes, human_duration, human_rate, if_known, local_moment, local_time
from mdl.jobs import processes
from mdl.jobs.job import (
    ENDED,
    JOB_VARIABLE,
    Job,
    fails_again,
    finishers,
    readable_item,
    resume_command,
    shown_facts,
    what_was_typed,
)
from mdl.jobs.log import raw_lines, readable
from mdl.jobs.records import Records
from mdl.jobs.watch import follow, log_lines, problem_of
from mdl.paths import shown
from mdl.units import parse_duration
from mdl.values import value_class

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""The heads of the columns, and the lines."""
_WIDE = 100
"""Columns of a terminal that has room for whole dates and sizes."""
_PLAIN = ("ID", "STATUS", "DONE", "OF", "SPEED", "LEFT", "STARTED", "WHAT", "TOOK", "REASON")
_DRAWN = ("ID", "STATUS", "DONE", "BEGAN", "TOOK", "WHAT", "DETAILS")
CUT = ("DETAILS", "WHAT")
"""The columns that are cut on a narrow terminal."""
DROPPED = ("TOOK", "BEGAN", "DETAILS")
"""The columns that are left out if that is not enough, in this order."""


@value_class
class Row:
    """A job of the table. ``stalled`` says why it makes no progress, if it runs; ``finished_by`` is the id of the
    later job that finished what this one did not."""

    job: Job
    stalled: str = ""
    finished_by: str = ""

    @property
    def status(self) -> str:
        return "stalled" if self.stalled else self.job.status

    @property
    def what(self) -> str:
        return shown(what_was_typed(self.job))

    @property
    def total(self) -> int | None:
        """All its bytes; None if that is not known. A job that is done had no more than it has."""
        job = self.job
        return job.bytes_done if job.bytes_total is None and job.status == "done" else job.bytes_total

    @property
    def reason(self) -> str:
        """Why it is not done: the name of its exit code, and its error; or which job has done it since."""
        if self.stalled:
            return self.stalled
        if self.finished_by:
            return f"{self.finished_by} finished it"
        if self.job.status == "dead":
            return "its process ended"
        parts = []
        if self.job.status == "failed":
            name, *_ = EXIT_CODES.get(self.job.exit_code or 0, ("",))
            parts.append(name.replace("-", " "))
        parts.append((self.job.error or {}).get("message") or "")
        reason = ": ".join(part for part in parts if part and part != self.job.status)
        return shown(reason.replace("\n", " "))

    @property
    def details(self) -> str:
        """Its speed, or why it is not done."""
        job = self.job
        if job.bytes_per_second is None or self.stalled:
            return self.reason
        left = if_known(job.eta_seconds, lambda seconds: f", {human_duration(seconds)} left")
        return human_rate(job.bytes_per_second) + left

    def took(self, now: datetime) -> str:
        """From its start to its end, or until now; "-" if nobody knows when it ended."""
        end = now if self.job.status == "running" else local_moment(self.job.finished_at or "")
        start = local_moment(self.job.started_at)
        if start is None or end is None:
            return "-"
        return human_duration((end - start).total_seconds())


def plain_table(rows: Sequence[Row], now: datetime) -> Table:
    """Head and lines for a pipe: all of it, nothing cut."""
    lines = []
    for row in rows:
        job = row.job
        lines.append(
            (
                job.id,
                row.status,
                human_bytes(job.bytes_done),
                human_bytes(row.total),
                if_known(job.bytes_per_second, human_rate),
                if_known(job.eta_seconds, human_duration),
                local_time(job.started_at),
                row.what,
                row.took(now),
                row.reason,
            )
        )
    return _PLAIN, lines


def drawn_table(rows: Sequence[Row], now: datetime, width: int) -> Table:
    """Head and lines for a terminal of ``width`` columns, of which `CUT` and `DROPPED` give room."""
    is_wide = width >= _WIDE
    lines = []
    for row in rows:
        job = row.job
        if is_wide:
            done = f"{human_bytes(job.bytes_done)} of {human_bytes(row.total)}"
        elif job.percent is None:
            done = human_bytes(job.bytes_done)
        else:
            done = f"{int(job.percent)} %"
        began = local_time(job.started_at, now, is_short=not is_wide)
        what = row.what if is_wide else row.what.removeprefix("get ")
        lines.append((job.id, row.status, done, began, row.took(now), what, row.details))
    return _DRAWN, lines


def total_line(rows: Sequence[Row]) -> str:
    """``5 jobs: 1 running, 2 paused, 2 done``."""
    statuses = Counter(row.status for row in rows)
    counts = ", ".join(f"{count:,} {status}" for status, count in statuses.items())
    return f"{counted(len(rows), 'job')}: {counts}"


_LATEST = 20
"""How many of the jobs that are over are listed without ``--all``."""

_STATUSES = ("running", "paused", "done", "failed", "cancelled", "dead")
_A_PART = "The job: any unique part of its id."
Id = Annotated[str, argument("ID", _A_PART)]
IdOrLast = Annotated[str | None, argument("ID", f"{_A_PART} Without one, the newest job.")]
Ids = Annotated[list[str], argument("ID", "The jobs: any unique parts of their ids.")]


def _records(session: Session) -> Records:
    return Records(places.state_dir() / "jobs", lambda path, why: session.console.warn(f"{path}: {why}"))


@command(
    "jobs",
    "mdl jobs  # what runs, and what ran",
    "mdl jobs watch k7f3  # follow one to its end",
    "mdl jobs pause k7f3  # stop it; mdl jobs resume k7f3 continues it",
    group_help="List, watch, pause, resume or cancel running and past downloads.",
)
@command(
    "jobs list",
    "mdl jobs list  # all that can continue, and the last ones that ended",
    "mdl jobs list --status failed --all  # every one that failed",
)
def list_jobs(
    session: Session,
    status: Annotated[list[str] | None, flag(f"--status {'|'.join(_STATUSES)}", "Only these; repeatable.")] = None,
    everything: Annotated[bool, flag("-a --all", "Also old ones that have ended.")] = False,
) -> int:
    """List the jobs, the newest first.

    The list has every job that can continue, and the last ones that ended; --json has all.
    """
    for wanted in status or ():
        parse_choice(_STATUSES, wanted, "--status")
    records = _records(session)
    all_jobs = records.all()
    jobs = [job for job in all_jobs if not status or job.status in status]
    if session.common.json:
        return _document(session, jobs)
    if not jobs:
        session.console.note("no jobs")
        return 0
    finished_by = {name: later.id for name, later in finishers(all_jobs).items()}
    rows = []
    over = 0
    for job in jobs:
        if job.status in ENDED or job.id in finished_by:
            over += 1
            if over > _LATEST and not everything:
                continue
        rows.append(Row(job, _stalled(job, records), finished_by.get(job.id, "")))
    hidden_jobs = len(jobs) - len(rows)
    now = datetime.now().astimezone()
    stdout = session.console.stdout
    if stdout.can_move_cursor:
        head, lines = drawn_table(rows, now, stdout.size[0])
    else:
        head, lines = plain_table(rows, now)
    session.console.table(head, lines, cut=CUT, drop=DROPPED)
    if hidden_jobs:
        older = f"{counted(hidden_jobs, 'older job')} not shown: --all"
        session.console.note(f"{total_line(rows)}; {older}")
    elif len(rows) > 1:
        session.console.note(total_line(rows))
    return 0


def _stalled(job: Job, records: Records) -> str:
    return records.why_stalled(job) if job.status == "running" else ""


def _job(records: Records, name: str | None) -> Job:
    return records.find(name) if name else records.newest()


@command(
    "jobs show",
    "mdl jobs show k7f3  # how far it is, and why it failed",
    "mdl jobs show k7f3 --json  # for a script",
)
def show_job(session: Session, name: IdOrLast = None) -> int:
    """Show one job: progress, speed, what went wrong, its log."""
    records = _records(session)
    job = _job(records, name)
    if session.common.json:
        return _document(session, [job])
    session.console.entries(_facts(job, _stalled(job, records)))
    return 0


def _facts(job: Job, stalled: str) -> dict[str, str | None]:
    """Return the facts of a job as they are shown; an empty one is not."""
    error = dict(job.error or {})
    item = readable_item(job, error.get("item") or "")
    return {
        "job": job.id,
        "command": typed(job.again.words),
        "status": _status(job),
        "stalled": stalled,
        "kind": job.kind,
        "source": job.repo,
        "bytes": f"{human_bytes(job.bytes_done)} of {human_bytes(Row(job).total)}"
        + if_known(job.percent, lambda percent: f" ({int(percent)} %)"),
        "speed": if_known(job.bytes_per_second, human_rate),
        "left": if_known(job.eta_seconds, human_duration),
        "file": readable_item(job, job.file or ""),
        "started": local_time(job.started_at),
        "finished": if_known(job.finished_at, local_time),
        "exit code": if_known(job.exit_code, str),
        "error": ": ".join(part for part in (item, error.get("message")) if part),
        "hint": error.get("hint"),
        "log": job.log or "none was kept",
        "next": _next(job),
    }


def _status(job: Job) -> str:
    if job.status == "running":
        return f"running, process {ProcessId(job.owner).pid} on {job.host}"
    if job.status == "dead":
        return "dead: its process ended without saying why"
    return job.status


def _next(job: Job) -> str:
    """Say what continues the job."""
    if job.status in ("done", "running") or fails_again(job):
        return ""
    if job.again.withheld:
        return "the command again, with the secret that it held: mdl does not keep it"
    return resume_command(job) or "the command again"


@command(
    "jobs log",
    "mdl jobs log k7f3  # all of it",
    "mdl jobs log -f k7f3  # follow it until the job ends",
)
def log_of_job(
    session: Session,
    name: IdOrLast = None,
    follow: Annotated[bool, flag("-f --follow", "Follow it until the job ends.")] = False,
    raw: Annotated[bool, bare_flag("--raw", "The lines as in downloads.log, for a program.", panel="Output")] = False,
) -> int:
    """Print the log of one job."""
    records = _records(session)
    job = _job(records, name)
    if session.common.json:
        return _document(session, [job])
    lines = log_lines(job, records, session.cancel.wait if follow else None)
    if raw:
        for text in raw_lines(lines, job.id, job.command):
            session.console.data(shown(text))
        return 0
    for head, text in readable(lines):
        session.console.entry(head, shown(text))
    return 0


@command(
    "jobs watch",
    "mdl jobs watch  # the newest job",
    "mdl jobs watch k7f3 --progress json  # for a program",
)
def watch(session: Session, name: IdOrLast = None) -> int:
    """Follow a job until it ends, and end with its exit code. Ctrl-C ends only the watching."""
    records = _records(session)
    job = _job(records, name)
    left = f"the job continues; 'mdl jobs cancel {job.id}' ends it"
    with session.console.watch(job.id, job.method) as tell, all_or_nothing(left):
        try:
            job = follow(job, records, tell, session.cancel.wait)
        except Cancelled as stopped:
            tell.leave(stopped)
            raise
    problem = problem_of(job)
    if problem:
        session.console.error(problem)
    else:
        session.console.note(f"{job.id}: {job.status}, {human_bytes(job.bytes_done)}")
    return session.show({"jobs": [shown_facts(job)]}, error=problem)


@command(
    "jobs pause",
    "mdl jobs pause k7f3  # what was fetched is kept",
    "mdl jobs pause k7f3 p2m9  # several",
)
def pause(session: Session, names: Ids) -> int:
    """Stop running jobs until 'resume'. What was fetched is kept."""
    return _each(session, names, processes.pause)


@command(
    "jobs cancel",
    "mdl jobs cancel k7f3  # one",
    "mdl jobs cancel k7f3 p2m9  # several",
)
def cancel(session: Session, names: Ids) -> int:
    """Stop jobs. What was fetched is kept; a new get, or resume, continues from it."""
    return _each(session, names, processes.cancel)


def _each(session: Session, names: list[str], change: Callable[[Job, Records], Job]) -> int:
    """Change each job; an error of one does not stop the others."""
    records = _records(session)
    jobs: list[Job] = []
    errors: list[MdlError] = []
    for name in names:
        try:
            jobs.append(change(records.find(name), records))
            session.console.note(f"{jobs[-1].id}: {jobs[-1].status}")
        except MdlError as error:
            errors.append(error)
    return session.show({"jobs": [shown_facts(job) for job in jobs]}, error=session.errors(errors))


ResumeSettings = Annotated[Settings, ("limit_rate", "connections", "max_duration", "window")]


@command(
    "jobs resume",
    "mdl jobs resume  # the last that was interrupted",
    "mdl jobs resume k7f3 --detach  # in the background",
    "mdl jobs resume k7f3 --limit-rate 5M  # more slowly",
)
def resume(
    session: Session,
    settings: ResumeSettings,
    name: Annotated[
        str | None,
        argument("ID", f"{_A_PART} Without one, the last that was interrupted: paused, stopped or killed."),
    ] = None,
    detach: Annotated[bool, flag("--detach", "Continue in the background.", panel="Afterwards")] = False,
) -> int:
    """Continue a job in the foreground. It is the same command again, in its folder."""
    records = _records(session)
    job = records.find(name) if name else records.newest_to_resume()
    _check_resumable(job)
    given = {key: value for key, value in settings.items() if value is not None}
    for key in given:
        session.config_of(settings).find(key)  # a wrong value is refused before the job is begun
    if not name:
        session.console.note(f"resuming {job.id}: {shown(what_was_typed(job))}")
    try:
        os.chdir(job.again.folder)
    except OSError as error:
        raise storage_error(error, job.again.folder) from error
    todays = {name: value for name, value in os.environ.items() if not is_recorded(name)}
    environ = {**todays, **job.again.variables, JOB_VARIABLE: f"{job.id} {job.stamp}"}
    words = list(job.again.words)
    at = words.index("--") if "--" in words else len(words)
    words[at:at] = [f"--{key.replace('_', '-')}={value}" for key, value in given.items()]  # the later flag wins
    flags = _common_flags(session.common)
    if detach:
        flags.append("--detach")
    command = [*python_command(), *with_flags(words, flags)]
    with users_core_limit():
        os.execve(command[0], command, environ)


def _check_resumable(job: Job) -> None:
    """Raises `Busy`, `UsageError` or `StateError` if the job cannot be resumed."""
    if job.status == "running":
        why = f"it is running, as process {ProcessId(job.owner).pid}"
        raise Busy(why, item=job.id, hint=f"mdl jobs log -f {job.id}")
    if job.status == "done":
        raise UsageError("there is nothing to resume: its status is done", item=job.id)
    if job.again.withheld:
        hint = "run the complete command again with it; what was fetched is kept"
        raise UsageError("its address held a secret, which mdl does not keep", item=job.id, hint=hint)
    if not job.again.words:
        raise StateError("its record does not say how it was called", item=job.id, hint="run the command again")


def _common_flags(common: Common) -> list[str]:
    """How this command is to be shown, as flags of the one that takes its place."""
    flags = ["--verbose"] * common.verbose
    if common.progress:
        flags.append(f"--progress={common.progress}")
    for name in ("json", "quiet", "no_color", "yes"):
        if getattr(common, name):
            flags.append(f"--{name.replace('_', '-')}")
    return flags


@command(
    "jobs clean",
    "mdl jobs clean  # those that ended more than 30 days ago",
    "mdl jobs clean --older-than 0s  # all that have ended",
)
def clean(
    session: Session,
    older_than: Annotated[str, flag("--older-than TIME", "Only jobs that ended at least this long ago.")] = "30d",
) -> int:
    """Remove the records and logs of old jobs.

    Jobs that ended or died are removed. Paused jobs stay, and so does every model.
    """
    records = _records(session)
    removed = records.clean(parse_duration(older_than, "--older-than", least=0))
    if session.common.json:
        return _document(session, removed)
    text = f"no job ended more than {older_than} ago"
    if removed:
        text = f"removed {counted(len(removed), 'job')}"
    left = records.all()
    text += f"; {len(left)} {'stays' if len(left) == 1 else 'stay'}"
    paused = sum(job.status == "paused" for job in left)
    if paused:
        text += f", {paused} of them paused"
    session.console.note(text)
    return 0


def _document(session: Session, jobs: list[Job]) -> int:
    return session.show({"jobs": [shown_facts(job) for job in jobs]})
