"""Parsing: what the words of a call mean, and what is wrong with them, in mdl's own words.

Typer converts every value, also defaults, with pydantic, whose import takes longer than all the rest of a short
command, and whose messages speak of types. Here a word becomes a text, a path, a number or a choice without it.
"""

from __future__ import annotations

import math
import re
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, Final, get_args

from typer.core import TyperCommand, TyperGroup

from mdl.cli.commands import COMMANDS, HABITS
from mdl.config import parse_switch
from mdl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import typer

FOREVER: Final = "forever"
_DURATION = r"(\d[\d.]*\s*[smhdSMHD]?)+"
_MAY_LACK_VALUE: Final = {
    "--wait": (_DURATION, FOREVER),
    "--install-completion": ("bash|zsh|fish", "this"),
    "--show-completion": ("bash|zsh|fish", "this"),
}
"""The options that may lack their value, which Typer does not know: what is a value, and what they mean without it."""


def _with_values(args: list[str]) -> list[str]:
    """``args`` with a value for each option that lacks one."""
    end = args.index("--") if "--" in args else len(args)
    for number, word in enumerate(args[:end]):
        value, default = _MAY_LACK_VALUE.get(word, ("", ""))
        if value and not re.fullmatch(value, "".join(args[number + 1 : number + 2])):
            args[number] = f"{word}={default}"
    return args


