"""Session: one run of a command: what was given on the command line, and how its result is shown."""

from __future__ import annotations

import select
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mdl.cli.flags import Common, JobFlags
from mdl.cli.signals import the_signals
from mdl.config import places
from mdl.config.settings import Config
from mdl.console import Console, ConsoleOptions
from mdl.errors import Cancelled, MdlError, Problem, UsageError, joint_error
from mdl.formatting import MOST_LISTED, as_written, listed
from mdl.paths import shown
from mdl.redact import redact

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mdl import Client, Model, Settings
    from mdl.jobs.job import Invocation
    from mdl.jobs.log import OperationLog
    from mdl.jobs.run import JobOptions, JobRun


class Outcome(Protocol):
    """A report, with the one error that sums up all failures."""

    @property
    def error(self) -> MdlError | None: ...


Watched = TypeVar("Watched", bound=Outcome)
_TICK = 0.1
"""Seconds between two looks at whether a signal came, while the user thinks about an answer."""
_KEPT_VARIABLES = (
    *("HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", *places.CACHE_VARIABLES),
    *("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"),
)
_OF_OTHERS = {"MDL_DETACH", "MDL_SERVE_TOKEN"}
_DROPPED_VARIABLES = {*_OF_OTHERS, *(f"MDL_{field.name.upper()}" for field in fields(Common))} - {"MDL_CATALOG"}


