"""Commands from functions: flag groups are spread over the signature, errors are turned into an exit code.

Typer converts every value, also defaults, with pydantic, whose import takes longer than all the rest of a short
command. Most values are None, a default, or a word that is wanted as a text, a path or a choice: `_Quick` converts
these, and leaves everything else to Typer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
import os
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from mdl.cli.commands import COMMANDS, Listed
from mdl.cli.flags import Common, flag
from mdl.cli.session import Session
from mdl.config import Settings, settings_table
from mdl.console.reporter import BROKEN_PIPE
from mdl.errors import Cancelled, Problem, as_problem

Body = TypeVar("Body", bound=Callable[..., int])
HELP_FLAGS = {"help_option_names": ["-h", "--help"]}
_NOT_SHOWN_AGAIN = {field.name for field in dataclasses.fields(Common)} | {"detach", "ctx"}
"""Parameters that say how one run is shown, and nothing of what it does."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command. ``group_help`` is the help of a command that has others below it."""

    name: str
    body: Callable[..., int]
    checks_config: bool
    group_help: str
    examples: Sequence[str]


REGISTERED: dict[str, Command] = {}
"""Every command of the modules that were imported so far, by its name; ``jobs show`` is one below ``jobs``."""


def command(
    name: str, *, checks_config: bool = False, group_help: str = "", examples: Sequence[str] = ()
) -> Callable[[Body], Body]:
    """Make ``body(session, ...) -> exit code`` the command ``name``.

    A parameter whose type is a dataclass becomes one flag a field, and its value is that dataclass; one of
    ``Annotated[Settings, names]`` becomes a flag for each of these settings, and its value is a dictionary. A body that
    ``checks_config`` reads the settings itself; any other does not begin if they are wrong. ``examples`` are command
    lines, each with what it does behind two spaces and a ``#``, for the help and the reference.
    """

    def note(body: Body) -> Body:
        REGISTERED[name] = Command(name, body, checks_config, group_help, examples)
        return body

    return note


def add_command(app: typer.Typer, name: str, *, alias: str = "") -> None:
    """Have Typer know a command, by an ``alias`` if there is one, and those below it."""
    found = REGISTERED[name]
    run = _spread(found)
    if not found.group_help:
        last = alias or name.split()[-1]
        app.command(last, cls=QuickCommand, hidden=bool(alias), epilog=_epilog(found))(run)
        return
    group = typer.Typer(help=found.group_help, context_settings=HELP_FLAGS, rich_markup_mode=None)

    def before(ctx: typer.Context, **values: Any) -> None:
        if ctx.invoked_subcommand is None:
            run(ctx, **values)
        own = Common(**{field.name: values[field.name] for field in dataclasses.fields(Common)})
        ctx.obj = merged(ctx.obj or Common(), own)

    parameters = list(inspect.signature(run).parameters.values())
    group.callback(cls=QuickGroup, invoke_without_command=True)(_signed(before, parameters))
    for other in [one for one in REGISTERED if one.startswith(f"{name} ")]:
        add_command(group, other)
    app.add_typer(group, name=name)


def add_summary(app: typer.Typer, name: str, listed: Listed) -> None:
    """Have Typer know no more of a command than what the list of all commands shows: to build its flags takes time."""

    def body() -> None:
        raise AssertionError("only its summary is known")

    app.command(name, hidden=bool(listed.see), help=listed.summary)(body)


def _epilog(found: Command) -> str | None:
    """The examples, one a line, as Typer keeps them."""
    return "\b\nExamples:\n" + "\n".join(f"  {one}" for one in found.examples) if found.examples else None


def add_root(app: typer.Typer, version: Callable[[bool], None]) -> None:
    """Have Typer know the flags before the command: the common ones, and ``--version``."""
    shown = typer.Option("-V", "--version", callback=version, is_eager=True, help="Show the version.")
    parameters = [
        _CONTEXT,
        *(_parameter(field, Common) for field in dataclasses.fields(Common)),
        inspect.Parameter("version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, shown]),
    ]

    def before(ctx: typer.Context, version: bool, **values: Any) -> None:
        ctx.obj = Common(**values)

    app.callback(cls=QuickGroup)(_signed(before, parameters))


_CONTEXT = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)


