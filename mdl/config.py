"""Settings: what a flag, a variable ``MDL_…``, a key of ``config.toml`` or an argument of `mdl.Client` sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, get_type_hints

import platformdirs

from mdl.errors import UsageError
from mdl.fs.private import read_whole
from mdl.paths import shown
from mdl.places import CACHE_VARIABLES, Place, config_file, hub_cache, place_of, user_folder
from mdl.toml import parse_toml
from mdl.units import Window, is_true, parse_duration, parse_rate, parse_size

if TYPE_CHECKING:
    from mdl.remote_tables import RemoteSettings

Parse = Callable[[Any, str], Any]
"""Makes the checked value of what was given under a name. Raises `UsageError` naming it."""


@dataclass(frozen=True)
class Setting:
    """One setting: its default, how its value is read, and what ``--help`` says. A setting ``of_a_run`` belongs to
    one run and is refused in ``config.toml``."""

    default: Any
    parse: Parse
    help: str
    metavar: str = ""
    flag: str = ""
    """If it is another than ``--`` and the name."""
    variable: str = ""
    """If it is another than ``MDL_`` and the flag."""
    of_a_run: bool = False
    has_flag: bool = True
    """Whether the commands that download have a flag for it; ``--catalog`` belongs to every command."""
    panel: str = "Speed and hours"
    """The heading under which ``--help`` shows the flag."""


def _integer(least: int, most: int) -> Parse:
    def parse(value: Any, name: str) -> int:
        text = str(value).strip()
        if isinstance(value, bool) or not (
            text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most
        ):
            raise UsageError(f"{value!r} is not a number from {least} to {most}", item=name)
        return int(text)

    return parse


def _choice_setting(choices: Sequence[str], help_text: str, panel: str) -> Setting:
    """One of ``choices``, of which the first is the default."""

    def parse(value: Any, name: str) -> str:
        if value not in choices:
            raise UsageError(f"{value!r} is not one of {', '.join(choices)}", item=name)
        return str(value)

    return Setting(choices[0], parse, help_text, "|".join(choices), panel=panel)


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
    return lambda value, name: parse(str(value), name)


def _paths(value: Any, name: str) -> tuple[Path, ...]:
    return tuple(Path(one) for one in ([value] if isinstance(value, str | os.PathLike) else value))


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split(","))
    if not isinstance(value, Iterable):
        raise UsageError(f"{value!r} is not a list of texts", item=name)
    return tuple(map(str, value))


class Settings(TypedDict, total=False):
    """The arguments of `mdl.Client`; flags, variables and the keys of ``[defaults]`` are made from the same table."""

    home: Annotated[
        str | os.PathLike[str],
        Setting(None, place_of, "Models folder; files land in DIR/<name>/.", "DIR", "--to", "MDL_HOME", panel="Where"),
    ]
    catalog: Annotated[
        str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        Setting((), _paths, "Catalog file, repeatable.", "FILE", variable="MDL_CATALOG", of_a_run=True, has_flag=False),
    ]
    layout: Annotated[
        Literal["plain", "hf-cache"],
        _choice_setting(
            ("plain", "hf-cache"),
            "hf-cache: Hugging Face's own cache, which transformers and hf read offline.",
            "Where",
        ),
    ]
    connections: Annotated[int, Setting(16, _integer(1, 64), "Connections at once, at most, in all (1 to 64).", "N")]
    retries: Annotated[int, Setting(5, _integer(1, 1000), "Attempts without progress (1 to 1000).", "N")]
    stall: Annotated[
        float | str, Setting("30s", _as_text(parse_duration), "Silence after which a connection is given up.", "TIME")
    ]
    offline: Annotated[bool, _switch_setting("Contact nothing (also HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE).", "Lock")]
    via: Annotated[
        Literal["http", "hub", "xet"],
        _choice_setting(
            ("http", "hub", "xet"),
            "How the hub's files come: xet by hf_xet, hub by huggingface_hub; they are verified in any case.",
            "Where",
        ),
    ]
    limit_rate: Annotated[
        str | float | None,
        Setting(None, _as_text(parse_rate), "Bytes a second in all: 20M, or by the day: '08:00,2M 22:00,off'.", "RATE"),
    ]
    max_duration: Annotated[
        float | str | None, Setting(None, _as_text(parse_duration), "Stop after this long, with exit code 75.", "TIME")
    ]
    window: Annotated[
        str | None,
        Setting(None, _as_text(Window.parse), "Only at these hours, as 22:00-06:00; else exit code 75.", "FROM-TO"),
    ]
    lock_wait: Annotated[
        float | str,
        Setting(
            "10m",
            _as_text(partial(parse_duration, least=0)),
            "How long to wait for another mdl on the same model.",
            "TIME",
        ),
    ]
    max_size: Annotated[
        str | int | None,
        Setting(
            None, _as_text(parse_size), "Refuse what has more bytes than this in all: 20G, 500Mi.", "SIZE", panel="What"
        ),
    ]
    locked: Annotated[bool, _switch_setting("The lock must exist and cover every model; else exit code 8.", "Lock")]
    frozen: Annotated[
        bool, _switch_setting("Use the lock as it is, even if the catalog changed; ask no hub API.", "Lock")
    ]
    allow_hosts: Annotated[
        Sequence[str],
        Setting((), _texts, "Hosts that may be contacted beyond those of the catalog and the hub.", has_flag=False),
    ]


@cache
def settings_table() -> dict[str, Setting]:
    """Every setting by its name."""
    return {name: hint.__metadata__[0] for name, hint in get_type_hints(Settings, include_extras=True).items()}


Settings.__doc__ = "\n".join(
    [f"{Settings.__doc__}\n", *(f"{name}: {setting.help}" for name, setting in settings_table().items())]
)

_LARGEST = 2**20


@dataclass(frozen=True)
class Config:
    """The settings in effect: what was ``given``, else the variables, else ``config.toml``, else the defaults.

    ``flags`` says that the command line gave them, so that an error names the flag. ``read`` reads ``config.toml``;
    what `dataclasses.replace` makes of a Config does not read it again.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    flags: bool = False
    read: Callable[[], dict[str, Any]] = field(default_factory=lambda: cache(read_config), compare=False)

    @property
    def file(self) -> dict[str, Any]:
        """``config.toml``, checked. Raises `UsageError`."""
        return self.read()

    @property
    def defaults(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.file.get("defaults", {})
        return found

    def __getitem__(self, name: str) -> Any:
        """The checked value of one setting. Raises `UsageError` if it is wrong."""
        return self.find(name)[0]

    def find(self, name: str) -> tuple[Any, str]:
        """The checked value of one setting, and the name it was given under ('' for the default)."""
        setting = settings_table()[name]
        flag = setting.flag or "--" + name.replace("_", "-")
        variable = setting.variable or "MDL_" + name.upper()
        if self.given.get(name) is not None:
            where = flag if self.flags else name
            return setting.parse(self.given[name], where), where
        if self.environ.get(variable):
            return setting.parse(self.environ[variable], variable), variable
        if not setting.of_a_run and self.defaults.get(name, "") != "":
            return setting.parse(self.defaults[name], f"[defaults] {name}"), f"[defaults] {name}"
        default = setting.default
        return (setting.parse(default, name) if isinstance(default, str) else default), ""

    @property
    def is_offline(self) -> bool:
        if self.given.get("offline") is not None:
            return bool(self["offline"])
        hub = (self.environ.get("HF_HUB_OFFLINE"), self.environ.get("TRANSFORMERS_OFFLINE"))
        return bool(self["offline"]) or any(is_true(text) for text in hub)

    @property
    def allowed_hosts(self) -> list[str]:
        """The hosts that were given, those of ``MDL_ALLOW_HOSTS`` and those of ``config.toml``, all together."""
        given = _texts(self.given.get("allow_hosts") or (), "allow_hosts")
        return [*given, *self.environ.get("MDL_ALLOW_HOSTS", "").split(","), *self.defaults.get("allow_hosts", ())]

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


def read_config() -> dict[str, Any]:
    """``config.toml``, checked; empty if there is none. ``remotes`` in it is what they mean, by their names. Raises
    `UsageError`."""
    try:
        path = config_file()
    except UsageError:
        return {}
    try:
        text = read_whole(path, _LARGEST).decode()
        data = parse_toml(text)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"unreadable: {error.strerror}", item=str(path)) from error
    except ValueError as error:
        raise UsageError(f"not TOML: {shown(str(error))[:200]}", item=str(path)) from error
    for name, table in data.items():
        _check_table(name, table, str(path))
    return data | {"remotes": _remotes(data, path, text)} if "remotes" in data else data


