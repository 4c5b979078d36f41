"""help: the help of any command, and what the exit codes mean."""

from __future__ import annotations

import contextlib
import io
import shutil
import textwrap
from typing import Annotated

import typer

from mdl.cli import completion
from mdl.cli.command import command
from mdl.cli.flags import argument
from mdl.cli.main import root
from mdl.cli.session import Session
from mdl.cli.usage import usage_error
from mdl.errors import EXIT_CODES

EXIT_CODES_TOPIC = "exit-codes"


@command(
    "help",
    "mdl help  # every command",
    "mdl help jobs pause  # one command, as mdl jobs pause --help",
    "mdl help exit-codes  # what each exit code means",
)
def show_help(
    session: Session,
    topic: Annotated[
        list[str] | None,
        argument("COMMAND", "A command, or exit-codes; without one, all commands.", autocompletion=completion.topics),
    ] = None,
) -> int:
    """Show the help of a command, or what the exit codes mean.

    Run 'mdl --install-completion' once, and the Tab key completes models, jobs and options in bash, zsh and fish.
    """
    words = topic or []
    if not session.common.json:
        _print(words, has_color=not session.common.no_color)
        return 0
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        _print(words, has_color=False)
    return session.show({"topic": " ".join(words), "text": text.getvalue()})


def _print(words: list[str], *, has_color: bool) -> None:
    """Print the help of the command that ``words`` call. Raises `UsageError` if there is no such command."""
    if words == [EXIT_CODES_TOPIC]:
        typer.echo(exit_codes())
        return
    try:
        root().main(args=[*words, "--help"], prog_name="mdl", standalone_mode=False, color=None if has_color else False)
    except typer.TyperException as error:
        raise usage_error(error) from error


def exit_codes() -> str:
    """Return the text on exit codes: the meaning of each, and what a script should do about it."""
    lines = ["mdl ends with one of these numbers. A script can act on it: case $? in 5|75) try again later ;; esac", ""]
    for number, (name, meaning, todo) in EXIT_CODES.items():
        head = f"{number:>4}  {name:<13}"
        lines.append(
            textwrap.fill(
                f"{_sentence(meaning)} {_sentence(todo)}",
                shutil.get_terminal_size().columns,
                initial_indent=head,
                subsequent_indent=" " * len(head),
            )
        )
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
