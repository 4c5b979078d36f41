"""outdated and update: what has moved at its source since it was fetched or locked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mdl.cli.command import command
from mdl.cli.flags import LookSettings, flag
from mdl.cli.session import Session
from mdl.formatting import human_bytes
from mdl.paths import shown

if TYPE_CHECKING:
    from mdl import ModelVersion, OutdatedReport


@command(
    "outdated",
    examples=(
        "mdl outdated  # everything that is here or locked",
        "mdl outdated bert-fa --beyond-pins  # also past the commit that the catalog names",
    ),
)
def outdated(
    session: Session,
    settings: LookSettings,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Models and groups; all that is here without one.")
    ] = None,
    beyond_pins: Annotated[
        bool, flag("--beyond-pins", "Compare a pinned commit with the newest one of its repository.", panel="What")
    ] = False,
) -> int:
    """Show which models have moved at their source, and what an update would fetch. Nothing is written."""
    client = session.client(settings)
    with session.console.watch() as on_event:
        report = client.outdated(names or None, beyond_pins=beyond_pins, on_event=on_event)
        if error := report.error:
            on_event.end_with(error)
    if error:
        session.console.error(error)
    rows = [vars(one) | {"changes": [vars(change) for change in one.changes]} for one in report.models]
    moved = [one for one in report.models if one.state == "outdated"]
    facts = {"models": rows, "bytes_to_fetch": sum(one.bytes_to_fetch for one in moved)}
    return session.show(facts, lambda: _show_outdated(session, report, moved), error=error)


def _show_outdated(session: Session, report: OutdatedReport, moved: list[ModelVersion]) -> None:
    console, total = session.console, len(report.models)
    if not total:
        console.note("nothing is here, and nothing is locked")
        return
    rows = [(one.name, _short(one.here), _short(one.locked), _newest(one), _told(one)) for one in report.models]
    console.table(("NAME", "HERE", "LOCKED", "NEWEST", "UPDATE"), rows)
    if moved:
        names = " ".join(one.name for one in moved)
        to_fetch = human_bytes(sum(one.bytes_to_fetch for one in moved))
        console.note(f"{len(moved)} of {total} can be updated, {to_fetch} to fetch: mdl update {names}")
    else:
        console.note(f"nothing to update among {total} {'model' if total == 1 else 'models'}")


def _short(commits: tuple[str, ...]) -> str:
    return ",".join(commit[:7] for commit in commits) or "-"


def _newest(one: ModelVersion) -> str:
    return f"{_short(one.newest)} {(one.newest_at or '')[:10]}".rstrip()


def _told(one: ModelVersion) -> str:
    """What there is to bring, in words."""
    edited = sum(change.change in ("edited", "unread") for change in one.changes)
    several = "" if one.files == 1 else "s"
    what = f"{len(one.changes)} of {one.files} file{several}, {human_bytes(one.bytes_to_fetch)}"
    match one.state:
        case "failed":
            return f"not known: {shown(one.error.message)}" if one.error else "not known"
        case "unknown":
            return "not known: it was imported or trained"
        case "missing":
            return f"not here: {what}"
        case "pinned" if one.changes:
            return f"pinned; {what} newer"
        case "pinned":
            return "pinned"
    if not one.changes:
        return "up to date" if one.state == "current" else "the same bytes; the lock is older"
    return what + (f", {edited} edited here" if edited else "")
