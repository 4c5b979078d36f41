"""Flags that several commands share, as frozen groups. `mdl.cli.command` spreads them over a command's signature."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from mdl.config import Settings


class Progress(StrEnum):
    auto = "auto"
    bars = "bars"
    lines = "lines"
    json = "json"
    none = "none"


@dataclass(frozen=True)
class Common:
    """Before or after the command, with one meaning."""

    catalog: Annotated[
        list[Path] | None,
        typer.Option("--catalog", help="Catalog file, repeatable (MDL_CATALOG)."),
    ] = None
    json: Annotated[
        bool,
        typer.Option("--json", help="One JSON document on stdout."),
    ] = False
    progress: Annotated[
        Progress | None,
        typer.Option("--progress", help="How progress is told on stderr; json is one object a line. [default: auto]"),
    ] = None
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only failures.")] = False
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Say more; -vv more still.")] = 0
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours (NO_COLOR).")] = False
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Answer every question with yes.")] = False


LOOK: Final = ("home", "layout")
"""The settings of a command that looks at the models folder."""
DOWNLOAD: Final = (
    *LOOK,
    *("connections", "retries", "stall", "offline", "via", "limit_rate", "max_duration", "window", "lock_wait"),
    *("locked", "frozen"),
)
"""The settings of a command that downloads."""
LookSettings = Annotated[Settings, LOOK]
DownloadSettings = Annotated[Settings, DOWNLOAD]
DoctorSettings = Annotated[Settings, (*LOOK, "offline")]
LockSettings = Annotated[Settings, tuple(name for name in DOWNLOAD if name not in ("locked", "frozen"))]


@dataclass(frozen=True)
class JobFlags:
    """What a job leaves for others, and whether it needs this terminal."""

    on_complete: Annotated[
        str | None,
        typer.Option(
            "--on-complete", metavar="CMD", help="Run this when all is there, without a shell; facts in MDL_HOOK_*."
        ),
    ] = None
    ready_file: Annotated[
        Path | None,
        typer.Option("--ready-file", metavar="FILE", help="A file that is there only while all that is asked for is."),
    ] = None
    log_file: Annotated[
        str | None,
        typer.Option("--log-file", metavar="FILE", help="The log of all downloads; an empty name for none."),
    ] = None
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Go on in the background; the last line is the job's id."),
    ] = False


@dataclass(frozen=True)
class Globs:
    """Which files, by their names."""

    include: Annotated[
        list[str] | None, typer.Option("--include", metavar="GLOB", help="Only files that match, repeatable.")
    ] = None
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="No file that matches, repeatable.")
    ] = None


@dataclass(frozen=True)
class Choice(Globs):
    """Which files of a model, and where they go."""

    into: Annotated[
        Path | None, typer.Option("--into", metavar="DIR", help="One target: its files land in DIR itself.")
    ] = None

    revision: Annotated[
        str | None, typer.Option("--revision", metavar="REV", help="Branch, tag, ref or commit of a hub source.")
    ] = None
