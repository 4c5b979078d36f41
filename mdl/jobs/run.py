"""A job's life: one get, prefetch or repair, from its record to its hooks."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdl.cancel import CancelToken
from mdl.disk import process
from mdl.disk.process import ProcessId, hostname
from mdl.errors import Busy, Cancelled, Deadline, MdlError, Paused, UsageError
from mdl.events import Ended, Listener, Noticed, silence
from mdl.formatting import json_bytes, utc_now
from mdl.jobs.job import JOB_VARIABLE, Invocation, Job, Wanted
from mdl.jobs.log import DOWNLOADS, Log, LogListener, LogSource, no_log
from mdl.jobs.processes import begun, start
from mdl.jobs.records import JobFile, Records
from mdl.jobs.tracker import RateControl, ReadyFile, Tracker
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.console import Console
    from mdl.console.session import ReportSession

_KEPT_SECONDS = 30 * 86400.0
"""How long the records of jobs that are over are kept."""
_LONGEST_VARIABLE = 32 * 1024
"""Bytes of one variable of a hook: Linux allows 128 KiB, and all of them must fit beside the user's own."""


@value_class
class JobOptions:
    """What a job leaves for others. Hooks are commands, as words; they are started without a shell.

    ``ready_file`` exists only while everything that was asked for is on the disk. ``log_file`` is written instead of
    the log of all downloads in the state folder; with ``is_logged`` False no log is kept at all.
    """

    on_complete: Sequence[str] | None = None
    on_failure: Sequence[str] | None = None
    ready_file: Path | None = None
    log_file: Path | None = None
    is_logged: bool = True


@value_class
class JobRequest:
    """What a job is to do: a ``command`` for models, whose ``folders`` are by their names.

    ``kind`` and ``repo`` are what the models have in common, and ``wanted`` is what was asked for. ``method`` is how
    the files come.
    """

    command: str
    folders: Mapping[str, Path]
    invocation: Invocation
    options: JobOptions
    method: str = "http"
    kind: str | None = None
    repo: str | None = None
    wanted: tuple[Wanted, ...] = ()


