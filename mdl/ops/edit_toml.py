"""edit: TOML files of the user's changed, and every other line left as it is: a catalog is begun, a model is put into
it or taken out of it, a key is set."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from mdl.catalog.extends import Fetch
from mdl.catalog.model import Catalog
from mdl.catalog.parser import SCHEMA
from mdl.catalog.reader import no_web, parse_catalog, read_text
from mdl.config.places import is_shipped
from mdl.disk import publish
from mdl.disk.mutex import folder_lock
from mdl.errors import CatalogError, Occupied, UsageError
from mdl.paths import shown
from mdl.toml import parse_toml
from mdl.toml.positions import spans

if TYPE_CHECKING:
    from mdl.toml.positions import Key

Entry = Mapping[str, str | Sequence[str | Mapping[str, Any]]]
"""The keys of a model, as the catalog has them: texts, lists of texts, and the list of its files."""
_BARE = re.compile(r"[A-Za-z0-9_-]+")
EMPTY = f"schema = {SCHEMA}\n"
BEGINNING = f"""\
# Your catalog: the models that mdl knows by name. 'mdl add' and 'mdl remove' edit it, and your comments stay.
schema = {SCHEMA}

# With the next line the models of other catalogs can be named here as well: "shipped" comes with mdl; others are
# "../team.toml", or "https://host/team.toml". A command without a name means only what is in this file.
# extends = ["shipped"]

