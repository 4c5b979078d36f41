"""Where settings, catalog, state and models are, and why. Every place is found here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import platformdirs

from mdl.errors import UsageError
from mdl.fs import staging
from mdl.fs.copying import RULES
from mdl.fs.private import read_whole
from mdl.paths import shown
from mdl.toml import parse_toml

DEFAULTS = (
    *("home", "connections", "progress", "retries", "stall", "lock_wait", "limit_rate", "via", "allow_hosts"),
    *("window", "max_duration", "log_file", "layout"),
)
"""The keys of ``[defaults]`` in config.toml."""
_TABLES = {
    "defaults": DEFAULTS,
    "hooks": ("on_complete", "on_failure"),
    "stores": ("also", "link"),
    "remotes": None,
}
_LARGEST = 2**20
_LISTS = {"allow_hosts", "also"}
_TEXTS = {"home", "on_complete", "on_failure"}
_CHOICES = {"link": RULES}


@dataclass(frozen=True)
class Place:
    path: Path
    why: str


def _needs_home(find: Callable[[], str]) -> Path:
    try:
        folder = find()
    except RuntimeError:
        folder = "~"
    if folder.startswith("~") or not Path(folder).is_absolute():
        raise UsageError(
            "this user has no home folder", hint="set HOME, or name a folder with --to, MDL_HOME or XDG_CONFIG_HOME"
        )
    return Path(folder)


def config_dir() -> Path:
    return _needs_home(lambda: platformdirs.user_config_dir("mdl"))


def state_dir() -> Path:
    return _needs_home(lambda: platformdirs.user_state_dir("mdl"))


def config_file() -> Path:
    return config_dir() / "config.toml"


def read_config() -> dict[str, Any]:
    """``config.toml``, checked; an empty one where there is none. Raises `UsageError`."""
    try:
        path = config_file()
    except UsageError:
        return {}
    try:
        data = parse_toml(read_whole(path, _LARGEST).decode())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"unreadable: {error.strerror}", item=str(path)) from error
    except ValueError as error:
        raise UsageError(f"not TOML: {shown(str(error))[:200]}", item=str(path)) from error
    for name, table in data.items():
        _check_table(name, table, str(path))
    return data


def _check_table(name: str, table: Any, path: str) -> None:
    if name.startswith("x-"):
        return
    if name not in _TABLES:
        raise UsageError(f"unknown table [{name}]", item=path, hint=_near(name, tuple(_TABLES)))
    if not isinstance(table, dict):
        raise UsageError(f"[{name}] is not a table", item=path)
    known = _TABLES[name]
    for key, value in table.items():
        if known is None or key.startswith("x-"):
            continue
        if key not in known:
            raise UsageError(f"unknown key {key!r} in [{name}]", item=path, hint=_near(key, known))
        if key in _TEXTS and not isinstance(value, str):
            raise UsageError(f"[{name}] {key} is not text", item=path)
        if key in _CHOICES and value not in _CHOICES[key]:
            hint = _near(str(value), _CHOICES[key])
            raise UsageError(f"[{name}] {key} cannot be {value!r}", item=path, hint=hint)
        if key in _LISTS and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise UsageError(f"[{name}] {key} is not a list of texts", item=path)


def _near(word: str, words: tuple[str, ...]) -> str:
    near = get_close_matches(word, words, 1)
    return f"did you mean {near[0]}?" if near else f"there is {', '.join(words)}"


def models_home(to: Path | None, environ: Mapping[str, str], defaults: Mapping[str, Any]) -> Place:
    """The models folder: ``--to``, ``MDL_HOME``, ``[defaults] home``, the user data folder."""
    if to is not None:
        return Place(expanded(to, "--to").absolute(), "given by --to")
    if environ.get("MDL_HOME"):
        return Place(expanded(environ["MDL_HOME"], "MDL_HOME").absolute(), "given by MDL_HOME")
    if defaults.get("home"):
        home = expanded(str(defaults["home"]), "[defaults] home").absolute()
        return Place(home, f"[defaults] home in {config_file()}")
    return Place(_needs_home(lambda: platformdirs.user_data_dir("mdl")) / "models", "the user data folder")


_CACHE_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Hugging Face's cache: ``HF_HUB_CACHE``, ``HF_HOME``, the user cache folder, as huggingface_hub finds it."""
    named = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return expanded(os.path.expandvars(named), "HF_HUB_CACHE").absolute()
    home = environ.get("HF_HOME")
    if not home:
        cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
        home = os.path.join(cache, "huggingface")
    if home.startswith("~/"):
        return _needs_home(lambda: str(Path(os.path.expandvars(home)).expanduser().absolute())) / "hub"
    return expanded(os.path.expandvars(home), "HF_HOME").absolute() / "hub"


def cache_home(to: Path | None, environ: Mapping[str, str]) -> Place:
    """As `models_home`, with ``--layout hf-cache``: ``--to``, else the hub's cache."""
    if to is not None:
        return Place(expanded(to, "--to").absolute(), "given by --to")
    named = next((name for name in _CACHE_VARIABLES if environ.get(name)), None)
    return Place(hub_cache(environ), f"the hub's cache, given by {named}" if named else "the hub's cache")


def working_folder() -> Path:
    """The current folder; ``/`` where it was deleted under us, so that absolute paths still work."""
    try:
        return Path.cwd()
    except OSError:
        return Path(os.sep)


def place_of(text: str, what: str) -> Path:
    """A path as it was given; an empty one, as of an unset variable, raises `UsageError` naming ``what``."""
    if not text:
        raise UsageError("it is empty", item=what, hint="is a variable unset?")
    return expanded(text, what)


def expanded(path: str | Path, what: str) -> Path:
    """The path with ``~`` and ``~name`` replaced by the home folder of that user. Raises `UsageError` naming ``what``
    if there is no such user or home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        name = Path(path).parts[0]
        hint = "write the whole path, or ./~… for a name that begins with ~"
        raise UsageError(f"there is no home folder for {name}", item=what, hint=hint) from error


def output_file(path: Path, what: str) -> Path:
    """The path of a file that is to be replaced as a whole: a regular file, or nothing yet. A link there is not
    followed, for anybody may have put it there, nor replaced: ``/dev/stdout`` is one.

    Raises `UsageError` naming ``what`` if something else is there.
    """
    path = expanded(path, what)
    trouble = "it is a link, and mdl replaces regular files only" if path.is_symlink() else ""
    try:
        staging.refuse_special(path)
    except FileExistsError as error:
        trouble = str(error.strerror)
    except OSError:
        return path  # whoever writes it tells why that cannot be
    if trouble:
        raise UsageError(f"{path}: {trouble}", item=what, hint="name a regular file, or a new one")
    return path
