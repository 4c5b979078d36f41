"""Records: what is on disk of every job, one small file with a checksum each, and its log beside it.

Whether a job that says it is running really is, is asked of its process: the boot, the PID name space, the process id
and the moment it was started, so that another process with the same id is never taken for it. If the process cannot be
seen from here, its pulse is looked at: a file beside the record that it keeps locked, and touches when an event comes.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mdl import crc_json
from mdl.disk import publish
from mdl.disk.mutex import HeldFile, folder_lock, may_be_alive
from mdl.disk.process import ProcessId
from mdl.disk.safe_open import make_private_dir, read_regular
from mdl.errors import NotFound, StateError, UsageError
from mdl.formatting import human_duration, listed
from mdl.jobs.job import ENDED, VERSION, Job, can_be_resumed, facts_of, finishers, job_of

_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
_RECORD = ".job"
_LOG = ".log"
_PULSE = ".pulse"
_RATE = ".rate"
_NAMED = 10
"""How many jobs an error names."""
_LARGEST = 2**26
_LARGEST_RATE = 1000
"""Bytes of a record, and of the rate that a job is to keep."""
_SILENT_SECONDS = 30.0
"""A job whose pulse was not touched for so long is said to give no sign of life."""
_DEAD_SECONDS = 600.0
"""Where locks may lie, a job counts as dead after so long without an event: it may wait that long (``--lock-wait``)."""


class Records:
    """The records of one user. ``damaged`` is called with the path of every record that cannot be read, and why."""

    def __init__(self, folder: Path, damaged: Callable[[Path, str], None] = lambda _path, _why: None) -> None:
        self.folder = folder
        self._damaged = damaged

    def new_id(self) -> str:
        """An id that no job has: the month and day, and four letters. Raises `OSError`."""
        make_private_dir(self.folder)
        while True:
            name = time.strftime("%m%d-") + "".join(random.SystemRandom().choices(_LETTERS, k=4))
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.log(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
                return name

    def log(self, name: str) -> Path:
        return self._path(name, _LOG)

    def pulse(self, name: str) -> HeldFile:
        """A locked file that shows that the job of that id is alive, until it is stopped. Raises `OSError`."""
        return HeldFile(self._path(name, _PULSE))

    def _path(self, name: str, ending: str = _RECORD) -> Path:
        return self.folder / f"{name}{ending}"

    def put(self, job: Job) -> None:
        """Write the job's record. Raises `OSError`."""
        publish.write_file(self._path(job.id), crc_json.dumps(facts_of(job)), durable=False)

    def replace(self, job: Job, stamp: str) -> bool:
        """Write the job's record, but only if the one on disk still has that `Job.stamp`. Returns whether it was
        written.

        Raises `OSError`, `NotFound`, `StateError`, `Busy`.
        """
        with folder_lock(self.folder):
            if _read(self._path(job.id), job.id).stamp != stamp:
                return False
            self.put(job)
            return True

    def find(self, name: str) -> Job:
        """The job of that id, or the only one whose id begins so, or else has it in it.

        Raises `NotFound`, `UsageError` with the candidates, `StateError`.
        """
        names = self._names()
        begin, have = (
            [one for one in names if name and test(one, name)] for test in (str.startswith, str.__contains__)
        )
        found = [name] if name in names else begin if len(begin) == 1 else have
        if len(found) > 1:
            raise UsageError(f"{len(found)} jobs match", item=name, hint=listed(sorted(found), most=_NAMED))
        if not found:
            raise NotFound("no such job", item=name, hint="'mdl jobs' shows what there is")
        return self._with_status(_read(self._path(found[0]), found[0]))

    def newest(self) -> Job:
        """The job that was started last. Raises `NotFound` if there is none."""
        if jobs := self.all():
            return jobs[0]
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
        is_partial = job.bytes_total is not None and job.bytes_done < job.bytes_total
        return "no bytes arrive" if is_partial and job.bytes_per_second == 0 else ""

    def set_rate(self, job: Job, rate: str) -> None:
        """Have a running job keep to another rate. Raises `OSError`."""
        publish.write_file(self._path(job.id, _RATE), rate.encode(), durable=False)

    def rate(self, name: str) -> str:
        """The rate that the job of that id was told to keep; "" if it was told nothing."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return (read_regular(self._path(name, _RATE), _LARGEST_RATE) or b"").decode()
        return ""

    def forget_rate(self, name: str) -> None:
        """The job of that id begins with the rate of its own command line. Raises `OSError`."""
        self._path(name, _RATE).unlink(missing_ok=True)

    def all(self) -> list[Job]:
        """Every job, the newest first."""
        jobs: list[Job] = []
        for name in self._names():
            try:
                jobs.append(self._with_status(_read(self._path(name), name)))
            except NotFound:
                continue  # cleaned meanwhile
            except StateError as error:
                self._damaged(self._path(name), error.message)
        return sorted(jobs, key=lambda job: (job.started_at, job.id), reverse=True)

    def remove(self, name: str) -> None:
        """Remove the record, its logs, its pulse and its rate."""
        others = (self._path(name, ending) for ending in (_RECORD, _PULSE, _RATE))
        for path in (*others, *self.folder.glob(f"{glob.escape(name)}{_LOG}*")):
            path.unlink(missing_ok=True)

    def clean(self, older: float) -> list[Job]:
        """Remove what was over ``older`` seconds ago, also what died or is damaged, and logs without a job; what is
        paused stays. Returns the jobs that were removed."""
        publish.sweep(self.folder)
        removed = []
        before = time.time() - older
        for name in self._names(_RECORD, _LOG):
            place = self._path(name)
            job = None
            try:
                if (place if place.exists() else self.log(name)).stat().st_mtime >= before:
                    continue
                job = self._with_status(_read(place, name))
            except (OSError, _Newer):
                continue
            except (NotFound, StateError):
                pass
            if job is None or job.status in (*ENDED, "dead"):
                with contextlib.suppress(OSError):
                    self.remove(name)
                    removed += [job] if job else []
        return removed

    def _names(self, *endings: str) -> list[str]:
        """The names of all that is there, each once."""
        try:
            entries = [entry.name for entry in os.scandir(self.folder)]
        except OSError:
            return []
        names = (entry.rpartition(".") for entry in entries if entry[0] != ".")
        return list(dict.fromkeys(name for name, dot, end in names if dot + end in (endings or (_RECORD,))))

    def _with_status(self, job: Job) -> Job:
        """The same job, as ``dead`` if it is not running although its record says so."""
        if job.status != "running":
            return job
        is_alive = ProcessId(job.owner).is_alive()
        if is_alive is None:
            touched = [self._path(job.id), self.log(job.id)]
            is_alive = may_be_alive(self._path(job.id, _PULSE), touched, _DEAD_SECONDS)
        return job if is_alive else replace(job, status="dead", bytes_per_second=None, eta_seconds=None)


class _Newer(StateError):
    """A record that a newer mdl wrote."""


def _read(place: Path, name: str) -> Job:
    """The job of a record. Another user's record is refused, for resuming it runs its command.

    Raises `StateError` for a damaged record or one of a newer mdl, `NotFound` if it is gone.
    """
    try:
        fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "this record is another user's")
            data = os.read(fd, min(status.st_size, _LARGEST))
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise NotFound("no such job", item=str(place)) from None
    except OSError as error:
        raise StateError(error.strerror or str(error), item=str(place), hint="check its permissions") from error
    facts = crc_json.loads(data.rstrip(b"\n"))
    if isinstance(facts, dict) and isinstance(facts.get("mdl-job"), int) and facts["mdl-job"] > VERSION:
        raise _Newer("a newer mdl wrote this record", item=str(place), hint="upgrade mdl")
    job = job_of(facts) if isinstance(facts, dict) else None
    if job is None or job.id != name:
        raise StateError("this record is damaged", item=str(place), hint="remove it; no model depends on it")
    return job