def _spread(command: Command) -> Callable[..., None]:
    """The function that Typer is given: every flag is a parameter of it."""
    hints = get_type_hints(command.body, include_extras=True)
    groups: dict[str, type] = {}
    settings: dict[str, tuple[str, ...]] = {}
    plain: list[inspect.Parameter] = []
    for parameter in list(inspect.signature(command.body).parameters.values())[1:]:
        kind = hints[parameter.name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            groups[parameter.name] = kind
        elif get_args(kind)[:1] == (Settings,):
            settings[parameter.name] = kind.__metadata__[0]
        else:
            plain.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))
    parameters = [_CONTEXT, *plain, *(_setting(name) for names in settings.values() for name in names)]
    for group in (*groups.values(), Common):
        parameters += [_parameter(field, group) for field in dataclasses.fields(group)]

    def run(ctx: typer.Context, **values: Any) -> None:
        made: dict[str, Any] = {
            key: group(**{field.name: values[field.name] for field in dataclasses.fields(group)})
            for key, group in {**groups, "": Common}.items()
        }
        common = merged(ctx.obj or Common(), made.pop(""))
        made.update(
            (key, {name: None if values[name] is False else values[name] for name in names})
            for key, names in settings.items()
        )
        made.update((parameter.name, values[parameter.name]) for parameter in plain)

        def begin(session: Session) -> int:
            _warn_of_unknown_variables(session)
            if not command.checks_config:
                session.check_config()
            return command.body(session, **made)

        raise typer.Exit(guarded(command.name.split()[0], common, begin, _words(ctx, common)))

    run.__doc__ = command.body.__doc__
    return _signed(run, parameters)


_NO_SETTINGS = ("MDL_HOOK_", "MDL_RELEASE_", "MDL_JOB", "MDL_LONG")
"""How the variables begin that mdl sets for hooks, checks and its own background, and that its tests read."""


def _warn_of_unknown_variables(session: Session) -> None:
    """A variable ``MDL_…`` that means nothing is probably misspelt. The flags of all commands are looked at only if
    there is one that is neither a setting nor one of mdl's own."""
    known = {setting.variable_name for setting in settings_table().values()}
    asked = {name for name in session.environ if name.startswith("MDL_") and not name.startswith(_NO_SETTINGS)}
    if not asked - known:
        return
    for module in {listed.module for listed in COMMANDS.values()}:
        importlib.import_module(f"mdl.cli.{module}")
    for found in REGISTERED.values():
        for parameter in inspect.signature(_spread(found)).parameters.values():
            known |= {one.envvar for one in get_args(parameter.annotation)[1:] if one.envvar}
    for name in sorted(asked - known):
        near = get_close_matches(name, known, 1, 0.8)
        meant = f"did you mean {near[0]}?" if near else "'mdl config' lists the settings"
        session.console.warn(f"the variable {name} means nothing to mdl; {meant}")


def _words(ctx: typer.Context, common: Common) -> tuple[str, ...]:
    """The command and its arguments as they could be typed again, without how it was to be shown."""
    options = [f"--catalog={path}" for path in common.catalog or ()]
    arguments: list[str] = []
    for param in ctx.command.params:
        name = param.name or ""
        source = ctx.get_parameter_source(name)
        if name in _NOT_SHOWN_AGAIN or source is None or source.name != "COMMANDLINE":
            continue
        value = ctx.params[name]
        values = value if isinstance(value, list | tuple) else [value]
        if param.param_type_name == "argument":
            arguments += map(str, values)
        else:
            long = max(param.opts, key=len)
            options += [long if one is True else f"{long}={one}" for one in values]
    return (ctx.command.name or "", *options, "--", *arguments)


def _signed(run: Callable[..., None], parameters: list[inspect.Parameter]) -> Callable[..., None]:
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


_hints_of = functools.cache(partial(get_type_hints, include_extras=True))


def _parameter(field: dataclasses.Field[Any], group: type) -> inspect.Parameter:
    annotation = _hints_of(group)[field.name]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)


def _setting(name: str) -> inspect.Parameter:
    """The flag of a setting. It is None, or False, if it was not given: then `mdl.config` looks further."""
    setting = settings_table()[name]
    is_switch = isinstance(setting.default, bool)
    default = f" [default: {setting.default}]" if setting.default and not is_switch else ""
    variable = f" ({setting.variable})" if setting.variable else ""
    usage = f"{setting.flag or '--' + name.replace('_', '-')} {'' if is_switch else setting.metavar}"
    option = flag(usage, f"{setting.help.removesuffix('.')}{variable}.{default}", envvar=None, show_default=False)
    kind, value = (bool, False) if is_switch else (str | None, None)
    annotation = Annotated[kind, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=annotation)


