"""lock: what the catalog's models are resolved to, written down, checked, moved on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from mdl.catalog.lock import Lock
from mdl.catalog.model import Model
from mdl.cli.command import command
from mdl.cli.flags import Network, Where
from mdl.cli.session import Session
from mdl.describe import ended_by
from mdl.errors import LockError, MdlError, NotFound, PartialFailure, joint_exit_code
from mdl.operations.lock import Asked, Locked, read_lock, resolve_lock, update_lock


@dataclass(frozen=True)
class Moving:
    """What is done with the lock."""

    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; 8 and what moved, where the lock is not up to date.")
    ] = False
    upgrade: Annotated[
        list[str] | None, typer.Option("--upgrade", metavar="NAME", help="Resolve this model anew, repeatable.")
    ] = None


def register(app: typer.Typer) -> None:
    command(app, "lock")(lock)


def lock(
    session: Session,
    moving: Moving,
    where: Where,
    network: Network,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Models and groups to lock; all without one.")
    ] = None,
) -> int:
    """Resolve models to commits, files, sizes and digests, and write them to mdl.lock beside the catalog."""
    path = session.lock_path
    session.empty = {"path": str(path)}
    catalog = session.catalog
    old = read_lock(path, session.catalog_place[0][0])
    upgraded = {model.name for name in moving.upgrade or () for model in catalog.find(name)}
    wanted = {one.name for name in names for one in catalog.find(name)} if names else set(catalog.models)
    models = list(catalog.models.values())
    _refuse_gone(catalog.models[name] for name in wanted if names)
    store = session.store(where)
    http = None if session.is_offline(network) else session.http(network, models)
    with session.console.watch() as tell:
        try:
            sources = session.sources(store, http=http, tell=tell, exact=True)
            anew = wanted if moving.check and http is not None else ()
            asked = Asked(wanted | upgraded, anew, () if moving.check else upgraded)
            done = resolve_lock(models, old or Lock(), asked, sources=sources, store=store)
        finally:
            if http is not None:
                http.close()
        error = _trouble(done, old, check=moving.check)
        if error:
            tell(ended_by(error))
    before = old or Lock()
    if not moving.check and done.lock != before:
        update_lock(path, session.catalog_place[0][0], lambda now: (now or Lock()).with_changes(before, done.lock))
    return _tell(session, models, done, error)


def _refuse_gone(models: Iterable[Model]) -> None:
    for model in models:
        if model.gone:
            raise NotFound(f"has no data any more: {model.gone}", item=model.name)


def _trouble(done: Locked, old: Lock | None, *, check: bool) -> MdlError | None:
    """The one error of it all, or None."""
    if done.broken:
        first = next(iter(done.broken.values()))
        if len(done.broken) == 1:
            return first
        error = PartialFailure(f"{len(done.broken)} models could not be resolved", hint=first.advice)
        error.exit_code = joint_exit_code(one.exit_code for one in done.broken.values())
        if error.exit_code != PartialFailure.exit_code:
            error.code = first.code
        return error
    if check and (old is None or done.changes):
        why = "there is no lock" if old is None else "; ".join(done.changes[:5])
        return LockError(why, hint="mdl lock; --upgrade NAME for what moved at its source")
    return None


def _tell(session: Session, models: Sequence[Model], done: Locked, error: MdlError | None) -> int:
    console, code = session.console, error.exit_code if error else 0
    rows = [_facts(model.name, done) for model in models if not model.gone]
    if error:
        for one in done.broken.values() if isinstance(error, PartialFailure) else ():
            console.error(one)
        console.error(error)
    if session.common.json:
        payload = {"path": str(session.lock_path), "changes": done.changes, "models": rows}
        console.document("lock", payload, ok=code == 0, exit_code=code, error=error)
        return code
    for line in done.changes:
        console.note(line)
    for row in rows:
        if row["without_digest"]:
            what = "1 file has" if row["without_digest"] == 1 else f"{row['without_digest']} files have"
            console.note(f"{row['name']}: {what} no published digest; the first 'mdl get' records what came")
    console.data(str(session.lock_path))
    return code


def _facts(name: str, done: Locked) -> dict[str, Any]:
    locked = done.lock.models.get(name)
    files = locked.files if locked else ()
    return {
        "name": name,
        "locked": locked is not None,
        "files": len(files),
        "without_digest": sum(one.digest is None for one in files),
        "tofu": sum(one.tofu for one in files),
        "revisions": sorted({one.revision for one in files if one.revision}),
    }