def _remotes(data: dict[str, Any], path: Path, text: str) -> dict[str, RemoteSettings]:
    """The tables ``[remotes.NAME]``. Raises `UsageError` with every mistake in them."""
    from mdl.remote_tables import read_remotes
    from mdl.toml.problems import Problems, Table

    problems = Problems(path.name, UsageError)
    found = read_remotes(Table(data, (), problems.file(path, text)).table("remotes"))
    problems.check()
    return found


def _check_table(name: str, table: Any, path: str) -> None:
    """Raises `UsageError` for a table of ``config.toml`` that is wrong. What a default may be its `Setting` says."""
    from mdl.fs.copying import RULES

    defaults = [name for name, setting in settings_table().items() if not setting.of_a_run]
    tables: dict[str, Sequence[str]] = {
        "defaults": (*defaults, "progress", "log_file"),
        "hooks": ("on_complete", "on_failure"),
        "stores": ("also", "link"),
        "remotes": (),
    }
    if name.startswith("x-"):
        return
    if name not in tables:
        raise UsageError(f"unknown table [{name}]", item=path, hint=_near(name, tables))
    if not isinstance(table, dict):
        raise UsageError(f"[{name}] is not a table", item=path)
    for key, value in table.items() if name != "remotes" else ():
        if key.startswith("x-"):
            continue
        if key not in tables[name]:
            raise UsageError(f"unknown key {key!r} in [{name}]", item=path, hint=_near(key, tables[name]))
        if key in ("home", "on_complete", "on_failure") and not isinstance(value, str):
            raise UsageError(f"[{name}] {key} is not text", item=path)
        if key == "link" and value not in RULES:
            raise UsageError(f"[{name}] {key} cannot be {value!r}", item=path, hint=_near(str(value), RULES))
        if key in ("allow_hosts", "also") and not (
            isinstance(value, list) and all(isinstance(one, str) for one in value)
        ):
            raise UsageError(f"[{name}] {key} is not a list of texts", item=path)


def _near(word: str, words: Iterable[str]) -> str:
    near = get_close_matches(word, words, 1)
    return f"did you mean {near[0]}?" if near else f"there is {', '.join(words)}"
