"""Control: pausing and cancelling a job from another process, by signals to its own."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import replace

from mdl.errors import Busy, UsageError
from mdl.jobs.job import Job, resume_command
from mdl.jobs.records import Records, now
from mdl.process import ProcessId, hostname

_PAUSE, _CANCEL = signal.SIGUSR1, signal.SIGTERM
_CANCELLED = 143
_PATIENCE = 15.0
_LOOK = 0.05


def pause(job: Job, records: Records) -> Job:
    """Stop a running job so that it can be resumed. Raises `UsageError` if it is not running, `Busy`."""
    if job.status == "running":
        job = _stopped(job, _PAUSE, records)
    if job.status != "paused":
        raise UsageError(f"it is {job.status}: there is nothing to pause", item=job.id, hint=resume_command(job))
    return job


def cancel(job: Job, records: Records) -> Job:
    """End a job; what it fetched stays. Raises `UsageError` if it is over already, `Busy`."""
    if job.status == "running":
        job = _stopped(job, _CANCEL, records)
    if job.status in ("paused", "dead"):
        job = replace(job, status="cancelled", finished_at=job.finished_at or now(), exit_code=_CANCELLED)
        records.put(job)
    if job.status != "cancelled":
        raise UsageError(f"it is {job.status}: there is nothing to cancel", item=job.id, hint=resume_command(job))
    return job


def _stopped(job: Job, how: signal.Signals, records: Records) -> Job:
    """Send ``how`` to the job's process and wait until its record says what became of it."""
    if ProcessId(job.owner).is_alive() is None:
        where = job.host if job.host != hostname() else "this machine, in a container"
        raise UsageError(
            f"the job runs on {where}; mdl cannot signal it from here", item=job.id, hint="run the same command there"
        )
    _send(job, how)
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        found = records.find(job.id)
        if found.status != "running" and ProcessId(job.owner).is_alive() is False:
            return found
        time.sleep(_LOOK)
    why = f"process {ProcessId(job.owner).pid} was told to stop and is still running"
    raise Busy(why, item=job.id, hint="look again later")


def _send(job: Job, how: signal.Signals) -> None:
    """To the very process of the job, never to another one that has its id now."""
    pid = ProcessId(job.owner).pid
    with contextlib.suppress(ProcessLookupError):
        if not hasattr(os, "pidfd_open"):
            if ProcessId(job.owner).is_alive():
                os.kill(pid, how)
            return
        handle = os.pidfd_open(pid)
        try:
            if ProcessId(job.owner).is_alive():
                signal.pidfd_send_signal(handle, how)
        finally:
            os.close(handle)
