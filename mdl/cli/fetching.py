"""get: the main job."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from mdl.cli.bringing import Brought, Order, bring
from mdl.cli.command import command
from mdl.cli.flags import Choice, Locking, Network, Unattended, Where
from mdl.cli.session import Session
from mdl.cli.working import tell_elsewhere
from mdl.errors import Cancelled, MdlError
from mdl.events import Report
from mdl.formatting import human_bytes
from mdl.paths import shown


def register(app: typer.Typer) -> None:
    command(app, "get", aliases=("download",), epilog=_EXAMPLES)(get_models)


_EXAMPLES = """Examples: mdl get bert-fa --to /models · mdl get hf:gpt2@main --include '*.json' ·
mdl get https://host/file.gguf --into . · mdl get -n z-image-turbo"""


def get_models(
    session: Session,
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET", help="Catalog name, group, hf:org/repo[@rev][/path], hub page or any URL."),
    ],
    where: Where,
    choice: Choice,
    network: Network,
    locking: Locking,
    unattended: Unattended,
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="Show the plan and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Fetch anew, and replace files that are not mdl's.")] = False,
) -> int:
    """Download models; the last line is the folder. Run it again to go on after any interruption."""
    return told(session, Order(targets, where, choice, network, locking, unattended, dry_run, force))


def told(session: Session, order: Order) -> int:
    """Carry the order out and tell how it went; returns the exit code."""
    try:
        brought = bring(session, order)
    except Cancelled as stopped:
        if isinstance(stopped.so_far, Report):
            session.empty = session.empty | payload(stopped.so_far)
        raise
    return tell(session, brought, dry_run=order.dry_run)


def tell(session: Session, brought: Brought, *, dry_run: bool = False, folders: bool = True) -> int:
    """How it went, and ``folders`` last; of a job in the background only its id. Returns the exit code."""
    if brought.is_elsewhere:
        return tell_elsewhere(session, brought.job)
    return _tell_report(session, brought, dry_run, folders)


def _tell_report(session: Session, brought: Brought, dry_run: bool, folders: bool) -> int:
    report, error = brought.report, brought.error
    console, code = session.console, error.exit_code if error else report.exit_code
    if error:
        _tell_failures(session, report, error)
    if session.common.json:
        facts = {"job": brought.job or None} | payload(report)
        console.document(session.command, facts, ok=code == 0, exit_code=code, error=error)
        return code
    if dry_run:
        _tell_plan(session, report)
        return code
    for model in report.models if folders else ():
        if not model.error and not any(row.error for row in model.files):
            console.data(model.path)
    return code


def payload(report: Report) -> dict[str, Any]:
    return {
        "bytes_fetched": report.bytes_fetched,
        "bytes_kept": report.bytes_kept,
        "bytes_discarded": report.bytes_discarded,
        "seconds": round(report.seconds, 3),
        "models": [asdict(model) for model in report.models],
        **report.extra,
    }


def _tell_failures(session: Session, report: Report, error: MdlError) -> None:
    """One line a failure, file by file; the rest was kept."""
    failed = [m.error for m in report.models if m.error] + [f.error for m in report.models for f in m.files if f.error]
    if len(failed) < 2:
        session.console.error(error)
        return
    for model in report.models:
        rows = [(model.name, model.error), *((f"{model.name}/{row.path}", row.error) for row in model.files)]
        for item, facts in rows:
            if facts:
                one = MdlError(facts["message"], item=item, hint=facts["hint"])
                session.console.error(one)


def _tell_plan(session: Session, report: Report) -> None:
    rows = [
        (
            row.way or {"planned": "fetch", "kept": "keep", "failed": "refuse"}.get(row.action, "-"),
            human_bytes(row.size) if row.size is not None else "?",
            human_bytes(row.resumed_at) if row.resumed_at else "-",
            shown(f"{model.name}/{row.path}"),
        )
        for model in report.models
        for row in model.files
    ]
    session.console.table(("ACTION", "SIZE", "HERE", "FILE"), rows)
    fetch, free, near = (report.extra[key] for key in ("bytes_to_fetch", "bytes_free", "bytes_elsewhere"))
    to_copy = report.extra["bytes_to_copy"]
    copied = f", of which {human_bytes(to_copy)} are copied" if to_copy else ""
    linked = f"elsewhere on this disk: {human_bytes(near)}{copied}; " if near else ""
    session.console.note(f"to fetch: {human_bytes(fetch)}; {linked}free on the disk: {human_bytes(free)}")
