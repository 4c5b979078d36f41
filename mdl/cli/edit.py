"""add and remove: the catalog edited, its comments kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mdl.cli.command import command
from mdl.cli.flags import Globs
from mdl.cli.session import Session


@dataclass(frozen=True)
class EntryFlags(Globs):
    """What a new entry says."""

    title: Annotated[str | None, typer.Option("--title", help="Human-readable title.")] = None
    kind: Annotated[str | None, typer.Option("--kind", help="model, tts, dataset, lora …")] = None
    license: Annotated[str | None, typer.Option("--license", help="Its licence.")] = None
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Tag for filtering, repeatable.")] = None
    revision: Annotated[str | None, typer.Option("--revision", metavar="REV", help="Commit, tag or branch.")] = None


def register(app: typer.Typer) -> None:
    command(app, "add")(add)
    command(app, "remove")(remove)


def add(
    session: Session,
    name: Annotated[str, typer.Argument(help="What it is to be called.")],
    source: Annotated[list[str], typer.Argument(metavar="SOURCE", help="hf:org/repo or a URL, several for one model.")],
    entry: EntryFlags,
) -> int:
    """Put a model into the catalog; comments stay where they are."""
    path = session.client().add(
        name,
        source,
        title=entry.title or "",
        kind=entry.kind or "",
        license=entry.license or "",
        tags=entry.tag or [],
        revision=entry.revision or "",
        include=entry.include or [],
        exclude=entry.exclude or [],
    )
    return _tell(session, path, name)


def remove(
    session: Session, name: Annotated[str, typer.Argument(help="A model of the catalog. Its files stay on the disk.")]
) -> int:
    """Take a model out of the catalog; comments stay, and so do the files on the disk."""
    return _tell(session, session.client().remove(name), name)


def _tell(session: Session, path: Path, name: str) -> int:
    return session.show({"path": path, "name": name}, lambda: session.console.data(str(path)))
