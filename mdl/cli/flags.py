"""Flags that several commands share, as frozen groups. `mdl.cli.command` spreads them over a command's signature."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_EVERYWHERE = "Everywhere"
_FETCHING = "Fetching"
_UNATTENDED = "Unattended"


class Via(StrEnum):
    http = "http"
    hub = "hub"


class Layout(StrEnum):
    plain = "plain"
    hf_cache = "hf-cache"


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
        typer.Option("--catalog", help="Catalog file, repeatable (MDL_CATALOG).", rich_help_panel=_EVERYWHERE),
    ] = None
    json: Annotated[
        bool,
        typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=_EVERYWHERE),
    ] = False
    progress: Annotated[
        Progress | None,
        typer.Option(
            "--progress",
            help="How progress is told on stderr; json is one object a line. [default: auto]",
            rich_help_panel=_EVERYWHERE,
        ),
    ] = None
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only failures.", rich_help_panel=_EVERYWHERE)] = False
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, help="Say more; -vv more still.", rich_help_panel=_EVERYWHERE)
    ] = 0
    no_color: Annotated[
        bool, typer.Option("--no-color", help="No colours (NO_COLOR).", rich_help_panel=_EVERYWHERE)
    ] = False
    yes: Annotated[
        bool, typer.Option("-y", "--yes", help="Answer every question with yes.", rich_help_panel=_EVERYWHERE)
    ] = False


_Layout = Annotated[
    Layout,
    typer.Option("--layout", help="hf-cache: Hugging Face's own cache, which transformers and hf read offline."),
]


@dataclass(frozen=True)
class Home:
    """Which models folder is looked at."""

    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Models folder (MDL_HOME).")] = None
    layout: _Layout = Layout.plain


@dataclass(frozen=True)
class Where:
    """Where files land."""

    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Models folder; files land in DIR/<name>/ (MDL_HOME)."),
    ] = None
    into: Annotated[
        Path | None, typer.Option("--into", metavar="DIR", help="One target: its files land in DIR itself.")
    ] = None
    layout: _Layout = Layout.plain


@dataclass(frozen=True)
class Network:
    """How the network is used."""

    connections: Annotated[
        int,
        typer.Option(
            "--connections",
            min=1,
            max=64,
            help="Connections at once, in all.",
            rich_help_panel=_FETCHING,
        ),
    ] = 8
    retries: Annotated[
        int,
        typer.Option(
            "--retries",
            min=1,
            max=1000,
            help="Attempts without progress.",
            rich_help_panel=_FETCHING,
        ),
    ] = 5
    stall: Annotated[
        str,
        typer.Option(
            "--stall",
            metavar="TIME",
            help="Silence after which a connection is given up.",
            rich_help_panel=_FETCHING,
        ),
    ] = "30s"
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="Contact nobody (also HF_HUB_OFFLINE).",
            rich_help_panel=_FETCHING,
        ),
    ] = False
    via: Annotated[
        Via,
        typer.Option(
            "--via",
            help="hub: let huggingface_hub carry the hub's files (Xet); still verified.",
            rich_help_panel=_FETCHING,
        ),
    ] = Via.http
    limit_rate: Annotated[
        str | None,
        typer.Option(
            "--limit-rate",
            metavar="RATE",
            help="Bytes a second in all: 20M, or by the day: '08:00,2M 22:00,off'.",
            rich_help_panel=_FETCHING,
        ),
    ] = None
    max_duration: Annotated[
        str | None,
        typer.Option(
            "--max-duration", metavar="TIME", help="Stop after this long, with 75.", rich_help_panel=_FETCHING
        ),
    ] = None
    window: Annotated[
        str | None,
        typer.Option(
            "--window",
            metavar="FROM-TO",
            help="Only at these hours, as 22:00-06:00; else 75.",
            rich_help_panel=_FETCHING,
        ),
    ] = None
    lock_wait: Annotated[
        str,
        typer.Option(
            "--lock-wait",
            metavar="TIME",
            help="How long to wait for another mdl on the same model.",
            rich_help_panel=_FETCHING,
        ),
    ] = "10m"


@dataclass(frozen=True)
class Locking:
    """How far the lock beside the catalog is held to. Without these it is used where it covers a model."""

    locked: Annotated[bool, typer.Option("--locked", help="The lock must exist and cover every model (else 8).")] = (
        False
    )
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Use the lock as it is, even if the catalog changed; ask no hub API.")
    ] = False


@dataclass(frozen=True)
class Unattended:
    """What a job leaves for others, and whether it needs this terminal."""

    on_complete: Annotated[
        str | None,
        typer.Option(
            "--on-complete",
            metavar="CMD",
            help="Run this when all is there, without a shell; facts in MDL_HOOK_*.",
            rich_help_panel=_UNATTENDED,
        ),
    ] = None
    ready_file: Annotated[
        Path | None,
        typer.Option(
            "--ready-file",
            metavar="FILE",
            help="A file that is there only while all that is asked for is.",
            rich_help_panel=_UNATTENDED,
        ),
    ] = None
    log_file: Annotated[
        str | None,
        typer.Option(
            "--log-file",
            metavar="FILE",
            help="The log of all downloads; an empty name for none.",
            rich_help_panel=_UNATTENDED,
        ),
    ] = None
    detach: Annotated[
        bool,
        typer.Option(
            "--detach", help="Go on in the background; the last line is the job's id.", rich_help_panel=_UNATTENDED
        ),
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
    """Which files of a model."""

    revision: Annotated[
        str | None, typer.Option("--revision", metavar="REV", help="Branch, tag, ref or commit of a hub source.")
    ] = None
