"""The app, and the way in: arguments to exit code."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import Annotated, Any

import typer

from mdl import __version__
from mdl.cli.command import HELP_FLAGS, add_command, add_root, report
from mdl.cli.commands import COMMANDS
from mdl.cli.flags import Common
from mdl.cli.parsing import misuse
from mdl.cli.session import Session
from mdl.cli.signals import listen, the_signals
from mdl.console.reporter import BROKEN_PIPE
from mdl.errors import Cancelled, StorageError, UsageError
from mdl.process import without_core_files

LINE = "_MDL_COMPLETE_LINE"
"""The variable in which a shell passes what was typed so far."""
_HELP = "Bring machine-learning models to this machine, and trained ones away from it: every byte verified."


def build(arguments: Sequence[str]) -> Any:
    """Typer's group with the one command that ``arguments`` call, or with every command that they name."""
    words = [word for word in arguments if not word.startswith("-")]
    called = words[:1] if words and words[0] in COMMANDS else [word for word in words if word in COMMANDS]
    return _built(tuple(called), "--no-color" not in arguments)


@cache
def _built(names: tuple[str, ...], has_color: bool) -> Any:
    return typer.main.get_command(app_of(names, has_color=has_color))


def app_of(names: Iterable[str], *, has_color: bool = True) -> typer.Typer:
    """The app with the commands of these names; a help without ``has_color`` has no escape codes."""
    app = typer.Typer(
        name="mdl",
        help=_HELP,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings=HELP_FLAGS | ({} if has_color else {"color": False}),
    )
    add_root(app, _OWN)
    for name in dict.fromkeys(names):
        importlib.import_module(f"mdl.cli.{COMMANDS[name].module}")
        add_command(app, COMMANDS[name].see or name, alias=name if COMMANDS[name].see else "")
    return app


def _version(wanted: bool | None) -> None:
    if wanted:
        sys.stdout.write(f"mdl {__version__}\n")
        raise typer.Exit


def _install_completion(shell: str | None) -> None:
    if shell:
        from mdl.cli.shells import install

        sys.stdout.write(f"{install(shell, os.environ)}\n")
        raise typer.Exit


def _show_completion(shell: str | None) -> None:
    if shell:
        from mdl.cli.shells import script

        sys.stdout.write(script(shell, os.environ))
        raise typer.Exit


_OWN = {
    "version": Annotated[
        bool | None, typer.Option("-V", "--version", callback=_version, is_eager=True, help="Show the version.")
    ],
    "install_completion": Annotated[str | None, typer.Option(hidden=True, callback=_install_completion, is_eager=True)],
    "show_completion": Annotated[str | None, typer.Option(hidden=True, callback=_show_completion, is_eager=True)],
}
"""The options that stand only before the command. Each ends mdl."""


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code. A signal has it end in an orderly way: what was fetched is kept."""
    words = [*arguments] or ["--help"]
    words[0] = "--version" if words[0] == "version" else words[0]
    with without_core_files():
        return _run(words)


def _run(words: list[str]) -> int:
    try:
        listen()
        if LINE in os.environ:
            return _complete(os.environ[LINE])
        group = build(words)
        if not gc.isenabled():  # `mdl.__main__` put it off; what is imported already is never looked through
            gc.freeze()
            gc.enable()
        code = int(group.main(args=words, prog_name="mdl", standalone_mode=False) or 0)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except (typer.TyperException, UsageError) as error:
        return _misused(words, error)
    except (KeyboardInterrupt, typer.Abort):
        return Cancelled.exit_code
    except Cancelled as error:
        return error.exit_code
    except SystemExit:  # how Typer ends if the reader of a help has left
        return BROKEN_PIPE
    except OSError as error:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE if isinstance(error, BrokenPipeError) else StorageError.exit_code
    finally:
        the_signals().rest()


def _misused(words: Sequence[str], error: typer.TyperException | UsageError) -> int:
    """Show a call that cannot be parsed as every other error, as a document too if its words ask for one."""
    name = next((word for word in words if word in COMMANDS), "")
    usage = error if isinstance(error, UsageError) else misuse(error, name)
    wants_lines = "--progress=json" in words or ("--progress", "json") in pairwise(words)
    common = Common(json="--json" in words, progress="json" if wants_lines else None)
    return report(Session((COMMANDS[name].see or name if name else "mdl"), common, os.environ), usage)


def _complete(line: str) -> int:
    """Answer a shell whose user has typed ``line`` and pressed Tab. What goes wrong is nobody's business there."""
    from mdl.cli.completion import complete, words_of

    with contextlib.suppress(Exception):
        words = words_of(line)
        for row in complete(build(words), words):
            sys.stdout.write(f"{row}\n")
    return 0
