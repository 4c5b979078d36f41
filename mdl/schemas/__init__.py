"""Schemas: what every JSON text that mdl writes looks like, as JSON Schema, draft 2020-12.

One file a document, named after its command, and ``event`` for one line of ``--progress json``; ``mdl`` is the
document of a call that names no command. A file holds what is a document's own. `schema` joins to it what all share
(``shared.json``): the head and the definitions that are used, so that what it returns refers to nothing outside.

What is promised: a key that is ``required`` is always there; if a command fails before it has results it holds its
``default``, which is therefore given for every required key that is not of the head. Every object may have more keys
than are listed, for a later release may add; an error alone has four, and in a report of files a fifth. The tests
hold this release to the very keys that are listed.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from mdl.plugin import plugins

_SHARED = "shared"
_LINE = "event"


@cache
def names() -> tuple[str, ...]:
    """Every schema there is, sorted."""
    found = {entry.name.removesuffix(".json") for entry in files(__name__).iterdir() if entry.name.endswith(".json")}
    return tuple(sorted((found | _packages_of_plugins().keys()) - {_SHARED}))


@cache
def _packages_of_plugins() -> dict[str, str]:
    """The package that has the schema of a plug-in's command: a file beside the command, of the command's name."""
    packages = {
        name: added.module.rpartition(".")[0] for plugin in plugins() for name, added in plugin.commands.items()
    }
    return {name: package for name, package in packages.items() if files(package).joinpath(f"{name}.json").is_file()}


def schema(name: str) -> dict[str, Any]:
    """The whole schema of that name, which must be one of `names`."""
    own = _read(name)
    shared = _read(_SHARED)
    head = {} if name == _LINE else shared["head"]
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        **own,
        "properties": {"schema": {"const": own["$id"]}, **head.get("properties", {}), **own["properties"]},
        "required": [*head.get("required", ()), *own["required"]],
        "allOf": [*head.get("allOf", ()), *own.get("allOf", ())],
    }
    whole.pop("$defs", None)
    definitions = _used(whole, shared["$defs"] | own.get("$defs", {}))
    return whole | {"$defs": definitions}


def empty(command: str) -> dict[str, Any]:
    """What the document of ``command`` holds if it failed before it had results."""
    try:
        properties = _read(command)["properties"]
    except FileNotFoundError:
        return {}
    return {key: one["default"] for key, one in properties.items() if "default" in one}


def _read(name: str) -> dict[str, Any]:
    place = files(__name__) / f"{name}.json"
    if not place.is_file() and name in _packages_of_plugins():
        place = files(_packages_of_plugins()[name]) / f"{name}.json"
    found: dict[str, Any] = json.loads(place.read_text("utf-8"))
    return found


def _used(whole: Any, known: dict[str, Any]) -> dict[str, Any]:
    """Those of the ``known`` definitions that ``whole`` refers to, also through one another."""
    found: dict[str, Any] = {}
    todo = [whole]
    while todo:
        for name in re.findall(r'"#/\$defs/(\w+)"', json.dumps(todo.pop())):
            if name not in found:
                found[name] = known[name]
                todo.append(known[name])
    return dict(sorted(found.items()))
