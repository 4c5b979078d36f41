"""The table of commands: in which group the help shows each one, what it does in a few words, and its module.

``mdl --help``, the completions, the man page and ``docs/commands.md`` are made from it, and from what plug-ins add to
it. Only the module of the command that is called is imported; plug-ins are looked for only if it is none of mdl's own.
"""

from __future__ import annotations

from typing import Final

from mdl.plugin import plugins
from mdl.values import value_class


@value_class
class Listed:
    """A command of the table. ``summary`` has at most 50 characters. ``see`` is the command that it is a name for,
    if it is a hidden alias."""

    module: str
    summary: str = ""
    see: str = ""


GROUPS: Final[dict[str, dict[str, Listed]]] = {
    "Get": {
        "get": Listed("mdl.cli.get", "Download models, and verify them"),
        "list": Listed("mdl.cli.list", "List the catalog's models, and which are here"),
        "show": Listed("mdl.cli.list", "Show one model: files, sizes, licence, status"),
        "verify": Listed("mdl.cli.verify", "Compare the files on this disk with their digests"),
        "outdated": Listed("mdl.cli.outdated", "Show which models have a newer version"),
        "update": Listed("mdl.cli.outdated", "Update models to their newest version"),
        "import": Listed("mdl.cli.import_folder", "Take over what another program downloaded"),
        "search": Listed("mdl.cli.catalog", "Find repositories of the hub"),
        "path": Listed("mdl.cli.list", "Print the folder of a model, or its one file"),
        "rm": Listed("mdl.cli.disk", "Delete models from this disk"),
        "mv": Listed("mdl.cli.disk", "Move models to another models folder"),
        "prefetch": Listed("mdl.cli.prefetch", "Download from cron: silent, one at a time"),
    },
    "Catalog": {
        "init": Listed("mdl.cli.catalog", "Create a catalog of your own"),
        "add": Listed("mdl.cli.catalog", "Add a model to the catalog"),
        "remove": Listed("mdl.cli.catalog", "Remove a model from the catalog"),
        "lock": Listed("mdl.cli.catalog", "Pin commits, sizes and digests in mdl.lock"),
        "export": Listed("mdl.cli.catalog", "List locked files for aria2, sha256sum and others"),
    },
    "Trained runs": {
        "checkpoints": Listed("mdl.cli.pack", "List the checkpoints of a run"),
        "pack": Listed("mdl.cli.pack", "Zip a trained model, a checkpoint or the logs"),
        "push": Listed("mdl.cli.pack", "Upload a trained model to the hub"),
        "unpack": Listed("mdl.cli.unpack", "Unpack a zip, or put it into service"),
        "releases": Listed("mdl.cli.unpack", "List the releases of a folder, and the current one"),
        "rollback": Listed("mdl.cli.unpack", "Serve the previous release again"),
        "fetch": Listed("mdl.cli.fetch", "Download the results of remote training jobs"),
        "remote": Listed("mdl.cli.remote", "Ask the remotes about their jobs"),
    },
    "Many machines": {},
    "Jobs": {
        "jobs": Listed("mdl.cli.jobs", "List, watch, pause, resume or cancel downloads"),
    },
    "This machine": {
        "config": Listed("mdl.cli.config", "Show or set the settings of this user"),
        "doctor": Listed("mdl.cli.doctor", "Check network, token, disk and settings"),
        "clean": Listed("mdl.cli.disk", "Remove files that nothing needs any more"),
        "demo": Listed("mdl.cli.doctor", "Try everything on this machine, without a network"),
        "help": Listed("mdl.cli.help", "Show the help of a command, or the exit codes"),
    },
}

NO_CATALOG: Final = frozenset((*GROUPS["Trained runs"], *GROUPS["Jobs"], "search", "demo", "help"))
"""The commands that read no catalog. Any takes --catalog; their help does not speak of it."""

COMMANDS: Final[dict[str, Listed]] = {
    **{name: listed for group in GROUPS.values() for name, listed in group.items()},
    "download": Listed("mdl.cli.get", see="get"),
    "ls": Listed("mdl.cli.list", see="list"),
    "info": Listed("mdl.cli.list", see="show"),
}
"""Every command by its name, also the aliases that no help shows."""


def find(name: str) -> Listed | None:
    """The command of this name, of mdl itself or of a plug-in."""
    if name in COMMANDS:
        return COMMANDS[name]
    for plugin in plugins():
        if name in plugin.commands:
            added = plugin.commands[name]
            return Listed(added.module, added.summary)
    return None


def groups() -> dict[str, dict[str, Listed]]:
    """Every command that the help shows, by group: mdl's own, and behind those of its group, or below a heading of
    their own, those of plug-ins. A plug-in cannot replace a command of mdl's own."""
    found = {heading: dict(commands) for heading, commands in GROUPS.items()}
    for plugin in plugins():
        for name, added in plugin.commands.items():
            if name not in COMMANDS:
                found.setdefault(plugin.heading, {})[name] = Listed(added.module, added.summary)
    return {heading: commands for heading, commands in found.items() if commands}


def commands() -> dict[str, Listed]:
    """Every command by its name, those of plug-ins and the aliases that no help shows among them."""
    return {name: listed for group in groups().values() for name, listed in group.items()} | COMMANDS
