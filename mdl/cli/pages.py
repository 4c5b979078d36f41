"""Help pages as values: what a command is for, made from the parameters that Typer parses.

The help of the terminal, the man page and ``docs/commands.md`` show the same pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

from mdl.cli.commands import GROUPS

PANELS: Final = ("What", "Where", "Speed and hours", "Lock", "Afterwards", "Output")
"""The headings under which the flags of a command stand, in this order."""
OPTIONS: Final = "Options, before or after the command"
"""The heading of the options that all commands share, in the help of ``mdl`` itself."""
ROOT_USAGE: Final = "mdl [OPTIONS] COMMAND [ARGS]..."
_COMMENT = "  # "


class Row(NamedTuple):
    """A flag, an argument, a command or an example, and what it is or does."""

    usage: str
    about: str


class Page(NamedTuple):
    """The help of one command: ``mdl get``. ``about`` has a text for each paragraph."""

    name: str
    usage: str
    about: tuple[str, ...]
    panels: Mapping[str, tuple[Row, ...]]
    examples: tuple[Row, ...]
    learn_more: tuple[Row, ...] = ()


_ROOT_EXAMPLES = (
    "mdl demo  # try all of it on this machine, without a network",
    "mdl list  # which models there are, and what is here",
    "mdl get bert-fa  # download one; the last line is its folder",
)
_LEARN_MORE = (
    Row("mdl COMMAND --help", "every option of a command, with examples"),
    Row("mdl help exit-codes", "what an exit code means, and what to do"),
    Row("mdl --install-completion", "let Tab complete models, jobs and options"),
    Row("man mdl", "all of this as a manual"),
)


def root_page(root: Any) -> Page:
    """The page of ``mdl`` itself: every command in its group, then the options that all share."""
    groups = {
        group: tuple(Row(name, listed.summary) for name, listed in commands.items())
        for group, commands in GROUPS.items()
    }
    shown = [param for param in root.params if not param.hidden]
    about, panels = tuple(_paragraphs(root.help)), groups | {OPTIONS: tuple(_options(shown))}
    return Page("mdl", ROOT_USAGE, about, panels, _examples(_ROOT_EXAMPLES), _LEARN_MORE)


def page_of(command: Any, name: str) -> Page:
    """The page of one of Typer's commands, which is called ``name``, such as ``jobs show``."""
    shown = [param for param in command.params if not getattr(param, "hidden", False)]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    options = [param for param in shown if param.param_type_name == "option"]
    panels: dict[str, tuple[Row, ...]] = {}
    if below := tuple(rows_below(command)):
        panels["Commands"] = below
    if arguments:
        panels["Arguments"] = tuple(Row(value_of(param), param.help or "") for param in arguments)
    for panel in PANELS:
        rows = tuple(_options(param for param in options if (param.rich_help_panel or PANELS[0]) == panel))
        panels |= {panel: rows} if rows else {}
    words = [f"mdl {name}", "[OPTIONS]", *(["[COMMAND]"] if below else []), *map(_usage_of, arguments)]
    examples = _examples((command.epilog or "").splitlines())
    return Page(f"mdl {name}", " ".join(words), tuple(_paragraphs(command.help)), panels, examples)


def rows_below(command: Any) -> Iterator[Row]:
    """The commands below a command, each with the first sentence of its help."""
    for word, below in getattr(command, "commands", {}).items():
        first = next(_paragraphs(below.help), "")
        yield Row(word, re.split(r"\.(?: |$)", first)[0])


def value_of(param: Any) -> str:
    """The word for the value of a parameter, such as ``FILE``; nothing for a switch."""
    if getattr(param, "is_flag", False) or getattr(param, "count", False):
        return ""
    kind = param.type_descriptor.annotation
    if get_origin(kind) is list:
        [kind] = get_args(kind)
    if param.metavar:
        return str(param.metavar)
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if param.param_type_name == "argument":
        return str(param.name).upper()
    return "FILE" if kind is Path else "N" if kind in (int, float) else "TEXT"


def _usage_of(argument: Any) -> str:
    word = value_of(argument) if argument.required else f"[{value_of(argument)}]"
    return word + ("..." if argument.nargs == -1 else "")


def _options(params: Iterable[Any]) -> Iterator[Row]:
    """The rows of options: ``-o, --output FILE``; one without a short form stands under the long forms."""
    for param in params:
        names = sorted(param.opts, key=len)
        usage = ", ".join(names) if len(names) > 1 else f"    {names[0]}"
        yield Row(f"{usage} {value_of(param)}".rstrip(), f"{param.help or ''}{_default_of(param)}")


def _default_of(param: Any) -> str:
    default = param.default
    is_shown = bool(param.show_default) and not isinstance(default, bool) and default not in (None, 0, "", (), [])
    return f" [default: {default}]" if is_shown else ""


def _paragraphs(text: str | None) -> Iterator[str]:
    for part in re.split(r"\n\s*\n", (text or "").strip()):
        yield " ".join(part.split())


def _examples(lines: Iterable[str]) -> tuple[Row, ...]:
    """Command lines, each with what it does behind two spaces and a ``#``."""
    return tuple(Row(line.partition(_COMMENT)[0], line.partition(_COMMENT)[2]) for line in lines)
