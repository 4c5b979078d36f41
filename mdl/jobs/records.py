"""Records: the files of all jobs of one user, one file a job.

The first line of a file has what never changes; lines with events and states are appended (`mdl.jobs.job`, ADR 70).

Whether a job that says it is running really is, is asked of its process: the boot, the PID name space, the process id
and the moment it was started, so that another process with the same id is never taken for it. If the process cannot be
seen from here, its pulse is looked at: a file beside the record that it keeps locked, and touches when an event comes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from mdl.bounds import LARGEST_DOCUMENT
from mdl.disk import publish
from mdl.disk.mutex import HeldFile, folder_lock, may_be_alive
from mdl.disk.own_files import make_private_dir
from mdl.disk.process import ProcessId
from mdl.disk.safe_open import NO_LINK, only_regular
from mdl.errors import NotFound, StateError, UsageError
from mdl.formatting import human_duration, listed, utc_now
from mdl.jobs.job import (
    ENDED,
    STATE,
    VERSION,
    Job,
    can_be_resumed,
    facts_in,
    finishers,
    head_facts,
    is_no_job,
    job_of,
    line_of,
    state_facts,
)
from mdl.jobs.log import Log

_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
_JOB = ".job"
_PULSE = ".pulse"
_NAMED = 10
"""How many jobs an error names."""
_TAIL = 2**16
"""Bytes at the end of a file in which its last state is looked for first."""
_SILENT_SECONDS = 30.0
"""A job whose pulse was not touched for so long is said to give no sign of life."""
_DEAD_SECONDS = 600.0
"""Where locks may lie, a job counts as dead after so long without an event: it may wait that long (``--lock-wait``)."""
_NEW_SECONDS = 2.0
"""An empty file that is younger is about to be written."""


class JobFile:
    """The file of a job, open for the process that carries it out. One that is removed meanwhile is not made again.

    Raises `OSError`.
    """

    def __init__(self, path: Path) -> None:
        self._log = Log(path, largest=None, is_own=True)

    def append(self, *facts: Mapping[str, Any]) -> None:
        """Add a line for each of these facts. Raises `OSError`."""
        self._log.append("\n".join(line_of(line_facts) for line_facts in facts))

    def add_state(self, job: Job) -> None:
        """Add what the job is now. Raises `OSError`."""
        self.append(state_facts(job, utc_now()))

    def close(self) -> None:
        self._log.close()


class Records:
    """The files of the jobs of one user. ``damaged`` is called with the path of every file that cannot be read, and
    why."""

    def __init__(self, folder: Path, damaged: Callable[[Path, str], None] = lambda _path, _why: None) -> None:
        self.folder = folder
        self._damaged = damaged

    def create(self, job: Job, *, is_logged: bool = True) -> Job:
        """Give the job an id that no other has, the month and day and four letters, and a file. Returns it with both.

        Raises `OSError`.
        """
        make_private_dir(self.folder)
        while True:
            name = time.strftime("%m%d-") + "".join(random.SystemRandom().choices(_LETTERS, k=4))
            path = self.path(name)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
                job = replace(job, id=name, log=str(path) if is_logged else None)
                with contextlib.closing(JobFile(path)) as file:
                    file.append(head_facts(job), state_facts(job, job.started_at))
                return job

    def path(self, name: str) -> Path:
        """The file of the job of that id."""
        return self._path(name, _JOB)

    def open(self, name: str) -> JobFile:
        """The file of the job of that id, to be written. Raises `OSError`."""
        return JobFile(self.path(name))

    def pulse(self, name: str) -> HeldFile:
        """A locked file that shows that the job of that id is alive, until it is stopped. Raises `OSError`."""
        return HeldFile(self._path(name, _PULSE))

    def _path(self, name: str, ending: str) -> Path:
        return self.folder / f"{name}{ending}"

    def replace(self, job: Job, stamp: str) -> bool:
        """Add the job's state to its file, but only if its last state has that `Job.stamp`. Returns whether it was
        added.

        Raises `OSError`, `NotFound`, `StateError`, `Busy`.
        """
        with folder_lock(self.folder):
            if _read(self.path(job.id), job.id).stamp != stamp:
                return False
            with contextlib.closing(self.open(job.id)) as file:
                file.add_state(job)
            return True

    def find(self, name: str) -> Job:
        """The job of that id, or the only one whose id has ``name`` in it.

        Raises `NotFound`, `UsageError` with the candidates, `StateError`.
        """
        matching = []
        for other in self._names():
            if other == name:
                return self._read(name)
            if name and name in other:
                matching.append(other)
        if len(matching) > 1:
            raise UsageError(f"{len(matching)} jobs match", item=name, hint=listed(sorted(matching), most=_NAMED))
        if not matching:
            raise NotFound("no such job", item=name, hint="'mdl jobs' shows what there is")
        return self._read(matching[0])

    def newest(self) -> Job:
        """The job that was started last. Raises `NotFound` if there is none."""
        for job in self.all():
            return job
        raise NotFound("there is no job", hint="'mdl get' makes one")

    def newest_to_resume(self) -> Job:
        """The last job that was interrupted, and that no later one finished. Raises `NotFound`."""
        jobs = self.all()
        finished = finishers(jobs)
        for job in jobs:
            if can_be_resumed(job) and job.id not in finished:
                return job
        hint = "one that failed is resumed by its id; 'mdl jobs' shows what there is"
        raise NotFound("no interrupted job is left to resume", hint=hint)

    def why_stalled(self, job: Job) -> str:
        """Why a running job makes no progress; "" if it does."""
        owner = ProcessId(job.owner)
        if owner.is_stopped():
            return f"its process is stopped, as by Ctrl-Z; 'kill -CONT {owner.pid}' continues it"
        with contextlib.suppress(OSError):
            silent = time.time() - self._path(job.id, _PULSE).stat().st_mtime
            if silent > _SILENT_SECONDS:
                return f"no sign of life for {human_duration(silent)}"
        if job.waiting:
            return job.waiting
        if job.bytes_per_second == 0 and job.bytes_done < (job.bytes_total or 0):
            return "no bytes arrive"
        return ""

    def all(self) -> list[Job]:
        """Every job, the newest first; what failed before it knew what to bring is no job."""
        jobs: list[Job] = []
        for name in self._names():
            try:
                job = self._read(name)
            except NotFound:
                continue  # cleaned meanwhile
            except StateError as error:
                self._damaged(self.path(name), error.message)
                continue
            if not is_no_job(job):
                jobs.append(job)
        return sorted(jobs, key=lambda job: (job.started_at, job.id), reverse=True)

    def remove(self, name: str) -> None:
        """Remove the file of a job, and its pulse."""
        for ending in (_JOB, _PULSE):
            self._path(name, ending).unlink(missing_ok=True)

    def clean(self, older: float) -> list[Job]:
        """Remove what was over ``older`` seconds ago, also what died or is damaged; what is paused stays, and so does
        what a newer mdl wrote. Returns the jobs that were removed."""
        publish.sweep(self.folder)
        removed = []
        before = time.time() - older
        for name in self._names():
            with contextlib.suppress(OSError):
                if self.path(name).stat().st_mtime >= before:
                    continue
                try:
                    job = self._read(name)
                except _Newer:
                    continue
                except (NotFound, StateError):  # it is damaged
                    self.remove(name)
                    continue
                if job.status in (*ENDED, "dead"):
                    self.remove(name)
                    removed.append(job)
        return removed

    def _names(self) -> list[str]:
        """The ids of all jobs."""
        try:
            paths = list(self.folder.iterdir())
        except OSError:
            return []
        return [path.stem for path in paths if path.suffix == _JOB and not path.name.startswith(".")]

    def _read(self, name: str) -> Job:
        """Read the job of that id, as ``dead`` if it is not running although its record says so. Raises as `_read`.

        A job may end between the moment its record is read and the moment its process is looked for. Then the record
        that was read is no longer the last one, so it is read again: nobody adds to that of a process that is gone.
        """
        job = _read(self.path(name), name)
        while job.status == "running" and not self._is_alive(job):
            last = _read(self.path(name), name)
            if last.stamp == job.stamp:
                return replace(last, status="dead", bytes_per_second=None, eta_seconds=None)
            job = last
        return job

    def _is_alive(self, job: Job) -> bool:
        """Whether the process of a job that says it is running is alive, or may be."""
        is_alive = ProcessId(job.owner).is_alive()
        if is_alive is None:
            is_alive = may_be_alive(self._path(job.id, _PULSE), [self.path(job.id)], _DEAD_SECONDS)
        return is_alive


class _Newer(StateError):
    """A record that a newer mdl wrote."""


def _read(path: Path, name: str) -> Job:
    """The job of a file. Another user's file is refused, for resuming the job runs its command.

    Raises `StateError` for a damaged file or one of a newer mdl, `NotFound` if it is gone or not written yet.
    """
    try:
        with _opened(path) as file:
            head = facts_in(file.readline(LARGEST_DOCUMENT)) or {}
            state = _last_state_in(file)
            status = os.fstat(file.fileno())
    except FileNotFoundError:
        raise NotFound("no such job", item=str(path)) from None
    except OSError as error:
        raise StateError(error.strerror or str(error), item=str(path), hint="check its permissions") from error
    version = head.get("mdl-job")
    if isinstance(version, int) and version > VERSION:
        raise _Newer("a newer mdl wrote this record", item=str(path), hint="upgrade mdl")
    job = job_of(head | state)
    if job is not None and job.id == name:
        return job
    is_being_made = status.st_size == 0 and time.time() - status.st_mtime < _NEW_SECONDS
    if is_being_made:
        raise NotFound("no such job", item=str(path))
    raise StateError("this record is damaged", item=str(path), hint="remove it; no model depends on it")


def _opened(path: Path) -> BinaryIO:
    """Open the file of a job, which is a regular one of this user's. Raises `OSError`."""
    file = os.fdopen(only_regular(os.open(path, os.O_RDONLY | NO_LINK), path), "rb")
    if os.fstat(file.fileno()).st_uid == os.geteuid():
        return file
    file.close()
    raise PermissionError(errno.EPERM, "this record is another user's")


def _last_state_in(file: BinaryIO) -> dict[str, Any]:
    """The last state behind the first line, where the file stands now; nothing if there is none. It is looked for from
    the end of the file on, for there may be many events before it."""
    start = file.tell()
    end = file.seek(0, os.SEEK_END)
    length = min(_TAIL, end - start)
    while True:
        file.seek(end - length)
        for line in reversed(file.read(length).split(b"\n")):
            facts = facts_in(line) if line.startswith(STATE) else None
            if facts is not None:
                return facts
        if length == end - start:
            return {}
        length = min(length * 8, end - start)
