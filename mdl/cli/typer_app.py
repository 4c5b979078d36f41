"""The app: what Typer makes of the commands. Flag groups are spread over the signature of a command, and the table of
commands stands for those that are not called.

Typer's classes for commands and groups get the little that mdl adds (ADR 62): quick conversion of texts and paths, help
texts that are no markup, and a plain help for narrow terminals.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import inspect
import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from mdl.cli import command
from mdl.cli.command import REGISTERED, Registered
from mdl.cli.commands import COMMANDS, NO_CATALOG, commands, find, groups
from mdl.cli.completion import offer_row, values_of
from mdl.cli.flags import ENDINGS, FOREVER, PANELS, ROOT_PANEL, Common, flag
from mdl.cli.usage import foreign_words
from mdl.config.settings import Settings, settings_table
from mdl.errors import UsageError
from mdl.plugin import broken_plugins

_MAY_LACK_VALUE: Final = {
    "--wait": (r"(\d[\d.]*\s*[smhdSMHD]?)+", FOREVER),
    "--install-completion": (r"\w+", "auto"),
    "--show-completion": (r"\w+", "auto"),
}
"""The options that may lack their value, which Typer does not know: what a value looks like, and what they mean without
one."""
_HELP_FLAGS: Final = {"help_option_names": ["-h", "--help"]}
_LEAST_COLUMNS_OF_PANELS: Final = 60
"""Columns below which Rich would cut the names of options."""
_NARROWEST: Final = 30
_WIDEST: Final = 100
_LONGEST_BESIDE_TEXT: Final = 14
"""Columns of a usage that is beside its text in the plain help; a longer one has a line of its own."""
_NOT_SHOWN_AGAIN: Final = {field.name for field in dataclasses.fields(Common)} | {"detach", "ctx"}
"""Parameters that say how one run is shown, and nothing of what it does."""
_CONTEXT: Final = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
_KEYWORD: Final = inspect.Parameter.KEYWORD_ONLY


# Commands and groups


def root_group(**texts: str) -> Any:
    """Typer's group for ``mdl`` itself, without commands. Its flags are those of every command."""

    def before(ctx: typer.Context, **values: Any) -> None:
        ctx.obj = _filled(Common, values)

    app = _typer(name="mdl", context_settings=_HELP_FLAGS, **texts)
    parameters = [_CONTEXT, *_parameters(Common, panel=ROOT_PANEL)]
    app.callback(cls=RootGroup)(_signed(before, parameters))
    return typer.main.get_command(app)


@functools.cache
def loaded(name: str) -> Any:
    """Typer's object for a command of the table, whose module is imported for it."""
    listed = find(name)
    if listed is None:
        raise KeyError(name)
    importlib.import_module(listed.module)
    return typer_command(listed.see or name, called=name)


def typer_command(name: str, called: str = "") -> Any:
    """Typer's object for the command of this ``name``, which may be ``called`` otherwise, and for those below it."""
    registered = REGISTERED[name]
    run = _spread(registered)
    texts: dict[str, Any] = {"epilog": epilog_of(registered.examples), "context_settings": _HELP_FLAGS}
    if not registered.group_help:
        app = _typer()
        app.command(called or name.split()[-1], cls=Command, **texts)(run)
        return typer.main.get_command(app)

    def before(ctx: typer.Context, **values: Any) -> None:
        if ctx.invoked_subcommand is None:
            run(ctx, **values)
        ctx.obj = merged(ctx.obj, _filled(Common, values))

    parameters = list(inspect.signature(run).parameters.values())
    app = _typer(name=name, help=registered.group_help, **texts)
    app.callback(cls=Group, invoke_without_command=True)(_signed(before, parameters))
    group: Any = typer.main.get_command(app)
    for below in REGISTERED:
        if below.startswith(f"{name} "):
            group.add_command(typer_command(below))
    return group


def epilog_of(examples: Sequence[str]) -> str:
    """The end of a help: the examples, one a line."""
    return "\n".join(("", "Examples:", *(f"  {example}" for example in examples)))


def _typer(**given: Any) -> typer.Typer:
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich", **given)


# From the function of a command to flags, and back


