"""clean: what can go from the disk: shown first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from mdl.cli.command import command
from mdl.cli.flags import LookSettings
from mdl.cli.session import Session
from mdl.formatting import human_bytes

if TYPE_CHECKING:
    from mdl.operations.clean import Waste


def register(app: typer.Typer) -> None:
    command(app, "clean")(clean)


def clean(session: Session, settings: LookSettings) -> int:
    """Unfinished downloads no job goes on with, files a model no longer has, leftovers: shown; removed with --yes."""
    is_asked, client = session.common.yes, session.client(settings)
    rows = [_facts(waste, is_removed, is_asked) for waste, is_removed in client.clean(remove=is_asked)]
    facts = {"items": rows, "bytes": sum(row["bytes"] for row in rows if row["action"] != "kept")}
    return session.show(facts, lambda: _tell(session, rows, facts["bytes"]))


def _facts(waste: Waste, is_removed: bool, is_asked: bool) -> dict[str, Any]:
    action = "deleted" if is_removed else "kept" if waste.kept or is_asked else "would delete"
    why = f"{waste.why}: {waste.kept}" if waste.kept else waste.why
    return {"kind": waste.kind, "path": str(waste.paths[0]), "bytes": waste.bytes, "why": why, "action": action}


def _tell(session: Session, rows: list[dict[str, Any]], going: Any) -> None:
    if not rows:
        session.console.note("nothing to clean")
        return
    table = [(row["action"], row["kind"], human_bytes(row["bytes"]), row["path"], row["why"]) for row in rows]
    session.console.table(("ACTION", "WHAT", "SIZE", "PATH", "WHY"), table)
    what = "freed" if session.common.yes else "would be freed; with --yes it is"
    session.console.note(f"{human_bytes(going)} {what}")
