"""lock: what the catalog's models are resolved to, written down, checked, moved on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from mdl.cli.command import command
from mdl.cli.flags import LockSettings
from mdl.cli.session import Session
from mdl.describe import ended_by
from mdl.reports import LockReport


@dataclass(frozen=True)
class LockFlags:
    """What is done with the lock."""

    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; exit with 8 and list the changes if it is out of date."),
    ] = False
    upgrade: Annotated[
        list[str] | None, typer.Option("--upgrade", metavar="NAME", help="Resolve this model anew, repeatable.")
    ] = None


def register(app: typer.Typer) -> None:
    command(app, "lock")(lock)


def lock(
    session: Session,
    locking: LockFlags,
    settings: LockSettings,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Models and groups to lock; all without one.")
    ] = None,
) -> int:
    """Resolve models to commits, files, sizes and digests, and write them to mdl.lock beside the catalog."""
    client = session.client(settings)
    session.empty = {"path": str(client.workspace.lock_path)}
    with session.console.watch() as on_event:
        report = client.lock(names or None, check=locking.check, upgrade=locking.upgrade or (), on_event=on_event)
        if report.error:
            on_event(ended_by(report.error))
    error = report.error
    for one in report.failures.values() if len(report.failures) > 1 else ():
        session.console.error(one)
    if error:
        session.console.error(error)
    facts = {"path": report.path, "changes": report.changes, "models": [vars(row) for row in report.models]}
    return session.show(facts, lambda: _tell(session, report), error=error)


def _tell(session: Session, report: LockReport) -> None:
    for line in report.changes:
        session.console.note(line)
    for row in report.models:
        if row.without_digest:
            what = "1 file has" if row.without_digest == 1 else f"{row.without_digest} files have"
            session.console.note(f"{row.name}: {what} no published digest; the first 'mdl get' records what came")
    session.console.data(str(report.path))