# [models.my-model]
# title   = "My model"
# source  = "hf:org/repo"         # hf:org/repo[@revision][/path], hf:datasets/org/name, or any URL
# include = ["*.safetensors", "*.json"]
#
# [groups]
# nightly = ["my-model"]
"""
"""What `begin_catalog` writes."""


def begin_catalog(path: Path) -> None:
    """Write a catalog that has nothing in it yet. Raises `Occupied` if there is something, `Busy`, `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(path.parent):
        if os.path.lexists(path):
            raise Occupied("it is there already", item=str(path), hint="'mdl add NAME SOURCE' puts a model into it")
        publish.write_file(path, BEGINNING.encode(), mode=0o666 & ~publish.umask(), sweep_first=True)


def add_model(
    paths: Sequence[Path],
    name: str,
    entry: Entry,
    groups: Sequence[str] = (),
    *,
    replace: bool = False,
    beginning: str = EMPTY,
    fetch: Fetch = no_web,
) -> Path:
    """Put a model into the one catalog of ``paths``, and into ``groups`` of it; returns its path. If there is no such
    file yet, it begins with the text ``beginning``. ``fetch`` is as for `read_catalog`.

    Raises `UsageError` if the name is taken, unless it may ``replace`` what has it, and if the catalog is not the
    user's own, `CatalogError`, `Busy`, `OSError`.
    """
    path = _editable(paths)

    def change(text: str | None) -> str:
        return with_model(text or beginning, path, name, entry, groups, replace=replace, fetch=fetch)

    edit_file(path, lambda: _text(path) if path.exists() else None, change)
    return path


def remove_model(paths: Sequence[Path], name: str, *, fetch: Fetch = no_web) -> Path:
    """Take a model out of the one catalog of ``paths``; returns its path. Raises `NotFound`, and as `add_model`."""
    path = _editable(paths)
    edit_file(path, lambda: _text(path), lambda text: without_model(text or "", path, name, fetch=fetch))
    return path


def _editable(paths: Sequence[Path]) -> Path:
    """The one catalog in use, if it is the user's own. Raises `UsageError`."""
    if len(paths) != 1:
        raise UsageError(f"{len(paths)} catalogs are in use", hint="name the one to edit with --catalog")
    if is_shipped(paths[0]):
        hint = "'mdl init' begins your own; an entry of yours has precedence over one of the same name"
        raise UsageError("the catalog that comes with mdl is not edited", hint=hint)
    return paths[0]


def _text(path: Path) -> str:
    """The catalog as it is now. Raises `CatalogError`."""
    try:
        return read_text(path)
    except CatalogError as error:
        raise error.on(str(path)) from None


def edit_file(
    path: Path, read: Callable[[], str | None], change: Callable[[str | None], str], *, mode: int = 0o666
) -> None:
    """Change a file of text, which ``read`` reads (None: there is none yet; it is then made with ``mode``). What
    another mdl, or an editor, writes meanwhile is not lost: then the change is made to that. Raises `Busy`, `OSError`,
    and what ``read`` and ``change`` raise."""
    place = Path(os.path.realpath(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(place.parent):
        before = read()
        text = ""
        while True:
            text = _changed(before, change)
            now = read()
            if now == before:
                break
            before = now
        mode = place.stat().st_mode & 0o777 if before is not None else mode & ~publish.umask()
        publish.write_file(place, text.encode(), mode=mode, sweep_first=True)


def _changed(text: str | None, change: Callable[[str | None], str]) -> str:
    """``text`` changed; if its lines end as those of Windows do, so do those of the result. If only some do, a line
    that stays keeps its end, and the others end as most do."""
    if text is None or "\r\n" not in text:
        return change(text)
    after = change(text.replace("\r\n", "\n"))
    windows = text.count("\r\n")
    if windows == text.count("\n"):
        return after.replace("\n", "\r\n")
    before = text.split("\n")
    lines = after.split("\n")
    end = "\r" if 2 * windows > text.count("\n") else ""
    found = SequenceMatcher(None, [line.removesuffix("\r") for line in before], lines, autojunk=False)
    result = [line + end for line in lines[:-1]] + lines[-1:]
    for old, new, count in found.get_matching_blocks():
        result[new : new + count] = before[old : old + count]
    return "\n".join(result)


def with_key(text: str, table: str, key: str, value: Any) -> str:
    """The TOML ``text`` with this value for a key of a table. Every other line stays, and so do comments. Raises
    `ValueError` for a text that is not TOML, `TypeError` if ``table`` is not a table."""
    parse_toml(text)
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
    """The TOML ``text`` without a key of a table. Raises `ValueError` for a text that is not TOML, `TypeError`
    or `AttributeError` if ``table`` is not a table."""
    for path, start, stop in spans(text):
        if path == (table, key):
            return text[:start] + text[stop:].removeprefix("\n")
    parse_toml(text)
    document = tomlkit.parse(text)
    document.get(table, {}).pop(key, None)
    return tomlkit.dumps(document)


def with_model(
    text: str,
    path: Path,
    name: str,
    facts: Entry,
    groups: Sequence[str] = (),
    *,
    replace: bool = False,
    fetch: Fetch = no_web,
) -> str:
    """The catalog ``text`` with one model more, at its end, also in ``groups``; ``facts`` are its keys, empty ones left
    out. A group of a catalog that this one extends is taken over with its members. A model of that name is an error, or
    ``replace``d: the new one stays in its groups.

    Raises `UsageError` if the name is taken, `CatalogError` if the result would not be a catalog.
    """
    catalog = parse_catalog(text, path, fetch)
    if replace and name in _own(catalog, path):
        own = {key[1] for key, _, _ in spans(text) if _is_group(key)}
        groups = [*groups, *(group for group, members in catalog.groups.items() if group in own and name in members)]
        text = without_model(text, path, name, fetch=fetch)
        catalog = parse_catalog(text, path, fetch)
    if name in _own(catalog, path):
        raise UsageError("the catalog has a model of that name", item=name, hint=f"mdl remove {name}")
    lines = [f"{key} = {_toml(value)}\n" for key, value in facts.items() if value]
    key = name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    edited = f"{text.rstrip()}\n\n[models.{key}]\n{''.join(lines)}"
    for group in groups:
        members = [one for one in catalog.groups.get(group, ()) if one != name]
        edited = with_key(edited, "groups", group, [*members, name])
    parse_catalog(edited, path, fetch)
    return edited


def without_model(text: str, path: Path, name: str, *, fetch: Fetch = no_web) -> str:
    """The catalog ``text`` without a model, which also leaves every group and every ``see``, unless a catalog that it
    extends has one of that name. Its own comments stay.

    Raises `NotFound`, `UsageError` for a group and for a model that only another catalog has, `CatalogError`.
    """
    catalog = parse_catalog(text, path, fetch)
    own = _own(catalog, path)
    if name not in own:
        [model, *_] = catalog.find(name)
        if name in catalog.groups:
            raise UsageError("a group, not a model", item=name, hint="edit the catalog's [groups]")
        hint = "it stays there; an entry of yours with this name has precedence over it"
        raise UsageError(f"it is in {model.origin}, which your catalog extends", item=name, hint=hint)
    bases = f"{EMPTY}extends = {json.dumps(parse_toml(text).get('extends', []))}\n"
    stays_known = name in parse_catalog(bases, path, fetch).models
    edited = text
    first = None
    for key, start, stop in reversed(spans(text)):
        if key[:2] == ("models", name):
            edited = edited[:start] + edited[stop:].removeprefix("\n")
            first = start
        elif not stays_known and (_is_group(key) or _is_see(key)):
            line = _without(edited[start:stop], name)
            rest = edited[stop:]
            edited = edited[:start] + line + (rest if line else rest.removeprefix("\n"))
    edited = edited if first is None else _closed(edited, first)
    try:
        if name in _own(parse_catalog(edited, path, fetch), path):  # it is in a line with others: models = { a = {…} }
            document = tomlkit.parse(edited)
            models = document.get("models")
            if isinstance(models, dict):
                models.pop(name, None)
            edited = tomlkit.dumps(document)
        left = _own(parse_catalog(edited, path, fetch), path)
    except CatalogError as error:
        raise _inseparable(name, error.message) from None
    if left != own - {name}:
        raise _inseparable(name, "the way the catalog is written does not allow it")
    return edited


def _toml(value: object) -> str:
    """A value as TOML; a list of tables has one line for each."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_toml(one)}' for key, one in value.items())} }}"
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        return "[\n" + "".join(f"  {_toml(one)},\n" for one in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _own(catalog: Catalog, path: Path) -> set[str]:
    """The models that the file at ``path`` has itself."""
    return {name for name, model in catalog.models.items() if model.origin == shown(str(path))}


def _is_group(key: Key) -> bool:
    return len(key) == 2 and key[0] == "groups"


def _is_see(key: Key) -> bool:
    return len(key) == 3 and key[0] == "models" and key[2] == "see"


def _closed(text: str, at: int) -> str:
    """``text`` without the empty line that stood before what was taken out of it at ``at``."""
    before = text[:at]
    after = text[at:]
    is_last = not after.strip("\n")
    if not before.endswith("\n\n") or not (is_last or after.startswith("\n")):
        return text
    if is_last:
        after = after.removeprefix("\n")
    return before[:-1] + after


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
