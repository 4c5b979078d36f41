"""Writes commands.md, beside this file, and the man page, from the pages that the help shows.

python docs/commands.py           # write them
python docs/commands.py --check   # write nothing; exit with 1 if they are not up to date
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Collection, Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

import typer

from mdl.cli.commands import GROUPS
from mdl.cli.main import app_of
from mdl.cli.pages import OPTIONS, Page, Row, page_of, root_page
from mdl.errors import EXIT_CODES

_DATED: Final = "2026-11-23"
"""A man page bears a date: that of the last change of its form."""
_STYLE: Final = 70
DOCUMENT = Path(__file__).with_suffix(".md")
MANUAL = DOCUMENT.with_name("man") / "mdl.1"


def pages() -> list[Page]:
    """The page of ``mdl``, then that of every command in the order of the help, each before those below it.

    The options that all share are on the first page alone.
    """
    found: Any = typer.main.get_command(app_of(name for group in GROUPS.values() for name in group))
    root = root_page(found)
    commands = [page for name, one in found.commands.items() for page in _pages(one, name)]
    return [root, *(_without(page, root.panels[OPTIONS]) for page in commands)]


def _pages(command: Any, name: str) -> Iterator[Page]:
    yield page_of(command, name)
    for word, below in getattr(command, "commands", {}).items():
        yield from _pages(below, f"{name} {word}")


def _without(page: Page, shared: Collection[Row]) -> Page:
    panels = {title: tuple(row for row in rows if row not in shared) for title, rows in page.panels.items()}
    return page._replace(panels={title: rows for title, rows in panels.items() if rows})


def document(found: list[Page]) -> str:
    """``docs/commands.md``."""
    root, *commands = found
    lines = ["# Commands", "", "`python docs/commands.py` writes this; `man mdl` and `mdl help` say the same."]
    for title, rows in root.panels.items():
        lines += ["", f"**{title}**", "", *_table(rows, is_linked=title in GROUPS)]
    lines += ["", "## Exit codes", "", "| code | name | meaning | a script should |", "|---|---|---|---|"]
    lines += [f"| {code} | {' | '.join(texts)} |" for code, texts in EXIT_CODES.items()]
    for page in commands:
        lines += ["", f"## {page.name}", "", "```", page.usage, "```"]
        lines += [line for text in page.about for line in ("", _escaped(text))]
        for title, rows in page.panels.items():
            lines += ["", f"**{title}**", "", *_table(rows)]
        examples = [line for row in page.examples for line in (f"# {row.about}", row.usage)]
        lines += ["", "```sh", *examples, "```"]
    return "\n".join(lines) + "\n"


def _table(rows: tuple[Row, ...], *, is_linked: bool = False) -> list[str]:
    cells = [(f"[mdl {row.usage}](#mdl-{row.usage})" if is_linked else _code(row.usage), row.about) for row in rows]
    first = "command" if is_linked else "option" if rows[0].usage.strip().startswith("-") else "word"
    return [f"| {first} | meaning |", "|---|---|", *(f"| {usage} | {_escaped(about)} |" for usage, about in cells)]


def _code(text: str) -> str:
    """``text`` as code in a cell, where a bar would end the cell."""
    code = text.strip()
    return f"<code>{escape(code, quote=False).replace('|', '&#124;')}</code>" if "|" in code else f"`{code}`"


def _escaped(text: str) -> str:
    """``text`` with nothing that Markdown would obey."""
    return re.sub(r"([|*_<>\[\]])", r"\\\1", text)


def manual(found: list[Page]) -> str:
    """The man page, for man(7)."""
    root, *commands = found
    lines = [f'.TH MDL 1 {_DATED} mdl "mdl manual"', ".SH NAME", *_filled(f"mdl - {_named(root.about[0])}")]
    lines += [".SH SYNOPSIS", ".nf", _roff(root.usage), ".fi", ".SH DESCRIPTION", *_filled(root.about[0])]
    for title, rows in root.panels.items():
        lines += [f'.SS "{_roff(title)}"', *_items(rows)]
    lines += [".SH EXAMPLES", *_examples(root.examples), ".SH COMMANDS"]
    for page in commands:
        lines += [f'.SS "{_roff(page.name)}"', ".nf", _roff(page.usage), ".fi"]
        lines += [line for text in page.about for line in (".PP", *_filled(text))]
        for title, rows in page.panels.items():
            lines += [".PP", f"\\fB{_roff(title)}\\fR", *_items(rows)]
        lines += [".PP", "\\fBExamples\\fR", *_examples(page.examples)]
    codes = tuple(Row(f"{code} {name}", f"{what}: {todo}") for code, (name, what, todo) in EXIT_CODES.items())
    lines += [".SH EXIT STATUS", *_items(codes)]
    return "\n".join(lines) + "\n"


def _named(text: str) -> str:
    return f"{text[:1].lower()}{text[1:].rstrip('.')}"


def _items(rows: tuple[Row, ...]) -> Iterator[str]:
    for row in rows:
        yield from (".TP", f"\\fB{_roff(row.usage.strip())}\\fR", *_filled(row.about))


def _examples(rows: tuple[Row, ...]) -> Iterator[str]:
    yield ".nf"
    for row in rows:
        yield from (f"# {_roff(row.about)}", _roff(row.usage))
    yield ".fi"


def _filled(text: str) -> Iterator[str]:
    """A paragraph in lines that man(7) calls good style."""
    for line in textwrap.wrap(text, _STYLE, break_long_words=False, break_on_hyphens=False):
        yield _roff(line)


def _roff(text: str) -> str:
    """``text`` with nothing that roff would obey."""
    text = (
        text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("'", "\\(aq").replace("`", "\\(ga")
    )
    return f"\\&{text}" if text.startswith(".") else text


def main(arguments: list[str]) -> int:
    """Write both files; with ``--check`` say which one is not up to date. Returns the exit code."""
    found, code = pages(), 0
    for place, text in ((MANUAL, manual(found)), (DOCUMENT, document(found))):
        if "--check" not in arguments:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, "utf-8")
        elif not place.exists() or place.read_text("utf-8") != text:
            sys.stderr.write(f"{place} is not up to date: run python docs/commands.py\n")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
