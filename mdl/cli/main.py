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
from mdl.cli.command import report, root
from mdl.cli.flags import Common
from mdl.cli.session import Session
from mdl.errors import Cancelled, UsageError

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
            if signal.getsignal(name) is not signal.SIG_IGN:
                signal.signal(name, _terminated)
    try:
        return int(app(args=list(arguments) or ["--help"], prog_name="mdl", standalone_mode=False) or 0)
    except typer.TyperException as error:
        return _misused(arguments, error)
    except (KeyboardInterrupt, typer.Abort):
        return Cancelled.exit_code
    except Cancelled as error:
        return error.exit_code
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _misused(arguments: Sequence[str], error: typer.TyperException) -> int:
    """A call that Typer refused, told as every other error is; as a document too where one was asked for."""
    known = {command.name for command in app.registered_commands}
    name = next((word for word in arguments if word in known), "")
    usage = UsageError(" ".join(error.format_message().split()), hint=" ".join(filter(None, ("mdl", name, "--help"))))
    name = name or "mdl"
    return report(Session(name, Common(json="--json" in arguments), os.environ), usage)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise Cancelled("terminated", terminated=True)