class JobRun:
    """A job: carried out by this process (`running`) or by another one (`start_in_background`).

    ``state`` is the folder of the files of jobs; without it, or if it cannot be written, the job runs without a file.
    ``limit_rate`` is called with the rate that another process sets for the job; it raises `UsageError` if that is not
    a rate.
    """

    def __init__(
        self,
        request: JobRequest,
        console: Console,
        state: Path | None,
        cancel: CancelToken,
        limit_rate: Callable[[str], None] = lambda _rate: None,
    ) -> None:
        """Raises `Busy`, `NotFound` or `StateError` if it is to resume a job that cannot be resumed."""
        self._request = request
        self._limit_rate = limit_rate
        self._console = console
        self._state = state
        self._cancel = cancel
        self._is_unrecorded = False
        self._stamp = ""
        """Of the job that is resumed, as it was when that was decided."""
        self._records = Records(state / "jobs") if state else None
        job = self._resumed() or self._new()
        self._file = self._opened(job)
        self._tracker = Tracker(job, self._file, console.secrets, self._no_record)
        self._logged: LogListener | None = None

    @property
    def id(self) -> str:
        return self._tracker.job.id

    def _resumed(self) -> Job | None:
        """The job that is resumed, if this process is to resume one."""
        name, _, stamp = os.environ.pop(JOB_VARIABLE, "").partition(" ")
        if not name or self._records is None:
            return None
        job = self._records.find(name)
        if job.status == "running":
            raise Busy("it is running", item=name)
        self._stamp = stamp or job.stamp
        return replace(
            job,
            status="running",
            owner=str(ProcessId.current()),
            host=hostname(),
            finished_at=None,
            exit_code=None,
            error=None,
            file=None,
            running=(),
            kind=self._request.kind,
            repo=self._request.repo,
            method=self._request.method,
        )

    def _new(self) -> Job:
        request = self._request
        job = Job(
            "",
            request.command,
            tuple(request.folders),
            str(ProcessId.current()),
            hostname(),
            request.invocation,
            utc_now(),
            kind=request.kind,
            repo=request.repo,
            method=request.method,
            wanted=request.wanted,
            is_planned=False,
        )
        if self._records is None:
            return job
        try:
            return self._records.create(job, is_logged=request.options.is_logged)
        except OSError as error:
            self._no_record(error)
            self._records = None
            return job

    def _opened(self, job: Job) -> JobFile | None:
        """The file of the job, to be written."""
        if self._records is None:
            return None
        try:
            return self._records.open(job)
        except OSError as error:
            self._no_record(error)
            return None

    def start_in_background(self, words: Sequence[str]) -> None:
        """Have another process do it, with ``words`` as its command line, and return once that has begun.

        Raises `Busy` if another one works on these models, and others if it could not begin.
        """
        if self._records is None or self._file is None:
            raise UsageError("a job needs a record to go on in the background", item="--detach")
        is_new = not self._stamp
        if is_new:
            job = replace(self._tracker.job, status="paused")
            self._file.add_state(job)
            self._stamp = job.stamp
        environ = {**os.environ, JOB_VARIABLE: f"{self.id} {self._stamp}"}
        code = start(self.id, words, environ, self._records.path(self.id))
        if code == Busy.exit_code:
            if is_new:
                self._records.remove(self.id)
            raise Busy("another mdl started to work on these models first", hint="wait for it; 'mdl jobs' shows it")
        if code is not None:
            why = "the background process ended before the job began"
            raise MdlError(why, item=self.id, hint=f"mdl jobs log {self.id}").but(exit_code=code)

    def replace_earlier(self) -> None:
        """Remove the records of earlier jobs of the same command and models that their time limit or window stopped:
        this job continues from what they left."""
        if self._records is None:
            return
        job = self._tracker.job
        for earlier in self._records.all():
            was_stopped = earlier.status == "paused" and (earlier.error or {}).get("code") == Deadline.code
            asked_for_the_same = (earlier.command, earlier.models, earlier.wanted) == (
                job.command,
                job.models,
                job.wanted,
            )
            if was_stopped and asked_for_the_same and earlier.id != job.id:
                self._records.remove(earlier.id)

    @contextlib.contextmanager
    def running(self) -> Iterator[ReportSession]:
        """Carry the job out: what the block reports is shown, recorded and logged. At the end the hooks are run."""
        self._take_over()
        options = self._request.options
        listeners: list[Listener] = [self._tracker]
        reporting = self._console.watch(self.id, self._request.method, listeners)
        self._tracker.follow(reporting.state)
        with contextlib.ExitStack() as stack:
            if self._file is not None:
                stack.callback(self._file.close)
            if self._records:
                stack.callback(self._records.clean, _KEPT_SECONDS)
            try:
                with reporting:
                    ready = self._begin(stack, listeners)
                    yield reporting
                    if reporting.is_well:
                        ready(Ended())
                        if options.on_complete:
                            reporting.release_terminal()
                            self._run_hook(options.on_complete, Ended())
            finally:
                if reporting.end and reporting.end.status == "failed":
                    with contextlib.suppress(Cancelled):  # the failure is how it ended
                        self._run_hook(options.on_failure, reporting.end)

    def _take_over(self) -> None:
        """Write down that this process carries out the job that it resumes.

        Raises `Busy`, `Paused` or `Cancelled` if another process has resumed, paused or cancelled it since that was
        decided, `NotFound` if its record was removed, `StateError`.
        """
        records = self._records
        job = self._tracker.job
        if records is None or not self._stamp:
            return
        try:
            if records.replace(job, self._stamp):
                return
        except OSError:
            return  # the record cannot be written, and the first event says so
        status = records.find(job.id).status
        why = "another process has {} it meanwhile"
        if status == "paused":
            raise Paused(why.format("paused"))
        if status == "cancelled":
            raise Cancelled(why.format("cancelled"), terminated=True)
        raise Busy(why.format("resumed"), item=job.id, hint=f"mdl jobs watch {job.id}")

    def _begin(self, stack: contextlib.ExitStack, listeners: list[Listener]) -> Listener:
        """Write the record and open the logs, until ``stack`` is left; returns what keeps the ready file."""
        if self._records:
            with contextlib.suppress(OSError):  # a job can do without a pulse
                pulse = self._records.pulse(self.id)
                stack.callback(pulse.stop)
                listeners.append(lambda _event: pulse.touch())
            with contextlib.suppress(OSError):
                self._records.forget_rate(self.id)
                listeners.append(RateControl(self._records, self.id, self._change_rate))
        self._tracker.write()
        begun()
        file = self._file if self._request.options.is_logged else None
        source = LogSource(self.id, os.getpid(), self._request.command)
        logs = self._logs()
        if logs or file is not None:
            self._logged = LogListener(logs, self._console.secrets, source, self._no_log, file)
            stack.callback(self._logged.close)
            listeners.append(self._logged)
        ready_file = self._request.options.ready_file
        if ready_file is None:
            return silence

        def warn(error: OSError) -> None:
            self._console.warn(f"the ready file {ready_file}: {error.strerror}")

        listeners.append(ReadyFile(ready_file, self._request.folders, warn))
        return listeners[-1]

    def _change_rate(self, rate: str) -> None:
        """Keep to the rate that another process has set, and log that."""
        text = f"the rate limit is now {rate}"
        try:
            self._limit_rate(rate)
        except UsageError as error:
            text = f"the rate limit stays as it was: {error.message}"
        if self._logged:
            self._logged(Noticed(message=text))

    def _logs(self) -> list[Log]:
        """The log of all downloads, if it can be opened."""
        options = self._request.options
        path = options.log_file
        if path is None and self._state is not None:
            path = self._state / DOWNLOADS
        if path is None or not options.is_logged:
            return []
        try:
            return [Log(path, is_own=path != options.log_file)]
        except OSError as error:
            if not (self._is_unrecorded and path.parent == self._state):
                self._no_log(path, error)
            return []

    def _no_log(self, path: Path | None, error: OSError) -> None:
        """Warn of a log that cannot be written. That the job's own file cannot be is said once, by the tracker."""
        if path is not None:
            self._console.warn(no_log(path, error))

    def _no_record(self, error: OSError) -> None:
        self._is_unrecorded = True
        self._console.warn(f"this job is not recorded: {error.filename or self._state}: {error.strerror}")

    def _run_hook(self, command: Sequence[str] | None, end: Ended) -> None:
        """Run a program of the user's. If it fails a warning says so. Raises `Cancelled`."""
        if not command:
            return
        self._tracker.write()  # a hook may look at the job
        console = self._console
        trouble = ""
        try:
            facts = hook_facts(self._tracker.job, self._request.folders, end, console.clean)
            with hook_environment(facts) as variables:
                is_silent = console.is_machine_readable
                code = process.run_program(list(command), variables, silent=is_silent, cancel=self._cancel)
                if code:
                    trouble = f"the hook ended with {code}: {' '.join(command)}"
        except UsageError as error:
            trouble = f"the hook {error.item}: {error.message}"
        except OSError as error:
            trouble = f"the hook {command[0]}: was not run, for MDL_HOOK_FILE cannot be written: {error.strerror}"
        if trouble:
            if self._logged:
                self._logged(Noticed(message=trouble))
            console.warn(trouble)


