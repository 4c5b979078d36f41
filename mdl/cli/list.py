"""list, show, path: what the catalog has, and what is on this disk. Only 'show --remote' contacts anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mdl.cli.command import command
from mdl.cli.flags import LookSettings, argument, flag
from mdl.cli.model_table import (
    LISTED,
    LOCAL,
    MEMBER,
    Row,
    age_since,
    column_of,
    in_order,
    table_of,
)
from mdl.cli.session import Session
from mdl.formatting import counted, human_bytes, utc_time, words_of_code, words_of_left_out
from mdl.paths import shown
from mdl.redact import open_url

if TYPE_CHECKING:
    from mdl import Client, Inventory, Model, ModelStatus, RemoteModel

Name = Annotated[str, argument("NAME", "A model of the catalog or on this disk, or hf:org/repo, or a URL.")]


@command(
    "list",
    "mdl list  # the catalog, and what of it is here",
    "mdl list --local --sort size  # all that is on this disk, the largest first",
    "mdl list --columns name,license,size  # the table as you want it",
    "mdl list persian-nlp  # the members of a group",
    "mdl list 'bert*' --missing --json  # for a script",
)
def list_models(
    session: Session,
    settings: LookSettings,
    patterns: Annotated[list[str] | None, argument("PATTERN|GROUP", "Part of a name, a glob, or a group.")] = None,
    kind: Annotated[str | None, flag("--kind KIND", "Only this kind: model, tts, dataset …")] = None,
    tag: Annotated[str | None, flag("--tag TAG", "Only with this tag.")] = None,
    local: Annotated[bool, flag("--local", "Everything on this disk, in the catalog or not, in both layouts.")] = False,
    present: Annotated[bool, flag("--present", "Only what is complete on this disk.")] = False,
    partial: Annotated[bool, flag("--partial", "Only what is partly here.")] = False,
    missing: Annotated[bool, flag("--missing", "Only what is not here.")] = False,
    sort: Annotated[
        str | None, flag("--sort COLUMN", "Sort by this column; numbers: largest first.", panel="Output")
    ] = None,
    columns: Annotated[
        str | None, flag("--columns COLUMN,…", "The columns of the table: name,size,folder …", panel="Output")
    ] = None,
) -> int:
    """List the models of the catalog and what of them is on this disk; --local lists everything on this disk."""
    statuses = _asked_statuses(present=present, partial=partial, missing=missing)
    shown_columns: Sequence[str] = LOCAL if local else LISTED
    if columns:
        shown_columns = tuple(map(column_of, columns.split(",")))
    order = column_of(sort) if sort else None
    client = session.client(settings)
    inventory: Inventory | None = None
    if local:
        inventory = client.inventory(patterns or None, kind=kind, tag=tag)
        models: Iterable[tuple[Model, ModelStatus]] = inventory.models
    else:
        models = client.statuses(patterns or None, kind=kind, tag=tag)
    rows: list[Row] = []
    for model, status in models:
        if not statuses or status.status in statuses:
            rows.append(Row(model, status, is_local=local))
    rows = in_order(rows, order)
    is_all = not (patterns or kind or tag or statuses)

    def show_table() -> None:
        if rows:
            session.console.table(**table_of(rows, shown_columns, keeps_all=bool(columns)))
        if inventory is not None:
            if is_all and not rows:
                folder = shown(str(client.stores.open().root))
                session.console.note(f"no models are here; the models folder is {folder}")
            _show_total_here(session, rows, inventory, is_all=is_all)
        elif rows:
            _show_total_listed(session, client, rows, is_all=is_all)
        else:
            session.console.note(_why_none(client, is_all=is_all))
        if is_all and not local:
            _show_unlisted(session, client, more=" more" if rows else "")

    groups = [{"name": name, "models": list(members)} for name, members in client.catalog.groups.items()]
    return session.show({"models": [_facts(row.model, row.on_disk) for row in rows], "groups": groups}, show_table)


def _asked_statuses(*, present: bool, partial: bool, missing: bool) -> list[str]:
    """The statuses that these flags ask for; none if they do not narrow."""
    statuses: list[str] = []
    if present:
        statuses += ["present", "unverified"]
    if partial:
        statuses.append("partial")
    if missing:
        statuses.append("missing")
    return statuses


def _why_none(client: Client, *, is_all: bool) -> str:
    if not is_all:
        command = client.stores.open().command("list", "--local")
        return f"no model of the catalog matches; '{command}' shows everything on this disk"
    if client.catalog.models:
        return "your catalog has no model of its own; 'mdl list PATTERN' finds those that it extends too"
    return "your catalog has no model yet; 'mdl add NAME SOURCE' adds one"


def _show_total_here(session: Session, rows: Sequence[Row], inventory: Inventory, *, is_all: bool) -> None:
    """Sum up what is on this disk, and what unfinished downloads take beside."""
    total: int | None = None
    if len(rows) == len(inventory.models):
        total = inventory.bytes  # else bytes that models share count for each
    if rows or not is_all:
        session.console.note(_summary(rows, total))
    if is_all and inventory.unfinished:
        size = human_bytes(inventory.unfinished)
        session.console.note(f"{size} more of unfinished downloads: the same 'mdl get' continues them")


def _show_total_listed(session: Session, client: Client, rows: Sequence[Row], *, is_all: bool) -> None:
    """Sum up what the catalog has; of all of it, name its groups."""
    summary = _summary(rows)
    groups = client.catalog.groups
    if is_all and groups:
        summary += f"; groups: {', '.join(groups)}"
    session.console.note(summary)
    if client.catalogs.is_shipped:
        session.console.note("this catalog comes with mdl; 'mdl init' begins one of your own")


def _show_unlisted(session: Session, client: Client, more: str) -> None:
    """Count the models that are here and not in the catalog."""
    store = client.stores.open()
    unlisted = set(store.receipts.models()) - client.catalog.models.keys()
    if unlisted:
        count = counted(len(unlisted), f"{more} model".strip())
        session.console.note(f"{count} on this disk that no catalog names: '{store.command('list', '--local')}'")


def _summary(rows: Sequence[Row], total: int | None = None) -> str:
    """``12 models, 3 here, 1 partly (4.1 GB)``; ``total`` is what they take, if that is not the sum of all."""
    here = 0
    partly = 0
    size = 0
    for row in rows:
        if not row.on_disk.is_here:
            continue
        size += row.on_disk.bytes_present
        if row.on_disk.status == "partial":
            partly += 1
        else:
            here += 1
    models = counted(len(rows), "model")
    if here + partly == 0:
        return f"{models}, none here"
    summary = f"{models}, {here} here"
    if partly:
        summary += f", {partly} partly"
    if total is not None:
        size = total
    return f"{summary} ({human_bytes(size)})"


def _facts(model: Model, on_disk: ModelStatus) -> dict[str, Any]:
    return {
        "name": model.name,
        "title": model.title,
        "kind": model.kind,
        "license": model.license,
        "tags": list(model.tags),
        "source": model.source_text,
        "status": on_disk.status,
        "files": on_disk.files,
        "files_present": on_disk.files_present,
        "bytes": on_disk.bytes,
        "bytes_present": on_disk.bytes_present,
        "path": on_disk.path,
        "gone": model.gone or None,
        "note": model.note or None,
        "commits": list(on_disk.commits),
        "since": utc_time(on_disk.since),
        "layout": on_disk.layout,
        "brought_by": on_disk.brought_by,
    }


@command(
    "show",
    "mdl show bert-fa  # its files, sizes, licence and commits",
    "mdl show --remote hf:org/repo  # asks the hub before anything is fetched",
    "mdl show persian-nlp  # the members of a group",
)
def show(
    session: Session,
    name: Annotated[str, argument("NAME|REF|GROUP", "As 'mdl list' names it, or hf:org/repo.")],
    settings: LookSettings,
    remote: Annotated[
        bool, flag("--remote", "Ask the source for files, sizes, licence, and whether it is gated.")
    ] = False,
) -> int:
    """Show one model: files, sources, sizes, licence, status. Of a group, show its members."""
    client = session.client(settings)
    is_reference = ":" in name
    if not is_reference and name in client.catalog.groups and name not in client.catalog.models:
        return _show_group(session, client, name)
    described: RemoteModel | None = None
    if remote:
        model, described = client.remote_model(name)
        on_disk = described.status
    else:
        model, on_disk = client.status(name)
    code = client.can_run_code(on_disk)
    revisions = [origin.revision or origin.branch for origin in model.sources]
    facts: dict[str, Any] = {
        "model": _facts(model, on_disk),
        "files": [_file_facts(row, code) for row in on_disk.rows],
        "revision": ", ".join(filter(None, revisions)) or None,
        "locked_commits": client.locked_commits(model),
        "remote": None,
        "left_out": (),
    }
    if described is not None:
        facts["left_out"] = described.left_out
        if described.facts is not None:
            facts["remote"] = vars(described.facts)
    return session.show(facts, lambda: _show_text(session, model, on_disk, facts))


def _show_group(session: Session, client: Client, name: str) -> int:
    members = client.catalog.groups[name]
    rows: list[Row] = []
    for model, status in client.statuses(name):
        if model.name in members:
            rows.append(Row(model, status))

    def show_table() -> None:
        session.console.table(**table_of(rows, MEMBER))
        session.console.note(f"the group {name}: {_summary(rows)}")

    return session.show({"group": name, "members": [_facts(row.model, row.on_disk) for row in rows]}, show_table)


def _file_facts(row: Any, code: Mapping[str, bool | None]) -> dict[str, Any]:
    name = row.remote.path.text
    facts: dict[str, Any] = {
        "path": name,
        "role": row.remote.role,
        "url": open_url(row.remote.url),
        "size": row.remote.size,
        "sha256": None,
        "digest": None,
        "status": row.status,
        "bytes_present": row.bytes_present,
        "runs_code": code[name],
    }
    digest = row.remote.digest
    if digest is not None:
        facts["digest"] = str(digest)
        if digest.algorithm == "sha256":
            facts["sha256"] = digest.hex
    return facts


def _show_text(session: Session, model: Model, on_disk: ModelStatus, facts: Mapping[str, Any]) -> None:
    console = session.console
    remote = facts["remote"] or {}
    row = Row(model, on_disk)
    lines = {
        "name": row.name,
        "title": "" if model.title == model.name else model.title,
        "kind": model.kind,
        "license": model.license or remote.get("license"),
        "tags": ", ".join(model.tags),
        "source": model.source_text,
        "only": ", ".join(model.include),
        "access": _access(remote),
        "updated": (remote.get("updated_at") or "")[:10],
        "homepage": model.homepage,
        "note": model.note,
        "gone": model.gone,
        "see": ", ".join(model.see),
        "status": row.status,
        "here": _how_much(on_disk),
        "revision": facts["revision"],
        "at hub": remote.get("commit"),
        "on disk": ", ".join(on_disk.commits),
        "locked": ", ".join(facts["locked_commits"]),
        "folder": str(on_disk.path),
        "catalog": session.client().catalogs.place_of(model) if model.is_of_catalog else "",
    }
    console.entries(lines)
    files = facts["files"]
    if files:
        console.data("")
        _show_files(session, files, has_status=on_disk.is_here)
        if facts["left_out"]:
            console.note(words_of_left_out([file.size for file in facts["left_out"]]))
        with_code = [file["path"] for file in files if file["runs_code"]]
        if with_code:
            console.note(words_of_code(with_code))
    elif model.sources and not model.gone:
        console.note(f"its files were never listed: 'mdl show --remote {model.sources[0]}' asks the hub")


def _show_files(session: Session, files: Sequence[Mapping[str, Any]], *, has_status: bool) -> None:
    """A row for each file, and how many and how large they are. If nothing of the model is here, no row says so."""
    headers = ["SIZE", "ROLE", "PATH", "DIGEST"]
    rows: list[list[str]] = []
    total = 0
    unknown = 0
    for file in files:
        row = _file_row(file)
        if has_status:
            row.insert(0, file["status"])
        rows.append(row)
        if file["size"] is None:
            unknown += 1
        else:
            total += file["size"]
    if has_status:
        headers.insert(0, "STATUS")
    session.console.table(headers, rows, cut=("DIGEST",), drop=("ROLE", "DIGEST"))
    summary = f"{counted(len(files), 'file')}, {human_bytes(total)}"
    if unknown:
        summary += f" and {counted(unknown, 'file')} of unknown size"
    session.console.note(summary)


def _file_row(file: Mapping[str, Any]) -> list[str]:
    size = human_bytes(file["size"])
    if file["status"] == "partial":
        size = f"{human_bytes(file['bytes_present'])} of {size}"
    digest = "-"
    if file["digest"]:
        algorithm, _, digits = file["digest"].partition(":")
        digest = f"{algorithm} {digits[:12]}"
    return [size, file["role"], shown(file["path"]), digest]


def _access(remote: Mapping[str, Any]) -> str:
    """Who may have a repository, as its hub says: ``gated, private``; '' if it was not asked."""
    if not remote:
        return ""
    kinds: list[str] = []
    if remote["is_gated"]:
        kinds.append("gated")
    if remote["is_private"]:
        kinds.append("private")
    return ", ".join(kinds) or "open"


def _how_much(on_disk: ModelStatus) -> str:
    """``40.6 MB of 200.0 MB, since 2026-11-23T11:40:12Z (3 h ago)``."""
    if not on_disk.is_here:
        return ""
    text = human_bytes(on_disk.bytes_present)
    if on_disk.bytes is not None and on_disk.bytes != on_disk.bytes_present:
        text += f" of {human_bytes(on_disk.bytes)}"
    if on_disk.since is not None:
        text += f", since {utc_time(on_disk.since)} ({age_since(on_disk.since)})"
    return text


@command(
    "path",
    'cd "$(mdl path bert-fa)"  # go to the folder',
    "mdl path --file org/repo:Q8_0  # the one file of a quantisation",
)
def path(
    session: Session,
    name: Name,
    settings: LookSettings,
    file: Annotated[bool, flag("--file", "The path of its one file; exit code 2 if it has several.")] = False,
) -> int:
    """Print the folder of a model that is on this disk, or its one file, and nothing else."""
    client = session.client(settings)
    folder = client.path(name)
    only_file: Path | None = None
    if file:
        only_file = client.path(name, file=True)
    return session.show({"path": folder, "file": only_file}, lambda: session.console.data(str(only_file or folder)))
