"""Run: the life of a job, one get, prefetch or repair: its record, the listeners that keep that and the ready file up
to date, and its hooks, the programs of the user's that are run when it has ended."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdl.cancel import CancelToken
from mdl.console.state import State
from mdl.describe import describe
from mdl.disk import process, publish
from mdl.disk.process import ProcessId, hostname
from mdl.errors import Busy, Cancelled, Deadline, MdlError, Paused, StorageError, UsageError
from mdl.events import Ended, Event, FileProgress, Listener, Planned, Progressed, Started, silence
from mdl.formatting import json_bytes, utc_now
from mdl.jobs.job import JOB_VARIABLE, Invocation, Job
from mdl.jobs.log import DOWNLOADS, Log, LogListener, LogSource, no_log
from mdl.jobs.processes import begun, start
from mdl.jobs.records import JobFile, Records
from mdl.redact import Secrets, redact
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.console import Console
    from mdl.console.session import ReportSession


_WRITE_SECONDS = 0.5
"""How often the state is written at first, which other terminals show."""
_LONGEST_WRITE_SECONDS = 5.0
_SLOWER = 400
"""A job that has run for so many times `_WRITE_SECONDS` seconds writes its state less and less often: a state is kept
for ever, and a job may run for weeks (ADR 70)."""
_KEPT_SECONDS = 30 * 86400.0
"""How long the records of jobs that are over are kept."""
_LONGEST_VARIABLE = 32 * 1024
"""Bytes of one variable of a hook: Linux allows 128 KiB, and all of them must fit beside the user's own."""


