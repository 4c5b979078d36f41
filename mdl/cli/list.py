"""list, show, path: what the catalog has, and what is on this disk. Only 'show --remote' contacts anything."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mdl.cli.command import command
from mdl.cli.flags import LookSettings, argument, bare_flag, flag
from mdl.cli.model_table import (
    LISTED,
    LOCAL,
    MEMBER,
    Row,
    column_of,
    exact_rows,
    in_order,
    table_of,
)
from mdl.cli.session import Session
from mdl.formatting import counted, human_age, human_bytes, utc_time, words_of_code, words_of_left_out
from mdl.paths import shown
from mdl.redact import open_url

if TYPE_CHECKING:
    from mdl import Client, Inventory, Model, ModelStatus, RemoteModel

    Pair = tuple[Model, ModelStatus]

Name = Annotated[str, argument("NAME", "A model of the catalog or on this disk, or hf:org/repo, or a URL.")]


@command(
    "list",
    "mdl list  # the catalog, and what of it is here",
    "mdl list --local --sort size  # all that is on this disk, the largest first",
    "mdl list --columns name,license,size  # the table as you want it",
    "mdl list --local --columns name,size --format tsv  # for cut, awk and sort",
    "mdl list persian-nlp  # the members of a group",
    "mdl list 'bert*' --missing --json  # for a script",
)
def list_models(
    session: Session,
    settings: LookSettings,
    patterns: Annotated[list[str] | None, argument("PATTERN|GROUP", "Part of a name, a glob, or a group.")] = None,
    kind: Annotated[str | None, flag("--kind KIND", "Only this kind: model, tts, dataset …")] = None,
    tag: Annotated[str | None, flag("--tag TAG", "Only with this tag.")] = None,
    local: Annotated[
        bool, flag("--local", "All that is on this disk, in the catalog or not, in both layouts.")
    ] = False,
    present: Annotated[bool, flag("--present", "Only what is complete on this disk.")] = False,
    partial: Annotated[bool, flag("--partial", "Only what is partly here.")] = False,
    missing: Annotated[bool, flag("--missing", "Only what is not here.")] = False,
    sort: Annotated[
        str | None, flag("--sort COLUMN", "In the order of this column; numbers: largest first.", panel="Output")
    ] = None,
    columns: Annotated[
        str | None, flag("--columns COLUMN,…", "The columns of the table: name,size,folder …", panel="Output")
    ] = None,
    table_format: Annotated[
        Literal["table", "tsv"],
        bare_flag("--format", "tsv: bytes and UTC times, a tab between, no head.", panel="Output"),
    ] = "table",
) -> int:
    """Every model of the catalog, with what is on this disk; --local: all that is on this disk.

    With --layout it is what is there in that layout, too, in the catalog or not.
    """
    chosen: tuple[str, ...] = LOCAL if local else LISTED
    if columns:
        chosen = tuple(map(column_of, columns.split(",")))
    order = column_of(sort) if sort else None
    client = session.client(settings)
    asked = {"present": present, "unverified": present, "partial": partial, "missing": missing}
    statuses = [status for status, is_asked in asked.items() if is_asked]
    is_all = not (patterns or kind or tag or statuses)
    narrow: dict[str, Any] = {"kind": kind, "tag": tag}
    inventory = None
    here: list[Pair] = []
    if local or settings.get("layout"):
        inventory = client.inventory(patterns or None, **narrow)
        here = [pair for pair in inventory.models if not statuses or pair[1].status in statuses]
    pairs = here
    if not local:
        pairs = _with_those_here(client.statuses(patterns or None, **narrow, status=statuses or None), here)
    rows = in_order([Row(*pair, is_local=local) for pair in pairs], order)

    def show_table() -> None:
        if table_format == "tsv":
            session.console.tab_separated(exact_rows(rows, chosen))
        elif not rows and inventory is None:
            session.console.note(_why_none(client, is_all=is_all))
        else:
            session.console.table(**table_of(rows, chosen, keeps_all=bool(columns)))
            _show_totals(session, client, rows, inventory if local else None, is_all=is_all)
            if is_all and inventory is None:
                _show_unlisted(session, client)

    groups = [{"name": name, "models": list(members)} for name, members in client.catalog.groups.items()]
    return session.show({"models": [_facts(row.model, row.found) for row in rows], "groups": groups}, show_table)


def _with_those_here(listed: list[Pair], here: Sequence[Pair]) -> list[Pair]:
    """The catalog's models, and those on this disk that are not among them."""
    names: set[str] = set()
    repositories: set[str] = set()
    for model, status in listed:
        names.add(model.name)
        if status.is_here:
            repositories.update(source.repository for source in model.sources if source.repository)
    pairs = list(listed)
    for model, status in here:
        is_listed = model.name in names or any(source.repository in repositories for source in model.sources)
        if not is_listed:
            pairs.append((model, status))
    return pairs


