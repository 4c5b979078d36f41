"""Making a command of a function: flag groups spread over its signature, errors turned into an exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer

from mdl.cli.flags import Common, Progress
from mdl.cli.quick import QuickCommand, QuickGroup
from mdl.cli.session import Session
from mdl.cli.words import words_of
from mdl.config import Settings, read_config, settings_table
from mdl.console.reporter import BROKEN_PIPE
from mdl.errors import Cancelled, MdlError, Problem, internal_error, storage_error

Body = TypeVar("Body", bound=Callable[..., int])
_OWN_VARIABLE = {"--catalog": "MDL_CATALOG", "--no-color": "NO_COLOR"}
"""Flags whose variable has another name and is read elsewhere."""
ALIASES: dict[str, str] = {}
"""What a command's other names stand for, as far as its room was opened."""


def command(
    app: typer.Typer, name: str, *, aliases: tuple[str, ...] = (), of: str = "", checks: bool = False, **settings: Any
) -> Callable[[Body], Body]:
    """Register ``body(session, ...) -> exit code`` as the command ``name``, or as one ``of`` a group of commands.

    A parameter whose type is a dataclass becomes one flag a field, and its value is that dataclass; one of
    ``Annotated[Settings, names]`` becomes a flag for each of these settings, and its value is a dictionary. A body that
    ``checks`` reads the settings itself; any other is not begun if they are wrong.
    """

    def register(body: Body) -> Body:
        run = _spread(of or name, body if checks else _checked(body))
        app.command(name, cls=QuickCommand, **settings)(run)
        for alias in aliases:
            app.command(alias, cls=QuickCommand, hidden=True, **settings)(run)
            ALIASES[alias] = name
        return body

    return register


def _checked(body: Callable[..., int]) -> Callable[..., int]:
    """The same, if the settings are in order. Raises `UsageError`."""

    @functools.wraps(body)
    def run(session: Session, **values: Any) -> int:
        session.check_config()
        return body(session, **values)

    return run


