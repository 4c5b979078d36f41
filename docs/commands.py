"""Writes commands.md, beside this file, and the man page, from the Typer app that the help is made from.

python docs/commands.py           # write them
python docs/commands.py --check   # write nothing; exit with 1 if they are not up to date
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final, NamedTuple

from mdl.cli.commands import groups
from mdl.cli.flags import PANELS, ROOT_PANEL
from mdl.cli.main import EXAMPLES, root
from mdl.cli.typer_app import loaded
from mdl.errors import EXIT_CODES

_DATED: Final = "2026-11-26"
"""A man page bears a date: that of the last change of its form."""
_STYLE: Final = 60
_COLUMNS: Final = 75
"""What a block of code of the site shows; the rest would be cut off."""
_BELOW: Final = "Commands"
"""The heading of the commands below a command."""
_SHARED: Final = "Shared options"
_SHARED_FROM: Final = 3
"""An option that so many commands of the first level take with the same meaning is explained once."""
DOCUMENT = Path(__file__).with_suffix(".md")
MANUAL = DOCUMENT.with_name("man") / "mdl.1"


class Row(NamedTuple):
    """A flag, an argument, a command or an example, and what it is or does."""

    usage: str
    about: str


Panels = Mapping[str, tuple[Row, ...]]
"""The rows below each heading."""


class Page(NamedTuple):
    """What is said of one command: ``mdl get``. ``about`` has a text for each paragraph."""

    name: str
    usage: str
    about: tuple[str, ...]
    panels: Panels
    examples: tuple[Row, ...]


def root_page() -> Page:
    """The page of ``mdl`` itself: every command in its group, then the options that all share."""
    panels = {
        group: tuple(Row(name, listed.summary) for name, listed in commands.items())
        for group, commands in groups().items()
    }
    page = _page(root(), "mdl")
    return page._replace(panels=panels | {ROOT_PANEL: page.panels[ROOT_PANEL]}, examples=_examples(EXAMPLES))


def pages() -> list[Page]:
    """The page of every command in the order of the help, each before those below it."""
    found: list[Page] = []
    for commands in groups().values():
        for name in commands:
            command = loaded(name)
            found.append(_page(command, f"mdl {name}"))
            for word, below in getattr(command, "commands", {}).items():
                found.append(_page(below, f"mdl {name} {word}"))
    return found


def _page(command: Any, name: str) -> Page:
    context = command.make_context(name, [], resilient_parsing=True)
    panels: dict[str, list[Row]] = {}
    for word, below in getattr(command, "commands", {}).items():
        first_sentence = re.split(r"\.(?:\s|$)", below.help or "", maxsplit=1)[0]
        panels.setdefault(_BELOW, []).append(Row(word, " ".join(first_sentence.split())))
    for param in command.params:
        if not param.hidden:
            panel = param.rich_help_panel if param.param_type_name == "option" else "Arguments"
            panels.setdefault(panel, []).append(_row(param, context))
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    about = tuple(" ".join(text.split()) for text in re.split(r"\n\s*\n", command.help or ""))
    examples = [line for line in (command.epilog or "").splitlines() if line.startswith("  ")]
    return Page(name, usage, about, {panel: tuple(rows) for panel, rows in panels.items()}, _examples(examples))


def _row(param: Any, context: Any) -> Row:
    if param.param_type_name == "argument":
        return Row(param.metavar, param.help)
    is_switch = param.is_flag or param.count
    value = "" if is_switch else param.metavar or param.display_type(context).strip("<>")
    default = f" [default: {param.default}]" if param.default and param.show_default and not is_switch else ""
    return Row(f"{', '.join(sorted(param.opts, key=len))} {value}".rstrip(), f"{param.help}{default}")


def _examples(lines: Iterable[str]) -> tuple[Row, ...]:
    """Command lines, each with what it does behind two spaces and a ``#``."""
    return tuple(Row(*line.strip().split("  # ", 1)) for line in lines)


class Reference(NamedTuple):
    """What both files say. ``shared`` has each option that several commands take, once; ``sharing`` has the names of
    those options for each command, whose own page does not repeat them."""

    root: Page
    shared: tuple[Row, ...]
    sharing: Mapping[str, tuple[str, ...]]
    commands: tuple[Page, ...]


def reference() -> Reference:
    """The pages of all commands, and the options that they share."""
    top = root_page()
    everywhere = top.panels[ROOT_PANEL]
    found = [_without(page, everywhere) for page in pages()]
    shared = _shared_by(found)
    sharing = {page.name: tuple(_flag(row) for row in shared if row in _rows(page)) for page in found}
    return Reference(top, shared, sharing, tuple(_without(page, shared) for page in found))


def _rows(page: Page) -> list[Row]:
    """All rows of a page: its arguments, then its options in the order of the headings of the help."""
    rows: list[Row] = []
    for title in (*(title for title in page.panels if title not in PANELS), *PANELS):
        rows += page.panels.get(title, ())
    return rows


def _without(page: Page, left_out: tuple[Row, ...]) -> Page:
    panels: dict[str, tuple[Row, ...]] = {}
    for title, rows in page.panels.items():
        own = tuple(row for row in rows if row not in left_out)
        if own:
            panels[title] = own
    return page._replace(panels=panels)


