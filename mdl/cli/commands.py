"""The table of commands: in which group the help shows each one, what it does in a few words, and its module.

``mdl --help``, the completions, the man page and ``docs/commands.md`` are made from it. Only the module of the command
that is called is imported.
"""

from __future__ import annotations

from typing import Final

from mdl.values import value_class


@value_class
class Listed:
    """One command of the table. ``summary`` has at most 50 characters. ``see`` is the command that it is a name for,
    if it is a hidden alias."""

    module: str
    summary: str = ""
    see: str = ""


GROUPS: Final[dict[str, dict[str, Listed]]] = {
    "Get": {
        "get": Listed("get", "Download models, and verify them"),
        "list": Listed("list", "List the catalog's models and what is here"),
        "show": Listed("list", "Show one model: files, sizes, licence, status"),
        "verify": Listed("verify", "Compare what is on disk with its digests"),
        "outdated": Listed("versions", "Show what has moved since it was fetched"),
        "update": Listed("versions", "Bring the newest version of models"),
        "import": Listed("import_folder", "Adopt what another program downloaded"),
        "search": Listed("search", "Find repositories of the hub"),
        "path": Listed("list", "Print the folder of a model"),
        "rm": Listed("disk", "Delete models from this disk"),
        "prefetch": Listed("prefetch", "Download from cron: silent, one at a time"),
    },
    "Catalog": {
        "init": Listed("catalog", "Begin a catalog of your own"),
        "add": Listed("catalog", "Put a model into the catalog"),
        "remove": Listed("catalog", "Take a model out of the catalog"),
        "lock": Listed("catalog", "Write down commits, sizes and digests"),
        "export": Listed("export", "List locked files for aria2, sha256sum and others"),
    },
    "Trained runs": {
        "checkpoints": Listed("pack", "List the checkpoints of a run"),
        "pack": Listed("pack", "Zip a trained model, a checkpoint or the logs"),
        "unpack": Listed("unpack", "Unpack a zip, or put it into service"),
        "releases": Listed("unpack", "List the releases of a folder, and the current one"),
        "rollback": Listed("unpack", "Serve the previous release again"),
        "fetch": Listed("fetch", "Download the results of remote training jobs"),
        "remote": Listed("remote", "Ask the remotes about their jobs"),
    },
    "Many machines": {
        "fleet": Listed("fleet", "Get, verify or look on many nodes at once"),
        "mirror": Listed("mirror", "Keep what is locked in your own object store"),
        "serve": Listed("serve", "Serve what is on this disk, with a status page"),
        "bundle": Listed("bundle", "Take models to machines without a network"),
        "render": Listed("render", "Print manifests for Kubernetes, Slurm and others"),
    },
    "Jobs": {
        "jobs": Listed("jobs", "List, watch, pause, resume or cancel downloads"),
    },
    "This machine": {
        "config": Listed("config", "Show or set the settings of this user"),
        "doctor": Listed("machine", "Check network, token, disk and settings"),
        "clean": Listed("disk", "Remove what nothing needs any more"),
        "demo": Listed("demo", "Try everything on this machine, without a network"),
        "schema": Listed("machine", "Print the JSON Schema of a command's output"),
        "help": Listed("help", "Show the help of a command, or the exit codes"),
    },
}

NO_CATALOG: Final = frozenset((*GROUPS["Trained runs"], *GROUPS["Jobs"], "search", "demo", "schema", "help"))
"""The commands that read no catalog. Any takes --catalog; their help does not speak of it."""

COMMANDS: Final[dict[str, Listed]] = {
    **{name: listed for group in GROUPS.values() for name, listed in group.items()},
    "download": Listed("get", see="get"),
    "ls": Listed("list", see="list"),
    "info": Listed("list", see="show"),
}
"""Every command by its name, also the aliases that no help shows."""
