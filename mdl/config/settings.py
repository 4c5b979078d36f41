"""Settings: what a flag, a variable ``MDL_…``, a key of ``config.toml`` or an argument of `mdl.Client` sets."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, get_args, get_type_hints

import platformdirs

from mdl.bounds import LARGEST_SMALL_FILE
from mdl.config.places import CACHE_VARIABLES, Place, config_file, expanded, hub_cache, place_of, user_folder
from mdl.disk.copy import RULES
from mdl.disk.process import split_command
from mdl.disk.safe_open import read_whole
from mdl.errors import UsageError
from mdl.formatting import near_hint
from mdl.paths import shown
from mdl.units import Window, as_meant, as_text, is_true, parse_duration, parse_rate, parse_size
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.net.policy import Limits
    from mdl.toml.table import Table

Parse = Callable[[Any, str], Any]
"""Makes the checked value of what was given under a name. Raises `UsageError` naming it."""


@value_class
class Setting:
    """One setting: its default, how its value is read, and what ``--help`` says. A setting ``of_a_run`` belongs to
    one run and is refused in ``config.toml``."""

    default: Any
    parse: Parse
    help: str
    metavar: str = ""
    flag: str = ""
    """Its flag, if that is not ``--`` and the name."""
    variable: str = ""
    """Its variable, if that is not ``MDL_`` and the name."""
    of_a_run: bool = False
    has_flag: bool = True
    """Whether the commands that download have a flag for it; ``--catalog`` belongs to every command."""
    panel: str = "Speed and hours"
    """The heading under which ``--help`` shows the flag."""
    may_be_empty: bool = False
    """Whether an empty text is a value, which means "none of it", and not a variable that happens to be unset."""
    adds_up: bool = False
    """Whether what is given, what the variable says and what ``config.toml`` says hold together."""
    name: str = ""
    """Its name in the table: ``home``, or ``stores.also`` for what is not in ``[defaults]``."""

    @property
    def flag_name(self) -> str:
        """Its flag; '' if it has none."""
        return self.flag or ("--" + self.name.replace("_", "-") if self.has_flag else "")

    @property
    def variable_name(self) -> str:
        """Its variable; '' if it has none."""
        return self.variable or ("MDL_" + self.name.upper() if self.has_flag else "")

    @property
    def key(self) -> tuple[str, str]:
        """The table and the key of ``config.toml``."""
        table, _, key = self.name.rpartition(".")
        return table or "defaults", key


def _integer(least: int, most: int) -> Parse:
    def parse(value: Any, name: str) -> int:
        text = str(value).strip()
        if isinstance(value, bool) or not (
            text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most
        ):
            raise UsageError(f"{value!r} is not a number from {least} to {most}", item=name)
        return int(text)

    return parse


def parse_choice(choices: Sequence[str], value: Any, name: str) -> str:
    """One of ``choices``. Raises `UsageError` naming ``name`` for anything else."""
    if value not in choices:
        raise UsageError(f"{value!r} is not one of {', '.join(choices)}", item=name)
    return str(value)


def _choice_setting(choices: Sequence[str], help_text: str, panel: str = "", **more: Any) -> Setting:
    """One of ``choices``, of which the first is the default."""
    return Setting(choices[0], partial(parse_choice, choices), help_text, "|".join(choices), panel=panel, **more)


def parse_switch(value: Any, name: str) -> bool:
    """Yes or no, in the words that a variable may say it with. Raises `UsageError` naming ``name``."""
    words = {True: ("1", "true", "t", "yes", "y", "on"), False: ("0", "false", "f", "no", "n", "off")}
    for meaning, texts in words.items():
        if str(value).strip().lower() in texts:
            return meaning
    raise UsageError(f"{value!r} is neither yes nor no", item=name, hint="write 1 or 0")


def _switch_setting(help_text: str, panel: str) -> Setting:
    return Setting(False, parse_switch, help_text, of_a_run=True, panel=panel)


def _as_text(parse: Callable[[str, str], Any]) -> Parse:
    """A number of seconds, or of bytes, means the same as the text of it."""
    return lambda value, name: parse(as_text(value), name)


def _of_text(parse: Callable[[str, str], Any]) -> Parse:
    """Of a text, or of a path, and of nothing else."""

    def checked(value: Any, name: str) -> Any:
        if not isinstance(value, str | os.PathLike):
            raise UsageError(f"{value!r} is not a text", item=name)
        return parse(os.fspath(value), name)

    return checked


def _paths(value: Any, name: str) -> tuple[Path, ...]:
    return tuple(expanded(one, name) for one in _many(value, name) if os.fspath(one))


def _texts(value: Any, name: str) -> tuple[str, ...]:
    texts = value.split(",") if isinstance(value, str) else _many(value, name)
    cleaned = [as_meant(str(text)) for text in texts]
    return tuple(text for text in cleaned if text)


def _many(value: Any, name: str) -> Sequence[str | os.PathLike[str]]:
    """One text or path, or several."""
    if isinstance(value, str | os.PathLike):
        return [value]
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise UsageError(f"{value!r} is not a list of texts", item=name)
    found = list(value)
    if not all(isinstance(one, str | os.PathLike) for one in found):
        raise UsageError(f"{found!r} is not a list of texts", item=name)
    return found


def _mirrors(value: Any, name: str) -> tuple[str, ...]:
    found = _texts(value, name)
    for url in found:
        if not re.fullmatch(r"s3://[^/?#@]+(/[^?#]*)?", url):
            raise UsageError("not a mirror", item=f"{name}: {shown(url)[:200]}", hint="write s3://bucket/prefix")
    return found


def _log_file(text: str, name: str) -> Path | str:
    """The log's path; '' if there is to be none."""
    return expanded(text, name) if text else ""


