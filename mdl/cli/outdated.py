"""outdated and update: what has moved at its source since it was fetched or locked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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
    "mdl outdated bert-fa --exit-code  # for a script: 8 if it moved",
)
def outdated(
    session: Session,
    settings: LookSettings,
    names: Annotated[
        list[str] | None,
        argument("NAME", "Models and groups; without one, all that is here or locked."),
    ] = None,
    exit_code: Annotated[bool, flag("--exit-code", "Exit with 8 if anything is newer at its source.")] = False,
) -> int:
    """Show which models have a newer version at their source, and what an update would download. Nothing is written."""
    client = session.client(settings)
    with session.console.watch() as on_event:
        report = client.outdated(names or None, on_event=on_event)
        error = report.error
        count = sum(model.has_moved for model in report.models)
        if exit_code and count and not error:
            hint = "'mdl update NAME' downloads it; 'mdl lock --upgrade NAME' puts it into the lock"
            error = LockError(f"{counted(count, 'model')} moved at the source", hint=hint)
        on_event.end_with(error)
    outdated_models = [model for model in report.models if model.state == "outdated" and not model.is_only_edited]
    to_fetch = sum(model.bytes_to_fetch for model in outdated_models)
    session.labels = report.labels
    if error:
        session.error(error)

    def show_table() -> None:
        total = len(report.models)
        if total == 0:
            session.console.note("nothing is here, and nothing is locked")
            return
        _show_outdated(session, report, is_all=not names)
        unknown = sum(model.state == "unknown" for model in report.models)
        known = total - unknown
        if unknown:
            verb = "was" if unknown == 1 else "were"
            imported = f"{counted(unknown, 'model')} {verb} imported or trained"
            session.console.note(f"{imported}: nothing says where to look for news")
        if not outdated_models:
            asked = known - sum(model.state == "failed" for model in report.models)
            if asked:
                session.console.note(f"nothing to update among {counted(asked, 'model')}")
            return
        updatable = [session.spelled(model.name) for model in outdated_models]
        can = f"{len(outdated_models)} of {known} can be updated, {human_bytes(to_fetch)} to fetch"
        session.console.note(f"{can}: {client.stores.open().command('update', *updatable)}")

    return session.show({"models": report.models, "bytes_to_fetch": to_fetch}, show_table, error=error)


def _show_outdated(session: Session, report: OutdatedReport, *, is_all: bool) -> None:
    """Show a row for each model; of all models none for those of which nothing says where to look."""
    rows = []
    for model in report.models:
        if is_all and model.state == "unknown":
            continue
        newest = f"{_short(model.newest)} {(model.newest_at or '')[:10]}".strip()
        name = session.spelled(model.name)
        rows.append((name, _short(model.here), _short(model.locked), newest, _update_of(model)))
    heads = ("NAME", "HERE", "LOCKED", "NEWEST", "UPDATE")
    session.console.table(heads, rows, cut=(), drop=("LOCKED", "HERE", "NEWEST"))


def _short(commits: tuple[str, ...]) -> str:
    return ",".join(commit[:7] for commit in commits)


def _amount(changed: int, files: int, size: int) -> str:
    return f"{changed} of {counted(files, 'file')}, {human_bytes(size)}"


def _update_of(model: ModelVersion) -> str:
    """Say what there is to fetch, or why nothing is known."""
    changed = _amount(len(model.changes), model.files or 0, model.bytes_to_fetch)
    if model.error:
        return f"not known: {shown(model.error.message)}"
    if model.state == "missing":
        return f"not here: {changed}"
    if model.is_only_edited:
        return f"up to date, {counted(len(model.changes), 'file')} edited here"
    if model.state in _STATES:
        return _STATES[model.state]
    if not model.changes:
        return "the same bytes; the lock is older"
    kinds: Counter[str] = Counter(change.change for change in model.changes)
    for kind, words in _HINDRANCES.items():
        if kinds[kind]:
            changed += f", {kinds[kind]} {words}"
    return changed


_STATES: Mapping[str, str] = {
    "unknown": "not known: it was imported or trained",
    "pinned": "pinned",
    "current": "up to date",
}
"""What is said of models in these states, of which nothing can be fetched."""
_HINDRANCES = {"edited": "edited here", "unread": "put here by another program, and not read"}
"""What is said of changed files of these kinds."""


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
    """Update models to their newest version: lock them again, then download what changed."""
    client = session.client(settings)
    models = client.updatable(names, into=where.into)
    folders = begin(session, client, models, where.into)
    method = method_of(client, models)
    if dry_run:
        return show_plan(session, partial(client.plan_update, models, **where.files, force=force), method)
    work = partial(client.update, models, **where.files, force=force)
    report = run_job(session, models, folders, job, method, work)
    if report is None:
        return 0
    arrow = "→" if session.console.stderr.is_unicode else "->"
    places = {model.name: client.catalogs.place_of(model) for model in models}
    for move in report.moves:
        session.console.note(f"{session.spelled(move.name)}: {_moved(move, places[move.name], arrow)}")
    return show(session, report, moves=report.moves)


def _moved(move: Move, place: str, arrow: str) -> str:
    """Say what became of one model. ``place`` is that of its entry; ``arrow`` is one that can be shown."""
    words = _commit_of(move, place, arrow)
    if move.files_changed:
        words.append(_amount(move.files_changed, move.files, move.bytes))
    return ", ".join(words)


def _commit_of(move: Move, place: str, arrow: str) -> list[str]:
    """Say at which commit a model is now, if its source has any."""
    after = _short(move.after)
    if move.pinned:
        where = place or "the reference that it is fetched by"
        if move.after:
            return [f"pinned to {after}; to move it, change 'revision' in {where}"]
        return [f"pinned; to move it, change it in {where}"]
    if not move.files_changed:
        return [f"up to date at {after}" if move.after else "up to date"]
    if move.before and move.before != move.after:
        return [f"{_short(move.before)} {arrow} {after}"]
    return [after] if move.after else []