def _shared_by(found: Iterable[Page]) -> tuple[Row, ...]:
    """The options that at least `_SHARED_FROM` commands take with the same meaning: for each flag its usual one."""
    commands: dict[Row, set[str]] = {}
    for title in PANELS:
        for page in found:
            for row in page.panels.get(title, ()):
                commands.setdefault(row, set()).add(page.name.split()[1])
    usual: dict[str, Row] = {}
    for row, names in commands.items():
        best = usual.get(_flag(row), row)
        if len(names) >= max(_SHARED_FROM, len(commands[best])):
            usual[_flag(row)] = row
    return tuple(usual.values())


def _flag(row: Row) -> str:
    """``--to`` of ``--to DIR``, ``--dry-run`` of ``-n, --dry-run``."""
    return next(word for word in row.usage.split() if word.startswith("--")).rstrip(",")


def document(found: Reference) -> str:
    """``docs/commands.md``."""
    lines = ["# Commands", "", "`mdl help` and `mdl help COMMAND` show the same in a terminal."]
    for title, rows in found.root.panels.items():
        lines += ["", f"**{title}**", "", *_table(rows, is_linked=title in groups())]
    lines += ["", f"## {_SHARED}", "", "These options mean the same in every command that takes them."]
    lines += ["", *_table(found.shared)]
    lines += ["", "## Exit codes", "", "| code | name | meaning | a script should |", "|---|---|---|---|"]
    lines += [f"| {code} | {' | '.join(texts)} |" for code, texts in EXIT_CODES.items()]
    for page in found.commands:
        lines += ["", f"## {page.name}", "", "```", page.usage, "```"]
        for paragraph in page.about:
            lines += ["", _escaped(paragraph)]
        below = [row.usage for row in page.panels.get(_BELOW, ())]
        if below:
            links = ", ".join(f"[{word}](#{_anchor(page.name)}-{word})" for word in below)
            lines += ["", f"Commands: {links}."]
        rows = tuple(row for row in _rows(page) if row.usage not in below)
        if rows:
            lines += ["", *_table(rows)]
        named = named_shared(found, page)
        if named:
            listed = re.sub(r"--[a-z-]+", r"`\g<0>`", named)
            lines += ["", f"[{_SHARED}](#{_anchor(_SHARED)}): {listed}."]
        lines += ["", "```sh"]
        for example in page.examples:
            lines += [*textwrap.wrap(f"# {example.about}", _COLUMNS, subsequent_indent="# "), *_folded(example.usage)]
        lines += ["```"]
    return "\n".join(lines) + "\n"


def named_shared(found: Reference, page: Page) -> str:
    """Which of the shared options a command takes: those, or ``all but`` the few others."""
    names = found.sharing[page.name]
    others = [_flag(row) for row in found.shared if _flag(row) not in names]
    if len(others) >= len(names):
        return ", ".join(names)
    return f"all but {', '.join(others)}" if others else "all"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _folded(command: str) -> list[str]:
    """A command line that is too long for a block of code goes on in the next line."""
    lines = textwrap.wrap(
        command, _COLUMNS - 2, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def _table(rows: tuple[Row, ...], *, is_linked: bool = False) -> list[str]:
    cells = [(f"[mdl {row.usage}](#mdl-{row.usage})" if is_linked else _code(row.usage), row.about) for row in rows]
    has_options = any(row.usage.strip().startswith("-") for row in rows)
    first = "command" if is_linked else "option" if has_options else "argument"
    return [f"| {first} | meaning |", "|---|---|", *(f"| {usage} | {_escaped(about)} |" for usage, about in cells)]


def _code(text: str) -> str:
    """``text`` as code in a cell, where a bar would end the cell."""
    code = text.strip()
    return f"<code>{escape(code, quote=False).replace('|', '&#124;')}</code>" if "|" in code else f"`{code}`"


def _escaped(text: str) -> str:
    """``text`` with nothing that Markdown would obey."""
    return re.sub(r"([|*_<>\[\]])", r"\\\1", text)


def manual(found: Reference) -> str:
    """The man page, for man(7)."""
    top = found.root
    lines = [f'.TH MDL 1 {_DATED} mdl "mdl manual"', ".SH NAME", *_filled(f"mdl - {_named(top.about[0])}")]
    lines += [".SH SYNOPSIS", ".nf", _roff(top.usage), ".fi", ".SH DESCRIPTION", *_filled(top.about[0])]
    for title, rows in top.panels.items():
        lines += [f'.SS "{_roff(title)}"', *_items(rows)]
    lines += [".SH EXAMPLES", *_example_lines(top.examples), f".SH {_SHARED.upper()}"]
    lines += [*_filled("These options mean the same in every command that takes them."), *_items(found.shared)]
    lines += [".SH COMMANDS"]
    for page in found.commands:
        lines += [f'.SS "{_roff(page.name)}"', ".nf", _roff(page.usage), ".fi"]
        for paragraph in page.about:
            lines += [".PP", *_filled(paragraph)]
        lines += _items(_rows(page))
        named = named_shared(found, page)
        if named:
            lines += [".PP", f"{_SHARED}:", *_filled(f"{named}.")]
        lines += [".PP", "\\fBExamples\\fR", *_example_lines(page.examples)]
    codes = tuple(Row(f"{code} {name}", f"{what}: {todo}") for code, (name, what, todo) in EXIT_CODES.items())
    lines += [".SH EXIT STATUS", *_items(codes)]
    return "\n".join(lines) + "\n"


def _named(text: str) -> str:
    return f"{text[:1].lower()}{text[1:].rstrip('.')}"


def _items(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        yield from (".TP", f"\\fB{_roff(row.usage.strip())}\\fR", *_filled(row.about))


def _example_lines(rows: tuple[Row, ...]) -> Iterator[str]:
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
    found = reference()
    code = 0
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
