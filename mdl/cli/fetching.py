"""get and verify: the main job, and its check."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mdl.catalog.model import Model
from mdl.check import Checked, check, failure, repair, verdict
from mdl.cli.command import command
from mdl.cli.flags import Choice, Network, Where
from mdl.cli.session import Session
from mdl.cli.units import parse_duration
from mdl.console.humans import human_bytes
from mdl.console.watch import ended_by
from mdl.download.store import Store
from mdl.errors import Cancelled, LockError, MdlError, NoSpace, PartialFailure, joint_exit_code
from mdl.events import Report
from mdl.get import locked
from mdl.paths import shown


def register(app: typer.Typer) -> None:
    command(app, "get", aliases=("download",), epilog=_EXAMPLES)(get_models)
    command(app, "verify")(verify)


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
    http = None if session.is_offline(network) else session.http(network, models)
    with session.console.watch(method=network.via.value) as tell:
        try:
            sources = session.sources(store, http=http, retries=network.retries, tell=tell, choice=choice)
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


def verify(
    session: Session,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Models to check; all that are here without one.")
    ] = None,
    repair_wrong: Annotated[bool, typer.Option("--repair", help="Fetch what is wrong, and only that.")] = False,
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="With --repair: only say what is wrong.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="A file without a published hash counts as wrong.")] = False,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Models folder (MDL_HOME).")] = None,
    into: Annotated[Path | None, typer.Option("--into", metavar="DIR", help="One model: its folder itself.")] = None,
    choice: Choice = Choice(),  # noqa: B008 - frozen
    network: Network = Network(),  # noqa: B008 - frozen
) -> int:
    """Read what is on disk again and hold it against its digests."""
    session.empty = {"models": []}
    where = Where(to, into)
    here = _all_here(session, session.store(where, [Model(name="")]))
    models = _asked(session, names, choice, here) if names else here
    store = session.store(where, models)
    wait = parse_duration(network.lock_wait, "--lock-wait", least=0)
    sources = session.sources(store, choice=choice)
    errors: dict[str, MdlError] = {}
    with session.console.watch() as tell:
        rows: list[Checked] = []
        for model in models:
            try:
                rows += check(model, sources=sources, store=store, tell=tell)
            except MdlError as error:
                errors[model.name] = error.on(model.name)
        if repair_wrong and not dry_run and any(row.status in ("corrupt", "missing") for row in rows):
            with locked(models, store, wait, tell):
                rows = _repaired(session, rows, models, store, network, choice, errors, tell)
        code = joint_exit_code([verdict(rows, strict=strict), *(error.exit_code for error in errors.values())])
        problem = next(iter(errors.values()), None) if errors else failure(rows, code)
        if problem:
            tell(ended_by(problem))
    return _tell_checked(session, models, rows, problem, code)


def _all_here(session: Session, store: Store) -> list[Model]:
    """Every model of which something was published here, whether or not the catalog has it."""
    try:
        names = sorted(entry.name for entry in (store.own / "receipts").iterdir())
    except OSError:
        names = []
    found = session.catalog.models
    return [found.get(name) or Model(name=name) for name in names]


def _asked(session: Session, names: list[str], choice: Choice, here: list[Model]) -> list[Model]:
    """What the names mean; a folder that is here need not be in the catalog."""
    known = {model.name: model for model in here}
    found: dict[str, Model] = {}
    for name in names:
        models = [known[name]] if name in known and not choice.revision else session.models([name], choice)
        found.update((model.name, model) for model in models)
    return list(found.values())


def _repaired(
    session: Session,
    rows: list[Checked],
    models: list[Model],
    store: Store,
    network: Network,
    choice: Choice,
    errors: dict[str, MdlError],
    tell: Any,
) -> list[Checked]:
    """Repair, then check again what was repaired; what failed is put into ``errors``."""
    wrong = {row.model for row in rows if row.status in ("corrupt", "missing")}
    if session.is_offline(network):
        for name in sorted(wrong):
            errors[name] = LockError("wrong or missing here, and offline", item=name, hint="run it without --offline")
        return rows
    http = session.http(network, models, [row.remote.url for row in rows])
    try:
        result = repair(rows, store=store, http=http, limits=session.limits(network), tell=tell)
    finally:
        http.close()
    for outcome in result.outcomes:
        if outcome.error:
            item = f"{outcome.download.model}/{outcome.download.name}"
            errors[item] = outcome.error.on(item)
    if not errors:
        session.console.note(f"repaired; fetched {human_bytes(result.bytes_fetched)}")
    again = [row for row in rows if row.model not in wrong]
    sources = session.sources(store, choice=choice)
    for model in models:
        if model.name in wrong:
            again += check(model, sources=sources, store=store, tell=tell)
    return again


def _tell_checked(
    session: Session, models: list[Model], rows: list[Checked], problem: MdlError | None, code: int
) -> int:
    console = session.console
    if problem:
        console.error(problem)
    if session.common.json:
        payload = {
            "models": [
                {"name": model.name, "files": [_checked_facts(row) for row in rows if row.model == model.name]}
                for model in models
            ]
        }
        console.document("verify", payload, ok=code == 0, exit_code=code, error=problem)
        return code
    table = [(row.status, shown(f"{row.model}/{row.remote.path}"), row.actual or "-") for row in rows]
    if table:
        console.table(("STATUS", "FILE", "DIGEST"), table)
    elif not problem:
        console.note("nothing of mdl's is here to verify")
    return code


def _checked_facts(row: Checked) -> dict[str, Any]:
    return {"path": row.remote.path.text, "status": row.status, "expected": row.expected, "actual": row.actual}
