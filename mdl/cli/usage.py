"""Usage errors: what Typer refuses, as an error of mdl, with what to type instead."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, Final

import typer

from mdl.errors import UsageError
from mdl.paths import shown
from mdl.plugin import plugins

_ROWS: Final = (
    ("pull install clone", "to download a model: mdl get NAME, or mdl get OWNER/REPO"),
    ("upgrade", "mdl update NAME downloads the newest version; mdl outdated shows what has moved"),
    ("upload", "mdl push FOLDER hf:ORG/REPO uploads a trained model"),
    ("sync", "mdl get NAME downloads what is missing, mdl update NAME the newest version"),
    ("find", "mdl search TEXT finds repositories of the hub"),
    ("check repair fix", "mdl verify --repair downloads what is wrong on this disk; mdl doctor checks this machine"),
    ("pin freeze", "mdl lock pins commits, sizes and digests in mdl.lock"),
    ("create new", "mdl init creates a catalog, mdl add NAME SOURCE adds a model to it"),
    ("move cp", "mdl mv NAME --to DIR moves a model to another models folder"),
    ("delete uninstall prune", "mdl rm NAME deletes a model, mdl clean what nothing needs"),
    ("cache models du scan", "mdl list --local shows what is on this disk, and how much it takes"),
    ("status diff", "mdl list shows what is here; mdl verify compares it with its digests"),
    (
        "ps top stop kill cancel pause resume log",
        "mdl jobs shows downloads; it has pause, resume, cancel and log",
    ),
    ("login logout auth whoami", "set HF_TOKEN to your token; mdl doctor says whose it is"),
    ("run generate", 'mdl runs no models; give your program the folder: "$(mdl path NAME)"'),
    ("env settings", "mdl config shows the settings in use, and where they come from"),
    ("completion completions", "mdl --install-completion"),
    ("zip archive", "mdl pack RUN"),
    ("schema schemas", "mdl help schema COMMAND prints the JSON Schema of its output"),
    ("unzip extract deploy", "mdl unpack ARCHIVE; with --release it is put into service"),
    (
        "--local-dir --local-dir-use-symlinks --dir -d -P --directory-prefix --output-dir --outdir --dest --target "
        "--path --folder --home",
        "--into DIR puts the files of one target into DIR itself; --to DIR is the models folder",
    ),
    ("--cache-dir --cache", "--layout hf-cache uses the cache of Hugging Face; --to DIR says where it is"),
    (
        "--token --hf-token --header -H",
        'a token is never a flag: set HF_TOKEN; for other hosts write [hosts."HOST"] into config.toml',
    ),
    ("--repo-type", "write the type before the name: hf:datasets/org/name, hf:spaces/org/name"),
    ("--quant --quantization --quantisation", "write it after the repository: org/repo:Q8_0"),
    ("--file --files", "write the files after the repository, org/repo FILE, or use --include GLOB"),
    ("--filename --name -O --output-document", "--output NAME is for one URL; of a repository: org/repo FILE"),
    ("--allow-patterns --ignore-patterns --pattern", "--include GLOB and --exclude GLOB choose the files"),
    (
        "--max-workers --workers --threads --jobs --concurrent --parallel --split -x -j -s --transfers",
        "--connections N is how many at once, in all",
    ),
    ("--rate-limit --speed-limit --bwlimit", "--limit-rate 20M is in bytes per second"),
    (
        "--continue --resume --resume-download -c -C",
        "the same command continues where it was; --force begins again",
    ),
    ("--overwrite --force-download", "--force"),
    ("--local-files-only", "--offline contacts nothing"),
    ("--timeout --max-time", "--stall TIME limits a silence, --max-duration TIME the complete run"),
    ("--branch --ref --commit --tag", "--revision REV"),
    ("--checksum --hash", "--sha256 HEX is the digest of one URL's file"),
    ("--type --dataset --datasets", "--kind dataset"),
    ("--silent --no-progress", "--quiet shows only failures, --progress none no progress"),
    ("--endpoint", "set HF_ENDPOINT to the address of the hub"),
    ("--proxy", "set HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"),
    ("--insecure -k --no-check-certificate", "every certificate is checked; SSL_CERT_FILE says which are trusted"),
    ("-n --dry-run", "without --yes nothing is deleted: it only shows what would be"),
)
"""Commands and options that people of ``git``, ``hf``, ``ollama``, ``docker``, ``curl`` and ``aria2`` type, or that
other commands of mdl have, and what mdl has for it. The hint of an option is given for commands that have the options
that it names."""


_OF_ONE: Final = {"mdl jobs": "mdl jobs show", "mdl remote": "mdl remote check", "mdl config": "mdl config get"}
"""What is meant by a name right after a group of commands: ``mdl jobs k7f3``."""


def foreign_words() -> dict[str, str]:
    """Return the hints by each word, with those of plug-ins."""
    hints: dict[str, str] = {}
    for words, hint in _ROWS:
        hints.update(dict.fromkeys(words.split(), hint))
    for plugin in plugins():
        hints.update(plugin.habits)
    return hints


def usage_error(error: typer.TyperException, called: str = "mdl") -> UsageError:
    """Put what Typer refused of the command that was ``called`` into an error: in Typer's words, with what to do."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else called
    message, _, alike = error.message.partition(". Did you mean ")
    hint = f"{path} --help"
    if alike:
        commands = [f"{path} {name}" for name in re.findall("'([^']+)'", alike)]
        hint = f"did you mean {' or '.join(commands)}?"
    elif path in _OF_ONE and (word := re.fullmatch(r"No such command '(.+)'\.?", message)):
        hint = f"for one of that name: {_OF_ONE[path]} {shown(word[1])}; more: {hint}"
    if context and getattr(error, "option_name", None):
        hint = _instead_of(error, context) or hint
    if context and getattr(error, "param", None):
        message = _of_value(error, context)
        if not error.message:  # an argument is missing
            hint = _with_example(context, hint)
    text = " ".join(message.split()).rstrip(".")
    return UsageError(f"{text[:1].lower()}{text[1:]}", item=path if path != "mdl" else None, hint=hint)


