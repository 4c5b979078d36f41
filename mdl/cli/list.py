"""list, show, path: what the catalog has, and what of it is on this disk. Nothing is contacted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdl.cli.command import command
from mdl.cli.flags import LookSettings, flag
from mdl.cli.session import Session
from mdl.formatting import human_bytes
from mdl.paths import shown
from mdl.redact import bare_url

if TYPE_CHECKING:
    from mdl import Model, ModelStatus

Name = Annotated[str, typer.Argument(metavar="NAME", help="A model of the catalog, or hf:org/repo, or a URL.")]


@command(
    "list",
    examples=(
        "mdl list  # every model, and what is here",
        "mdl list 'bert*' --missing  # those of a name that are not here",
        "mdl list --kind tts --json  # for a script",
    ),
)
def list_models(
    session: Session,
    settings: LookSettings,
    patterns: Annotated[list[str] | None, typer.Argument(metavar="PATTERN", help="Part of a name, or a glob.")] = None,
    kind: Annotated[str | None, flag("--kind KIND", "Only this kind: model, tts, dataset …")] = None,
    tag: Annotated[str | None, flag("--tag TAG", "Only with this tag.")] = None,
    present: Annotated[bool, flag("--present", "Only what is whole on this disk.")] = False,
    partial: Annotated[bool, flag("--partial", "Only what is partly here.")] = False,
    missing: Annotated[bool, flag("--missing", "Only what is not here.")] = False,
) -> int:
    """Every model of the catalog, with what is on this disk."""
    client = session.client(settings)
    asked = {"present": present, "unverified": present, "partial": partial, "missing": missing}
    statuses = [status for status, is_asked in asked.items() if is_asked]
    rows = client.statuses(patterns or None, kind=kind, tag=tag, status=statuses or None)

    def show_table() -> None:
        session.console.table(("NAME", "KIND", "STATUS", "SIZE", "LICENSE", "TITLE"), [_row(*row) for row in rows])
        if not rows:
            session.console.note("nothing in the catalog fits" if client.catalog.models else "the catalog is empty")

    return session.show({"models": [_facts(*row) for row in rows]}, show_table)


def _row(model: Model, found: ModelStatus) -> tuple[str, ...]:
    status: str = "gone" if model.gone else found.status
    if found.status == "partial":
        status = f"partial {found.files_present}/{'?' if found.files is None else found.files}"
    size = human_bytes(found.bytes) if found.bytes is not None else "?"
    return model.name, model.kind, status, size, model.license or "-", shown(model.title)


def _facts(model: Model, found: ModelStatus) -> dict[str, Any]:
    return {
        "name": model.name,
        "title": model.title,
        "kind": model.kind,
        "license": model.license,
        "tags": list(model.tags),
        "source": model.source_text,
        "status": found.status,
        "files": found.files,
        "files_present": found.files_present,
        "bytes": found.bytes,
        "bytes_present": found.bytes_present,
        "path": str(found.path),
        "gone": model.gone or None,
        "note": model.note or None,
    }


@command(
    "show",
    examples=(
        "mdl show z-image-turbo  # its files, sizes and licence",
        "mdl show hf:org/repo --json  # what is here of a repository",
    ),
)
def show(session: Session, name: Name, settings: LookSettings) -> int:
    """One model: files, sources, sizes, licence, status."""
    model, found = session.client(settings).status(name)
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
        for row in found.rows
    ]
    facts = {"model": _facts(model, found), "files": files}
    return session.show(facts, lambda: _show_text(session, model, found, files))


def _show_text(session: Session, model: Model, found: ModelStatus, files: list[dict[str, Any]]) -> None:
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
        "status": found.status,
        "folder": str(found.path),
        "catalog": session.client().workspace.place_of(model),
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


@command(
    "path",
    examples=(
        'cd "$(mdl path bert-fa)"  # go to the folder',
        "mdl path hf:org/repo  # where a repository lands",
    ),
)
def path(session: Session, name: Name, settings: LookSettings) -> int:
    """The model's folder, nothing else: cd "$(mdl path NAME)"."""
    folder = str(session.client(settings).path(name))
    return session.show({"path": folder}, lambda: session.console.data(folder))
