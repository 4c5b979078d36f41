"""list, show, path: what the catalog has, and what of it is on this disk. Nobody is contacted."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Any

import typer

from mdl.catalog.model import Model
from mdl.cli.command import command
from mdl.cli.flags import Choice, Home, Layout, Locking
from mdl.cli.session import Session
from mdl.console.humans import human_bytes
from mdl.engine.status import ModelStatus, model_status
from mdl.errors import UsageError
from mdl.paths import shown
from mdl.redact import bare_url


def register(app: typer.Typer) -> None:
    command(app, "list")(list_models)
    command(app, "show")(show)
    command(app, "path")(path)


def list_models(
    session: Session,
    patterns: Annotated[list[str] | None, typer.Argument(metavar="PATTERN", help="Part of a name, or a glob.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only this kind: model, tts, dataset …")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only with this tag.")] = None,
    present: Annotated[bool, typer.Option("--present", help="Only what is whole on this disk.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Only what is partly here.")] = False,
    missing: Annotated[bool, typer.Option("--missing", help="Only what is not here.")] = False,
    home: Home = Home(),  # noqa: B008 - frozen
) -> int:
    """Every model of the catalog, with what is on this disk."""
    store = session.store(home)
    sources = session.sources(store, locking=Locking())
    wanted = {"present": present, "partial": partial, "missing": missing}
    statuses = {name for name, asked in wanted.items() if asked}
    if "present" in statuses:
        statuses.add("unverified")
    rows = [
        (model, model_status(model, sources, store))
        for model in session.catalog.models.values()
        if _fits(model, patterns or [], kind, tag)
    ]
    rows = [(model, stock) for model, stock in rows if not statuses or stock.status in statuses]
    if session.common.json:
        session.console.document("list", {"models": [_facts(*row) for row in rows]}, ok=True, exit_code=0)
        return 0
    session.console.table(("NAME", "KIND", "STATUS", "SIZE", "LICENSE", "TITLE"), [_row(*row) for row in rows])
    if not rows:
        session.console.note("nothing in the catalog fits" if session.catalog.models else "the catalog is empty")
    return 0


def _fits(model: Model, patterns: list[str], kind: str | None, tag: str | None) -> bool:
    if (kind and model.kind != kind) or (tag and tag not in model.tags):
        return False
    name = model.name.lower()
    return not patterns or any(p.lower() in name or fnmatchcase(name, p.lower()) for p in patterns)


def _row(model: Model, stock: ModelStatus) -> tuple[str, ...]:
    status: str = "gone" if model.gone else stock.status
    if stock.status == "partial":
        status = f"partial {stock.files_present}/{stock.files_text}"
    size = human_bytes(stock.bytes) if stock.bytes is not None else "?"
    return model.name, model.kind, status, size, model.license or "-", shown(model.title)


def _facts(model: Model, stock: ModelStatus) -> dict[str, Any]:
    return {
        "name": model.name,
        "title": model.title,
        "kind": model.kind,
        "license": model.license,
        "tags": list(model.tags),
        "source": model.source_text,
        "status": stock.status,
        "files": stock.files,
        "files_present": stock.files_present,
        "bytes": stock.bytes,
        "bytes_present": stock.bytes_present,
        "path": str(stock.path),
        "gone": model.gone or None,
        "note": model.note or None,
    }


def show(
    session: Session,
    name: Annotated[str, typer.Argument(help="A model of the catalog, or hf:org/repo, or a URL.")],
    home: Home = Home(),  # noqa: B008 - frozen
) -> int:
    """One model: files, sources, sizes, licence, status."""
    model = _one(session, name)
    store = session.store(home)
    stock = model_status(model, session.sources(store, locking=Locking()), store)
    files = [
        {
            "path": row.remote.path.text,
            "role": row.remote.role,
            "url": bare_url(row.remote.url),
            "size": row.remote.size,
            "sha256": row.remote.digest.hex if row.remote.digest and row.remote.digest.algorithm == "sha256" else None,
            "status": row.status,
            "bytes_present": row.bytes_present,
        }
        for row in stock.rows
    ]
    if session.common.json:
        payload = {"model": _facts(model, stock), "files": files}
        session.console.document("show", payload, ok=True, exit_code=0)
        return 0
    _show_text(session, model, stock, files)
    return 0


def _one(session: Session, name: str) -> Model:
    models = session.models([name], Choice())
    if len(models) != 1:
        members = ", ".join(model.name for model in models)
        raise UsageError("a group, not a model", item=name, hint=f"it holds {members}")
    return models[0]


def _show_text(session: Session, model: Model, stock: ModelStatus, files: list[dict[str, Any]]) -> None:
    console = session.console
    facts = {
        "name": model.name,
        "title": model.title,
        "kind": model.kind,
        "license": model.license,
        "tags": ", ".join(model.tags),
        "source": model.source_text,
        "only": ", ".join(model.include),
        "homepage": model.homepage,
        "note": model.note,
        "gone": model.gone,
        "see": ", ".join(model.see),
        "status": stock.status,
        "folder": str(stock.path),
        "catalog": model.origin,
    }
    for key, value in facts.items():
        if value:
            console.data(f"{key + ':':<10}{shown(str(value))}")
    if files:
        console.data("")
        rows = [
            (
                row["status"],
                human_bytes(row["size"]) if row["size"] is not None else "?",
                row["role"],
                shown(row["path"]),
                f"sha256 {row['sha256'][:12]}" if row["sha256"] else "no sha256 known",
            )
            for row in files
        ]
        console.table(("STATUS", "SIZE", "ROLE", "PATH", "DIGEST"), rows)
    elif model.sources and not model.gone:
        console.note("the files are not listed yet: 'mdl get -n' asks the hub")


def path(
    session: Session,
    name: Annotated[str, typer.Argument(help="A model of the catalog, or hf:org/repo, or a URL.")],
    home: Home = Home(),  # noqa: B008 - frozen
) -> int:
    """The model's folder, nothing else: cd "$(mdl path NAME)"."""
    model, store = _one(session, name), session.store(home)
    folder = store.folder(model.name)
    if home.layout is Layout.hf_cache:
        folder = model_status(model, session.sources(store, locking=Locking()), store).path
    if session.common.json:
        session.console.document("path", {"path": str(folder)}, ok=True, exit_code=0)
    else:
        session.console.data(str(folder))
    return 0
