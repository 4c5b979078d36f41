"""Session: one run of a command: what was said on the command line, who looks, and how its result is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdl import places
from mdl.cli.flags import Common, JobFlags
from mdl.cli.signals import the_signals
from mdl.config import Config
from mdl.console import Console
from mdl.errors import Problem, UsageError

if TYPE_CHECKING:
    from mdl.client import Client
    from mdl.config import Settings
    from mdl.jobs.run import JobOptions, JobRun


class Session:
    """One command's run. ``empty`` is what its JSON document holds if it fails before it has results; ``words`` are the
    command line as it could be typed again."""

    def __init__(self, command: str, common: Common, environ: Mapping[str, str], words: tuple[str, ...] = ()) -> None:
        self.command, self.common, self.environ, self.words = command, common, environ, words
        self.empty: dict[str, Any] = {}
        self._clients: dict[str, Client] = {}
        self.signals = the_signals()
        self.cancel = self.signals.cancel
        self.console = Console(
            progress=common.progress.value if common.progress else "auto",
            quiet=common.quiet,
            verbose=common.verbose,
            color=not common.no_color,
            json_output=common.json,
            environ=environ,
            cancel=self.cancel,
        )

    @cached_property
    def config(self) -> Config:
        """The settings without the flags of this command."""
        return Config({}, self.environ, flags=True)

    def check_config(self) -> None:
        """Raises `UsageError` if ``config.toml`` is wrong."""
        assert self.config.file is not None

    def client(self, settings: Settings | None = None) -> Client:
        """A client under the settings in effect. Raises `UsageError` if one that the command has is wrong."""
        from mdl.client import Client

        key = repr(settings)
        if key in self._clients:
            return self._clients[key]
        config = replace(self.config, given={**(settings or {}), "catalog": self.common.catalog})
        for name in settings or {}:
            config.find(name)
        console = self.console
        made = Client(config=config, cancel=self.cancel, on_warning=console.warn, secrets=console.secrets)
        self._clients[key] = made
        return made

    def show(
        self,
        payload: Mapping[str, Any],
        text: Callable[[], object] = lambda: None,
        *,
        error: Problem | None = None,
    ) -> int:
        """Tell the result: as the one document with ``--json``, else by ``text``. Returns the exit code."""
        code = error.exit_code if error else 0
        if self.common.json:
            self.console.document(self.command, payload, ok=code == 0, exit_code=code, error=error)
        else:
            text()
        return code

    def job(
        self,
        client: Client,
        models: Sequence[str],
        folders: Callable[[], Mapping[str, Path]],
        flags: JobFlags,
        method: str = "http",
    ) -> JobRun:
        """This command as a job. Raises `UsageError`, `Busy`."""
        assert client.workspace.endpoint  # its token must be known before any word of the command is recorded
        from mdl.cli.words import invocation_of
        from mdl.jobs.run import JobRun

        state = None
        try:
            state = places.state_dir()
        except UsageError:
            if not flags.detach:
                self.console.warn("this user has no home folder: the job is not recorded and nothing is logged")
        return JobRun(
            self.command,
            models,
            folders,
            invocation=lambda: invocation_of(self.words, self.environ, self.console.secrets),
            options=self._job_options(flags),
            screen=self.console,
            state=state,
            cancel=self.cancel,
            method=method,
        )

    def _job_options(self, flags: JobFlags) -> JobOptions:
        from mdl.jobs.run import JobOptions
        from mdl.process import split_command

        hooks = self.config.file.get("hooks", {})
        is_off = self._is_off(flags.on_complete, "--on-complete")
        on_complete = None if is_off else flags.on_complete or hooks.get("on_complete")
        on_failure = hooks.get("on_failure")
        return JobOptions(
            on_complete=split_command(on_complete, "--on-complete") if on_complete else None,
            on_failure=split_command(on_failure, "[hooks] on_failure") if on_failure else None,
            ready_file=places.output_file(flags.ready_file, "--ready-file") if flags.ready_file else None,
            log_file=places.expanded(flags.log_file, "--log-file") if flags.log_file else None,
            is_logged=not self._is_off(flags.log_file, "--log-file"),
        )

    def _is_off(self, value: str | None, flag: str) -> bool:
        """Whether an empty text, given by ``flag``, its variable or its setting, switches off what it would name."""
        is_said = any(word.startswith(flag) for word in self.words)
        variable = "MDL_" + flag[2:].upper().replace("-", "_")
        return value == "" or (not is_said and self.environ.get(variable) == "")
