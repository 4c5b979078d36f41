"""Remote: look whether a remote works, and clean its bucket. (`mdl.ops.fetch` brings its results.)

A job is old by the times of its own record. Nothing else tells how old results are, or that nobody writes to them any
more: the time of an object is that of its last copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Literal

from mdl.config import places
from mdl.config.remotes import RemoteSettings
from mdl.disk.mutex import file_lock
from mdl.errors import Busy, MdlError, NetworkError, NotFound, UsageError, joint_error
from mdl.formatting import human_age
from mdl.jobs.prometheus import Gauge, labels, write_gauges
from mdl.reports import BaseReport
from mdl.results.base import Check, Remote, RemoteJob, of_remote
from mdl.results.bucket import BucketRemote
from mdl.sources import SourceContext
from mdl.values import value_class

_NAMED = 10
"""How many files a message names."""


@value_class
class RemoteReport(BaseReport):
    """Whether one remote works: each part that was looked at, and the ``numbers`` that it tells of itself."""

    name: str
    checks: Sequence[Check]
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def errors(self) -> list[MdlError]:
        """What failed, part by part."""
        return [of_remote(part.error or _failed(part), self.name) for part in self.checks if not part.ok]

    @property
    def error(self) -> MdlError | None:
        """The one error that sums up all failures; None if all is well."""
        return joint_error(self.errors)


def _failed(part: Check) -> MdlError:
    return NetworkError(f"{part.name}: {part.detail}", hint="look at the remote itself")


def check(name: str, remote: Remote, kind: str, *, measure: bool) -> RemoteReport:
    """Look at every part of a remote of this ``kind``. Its numbers are asked for too if it is to ``measure`` them."""
    try:
        checks = remote.check()
    except MdlError as error:
        return RemoteReport(name, [Check(kind, False, error.message, error)])
    try:
        return RemoteReport(name, checks, remote.metrics() if measure else {})
    except MdlError as error:
        return RemoteReport(name, [*checks, Check("metrics", False, error.message, error)])


def write_metrics(path: Path, report: RemoteReport, *, now: float) -> None:
    """Replace ``path`` as a whole by what the check of one remote found; ``now`` in seconds since 1970. Numbers such
    as ``workers_idle`` and ``jobs_failed`` become ``mdl_remote_workers`` and ``mdl_remote_jobs`` by their state. Raises
    `OSError`."""
    remote = labels(remote=report.name)
    exit_code = report.exit_code
    counts: dict[str, dict[str, float]] = {"workers": {}, "jobs": {}}
    for name, number in report.numbers.items():
        counted, _, state = name.partition("_")
        if counted in counts and state:
            counts[counted][labels(remote=report.name, state=state)] = number
    parts = {labels(remote=report.name, check=part.name): int(part.ok) for part in report.checks}
    gauges = [
        Gauge("mdl_remote_up", "1 if every part of the remote works.", {remote: int(exit_code == 0)}),
        Gauge("mdl_remote_last_check_timestamp_seconds", "When it was checked.", {remote: now}),
        Gauge("mdl_remote_exit_code", "Exit code of the check.", {remote: exit_code}),
        Gauge("mdl_remote_check_ok", "1 if this part of it works.", parts),
        Gauge("mdl_remote_workers", "Workers of the endpoint, by state.", counts["workers"]),
        Gauge("mdl_remote_jobs", "Jobs of the endpoint, by state.", counts["jobs"]),
    ]
    write_gauges(path, gauges)


Action = Literal["would delete", "deleted", "kept"]


@value_class
class CleanedJob:
    """One job of a bucket, what is or would be done with it, and why. ``error`` is why it could not be deleted."""

    job: RemoteJob
    action: Action
    why: str
    error: MdlError | None = None
    is_changed: bool = False
    """It is kept although it was found to be old."""


def judge(job: RemoteJob, older_than: float, now: float) -> CleanedJob:
    """Tell whether a job may go at ``now``, in seconds since 1970: it is over, and its own record says that this was
    ``older_than`` seconds ago. Pure."""
    age = job.age(now)
    has_time = age > -math.inf
    if not job.is_over:
        why = f"it is still {job.standing}"
        if job.error and not has_time:
            why = f"its status is not known: {job.error}"
        return CleanedJob(job, "kept", why)
    if not has_time:
        return CleanedJob(job, "kept", "its record has no time")
    return CleanedJob(job, "kept" if age < older_than else "would delete", f"{job.status} {human_age(age)}")


def clean(
    settings: RemoteSettings,
    context: SourceContext,
    *,
    older_than: float,
    remove: bool,
    on_found: Callable[[Sequence[CleanedJob]], None],
) -> Iterator[CleanedJob]:
    """Judge every job of the bucket that ``settings`` mean, tell ``on_found``, and yield what became of each: deleted
    only with ``remove``, and then by one process of this user at a time. Raises `Busy`, and as `Remote.jobs`.

    Two machines may clean one bucket at once: each reads a record again before it deletes the job, and to delete what
    is gone already is no error.
    """
    remote = BucketRemote(settings, context)
    with _alone(settings) if remove else contextlib.nullcontext():
        now = time.time()
        judged = [judge(job, older_than, now) for job in remote.jobs()]
        on_found(judged)
        for cleaned in delete(remote, judged) if remove else judged:
            if cleaned.error:
                cleaned = replace(cleaned, error=of_remote(cleaned.error, settings.name))
            yield cleaned


@contextlib.contextmanager
def _alone(settings: RemoteSettings) -> Iterator[None]:
    """Be the one who cleans this bucket on this machine, if the user has a home folder. Raises `Busy`."""
    place = hashlib.sha256(f"{settings.get('endpoint_url')} {settings.address}".encode()).hexdigest()[:16]
    with contextlib.ExitStack() as stack:
        try:
            with contextlib.suppress(UsageError, OSError):
                stack.enter_context(file_lock(places.state_dir() / "locks", f"clean-{place}", 0.0, lambda _who: None))
        except Busy as error:
            why = error.message.replace("is at work on it", "is cleaning it")
            raise Busy(why, item=settings.name, hint="run it again when that one has ended") from error
        yield


def delete(remote: BucketRemote, judged: Sequence[CleanedJob]) -> Iterator[CleanedJob]:
    """Delete the jobs that were ``judged`` to be old, one by one, and yield what became of each.

    Each record is read once more just before: a job that changed since it was judged is kept. A job that cannot be
    deleted does not stop the others.
    """
    for row in judged:
        if row.action != "would delete":
            yield row
            continue
        try:
            if remote.status(row.job.id) != row.job:
                yield replace(row, action="kept", why="it changed meanwhile", is_changed=True)
                continue
            remote.delete(row.job.id)
        except NotFound:
            yield replace(row, action="kept", why="it was deleted by another process", is_changed=True)
        except MdlError as error:
            yield replace(row, action="kept", why=f"it could not be deleted: {error.message}", error=error)
        else:
            yield replace(row, action="deleted")
