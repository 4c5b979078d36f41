"""Working: one command as a job: its record, its logs, its hooks, and whether it needs this terminal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from mdl import process
from mdl.cli import places
from mdl.cli.flags import Unattended
from mdl.cli.session import Session
from mdl.cli.words import JOB_VARIABLE, again, in_background
from mdl.console.watch import Watch
from mdl.errors import Busy, Cancelled, Deadline, MdlError, UsageError
from mdl.events import Ended, Listener, Noticed, silence
from mdl.jobs.background import begun, is_background, start
from mdl.jobs.hooks import hook_facts, told
from mdl.jobs.job import Job
from mdl.jobs.log import Log, Logged
from mdl.jobs.ready import Ready
from mdl.jobs.records import Records, now
from mdl.jobs.tracker import Tracker
from mdl.locks import Heartbeat
from mdl.process import ProcessId, hostname
from mdl.schemas import empty

LOG = "downloads.log"
_KEPT_SECONDS = 30 * 86400.0
"""How long the records of jobs that are over are kept."""


class Work:
    """A job. ``with work as tell``: a listener that shows, records and logs; what was left to do is done at the end.

    ``folder`` says where a model lands. Without a state folder it goes on without a record, and says so.
    """

    def __init__(
        self,
        session: Session,
        models: Sequence[str],
        folder: Callable[[str], Path],
        wishes: Unattended,
        method: str = "http",
    ) -> None:
        self._session, self._models, self._folder, self._wishes, self._method = session, models, folder, wishes, method
        hooks = session.config.get("hooks", {})
        is_off = _is_off(session, wishes.on_complete, "--on-complete")
        on_complete = None if is_off else wishes.on_complete or hooks.get("on_complete")
        self._on_complete = _hook(on_complete, "--on-complete")
        self._on_failure = _hook(hooks.get("on_failure"), "[hooks] on_failure")
        self._log_file = places.expanded(wishes.log_file, "--log-file") if wishes.log_file else None
        self._ready_file = places.output_file(wishes.ready_file, "--ready-file") if wishes.ready_file else None
        self._is_unrecorded = self._is_resumed = False
        self._state = _state_folder(session, wishes)
        self._records = Records(self._state / "jobs") if self._state else None
        self._tracker = Tracker(self._begin(), self._records, session.console.secrets, self._no_record)
        self._logged: Logged | None = None
        self._pulse: Heartbeat | None = None
        self._watch: Watch | None = None
        self._ready: Listener = silence

    @property
    def id(self) -> str:
        return self._tracker.job.id

    @property
    def log(self) -> str | None:
        return self._tracker.job.log

    def leaves(self) -> bool:
        """With ``--detach``: True once the job has begun in the background, and its id is all there is to say.

        Raises `Busy` and other errors where it could not begin.
        """
        if not self._wishes.detach:
            return False
        if self._records is None or not self.id:
            raise UsageError("a job needs a record to go on in the background", item="--detach")
        if is_background():
            self._tracker.write()
            begun()
            return False
        if not self._is_resumed:
            self._records.put(replace(self._tracker.job, status="paused"))
        words, log = in_background(self._session.words, self._session.common), self._records.log(self.id)
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
        this one goes on with what they left."""
        if self._records is None:
            return
        job = self._tracker.job
        for one in self._records.all():
            is_left = one.status == "paused" and (one.error or {}).get("code") == Deadline.code
            if is_left and one.id != job.id and (one.command, one.models) == (job.command, job.models):
                self._records.remove(one.id)

    def __enter__(self) -> Watch:
        listeners: list[Listener] = [self._tracker]
        self._watch = self._session.console.watch(self.id, self._method, listeners)
        try:
            self._pulse = self._beating()
            self._tracker.write()
            if logs := self._logs():
                secrets, command = self._session.console.secrets, self._tracker.job.command
                self._logged = Logged(logs, secrets, self.id, command, self._no_log)
                listeners.append(self._logged)
            if self._ready_file:
                self._ready = Ready(self._ready_file, self._folders, self._not_ready)
                listeners.append(self._ready)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self._watch

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        watch, stopped = self._watch, None
        assert watch is not None
        try:
            if error is None and watch.is_well:
                stopped = self._completed(watch)
            watch.__exit__(type(stopped) if stopped else kind, stopped or error, trace)
            if watch.end and watch.end.status == "failed":
                with contextlib.suppress(Cancelled):  # the failure is how it ended
                    self._run_hook(self._on_failure, watch.end)
        finally:
            if self._logged:
                self._logged.close()
            if self._pulse:
                self._pulse.stop()
        if self._records:
            self._records.clean(_KEPT_SECONDS)
        if stopped:
            raise stopped

    def _completed(self, watch: Watch) -> Cancelled | None:
        """All is there. The hook is the last part of the job, which is over when the hook is; tells what stopped it."""
        self._ready(Ended())
        if self._on_complete:
            watch.put_away()
            try:
                self._run_hook(self._on_complete, Ended())
            except Cancelled as stopped:
                return stopped
        return None

    def _beating(self) -> Heartbeat | None:
        """The job's pulse; it goes on without where there can be none."""
        with contextlib.suppress(OSError):
            if self._records and self.id:
                return self._records.pulse(self.id)
        return None

    def _folders(self) -> dict[str, str]:
        return {name: str(self._folder(name)) for name in self._models}

    def _begin(self) -> Job:
        """A new job, or the one that is gone on with. Raises `Busy`, `NotFound`, `StateError`."""
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
        log = str(self._records.log(name)) if self._records and not self._is_unlogged else None
        words = again(self._session.words, self._session.environ, self._session.console.secrets)
        return Job(
            name, self._session.command, tuple(self._models), str(ProcessId.current()), hostname(), words, now(), log
        )

    @property
    def _is_unlogged(self) -> bool:
        return _is_off(self._session, self._wishes.log_file, "--log-file")

    def _logs(self) -> list[Log]:
        if self._is_unlogged:
            return []
        paths = [self._log_file] if self._log_file else [self._state / LOG] if self._state else []
        logs = []
        for path in [*paths, *([Path(self.log)] if self.log else [])]:
            try:
                logs.append(Log(path, is_own=path != self._log_file))
            except OSError as error:
                if not (self._is_unrecorded and path.parent == self._state):
                    self._no_log(path, error)
        return logs

    def _no_log(self, path: Path, error: OSError) -> None:
        self._session.console.warn(f"no log is kept in {path}: {error.strerror}")

    def _no_record(self, error: OSError) -> None:
        self._is_unrecorded = True
        self._session.console.warn(f"this job is not recorded: {error.filename or self._state}: {error.strerror}")

    def _not_ready(self, error: OSError) -> None:
        self._session.console.warn(f"the ready file {self._wishes.ready_file}: {error.strerror}")

    def _run_hook(self, command: list[str] | None, end: Ended) -> None:
        """What the user wants done then. Its failure is told, and changes nothing. Raises `Cancelled`."""
        if not command:
            return
        console, trouble = self._session.console, ""
        job, folders = self._tracker.job, self._folders()
        try:
            with told(hook_facts(job, folders, end, console.clean)) as facts:
                if code := process.run_program(
                    command, facts, silent=console.progress == "json", cancel=self._session.cancel
                ):
                    trouble = f"the hook ended with {code}: {' '.join(command)}"
        except UsageError as error:
            trouble = f"the hook {error.item}: {error.message}"
        except OSError as error:
            trouble = f"the hook {command[0]}: was not run, for MDL_HOOK_FILE cannot be written: {error.strerror}"
        if trouble and self._logged:
            self._logged(Noticed(message=trouble))
        if trouble:
            self._session.console.warn(trouble)


def _is_off(session: Session, value: str | None, flag: str) -> bool:
    """Whether an empty text, given by ``flag``, its variable or its setting, switches off what it would name."""
    is_said = any(word.startswith(flag) for word in session.words)
    variable = "MDL_" + flag[2:].upper().replace("-", "_")
    return value == "" or (not is_said and session.environ.get(variable) == "")


def _hook(command: str | None, what: str) -> list[str] | None:
    return process.split_command(command, what) if command else None


def _state_folder(session: Session, wishes: Unattended) -> Path | None:
    with contextlib.suppress(UsageError):
        return places.state_dir()
    if not wishes.detach:
        session.console.warn("this user has no home folder: the job is not recorded and nothing is logged")
    return None


def tell_elsewhere(session: Session, job: str) -> int:
    """It goes on in the background: its id is all there is to say."""
    if session.common.json:
        session.console.document(session.command, empty(session.command) | {"job": job}, ok=True, exit_code=0)
    else:
        session.console.data(job)
    return 0
