"""Plug-ins: what others add to mdl: commands, and sources. They are found by the entry-point group ``mdl.plugins``.

A distribution names a `Plugin` there; ``mdl`` itself names those of `mdl.plugins`. They are looked for only when a word
is no command, and a reference no source, of mdl's own, and where all commands are listed: the help and the completions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from functools import cache
from typing import Final

from mdl.values import value_class

GROUP: Final = "mdl.plugins"
"""The group of entry points."""


@value_class
class PluginCommand:
    """A command. ``module`` registers it with `mdl.cli.command.command` when it is imported; ``summary``, of at most 50
    characters, stands in the help."""

    module: str
    summary: str


@value_class
class Plugin:
    """What one plug-in adds.

    ``commands`` are top-level commands by their names, shown in the help below ``heading``. ``sources`` are modules by
    the scheme of their references: as `mdl.sources` describes. ``schemas`` are the JSON Schemas of its documents by
    the names of their commands: each a package and a file in it. ``habits`` are words that users of other tools type,
    with the command of mdl that they want.
    """

    commands: Mapping[str, PluginCommand] = field(default_factory=dict)
    heading: str = "Plug-ins"
    sources: Mapping[str, str] = field(default_factory=dict)
    schemas: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    habits: Mapping[str, str] = field(default_factory=dict)


@cache
def plugins() -> tuple[Plugin, ...]:
    """Every plug-in that is installed, sorted by name. `broken_plugins` are those that cannot be used."""
    return tuple(found for found in _found().values() if isinstance(found, Plugin))


@cache
def broken_plugins() -> Mapping[str, str]:
    """The plug-ins that cannot be used, by their names, each with the reason."""
    return {name: str(found) for name, found in _found().items() if not isinstance(found, Plugin)}


@cache
def _found() -> Mapping[str, object]:
    """What each entry point names, or the exception that importing it raised."""
    import importlib.metadata  # takes as long as a tenth of a start of mdl

    found: dict[str, object] = {}
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            named = entry.load()
        except Exception as error:  # somebody else's code: whatever it raises, mdl itself works
            found[entry.name] = error
        else:
            found[entry.name] = named if isinstance(named, Plugin) else TypeError(f"{entry.value} is no mdl Plugin")
    return found