def hook_facts(job: Job, folders: Mapping[str, Path], end: Ended, clean: Callable[[str], str]) -> dict[str, Any]:
    """What a hook is told of a job; ``folders`` are those of the models, ``clean`` takes secrets out of a text."""
    return {
        "schema": "mdl.hook/1",
        "event": "complete" if end.status == "finished" else "failure",
        "job": job.id,
        "command": job.command,
        "models": [{"name": name, "path": str(path)} for name, path in folders.items()],
        "bytes": job.bytes_done,
        "exit_code": end.exit_code,
        "error": clean(end.message or ""),
        "item": clean(end.item or ""),
        "log": job.log or "",
    }


@contextlib.contextmanager
def hook_environment(facts: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The variables of a hook: all facts are in the file that ``MDL_HOOK_FILE`` names, which exists meanwhile; the
    other variables have as many whole lines of them as fit. Raises `OSError`."""
    models = facts["models"]
    lines = {key: str(value).split("\n") for key, value in facts.items() if key not in ("schema", "models")}
    lines["models"] = [model["name"] for model in models]
    lines["paths"] = [model["path"] for model in models]
    variables = {f"MDL_HOOK_{key.upper()}": _fitting(values) for key, values in lines.items()}
    with tempfile.NamedTemporaryFile(prefix="mdl-hook-", suffix=".json") as file:
        file.write(json_bytes(facts))
        file.flush()
        yield variables | {"MDL_HOOK_COUNT": str(len(models)), "MDL_HOOK_FILE": file.name}


def _fitting(lines: Sequence[str]) -> str:
    """As many of the lines as one variable may have."""
    left = _LONGEST_VARIABLE
    fitting = []
    for line in lines:
        left -= len(os.fsencode(line)) + 1
        if left < 0:
            break
        fitting.append(line)
    return "\n".join(fitting)