def _command(text: str, name: str) -> Sequence[str] | None:
    """The words of a command; None if it is empty. The path of a program may have blanks in it: of quotes around the
    whole of a setting nothing is left here, see `as_meant`."""
    if text.startswith("/") and shutil.which(text):
        return [text]
    return split_command(text, name) if text else None


class Settings(TypedDict, total=False):
    """The arguments of `mdl.Client`; flags, variables and the keys of ``[defaults]`` are made from the same table."""

    home: Annotated[
        str | os.PathLike[str],
        Setting(
            None,
            _of_text(place_of),
            "Models folder: the files of a model land in DIR/<name>/.",
            "DIR",
            "--to",
            "MDL_HOME",
            panel="Where",
        ),
    ]
    catalog: Annotated[
        str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        Setting(
            (), _paths, "Catalog file, repeatable.", "FILE", "--catalog", "MDL_CATALOG", of_a_run=True, has_flag=False
        ),
    ]
    layout: Annotated[
        Literal["plain", "hf-cache"],
        _choice_setting(
            ("plain", "hf-cache"),
            "hf-cache: Hugging Face's own cache, which transformers and hf read offline.",
            "Where",
        ),
    ]
    connections: Annotated[int, Setting(24, _integer(1, 64), "The most connections at once, in all (1 to 64).", "N")]
    patience: Annotated[
        float | str,
        Setting(
            "5m",
            _as_text(parse_duration),
            "How long to keep trying without progress once a host has answered; 1h in the background.",
            "TIME",
        ),
    ]
    retries: Annotated[
        int | None,
        Setting(None, _integer(1, 1000), "Give up after this many attempts without progress (1 to 1000).", "N"),
    ]
    stall: Annotated[
        float | str,
        Setting("30s", _as_text(parse_duration), "Give up a connection after this long without a byte.", "TIME"),
    ]
    offline: Annotated[bool, _switch_setting("Contact nothing (also HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE).", "Lock")]
    via: Annotated[
        Literal["http", "hub"],
        _choice_setting(
            ("http", "hub"),
            "Who downloads the hub's files: mdl (http), or huggingface_hub with Xet (hub).",
            "Where",
        ),
    ]
    limit_rate: Annotated[
        str | float | None,
        Setting(
            None,
            _as_text(parse_rate),
            "Bytes per second in all: 20M, or by the time of day: '08:00,2M 22:00,off'.",
            "RATE",
        ),
    ]
    max_duration: Annotated[
        float | str | None, Setting(None, _as_text(parse_duration), "Stop after this long, with exit code 75.", "TIME")
    ]
    window: Annotated[
        str | None,
        Setting(None, _as_text(Window.parse), "Only at these hours: 22:00-06:00; otherwise exit code 75.", "FROM-TO"),
    ]
    lock_wait: Annotated[
        float | str,
        Setting(
            "10m",
            _as_text(partial(parse_duration, least=0)),
            "How long to wait for another mdl that works on the same model.",
            "TIME",
        ),
    ]
    max_size: Annotated[
        str | int | None,
        Setting(
            None, _as_text(parse_size), "Refuse a download of more bytes than this: 20G, 500Mi.", "SIZE", panel="What"
        ),
    ]
    locked: Annotated[
        bool, _switch_setting("Stop with exit code 8 if the lock does not cover what the catalog says.", "Lock")
    ]
    frozen: Annotated[
        bool, _switch_setting("Use the lock as it is, even if the catalog has changed since; ask no hub API.", "Lock")
    ]
    mirror: Annotated[
        str | Sequence[str],
        Setting(
            (),
            _mirrors,
            "Mirrors to ask first for what is locked: s3://bucket/prefix.",
            "URL,URL",
            panel="Where",
        ),
    ]
    allow_hosts: Annotated[
        Sequence[str],
        Setting(
            (),
            _texts,
            "Hosts that may be contacted beyond those of the catalog and the hub.",
            "HOST,HOST",
            variable="MDL_ALLOW_HOSTS",
            has_flag=False,
            adds_up=True,
        ),
    ]


