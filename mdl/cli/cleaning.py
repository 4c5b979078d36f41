"""clean: what can go from the disk: shown first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from mdl.clean import Waste, find_waste, remove
from mdl.cli import places
from mdl.cli.command import command
from mdl.cli.flags import Locking, Where
from mdl.cli.session import Session
from mdl.console.humans import human_bytes
from mdl.download.store import Store
from mdl.errors import Cancelled, MdlError, UsageError
from mdl.jobs.records import Records
from mdl.paths import RelPath


def register(app: typer.Typer) -> None:
    command(app, "clean")(clean)


def clean(
    session: Session,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Models folder (MDL_HOME).")] = None,
) -> int:
    """Unfinished downloads nobody goes on with, files a model no longer has, leftovers: shown; removed with --yes."""
    store = session.store(Where(to))
    found = find_waste(store, _known(session, store), _wanted_since())
    rows = []
    for waste in found:
        if session.common.yes and not waste.kept:
            remove(waste)
        rows.append(_facts(waste, is_removed=session.common.yes))
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


def _facts(waste: Waste, *, is_removed: bool) -> dict[str, Any]:
    action = "kept" if waste.kept else "deleted" if is_removed else "would delete"
    why = f"{waste.why}: {waste.kept}" if waste.kept else waste.why
    return {"kind": waste.kind, "path": str(waste.paths[0]), "bytes": waste.bytes, "why": why, "action": action}


def _known(session: Session, store: Store) -> Callable[[str], set[RelPath] | None]:
    """By the catalog, the lock and the kept listings, without asking anybody."""
    sources = session.sources(store, locking=Locking())

    def known(name: str) -> set[RelPath] | None:
        try:
            model = session.catalog.models.get(name)
            files = sources.known(model) if model else None
        except Cancelled:
            raise
        except MdlError:
            return None
        return None if files is None else {file.path for file in files}

    return known


def _wanted_since() -> float | None:
    """When the oldest job began that is paused and may still want its partials."""
    try:
        jobs = Records(places.state_dir() / "jobs").all()
    except UsageError:
        return None
    began = [datetime.fromisoformat(job.started_at).timestamp() for job in jobs if job.status == "paused"]
    return min(began, default=None)
