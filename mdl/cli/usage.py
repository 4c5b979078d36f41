"""Usage errors: what Typer refuses, as an error of mdl, with what to type instead."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final

import typer

from mdl.errors import UsageError
from mdl.plugin import plugins

HABITS: Final[dict[str, str]] = {
    **dict.fromkeys(("pull", "install", "clone"), "to download a model: mdl get NAME, or mdl get OWNER/REPO"),
    "upgrade": "mdl update NAME brings the newest version; mdl outdated shows what has moved",
    "adopt": "mdl import DIR",
    **dict.fromkeys(
        ("cache", "models", "scan-cache"), "mdl list --local shows what is on this disk; mdl rm NAME deletes a model"
    ),
    **dict.fromkeys(("delete", "uninstall", "prune"), "mdl rm NAME deletes a model, mdl clean what nothing needs"),
    **dict.fromkeys(("ps", "top"), "mdl jobs shows what runs, and what ran"),
    **dict.fromkeys(("login", "logout", "auth", "whoami"), "set HF_TOKEN to your token; mdl doctor says whose it is"),
    **dict.fromkeys(("run", "generate"), 'mdl runs no models; give your program the folder: "$(mdl path NAME)"'),
    **dict.fromkeys(("status", "diff", "fsck"), "mdl list shows what is here; mdl verify compares it with its digests"),
    **dict.fromkeys(("log", "logs"), "mdl jobs log prints the log of the newest job"),
    **dict.fromkeys(
        ("stop", "kill", "cancel", "pause"), "mdl jobs shows the ids; mdl jobs pause ID, mdl jobs cancel ID"
    ),
    **dict.fromkeys(("resume", "continue"), "mdl jobs resume; or mdl get again, which continues where it was"),
    **dict.fromkeys(("env", "settings"), "mdl config shows the settings in use, and where they come from"),
    **dict.fromkeys(("completion", "completions"), "mdl --install-completion"),
    **dict.fromkeys(("zip", "archive", "export-run"), "mdl pack RUN"),
    **dict.fromkeys(("unzip", "extract", "deploy"), "mdl unpack ARCHIVE; with --release it is put into service"),
}
"""What people of ``git``, ``hf``, ``ollama`` and ``docker`` type, and what mdl has for it."""


def habits() -> dict[str, str]:
    """What users of other tools type, and what mdl and its plug-ins have for it."""
    found = dict(HABITS)
    for plugin in plugins():
        found.update(plugin.habits)
    return found


FOREIGN_OPTIONS: Final[dict[str, str]] = {
    "--local-dir": "--into DIR puts the files of one target into DIR itself; --to DIR is the models folder",
    "--cache-dir": "--layout hf-cache uses the cache of Hugging Face; --to DIR says where it is",
    "--token": 'a token is never a flag: set HF_TOKEN; for other hosts write [hosts."HOST"] into config.toml',
    "--repo-type": "write the type before the name: hf:datasets/org/name, hf:spaces/org/name",
    "--header": 'a token is never a flag: [hosts."HOST"] token_env = "VARIABLE" in config.toml',
    "--checksum": "--sha256 HEX",
    **dict.fromkeys(("--allow-patterns", "--ignore-patterns"), "--include GLOB and --exclude GLOB choose the files"),
    **dict.fromkeys(
        ("--max-workers", "--max-connection-per-server", "--split", "-x", "-j", "-s", "--transfers"),
        "--connections N is how many at once, in all",
    ),
    **dict.fromkeys(
        ("--continue", "--resume", "-c", "-C"), "the same command continues where it was; --force begins again"
    ),
    **dict.fromkeys(("--timeout", "--max-time"), "--stall TIME for silence, --max-duration TIME for the whole"),
    **dict.fromkeys(("--branch", "--ref", "--commit", "--tag"), "--revision REV"),
    **dict.fromkeys(("--background", "--daemon", "-b"), "--detach"),
    **dict.fromkeys(("--type", "--dataset", "--datasets"), "--kind dataset"),
    **dict.fromkeys(("-n", "--dry-run"), "without --yes nothing is deleted: it only shows what would be"),
}
"""Flags of other tools, or of other commands, and how mdl says the same. Only for commands that have the flags that it
names."""


def usage_error(error: typer.TyperException, called: str = "mdl") -> UsageError:
    """What Typer refused of the command that was ``called``, in Typer's words, and what to do."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else called
    option = getattr(error, "option_name", "")
    message, _, alike = error.message.partition(". Did you mean ")
    near = " or ".join(f"{path} {name}" for name in re.findall("'([^']+)'", alike))
    if context and getattr(error, "param", None):
        message = _of_value(error, context)
    elif option:
        near = _nearest(option, getattr(error, "possibilities", None) or ())
    hint = f"did you mean {near}?" if near else f"{path} --help"
    text = " ".join(message.replace("Value error, ", "").split()).rstrip(".")
    item = path if path != "mdl" else None
    return UsageError(f"{text[:1].lower()}{text[1:]}", item=item, hint=_of_others(option, context) or hint)


def _of_value(error: Any, context: Any) -> str:
    """What is wrong with a value, and where it came from; what is meant if it is missing."""
    source = context.get_parameter_source(error.param.name)
    if source is not None and source.name == "ENVIRONMENT":
        return f"invalid value of {error.param.envvar}: {error.message}"
    if error.param.required and not error.message:
        return f"{error.format_message().rstrip('.')}: {error.param.help[:1].lower()}{error.param.help[1:]}"
    return str(error.format_message())


def _nearest(option: str, possibilities: Iterable[str]) -> str:
    """The option that is most alike, if it is so in more than its dashes."""
    bare = {name.lstrip("-"): name for name in possibilities}
    return next((bare[name] for name in get_close_matches(option.lstrip("-"), bare, 1)), "")


def _of_others(option: str, context: Any) -> str:
    """How this command says what an ``option`` of another tool means, if it has the options for it."""
    said = FOREIGN_OPTIONS.get(option, "")
    known: set[str] = set()
    for param in context.command.params if said and context else ():
        known.update(() if param.hidden else param.opts)
    return said if set(re.findall(r"(?<!\S)--[a-z0-9-]+", said)) <= known else ""
