"""Where settings, catalog, state and models are, and why. Every place is found here and nowhere else."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import platformdirs

from mdl.errors import UsageError

DEFAULTS = ("home", "connections", "progress", "retries", "stall", "lock_wait", "limit_rate", "via", "allow_hosts")
"""The keys of ``[defaults]`` in config.toml."""


@dataclass(frozen=True)
class Place:
    path: Path
    why: str


def _needs_home(folder: str) -> Path:
    if folder.startswith("~") or not Path(folder).is_absolute():
        raise UsageError(
            "this user has no home folder", hint="set HOME, or name a folder with --to, MDL_HOME or XDG_CONFIG_HOME"
        )
    return Path(folder)


def config_dir() -> Path:
    return _needs_home(platformdirs.user_config_dir("mdl"))


def state_dir() -> Path:
    return _needs_home(platformdirs.user_state_dir("mdl"))


def config_file() -> Path:
    return config_dir() / "config.toml"


def read_config() -> dict[str, Any]:
    """``config.toml``, checked; an empty one where there is none. Raises `UsageError`."""
    try:
        path = config_file()
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UsageError):
        return {}
    except OSError as error:
        raise UsageError(f"unreadable: {error.strerror}", item=str(config_file())) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not TOML: {error}", item=str(path)) from error
    for key in data:
        if key not in ("defaults", "remotes", "hooks", "stores") and not key.startswith("x-"):
            raise UsageError(f"unknown table [{key}]", item=str(path), hint=_near(key, ("defaults", "remotes")))
    defaults = data.get("defaults", {})
    if not isinstance(defaults, dict):
        raise UsageError("[defaults] is not a table", item=str(path))
    for key in defaults:
        if key not in DEFAULTS and not key.startswith("x-"):
            raise UsageError(f"unknown key {key!r} in [defaults]", item=str(path), hint=_near(key, DEFAULTS))
    hosts = defaults.get("allow_hosts", [])
    if not isinstance(defaults.get("home", ""), str):
        raise UsageError("[defaults] home is not text", item=str(path))
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise UsageError("[defaults] allow_hosts is not a list of texts", item=str(path))
    return data


def _near(word: str, words: tuple[str, ...]) -> str:
    near = get_close_matches(word, words, 1)
    return f"did you mean {near[0]}?" if near else f"there is {', '.join(words)}"


def models_home(to: Path | None, environ: Mapping[str, str], defaults: Mapping[str, Any]) -> Place:
    """The models folder: ``--to``, ``MDL_HOME``, ``[defaults] home``, the user data folder."""
    if to is not None:
        return Place(to.expanduser().absolute(), "given by --to")
    if environ.get("MDL_HOME"):
        return Place(Path(environ["MDL_HOME"]).expanduser().absolute(), "given by MDL_HOME")
    if defaults.get("home"):
        return Place(Path(str(defaults["home"])).expanduser().absolute(), f"[defaults] home in {config_file()}")
    return Place(_needs_home(platformdirs.user_data_dir("mdl")) / "models", "the user data folder")


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
    return Path(text).expanduser()