class _Quick:
    """A command whose values are converted here, and whose help mdl lays out itself."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if not isinstance(param.process_value, partial):
                param.process_value = partial(_process_value, param, param.process_value)
        return params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest: list[str] = super().parse_args(ctx, _with_values(args))  # type: ignore[misc]
        return rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from mdl.cli.help_text import help_text
        from mdl.cli.pages import page_of, root_page

        page = page_of(self, ctx.command_path.partition(" ")[2]) if ctx.parent else root_page(self)
        formatter.write(help_text(page))


class QuickCommand(_Quick, TyperCommand):
    pass


class QuickGroup(_Quick, TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise unknown_command(args[0], ctx.command_path, self.commands if ctx.parent else _SHOWN)
        return super().resolve_command(ctx, args)


def _process_value(param: Any, by_typer: Callable[[Any, Any], Any], ctx: Any, value: Any) -> Any:
    """What Typer would make of ``value``. Raises `UsageError` if it is wrong."""
    kind = param.type_descriptor.annotation
    is_many = param.multiple or param.nargs == -1
    if param.required and value in (None, (), []):
        return by_typer(ctx, value)  # it is missing
    if value is None:
        found: Any = () if is_many else None
    elif is_many and value is not param.default:
        found = [_converted(param, ctx, one, kind.__args__[0]) for one in value]
    else:
        found = value if value is param.default else _converted(param, ctx, value, kind)
    return param.callback(ctx, param, found) if param.callback else found


def _converted(param: Any, ctx: Any, word: Any, kind: Any) -> Any:
    """One word as a value of its ``kind``. Raises `UsageError`."""
    if kind is bool and isinstance(word, str):
        return parse_switch(word, _where(param, ctx))
    choices = get_args(kind)
    if word in choices:
        return word
    try:
        found = None if choices else kind(word)
    except (ValueError, OverflowError):
        found = None
    is_number = isinstance(found, int | float)
    if found is None or (is_number and not _is_within(found, param.min, param.max)):
        what = f"one of {', '.join(choices)}" if choices else _number_of(param)
        raise UsageError(f"{word!r} is not {what}", item=_where(param, ctx), hint=f"{ctx.command_path} --help")
    return found


def _is_within(number: float, least: float | None, most: float | None) -> bool:
    return math.isfinite(number) and (least is None or number >= least) and (most is None or number <= most)


def _number_of(param: Any) -> str:
    if param.max is not None:
        return f"a number from {param.min or 0} to {param.max}"
    return "a number" if param.min is None else f"a number of at least {param.min}"


def _where(param: Any, ctx: Any) -> str:
    """Where a value was given: the option, the variable or the key of ``config.toml``."""
    source = ctx.get_parameter_source(param.name)
    others = {"ENVIRONMENT": param.envvar, "DEFAULT_MAP": f"[defaults] {param.name}"}
    return others.get(source.name if source else "") or name_of(param)


def name_of(param: Any) -> str:
    """What a user calls a parameter: its long option, or the word that stands for an argument."""
    from mdl.cli.pages import value_of

    return max(param.opts, key=len) if param.param_type_name == "option" else value_of(param)


_SHOWN: Final = tuple(name for name, listed in COMMANDS.items() if not listed.see)


def unknown_command(word: str, path: str = "mdl", known: Iterable[str] = _SHOWN) -> UsageError:
    """The error for a command that is not below ``path``, with what mdl calls it or what is near."""
    if path == "mdl" and word in HABITS:
        hint = HABITS[word]
    else:
        near = get_close_matches(word, known, 3)
        hint = f"did you mean {' or '.join(f'{path} {one}' for one in near)}?" if near else f"'{path} --help' lists all"
    return UsageError("there is no such command", item=f"{path} {word}", hint=hint)


_OF_OTHERS = {
    "--local-dir": "--into DIR puts the files of one target into DIR itself; --to DIR is the models folder",
    "--cache-dir": "--layout hf-cache uses the cache of Hugging Face; --to DIR says where it is",
    "--token": 'a token is never a flag: set HF_TOKEN; for other hosts write [hosts."HOST"] into config.toml',
    "--repo-type": "write the type before the name: hf:datasets/org/name, hf:spaces/org/name",
    "--header": 'a token is never a flag: [hosts."HOST"] token_env = "VARIABLE" in config.toml',
    "--checksum": "--sha256 HEX",
    **dict.fromkeys(("--allow-patterns", "--ignore-patterns"), "--include GLOB and --exclude GLOB choose the files"),
    **dict.fromkeys(
        ("--max-workers", "--max-connection-per-server", "--split", "-x", "-j", "-s", "--transfers"),
        "--connections N is how many at once, in all",
    ),
    **dict.fromkeys(
        ("--continue", "--resume", "-c", "-C"), "the same command continues where it was; --force begins anew"
    ),
    **dict.fromkeys(("--timeout", "--max-time"), "--stall TIME for silence, --max-duration TIME for the whole"),
    **dict.fromkeys(("--branch", "--ref", "--commit", "--tag"), "--revision REV"),
    **dict.fromkeys(("--background", "--daemon", "-b"), "--detach"),
    **dict.fromkeys(("--type", "--dataset", "--datasets"), "--kind dataset"),
    **dict.fromkeys(("-n", "--dry-run"), "without --yes nothing is deleted: it only shows what would be"),
}
"""Flags of other tools, or of other commands, and how mdl says the same. Only for commands that have the flags that it
names."""


def misuse(error: typer.TyperException, command: str) -> UsageError:
    """What Typer refused of a ``command``, in mdl's own words. Its errors are known by the names of their classes."""
    ctx, param = getattr(error, "ctx", None), getattr(error, "param", None)
    path = ctx.command_path if ctx else " ".join(filter(None, ("mdl", command)))
    hint = f"{path} --help"
    option = getattr(error, "option_name", "")
    match type(error).__name__:
        case "MissingParameter" if param is not None:
            about = f": {param.help[:1].lower()}{param.help[1:].rstrip('.')}" if param.help else ""
            return UsageError(f"{name_of(param)} is missing{about}", item=path, hint=hint)
        case "NoSuchOption":
            hint = _instead_of(option, _options_of(ctx)) or hint
            return UsageError("there is no such option", item=option, hint=hint)
        case "BadOptionUsage" if "requires an argument" in error.message:
            return UsageError("a value must follow", item=option, hint=hint)
        case "BadOptionUsage":
            return UsageError("it takes no value", item=option, hint=hint)
    extra = re.search(r"unexpected extra argument\S* \((.*)\)", error.message)
    if extra:
        return UsageError("more words than the command takes", item=extra[1], hint=hint)
    if error.message == "Missing command.":
        return UsageError("the command is missing", item=path, hint=hint)
    return UsageError(" ".join(error.format_message().split()), hint=hint)


def _instead_of(option: str, known: Iterable[str]) -> str:
    """What to write instead of an ``option`` that a command does not have, as far as it is among the ``known`` ones."""
    said = _OF_OTHERS.get(option, "")
    if said and set(re.findall(r"(?<!\S)--[a-z0-9-]+", said)) <= set(known):
        return said
    bare = {name.lstrip("-"): name for name in known}  # the dashes alone make short names alike
    near = get_close_matches(option.lstrip("-"), bare, 1)
    return f"did you mean {bare[near[0]]}?" if near else ""


def _options_of(ctx: Any) -> list[str]:
    return [name for param in ctx.command.params if not param.hidden for name in param.opts] if ctx else []
