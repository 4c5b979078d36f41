"""get: the main job."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from mdl.cli.command import command
from mdl.cli.flags import Choice, Locking, Network, Where
from mdl.cli.session import Session
from mdl.cli.units import parse_duration
from mdl.console.humans import human_bytes
from mdl.console.watch import ended_by
from mdl.errors import Cancelled, MdlError, NoSpace, PartialFailure
from mdl.events import Report
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
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="Show the plan and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Fetch anew, and replace files that are not mdl's.")] = False,
) -> int:
    """Download models; the last line is the folder. Run it again to go on after any interruption."""
    from mdl.get import Wishes, get

    session.empty = {"bytes_fetched": 0, "bytes_kept": 0, "bytes_discarded": 0, "seconds": 0.0, "models": []}
    models = session.models(targets, choice)
    store = session.store(where, models, targets)
    carrier = session.carrier(network)
    wishes = Wishes(force, dry_run, parse_duration(network.lock_wait, "--lock-wait", least=0), carrier)
    limits = session.limits(network)
    http = None if session.is_offline(network) else session.http(network, models, session.locked_urls(models))
    with session.console.watch(method=network.via.value) as tell:
        try:
            sources = session.sources(
                store, http=http, retries=network.retries, tell=tell, choice=choice, locking=locking
            )
            report = get(models, sources=sources, store=store, http=http, limits=limits, wishes=wishes, tell=tell)
            error = _joint_error(report)
            if error:
                tell(ended_by(error))
        except Cancelled as stopped:
            if isinstance(stopped.so_far, Report):
                session.empty = _payload(stopped.so_far)
            raise
        finally:
            if http is not None:
                http.close()
    if not dry_run and not locking.frozen:
        session.remember_first(models, report)
    return _tell_report(session, report, error, dry_run)


def _joint_error(report: Report) -> MdlError | None:
    """The one error that stands for a report's failures, or None."""
    space = report.extra
    if space and space["bytes_to_fetch"] > space["bytes_free"]:
        return NoSpace(f"the plan needs {space['bytes_to_fetch']} bytes and {space['bytes_free']} are free")
    failed = [(model.name, model.error) for model in report.models if model.error]
    failed += [(f"{m.name}/{f.path}", f.error) for m in report.models for f in m.files if f.error]
    if not failed:
        return None
    item, facts = failed[0]
    assert facts is not None
    if len(failed) == 1:
        error = MdlError(facts["message"], item=facts["item"] or item, hint=facts["hint"])
        error.code, error.exit_code = facts["code"], facts["exit_code"]
        return error
    reasons = sorted({f["code"] for _, f in failed if f})
    total = sum(len(model.files) or 1 for model in report.models)
    error = PartialFailure(f"{len(failed)} of {total} failed ({', '.join(reasons)})", hint=facts["hint"])
    if report.exit_code != PartialFailure.exit_code:
        error.code, error.exit_code = facts["code"], report.exit_code
    return error


def _tell_report(session: Session, report: Report, error: MdlError | None, dry_run: bool) -> int:
    console, code = session.console, error.exit_code if error else report.exit_code
    if error:
        _tell_failures(session, report, error)
    if session.common.json:
        console.document(session.command, _payload(report), ok=code == 0, exit_code=code, error=error)
        return code
    if dry_run:
        _tell_plan(session, report)
        return code
    for model in report.models:
        if not model.error and not any(row.error for row in model.files):
            console.data(model.path)
    return code


def _payload(report: Report) -> dict[str, Any]:
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
            {"planned": "fetch", "kept": "keep", "failed": "refuse"}.get(row.action, row.action),
            human_bytes(row.size) if row.size is not None else "?",
            human_bytes(row.resumed_at) if row.resumed_at else "-",
            shown(f"{model.name}/{row.path}"),
        )
        for model in report.models
        for row in model.files
    ]
    session.console.table(("ACTION", "SIZE", "HERE", "FILE"), rows)
    fetch, free = report.extra["bytes_to_fetch"], report.extra["bytes_free"]
    session.console.note(f"to fetch: {human_bytes(fetch)}; free on the disk: {human_bytes(free)}")
