"""Usage errors: what Typer refuses, as an error of mdl, with what to type instead."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, Final

import typer

from mdl.errors import UsageError
from mdl.plugin import plugins

HABITS: Final[dict[str, str]] = {
    **dict.fromkeys(("pull", "install", "clone"), "to download a model: mdl get NAME, or mdl get OWNER/REPO"),
    "upgrade": "mdl update NAME brings the newest version; mdl outdated shows what has moved",
    "adopt": "mdl import DIR",
    "upload": "mdl push FOLDER hf:ORG/REPO uploads a trained model",
    "du": "mdl list --local shows what is on this disk, and how much it takes",
    **dict.fromkeys(("cp", "move"), "mdl mv NAME --to DIR moves a model to another models folder"),
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
    message, _, alike = error.message.partition(". Did you mean ")
    hint = f"{path} --help"
    if alike:
        commands = [f"{path} {name}" for name in re.findall("'([^']+)'", alike)]
        hint = f"did you mean {' or '.join(commands)}?"
    if context and getattr(error, "option_name", None):
        hint = _instead_of(error, context) or hint
    if context and getattr(error, "param", None):
        message = _of_value(error, context)
    text = " ".join(message.split()).rstrip(".")
    return UsageError(f"{text[:1].lower()}{text[1:]}", item=path if path != "mdl" else None, hint=hint)


def _of_value(error: Any, context: Any) -> str:
    """What is wrong with a value, and where it came from; what is meant if it is missing."""
    param = error.param
    told = error.message.removeprefix("Value error, ")  # pydantic's word for what Typer refuses itself
    source = context.get_parameter_source(param.name)
    if source is not None and source.name == "ENVIRONMENT":
        return f"invalid value of {param.envvar}: {told}"
    if not told:
        return f"{error.format_message().rstrip('.')}: {param.help[:1].lower()}{param.help[1:]}"
    return str(error.format_message()).replace(error.message, told)


def _instead_of(error: Any, context: Any) -> str:
    """What to write instead of an option that the command does not have: what it has for that of another tool, or the
    option that is most alike, if it is so in more than its dashes."""
    known: set[str] = set()
    for param in context.command.params:
        if not param.hidden:
            known.update(param.opts)
    said = FOREIGN_OPTIONS.get(error.option_name, "")
    if said and known.issuperset(re.findall(r"(?<!\S)--[a-z0-9-]+", said)):
        return said
    bare = {name.lstrip("-"): name for name in getattr(error, "possibilities", None) or ()}
    near = get_close_matches(error.option_name.lstrip("-"), bare, 1)
    return f"did you mean {bare[near[0]]}?" if near else ""
