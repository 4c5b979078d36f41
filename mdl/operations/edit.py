"""add and remove: the catalog edited, its comments kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mdl.catalog.edit import EMPTY, with_model, without_model
from mdl.catalog.find import SHIPPED
from mdl.catalog.reader import read_text
from mdl.errors import CatalogError, UsageError
from mdl.fs import staging
from mdl.locks import folder_lock


def add_model(paths: Sequence[Path], name: str, entry: Mapping[str, str | Sequence[str]]) -> Path:
    """Put a model into the one catalog of ``paths``, which may not exist yet; returns its path.

    Raises `UsageError` if the name is taken or the catalog is not the user's own, `CatalogError`, `Busy`, `OSError`.
    """
    path = _editable(paths, may_be_new=True)
    _edit(path, lambda text: with_model(text or EMPTY, path, name, entry), may_be_new=True)
    return path


def remove_model(paths: Sequence[Path], name: str) -> Path:
    """Take a model out of the one catalog of ``paths``; returns its path. Raises `NotFound`, and as `add_model`."""
    path = _editable(paths)
    _edit(path, lambda text: without_model(text or "", path, name))
    return path


def _editable(paths: Sequence[Path], *, may_be_new: bool = False) -> Path:
    """The one catalog in use, if it is the user's own. Raises `UsageError`."""
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