def _spread(registered: Registered) -> Callable[..., None]:
    """The function that Typer is given: every flag is a parameter of it."""
    hints = get_type_hints(registered.body, include_extras=True)
    parameters: list[inspect.Parameter] = []
    readers: dict[str, Callable[[Mapping[str, Any]], Any]] = {}
    _session, *of_body = inspect.signature(registered.body).parameters.values()
    for parameter in of_body:
        flags, readers[parameter.name] = _flags_of(parameter, hints[parameter.name])
        parameters += flags

    def run(ctx: typer.Context, **values: Any) -> None:
        common = merged(ctx.obj, _filled(Common, values))
        arguments = {name: read(values) for name, read in readers.items()}
        words = _words(registered.name, ctx, common)
        raise typer.Exit(command.run(registered, common, arguments, words, _variables_of_flags))

    hidden = {*ENDINGS}  # the help of mdl itself shows them
    if not registered.asks:
        hidden.add("yes")
    if registered.name.split()[0] in NO_CATALOG:
        hidden.add("catalog")
    parameters += _parameters(Common, hidden)
    run.__doc__ = registered.body.__doc__
    return _signed(run, [_CONTEXT, *sorted(parameters, key=_panel_number)])


def _flags_of(
    parameter: inspect.Parameter, kind: Any
) -> tuple[list[inspect.Parameter], Callable[[Mapping[str, Any]], Any]]:
    """The flags that stand for one parameter of a command's function, and what makes its value of theirs."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _parameters(kind), partial(_filled, kind)
    if get_args(kind)[:1] == (Settings,):
        [names] = kind.__metadata__
        return [_setting(name) for name in names], partial(_settings, names)
    return [parameter.replace(annotation=kind, kind=_KEYWORD)], itemgetter(parameter.name)


_hints_of = functools.cache(partial(get_type_hints, include_extras=True))


def _parameters(group: type, hidden: Container[str] = (), panel: str = "") -> list[inspect.Parameter]:
    """The flags of a group, one for each of its fields; those that are ``hidden`` stand in no help."""
    parameters = []
    for field in dataclasses.fields(group):
        kind, option = get_args(_hints_of(group)[field.name])
        option = copy.copy(option)
        option.hidden = field.name in hidden
        option.rich_help_panel = panel or option.rich_help_panel
        annotation = Annotated[kind, option]  # type: ignore[valid-type]
        parameters.append(inspect.Parameter(field.name, _KEYWORD, default=field.default, annotation=annotation))
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


def _settings(names: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the flags of settings; None for one that was not given."""
    return {name: None if values[name] is False else values[name] for name in names}


def _filled(group: type, values: Mapping[str, Any]) -> Any:
    """A group of flags with the values that were given for them."""
    return group(**{name: values[name] for name in _hints_of(group)})


def merged(before: Common | None, after: Common) -> Common:
    """Flags given before the command and after it, as one; the later wins, lists add up."""
    values = dict(vars(after))
    for name, earlier in vars(before or Common()).items():
        if not values[name]:
            values[name] = earlier
        elif isinstance(earlier, list):
            values[name] = [*earlier, *values[name]]
    return Common(**values)


def _signed(run: Callable[..., None], parameters: list[inspect.Parameter]) -> Callable[..., None]:
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _panel_number(parameter: inspect.Parameter) -> int:
    """Where a parameter stands in the help. Arguments, which are in no panel, come first."""
    for option in get_args(parameter.annotation)[1:]:
        if option.rich_help_panel:
            return PANELS.index(option.rich_help_panel)
    return -1


def _words(name: str, ctx: typer.Context, common: Common) -> tuple[str, ...]:
    """The command of this ``name`` and its arguments as they could be typed again, without how it was to be shown."""
    options = [f"--catalog={path}" for path in common.catalog or ()]
    arguments: list[str] = []
    for param in ctx.command.params:
        key = str(param.name)
        if key in _NOT_SHOWN_AGAIN or not _was_typed(ctx, key):
            continue
        values = values_of(ctx.params[key])
        long = max(param.opts, key=len)
        if param.param_type_name == "argument":
            arguments += map(str, values)
        elif getattr(param, "is_flag", False):
            options.append(long)
        else:
            options += [f"{long}={value}" for value in values]
    return (*name.split()[:-1], str(ctx.command.name), *options, "--", *arguments)


def _was_typed(ctx: typer.Context, key: str) -> bool:
    """Whether a parameter was on the command line: it may also be from a variable, or its default."""
    source = ctx.get_parameter_source(key)
    return source is not None and source.name == "COMMANDLINE"


def _variables_of_flags() -> set[str]:
    """The variables that flags are read from. All commands are imported for it."""
    for listed in commands().values():
        importlib.import_module(listed.module)
    variables: set[str] = set()
    for name in REGISTERED:
        variables.update(filter(None, (param.envvar for param in typer_command(name).params)))
    return variables


# Typer's classes


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
    shown.help = literal(_in_paragraphs(command.help or ""))
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


def _in_paragraphs(text: str) -> str:
    """A help text, each paragraph on one line: Typer keeps the line breaks of all but the first."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


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
