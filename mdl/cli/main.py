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
from mdl.cli.flags import Common
from mdl.cli.session import Session
from mdl.cli.signals import listen, the_signals
from mdl.config import Progress
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


def _misused(arguments: Sequence[str], error: typer.TyperException) -> int:
    """Show a call that Typer refused as every other error, as a document too if its words ask for one."""
    name = next((word for word in arguments if word in COMMANDS), "")
    usage = UsageError(" ".join(error.format_message().split()), hint=" ".join(filter(None, ("mdl", name, "--help"))))
    wants_lines = "--progress=json" in arguments or ("--progress", "json") in pairwise(arguments)
    common = Common(json="--json" in arguments, progress=Progress.json if wants_lines else None)
    return report(Session((COMMANDS[name].see or name if name else "mdl"), common, os.environ), usage)
