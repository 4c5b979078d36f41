"""The app, and the way in: arguments to exit code."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from itertools import pairwise

import typer

from mdl import __version__
from mdl.cli.command import HELP_FLAGS, add_command, add_root, add_summary, report
from mdl.cli.commands import COMMANDS
from mdl.cli.flags import Common, Progress
from mdl.cli.session import Session
from mdl.cli.signals import listen, the_signals
from mdl.errors import Cancelled, StorageError, UsageError

_HELP = """Bring machine-learning models to this machine, and trained ones away from it: every byte verified.

Try it without a network: mdl demo. Then: mdl list, mdl show NAME, mdl get NAME.
Every flag is a variable too: --lock-wait is MDL_LOCK_WAIT.
"""


def build(arguments: Sequence[str]) -> typer.Typer:
    """The app with the one command that ``arguments`` call, or with all of them if that is not clear."""
    app = typer.Typer(
        name="mdl",
        help=_HELP,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=HELP_FLAGS,
    )
    add_root(app, _version)
    word = next((word for word in arguments if word in COMMANDS or not word.startswith("-")), "")
    if not word and not is_completing():
        for name, listed in COMMANDS.items():
            add_summary(app, name, listed)
        return app
    for name in [word] if word in COMMANDS else COMMANDS:
        importlib.import_module(f"mdl.cli.{COMMANDS[name].module}")
        add_command(app, COMMANDS[name].see or name, alias=name if COMMANDS[name].see else "")
    return app


def is_completing() -> bool:
    """Whether a shell asks for completions, of flags too."""
    return "_MDL_COMPLETE" in os.environ


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"mdl {__version__}\n")
        raise typer.Exit


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code. Signals end it in order: what was fetched is kept."""
    try:
        listen()
        app = build(arguments)
        if not gc.isenabled():  # `mdl.__main__` put it off; what is imported already is never looked through
            gc.freeze()
            gc.enable()
        code = int(app(args=list(arguments) or ["--help"], prog_name="mdl", standalone_mode=False) or 0)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except typer.TyperException as error:
        return _misused(arguments, error)
    except (KeyboardInterrupt, typer.Abort):
        return Cancelled.exit_code
    except Cancelled as error:
        return error.exit_code
    except OSError as error:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141 if isinstance(error, BrokenPipeError) else StorageError.exit_code
    finally:
        the_signals().rest()


_OF_OTHERS = {
    "--local-dir": "--into DIR puts the files of one target into DIR itself; --to DIR is the models folder",
    "--cache-dir": "--layout hf-cache uses the cache of Hugging Face; --to DIR says where it is",
    "--token": 'a token is never a flag: set HF_TOKEN; for other hosts write [hosts."HOST"] into config.toml',
    "--repo-type": "write the type before the name: hf:datasets/org/name, hf:spaces/org/name",
    "--header": 'a token is never a flag: [hosts."HOST"] token_env = "VARIABLE" in config.toml',
    "--checksum": "--sha256 HEX",
}
"""Flags of other tools, and how mdl says the same."""


def _has_flag(arguments: Sequence[str], flag: str) -> bool:
    return any(word == flag or word.startswith(f"{flag}=") for word in arguments)


def _misused(arguments: Sequence[str], error: typer.TyperException) -> int:
    """Show a call that Typer refused as every other error, as a document too if its words ask for one."""
    name = next((word for word in arguments if word in COMMANDS), "")
    told = next((text for flag, text in _OF_OTHERS.items() if _has_flag(arguments, flag)), "")
    hint = told if "No such option" in error.format_message() else ""
    hint = hint or " ".join(filter(None, ("mdl", name, "--help")))
    usage = UsageError(" ".join(error.format_message().split()), hint=hint)
    wants_lines = "--progress=json" in arguments or ("--progress", "json") in pairwise(arguments)
    common = Common(json="--json" in arguments, progress=Progress.json if wants_lines else None)
    return report(Session((COMMANDS[name].see or name if name else "mdl"), common, os.environ), usage)
