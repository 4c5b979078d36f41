"""Records: every job's record on disk, one small sealed file each, with its log beside it.

Whether a job that says it is running really is, is asked of its process: the boot, the PID name space, the process id
and the moment it was started, so that another process with the same id is never taken for it. If the process cannot be
seen from here, its pulse is asked for, a file beside the record.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from mdl import crc_json
from mdl.errors import NotFound, StateError, UsageError
from mdl.fs import staging
from mdl.fs.private import make_private_dir
from mdl.jobs.glimpse import Glimpse, glimpse
from mdl.jobs.job import ENDED, VERSION, Job, facts_of, job_of
from mdl.locks import Heartbeat, may_be_alive
from mdl.process import ProcessId

_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
_RECORD, _LOG, _PULSE = ".job", ".log", ".pulse"
_USUAL, _LARGEST = 2**12, 2**26
"""Bytes of a record."""


def now() -> str:
    """The moment, ISO 8601 in UTC."""
    moment = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1000):03d}Z"


class Records:
    """The records of one user. ``damaged`` is told of every record that cannot be read, by its path and why."""

    def __init__(self, folder: Path, damaged: Callable[[Path, str], None] = lambda _path, _why: None) -> None:
        self.folder, self._damaged = folder, damaged

    def new_id(self) -> str:
        """An id that no job has: the month and day, and four letters. Raises `OSError`."""
        make_private_dir(self.folder)
        while True:
            name = time.strftime("%m%d-") + "".join(secrets.choice(_LETTERS) for _ in range(4))
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.log(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
                return name

    def log(self, name: str) -> Path:
        return self.folder / f"{name}{_LOG}"

    def pulse(self, name: str) -> Heartbeat:
        """The pulse of the job of that id, until it is stopped. Raises `OSError`."""
        return Heartbeat(self._pulse(name))

    def _pulse(self, name: str) -> Path:
        return self.folder / f"{name}{_PULSE}"

    def put(self, job: Job) -> None:
        """Raises `OSError`."""
        staging.write_file(self._place(job.id), crc_json.dumps(facts_of(job)), durable=False)

    def find(self, name: str) -> Job:
        """The job of that id, or the only one that begins so. Raises `NotFound`, `UsageError`, `StateError`."""
        found = [entry for entry in self._names() if entry == name] or [
            entry for entry in self._names() if name and entry.startswith(name)
        ]
        if len(found) > 1:
            raise UsageError(f"{len(found)} jobs begin so", item=name, hint=", ".join(sorted(found)[:5]))
        if not found:
            raise NotFound("no such job", item=name, hint="'mdl jobs' shows what there is")
        return self._as_it_is(_read(self._place(found[0]), found[0]))

    def all(self) -> list[Job]:
        """Every job, the newest first."""
        return _newest_first(job for name, line in self._lines() if (job := self._told(name, line)))

    def latest(self, most: int, statuses: Collection[str] = ()) -> tuple[list[Job], int]:
        """All jobs that can go on and the last ``most`` that are over, the newest first; and how many older ones are
        over. If ``statuses`` are given, only jobs of one of these."""
        jobs: list[Job] = []
        over: list[tuple[Glimpse, bytes]] = []
        for name, line in self._lines():
            seen = glimpse(line)
            if seen and seen.id == name and seen.status in ENDED:
                over.append((seen, line))
            elif (job := self._told(name, line)) and (not statuses or job.status in statuses):
                jobs.append(job)
        over = sorted((one for one in over if not statuses or one[0].status in statuses), reverse=True)
        jobs += [job for seen, line in over[:most] if (job := self._told(seen.id, line))]
        return _newest_first(jobs), len(over[most:])

    def _lines(self) -> Iterator[tuple[str, bytes]]:
        """Every record as it is on disk; one that cannot be read is told of."""
        try:
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            for name in self._names():
                try:
                    yield name, _line_of(f"{name}{_RECORD}", folder)
                except FileNotFoundError:
                    continue  # cleaned meanwhile
                except OSError as error:
                    self._damaged(self._place(name), error.strerror or str(error))
        finally:
            os.close(folder)

    def _told(self, name: str, line: bytes) -> Job | None:
        try:
            return self._as_it_is(_parsed(line, name, self._place(name)))
        except StateError as error:
            self._damaged(self._place(name), error.message)
            return None

    def remove(self, name: str) -> None:
        """The record, its logs and its pulse."""
        for path in (self._place(name), self._pulse(name), *self.folder.glob(f"{glob.escape(name)}{_LOG}*")):
            path.unlink(missing_ok=True)

    def clean(self, older: float) -> list[Job]:
        """Remove what was over ``older`` seconds ago, also what died or is damaged, and logs without a job; what is
        paused stays. Tells which jobs were removed."""
        staging.sweep(self.folder)
        removed = []
        for name in self._names(_RECORD, _LOG):
            with contextlib.suppress(OSError):
                is_over, job = self._over(name, time.time() - older)
                if is_over:
                    self.remove(name)
                    removed += [job] if job else []
        return removed

    def _over(self, name: str, before: float) -> tuple[bool, Job | None]:
        """Whether what has that name can go, if it was last written before that time; and its job, if it has one."""
        place = self._place(name)
        if (place if place.exists() else self.log(name)).stat().st_mtime >= before:
            return False, None
        try:
            job = self._as_it_is(_read(place, name))
        except _Newer:
            return False, None
        except (NotFound, StateError):
            return True, None
        return job.status in (*ENDED, "dead"), job

    def _place(self, name: str) -> Path:
        return self.folder / f"{name}{_RECORD}"

    def _names(self, *endings: str) -> list[str]:
        """The names of all that is there, each once."""
        try:
            entries = [entry.name for entry in os.scandir(self.folder)]
        except OSError:
            return []
        names = (entry.rpartition(".") for entry in entries if entry[0] != ".")
        return list(dict.fromkeys(name for name, dot, end in names if dot + end in (endings or (_RECORD,))))

    def _as_it_is(self, job: Job) -> Job:
        if job.status != "running" or self._lives(job):
            return job
        return replace(job, status="dead", bytes_per_second=None, eta_seconds=None)

    def _lives(self, job: Job) -> bool:
        alive = ProcessId(job.owner).is_alive()
        if alive is not None:
            return alive
        has_pulse = ProcessId(job.owner).holds_locks
        return may_be_alive(self._pulse(job.id), [self._place(job.id), self.log(job.id)], holds_locks=has_pulse)


class _Newer(StateError):
    """A record that a newer mdl wrote."""


def _newest_first(jobs: Iterable[Job]) -> list[Job]:
    return sorted(jobs, key=lambda job: (job.started_at, job.id), reverse=True)


def _line_of(name: str | Path, folder: int | None = None) -> bytes:
    """The line of a record, without its newline; another user's record is refused: resuming it runs its command.

    Raises `OSError`.
    """
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "this record is another user's")
        data = os.read(fd, _USUAL)
        if len(data) == _USUAL:
            data += os.read(fd, min(os.fstat(fd).st_size, _LARGEST))
    finally:
        os.close(fd)
    return data.rstrip(b"\n")


def _read(place: Path, name: str) -> Job:
    """Raises `StateError` for a damaged record or one of a newer mdl, `NotFound` if it is gone."""
    try:
        return _parsed(_line_of(place), name, place)
    except FileNotFoundError:
        raise NotFound("no such job", item=str(place)) from None
    except OSError as error:
        raise StateError(error.strerror or str(error), item=str(place), hint="check its permissions") from error


def _parsed(line: bytes, name: str, place: Path) -> Job:
    facts = crc_json.loads(line)
    if isinstance(facts, dict) and isinstance(facts.get("mdl-job"), int) and facts["mdl-job"] > VERSION:
        raise _Newer("a newer mdl wrote this record", item=str(place), hint="upgrade mdl")
    job = job_of(facts) if isinstance(facts, dict) else None
    if job is None or job.id != name:
        raise StateError("this record is damaged", item=str(place), hint="remove it; no model depends on it")
    return job
