"""help: the help of any command, and what the exit codes mean."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from typing import Annotated

import typer

from mdl import NotFound, UsageError, schemas
from mdl.cli import completion
from mdl.cli.command import command
from mdl.cli.flags import argument
from mdl.cli.main import root
from mdl.cli.session import Session
from mdl.cli.usage import usage_error
from mdl.errors import EXIT_CODES
from mdl.formatting import near_hint

EXIT_CODES_TOPIC = "exit-codes"
SCHEMA_TOPIC = "schema"


@command(
    "help",
    "mdl help  # every command",
    "mdl help jobs pause  # one command, as mdl jobs pause --help",
    "mdl help exit-codes  # what each exit code means",
    "mdl help schema get > get.schema.json  # the JSON Schema of its output",
)
def show_help(
    session: Session,
    topic: Annotated[
        list[str] | None,
        argument(
            "COMMAND",
            "A command, exit-codes, or schema NAME; without one, all.",
            autocompletion=completion.topics,
        ),
    ] = None,
) -> int:
    """Show the help of a command, what the exit codes mean, or the JSON Schema of what a command prints with --json.

    'mdl help schema' lists the schemas; event is that of one line of --progress json. A later release may add
    keys, but changes no meaning.

    Run 'mdl --install-completion' once, and the Tab key completes models, jobs and options in bash, zsh and fish.
    """
    words = topic or []
    text = ""
    if session.common.json or _is_read_on_screen(session.environ):
        captured = io.StringIO()
        with contextlib.redirect_stdout(captured):
            _print(words, has_color=False)
        text = captured.getvalue()
    if session.common.json:
        return session.show({"topic": " ".join(words), "text": text})
    if not _page(text, session.environ):
        _print(words, has_color=not session.common.no_color)
    return 0


def _is_read_on_screen(environ: Mapping[str, str]) -> bool:
    """Whether somebody reads this on a terminal that a pager can use."""
    if sys.stdin is None or sys.stdout is None or environ.get("TERM", "dumb") == "dumb":
        return False
    return sys.stdin.isatty() and sys.stdout.isatty()


def _page(text: str, environ: Mapping[str, str]) -> bool:
    """Show a text that does not fit on the screen in the user's pager, as ``git help`` and ``man`` do. Returns whether
    it was shown."""
    pager: list[str] = []
    with contextlib.suppress(ValueError):  # quotes that do not match
        pager = shlex.split(environ.get("PAGER") or "less")
    is_long = text.count("\n") >= shutil.get_terminal_size().lines
    if not is_long or not pager or shutil.which(pager[0]) is None:
        return False
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pager
    try:
        subprocess.run(pager, input=text, text=True, env={"LESS": "FRX", **environ}, check=False)
    finally:
        signal.signal(signal.SIGINT, before)
    return True


def _print(words: list[str], *, has_color: bool) -> None:
    """Print the help of the command that ``words`` call. Raises `UsageError` if there is no such command."""
    if words == [EXIT_CODES_TOPIC]:
        typer.echo(exit_codes())
        return
    if words[:1] == [SCHEMA_TOPIC]:
        typer.echo(_schema_text(words[1:]))
        return
    try:
        root().main(args=[*words, "--help"], prog_name="mdl", standalone_mode=False, color=None if has_color else False)
    except typer.TyperException as error:
        usage = usage_error(error)
        hint = near_hint(" ".join(words), (EXIT_CODES_TOPIC, SCHEMA_TOPIC), usage.hint or "mdl --help")
        raise usage.but(hint=hint) from error


def _schema_text(words: list[str]) -> str:
    """The JSON Schema that is named, or the names of all. Raises `NotFound`, `UsageError`."""
    names = schemas.names()
    if not words:
        return "\n".join(names)
    if len(words) > 1:
        raise UsageError("a schema has one name", item=" ".join(words), hint="mdl help schema get")
    [name] = words
    if name not in names:
        hint = near_hint(name, names, "'mdl help schema' lists them")
        raise NotFound("there is no schema of this name", item=name, hint=hint)
    return json.dumps(schemas.schema(name), indent=2)


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
