"""outdated and update: what has moved at its source since it was fetched or locked."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Annotated

from mdl import Settings
from mdl.cli.command import command
from mdl.cli.flags import DOWNLOAD, DryRun, Force, JobFlags, LookSettings, Where, argument, flag
from mdl.cli.get import begin, method_of, run_job, show, show_plan
from mdl.cli.session import Session
from mdl.errors import LockError
from mdl.formatting import counted, human_bytes
from mdl.paths import shown

if TYPE_CHECKING:
    from mdl import ModelVersion, Move, OutdatedReport

UpdateSettings = Annotated[Settings, tuple(name for name in DOWNLOAD if name not in ("locked", "frozen"))]


@command(
    "outdated",
    "mdl outdated  # everything that is here or locked",
    "mdl outdated bert-fa --beyond-pins  # past the commit that the catalog names",
)
def outdated(
    session: Session,
    settings: LookSettings,
    names: Annotated[
        list[str] | None,
        argument("NAME", "Models and groups; without one, all that is here or locked."),
    ] = None,
    beyond_pins: Annotated[
        bool, flag("--beyond-pins", "Compare a pinned commit with the newest one of its repository.")
    ] = False,
    exit_code: Annotated[bool, flag("--exit-code", "Exit code 8 if anything moved at its source.")] = False,
) -> int:
    """Show which models have moved at their source, and what an update would fetch. Nothing is written."""
    client = session.client(settings)
    with session.console.watch() as on_event:
        report = client.outdated(names or None, beyond_pins=beyond_pins, on_event=on_event)
        on_event.end_with(report.error)
    moved = [one for one in report.models if one.state == "outdated"]
    error = report.error
    count = sum(one.has_moved for one in report.models)
    if exit_code and count and not error:
        hint = "'mdl update' brings it; 'mdl lock --upgrade NAME' puts it into the lock"
        error = LockError(f"{counted(count, 'model')} moved at the source", hint=hint)
    if error:
        session.console.error(error)
    facts = {"models": report.models, "bytes_to_fetch": sum(one.bytes_to_fetch for one in moved)}
    return session.show(facts, lambda: _show_outdated(session, report, moved, is_all=not names), error=error)


def _show_outdated(session: Session, report: OutdatedReport, moved: list[ModelVersion], *, is_all: bool) -> None:
    console = session.console
    total = len(report.models)
    if not total:
        console.note("nothing is here, and nothing is locked")
        return
    told = [one for one in report.models if one.state != "unknown" or not is_all]
    rows = [
        (
            one.name,
            _short(one.here),
            _short(one.locked),
            f"{_short(one.newest)} {(one.newest_at or '')[:10]}",
            _told(one),
        )
        for one in told
    ]
    if rows:
        console.table(("NAME", "HERE", "LOCKED", "NEWEST", "UPDATE"), rows)
    if len(told) < total:
        count = f"{total - len(told)} more {'was' if total - len(told) == 1 else 'were'}"
        console.note(f"{count} imported or trained: nothing says where to look for news")
    if moved:
        names = " ".join(one.name for one in moved)
        to_fetch = human_bytes(sum(one.bytes_to_fetch for one in moved))
        console.note(f"{len(moved)} of {total} can be updated, {to_fetch} to fetch: mdl update {names}")
    else:
        console.note(f"nothing to update among {counted(total, 'model')}")


def _short(commits: tuple[str, ...]) -> str:
    return ",".join(commit[:7] for commit in commits) or "-"


def _amount(changed: int, files: int, size: int) -> str:
    return f"{changed} of {counted(files, 'file')}, {human_bytes(size)}"


def _told(one: ModelVersion) -> str:
    """What there is to bring, in words."""
    kinds: Counter[str] = Counter(change.change for change in one.changes)
    what = _amount(len(one.changes), one.files or 0, one.bytes_to_fetch)
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
    told = {"edited": "edited here", "unread": "put here by another program, and not read"}
    return what + "".join(f", {kinds[kind]} {words}" for kind, words in told.items() if kinds[kind])


@command(
    "update",
    "mdl update bert-fa  # update it, and its lock if there is one",
    "mdl update -n nightly  # show what would be fetched for a group",
)
def update(
    session: Session,
    names: Annotated[list[str], argument("NAME", "Models and groups to update.")],
    where: Where,
    settings: UpdateSettings,
    job: JobFlags,
    dry_run: DryRun = False,
    force: Force = False,
) -> int:
    """Update models to their newest version: they are locked again, then what changed is fetched."""
    client = session.client(settings)
    models = client.updatable(names, into=where.into)
    folders = begin(session, client, models, where.into)
    method = method_of(client, models)
    if dry_run:
        return show_plan(session, partial(client.plan_update, models, **where.files, force=force), method)
    work = partial(client.update, models, **where.files, force=force)
    report = run_job(session, models, folders, job, where.globs, method, work)
    if report is None:
        return 0
    places = {model.name: client.catalogs.place_of(model) for model in models}
    for move in report.moves:
        arrow = "→" if session.console.stderr.is_unicode else "->"
        session.console.note(_moved(move, places[move.name], arrow))
    return show(session, report, moves=report.moves)


def _moved(move: Move, place: str, arrow: str) -> str:
    """What became of one model, in words. ``place`` is that of its entry; ``arrow`` is one that can be shown."""
    before = _short(move.before)
    after = _short(move.after)
    amount = _amount(move.files_changed, move.files, move.bytes)
    if move.pinned:
        what = f"pinned to {after}; to move it, change 'revision'" if move.after else "pinned; to move it, change it"
        text = f"{what} in {place or 'the reference that it is fetched by'}"
    elif not move.files_changed:
        return f"{move.name}: up to date{f' at {after}' if move.after else ''}"
    elif move.before and before != after:
        text = f"{before} {arrow} {after}"
    else:
        text = after if move.after else ""
    return f"{move.name}: " + ", ".join(filter(None, (text, amount if move.files_changed else "")))
