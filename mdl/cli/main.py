"""The app, and the way in: arguments to exit code."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Sequence

import typer

from mdl import __version__
from mdl.cli.command import ALIASES, report, root, told_as
from mdl.cli.session import Session
from mdl.cli.signals import listen, the_signals
from mdl.errors import Cancelled, StorageError, UsageError

_HELP = """Bring machine-learning models to this machine, and trained ones away from it: every byte verified.

Try it without a network: mdl demo. Then: mdl list, mdl show NAME, mdl get NAME.
Every flag is a variable too: --lock-wait is MDL_LOCK_WAIT.
"""

_FAMILIES = {
    "list": "list",
    "show": "list",
    "get": "get",
    "download": "get",
    "verify": "verify",
    "path": "list",
    "lock": "lock",
    "add": "edit",
    "remove": "edit",
    "checkpoints": "pack",
    "pack": "pack",
    "unpack": "unpack",
    "rollback": "unpack",
    "config": "machine",
    "doctor": "machine",
    "demo": "demo",
    "schema": "schema",
    "prefetch": "prefetch",
    "jobs": "jobs",
    "clean": "clean",
}
"""Which room a command is in. Only the room that is asked for is opened: Typer builds every flag it is told of."""


def build(arguments: Sequence[str]) -> typer.Typer:
    """The app with the one family that ``arguments`` call for, or with all of them if that is not clear."""
    app = typer.Typer(
        name="mdl",
        help=_HELP,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    root(app, _version)
    word = next((word for word in arguments if word in _FAMILIES or not word.startswith("-")), "")
    rooms = [_FAMILIES[word]] if word in _FAMILIES else dict.fromkeys(_FAMILIES.values())
    for room in rooms:
        importlib.import_module(f"mdl.cli.{room}").register(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"mdl {__version__}\n")
        raise typer.Exit


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code. Signals end it in order: what is there is kept."""
    try:
        listen()
        app = build(arguments)
        _collect_garbage()
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


def _collect_garbage() -> None:
    """Switch garbage collection on, which `mdl.__main__` put off; what is imported already is never looked through."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _misused(arguments: Sequence[str], error: typer.TyperException) -> int:
    """A call that Typer refused, shown as every other error; as a document too if one was asked for."""
    name = next((word for word in arguments if word in _FAMILIES), "")
    usage = UsageError(" ".join(error.format_message().split()), hint=" ".join(filter(None, ("mdl", name, "--help"))))
    return report(Session(ALIASES.get(name, name) or "mdl", told_as(arguments), os.environ), usage)
