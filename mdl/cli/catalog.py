"""search, init, add, remove, lock and export: what the hub has for a catalog, the catalog begun and edited, its
comments kept; and what its models are resolved to, written down, also for other programs."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from mdl.cli.command import command
from mdl.cli.flags import AskSettings, Globs, LockedNames, argument, bare_flag, flag
from mdl.cli.session import Session, note_new_catalog
from mdl.formatting import first_of, human_bytes
from mdl.paths import shown
from mdl.redact import Requested
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl import LockReport

_COMMIT = re.compile(r"(?<=\b[0-9a-f]{7})[0-9a-f]{33}\b")
"""What of a commit is too much for people."""


@value_class
class EntryFlags(Globs):
    """What a new entry says."""

    title: Annotated[str | None, flag("--title TEXT", "Human-readable title.")] = None
    kind: Annotated[str | None, flag("--kind KIND", "model, tts, dataset, lora …")] = None
    license: Annotated[str | None, flag("--license LICENSE", "Its licence.")] = None
    tag: Annotated[list[str] | None, flag("--tag TAG", "Tag for filtering; repeatable.")] = None
    revision: Annotated[str | None, flag("--revision REV", "Commit, tag or branch.")] = None
    group: Annotated[list[str] | None, flag("--group NAME", "Group to put it into, repeatable.")] = None


@command(
    "init",
    "mdl init  # catalog.toml in your config folder",
    "mdl init .  # one for the project in this folder",
)
def init(
    session: Session,
    place: Annotated[
        Path | None,
        argument("DIR|FILE", "Where; without it catalog.toml in the user config folder."),
    ] = None,
) -> int:
    """Create a catalog of your own, with nothing in it yet."""
    path = session.client().init(place)

    def show() -> None:
        session.console.data(str(path))
        session.console.note("'mdl add NAME SOURCE' adds a model to it")

    return session.show({"path": path}, show)


@command(
    "add",
    "mdl add whisper hf:openai/whisper-small  # a repository",
    "mdl add tiny https://host/tiny.gguf --kind llm  # a file",
)
def add(
    session: Session,
    name: Annotated[str, argument("NAME", "The name of the model.", autocompletion=None)],
    source: Annotated[list[str], argument("SOURCE", "hf:org/repo or a URL, several for one model.")],
    entry: EntryFlags,
) -> int:
    """Add a model to the catalog; comments stay where they are."""
    facts = {"title": entry.title or "", "kind": entry.kind or "", "license": entry.license or ""}
    lists = {"tags": entry.tag or [], **entry.globs}
    client = session.client()
    is_first = client.catalogs.is_shipped
    path = client.add(name, source, groups=entry.group or (), **facts, **lists, revision=entry.revision or "")
    if is_first:
        note_new_catalog(session)
    then = f"'mdl get {name}' downloads it, 'mdl lock {name}' pins its current version"
    return _show_edited(session, path, name, then)


@command(
    "remove",
    "mdl remove whisper  # from the catalog; its files stay",
    "mdl remove whisper --catalog team.toml  # from this catalog",
)
def remove(
    session: Session,
    name: Annotated[str, argument("NAME", "A model of the catalog. Its files stay on the disk.")],
) -> int:
    """Remove a model from the catalog; comments stay, and so do the files on the disk."""
    client = session.client()
    before = {group for group, members in client.catalog.groups.items() if name in members}
    path = client.remove(name)
    left = before - {group for group, members in client.catalog.groups.items() if name in members}
    if left:
        session.console.note(f"{name} was in {', '.join(sorted(left))}, and was removed from there too")
    return _show_edited(session, path, name)


def _show_edited(session: Session, path: Path, name: str, then: str = "") -> int:
    def show() -> None:
        session.console.data(str(path))
        if then:
            session.console.note(then)

    return session.show({"path": path, "name": name}, show)


@command(
    "lock",
    "mdl lock  # every model of your catalog",
    "mdl lock --upgrade bert-fa  # its newest commit",
    "mdl lock --check  # for CI: does it match the catalog? Needs no network",
)
def lock(
    session: Session,
    settings: AskSettings,
    check: Annotated[
        bool, flag("--check", "Compare catalog and lock, offline; list what differs, and exit with 8.")
    ] = False,
    upgrade: Annotated[list[str] | None, flag("--upgrade NAME", "Resolve this model again; repeatable.")] = None,
    names: Annotated[
        list[str] | None, argument("NAME", "Models and groups to lock; without one, all models of your own catalog.")
    ] = None,
) -> int:
    """Resolve models to commits, files, sizes and digests, and write them to mdl.lock beside the catalog."""
    client = session.client(settings)
    session.empty = {"path": client.catalogs.lock_path}
    report = session.watched(partial(client.lock, names or None, check=check, upgrade=upgrade or ()))
    error = report.error
    for line in first_of(report.changes) if not session.common.json else ():
        session.console.note(_COMMIT.sub("", line), always=error is not None)
    if len(report.failures) > 1:
        session.errors([*report.failures.values()])
    if error:
        session.console.error(error)
    facts = {"path": report.path, "changes": report.changes, "models": report.models}
    if not (check or error or report.changes):
        session.console.note(f"nothing changed; {sum(row.locked for row in report.models)} locked")
    return session.show(facts, lambda: _show_lock(session, report), error=error)


def _show_lock(session: Session, report: LockReport) -> None:
    for row in report.models:
        if row.without_digest:
            what = "1 file has" if row.without_digest == 1 else f"{row.without_digest} files have"
            session.console.note(f"{row.name}: {what} no published digest; the first 'mdl get' records what came")
    if os.path.exists(report.path):
        session.console.data(str(report.path))


@command(
    "export",
    "mdl export bert-fa  # one URL per line",
    "mdl export --format aria2 | aria2c -i -  # fetch it all with aria2",
    "mdl export --format sha256sums > SHA256SUMS  # for sha256sum -c",
)
def export(
    session: Session,
    names: LockedNames = None,
    list_format: Annotated[
        Literal["urls", "aria2", "metalink", "sha256sums"],
        flag("--format", "urls, aria2 (for aria2c -i), metalink (RFC 5854) or sha256sums.", panel="Output"),
    ] = "urls",
) -> int:
    """Print the locked files as a list for other programs. Paths are relative to the models folder."""
    found = session.client().export(names or None, list_format=list_format)
    left_out = [{"path": path, "why": why} for path, why in found.left_out.items()]
    session.console.check_file(found.text)
    facts = {"format": found.format, "text": Requested(found.text), "files": found.files}

    def show() -> None:
        session.console.file(found.text)
        for line in first_of([f"left out: {shown(path)}: {why}" for path, why in found.left_out.items()]):
            session.console.note(line)

    return session.show(facts | {"skipped": left_out}, show)


@command(
    "search",
    "mdl search whisper  # the models that are downloaded most",
    "mdl search persian tts --sort modified --limit 5  # the newest",
    "mdl search parsinlu --kind dataset --json  # for a script",
)
def search(
    session: Session,
    words: Annotated[list[str], argument("TEXT", "A part of their names.")],
    settings: AskSettings,
    kind: Annotated[Literal["model", "dataset"], flag("--kind", "What to look for.")] = "model",
    sort: Annotated[
        Literal["downloads", "likes", "modified"],
        bare_flag("--sort", "The order: those with the most, or the newest, first.", panel="Output"),
    ] = "downloads",
    limit: Annotated[int, flag("--limit N", "How many at most, 1 to 100.", panel="Output")] = 20,
) -> int:
    """Find repositories of the hub by a part of their names: size, licence, and whether access is restricted.

    The size counts all revisions of a repository; 'mdl show --remote org/repo' has the size of the newest.
    """
    found = session.client(settings).search(" ".join(words), kind=kind, sort=sort, limit=limit)

    def show() -> None:
        rows = [
            (
                one.repo.removeprefix("hf:"),
                human_bytes(one.bytes),
                f"{one.downloads:,}" if one.downloads is not None else "?",
                one.license,
                one.access,
                (one.modified_at or "")[:10],
            )
            for one in found
        ]
        heads = ("REPOSITORY", "SIZE", "DOWNLOADS", "LICENSE", "ACCESS", "MODIFIED")
        session.console.table(heads, rows, cut=(), drop=("LICENSE", "MODIFIED", "DOWNLOADS", "ACCESS"))
        note = "'mdl get REPOSITORY' downloads one; 'mdl add NAME hf:REPOSITORY' adds it to your catalog"
        session.console.note(note if found else "the hub has no such repository")

    return session.show({"repos": found}, show)
