"""config: the settings in effect and where they are from, and config.toml changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import mdl
from mdl import MdlError, UsageError
from mdl.cli.command import command
from mdl.cli.flags import LookSettings, argument
from mdl.cli.session import Session
from mdl.config import places
from mdl.config.settings import Config, setting_named
from mdl.redact import redact

if TYPE_CHECKING:
    from mdl import Client, SettingValue

Key = Annotated[str, argument("KEY", "A setting, as 'mdl config' lists them: home, stores.also.")]
Values = Annotated[list[str], argument("VALUE", "The new value; several for a list.")]


@command(
    "config",
    "mdl config  # every setting, and where catalog, models and state are",
    "mdl config get home  # one value, for a script",
    "mdl config set limit_rate '08:00,2M 22:00,off'  # write it into config.toml",
    checks_config=True,
    group_help="Show the settings in effect and where each is from, and change config.toml, which keeps them.",
)
@command(
    "config list",
    "mdl config list --json  # the same for a program",
    "mdl config list --layout hf-cache  # the settings with this flag",
    checks_config=True,
)
def list_settings(session: Session, settings: LookSettings) -> int:
    """Show every setting, its value and where it is from; then the places, the hub, and whose token it gets."""
    broken_file = session.without_broken_file()
    client = session.client(settings, checked=False)
    values = client.settings()
    errors = [broken_file] if broken_file else []
    errors += [value.error for value in values if value.error]
    places = list(_places(client, errors))
    hub = _hub(client, errors)

    def show() -> None:
        rows = [(value.name, _text(value), value.source) for value in values]
        session.console.table(("SETTING", "VALUE", "FROM"), rows)
        session.console.data("")
        table = []
        for place in places:
            is_missing = "" if place["exists"] else " (does not exist)"
            table.append((place["what"], place["path"] + is_missing, place["why"]))
        table.append(("hub", hub["endpoint"], hub["endpoint_from"]))
        table.append(("token", hub["token_from"], ""))
        session.console.table(("WHAT", "WHERE", "WHY"), table)

    facts = {"settings": [_facts(value) for value in values], "places": places, "hub": hub}
    return session.show(facts, show, error=session.errors(errors))


@command(
    "config get",
    'cd "$(mdl config get home)"  # go to the models folder',
    "mdl config get stores.also  # a list has one value per line",
    checks_config=True,
)
def get_setting(session: Session, key: Key, settings: LookSettings) -> int:
    """Print the value of one setting, and nothing else; a list has one value per line."""
    setting_named(key)
    broken_file = session.without_broken_file()
    setting = _setting(session.client(settings, checked=False), key)
    if error := broken_file or setting.error:
        raise error
    values: Sequence[str] = setting.value or ""
    if isinstance(values, str):
        values = [values]

    def show() -> None:
        for value in values:
            session.console.data(str(value))

    return session.show({"settings": [_facts(setting) | {"value": setting.value}]}, show)


@command(
    "config set",
    "mdl config set connections 8  # at most 8 connections, from now on",
    "mdl config set stores.also /srv/comfyui/models /srv/ollama  # a list",
    checks_config=True,
)
def set_setting(session: Session, key: Key, values: Values) -> int:
    """Write one setting into config.toml; comments stay."""
    return _change(session, key, values)


@command(
    "config unset",
    "mdl config unset connections  # back to the default",
    "mdl config unset hooks.on_complete  # no hook any more",
    checks_config=True,
)
def unset_setting(session: Session, key: Key) -> int:
    """Remove one setting from config.toml."""
    return _change(session, key, None)


def _change(session: Session, key: str, values: list[str] | None) -> int:
    path = session.client().configure(key, values)
    config = Config(environ=session.environ, flags=True)  # reads the file as it is now
    setting = _setting(mdl.Client(config=config, on_warning=session.console.warn), key)
    if setting.source == setting_named(key).variable_name:
        session.console.warn(f"{setting.source} has precedence: {key} stays {_text(setting)}")
    return session.show({"settings": [_facts(setting)]}, lambda: session.console.data(str(path)))


def _setting(client: Client, key: str) -> SettingValue:
    [setting] = [setting for setting in client.settings() if setting.name == key]
    return setting


@command(
    "config path",
    'nano "$(mdl config path)"  # edit all of it',
    "mdl config path --json  # and whether it exists",
    checks_config=True,
)
def config_path(session: Session) -> int:
    """Print the path of config.toml, and nothing else; the file need not exist."""
    place = _settings_file()
    return session.show({"places": [place]}, lambda: session.console.data(place["path"]))


_Place = dict[str, Any]


def _settings_file() -> _Place:
    return _place("settings", places.config_file(), "the user config folder")


def _place(what: str, path: Path, why: str) -> _Place:
    return {"what": what, "path": str(path), "exists": os.path.exists(path), "why": why}


def _places(client: Client, errors: list[MdlError]) -> Iterator[_Place]:
    """The files and folders in use. One that cannot be found for another reason than a user without a home folder is
    an error more."""

    def catalogs() -> list[_Place]:
        paths, why = client.catalogs.found
        beside = "the user config folder" if client.catalogs.is_shipped else "beside the catalog"
        return [
            *(_place("catalog", Path(path), why) for path in paths),
            _place("lock", client.catalogs.lock_path, beside),
        ]

    finders: tuple[Callable[[], list[_Place]], ...] = (
        lambda: [_settings_file()],
        catalogs,
        lambda: [_place("state", places.state_dir(), "the user state folder")],
        lambda: [_place("models", client.config.home.path, client.config.home.why)],
        lambda: [_place("hub cache", places.hub_cache(client.config.environ), "Hugging Face's own")],
    )
    for find in finders:
        try:
            yield from find()
        except UsageError:
            pass
        except MdlError as error:
            errors.append(error)


def _hub(client: Client, errors: list[MdlError]) -> dict[str, str]:
    """The hub, and which variable or file has its token; never the token."""
    try:
        endpoint = client.network.endpoint
    except MdlError as error:
        errors.append(error)
        return {"endpoint": "", "endpoint_from": "HF_ENDPOINT", "token_from": "-"}
    if endpoint.problem:
        errors.append(endpoint.problem)
    source = "HF_ENDPOINT" if client.config.environ.get("HF_ENDPOINT") else "the default"
    return {"endpoint": endpoint.url, "endpoint_from": source, "token_from": endpoint.token_from}


def _facts(setting: SettingValue) -> dict[str, Any]:
    """A setting in a document. The command of a hook may hold a secret; only who asks for that one setting gets it."""
    value = setting.value
    if isinstance(value, str):
        value = redact(value)
    elif value is not None:
        value = [redact(part) for part in value]
    return {"name": setting.name, "value": value, "source": setting.source}


def _text(setting: SettingValue) -> str:
    """The value of a setting in a table."""
    value = _facts(setting)["value"]
    if not value:
        return "-"
    return value if isinstance(value, str) else ", ".join(value)