Progress = Literal["auto", "bars", "lines", "json", "none"]
"""How progress is told."""

_OF_COMMANDS = {
    "progress": _choice_setting(
        get_args(Progress),
        "How progress is shown on stderr; json: one object a line.",
        flag="--progress",
        variable="MDL_PROGRESS",
        has_flag=False,
    ),
    "log_file": Setting(
        None,
        _of_text(_log_file),
        "The downloads log, of all operations; an empty name for none.",
        "FILE",
        "--log-file",
        "MDL_LOG_FILE",
        has_flag=False,
        may_be_empty=True,
    ),
    "hooks.on_complete": Setting(
        None,
        _of_text(_command),
        "Run this when everything is downloaded, without a shell; facts in MDL_HOOK_*.",
        "CMD",
        "--on-complete",
        "MDL_ON_COMPLETE",
        has_flag=False,
        may_be_empty=True,
    ),
    "hooks.on_failure": Setting(
        None,
        _of_text(_command),
        "Run this when a job fails, without a shell; facts in MDL_HOOK_*.",
        "CMD",
        has_flag=False,
    ),
    "stores.also": Setting(
        (),
        _paths,
        "Folders of other programs in which the same bytes may be; in the variable with ':' between.",
        "DIR",
        variable="MDL_STORES_ALSO",
        has_flag=False,
    ),
    "stores.link": _choice_setting(
        RULES, f"How bytes that are elsewhere on this disk are used: {', '.join(RULES)}.", has_flag=False
    ),
}
"""The settings that a command has and `mdl.Client` has no argument for."""


@cache
def client_settings() -> dict[str, Setting]:
    """The settings that are arguments of `mdl.Client`, by their names."""
    hints = get_type_hints(Settings, include_extras=True)
    return {name: replace(hint.__metadata__[0], name=name) for name, hint in hints.items()}


@cache
def settings_table() -> dict[str, Setting]:
    """Every setting by its name: ``home``, ``stores.also``."""
    return client_settings() | {name: replace(setting, name=name) for name, setting in _OF_COMMANDS.items()}


Settings.__doc__ = "\n".join(
    [f"{Settings.__doc__}\n", *(f"{name}: {setting.help}" for name, setting in client_settings().items())]
)