def merged(before: Common, after: Common) -> Common:
    """Flags given before the command and after it, as one; the later wins, lists add up."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Common):
        first, second = getattr(before, field.name), getattr(after, field.name)
        if isinstance(first, list) and isinstance(second, list):
            values[field.name] = first + second
        else:
            values[field.name] = first if second in (field.default, []) else second
    return Common(**values)


_UNKNOWN: Any = object()
"""The value that only Typer can convert."""


class _Quick:
    """A command whose parameters are converted by Typer only if that needs pydantic."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if not isinstance(param.process_value, partial):
                param.process_value = partial(_process_value, param, param.process_value)
        return params


FOREVER = "forever"
_MAY_LACK_VALUE = {"--wait": FOREVER}
"""The flags that may stand without a value, which Typer does not know, and what they mean then."""


class QuickCommand(_Quick, TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer's, for flags that may lack their value as well: what cannot be a duration is not their value."""
        end = args.index("--") if "--" in args else len(args)
        for number, word in enumerate(args[:end]):
            following = args[number + 1 : number + 2]
            if word in _MAY_LACK_VALUE and not (following and re.fullmatch(r"(\d[\d.]*\s*[smhdSMHD]?)+", following[0])):
                args[number] = f"{word}={_MAY_LACK_VALUE[word]}"
        return super().parse_args(ctx, args)


class QuickGroup(_Quick, TyperGroup):
    pass


def _process_value(param: Any, by_typer: Callable[[Any, Any], Any], ctx: Any, value: Any) -> Any:
    """What Typer would make of ``value``."""
    kind = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    many = param.multiple or param.nargs == -1
    found = _UNKNOWN
    if value is None and not param.required:
        found = () if many else None
    elif many and value and isinstance(value, list | tuple):
        words = [_converted(one, *get_args(kind)[:1]) for one in value]
        found = _UNKNOWN if _UNKNOWN in words else words
    elif not many and value is not None:
        found = value if value is param.default else _converted(value, kind)
    if found is _UNKNOWN:
        return by_typer(ctx, value)
    return param.callback(ctx, param, found) if param.callback else found


def _converted(word: Any, kind: Any = None) -> Any:
    if not isinstance(word, str) or not isinstance(kind, type):
        return _UNKNOWN
    is_choice = issubclass(kind, StrEnum) and word in kind.__members__.values()
    return kind(word) if kind in (str, Path) or is_choice else _UNKNOWN


def guarded(name: str, common: Common, body: Callable[[Session], int], words: tuple[str, ...] = ()) -> int:
    """Run ``body`` and turn whatever it raises into a message, a hint and an exit code."""
    session = Session(name, common, os.environ, words)
    try:
        code = body(session)
    except BrokenPipeError as error:
        code = exit_code_of(error)
    except (Exception, KeyboardInterrupt, Cancelled) as error:
        code = report(session, as_problem(error))
    session.console.close_json()
    return session.console.stdout_trouble() or code


def exit_code_of(error: BaseException) -> int:
    """What mdl exits with if this ends a command."""
    return BROKEN_PIPE if isinstance(error, BrokenPipeError) else as_problem(error).exit_code


def report(session: Session, error: Problem) -> int:
    """Show the error, as a document too if one was asked for; returns its exit code."""
    console = session.console
    if session.common.verbose:
        console.debug("".join(traceback.format_exception(error)))
    console.error(error)
    if session.common.json:
        from mdl import schemas

        facts = schemas.empty(session.command) | session.empty
        console.document(session.command, facts, ok=False, exit_code=error.exit_code, error=error)
    return error.exit_code


@contextlib.contextmanager
def all_or_nothing(left: str = "nothing was written") -> Iterator[None]:
    """If the block is stopped, the error's hint says what is ``left`` of it."""
    try:
        yield
    except (KeyboardInterrupt, Cancelled) as error:
        stopped = error if isinstance(error, Cancelled) else Cancelled()
        stopped.hint = left
        raise stopped from None