def _with_example(context: Any, hint: str) -> str:
    """Put the first example of the command before the hint that names its help."""
    for line in (context.command.epilog or "").splitlines():
        if line.strip().startswith("mdl "):
            example = line.partition("  #")[0].strip()
            return f"for example: {example}; more: {hint}"
    return hint


def _of_value(error: Any, context: Any) -> str:
    """Say what is wrong with a value, and where it came from; what is meant if it is missing."""
    param = error.param
    reason = error.message.removeprefix("Value error, ")  # pydantic's word for what Typer refuses itself
    reason = re.sub(r"^Input should be\b", "it must be", reason)
    source = context.get_parameter_source(param.name)
    if source is not None and source.name == "ENVIRONMENT":
        return f"invalid value of {param.envvar}: {reason}"
    if not reason:
        return f"{error.format_message().rstrip('.')}: {param.help[:1].lower()}{param.help[1:]}"
    return str(error.format_message()).replace(error.message, reason)


def _instead_of(error: Any, context: Any) -> str:
    """Say what to write instead of an option that the command does not have: what it has for that of another tool, or
    the option that is most alike, if it is so in more than its dashes."""
    known: set[str] = set()
    for param in context.command.params:
        if not param.hidden:
            known.update(param.opts)
    hint = foreign_words().get(error.option_name, "")
    if hint and known.issuperset(re.findall(r"(?<!\S)--[a-z0-9-]+", hint)):
        return hint
    bare = {name.lstrip("-"): name for name in error.possibilities or ()}
    near = get_close_matches(error.option_name.lstrip("-"), bare, 1)
    return f"did you mean {bare[near[0]]}?" if near else ""