def setting_named(name: str) -> Setting:
    """The setting of that name. Raises `UsageError`, with what is near."""
    if name not in settings_table():
        hint = "'mdl config' lists them; [remotes] and [hosts] are edited in config.toml"
        hint = near_hint(name, settings_table(), hint)
        raise UsageError("there is no such setting", item=shown(name)[:100], hint=hint)
    return settings_table()[name]


_UNANSWERED = 15.0
"""Seconds for which a host is tried that has never answered: its name or port may be wrong."""
_UNATTENDED = 3600.0
_UNTIL_THE_DEADLINE = 7 * 86400.0


@value_class
class Config:
    """The settings in effect: what was ``given``, else the variables, else ``config.toml``, else the defaults.

    ``flags`` says that the command line gave them, so that an error names the flag. ``read`` reads ``config.toml``;
    what `dataclasses.replace` makes of a Config does not read it again. ``is_unattended``: nobody waits for what is
    done, as in the background and of prefetch.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    flags: bool = False
    is_unattended: bool = False
    read: Callable[[], dict[str, Any]] = field(default_factory=lambda: cache(read_config), compare=False)

    @property
    def file(self) -> dict[str, Any]:
        """``config.toml``, checked. Raises `UsageError`."""
        return self.read()

    def __getitem__(self, name: str) -> Any:
        """The checked value of one setting. Raises `UsageError` if it is wrong."""
        return self.find(name)[0]

    def find(self, name: str) -> tuple[Any, str]:
        """The checked value of one setting, and the name it was given under ('' for the default)."""
        setting = settings_table()[name]
        default = (settings_table()[name].default, "")
        if setting.adds_up:
            given = list(self.given_as(name))
            joined = [one for value, where in given for one in setting.parse(value, where)]
            return tuple(joined), ", ".join(where for _, where in given)
        value, where = next(self.given_as(name), default)
        return (setting.parse(value, where) if where or isinstance(value, str) else value), where

    def given_as(self, name: str) -> Iterator[tuple[Any, str]]:
        """What one setting was given as, with the name it was given under: what holds comes first."""
        setting = settings_table()[name]
        table, key = setting.key
        if self.given.get(name) is not None:
            yield self.given[name], setting.flag_name if self.flags else name
        empty = (None,) if setting.may_be_empty else (None, "")
        text = self.environ.get(setting.variable_name)
        if text is not None and (text := as_meant(text)) not in empty:
            is_list = setting.parse is _paths and not os.path.exists(text)  # a folder may have a ":" in its name
            yield (text.split(os.pathsep) if is_list else text), setting.variable_name
        if not setting.of_a_run and (value := self.file.get(table, {}).get(key)) not in empty:
            yield value, f"[{table}] {key}"

    def given_flags(self, *names: str) -> list[str]:
        """The flags of a command line that give these settings as they were given for this run; none for the others."""
        flags: list[str] = []
        for name in names:
            value = self.given.get(name)
            for text in () if value is None else _many(value, name):
                flags += [settings_table()[name].flag_name, os.fspath(text)]
        return flags

    def check(self, *names: str) -> None:
        """Raises `UsageError` for the first of these settings that is wrong."""
        for name in names:
            self.find(name)

    @property
    def limits(self) -> Limits:
        """How much a client asks for at once, how long it waits, and how often it asks again."""
        from mdl.net.policy import Limits, RetryPolicy

        stall = self["stall"]
        patience, unanswered = self.patience
        policy = RetryPolicy(self["retries"], patience, unanswered)
        return Limits(self["connections"], connect=min(10.0, stall), stall=stall, policy=policy)

    @property
    def patience(self) -> tuple[float, float]:
        """The seconds without progress after which mdl gives up: on a host that has answered, and on one that never
        did. Where nobody waits, they are an hour from the start, or there is no end before the deadline."""
        patience, where = self.find("patience")
        if not self.is_unattended:
            return patience, min(patience, _UNANSWERED)
        if not where:
            has_deadline = self["max_duration"] is not None or self["window"] is not None
            patience = _UNTIL_THE_DEADLINE if has_deadline else _UNATTENDED
        return patience, patience

    @property
    def is_offline(self) -> bool:
        return bool(self.offline_by)

    @property
    def offline_by(self) -> str:
        """The flag, variable or setting that keeps mdl offline; '' if it is online. Raises `UsageError`."""
        is_offline, where = self.find("offline")
        if is_offline or self.given.get("offline") is not None:
            return where if is_offline else ""
        names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        return next((name for name in names if is_true(self.environ.get(name))), "")

    @property
    def home(self) -> Place:
        """The models folder: what was given, ``MDL_HOME``, ``[defaults] home``, the user data folder. With the layout
        ``hf-cache`` it is what was given, else the hub's cache. Raises `UsageError`."""
        if self["layout"] == "hf-cache" and self.given.get("home") is None:
            named = next((name for name in CACHE_VARIABLES if self.environ.get(name)), None)
            return Place(hub_cache(self.environ), f"the hub's cache, given by {named}" if named else "the hub's cache")
        path, where = self.find("home")
        if path is None:
            return Place(user_folder(platformdirs.user_data_dir) / "models", "the user data folder")
        is_of_file = where.startswith("[")
        return Place(path.absolute(), f"{where} in {config_file()}" if is_of_file else f"given by {where}")


