"""config, doctor, demo and schema: this machine and mdl itself."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdl import MdlError, NotFound, Occupied, StorageError, UsageError, places, schemas
from mdl.cli.command import command
from mdl.cli.flags import DoctorSettings, LookSettings, flag
from mdl.cli.session import Session
from mdl.errors import joint_error

if TYPE_CHECKING:  # `config` and `schema` need nothing of these
    from mdl import Client

_SETTINGS = "the user config folder"
_STDERR = 2


@command(
    "config",
    examples=(
        "mdl config  # where settings, catalog, state and models are",
        'nano "$(mdl config path)"  # edit the settings',
    ),
)
def config(
    session: Session,
    settings: LookSettings,
    what: Annotated[str | None, typer.Argument(metavar="path", help="'path': the settings file, nothing else.")] = None,
) -> int:
    """Where settings, catalog, state and models are, and why."""
    if what not in (None, "path"):
        raise UsageError("config takes 'path' or nothing", item=what)
    rows = [_facts("settings", places.config_file(), _SETTINGS)] if what else _places(session, settings)

    def show() -> None:
        if what:
            session.console.data(rows[0][1])
            return
        table = [(kind, path + ("" if exists else " (not there)"), why) for kind, path, exists, why in rows]
        session.console.table(("WHAT", "WHERE", "WHY"), table)

    keys = ("what", "path", "exists", "why")
    return session.show({"places": [dict(zip(keys, row, strict=True)) for row in rows]}, show)


def _places(session: Session, settings: LookSettings) -> list[tuple[str, str, bool, str]]:
    client = session.client(settings)
    found: list[tuple[str, Path, str]] = []
    with contextlib.suppress(UsageError):
        found.append(("settings", places.config_file(), _SETTINGS))
    paths, why = client.workspace.catalog_paths
    found += [("catalog", Path(path), why) for path in paths]
    with contextlib.suppress(UsageError):
        found.append(("state", places.state_dir(), "the user state folder"))
    found.append(("models", client.workspace.config.home.path, client.workspace.config.home.why))
    return [_facts(*one) for one in found]


def _facts(what: str, path: Path, why: str) -> tuple[str, str, bool, str]:
    return what, str(path), os.path.exists(path), why


@command(
    "doctor",
    examples=(
        "mdl doctor  # what works here, and what to do about the rest",
        "mdl doctor --offline  # without asking any server",
    ),
)
def doctor(session: Session, settings: DoctorSettings) -> int:
    """What works here, and what to do about what does not: endpoint, proxy, CA, token, clock, disk, versions."""
    from mdl.doctor import Environment, run_checks

    settings["stall"] = settings.get("stall") or "10s"
    client, console = session.client(settings), session.console
    environment = Environment(
        catalog=lambda: _catalog(client),
        lock=lambda: _lock(client),
        home=lambda: client.workspace.config.home.path,
        state=places.state_dir,
        endpoint=lambda: client.workspace.endpoint,
        connect=None if client.workspace.config.is_offline else client.workspace.http,
    )
    errors: list[MdlError] = []
    checks: list[dict[str, object]] = []
    session.empty = {"checks": checks}
    for result in run_checks(environment):
        checks.append({"name": result.name, "ok": result.ok, "detail": result.detail, "advice": result.advice or None})
        first, *lines = f"{result.name}: {result.detail}".split("\n")
        console.data(console.clean(f"{'ok  ' if result.ok else 'FAIL'}  {first}"))
        if not result.ok:
            errors.append(result.error())
            lines.append(result.advice)
        for line in filter(None, lines):
            console.data(console.clean(f"      {line}"))
    problem = joint_error(errors)
    if problem and console.is_machine_readable:
        console.error(problem)
    return session.show({"checks": checks}, error=problem)


def _catalog(client: Client) -> str:
    paths, why = client.workspace.catalog_paths
    return f"{len(client.catalog.models)} models in {', '.join(map(str, paths))} ({why})"


def _lock(client: Client) -> str:
    lock = client.workspace.locked
    if lock is None:
        return "none; 'mdl lock' writes one"
    return f"{len(lock.models)} models in {client.workspace.lock_path}"


@command(
    "demo",
    examples=(
        "mdl demo  # in a new temporary folder",
        "mdl demo --in play  # in a folder of yours",
    ),
)
def demo(
    session: Session,
    folder: Annotated[
        Path | None, flag("--in DIR", "Where to play; a new temporary folder without it.", panel="Where")
    ] = None,
) -> int:
    """The whole of mdl on this machine alone: a download killed and resumed, a run packed, released, rolled back."""
    from mdl.demo import Demo

    try:
        folder = folder or Path(tempfile.mkdtemp(prefix="mdl-demo-"))
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Occupied("this folder is not empty", item=str(folder), hint="choose another with --in")
    except OSError as error:
        raise StorageError(error.strerror or str(error), item=str(folder), hint="choose another with --in") from error
    story: list[str] = []

    def say(line: str) -> None:
        story.append(line)
        session.console.data(line)

    code = Demo(folder.absolute(), say, _STDERR if session.common.json else None).play()
    if session.common.json:
        session.console.document("demo", {"path": str(folder), "story": story}, ok=code == 0, exit_code=code)
    return code


@command(
    "schema",
    examples=(
        "mdl schema  # the names of all",
        "mdl schema get > get.schema.json  # that of one command",
        "mdl schema event  # one line of --progress json",
    ),
)
def schema(
    session: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A command, or event; the names without one.")
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