def _why_none(client: Client, *, is_all: bool) -> str:
    if is_all and client.catalog.models:
        return "your catalog has no model of its own; 'mdl list PATTERN' finds those that it extends too"
    return "the catalog has no such model; 'mdl list --local' shows all that is on this disk"


def _show_totals(
    session: Session, client: Client, rows: Sequence[Row], local: Inventory | None, *, is_all: bool
) -> None:
    """The last line of a list, and what unfinished downloads take beside; ``local`` is what is on this disk, if that
    is listed."""
    if local is None:
        session.console.note(_last_line(rows, client.catalog.groups if is_all else {}))
        if client.catalogs.is_shipped:
            session.console.note("this catalog comes with mdl; 'mdl init' begins one of your own")
        return
    is_whole = len(rows) == len(local.models)  # else bytes that models share count for each
    session.console.note(_last_line(rows, {}, local.bytes if is_whole else None))
    if is_all and local.unfinished:
        size = human_bytes(local.unfinished)
        session.console.note(f"{size} more of unfinished downloads: the same 'mdl get' goes on")


def _show_unlisted(session: Session, client: Client) -> None:
    """Say how many models of the models folder the catalog does not name."""
    count = len(set(client.stores.open().receipts.models()) - client.catalog.models.keys())
    if count:
        session.console.note(f"{counted(count, 'more model')} on this disk that no catalog names: 'mdl list --local'")


def _last_line(rows: Sequence[Row], groups: Mapping[str, object], total: int | None = None) -> str:
    """``12 models, 3 here, 1 partly (4.1 GB); groups: nightly``."""
    named = f"; groups: {', '.join(groups)}" if groups else ""
    here = 0
    partly = 0
    size = 0
    for row in rows:
        if row.found.is_here:
            size += row.found.bytes_present
            if row.found.status == "partial":
                partly += 1
            else:
                here += 1
    models = counted(len(rows), "model")
    if here + partly == 0:
        return f"{models}, none here{named}"
    unfinished = f", {partly} partly" if partly else ""
    return f"{models}, {here} here{unfinished} ({human_bytes(size if total is None else total)}){named}"


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
        "path": found.path,
        "gone": model.gone or None,
        "note": model.note or None,
        "commits": list(found.commits),
        "since": utc_time(found.since),
        "layout": found.layout,
        "brought_by": found.brought_by,
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
    """One model: files, sources, sizes, licence, status. Of a group: its members."""
    client = session.client(settings)
    groups = client.catalog.groups if _is_name(name) else {}
    if name in groups and name not in client.catalog.models:
        return _show_group(session, client, name, groups[name])
    described: RemoteModel | None = None
    if remote:
        model, described = client.remote_model(name)
        found = described.status
    else:
        model, found = client.status(name)
    locked = client.locked_commits(model)
    wanted = [origin.revision or origin.branch for origin in model.sources]
    code = client.can_run_code(found)
    files = [_file_facts(row, code) for row in found.rows]
    facts = {
        "model": _facts(model, found),
        "files": files,
        "revision": ", ".join(filter(None, wanted)) or None,
        "locked_commits": locked,
        "remote": vars(described.facts) if described and described.facts else None,
        "left_out": described.left_out if described else (),
    }
    return session.show(facts, lambda: _show_text(session, model, found, facts))


def _is_name(text: str) -> bool:
    return ":" not in text