_MEND = "fix that file, or rename it to continue without it"


def read_config() -> dict[str, Any]:
    """``config.toml``, checked; empty if there is none. ``remotes`` and ``hosts`` in it are what they mean, by their
    names. Raises `UsageError` with every mistake in it."""
    try:
        path = config_file()
    except UsageError:
        return {}
    text = read_text(path)
    return {} if text is None else check_config(path, text)


def read_text(path: Path) -> str | None:
    """The text of ``config.toml``; None if there is none. Raises `UsageError`."""
    try:
        return read_whole(path, LARGEST_SMALL_FILE).decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"unreadable: {error.strerror}", item=str(path), hint=_MEND) from error
    except UnicodeDecodeError as error:
        raise UsageError("not UTF-8", item=str(path), hint=_MEND) from error


def check_config(path: Path, text: str) -> dict[str, Any]:
    """The tables of a ``config.toml`` with this ``text``, as they are used. Raises `UsageError` with every mistake."""
    from mdl.toml.table import Problems, Table

    problems = Problems("config.toml", UsageError)
    file = problems.file(path, text)
    data: dict[str, Any] = _as_meant(file.parse() or {})
    top = Table(data, (), file)
    tables: dict[str, dict[str, Setting]] = {}
    for setting in settings_table().values():
        if not setting.of_a_run:
            tables.setdefault(setting.key[0], {})[setting.key[1]] = setting
    top.allow(*tables, "remotes", "hosts")
    for name, settings in tables.items():
        _check_settings(top.table(name), settings, path.parent)
    if "remotes" in data:
        from mdl.config.remotes import read_remotes

        data = data | {"remotes": read_remotes(top.table("remotes"))}
    if "hosts" in data:
        from mdl.config.hosts import read_hosts

        data = data | {"hosts": read_hosts(top.table("hosts"))}
    try:
        problems.check()
    except UsageError as error:
        raise error.but(hint=_MEND) from error
    return data


def _as_meant(value: Any) -> Any:
    """A value of ``config.toml``, its texts cleaned as those of variables are: both are pasted from .env files, and a
    person changes one into the other."""
    if isinstance(value, dict):
        return {key: _as_meant(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_as_meant(below) for below in value]
    return as_meant(value) if isinstance(value, str) else value


def _check_settings(table: Table, settings: Mapping[str, Setting], folder: Path) -> None:
    """Note what is wrong with one table of settings. Its relative paths count from the ``folder`` of the file: from the
    current one they would mean another place in each folder. (ADR 158)"""
    table.allow(*settings)
    for key, setting in settings.items():
        if table.data.get(key, "") != "":
            value = table.attempt(partial(_read_quietly, setting.parse), table.data[key], key)
            if isinstance(value, Path):
                table.data[key] = folder / value
            elif value and setting.parse is _paths:
                table.data[key] = [folder / path for path in value]


def _read_quietly(parse: Parse, value: Any) -> Any:
    """As ``parse``, for one who knows the name of what is read."""
    return parse(value, "")
