"""Commands from functions: flag groups are spread over the signature, errors are turned into an exit code."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import importlib
import inspect
import os
import traceback
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer

from mdl.cli.commands import COMMANDS, NO_CATALOG, commands, find, groups
from mdl.cli.flags import ENDINGS, PANELS, ROOT_PANEL, Common, flag
from mdl.cli.session import Session
from mdl.cli.typer_classes import Command, Group
from mdl.cli.usage import foreign_words
from mdl.config.settings import Settings, settings_table
from mdl.console.reporter import BROKEN_PIPE
from mdl.errors import Cancelled, Problem, UsageError, as_problem
from mdl.plugin import broken_plugins
from mdl.values import value_class

Body = TypeVar("Body", bound=Callable[..., int])
HELP_FLAGS = {"help_option_names": ["-h", "--help"]}
_NOT_SHOWN_AGAIN = {field.name for field in dataclasses.fields(Common)} | {"detach", "ctx"}
"""Parameters that say how one run is shown, and nothing of what it does."""


@value_class
class Registered:
    """A command. ``group_help`` is the help of a command that has others below it."""

    name: str
    body: Callable[..., int]
    checks_config: bool
    asks: bool
    group_help: str
    examples: Sequence[str]


REGISTERED: dict[str, Registered] = {}
"""Every command of the modules that were imported so far, by its name; ``jobs show`` is one below ``jobs``."""


def command(
    name: str, *examples: str, checks_config: bool = False, asks: bool = False, group_help: str = ""
) -> Callable[[Body], Body]:
    """Make ``body(session, ...) -> exit code`` the command ``name``.

    A parameter whose type is a dataclass becomes one flag a field, and its value is that dataclass; one of
    ``Annotated[Settings, names]`` becomes a flag for each of these settings, and its value is a dictionary. A body that
    ``checks_config`` reads the settings itself; any other does not begin if they are wrong. The help shows ``--yes``
    only for one that ``asks``. ``examples`` are command lines, each with what it does behind two spaces and a ``#``.
    """

    def note(body: Body) -> Body:
        REGISTERED[name] = Registered(name, body, checks_config, asks, group_help, examples)
        return body

    return note


def typer_command(name: str, called: str = "") -> Any:
    """Typer's object for the command of this ``name``, which may be ``called`` otherwise, and for those below it."""
    registered = REGISTERED[name]
    run = _spread(registered)
    texts: dict[str, Any] = {"epilog": epilog_of(registered.examples), "context_settings": HELP_FLAGS}
    if not registered.group_help:
        app = _typer()
        app.command(called or name.split()[-1], cls=Command, **texts)(run)
        return typer.main.get_command(app)

    def before(ctx: typer.Context, **values: Any) -> None:
        if ctx.invoked_subcommand is None:
            run(ctx, **values)
        ctx.obj = merged(ctx.obj or Common(), _filled(Common, values))

    parameters = list(inspect.signature(run).parameters.values())
    app = _typer(name=name, help=registered.group_help, **texts)
    app.callback(cls=Group, invoke_without_command=True)(_signed(before, parameters))
    group: Any = typer.main.get_command(app)
    for below in REGISTERED:
        if below.startswith(f"{name} "):
            group.add_command(typer_command(below))
    return group


class RootGroup(Group):
    """The group of ``mdl`` itself. In a list of commands, what the table says of each stands for it: only the module of
    the command that is called is imported, and plug-ins are looked for only if it is none of mdl's own."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands in the order of the help, which does not show the aliases at their end."""
        if self.commands:
            return list(self.commands)
        for heading, listed_below in groups().items():
            for name, listed in listed_below.items():
                summary = listed.summary
                self.add_command(Command(name=name, help=summary, short_help=summary, rich_help_panel=heading))
        for name, listed in COMMANDS.items():
            if listed.see:
                self.add_command(Command(name=name, hidden=True))
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if find(name):
            return name, loaded(name), args[1:]
        if not ctx.resilient_parsing:
            _check_name(name)
        self.list_commands(ctx)  # what is near is looked for among them
        return super().resolve_command(ctx, args)


def _check_name(name: str) -> None:
    """Raises `UsageError` for a command that mdl knows of and does not have: one of a broken plug-in, or of another
    tool."""
    if name in broken_plugins():
        why = f"the plug-in {name} cannot be used: {broken_plugins()[name]}"
        raise UsageError(why, hint="mdl doctor shows more")
    if name in foreign_words():
        raise UsageError("there is no such command", item=f"mdl {name}", hint=foreign_words()[name])


