"""doctor and schema: this machine, and what mdl prints."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

from mdl import MdlError, NotFound, UsageError, schemas
from mdl.cli import completion
from mdl.cli.command import command
from mdl.cli.flags import DoctorSettings, argument
from mdl.cli.session import Session
from mdl.config import places
from mdl.errors import joint_error
from mdl.formatting import counted

if TYPE_CHECKING:  # `schema` needs nothing of these
    from mdl import Client


@command(
    "doctor",
    "mdl doctor  # what works here, and what to do about the rest",
    "mdl doctor --offline  # without asking any server",
    checks_config=True,
)
def doctor(session: Session, settings: DoctorSettings) -> int:
    """Check what works here, and say what to do about the rest: endpoint, proxy, CA, token, clock, disk, versions."""
    from mdl.doctor import Environment, run_checks

    settings["stall"] = settings.get("stall") or "10s"
    trouble = session.without_broken_file()
    client = session.client(settings, checked=False)
    console = session.console
    environment = Environment(
        settings=lambda: _settings(client, trouble),
        catalog=lambda: _catalog(client),
        lock=lambda: _lock(client),
        home=lambda: client.config.home.path,
        state=places.state_dir,
        endpoint=lambda: client.network.endpoint,
        connect=None if _is_offline(client) else client.network.http,
        credentials=lambda: client.network.credentials.values(),
    )
    errors: list[MdlError] = []
    checks: list[dict[str, object]] = []
    session.empty = {"checks": checks}
    for result in run_checks(environment):
        checks.append({"name": result.name, "ok": result.ok, "detail": result.detail, "advice": result.advice or None})
        first, *lines = f"{result.name}: {result.detail}".split("\n")
        console.entry("ok    " if result.ok else "FAIL  ", console.clean(first))
        if not result.ok:
            errors.append(result.error())
            lines.append(result.advice)
        for line in filter(None, lines):
            console.entry("      ", console.clean(line))
    problem = joint_error(errors)
    if problem and console.is_machine_readable:
        console.error(problem)
    return session.show({"checks": checks}, error=problem)


def _settings(client: Client, trouble: MdlError | None) -> str:
    """Raises `MdlError` for whatever is wrong with ``config.toml``, which is the ``trouble``, or with a setting."""
    if problem := trouble or joint_error([one.error for one in client.settings() if one.error]):
        raise problem
    try:
        path = places.config_file()
    except UsageError as error:
        return f"none: {error.message}"
    return str(path) if path.exists() else f"{path} (not there)"


def _is_offline(client: Client) -> bool:
    """Whether nothing is to be contacted; not if that setting is wrong, which is told."""
    try:
        return client.config.is_offline
    except UsageError:
        return False


def _catalog(client: Client) -> str:
    paths, why = client.catalogs.found
    return f"{counted(len(client.catalog.models), 'model')} in {', '.join(map(str, paths))} ({why})"


def _lock(client: Client) -> str:
    lock = client.catalogs.locked
    if lock is None:
        return "none; 'mdl lock' writes one"
    return f"{counted(len(lock.models), 'model')} in {client.catalogs.lock_path}"


@command(
    "schema",
    "mdl schema  # the names of all",
    "mdl schema get > get.schema.json  # that of one command",
    "mdl schema event  # one line of --progress json",
)
def schema(
    session: Session,
    name: Annotated[
        str | None,
        argument("NAME", "A command, or event; without one, the names of all.", autocompletion=completion.schema_names),
    ] = None,
) -> int:
    """The JSON Schema of what a command prints with --json, or of one line of --progress json (event).

    A later release may add keys, and changes the meaning of none. With --json the schema is the document's
    "definition", beside the "names" of all.
    """
    names = schemas.names()
    if name is not None and name not in names:
        near = get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else "'mdl schema' lists them"
        raise NotFound("there is no schema of this name", item=name, hint=hint)
    definition = None if name is None else schemas.schema(name)

    def show() -> None:
        for line in names if definition is None else json.dumps(definition, indent=2).split("\n"):
            session.console.data(line)

    return session.show({"names": list(names), "definition": definition}, show)
