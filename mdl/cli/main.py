"""The app, and the way in: arguments to exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import typer

from mdl import __version__
from mdl.cli import catalog, demo, fetching, machine
from mdl.cli.command import root
from mdl.errors import Cancelled

_HELP = """Bring machine-learning models to this machine: from a catalog, resumable, every byte verified.

Try it without a network: mdl demo. Then: mdl list, mdl show NAME, mdl get NAME.
"""

app = typer.Typer(
    name="mdl",
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"mdl {__version__}\n")
        raise typer.Exit


root(app, _version)
for _family in (catalog, fetching, machine, demo):
    _family.register(app)


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code. Signals end it in order: what is there is kept."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(ValueError, OSError):
            signal.signal(name, _terminated)
    try:
        app(args=list(arguments), prog_name="mdl", standalone_mode=True)
    except SystemExit as ended:
        return _status(ended.code)
    except KeyboardInterrupt:
        return Cancelled.exit_code
    except Cancelled as error:
        return error.exit_code
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    return 0


def _status(code: object) -> int:
    return code if isinstance(code, int) else 0 if code is None else 1


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise Cancelled("terminated", terminated=True)
