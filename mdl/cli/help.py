"""help: the help of any command, and what the exit codes mean."""

from __future__ import annotations

from typing import Annotated

from mdl.cli.command import command
from mdl.cli.flags import argument
from mdl.cli.help_text import help_text
from mdl.cli.main import build
from mdl.cli.pages import Page, Row, page_of, root_page
from mdl.cli.parsing import unknown_command
from mdl.cli.session import Session
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
        list[str] | None, argument("COMMAND", "A command, or exit-codes; without one, all commands.")
    ] = None,
) -> int:
    """Show the help of a command, or what the exit codes mean.

    Run 'mdl --install-completion' once, and the Tab key completes models, jobs and options in bash, zsh and fish.
    """
    words = topic or []
    page = exit_codes_page() if words == [EXIT_CODES_TOPIC] else _page(words)
    text = help_text(page, color=not (session.common.no_color or session.common.json))
    return session.show({"topic": " ".join(words), "text": text}, lambda: session.console.stdout.write(text))


def _page(words: list[str]) -> Page:
    """The page of the command that ``words`` call. Raises `UsageError` if there is no such command."""
    found = build(words)
    if not words:
        return root_page(found)
    for number, word in enumerate(words):
        below = getattr(found, "commands", {})
        if word not in below:
            raise unknown_command(word, " ".join(("mdl", *words[:number])), below) if number else unknown_command(word)
        found = below[word]
    return page_of(found, " ".join(words))


def exit_codes_page() -> Page:
    """What every number means that mdl exits with, and what a script should do about it."""
    rows = tuple(
        Row(f"{number:>3}  {name}", f"{_sentence(meaning)} {_sentence(todo)}")
        for number, (name, meaning, todo) in EXIT_CODES.items()
    )
    about = "mdl ends with one of these numbers. A script can act on it: case $? in 5|75) try again later ;; esac"
    return Page("mdl help exit-codes", "", (about,), {"Exit codes": rows}, ())


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
