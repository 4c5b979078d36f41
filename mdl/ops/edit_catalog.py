"""edit_catalog: begin a catalog, put a model into it or take one out, and leave every other line as it is."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from mdl.catalog.extends import Fetch
from mdl.catalog.model import Catalog
from mdl.catalog.parser import SCHEMA, check_name
from mdl.catalog.reader import no_web, parse_catalog, read_text
from mdl.config.places import is_shipped, make_folder_of
from mdl.disk import publish
from mdl.disk.mutex import folder_lock
from mdl.errors import CatalogError, Occupied, UsageError
from mdl.ops.edit_toml import edit_file, with_key, without_lines
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

# Remove the '#' of the next line to use the models of other catalogs too: "shipped" comes with mdl; others are
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
    make_folder_of(path)
    with folder_lock(path.parent):
        if os.path.lexists(path):
            hint = "'mdl add NAME SOURCE' adds a model to it"
            raise Occupied("this file exists already", item=str(path), hint=hint)
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

    def change(text: str | None) -> str:
        return without_model(text or "", path, name, fetch=fetch)

    edit_file(path, partial(_text, path), change)
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
    try:
        check_name(name)
    except CatalogError as error:
        raise UsageError(error.message, item=name, hint="choose another name") from None
    catalog = parse_catalog(text, path, fetch)
    member_of = list(groups)
    if name in _own(catalog, path):
        if not replace:
            hint = f"choose another name, or remove that model first: mdl remove {name}"
            raise UsageError("the catalog has a model of that name", item=name, hint=hint)
        for place, _, _ in spans(text):
            if _is_group(place) and name in catalog.groups[str(place[1])]:
                member_of.append(str(place[1]))
        text = without_model(text, path, name, fetch=fetch)
        catalog = parse_catalog(text, path, fetch)
    key = name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    edited = f"{text.rstrip()}\n\n[models.{key}]\n"
    for fact, value in facts.items():
        if value:
            edited += f"{fact} = {_toml(value)}\n"
    for group in member_of:
        members = [member for member in catalog.groups.get(group, ()) if member != name]
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
    edited = _without_lines_of(text, name, is_named_elsewhere=_is_of_a_base(text, path, name, fetch))
    try:
        left = _own(parse_catalog(edited, path, fetch), path)
        if name in left:
            edited = _without_in_one_line(edited, name)
            left = _own(parse_catalog(edited, path, fetch), path)
    except CatalogError as error:
        raise _inseparable(name, error.message) from None
    if left != own - {name}:
        raise _inseparable(name, "the way the catalog is written does not allow it")
    return edited


def _is_of_a_base(text: str, path: Path, name: str, fetch: Fetch) -> bool:
    """Whether a catalog that this one extends has a model of that name as well."""
    extends = parse_toml(text).get("extends", [])
    bases = parse_catalog(f"{EMPTY}extends = {json.dumps(extends)}\n", path, fetch)
    return name in bases.models


def _without_lines_of(text: str, name: str, *, is_named_elsewhere: bool) -> str:
    """The text without the tables and keys of a model, and without its name in groups and ``see`` unless there is
    another model of that name."""
    edited = text
    first = None
    for key, start, stop in reversed(spans(text)):
        line = ""
        if key[:2] == ("models", name):
            first = start
        elif not is_named_elsewhere and (_is_group(key) or _is_see(key)):
            line = _without_member(edited[start:stop], name)
        else:
            continue
        edited = edited[:start] + line + edited[stop:] if line else without_lines(edited, start, stop)
    if first is None:
        return edited
    return _without_empty_line(edited, first)


def _without_in_one_line(text: str, name: str) -> str:
    """The text without a model that is in one line with others: ``models = { a = {…} }``."""
    document = tomlkit.parse(text)
    models = document.get("models")
    if isinstance(models, dict):
        models.pop(name, None)
    return tomlkit.dumps(document)


def _toml(value: object) -> str:
    """A value as TOML; a list of tables has one line for each."""
    if isinstance(value, Mapping):
        pairs = [f"{key} = {_toml(member)}" for key, member in value.items()]
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list) and any(isinstance(member, Mapping) for member in value):
        lines = [f"  {_toml(member)},\n" for member in value]
        return f"[\n{''.join(lines)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _own(catalog: Catalog, path: Path) -> set[str]:
    """The models that the file at ``path`` has itself."""
    return {name for name, model in catalog.models.items() if model.origin == shown(str(path))}


def _is_group(key: Key) -> bool:
    return key[:-1] == ("groups",)


def _is_see(key: Key) -> bool:
    return (*key[:1], *key[2:]) == ("models", "see")


def _without_empty_line(text: str, at: int) -> str:
    """``text`` without the empty line that stood before what was taken out of it at ``at``."""
    before = text[:at]
    after = text[at:]
    if not before.endswith("\n\n"):
        return text
    if not after.strip("\n"):
        return before[:-1] + after.removeprefix("\n")
    if after.startswith("\n"):
        return before[:-1] + after
    return text


def _inseparable(name: str, why: str) -> UsageError:
    return UsageError(f"mdl cannot remove this model alone: {why}", item=name, hint="remove it in an editor")


def _without_member(line: str, name: str) -> str:
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
