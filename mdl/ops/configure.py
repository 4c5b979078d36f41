"""configure: the settings in effect, each with where it comes from; and ``config.toml`` with one of them changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mdl.config import places
from mdl.config.settings import Config, Setting, check_config, read_text, setting_named, settings_table
from mdl.errors import MdlError, Unsafe, UsageError
from mdl.ops.edit_toml import edit_file, with_key, without_key
from mdl.values import value_class

_HUB_OFFLINE = "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE"


@value_class
class SettingValue:
    """One setting in effect: its ``value`` as a person writes it (several for a list; None if there is none), where it
    is from (``source``: a flag, a variable, ``config.toml`` or the default), and the ``error`` if it is wrong."""

    name: str
    value: str | Sequence[str] | None
    source: str
    error: MdlError | None = None


def effective(config: Config, catalogs: Callable[[], tuple[Iterable[Path], str]]) -> list[SettingValue]:
    """Every setting of ``config``; ``catalogs`` finds the catalog files, and why these."""
    settings = []
    for name in settings_table():
        try:
            value, where = _in_effect(config, name, catalogs)
        except MdlError as error:
            given, place = next(config.given_as(name), (None, ""))
            settings.append(SettingValue(name, str(given), place, error))
            continue
        source = where
        if not where:
            source = "the default"
        elif where.startswith("["):  # a table of that file
            source = "config.toml"
        settings.append(SettingValue(name, _written(value), source))
    return settings


def _in_effect(config: Config, name: str, catalogs: Callable[[], tuple[Iterable[Path], str]]) -> tuple[Any, str]:
    """The value of one setting, as its user gave it, and where it is from: '' for the default. Raises `MdlError` if it
    is wrong."""
    value, where = config.find(name)
    setting = settings_table()[name]
    match name:
        case "home":
            return config.home.path, where or config.home.why
        case "catalog":
            return catalogs()
        case "log_file" if not where:
            return _default_log(value)
        case "offline" if config.is_offline and not value:
            return True, _HUB_OFFLINE
    if not where:
        return setting.default, ""
    if setting.adds_up:
        return value, where
    given, _ = next(config.given_as(name))
    return given, where


def _default_log(value: Any) -> tuple[Any, str]:
    from mdl.jobs.log import DOWNLOADS

    try:
        return places.state_dir() / DOWNLOADS, "the user state folder"
    except UsageError:  # a user without a home folder has no log
        return value, ""


def _written(value: Any) -> str | Sequence[str] | None:
    """The value as a person writes it."""
    match value:
        case None | str():
            return value
        case bool():
            return str(value).lower()
        case Iterable():
            return [str(part) for part in value]
    return str(value)


def set_value(path: Path, name: str, values: Sequence[str]) -> None:
    """Write one setting into the ``config.toml`` at ``path``, which may not exist yet. Raises `UsageError` for an
    unknown setting and for a wrong value, `Unsafe` if the file is a link out of its folder, `Busy`, `OSError`."""
    setting = _kept_setting(name)
    value = _kept(setting, values)
    table, key = setting.key
    _change(path, partial(with_key, table=table, key=key, value=value))


def unset(path: Path, name: str) -> None:
    """Take one setting out of the ``config.toml`` at ``path``. Raises as `set_value`."""
    table, key = _kept_setting(name).key
    _change(path, partial(without_key, table=table, key=key))


def _kept_setting(name: str) -> Setting:
    """The setting of that name, if it may stand in ``config.toml``. Raises `UsageError`."""
    setting = setting_named(name)
    if setting.of_a_run:
        hint = f"give it as {setting.flag_name}, or as {setting.variable_name}"
        raise UsageError("belongs to one run, and is not kept in config.toml", item=name, hint=hint)
    return setting


def _kept(setting: Setting, values: Sequence[str]) -> Any:
    """The value as ``config.toml`` is to have it. Raises `UsageError`."""
    if setting.default == ():
        parts = setting.parse(values[0] if len(values) == 1 else values, setting.name)
        return [_independent(part) for part in parts]
    if len(values) != 1:
        raise UsageError(f"takes one value, not {len(values)}", item=setting.name)
    value = setting.parse(values[0], setting.name)
    if isinstance(value, Path):
        return _independent(value)
    if isinstance(value, int) and values[0].isdigit():
        return value
    return values[0]


def _independent(value: Any) -> Any:
    """The value; a path made absolute, for a relative one would mean another folder in each folder."""
    if isinstance(value, Path):
        return str(value.absolute())
    return value


def _change(path: Path, change: Callable[[str], str]) -> None:
    """Change the text of ``config.toml``; what comes of it is checked before it is written."""
    place = Path(os.path.realpath(path))
    if path.is_symlink() and place.parent != Path(os.path.realpath(path.parent)):
        hint = "edit that file itself, or replace the link by a file"
        raise Unsafe(f"refused: it is a link to {place}, out of its folder", item=str(path), hint=hint)

    def checked(text: str | None) -> str:
        text = text or ""
        try:
            changed = change(text)
        except (TypeError, AttributeError, ValueError):
            check_config(path, text)  # tells what is wrong with the file as it is
            raise
        check_config(path, changed)
        return changed

    edit_file(path, partial(read_text, path), checked, mode=0o600)
