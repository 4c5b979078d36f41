"""Quick: commands that take what needs no conversion as it is.

Typer converts every value, also the ones nobody gave, with pydantic, whose import takes longer than all the rest of a
short command. Most values are None, a default, or a word that is wanted as a word.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from typer.core import TyperCommand, TyperGroup

_Convert = Callable[[Any, Any], Any]


class QuickCommand(TyperCommand):
    """A command whose parameters are converted only where that changes them."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_hastened(param) for param in super().get_params(ctx)]


class QuickGroup(TyperGroup):
    """The same for a group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_hastened(param) for param in super().get_params(ctx)]


def _hastened(param: Any) -> Any:
    if not isinstance(param.process_value, partial):
        param.process_value = partial(_processed, param, param.process_value)
    return param


def _processed(param: Any, convert: _Convert, ctx: Any, value: Any) -> Any:
    """What Typer would make of ``value``: without asking it where that is plain."""
    if not _is_plain(param, value):
        return convert(ctx, value)
    if param.multiple or param.nargs == -1:
        value = list(value) if value else ()
    return param.callback(ctx, param, value) if param.callback else value


def _is_plain(param: Any, value: Any) -> bool:
    """Nobody gave it, or it is a word or words that are wanted as such."""
    if value is None:
        return not param.required
    wanted = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    if param.multiple or param.nargs == -1:
        is_words = isinstance(value, list | tuple) and all(type(one) is str for one in value)
        return wanted == list[str] and is_words and bool(value)
    if type(value) is str and wanted is str:
        return True
    return value is param.default and isinstance(wanted, type) and isinstance(value, wanted)
