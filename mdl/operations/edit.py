"""add and remove: a model put into a catalog's text, or taken out of it; every other line stays as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit

from mdl.catalog.reader import SCHEMA, parse_catalog, read_text
from mdl.errors import CatalogError, UsageError
from mdl.fs import staging
from mdl.locks import folder_lock
from mdl.places import SHIPPED
from mdl.toml import parse_toml
from mdl.toml.positions import spans

_BARE = re.compile(r"[A-Za-z0-9_-]+")
EMPTY = f"schema = {SCHEMA}\n"


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
    """Change the catalog's text. Raises `CatalogError`, `UsageError`, `Busy`, `OSError`."""
    edit_file(path, lambda: _text(path, may_be_new=may_be_new), change)


def edit_file(
    path: Path, read: Callable[[], str | None], change: Callable[[str | None], str], *, mode: int = 0o666
) -> None:
    """Change a file of text, which ``read`` reads (None: there is none yet; it is then made with ``mode``). What
    another mdl, or an editor, writes meanwhile is not lost: then the change is made to that. Raises `Busy`, `OSError`,
    and what ``read`` and ``change`` raise."""
    place = path.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(place.parent):
        before, text = read(), ""
        while True:
            text = change(before)
            now = read()
            if now == before:
                break
            before = now
        mode = place.stat().st_mode & 0o777 if before is not None else mode & ~staging.umask()
        staging.write_file(place, text.encode(), mode=mode, sweep_first=True)


def with_key(text: str, table: str, key: str, value: Any) -> str:
    """The TOML ``text`` with this value for a key of a table. Every other line stays, and so do comments."""
    places = {path: (start, stop) for path, start, stop in spans(text)}
    if (table, key) in places:
        start, stop = places[table, key]
        edited = text[:start] + _with_value(text[start:stop], table, key, value) + text[stop:]
    else:
        line = tomlkit.dumps({key: value}).rstrip("\n")
        if ends := [stop for path, (_, stop) in places.items() if path[0] == table and len(path) <= 2]:
            edited = f"{text[: max(ends)]}\n{line}{text[max(ends) :] or chr(10)}"
        else:
            edited = f"{text.rstrip()}\n\n[{table}]\n{line}\n".lstrip()
    try:
        if parse_toml(edited)[table][key] == value:
            return edited
    except (ValueError, KeyError, TypeError):
        pass
    document = tomlkit.parse(text)  # the table is written in one line, or in several places
    document.setdefault(table, {})[key] = value
    return tomlkit.dumps(document)


def _with_value(line: str, table: str, key: str, value: Any) -> str:
    """The line ``key = …`` with another value; a list that begins as the old one keeps the comments in it."""
    document = tomlkit.parse(line)
    holder: Any = document if key in document else document[table]
    old = holder[key]
    if isinstance(old, list) and isinstance(value, list) and value[: len(old)] == old:
        old.extend(value[len(old) :])
    else:
        holder[key] = value
    return tomlkit.dumps(document)


def without_key(text: str, table: str, key: str) -> str:
    """The TOML ``text`` without a key of a table."""
    for path, start, stop in spans(text):
        if path == (table, key):
            return text[:start] + text[stop:].removeprefix("\n")
    document = tomlkit.parse(text)
    document.get(table, {}).pop(key, None)
    return tomlkit.dumps(document)


def with_model(text: str, path: Path, name: str, facts: Mapping[str, str | Sequence[str]]) -> str:
    """The catalog ``text`` with one model more, at its end; ``facts`` are its keys, empty ones left out.

    Raises `UsageError` if the name is taken, `CatalogError` if the result would not be a catalog.
    """
    if name in parse_catalog(text, path).models:
        raise UsageError("the catalog has a model of that name", item=name, hint=f"mdl remove {name}")
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in facts.items() if value]
    key = name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    block = f"[models.{key}]\n{''.join(lines)}"
    edited = f"{text.rstrip()}\n\n{block}"
    parse_catalog(edited, path)
    return edited


def without_model(text: str, path: Path, name: str) -> str:
    """The catalog ``text`` without a model, which also leaves every group and every ``see``. Its own comments stay.

    Raises `NotFound`, `UsageError` for a group, `CatalogError`.
    """
    catalog = parse_catalog(text, path)
    if name not in catalog.models:
        catalog.find(name)
        raise UsageError("a group, not a model", item=name, hint="edit the catalog's [groups]")
    edited = text
    for key, start, stop in reversed(spans(text)):
        if key[:2] == ("models", name):
            edited = edited[:start] + edited[stop:].removeprefix("\n")
        elif (len(key) == 2 and key[0] == "groups") or (len(key) == 3 and key[0] == "models" and key[2] == "see"):
            edited = edited[:start] + _without(edited[start:stop], name) + edited[stop:]
    try:
        if name in parse_catalog(edited, path).models:  # it has no lines of its own: models = { a = {…}, b = {…} }
            document = tomlkit.parse(edited)
            models = document.get("models")
            if isinstance(models, dict):
                models.pop(name, None)
            edited = tomlkit.dumps(document)
        left = parse_catalog(edited, path).models
    except CatalogError as error:
        raise _inseparable(name, error.message) from None
    if left.keys() != catalog.models.keys() - {name}:
        raise _inseparable(name, "the way the catalog is written does not allow it")
    return edited


def _inseparable(name: str, why: str) -> UsageError:
    return UsageError(f"mdl cannot remove this model alone: {why}", item=name, hint="remove it in an editor")


def _without(line: str, name: str) -> str:
    """``key = [names]`` without one of them; nothing if it was the only one; otherwise comments are kept."""
    document = tomlkit.parse(line)
    for key, members in document.items():
        if members == name:
            return ""
        if isinstance(members, list) and name in members:
            while name in members:
                members.remove(name)
            return tomlkit.dumps(document) if members or key != "see" else ""
    return line
