"""Flags that several commands share, as frozen groups. `mdl.cli.command` spreads them over a command's signature."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from mdl.cli.completion import completion_script, install_completion, offers
from mdl.config.settings import Progress, Settings, settings_table
from mdl.errors import UsageError
from mdl.values import value_class
from mdl.version import full_version

PANELS: Final = ("What", "Where", "Speed and hours", "Lock", "Afterwards", "Output")
"""The headings under which the help shows the flags of a command, in this order."""
ROOT_PANEL: Final = "Options, before or after the command"
"""The heading of the flags that all commands share, in the help of ``mdl`` itself."""


def flag(usage: str, about: str, *, panel: str = "What", **more: Any) -> Any:
    """A flag as its help shows it: ``-o --output FILE``, in the ``panel`` of that name. ``--output`` is also read from
    ``MDL_OUTPUT``. What Tab offers is told by the word for its value."""
    words = usage.split()
    names = [word for word in words if word.startswith("-")]
    value = " ".join(words[len(names) :])
    options: dict[str, Any] = {
        "envvar": "MDL_" + names[-1][2:].upper().replace("-", "_"),
        "show_envvar": False,
        "metavar": value or None,
        "rich_help_panel": panel,
        "autocompletion": offers(value),
    }
    return typer.Option(*names, help=about, **options | more)


def argument(word: str, about: str, **more: Any) -> Any:
    """An argument as its help shows it: the ``word`` that stands for its value, and what that is. The word also tells
    what Tab offers."""
    options = {"autocompletion": offers(word), **more}
    return typer.Argument(metavar=word, help=about, show_default=False, **options)


bare_flag = partial(flag, envvar=None)
"""A flag that is read from no variable: it speaks of one target, or of how this one answer is shown."""


def check_alone(name: str, others: Mapping[str, object], why: str) -> None:
    """Raises `UsageError`, which says ``why``, if any of the ``others`` was given beside the flag ``name``."""
    given = [other for other, value in others.items() if value not in (None, False)]
    if given:
        raise UsageError(why, item=name, hint=f"leave out {' and '.join(given)}")


def _version(wanted: bool | None) -> None:
    if wanted:
        sys.stdout.write(f"mdl {full_version()}\n")
        raise typer.Exit


def _install_completion(shell: str | None) -> None:
    if shell:
        sys.stdout.write(f"{install_completion(shell, os.environ)}\n")
        raise typer.Exit


def _show_completion(shell: str | None) -> None:
    if shell:
        sys.stdout.write(completion_script(shell, os.environ))
        raise typer.Exit


_ending = partial(flag, panel="Output", envvar=None, is_eager=True)
"""A flag that has mdl do something else than run a command."""


@value_class
class Common:
    """The flags of every command, before or after it, with one meaning."""

    catalog: Annotated[
        list[Path] | None, bare_flag("--catalog FILE", "Use this catalog; repeatable (MDL_CATALOG).", panel="Where")
    ] = None
    json: Annotated[bool, flag("--json", "Print the result as one JSON document.", panel="Output")] = False
    progress: Annotated[
        Progress | None,
        bare_flag("--progress", "How to show progress; json: one object a line. [default: auto]", panel="Output"),
    ] = None
    quiet: Annotated[bool, flag("-q --quiet", "Show only failures.", panel="Output")] = False
    verbose: Annotated[
        int,
        flag(
            "-v --verbose",
            "Show each file, hosts, digests, tracebacks too.",
            panel="Output",
            count=True,
            show_default=False,
        ),
    ] = 0
    no_color: Annotated[bool, bare_flag("--no-color", "Use no colours (NO_COLOR).", panel="Output")] = False
    yes: Annotated[bool, flag("-y --yes", "Answer every question with yes.")] = False
    version: Annotated[bool | None, _ending("-V --version", "Show the version.", callback=_version)] = None
    install_completion: Annotated[
        str | None,
        _ending(
            "--install-completion bash|zsh|fish",
            "Let Tab complete models, jobs and options.",
            callback=_install_completion,
        ),
    ] = None
    show_completion: Annotated[
        str | None,
        _ending("--show-completion bash|zsh|fish", "Print the script for that.", callback=_show_completion),
    ] = None


ENDINGS: Final = ("version", "install_completion", "show_completion")
"""Flags of every command, before or after it, that have mdl do something else. Each ends mdl."""
FOREVER: Final = "forever"
"""The value of ``--wait`` without a time."""

LOOK: Final = ("home", "layout")
"""The settings of a command that looks at the models folder."""
DOWNLOAD: Final = tuple(name for name, setting in settings_table().items() if setting.has_flag)
"""The settings of a command that downloads: every one that has a flag."""
LookSettings = Annotated[Settings, LOOK]
DownloadSettings = Annotated[Settings, DOWNLOAD]
AskSettings = Annotated[Settings, ("patience", "offline")]
DoctorSettings = Annotated[Settings, (*LOOK, "offline")]
ReleaseSettings = Annotated[Settings, ("lock_wait",)]

DryRun = Annotated[bool, flag("-n --dry-run", "Show the plan and stop.")]
Exclude = Annotated[list[str] | None, flag("--exclude GLOB", "Leave out files that match; repeatable.")]
Force = Annotated[bool, flag("--force", "Download again, and replace files that mdl did not write.")]
LockedNames = Annotated[list[str] | None, argument("NAME", "Models and groups; without one, all that is locked.")]
Metrics = Annotated[
    Path | None, flag("--metrics FILE", "Prometheus text file, replaced in one step.", panel="Afterwards")
]

LogFile = Annotated[
    str | None,
    bare_flag("--log-file FILE", "The downloads log, of all operations; an empty name for none.", panel="Output"),
]


@value_class
class JobFlags:
    """The files and hooks of a job, and whether it needs this terminal."""

    on_complete: Annotated[
        str | None,
        bare_flag(
            "--on-complete CMD", "Run this when all is downloaded; no shell; facts in MDL_HOOK_*.", panel="Afterwards"
        ),
    ] = None
    ready_file: Annotated[
        Path | None,
        flag("--ready-file FILE", "A file that exists only while everything is downloaded.", panel="Afterwards"),
    ] = None
    log_file: LogFile = None
    detach: Annotated[
        bool, flag("--detach", "Continue in the background; the last line is the job's id.", panel="Afterwards")
    ] = False


@value_class
class Globs:
    """Which files, by their names."""

    include: Annotated[list[str] | None, flag("--include GLOB", "Only files that match; repeatable.")] = None
    exclude: Exclude = None

    @property
    def globs(self) -> dict[str, list[str]]:
        """Return the flags as arguments of `mdl.Client`."""
        return {"include": self.include or [], "exclude": self.exclude or []}


@value_class
class Where(Globs):
    """Which files of a model, and where they go."""

    into: Annotated[
        str | None, flag("--into DIR", "Put the files of one target directly into DIR: DIR/config.json.", panel="Where")
    ] = None
    everything: Annotated[
        bool, flag("--all", "All files, also the same weights in other formats and quantisations.")
    ] = False

    @property
    def globs(self) -> dict[str, list[str]]:
        """``--all`` means what ``--include '*'`` means: every file, and none is left out."""
        globs = super().globs
        if self.everything and not globs["include"]:
            globs["include"] = ["*"]
        return globs

    @property
    def files(self) -> dict[str, Any]:
        """Return the flags as arguments of `mdl.Client`."""
        return {"into": self.into, **self.globs}


@value_class
class Choice(Where):
    """Which files of a model, at which revision, and where they go."""

    revision: Annotated[str | None, flag("--revision REV", "Branch, tag, ref or commit of a hub source.")] = None
