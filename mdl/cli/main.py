"""The app, and the way in: arguments to exit code."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import typer

from mdl.cli.command import report
from mdl.cli.commands import find
from mdl.cli.flags import Common
from mdl.cli.session import Session
from mdl.cli.signals import listen, the_signals
from mdl.cli.typer_app import epilog_of, root_group
from mdl.cli.usage import usage_error
from mdl.console.reporter import BROKEN_PIPE
from mdl.disk.process import without_core_files
from mdl.errors import Cancelled, Problem, StorageError, as_problem
from mdl.units import is_true

_COMPLETE = "_MDL_COMPLETE"
"""The variable by which a shell asks Typer what the Tab key offers."""
_ANSWERABLE = "complete_fish"
"""How the scripts of `mdl.cli.completion` ask. What Typer says to its own scripts, bash and zsh would run (ADR 62)."""
_HELP = "Download machine-learning models and verify every byte. Pack, release and upload trained ones."
EXAMPLES = (
    "mdl demo  # try everything on this machine, without a network",
    "mdl list  # the models of the catalog, and which are on this disk",
    "mdl get openai/whisper-tiny  # download one; the last line is its folder",
)
_LEARN_MORE = """\
Learn more:
  mdl COMMAND --help  # every option of a command, with examples
  mdl help exit-codes  # what an exit code means, and what to do
  mdl --install-completion  # let Tab complete models, jobs and options"""


@cache
def root() -> Any:
    """Typer's group of all commands."""
    return root_group(help=_HELP, epilog=f"{epilog_of(EXAMPLES)}\n\n{_LEARN_MORE}")


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code. A signal has it end in an orderly way: what was fetched is kept."""
    words = [*arguments] or ["--help"]
    words[0] = "--version" if words[0] == "version" else words[0]
    with without_core_files():
        return _run(words)


def _run(words: list[str]) -> int:
    try:
        listen()
        if _COMPLETE in os.environ:
            return _complete()
        if not gc.isenabled():  # `mdl.__main__` put it off; what is imported already is never looked through
            gc.freeze()
            gc.enable()
        color = False if "--no-color" in words else None
        code = int(root().main(args=words, prog_name="mdl", standalone_mode=False, color=color) or 0)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except typer.TyperException as error:
        return _failed(words, usage_error(error, _called(words)[1]))
    except (KeyboardInterrupt, typer.Abort):
        return Cancelled.exit_code
    except Cancelled as error:
        return error.exit_code
    except SystemExit:  # how Typer ends if the reader of a help has left
        return BROKEN_PIPE
    except BrokenPipeError:
        _discard_stdout()
        return BROKEN_PIPE
    except OSError as error:
        _discard_stdout()
        hint = "the output could not be written; send it elsewhere"
        return _failed(words, StorageError(error.strerror or str(error), item="stdout", hint=hint))
    except Exception as error:
        return _failed(words, as_problem(error))
    finally:
        the_signals().rest()


def _failed(words: Sequence[str], error: Problem) -> int:
    """Show what no command could: as every other error, as a document too if the words, or MDL_JSON, ask for one."""
    command, _ = _called(words)
    wants_lines = "--progress=json" in words or ("--progress", "json") in pairwise(words)
    is_verbose = "-v" in words or "--verbose" in words
    wants_document = "--json" in words or is_true(os.environ.get("MDL_JSON"))
    common = Common(json=wants_document, progress="json" if wants_lines else None, verbose=is_verbose)
    return report(Session(command, common, os.environ), error)


def _discard_stdout() -> None:
    """Let what is still to be written there go nowhere."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _called(words: Sequence[str]) -> tuple[str, str]:
    """The command that the words name, and how it was called; mdl itself if they name none."""
    for word in words:
        listed = find(word)
        if listed:
            return listed.see or word, f"mdl {word}"
    return "mdl", "mdl"


def _complete() -> int:
    """Have Typer answer a shell whose user has pressed Tab. What goes wrong is nobody's business there."""
    from typer.completion import get_completion_inspect_parameters

    if os.environ[_COMPLETE] == _ANSWERABLE:
        get_completion_inspect_parameters()  # Typer gets to know the shells by it
        with contextlib.suppress(Exception, SystemExit):
            root().main(args=[], prog_name="mdl")
    return 0