class Session:
    """A run of a command. ``empty`` is the content of its JSON document beside its results, and if it fails before it
    has any; ``words`` are the command line as it could be typed again."""

    def __init__(self, command: str, common: Common, environ: Mapping[str, str], words: tuple[str, ...] = ()) -> None:
        self.command = command
        self.common = common
        self.environ = environ
        self.words = words
        self.empty: dict[str, Any] = {}
        self.labels: Mapping[str, str] = {}
        """The names of the models at work as people write them, by what mdl calls them: ``org/repo``."""
        self.config = Config({}, environ, flags=True)
        """The settings without the flags of this command."""
        self._client: Client | None = None
        self.signals = the_signals()
        self.cancel = self.signals.cancel
        options = ConsoleOptions(
            progress=self._progress(),
            quiet=common.quiet,
            verbose=common.verbose,
            color=not common.no_color,
            json_output=common.json,
        )
        self.console = Console(options, environ, cancel=self.cancel)
        self.signals.before_suspend = self.console.hide_bars

    def _progress(self) -> Any:
        """How progress is to be told; as usual if that setting is wrong, which `check_config` reports."""
        try:
            return replace(self.config, given={"progress": self.common.progress})["progress"]
        except MdlError:
            return "auto"

    def config_of(self, settings: Settings) -> Config:
        """The settings with the flags of this command."""
        given = {**settings, "catalog": self.common.catalog}
        return replace(self.config, given=given, is_unattended="patience" in settings and self._is_unattended())

    def _is_unattended(self) -> bool:
        """Whether nobody waits for what is downloaded."""
        from mdl.jobs.processes import is_background

        return self.command == "prefetch" or is_background()

    def check_config(self) -> None:
        """Raises `UsageError` if ``config.toml``, or the setting that the console was made by, is wrong."""
        self.config.read()
        self.config.find("progress")

    def without_broken_file(self) -> MdlError | None:
        """Return the error of ``config.toml``, if it has one; then the command goes on without that file."""
        try:
            self.config.read()
        except UsageError as error:
            self.config = replace(self.config, read=dict)
            return error
        return None

    def client(self, settings: Settings | None = None, *, checked: bool = True) -> Client:
        """The client of this command, under ``settings``. Raises `UsageError` if they are to be ``checked`` and one of
        them is wrong."""
        from mdl import Client

        if self._client is None:
            config = self.config_of(settings or {})
            for name in settings or {} if checked else ():
                config.find(name)
            console = self.console
            self._client = Client(config=config, cancel=self.cancel, on_warning=console.warn, secrets=console.secrets)
        return self._client

    def spelled(self, item: str) -> str:
        """An item, such as a model or a file of one, with the model's name of `labels`."""
        return as_written(item, self.labels)

    def error(self, error: Problem) -> None:
        """Say on stderr what failed, its item `spelled`."""
        self.console.error(error.but(item=error.item and self.spelled(error.item)))

    def each_error(self, errors: Iterable[MdlError]) -> None:
        """Say on stderr what failed, item by item. The same hint is given once."""
        told_hints = set()
        for error in errors:
            hint = None if error.advice in told_hints else error.advice
            told_hints.add(error.advice)
            self.error(MdlError(error.message, item=error.item, hint=hint))

    def errors(self, errors: Sequence[MdlError]) -> MdlError | None:
        """Say on stderr what failed, item by item; of many the first, and how many more there are. If stderr is for a
        program, it is one error that sums them up, which is returned."""
        problem = joint_error(errors)
        if problem and self.console.is_machine_readable:
            self.console.error(problem)
            return problem
        self.each_error(errors[:MOST_LISTED])
        left = len(errors) - MOST_LISTED
        if left > 0:
            self.console.note(f"and {left:,} more failed; --json has them all", always=True)
        return problem

    def show(
        self,
        payload: Mapping[str, Any],
        text: Callable[[], object] = lambda: None,
        *,
        error: Problem | None = None,
    ) -> int:
        """Show the result: as the one document with ``--json``, else by ``text``. Returns the exit code.

        A key that is not in ``payload`` is as in ``empty``, or else as the schema has it for no result.
        """
        code = error.exit_code if error else 0
        if self.common.json:
            from mdl import schemas

            facts = {**schemas.empty(self.command), **self.empty, **payload}
            self.console.document(self.command, facts, exit_code=code, error=error)
        else:
            text()
        return code

    def job(
        self,
        models: Sequence[Model],
        folders: Mapping[str, Path],
        flags: JobFlags,
        method: str = "http",
    ) -> JobRun:
        """This command as a job of ``models``; ``folders`` are theirs. Raises `UsageError`, `Busy`."""
        client = self.client()
        from mdl.jobs.run import JobRequest, JobRun

        request = JobRequest(
            self.command,
            folders,
            invocation_of(self.words, self.environ, self.console.secrets),
            self._job_options(flags),
            method,
            _common(model.kind for model in models),
            _common(client.repo(model) for model in models),
        )
        state = self.state_dir("" if flags.detach else "the job is not recorded and nothing is logged")
        return JobRun(request, self.console, state, self.cancel)

    @property
    def can_ask(self) -> bool:
        """Whether there is a user to ask, and who sees what the question is about: nobody is asked without a terminal,
        with ``--json``, with ``--progress json``, and where only failures are shown."""
        console = self.console
        is_terminal = console.stderr.is_terminal and bool(sys.stdin) and sys.stdin.isatty()
        return is_terminal and not self.common.json and not console.quiet and not console.is_machine_readable

    def confirm(self, question: str) -> bool | None:
        """Whether the user says yes; None if nobody can be asked. Raises `Cancelled`."""
        answer = self.ask(f"{question} [y/N]", "nothing was deleted")
        return None if answer is None else answer.lower() in ("y", "yes")

    def ask(self, question: str, if_cancelled: str) -> str | None:
        """The user's answer to a question; None if nobody can be asked. Raises `Cancelled`, with the hint
        ``if_cancelled``."""
        if not self.can_ask:
            return None
        screen = self.console.stderr
        try:
            screen.write(f"{self.console.clean(question)} ")
            while not select.select([sys.stdin], [], [], _TICK)[0]:
                self.cancel.check()
        except Cancelled as stopped:
            screen.write("\n")  # the question is an unfinished line
            raise stopped.but(hint=if_cancelled) from stopped.__cause__
        return sys.stdin.readline().strip()

    def watched(self, work: Callable[..., Watched], method: str = "http") -> Watched:
        """Do ``work(on_event=...)`` while the console shows how it goes; returns its report."""
        with self.console.watch(method=method) as on_event:
            report = work(on_event=on_event)
            on_event.end_with(report.error)
        return report

    def operation_log(self, log_file: str | None) -> AbstractContextManager[OperationLog]:
        """The downloads log of this command, which is no job: ``log_file``, or the one in the state folder."""
        from mdl.jobs.log import DOWNLOADS, operation_log

        path, where = replace(self.config, given={"log_file": log_file}).find("log_file")
        if path is None and (state := self.state_dir("nothing is logged")):
            path = state / DOWNLOADS
        return operation_log(self.console, self.command, typed(self.words), path or None, is_own=not where)

    def state_dir(self, without: str) -> Path | None:
        """The state folder. For a user without a home folder it is None, and a warning says what mdl does ``without``
        it, if anything is to be said."""
        try:
            return places.state_dir()
        except UsageError:
            if without:
                self.console.warn(f"this user has no home folder: {without}")
            return None

    def is_detached(self, flags: JobFlags) -> bool:
        """Whether the job is to go on in the background, and this process is not that one."""
        from mdl.jobs.processes import is_background

        return flags.detach and not is_background()

    def start_in_background(self, run: JobRun) -> int:
        """Have another process carry the job out; its id is all there is to show. Returns the exit code."""
        run.start_in_background(with_flags(self.words, ["--progress=none", "--quiet"]))
        return self.show({"job": run.id}, lambda: self.console.data(run.id))

    def _job_options(self, flags: JobFlags) -> JobOptions:
        from mdl.jobs.run import JobOptions

        given = {"log_file": flags.log_file, "hooks.on_complete": flags.on_complete}
        config = replace(self.config, given=given)
        log_file = config["log_file"]
        return JobOptions(
            on_complete=config["hooks.on_complete"],
            on_failure=config["hooks.on_failure"],
            ready_file=places.output_file(flags.ready_file, "--ready-file"),
            log_file=log_file or None,
            is_logged=log_file != "",
        )


