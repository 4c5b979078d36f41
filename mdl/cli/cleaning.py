"""clean: what can go from the disk: shown first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from mdl.cli import places
from mdl.cli.command import command
from mdl.cli.flags import Home, Locking
from mdl.cli.session import Session
from mdl.console.humans import human_bytes
from mdl.engine.receipts import file_key
from mdl.engine.store import Store
from mdl.errors import MdlError, UsageError
from mdl.files import RemoteFile
from mdl.jobs.records import Records
from mdl.operations.clean import Waste, find_waste, remove


def register(app: typer.Typer) -> None:
    command(app, "clean")(clean)


def clean(
    session: Session,
    home: Home = Home(),  # noqa: B008 - frozen
) -> int:
    """Unfinished downloads nobody goes on with, files a model no longer has, leftovers: shown; removed with --yes."""
    with suppress(MdlError):
        session.use_catalog()
    store = session.store(home)
    known = _known(session, store)
    rows = []
    for waste in find_waste(store, known, _wanted(known)):
        is_removed = session.common.yes and not waste.kept and remove(waste)
        rows.append(_facts(waste, "deleted" if is_removed else "kept" if waste.kept or session.common.yes else ""))
    if session.common.json:
        facts = {"items": rows, "bytes": sum(row["bytes"] for row in rows if row["action"] != "kept")}
        session.console.document("clean", facts, ok=True, exit_code=0)
        return 0
    return _tell(session, rows)


def _tell(session: Session, rows: list[dict[str, Any]]) -> int:
    if not rows:
        session.console.note("nothing to clean")
        return 0
    table = [(row["action"], row["kind"], human_bytes(row["bytes"]), row["path"], row["why"]) for row in rows]
    session.console.table(("ACTION", "WHAT", "SIZE", "PATH", "WHY"), table)
    going = sum(row["bytes"] for row in rows if row["action"] != "kept")
    what = "freed" if session.common.yes else "would be freed; with --yes it is"
    session.console.note(f"{human_bytes(going)} {what}")
    return 0


def _facts(waste: Waste, done: str) -> dict[str, Any]:
    action = done or "would delete"
    why = f"{waste.why}: {waste.kept}" if waste.kept else waste.why
    return {"kind": waste.kind, "path": str(waste.paths[0]), "bytes": waste.bytes, "why": why, "action": action}


def _known(session: Session, store: Store) -> Callable[[str], Sequence[RemoteFile] | None]:
    """By the catalog, the lock and the kept listings, without asking anybody. What cannot be read tells nothing."""

    def known(name: str) -> Sequence[RemoteFile] | None:
        try:
            model = session.catalog.models.get(name)
            return session.sources(store, locking=Locking()).known(model) if model else None
        except MdlError:
            return None

    return known


def _wanted(known: Callable[[str], Sequence[RemoteFile] | None]) -> Callable[[Path], bool]:
    """Whether a job that runs or is paused may want a partial: by its models, or any where those are not known."""
    try:
        jobs = Records(places.state_dir() / "jobs").all()
    except UsageError:
        jobs = []
    models = {model for job in jobs if job.status in ("running", "paused") for model in job.models}
    files = {model: known(model) for model in models}
    keys = {file_key(model, file.path) for model, found in files.items() for file in found or ()}
    is_open = None in files.values()
    return lambda folder: is_open or folder.name.partition(".")[0] in keys
