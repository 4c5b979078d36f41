"""Quick: commands that take what needs no conversion as it is.

Typer converts every value, also defaults, with pydantic, whose import takes longer than all the rest of a
short command. Most values are None, a default, or a word that is wanted as a word, a path, a choice or a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin

from typer.core import TyperCommand, TyperGroup

_Convert = Callable[[Any, Any], Any]
_UNKNOWN: Any = object()
"""What only Typer can tell."""


class QuickCommand(TyperCommand):
    """A command whose parameters are converted only if that changes them."""

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
    """What Typer would make of ``value``: without asking it if that is plain."""
    made = _made(param, value)
    if made is _UNKNOWN:
        return convert(ctx, value)
    return param.callback(ctx, param, made) if param.callback else made


def _made(param: Any, value: Any) -> Any:
    """The value wanted, if none was given or the words are plainly right; else `_UNKNOWN`."""
    many = param.multiple or param.nargs == -1
    if value is None:
        return _UNKNOWN if param.required else () if many else None
    wanted = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    if not many:
        return _one(param, wanted, value)
    if not isinstance(value, list | tuple) or not value or get_origin(wanted) is not list:
        return _UNKNOWN
    found = [_one(param, get_args(wanted)[0], one) for one in value]
    return _UNKNOWN if any(one is _UNKNOWN for one in found) else found


def _one(param: Any, wanted: Any, value: Any) -> Any:
    """One word as what is wanted: itself, a path, a choice, a number within its bounds."""
    if not isinstance(wanted, type):
        return _UNKNOWN
    if type(value) is not str:
        return value if value is param.default and isinstance(value, wanted) else _UNKNOWN
    if wanted is str:
        return value
    if wanted is Path:
        return _UNKNOWN if _is_special_path(param.type_descriptor.parameter_info) else Path(value)
    if issubclass(wanted, StrEnum) and value in wanted.__members__.values():
        return wanted(value)
    return _number(param.type_descriptor.parameter_info, value) if wanted is int else _UNKNOWN


def _is_special_path(info: Any) -> bool:
    """Whether Typer is to look at the disk, or to make something else of it."""
    return bool(info.exists or info.resolve_path or info.allow_dash or info.path_type or info.parser)


def _number(info: Any, word: str) -> Any:
    if info.parser or not re.fullmatch("[0-9]{1,9}", word):
        return _UNKNOWN
    number = int(word)
    is_within = (info.min is None or info.min <= number) and (info.max is None or number <= info.max)
    return number if is_within else _UNKNOWN
