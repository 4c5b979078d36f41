"""add and remove: the catalog edited, its comments kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mdl.catalog.find import SHIPPED
from mdl.catalog.read import read_text
from mdl.cli.command import command
from mdl.cli.flags import Globs
from mdl.cli.session import Session
from mdl.errors import CatalogError, UsageError
from mdl.fs import staging
from mdl.locks import folder_lock


@dataclass(frozen=True)
class Facts(Globs):
    """What a new entry says."""

    title: Annotated[str | None, typer.Option("--title", help="For people.")] = None
    kind: Annotated[str | None, typer.Option("--kind", help="model, tts, dataset, lora …")] = None
    license: Annotated[str | None, typer.Option("--license", help="Its licence.")] = None
    tag: Annotated[list[str] | None, typer.Option("--tag", help="To filter by, repeatable.")] = None
    revision: Annotated[str | None, typer.Option("--revision", metavar="REV", help="Commit, tag or branch.")] = None


def register(app: typer.Typer) -> None:
    command(app, "add")(add)
    command(app, "remove")(remove)


def add(
    session: Session,
    name: Annotated[str, typer.Argument(help="What it is to be called.")],
    source: Annotated[list[str], typer.Argument(metavar="SOURCE", help="hf:org/repo or a URL, several for one model.")],
    facts: Facts,
) -> int:
    """Put a model into the catalog; comments stay where they are."""
    from mdl.catalog.edit import EMPTY, with_model

    path = _editable(session, may_be_new=True)
    entry: dict[str, str | list[str]] = {
        "title": facts.title or "",
        "kind": facts.kind or "",
        "license": facts.license or "",
        "tags": facts.tag or [],
        "source": source[0] if len(source) == 1 else source,
        "revision": facts.revision or "",
        "include": facts.include or [],
        "exclude": facts.exclude or [],
    }
    _edit(path, lambda text: with_model(text or EMPTY, path, name, entry), may_be_new=True)
    return _tell(session, path, name)


def remove(
    session: Session, name: Annotated[str, typer.Argument(help="A model of the catalog. Its files stay on the disk.")]
) -> int:
    """Take a model out of the catalog; comments stay, and so do the files on the disk."""
    from mdl.catalog.edit import without_model

    path = _editable(session)
    _edit(path, lambda text: without_model(text or "", path, name))
    return _tell(session, path, name)


def _editable(session: Session, *, may_be_new: bool = False) -> Path:
    """The one catalog in use, if it is the user's own. Raises `UsageError`."""
    paths, _ = session.catalog_place
    if len(paths) != 1:
        raise UsageError(f"{len(paths)} catalogs are in use", hint="name the one to edit with --catalog")
    path = Path(paths[0])
    if path == SHIPPED:
        hint = "begin your own: --catalog catalog.toml" if may_be_new else "name your own with --catalog"
        raise UsageError("the catalog that comes with mdl is not edited", hint=hint)
    return path


def _text(path: Path, *, may_be_new: bool) -> str | None:
    """The catalog as it is now; None if there is none yet and ``may_be_new``. Raises `CatalogError`."""
    if may_be_new and not path.exists():
        return None
    try:
        return read_text(path)
    except CatalogError as error:
        raise error.on(str(path)) from None


def _edit(path: Path, change: Callable[[str | None], str], *, may_be_new: bool = False) -> None:
    """Change the catalog's text. What another mdl, or an editor, writes meanwhile is not lost: then the change is made
    to that. Raises `CatalogError`, `UsageError`, `Busy`, `OSError`."""
    place = path.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(place.parent):
        before, text = _text(path, may_be_new=may_be_new), ""
        while True:
            text = change(before)
            now = _text(path, may_be_new=may_be_new)
            if now == before:
                break
            before = now
        mode = place.stat().st_mode & 0o777 if before is not None else 0o666 & ~staging.umask()
        staging.write_file(place, text.encode(), mode=mode, sweep_first=True)


def _tell(session: Session, path: Path, name: str) -> int:
    if session.common.json:
        session.console.document(session.command, {"path": str(path), "name": name}, ok=True, exit_code=0)
    else:
        session.console.data(str(path))
    return 0