def _show_group(session: Session, client: Client, name: str, members: Sequence[str]) -> int:
    rows = [Row(*pair) for pair in client.statuses(name) if pair[0].name in members]

    def show_table() -> None:
        session.console.table(**table_of(rows, MEMBER))
        session.console.note(f"the group {name}: {_last_line(rows, {})}")

    described = [_facts(row.model, row.found) for row in rows]
    return session.show({"group": name, "members": described}, show_table)


def _file_facts(row: Any, code: Mapping[str, bool | None]) -> dict[str, Any]:
    name = row.remote.path.text
    digest = row.remote.digest
    return {
        "path": name,
        "role": row.remote.role,
        "url": open_url(row.remote.url),
        "size": row.remote.size,
        "sha256": digest.hex if digest and digest.algorithm == "sha256" else None,
        "digest": str(digest) if digest else None,
        "status": row.status,
        "bytes_present": row.bytes_present,
        "runs_code": code[name],
    }


def _show_text(session: Session, model: Model, found: ModelStatus, facts: Mapping[str, Any]) -> None:
    console = session.console
    remote = facts["remote"] or {}
    lines = {
        "name": Row(model, found).name,
        "title": model.title if model.title != model.name else "",
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
        "status": Row(model, found).status,
        "here": _how_much(found),
        "revision": facts["revision"],
        "at hub": remote.get("commit"),
        "on disk": ", ".join(found.commits),
        "locked": ", ".join(facts["locked_commits"]),
        "folder": str(found.path),
        "catalog": session.client().catalogs.place_of(model) if model.is_of_catalog else "",
    }
    console.entries(lines)
    if facts["files"]:
        console.data("")
        _show_files(session, facts["files"], has_status=found.is_here)
        if facts["left_out"]:
            console.note(words_of_left_out([file.size for file in facts["left_out"]]))
        with_code = [file["path"] for file in facts["files"] if file["runs_code"]]
        if with_code:
            console.note(words_of_code(with_code))
    elif model.sources and not model.gone:
        console.note(f"its files were never listed: 'mdl show --remote {model.sources[0]}' asks the hub")


def _show_files(session: Session, files: Sequence[Mapping[str, Any]], *, has_status: bool) -> None:
    """A row for each file, and how many and how large they are. If nothing of the model is here, no row says so."""
    headers = ["STATUS", "SIZE", "ROLE", "PATH", "DIGEST"]
    rows = [list(_file_row(row)) for row in files]
    if not has_status:
        headers = headers[1:]
        rows = [row[1:] for row in rows]
    session.console.table(headers, rows, cut=("DIGEST",), drop=("ROLE", "DIGEST"))
    sizes = [row["size"] for row in files if row["size"] is not None]
    unknown = "" if len(sizes) == len(files) else f" and {counted(len(files) - len(sizes), 'file')} of unknown size"
    session.console.note(f"{counted(len(files), 'file')}, {human_bytes(sum(sizes))}{unknown}")


def _access(remote: Mapping[str, Any]) -> str:
    if not remote:
        return ""
    kinds = [kind for kind in ("gated", "private") if remote[f"is_{kind}"]]
    return ", ".join(kinds) or "open"


def _how_much(found: ModelStatus) -> str:
    """``40.6 MB of 200.0 MB, since 2026-11-23T11:40:12Z (3 h ago)``."""
    if not found.is_here:
        return ""
    whole = f" of {human_bytes(found.bytes)}" if found.bytes is not None and found.bytes != found.bytes_present else ""
    since = "" if found.since is None else f", since {utc_time(found.since)} ({human_age(time.time() - found.since)})"
    return f"{human_bytes(found.bytes_present)}{whole}{since}"


def _file_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    algorithm, _, digits = (row["digest"] or "").partition(":")
    size = human_bytes(row["size"])
    if row["status"] == "partial":
        size = f"{human_bytes(row['bytes_present'])} of {size}"
    return row["status"], size, row["role"], shown(row["path"]), f"{algorithm} {digits[:12]}" if digits else "-"


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
    only_file = client.path(name, file=True) if file else None
    return session.show({"path": folder, "file": only_file}, lambda: session.console.data(str(only_file or folder)))
