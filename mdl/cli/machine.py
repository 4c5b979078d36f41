"""doctor, clean, demo and schema: this machine and mdl itself."""

from __future__ import annotations

import json
import tempfile
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdl import MdlError, NotFound, Occupied, StorageError, UsageError, places, schemas
from mdl.cli.command import command
from mdl.cli.flags import DoctorSettings, LookSettings, flag
from mdl.cli.session import Session
from mdl.errors import joint_error
from mdl.formatting import human_bytes

if TYPE_CHECKING:  # `schema` needs nothing of these
    from mdl import Client, Waste

_STDERR = 2


@command("doctor", checks_config=True)
def doctor(session: Session, settings: DoctorSettings) -> int:
    """What works here, and what to do about what does not: endpoint, proxy, CA, token, clock, disk, versions."""
    from mdl.doctor import Environment, run_checks

    settings["stall"] = settings.get("stall") or "10s"
    trouble = session.without_broken_file()
    client, console = session.client(settings, checked=False), session.console
    environment = Environment(
        settings=lambda: _settings(client, trouble),
        catalog=lambda: _catalog(client),
        lock=lambda: _lock(client),
        home=lambda: client.workspace.config.home.path,
        state=places.state_dir,
        endpoint=lambda: client.workspace.endpoint,
        connect=None if _is_offline(client) else client.workspace.http,
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


def _settings(client: Client, trouble: MdlError | None) -> str:
    """Raises `MdlError` for whatever is wrong with ``config.toml``, which is the ``trouble``, or with a setting."""
    if problem := trouble or joint_error([one.error for one in client.settings() if one.error]):
        raise problem
    return str(places.config_file())


def _is_offline(client: Client) -> bool:
    """Whether nothing is to be contacted; not if that setting is wrong, which is told."""
    try:
        return client.workspace.config.is_offline
    except UsageError:
        return False


def _catalog(client: Client) -> str:
    paths, why = client.workspace.catalog_paths
    return f"{len(client.catalog.models)} models in {', '.join(map(str, paths))} ({why})"


def _lock(client: Client) -> str:
    lock = client.workspace.locked
    if lock is None:
        return "none; 'mdl lock' writes one"
    return f"{len(lock.models)} models in {client.workspace.lock_path}"


@command("clean")
def clean(session: Session, settings: LookSettings) -> int:
    """Show unfinished downloads that no job continues, files that a model no longer has, and leftovers; --yes removes
    them."""
    is_asked, console = session.common.yes, session.console
    rows = [
        _waste(waste, is_removed, is_asked) for waste, is_removed in session.client(settings).clean(remove=is_asked)
    ]
    total = sum(row["bytes"] for row in rows if row["action"] != "kept")

    def show() -> None:
        if not rows:
            console.note("nothing to clean")
            return
        table = [(row["action"], row["kind"], human_bytes(row["bytes"]), row["path"], row["why"]) for row in rows]
        console.table(("ACTION", "WHAT", "SIZE", "PATH", "WHY"), table)
        console.note(f"{human_bytes(total)} {'freed' if is_asked else 'would be freed; with --yes it is'}")

    return session.show({"items": rows, "bytes": total}, show)


def _waste(waste: Waste, is_removed: bool, is_asked: bool) -> dict[str, Any]:
    action = "deleted" if is_removed else "kept" if waste.kept or is_asked else "would delete"
    why = f"{waste.why}: {waste.kept}" if waste.kept else waste.why
    return {"kind": waste.kind, "path": str(waste.path), "bytes": waste.bytes, "why": why, "action": action}


@command("demo")
def demo(
    session: Session,
    folder: Annotated[Path | None, flag("--in DIR", "Where to play; a new temporary folder without it.")] = None,
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


@command("schema")
def schema(
    session: Session,
    name: Annotated[str | None, typer.Argument(help="A command, or event; the names without one.")] = None,
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
