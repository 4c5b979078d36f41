"""Watch: another process follows a job, by the lines that come into its file."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mdl.bounds import LARGEST_DOCUMENT
from mdl.describe import ended_by
from mdl.disk.own_files import open_own_regular
from mdl.errors import Cancelled, MdlError, NotFound, Problem, Unsafe
from mdl.events import Ended, Listener, Planned, Progressed
from mdl.jobs.job import STATE, Job, event_in, facts_in, resume_command
from mdl.jobs.records import Records

_POLL_SECONDS = 0.25


def follow(job: Job, records: Records, on_event: Listener, wait: Callable[[float], None]) -> Job:
    """Report the events of a running job, from the beginning of this run of it, until it is over; then its `Ended`.

    Of a job that is over only the end is reported. ``wait`` sleeps for the seconds that it is given, and may raise
    `Cancelled`. Returns the job as it is in the end. Raises `NotFound` if its file was removed meanwhile, `StateError`.
    """
    if job.status == "running":
        with contextlib.closing(JobLines(records.path(job.id))) as lines:
            follower = _Follower(on_event)
            follower.take(_of_this_run(lines.new()), job)
            while job.status == "running":
                wait(_POLL_SECONDS)
                job = records.find(job.id)
                follower.take(lines.new(), job)
    problem = problem_of(job)
    on_event(ended_by(problem) if problem else Ended())
    return job


def problem_of(job: Job) -> Problem | None:
    """How a job that is over ended, as the error that it ended with; None if it is done.

    The process of a dead job has ended without a word: that counts as a fault of mdl, 1.
    """
    if job.status == "done":
        return None
    if job.status == "dead":
        reason = "dead: its process ended without saying why"
        hint = resume_command(job) or "run its command again; what was fetched is kept"
        return MdlError(reason, item=job.id, hint=hint)
    problem: Problem = Cancelled(job.status, terminated=True)
    if job.status == "failed":
        problem = MdlError(job.status)
    facts: dict[str, Any] = {"item": job.id, "hint": resume_command(job), "exit_code": job.exit_code}
    for name in ("code", "message", "item", "hint"):
        facts[name] = (job.error or {}).get(name) or facts.get(name)
    known = {name: fact for name, fact in facts.items() if fact}
    return problem.but(status=job.status, **known)


class JobLines:
    """The lines of a job's file, which grows. A file that cannot be read has none."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = io.BytesIO()
        with contextlib.suppress(OSError, Unsafe):
            self._file = os.fdopen(open_own_regular(path), "rb")
        self._rest = b""
        """The beginning of a line whose end is still to come."""

    def new(self) -> list[bytes]:
        """The lines that have come since the last call, without those of which only a part is here."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        self._rest = self._rest[-LARGEST_DOCUMENT:]
        return lines

    def close(self) -> None:
        self._file.close()


def _of_this_run(lines: Sequence[bytes]) -> Sequence[bytes]:
    """The lines since the job was begun, or resumed: since the last change of its process."""
    begin = 0
    owner = None
    for number, line in enumerate(lines):
        facts = facts_in(line) if line.startswith(STATE) else None
        if facts is not None and facts.get("owner") != owner:
            owner = facts.get("owner")
            begin = number
    return lines[begin:]


def log_lines(job: Job, records: Records, wait: Callable[[float], None] | None = None) -> Iterator[bytes]:
    """The lines of the log of a job. With ``wait``, which sleeps for the seconds that it is given, until the job ends.

    Raises `NotFound` if no log was kept.
    """
    if job.log is None:
        raise NotFound("no log was kept of it", item=job.id, hint="is MDL_LOG_FILE set to nothing?")
    with contextlib.closing(JobLines(records.path(job.id))) as lines:
        while True:
            is_over = job.status != "running"
            yield from lines.new()
            if is_over or wait is None:
                return
            wait(_POLL_SECONDS)
            job = records.find(job.id)


class _Follower:
    """Reports each event once, and the last figures."""

    def __init__(self, on_event: Listener) -> None:
        self._on_event = on_event
        self._last = Progressed()
        self._has_plan = False
        self._sources: dict[tuple[str, str], tuple[str, str]] = {}
        """Kind and repository of each file."""

    def take(self, lines: Sequence[bytes], job: Job) -> None:
        """Report the events of these lines, and how far the job is now if that is news."""
        for line in lines:
            event = event_in(facts_in(line) or {})
            if event is None or isinstance(event, Progressed | Ended):  # the state knows these better
                continue
            self._has_plan = self._has_plan or isinstance(event, Planned)
            self._sources[event.model, event.file] = (event.kind, event.repo)
            self._on_event(event)
        progress = self._progress(job)
        if job.bytes_total is None or progress == self._last:
            return
        if not self._has_plan:  # no log is kept
            self._has_plan = True
            self._on_event(Planned(bytes_total=job.bytes_total, bytes_kept=job.bytes_done))
        self._last = progress
        self._on_event(progress)

    def _progress(self, job: Job) -> Progressed:
        kind = repo = ""
        if job.running:
            first = job.running[0]
            kind, repo = self._sources.get((first.model, first.file), (job.kind or "", job.repo or ""))
        return Progressed(
            kind=kind,
            repo=repo,
            bytes_done=job.bytes_done,
            bytes_total=job.bytes_total or 0,
            bytes_per_second=job.bytes_per_second or 0.0,
            files=job.running,
        )
