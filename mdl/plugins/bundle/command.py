"""bundle: models for machines without a network, as one tar or its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from mdl import UsageError
from mdl.cli.command import all_or_nothing, command
from mdl.cli.flags import LogFile, LookSettings, argument, bare_flag, flag
from mdl.cli.session import Session, note_new_catalog, warn_of_queries
from mdl.formatting import counted, human_bytes
from mdl.paths import shown
from mdl.plugins import bundle as bundles

if TYPE_CHECKING:
    from mdl.plugins.bundle.manifest import BundledFile, BundleExport, BundleImport

_KEPT = "nothing was written; run the same command again"
_IMPORTED = "what was imported is kept; run the same command again to continue"


@command(
    "bundle",
    "mdl bundle export bert-fa -o models.tar  # on this machine",
    "mdl bundle import models.tar  # on the machine without a network",
    group_help="Carry models to machines without a network, as one plain tar that sha256sum -c can check.",
)
def bundle(session: Session) -> int:
    """Refused: it must be named whether to export or to import."""
    hint = "mdl bundle export NAME -o FILE, or mdl bundle import FILE"
    raise UsageError("export or import is missing", item="mdl bundle", hint=hint)


@command(
    "bundle export",
    "mdl bundle export bert-fa -o models.tar  # one tar",
    "mdl bundle export nightly -o stick/all.tar --split 4G  # parts for FAT32",
)
def export(
    session: Session,
    names: Annotated[list[str], argument("NAME", "Models and groups that are on this disk.")],
    settings: LookSettings,
    output: Annotated[str | None, flag("-o --output FILE", "The tar to write.", panel="Where")] = None,
    split: Annotated[
        str | None, flag("--split SIZE", "Write parts of at most this size: FILE.000 and so on.", panel="Where")
    ] = None,
    force: Annotated[bool, bare_flag("--force", "Replace a file that is not a bundle of mdl.", panel="Where")] = False,
    log_file: LogFile = None,
) -> int:
    """Write models of this disk to a tar, with digests, catalog entries, lock and a README. Nothing is contacted."""
    if output in (None, "-"):
        why = "a bundle goes to a file" if output else "the file to write is missing"
        raise UsageError(why, item="-o", hint="add -o FILE; --split SIZE writes parts")
    client = session.client(settings)
    with session.operation_log(log_file) as log:
        session.labels = client.labels([model for name in names for model in client.models_here(name)])
        with session.console.watch(method="inline", others=[log]) as on_event, all_or_nothing(_KEPT):
            done = bundles.export_bundle(client, names, output, split=split, force=force, on_event=on_event)
        log.note(done.path.name, f"wrote {counted(len(done.parts), 'file')}, {done.bytes} bytes")
    facts = {"path": done.path, "bytes": done.bytes, "parts": done.parts, "sums": done.sums, "models": _models(done)}
    facts |= {"restricted": done.restricted, "queries_left_out": done.left_out}
    warn_of_queries(session, done.left_out)
    return session.show(facts, lambda: _show_export(session, done))


def _show_export(session: Session, done: BundleExport) -> None:
    _warn_of_unverified(session, done)
    for name in done.restricted:
        why = "gated or private at its source; see that those who get the bundle may have it"
        session.console.note(f"restricted: {shown(session.spelled(name))}: {why}")
    for path in [*(part.path for part in done.parts), *filter(None, [done.sums])]:
        session.console.data(str(path))


@command(
    "bundle import",
    "mdl bundle import models.tar  # everything in it",
    "mdl bundle import /media/stick/models.tar.000  # in parts: the first one",
)
def import_bundle(
    session: Session,
    place: Annotated[str, argument("FILE", "The tar, or the first of its parts.")],
    settings: LookSettings,
    replace: Annotated[
        bool, bare_flag("--replace", "Replace other entries of these names in catalog and lock.")
    ] = False,
    log_file: LogFile = None,
) -> int:
    """Import the models of a bundle into the models folder, and their entries into the catalog and its lock.

    Each file is compared with its digest while it is written. Nothing is contacted."""
    if place == "-":
        hint = "write what comes to a file first: cat > models.tar"
        raise UsageError("a bundle is read from a file", item="-", hint=hint)
    client = session.client(settings)
    had_none = client.catalogs.is_shipped
    with session.operation_log(log_file) as log:
        with session.console.watch(method="inline", others=[log]) as on_event, all_or_nothing(_IMPORTED):
            done = bundles.import_bundle(client, place, replace=replace, on_event=on_event)
        log.note(done.path.name, f"imported {', '.join(done.folders)}")
    facts = {"path": done.path, "models": _models(done), "added": done.added, "locked": done.locked}
    facts |= {"bytes": sum(file.size for file in done.files), "catalog": done.catalog, "lock": done.lock}
    if had_none and done.added:
        note_new_catalog(session)
    return session.show(facts, lambda: _show_import(session, done))


def _show_import(session: Session, done: BundleImport) -> None:
    console = session.console
    models = session.client().catalog.models
    # org/name means all of a repository: an entry that names some of its files has its own name alone (ADR 157)
    whole = [models[name] for name in done.folders if name in models and not models[name].include]
    session.labels = session.client().labels(whole)
    for name in done.folders:
        doubtful = [file.path for file in done.files if file.model == name and file.verified == "none"]
        if doubtful:
            more = f" and {len(doubtful) - 1} more" if len(doubtful) > 1 else ""
            why = f"only the bundle says which bytes are right; online, 'mdl lock {shown(name)}' asks its source"
            console.note(f"unverified: {shown(session.spelled(f'{name}/{doubtful[0]}'))}{more}: {why}")
    if kept := [file for file in done.files if file.action == "kept"]:
        console.note(f"here already: {_amount(kept)}")
    for name in done.added:
        console.note(f"added {shown(session.spelled(name))} ({shown(models[name].source_text)}) to {done.catalog}")
    if done.locked:
        console.note(f"locked in {done.lock}: {', '.join([shown(session.spelled(name)) for name in done.locked])}")
    for folder in done.folders.values():
        console.data(str(folder))


def _warn_of_unverified(session: Session, done: BundleExport) -> None:
    for file in done.files:
        if file.verified == "none":
            where = shown(session.spelled(f"{file.model}/{file.path}"))
            session.console.note(f"unverified: {where}: no digest is published; it has that of the first download")


def _amount(files: list[BundledFile]) -> str:
    return f"{counted(len(files), 'file')}, {human_bytes(sum(file.size for file in files))}"


def _models(done: BundleExport | BundleImport) -> list[dict[str, Any]]:
    """The models with their files, as JSON has them."""
    folders = getattr(done, "folders", {})
    found: dict[str, list[dict[str, Any]]] = {}
    for file in done.files:
        facts = {name: value for name, value in vars(file).items() if name != "model"}
        found.setdefault(file.model, []).append(facts)
    return [{"name": name, "path": folders.get(name), "files": files} for name, files in found.items()]
