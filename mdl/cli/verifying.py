"""verify: what is on disk held against its digests, and mended where it is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from mdl.catalog.model import Model
from mdl.cli.command import command
from mdl.cli.flags import Choice, Locking, Network, Unattended, Where
from mdl.cli.session import Session
from mdl.cli.working import Work, tell_elsewhere
from mdl.deadline import time_limit
from mdl.describe import ended_by
from mdl.engine.store import Store
from mdl.errors import LockError, MdlError, UsageError, joint_error
from mdl.formatting import human_bytes
from mdl.operations.get import locked
from mdl.operations.verify import Checked, check, failure, mending, repair, settle, verdict
from mdl.paths import shown
from mdl.sources import Sources
from mdl.units import parse_duration


@dataclass(frozen=True)
class Mend:
    """What is done about what is wrong."""

    repair: Annotated[bool, typer.Option("--repair", help="Fetch what is wrong, and only that.")] = False
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="With --repair: only say what is wrong.")] = False
    force: Annotated[bool, typer.Option("--force", help="With --repair: replace files that are not mdl's.")] = False
    strict: Annotated[bool, typer.Option("--strict", help="A file without a published hash counts as wrong.")] = False


def register(app: typer.Typer) -> None:
    command(app, "verify")(verify)


def verify(
    session: Session,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Models to check; all that are here without one.")
    ] = None,
    mend: Mend = Mend(),
    where: Where = Where(),  # noqa: B008 - frozen
    choice: Choice = Choice(),  # noqa: B008 - frozen
    network: Network = Network(),  # noqa: B008 - frozen
    locking: Locking = Locking(),  # noqa: B008 - frozen
    unattended: Unattended = Unattended(),  # noqa: B008 - frozen
) -> int:
    """Read what is on disk again and hold it against its digests."""
    here = _all_here(session, session.store(where, [Model(name="")]))
    models = _asked(session, names, choice, here) if names else here
    store = session.store(where, models)
    wait = parse_duration(network.lock_wait, "--lock-wait", least=0)
    sources = session.sources(store, choice=choice, locking=locking)
    errors: dict[str, MdlError] = {}
    is_job = mend.repair and not mend.dry_run
    if unattended.detach and not is_job:
        raise UsageError("only a repair can go on in the background", item="--detach", hint="add --repair")
    work = Work(session, [model.name for model in models], store.folder, unattended) if is_job else None
    if work and work.leaves():
        return tell_elsewhere(session, work.id)
    session.signals.poll()
    with work or session.console.watch() as tell:
        rows: list[Checked] = []
        for model in models:
            try:
                rows += check(model, sources=sources, store=store, tell=tell)
            except MdlError as error:
                errors[model.name] = error.on(model.name)
        if is_job and any(row.status in ("corrupt", "missing") for row in rows):
            with locked(models, store, wait, tell):
                rows = _repaired(session, rows, models, store, network, sources, mend.force, errors, tell)
        failed = [*errors.values(), *filter(None, [failure(rows, verdict(rows, strict=mend.strict))])]
        problem = joint_error(failed)
        if problem:
            tell(ended_by(problem))
    return _tell_checked(session, models, rows, failed)


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
    sources: Sources,
    force: bool,
    errors: dict[str, MdlError],
    tell: Any,
) -> list[Checked]:
    """Repair, then check again what was repaired; what failed is put into ``errors``."""
    wrong = {row.model for row in rows if row.status in ("corrupt", "missing")}
    if session.is_offline(network):
        for name in sorted(wrong):
            errors[name] = LockError("wrong or missing here, and offline", item=name, hint="run it without --offline")
        return rows
    plan = mending(rows, store, force=force)
    for refused in plan.refuse:
        assert refused.refused is not None
        item = f"{refused.wanted.model}/{refused.remote.path}"
        refused.refused.item = item
        errors[item] = refused.refused
    http = session.http(network, models, [row.remote.url for row in rows])
    try:
        wait = parse_duration(network.lock_wait, "--lock-wait", least=0)
        with time_limit(session.time_limit(network), session.cancel):
            result = repair(plan, store=store, http=http, tell=tell, lock_wait=wait)
    finally:
        http.close()
    for outcome in result.outcomes:
        if outcome.error:
            item = f"{outcome.download.model}/{outcome.download.name}"
            errors[item] = outcome.error.on(item)
    if not errors:
        session.console.note(f"repaired; fetched {human_bytes(result.bytes_fetched)}")
    again = []
    for model in models:
        if model.name in wrong:
            again += check(model, sources=sources, store=store, tell=tell)
    settle(again, store)
    return [row for row in rows if row.model not in wrong] + again


def _tell_checked(session: Session, models: list[Model], rows: list[Checked], failed: list[MdlError]) -> int:
    console, problem = session.console, joint_error(failed)
    code = problem.exit_code if problem else 0
    for error in failed:
        console.error(error)
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
