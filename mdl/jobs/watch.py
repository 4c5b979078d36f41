"""Watch: another process follows a job: its log tells what happens, its record how far it is and how it ended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from mdl.describe import ended_by
from mdl.disk.safe_open import open_regular
from mdl.errors import Cancelled, MdlError, Problem, Unsafe
from mdl.events import Ended, Event, Listener, Planned, Progressed
from mdl.jobs.job import Job, resume_command
from mdl.jobs.log import event_of, is_end
from mdl.jobs.records import Records

_POLL_SECONDS = 0.25
_LONGEST_LINE = 2**16


def follow(job: Job, records: Records, tell: Listener, wait: Callable[[float], None]) -> Job:
    """Tell the events of a running job, from the beginning of this run of it, until it is over; then its `Ended`.

    Of a job that is over only the end is told. ``wait`` sleeps for the seconds that it is given, and may raise
    `Cancelled`. Returns the job as it is in the end. Raises `NotFound` if its record was removed meanwhile,
    `StateError`.
    """
    with contextlib.closing(_Tail(Path(job.log) if job.log else None)) as tail:
        told = _Told(tell)
        events = tail.of_this_run() if job.status == "running" else None
        while events is not None:
            told.add(events, job)
            if job.status != "running":
                break
            wait(_POLL_SECONDS)
            job = records.find(job.id)
            events = tail.events()
    problem = problem_of(job)
    tell(ended_by(problem) if problem else Ended())
    return job


def problem_of(job: Job) -> Problem | None:
    """How a job that is over ended, as the error that it ended with; None if it is done.

    The process of a dead job has ended without a word: that counts as a fault of mdl, 1.
    """
    if job.status == "done":
        return None
    facts = job.error or {}
    hint = resume_command(job)
    if job.status == "dead":
        why = "dead: its process is gone, and did not say why"
        return MdlError(why, item=job.id, hint=hint or "run its command again; what was fetched is kept")
    why = facts.get("message") or job.status
    problem: Problem = MdlError(why) if job.status == "failed" else Cancelled(why, terminated=True)
    return problem.but(
        item=facts.get("item") or job.id,
        hint=facts.get("hint") or hint,
        code=facts.get("code") or problem.code,
        status=job.status,
        exit_code=job.exit_code or problem.exit_code,
    )


class _Told:
    """What of a job was told so far."""

    def __init__(self, tell: Listener) -> None:
        self._tell = tell
        self._last = Progressed()
        self._is_planned = False
        self._sources: dict[tuple[str, str], tuple[str, str]] = {}
        """Kind and source of each file."""

    def add(self, events: list[Event], job: Job) -> None:
        """Tell these events, and how far the job is now if that is news."""
        for event in events:
            self._is_planned = self._is_planned or isinstance(event, Planned)
            self._sources[event.model, event.file] = (event.kind, event.repo)
            self._tell(event)
        progress = self._progress(job)
        if job.bytes_total is None or progress == self._last:
            return
        if not self._is_planned:  # it keeps no log
            self._is_planned = True
            self._tell(Planned(bytes_total=job.bytes_total, bytes_kept=job.bytes_done))
        self._last = progress
        self._tell(progress)

    def _progress(self, job: Job) -> Progressed:
        first = job.running[:1]
        of_job = (job.kind or "", job.repo or "")
        kind, repo = next((self._sources.get((one.model, one.file), of_job) for one in first), ("", ""))
        return Progressed(
            bytes_done=job.bytes_done,
            bytes_total=job.bytes_total or 0,
            bytes_per_second=job.bytes_per_second or 0.0,
            eta_seconds=job.eta_seconds,
            files=job.running,
            kind=kind,
            repo=repo,
        )


class _Tail:
    """The end of a log that grows, and may be put aside for a new one. What cannot be read tells nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file = _opened(path)
        self._rest = b""

    def of_this_run(self) -> list[Event]:
        """The events since the job was begun, or resumed."""
        lines = self._lines()
        before = max((at + 1 for at, line in enumerate(lines) if is_end(line)), default=0)
        return _events(lines[before:])

    def events(self) -> list[Event]:
        """What was told since the last call."""
        return _events(self._lines())

    def _lines(self) -> list[str]:
        """The whole lines that came since the last call."""
        fresh = self._successor()
        data = self._rest + (self._file.read() if self._file else b"")  # nothing more comes into what was put aside
        if fresh is not None:
            self.close()
            self._file = fresh
            data += fresh.read()
        *whole, self._rest = data.split(b"\n")
        self._rest = self._rest[-_LONGEST_LINE:]
        return [line.decode(errors="replace") for line in whole]

    def _successor(self) -> BinaryIO | None:
        """The file that has the log's name now, if that is another one."""
        if self._path is None:
            return None
        with contextlib.suppress(OSError):
            if self._file is None or not os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno())):
                return _opened(self._path)
        return None

    def close(self) -> None:
        if self._file:
            self._file.close()


def _events(lines: list[str]) -> list[Event]:
    return [event for event in map(event_of, lines) if event]


def _opened(path: Path | None) -> BinaryIO | None:
    if path is not None:
        with contextlib.suppress(OSError, Unsafe):
            return os.fdopen(open_regular(path), "rb")
    return None