@functools.cache
def loaded(name: str) -> Any:
    """Typer's object for a command of the table, whose module is imported for it."""
    listed = find(name)
    if listed is None:
        raise KeyError(name)
    importlib.import_module(listed.module)
    return typer_command(listed.see or name, called=name)


def root_group(**texts: str) -> Any:
    """Typer's group for ``mdl`` itself, without commands. Its flags are those of every command."""
    parameters = [_CONTEXT]
    for field in dataclasses.fields(Common):
        parameters.append(_parameter(field, Common, panel=ROOT_PANEL))
    parameters += _endings(hidden=False)

    def before(ctx: typer.Context, **values: Any) -> None:
        ctx.obj = _filled(Common, values)

    app = _typer(name="mdl", context_settings=HELP_FLAGS, **texts)
    app.callback(cls=RootGroup)(_signed(before, parameters))
    return typer.main.get_command(app)


def epilog_of(examples: Sequence[str]) -> str:
    """The end of a help: the examples, one a line."""
    return "\n".join(("", "Examples:", *(f"  {example}" for example in examples)))


def _typer(**given: Any) -> typer.Typer:
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich", **given)


_CONTEXT = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def _spread(command: Registered) -> Callable[..., None]:
    """The function that Typer is given: every flag is a parameter of it."""
    hints = get_type_hints(command.body, include_extras=True)
    groups: dict[str, type] = {}
    settings: dict[str, tuple[str, ...]] = {}
    plain: list[inspect.Parameter] = []
    _, *of_body = inspect.signature(command.body).parameters.values()
    for parameter in of_body:
        kind = hints[parameter.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            groups[parameter.name] = kind
        elif get_args(kind)[:1] == (Settings,):
            settings[parameter.name] = kind.__metadata__[0]
        else:
            plain.append(parameter.replace(annotation=kind, kind=_KEYWORD))

    def run(ctx: typer.Context, **values: Any) -> None:
        common = merged(ctx.obj or Common(), _filled(Common, values))
        arguments: dict[str, Any] = {parameter.name: values[parameter.name] for parameter in plain}
        for name, group in groups.items():
            arguments[name] = _filled(group, values)
        for name, setting_names in settings.items():
            arguments[name] = {setting: _given(values[setting]) for setting in setting_names}

        def begin(session: Session) -> int:
            _warn_of_unknown_variables(session)
            if not command.checks_config:
                session.check_config()
            return command.body(session, **arguments)

        raise typer.Exit(guarded(command.name.split()[0], common, begin, _words(command.name, ctx, common)))

    hidden = set() if command.asks else {"yes"}
    if command.name.split()[0] in NO_CATALOG:
        hidden.add("catalog")
    parameters = [_CONTEXT, *plain]
    for names in settings.values():
        parameters += map(_setting, names)
    for group in (*groups.values(), Common):
        parameters += [_parameter(field, group, hidden) for field in dataclasses.fields(group)]
    parameters.sort(key=_panel_number)
    parameters += _endings(hidden=True)  # the help of mdl itself shows them
    run.__doc__ = command.body.__doc__
    return _signed(run, parameters)


def _given(value: Any) -> Any:
    """The value of a setting's flag; None if it was not given, of a switch too."""
    return None if value is False else value


def _filled(group: type, values: Mapping[str, Any]) -> Any:
    """A group of flags with the values that were given for them."""
    return group(**{name: values[name] for name in _hints_of(group)})


_NO_SETTINGS = ("MDL_HOOK_", "MDL_RELEASE_", "MDL_JOB", "MDL_LONG", "MDL_SERVE_TOKEN")
"""How the variables begin that mdl sets for hooks, checks and its own background, that its tests read, and that have a
secret."""


def _warn_of_unknown_variables(session: Session) -> None:
    """Warn of a variable ``MDL_…`` that means nothing: it is probably misspelt."""
    known = {setting.variable_name for setting in settings_table().values()}
    unknown = {name for name in session.environ if name.startswith("MDL_") and not name.startswith(_NO_SETTINGS)}
    unknown -= known
    if unknown:
        known |= _variables_of_flags()
    for name in sorted(unknown - known):
        near = get_close_matches(name, known, 1, 0.8)
        meant = f"did you mean {near[0]}?" if near else "'mdl config' lists the settings"
        session.console.warn(f"the variable {name} means nothing to mdl; {meant}")


def _variables_of_flags() -> set[str]:
    """The variables that flags are read from. All commands are imported for it."""
    for listed in commands().values():
        importlib.import_module(listed.module)
    variables: set[str] = set()
    for registered in REGISTERED.values():
        for parameter in inspect.signature(_spread(registered)).parameters.values():
            for option in get_args(parameter.annotation)[1:]:
                variables.add(option.envvar or "")
    return variables


def _words(name: str, ctx: typer.Context, common: Common) -> tuple[str, ...]:
    """The command of this ``name`` and its arguments as they could be typed again, without how it was to be shown."""
    options = [f"--catalog={path}" for path in common.catalog or ()]
    arguments: list[str] = []
    for param in ctx.command.params:
        key = param.name or ""
        source = ctx.get_parameter_source(key)
        was_typed = source is not None and source.name == "COMMANDLINE"
        if not was_typed or key in _NOT_SHOWN_AGAIN:
            continue
        value = ctx.params[key]
        values = value if isinstance(value, list | tuple) else [value]
        if param.param_type_name == "argument":
            arguments += map(str, values)
            continue
        long = max(param.opts, key=len)
        for item in values:
            options.append(long if item is True else f"{long}={item}")
    return (*name.split()[:-1], ctx.command.name or "", *options, "--", *arguments)


def _signed(run: Callable[..., None], parameters: list[inspect.Parameter]) -> Callable[..., None]:
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


_hints_of = functools.cache(partial(get_type_hints, include_extras=True))


def _panel_number(parameter: inspect.Parameter) -> int:
    """Where a parameter stands in the help. The context and the arguments come first."""
    panels = [option.rich_help_panel for option in get_args(parameter.annotation)[1:]]
    return PANELS.index(panels[0]) if panels and panels[0] else -1


def _parameter(
    field: dataclasses.Field[Any], group: type, hidden: Container[str] = (), panel: str = ""
) -> inspect.Parameter:
    kind, option = get_args(_hints_of(group)[field.name])
    option = copy.copy(option)
    option.hidden = field.name in hidden
    option.rich_help_panel = panel or option.rich_help_panel
    annotation = Annotated[kind, option]  # type: ignore[valid-type]
    return inspect.Parameter(field.name, _KEYWORD, default=field.default, annotation=annotation)


def _endings(*, hidden: bool) -> list[inspect.Parameter]:
    """The flags that end mdl; their callbacks do all."""
    parameters = []
    for name, annotation in ENDINGS.items():
        kind, option = get_args(annotation)
        option = copy.copy(option)
        option.hidden = hidden
        option.rich_help_panel = PANELS[-1] if hidden else ROOT_PANEL
        annotation = Annotated[kind, option]
        parameters.append(inspect.Parameter(name, _KEYWORD, default=None, annotation=annotation))
    return parameters


def _setting(name: str) -> inspect.Parameter:
    """The flag of a setting. It is None, or False, if it was not given: then `mdl.config.settings` looks further."""
    setting = settings_table()[name]
    usage = setting.flag or f"--{name.replace('_', '-')}"
    about = setting.help.removesuffix(".")
    if setting.variable:
        about += f" ({setting.variable})"
    about += "."
    kind: Any = bool
    not_given = False if isinstance(setting.default, bool) else None
    if not_given is None:
        kind = str | None
        usage += f" {setting.metavar}"
        if setting.default:
            about += f" [default: {setting.default}]"
    annotation = Annotated[kind, flag(usage, about, panel=setting.panel, envvar=None)]
    return inspect.Parameter(name, _KEYWORD, default=not_given, annotation=annotation)


def merged(before: Common, after: Common) -> Common:
    """Flags given before the command and after it, as one; the later wins, lists add up."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Common):
        first = getattr(before, field.name)
        second = getattr(after, field.name)
        if isinstance(first, list) and isinstance(second, list):
            values[field.name] = first + second
        elif second == field.default or second == []:
            values[field.name] = first
        else:
            values[field.name] = second
    return Common(**values)


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
    """Return the exit code of mdl if this ends a command."""
    return BROKEN_PIPE if isinstance(error, BrokenPipeError) else as_problem(error).exit_code


def report(session: Session, error: Problem) -> int:
    """Show the error, as a document too if one was asked for; returns its exit code."""
    console = session.console
    if session.common.verbose:
        console.debug("".join(traceback.format_exception(error)))
    console.error(error)
    return session.show({}, error=error)


@contextlib.contextmanager
def all_or_nothing(left: str = "nothing was written") -> Iterator[None]:
    """Give the error of a block that is stopped a hint that says what is ``left`` of it."""
    try:
        yield
    except (KeyboardInterrupt, Cancelled) as error:
        stopped = error if isinstance(error, Cancelled) else Cancelled()
        raise stopped.but(hint=left) from None