class Tracker:
    """A listener that keeps ``job`` up to date, and its ``file``, with the figures of the download, whose ``state``
    takes in each event before this does.

    ``trouble`` is called once if the file cannot be written; the job goes on without one, as it does if ``file`` is
    None.
    """

    def __init__(
        self,
        job: Job,
        file: JobFile | None,
        state: State,
        secrets: Secrets,
        trouble: Callable[[OSError], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job = job
        self._file = file
        self._state = state
        self._secrets = secrets
        self._trouble = trouble
        self._clock = clock
        self._current_file = job.file
        self._running: tuple[FileProgress, ...] = ()
        self._is_planned = job.is_planned
        self._is_lost = False
        self._began_at = clock()
        self._written_at = -math.inf

    def __call__(self, event: Event) -> None:
        """Write the state at the start, at the end, and now and then."""
        if isinstance(event, Ended):
            self._end(event)
        elif isinstance(event, Planned):
            self._is_planned = self._is_planned or event.files > 0
            self.write()
        elif isinstance(event, Started):
            self._is_planned = True
            self._current_file = f"{event.model}/{event.file}"
        elif isinstance(event, Progressed):
            self._running = event.files
            if event.files:
                self._current_file = f"{event.files[0].model}/{event.files[0].file}"
            now = self._clock()
            pause = (now - self._began_at) / _SLOWER
            if now - self._written_at >= min(max(_WRITE_SECONDS, pause), _LONGEST_WRITE_SECONDS):
                self.write()

    def write(self) -> None:
        """Write the state as it is now."""
        self._written_at = self._clock()
        if not self.job.finished_at:
            self.job = replace(self.job, file=self._current_file, running=self._running, is_planned=self._is_planned)
        if self._state.has_plan:
            self.job = replace(self.job, **self._figures())
        if self._file is None:
            return
        try:
            self._file.add_state(self.job)
        except OSError as error:
            if not self._is_lost:
                self._is_lost = True
                self._trouble(error)

    def _figures(self) -> dict[str, Any]:
        """The figures of the download. Until the first byte comes no speed is known; after that a speed of 0 means that
        it stalls. A job that is over has neither speed nor time left."""
        state = self._state
        figures: dict[str, Any] = {
            "bytes_done": state.bytes_done,
            "bytes_total": state.whole_total or None,
            "bytes_per_second": None,
            "eta_seconds": None,
            "waiting": None,
        }
        if self.job.finished_at:
            return figures
        if state.has_moved:
            figures["bytes_per_second"] = _rounded(state.rate)
        if state.outage:
            figures["waiting"] = redact(state.outage, self._secrets)
        figures["eta_seconds"] = _rounded(state.eta)
        return figures

    def _end(self, event: Ended) -> None:
        error = None
        if event.message is not None:
            error = dict(describe(event).error or {})
            for key, text in error.items():
                if text:
                    error[key] = redact(text, self._secrets)
        is_done = event.status == "finished"
        self.job = replace(
            self.job,
            status="done" if is_done else event.status,
            running=(),
            file=None if is_done else self._current_file,
            is_planned=self._is_planned,
            finished_at=utc_now(),
            exit_code=event.exit_code,
            error=error,
        )
        self.write()


def _rounded(number: float | None) -> float | None:
    """Return the number with one digit after the point; None if it is not known, or none that JSON has."""
    if number is None or not math.isfinite(number):
        return None
    return round(number, 1)


class ReadyFile:
    """A listener that keeps a file which exists only while everything that was asked for is here.

    The file is removed when something has to be fetched or the run fails, and written when all ended well. ``trouble``
    is called once if it cannot be written or removed.
    """

    def __init__(self, path: Path, models: Mapping[str, Path], trouble: Callable[[OSError], None]) -> None:
        self._path = path
        self._models = models
        self._trouble = trouble
        self._is_lost = self._is_written = False

    def __call__(self, event: Event) -> None:
        try:
            match event:
                case Started() | Ended(status="failed"):
                    self._is_written = False
                    publish.unpublish(self._path)
                case Ended(status="finished") if not self._is_written:
                    self._is_written = True
                    models = {name: str(path) for name, path in self._models.items()}
                    data = json.dumps({"schema": "mdl.ready/1", "time": utc_now(), "models": models}).encode()
                    publish.write_file(self._path, data + b"\n", mode=0o644, sweep_first=True)
        except OSError as error:
            if not self._is_lost:
                self._is_lost = True
                self._trouble(error)


@value_class
class JobOptions:
    """Hooks, files and logs of a job. Hooks are commands, as words; they are started without a shell.

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
    """The work of a job: a ``command`` for models, whose ``folders`` are by their names.

    ``kind`` and ``repo`` are what the models have in common. ``method`` is how
    the files come.
    """

    command: str
    folders: Mapping[str, Path]
    invocation: Invocation
    options: JobOptions
    method: str = "http"
    kind: str | None = None
    repo: str | None = None


class JobRun:
    """A job: carried out by this process (`running`) or by another one (`start_in_background`).

    ``state`` is the folder of the files of jobs; without it, or if it cannot be written, the job runs without a file.
    """

    def __init__(
        self,
        request: JobRequest,
        console: Console,
        state: Path | None,
        cancel: CancelToken,
    ) -> None:
        """Raises `Busy`, `NotFound` or `StateError` if it is to resume a job that cannot be resumed."""
        self._request = request
        self._console = console
        self._state = state
        self._cancel = cancel
        self._stamp = ""
        """The `Job.stamp` of the job that is resumed, of the moment when that was decided."""
        self._records: Records | None = None
        """None as well as ``_file`` if the job runs without a file."""
        self._why_no_file = ""
        self._file: JobFile | None = None
        self._job = self._new()
        self._logged: LogListener | None = None
        if state is None:
            return
        records = Records(state / "jobs")
        self._job = self._resumed(records) or self._job
        try:
            if not self._stamp:
                self._job = records.create(self._job, is_logged=request.options.is_logged)
            self._file = records.open(self._job.id)
            self._records = records
        except OSError as error:
            self._why_no_file = error.strerror or str(error)
            self._no_record(error)

    @property
    def id(self) -> str:
        return self._job.id

    def _new(self) -> Job:
        request = self._request
        return Job(
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
            is_planned=False,
        )

    def _resumed(self, records: Records) -> Job | None:
        """The job that is resumed, if this process is to resume one."""
        name, _, stamp = os.environ.pop(JOB_VARIABLE, "").partition(" ")
        if not name:
            return None
        job = records.find(name)
        if job.status == "running":
            raise Busy("it is running", item=name)
        self._stamp = stamp or job.stamp
        return replace(
            job,
            status="running",
            owner=self._job.owner,
            host=self._job.host,
            finished_at=None,
            exit_code=None,
            error=None,
            file=None,
            running=(),
            kind=self._job.kind,
            repo=self._job.repo,
            method=self._job.method,
        )

    def start_in_background(self, words: Sequence[str]) -> None:
        """Have another process do it, with ``words`` as its command line, and return once that has begun.

        Raises `Busy` if another one works on these models, `StorageError` if no record of it can be written, and others
        if it could not begin.
        """
        if self._file is None and self._state is not None:
            why = f"a job in the background needs a record: {self._why_no_file}"
            raise StorageError(why, item=str(self._state), hint="XDG_STATE_HOME can name another folder")
        if self._records is None or self._file is None:
            raise UsageError("a job needs a record to continue in the background", item="--detach")
        is_new = not self._stamp
        if is_new:
            job = replace(self._job, status="paused")
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
        """Remove the records of earlier jobs of the same request that their time limit or window stopped: this job
        continues from what they left."""
        job = self._job
        if self._records is None or job.request is None:
            return
        for earlier in self._records.all():
            was_stopped = earlier.status == "paused" and (earlier.error or {}).get("code") == Deadline.code
            if was_stopped and earlier.request == job.request and earlier.id != job.id:
                self._records.remove(earlier.id)

    @contextlib.contextmanager
    def running(self) -> Iterator[ReportSession]:
        """Carry the job out: the events of the block are shown, recorded and logged. At the end the hooks are run."""
        self.take_over()
        options = self._request.options
        listeners: list[Listener] = []
        reporting = self._console.watch(self.id, self._request.method, listeners)
        tracker = Tracker(self._job, self._file, reporting.state, self._console.secrets, self._no_record)
        listeners.append(tracker)
        with contextlib.ExitStack() as stack:
            if self._records is not None and self._file is not None:
                stack.callback(self._file.close)
                stack.callback(self._records.clean, _KEPT_SECONDS)
            try:
                with reporting:
                    listeners.append(self._sign_of_life(stack))
                    tracker.write()
                    begun()
                    listeners += self._logs(stack)
                    ready_file = self._ready_file()
                    listeners.append(ready_file)
                    yield reporting
                    if reporting.is_well:
                        ready_file(Ended())
                        if options.on_complete:
                            reporting.release_terminal()
                            self._run_hook(options.on_complete, tracker, Ended())
            finally:
                end = reporting.end
                if end is not None and end.status == "failed" and options.on_failure:
                    with contextlib.suppress(Cancelled):  # the failure is how it ended
                        self._run_hook(options.on_failure, tracker, end)

    def take_over(self) -> None:
        """Write down that this process carries out the job that it resumes.

        Raises `Busy`, `Paused` or `Cancelled` if another process has resumed, paused or cancelled it since that was
        decided, `NotFound` if its record was removed, `StateError`.
        """
        if self._records is None or not self._stamp:
            return
        try:
            if self._records.replace(self._job, self._stamp):
                return
        except OSError:
            return  # the record cannot be written, and the first event says so
        status = self._records.find(self.id).status
        why = "another process has {} it meanwhile"
        if status == "paused":
            raise Paused(why.format("paused"))
        if status == "cancelled":
            raise Cancelled(why.format("cancelled"), terminated=True)
        raise Busy(why.format("resumed"), item=self.id, hint=f"mdl jobs watch {self.id}")

    def _sign_of_life(self, stack: contextlib.ExitStack) -> Listener:
        """Return the listener that touches the job's pulse until ``stack`` is left. A job can do without one."""
        if self._records is None:
            return silence
        try:
            pulse = self._records.pulse(self.id)
        except OSError:
            return silence
        stack.callback(pulse.stop)
        return lambda _event: pulse.touch()

    def _logs(self, stack: contextlib.ExitStack) -> list[Listener]:
        """Return the listener that logs the job until ``stack`` is left: into its file and the log of all downloads."""
        options = self._request.options
        if not options.is_logged:
            return []
        log = None
        path = options.log_file
        if path is None and self._state is not None:
            path = self._state / DOWNLOADS
        if path is not None:
            try:
                log = Log(path, is_own=path != options.log_file)
            except OSError as error:
                is_said = self._file is None and path.parent == self._state
                if not is_said:
                    self._no_log(path, error)
        if log is None and self._file is None:
            return []
        source = LogSource(self.id, os.getpid(), self._request.command)
        self._logged = LogListener(log, self._console.secrets, source, self._no_log, self._file)
        stack.callback(self._logged.close)
        return [self._logged]

    def _ready_file(self) -> Listener:
        """Return the listener that keeps the ready file, if there is to be one."""
        ready_file = self._request.options.ready_file
        if ready_file is None:
            return silence

        def warn(error: OSError) -> None:
            self._console.warn(f"the ready file {ready_file}: {error.strerror}")

        return ReadyFile(ready_file, self._request.folders, warn)

    def _no_log(self, path: Path | None, error: OSError) -> None:
        """Warn of a log that cannot be written. That the job's own file cannot be is said once, by the tracker."""
        if path is not None:
            self._console.warn(no_log(path, error))

    def _no_record(self, error: OSError) -> None:
        self._console.warn(f"this job is not recorded: {error.filename or self._state}: {error.strerror}")

    def _run_hook(self, command: Sequence[str], tracker: Tracker, end: Ended) -> None:
        """Run a program of the user's. If it fails a warning says so. Raises `Cancelled`."""
        tracker.write()  # a hook may look at the job
        console = self._console
        facts = hook_facts(tracker.job, self._request.folders, end, console.clean)
        trouble = run_hook(command, facts, self._cancel, is_silent=console.is_machine_readable)
        if trouble:
            if self._logged:
                self._logged.note("", trouble)
            console.warn(trouble)


def run_hook(command: Sequence[str], facts: Mapping[str, Any], cancel: CancelToken, *, is_silent: bool) -> str:
    """Run ``command``, which gets the ``facts``; its output goes nowhere if it ``is_silent``. Returns what went
    wrong, or nothing. Raises `Cancelled`."""
    try:
        with hook_environment(facts) as variables:
            code = process.run_program(list(command), variables, silent=is_silent, cancel=cancel)
    except UsageError as error:
        return f"the hook {error.item}: {error.message}"
    except OSError as error:
        return f"the hook {command[0]}: was not run, for MDL_HOOK_FILE cannot be written: {error.strerror}"
    return f"the hook ended with {code}: {' '.join(command)}" if code else ""


def hook_facts(job: Job, folders: Mapping[str, Path], end: Ended, clean: Callable[[str], str]) -> dict[str, Any]:
    """Return the facts of a job for a hook; ``folders`` are those of its models, ``clean`` redacts a text."""
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
    """Return as many of the lines as one variable may have."""
    left = _LONGEST_VARIABLE
    fitting = []
    for line in lines:
        left -= len(os.fsencode(line)) + 1
        if left < 0:
            break
        fitting.append(line)
    return "\n".join(fitting)