def _spread(name: str, body: Callable[..., int]) -> Callable[..., None]:
    hints = get_type_hints(body, include_extras=True)
    groups: dict[str, type] = {"common": Common}
    parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    settings: dict[str, tuple[str, ...]] = {}
    plain: list[str] = []
    for parameter in list(inspect.signature(body).parameters.values())[1:]:
        kind = hints[parameter.name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            groups[parameter.name] = kind
        elif get_args(kind)[:1] == (Settings,):
            settings[parameter.name] = kind.__metadata__[0]
        else:
            plain.append(parameter.name)
            annotation = _with_variable(kind)
            parameters.append(parameter.replace(annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY))
    parameters += [_flag(setting) for names in settings.values() for setting in names]
    for group in [*list(groups.values())[1:], Common]:
        parameters += [_parameter(field, group) for field in dataclasses.fields(group)]

    def run(ctx: typer.Context, **values: Any) -> None:
        made: dict[str, Any] = {
            key: group(**{field.name: values[field.name] for field in dataclasses.fields(group)})
            for key, group in groups.items()
        }
        common = merged(ctx.obj or Common(), made.pop("common"))
        made.update(
            (key, {name: None if values[name] is False else values[name] for name in names})
            for key, names in settings.items()
        )
        made.update((key, values[key]) for key in plain)
        words = words_of(ctx, common)
        raise typer.Exit(guarded(name, common, lambda session: body(session, **made), words))

    run.__doc__ = body.__doc__
    return _signed(run, parameters)


def group(app: typer.Typer, name: str, usual: Callable[..., int], about: str) -> typer.Typer:
    """A command that has commands of its own; without one of them it is ``usual``, whose flags it has."""
    own = typer.Typer(help=about, context_settings={"help_option_names": ["-h", "--help"]}, rich_markup_mode=None)
    run = _spread(name, _checked(usual))

    def before(ctx: typer.Context, **values: Any) -> None:
        if ctx.invoked_subcommand is None:
            run(ctx, **values)
        ctx.obj = merged(
            ctx.obj or Common(), Common(**{field.name: values[field.name] for field in dataclasses.fields(Common)})
        )

    parameters = list(inspect.signature(run).parameters.values())
    own.callback(cls=QuickGroup, invoke_without_command=True)(_signed(before, parameters))
    app.add_typer(own, name=name)
    return own


def root(app: typer.Typer, version: Callable[[bool], None]) -> None:
    """The flags before the command: the common ones, and ``--version``."""
    shown = typer.Option("-V", "--version", callback=version, is_eager=True, help="Show the version.")
    parameters = [
        inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *(_parameter(field, Common) for field in dataclasses.fields(Common)),
        inspect.Parameter("version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, shown]),
    ]

    def before(ctx: typer.Context, version: bool, **values: Any) -> None:
        ctx.obj = Common(**values)
        try:
            defaults = read_config().get("defaults", {})
        except MdlError:
            return  # the command reads them again, and tells of it in its own way
        flags = {key: value for key, value in defaults.items() if key not in settings_table()}
        ctx.default_map = dict.fromkeys(ctx.command.list_commands(ctx), flags)  # type: ignore[attr-defined]

    app.callback(cls=QuickGroup)(_signed(before, parameters))


def _signed(run: Callable[..., None], parameters: list[inspect.Parameter]) -> Callable[..., None]:
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameter(field: dataclasses.Field[Any], group: type) -> inspect.Parameter:
    annotation = _with_variable(_hints_of(group)[field.name])
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)


def _flag(name: str) -> inspect.Parameter:
    """The flag of a setting. It is None, or False, if it was not given: then `mdl.config` looks further."""
    setting = settings_table()[name]
    is_switch = isinstance(setting.default, bool)
    default = f" [default: {setting.default}]" if setting.default and not is_switch else ""
    variable = f" ({setting.variable})" if setting.variable else ""
    option = typer.Option(
        setting.flag or "--" + name.replace("_", "-"),
        metavar=None if is_switch else setting.metavar,
        help=f"{setting.help.removesuffix('.')}{variable}.{default}",
        show_default=False,
    )
    kind, value = (bool, False) if is_switch else (str | None, None)
    annotation = Annotated[kind, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=annotation)


def _with_variable(annotation: Any) -> Any:
    """The same flag, also read from ``MDL_<FLAG>`` if the command line does not have it."""
    for option in getattr(annotation, "__metadata__", ()):
        words = (getattr(option, "default", None), *(getattr(option, "param_decls", None) or ()))
        long = next((word for word in words if isinstance(word, str) and word.startswith("--")), None)
        if long and long not in _OWN_VARIABLE and not option.envvar:
            option.envvar, option.show_envvar = "MDL_" + long[2:].upper().replace("-", "_"), False
    return annotation


@functools.cache
def _hints_of(group: type) -> dict[str, Any]:
    return get_type_hints(group, include_extras=True)


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


def told_as(arguments: Sequence[str]) -> Common:
    """How a call that was not read to its end wants its error told, as far as its words show."""
    wants_lines = "--progress=json" in arguments or ("--progress", "json") in pairwise(arguments)
    return Common(json="--json" in arguments, progress=Progress.json if wants_lines else None)


def guarded(name: str, common: Common, body: Callable[[Session], int], words: tuple[str, ...] = ()) -> int:
    """Run ``body`` and turn whatever it raises into a message, a hint and an exit code."""
    session = Session(name, common, os.environ, words)
    try:
        code = body(session)
    except BrokenPipeError as error:
        code = exit_code_of(error)
    except (Exception, KeyboardInterrupt, Cancelled) as error:
        code = report(session, _as_told(error))
    session.console.close_json()
    return session.console.stdout_trouble() or code


def exit_code_of(error: BaseException) -> int:
    """What mdl exits with if this ends a command."""
    return BROKEN_PIPE if isinstance(error, BrokenPipeError) else _as_told(error).exit_code


def _as_told(error: BaseException) -> Problem:
    """Whatever was raised, as an error that can be told."""
    match error:
        case Problem():
            return error
        case KeyboardInterrupt():
            return Cancelled()
        case OSError():
            return storage_error(error, str(error.filename or "the working folder"))
    return internal_error(error)


def report(session: Session, error: Problem) -> int:
    """Tell the error, as a document too if one was asked for; returns its exit code."""
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
    """What is stopped on the way says what is ``left`` of it."""
    try:
        yield
    except (KeyboardInterrupt, Cancelled) as error:
        stopped = error if isinstance(error, Cancelled) else Cancelled()
        stopped.hint = left
        raise stopped from None
