"""Typer's classes for commands and groups, with the little that mdl adds: quick conversion of texts and paths, help
texts that are no markup, and a plain help for narrow terminals."""

from __future__ import annotations

import copy
import io
import os
import re
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from typer.core import TyperCommand, TyperGroup

from mdl.cli.completion import offer_row

if TYPE_CHECKING:
    from collections.abc import Callable

FOREVER: Final = "forever"
"""The value of ``--wait`` without a time."""
_MAY_LACK_VALUE: Final = {
    "--wait": (r"(\d[\d.]*\s*[smhdSMHD]?)+", FOREVER),
    "--install-completion": (r"\w+", "auto"),
    "--show-completion": (r"\w+", "auto"),
}
"""The options that may lack their value, which Typer does not know: what a value looks like, and what they mean without
one."""
_LEAST_COLUMNS_OF_PANELS: Final = 60
"""Columns below which Rich would cut the names of options."""
_NARROWEST: Final = 30
_WIDEST: Final = 100
_LONGEST_BESIDE_TEXT: Final = 14
"""Columns of a usage that is beside its text in the plain help; a longer one has a line of its own."""


class _Shared:
    """The base of commands and groups. It stands before Typer's class."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if not isinstance(param.process_value, partial):
                param.process_value = partial(process_value, param, param.process_value)
        return params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest: list[str] = super().parse_args(ctx, _with_values(args))  # type: ignore[misc]
        return rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        columns = min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST)
        if isinstance(sys.stdout, io.TextIOWrapper):  # a stdout of another encoding has not every letter of a help
            sys.stdout.reconfigure(errors="replace")
        if columns >= _LEAST_COLUMNS_OF_PANELS:
            shown = _for_help(self, ctx, _no_markup)
            _set_up_rich(ctx, columns)
        else:
            shown = _for_help(self, ctx, str)
            shown.epilog = f"\b{shown.epilog}"  # Typer breaks no line that follows a \b
            shown.rich_markup_mode = None
            formatter.width = columns
            formatter.write_dl = partial(formatter.write_dl, col_max=_LONGEST_BESIDE_TEXT)
        super(_Shared, shown).format_help(ctx, formatter)  # type: ignore[misc]

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Typer's items for commands and options, each with what it is behind a tab, as the scripts of the shells read
        it. Typer would ask Rich for that."""
        items = super().shell_complete(ctx, incomplete)  # type: ignore[misc]
        return [type(item)(offer_row(item.value, item.help or "")) for item in items]


class Command(_Shared, TyperCommand):
    pass


class Group(_Shared, TyperGroup):
    pass


def _with_values(args: list[str]) -> list[str]:
    """``args`` with a value for each option that lacks one. Behind ``--`` there are no options."""
    options = args[: args.index("--")] if "--" in args else args
    for number, word in enumerate(options):
        if word not in _MAY_LACK_VALUE:
            continue
        value, default = _MAY_LACK_VALUE[word]
        following = args[number + 1 : number + 2]
        if not following or not re.fullmatch(value, following[0]):
            args[number] = f"{word}={default}"
    return args


def process_value(param: Any, by_typer: Callable[[Any, Any], Any], ctx: Any, value: Any) -> Any:
    """Convert ``value`` as Typer does, but without pydantic, which Typer imports for every value, where there is none,
    or where it is a text, a path, or one of the choices (ADR 62)."""
    if param.required and param.value_is_missing(value) and not ctx.resilient_parsing:
        return by_typer(ctx, value)
    kind = param.type_descriptor.annotation
    is_many = param.multiple or param.nargs == -1
    processed: Any
    if value is None:
        processed = () if is_many else None
    elif value is param.default or type(value) is kind:
        processed = value
    elif is_many:
        [of_each] = get_args(kind)[:1]
        if of_each not in (str, Path):
            return by_typer(ctx, value)
        processed = [of_each(word) for word in value]
    elif value in get_args(kind):
        processed = value
    elif kind in (str, Path):
        processed = kind(value)
    else:
        return by_typer(ctx, value)
    return param.callback(ctx, param, processed) if param.callback else processed


def _set_up_rich(ctx: Any, columns: int) -> None:
    """Have Typer's Rich keep to mdl's rules for width and colours: those of a pipe hold in a CI, too."""
    os.environ.pop("TERMINAL_WIDTH", None)  # Typer reads a number from it, whatever it holds
    from typer import rich_utils

    rich_utils.MAX_WIDTH = columns
    rich_utils.FORCE_TERMINAL = None
    rich_utils.COLOR_SYSTEM = None if ctx.color is False or os.environ.get("NO_COLOR") else "auto"


def _no_markup(text: str) -> str:
    """``text`` as Rich shows it literally."""
    return text.replace("[", "\\[")


def _for_help(command: Any, ctx: Any, literal: Callable[[str], str]) -> Any:
    """A copy of a command for its help: texts by ``literal``, no type where a flag or a word says enough."""
    shown = copy.copy(command)
    shown.help = literal(command.help or "")
    shown.epilog = literal(command.epilog or "")
    shown.params = [_param_for_help(param, literal) for param in command.params]
    help_option = shown.get_help_option(ctx)
    help_option.rich_help_panel = shown.params[-1].rich_help_panel
    help_option.metavar = ""
    if isinstance(command, TyperGroup):
        command.list_commands(ctx)
        shown.commands = {name: copy.copy(below) for name, below in command.commands.items()}
        for below in shown.commands.values():
            below.help = literal(_first_sentence(below.help or ""))
    return shown


def _param_for_help(param: Any, literal: Callable[[str], str]) -> Any:
    shown = copy.copy(param)
    shown.help = literal(param.help or "")
    if param.param_type_name == "argument":
        shown.display_type_rich = lambda ctx: None
    elif param.is_flag or param.count:
        shown.metavar = ""
    return shown


def _first_sentence(text: str) -> str:
    return re.split(r"\.(?:\s|$)", text, maxsplit=1)[0]
