"""A job's life: one get, prefetch or repair, from its record to its hooks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

from mdl import process
from mdl.cancel import CancelToken
from mdl.errors import Busy, Cancelled, Deadline, MdlError, UsageError
from mdl.events import Ended, Event, Listener, Noticed, silence
from mdl.jobs.background import begun, is_background, start
from mdl.jobs.hooks import hook_environment, hook_facts
from mdl.jobs.job import Invocation, Job
from mdl.jobs.log import Log, LogListener
from mdl.jobs.ready import Ready
from mdl.jobs.records import Records, now
from mdl.jobs.tracker import Tracker
from mdl.locks import Heartbeat
from mdl.process import ProcessId, hostname
from mdl.redact import Secrets

JOB_VARIABLE = "MDL_JOB"
"""Names the job that a process goes on with."""
LOG = "downloads.log"
_KEPT_SECONDS = 30 * 86400.0
"""How long the records of jobs that are over are kept."""


class Reporting(Protocol):
    """One operation as it is shown: a listener, from its first event to exactly one last."""

    end: Ended | None

    @property
    def is_well(self) -> bool: ...
    def __call__(self, event: Event) -> None: ...
    def release_terminal(self) -> None: ...
    def __enter__(self) -> Reporting: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Screen(Protocol):
    """What a job needs of what shows it: `mdl.console.Console` fits."""

    @property
    def secrets(self) -> Secrets: ...
    @property
    def is_machine_readable(self) -> bool: ...
    def watch(self, job: str, method: str, others: Sequence[Listener]) -> Reporting: ...
    def warn(self, text: str) -> None: ...
    def clean(self, text: str) -> str: ...


@dataclass(frozen=True)
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


class JobRun:
    """A job. ``with run as on_event``: a listener that shows, records and logs; at the end the hooks are run.

    ``folders`` says where each model lands. ``state`` is the folder of records and logs; without it the job goes on
    without a record.
    """

    def __init__(
        self,
        command: str,
        models: Sequence[str],
        folders: Callable[[], Mapping[str, Path]],
        *,
        invocation: Callable[[], Invocation],
        options: JobOptions,
        screen: Screen,
        state: Path | None,
        cancel: CancelToken,
        method: str = "http",
    ) -> None:
        """Raises `Busy`, `NotFound` or `StateError` if it is to resume a job that cannot be resumed."""
        self._command, self._models, self._folders, self._method = command, tuple(models), folders, method
        self._options, self._screen, self._state, self._cancel = options, screen, state, cancel
        self._is_unrecorded = self._is_resumed = False
        self._records = Records(state / "jobs") if state else None
        self._tracker = Tracker(self._begin(invocation), self._records, screen.secrets, self._no_record)
        self._logged: LogListener | None = None
        self._pulse: Heartbeat | None = None
        self._reporting: Reporting | None = None
        self._ready: Listener = silence

    @property
    def id(self) -> str:
        return self._tracker.job.id

    def _begin(self, invocation: Callable[[], Invocation]) -> Job:
        """A new job, or the one that is resumed."""
        resumed = os.environ.pop(JOB_VARIABLE, "")
        if resumed and self._records:
            job = self._records.find(resumed)
            if job.status == "running":
                raise Busy("it is running", item=resumed)
            self._is_resumed = True
            return replace(
                job,
                status="running",
                owner=str(ProcessId.current()),
                host=hostname(),
                finished_at=None,
                exit_code=None,
                error=None,
                file=None,
            )
        name = ""
        if self._records:
            try:
                name = self._records.new_id()
            except OSError as error:
                self._no_record(error)
                self._records = None
        log = str(self._records.log(name)) if self._records and self._options.is_logged else None
        return Job(name, self._command, self._models, str(ProcessId.current()), hostname(), invocation(), now(), log)

    def start_in_background(self, words: Sequence[str]) -> bool:
        """Have another process do it, with ``words`` as its command line; True once that has begun.

        In that process itself False: there the work is to be done. Raises `Busy` and others if it could not begin.
        """
        if self._records is None or not self.id:
            raise UsageError("a job needs a record to go on in the background", item="--detach")
        if is_background():
            self._tracker.write()
            begun()
            return False
        if not self._is_resumed:
            self._records.put(replace(self._tracker.job, status="paused"))
        log = self._records.log(self.id)
        code = start(self.id, words, {**os.environ, JOB_VARIABLE: self.id}, log)
        if code == Busy.exit_code:
            if not self._is_resumed:
                self._records.remove(self.id)
            raise Busy("another mdl started to work on these models first", hint="wait for it; 'mdl jobs' shows it")
        if code is not None:
            error = MdlError(
                "the background process ended before the job began", item=self.id, hint=f"the log says why: {log}"
            )
            error.exit_code = code
            raise error
        return True

    def replace_earlier(self) -> None:
        """Remove the records of earlier jobs of the same command and models that their time limit or window stopped:
        this job goes on with what they left."""
        if self._records is None:
            return
        job = self._tracker.job
        for one in self._records.all():
            was_stopped = one.status == "paused" and (one.error or {}).get("code") == Deadline.code
            if was_stopped and one.id != job.id and (one.command, one.models) == (job.command, job.models):
                self._records.remove(one.id)

    def __enter__(self) -> Reporting:
        listeners: list[Listener] = [self._tracker]
        self._reporting = self._screen.watch(self.id, self._method, listeners)
        try:
            self._pulse = self._new_pulse()
            self._tracker.write()
            if logs := self._logs():
                secrets, command = self._screen.secrets, self._tracker.job.command
                self._logged = LogListener(logs, secrets, self.id, command, self._no_log)
                listeners.append(self._logged)
            if self._options.ready_file:
                self._ready = Ready(self._options.ready_file, self._texts, self._not_ready)
                listeners.append(self._ready)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self._reporting

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        reporting, stopped = self._reporting, None
        assert reporting is not None
        try:
            if error is None and reporting.is_well:
                stopped = self._completed(reporting)
            reporting.__exit__(type(stopped) if stopped else kind, stopped or error, trace)
            if reporting.end and reporting.end.status == "failed":
                with contextlib.suppress(Cancelled):  # the failure is how it ended
                    self._run_hook(self._options.on_failure, reporting.end)
        finally:
            if self._logged:
                self._logged.close()
            if self._pulse:
                self._pulse.stop()
        if self._records:
            self._records.clean(_KEPT_SECONDS)
        if stopped:
            raise stopped

    def _completed(self, reporting: Reporting) -> Cancelled | None:
        """Everything is there. The hook is the last part of the job; what stopped it is returned."""
        self._ready(Ended())
        if self._options.on_complete:
            reporting.release_terminal()
            try:
                self._run_hook(self._options.on_complete, Ended())
            except Cancelled as stopped:
                return stopped
        return None

    def _new_pulse(self) -> Heartbeat | None:
        """The job's pulse; the job goes on without one if there can be none."""
        with contextlib.suppress(OSError):
            if self._records and self.id:
                return self._records.pulse(self.id)
        return None

    def _texts(self) -> dict[str, str]:
        return {name: str(path) for name, path in self._folders().items()}

    def _logs(self) -> list[Log]:
        options = self._options
        if not options.is_logged:
            return []
        paths = [options.log_file] if options.log_file else [self._state / LOG] if self._state else []
        own = self._tracker.job.log
        logs = []
        for path in [*paths, *([Path(own)] if own else [])]:
            try:
                logs.append(Log(path, is_own=path != options.log_file))
            except OSError as error:
                if not (self._is_unrecorded and path.parent == self._state):
                    self._no_log(path, error)
        return logs

    def _no_log(self, path: Path, error: OSError) -> None:
        self._screen.warn(f"no log is kept in {path}: {error.strerror}")

    def _no_record(self, error: OSError) -> None:
        self._is_unrecorded = True
        self._screen.warn(f"this job is not recorded: {error.filename or self._state}: {error.strerror}")

    def _not_ready(self, error: OSError) -> None:
        self._screen.warn(f"the ready file {self._options.ready_file}: {error.strerror}")

    def _run_hook(self, command: Sequence[str] | None, end: Ended) -> None:
        """What the user wants done then. If it fails a warning says so. Raises `Cancelled`."""
        if not command:
            return
        screen, trouble = self._screen, ""
        try:
            with hook_environment(hook_facts(self._tracker.job, self._texts(), end, screen.clean)) as facts:
                if code := process.run_program(
                    list(command), facts, silent=screen.is_machine_readable, cancel=self._cancel
                ):
                    trouble = f"the hook ended with {code}: {' '.join(command)}"
        except UsageError as error:
            trouble = f"the hook {error.item}: {error.message}"
        except OSError as error:
            trouble = f"the hook {command[0]}: was not run, for MDL_HOOK_FILE cannot be written: {error.strerror}"
        if trouble and self._logged:
            self._logged(Noticed(message=trouble))
        if trouble:
            screen.warn(trouble)