def _common(texts: Iterable[str]) -> str | None:
    """The text, if all are the same and not empty."""
    different = set(texts)
    if len(different) != 1:
        return None
    return different.pop() or None


def with_flags(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The words of a command, which may be two, with more flags behind it."""
    at = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    return [*words[:at], *flags, *words[at:]]


def warn_of_queries(session: Session, left_out: Sequence[str]) -> None:
    """Say on one line of stderr of which files and models something of a URL stays on this machine."""
    if not left_out:
        return
    names = listed([shown(name) for name in left_out])
    session.console.warn(f"the query or the password of these URLs may be a secret, so it is left out: {names}")


def note_new_catalog(session: Session) -> None:
    """Say that the catalog in use was made by this command, and that it takes the place of the shipped one."""
    session.console.note("this catalog is new, and yours; a comment in it says how to extend other catalogs")


def typed(words: Iterable[str]) -> str:
    """The words of a command as they could be typed into a shell."""
    words = list(words)
    if "--" in words:
        at = words.index("--")
        if not any(word.startswith("-") for word in words[at + 1 :]):
            del words[at]
    return shlex.join(words)


def is_recorded(name: str) -> bool:
    """Whether a variable says what a command is to do: then it is in the record of its job, and no other value of it
    counts when the job is resumed (ADR 159)."""
    from mdl.jobs.job import JOB_VARIABLE

    is_setting = name.startswith("MDL_") and name not in _DROPPED_VARIABLES and name != JOB_VARIABLE
    return is_setting or name in _KEPT_VARIABLES


def invocation_of(words: tuple[str, ...], environ: Mapping[str, str], secrets: Iterable[str] = ()) -> Invocation:
    """Return the record of a command, to resume it later. A secret is not recorded: then ``withheld`` is set."""
    from mdl.jobs.job import Invocation

    known = tuple(secrets)
    variables = {}
    withheld = False
    for name, value in environ.items():
        if not is_recorded(name):
            continue
        if redact(value, known) == value:
            variables[name] = value
        else:
            withheld = True
    clean = tuple(redact(word, known) for word in words)
    withheld = withheld or clean != words
    return Invocation(clean, str(places.working_folder()), variables, withheld=withheld)
