"""list, show, path: what the catalog has, and what of it is on this disk. Nothing is contacted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdl.cli.command import command
from mdl.cli.flags import LookSettings
from mdl.cli.session import Session
from mdl.formatting import human_bytes
from mdl.paths import shown
from mdl.redact import bare_url

if TYPE_CHECKING:
    from mdl.catalog.model import Model
    from mdl.engine.status import ModelStatus


def register(app: typer.Typer) -> None:
    command(app, "list")(list_models)
    command(app, "show")(show)
    command(app, "path")(path)


def list_models(
    session: Session,
    settings: LookSettings,
    patterns: Annotated[list[str] | None, typer.Argument(metavar="PATTERN", help="Part of a name, or a glob.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only this kind: model, tts, dataset …")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only with this tag.")] = None,
    present: Annotated[bool, typer.Option("--present", help="Only what is whole on this disk.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Only what is partly here.")] = False,
    missing: Annotated[bool, typer.Option("--missing", help="Only what is not here.")] = False,
) -> int:
    """Every model of the catalog, with what is on this disk."""
    client = session.client(settings)
    asked = {"present": present, "unverified": present, "partial": partial, "missing": missing}
    statuses = [status for status, is_asked in asked.items() if is_asked]
    rows = client.statuses(patterns or None, kind=kind, tag=tag, status=statuses or None)

    def tell() -> None:
        session.console.table(("NAME", "KIND", "STATUS", "SIZE", "LICENSE", "TITLE"), [_row(*row) for row in rows])
        if not rows:
            session.console.note("nothing in the catalog fits" if client.catalog.models else "the catalog is empty")

    return session.show({"models": [_facts(*row) for row in rows]}, tell)


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
    settings: LookSettings,
) -> int:
    """One model: files, sources, sizes, licence, status."""
    model, stock = session.client(settings).status(name)
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
    facts = {"model": _facts(model, stock), "files": files}
    return session.show(facts, lambda: _show_text(session, model, stock, files))


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
    settings: LookSettings,
) -> int:
    """The model's folder, nothing else: cd "$(mdl path NAME)"."""
    folder = str(session.client(settings).path(name))
    return session.show({"path": folder}, lambda: session.console.data(folder))
