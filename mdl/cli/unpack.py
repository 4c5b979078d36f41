"""unpack, releases and rollback: an archive opened safely, put into service, and taken out of it again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import mdl
from mdl import UsageError
from mdl.cli.command import all_or_nothing, command
from mdl.cli.flags import LogFile, ReleaseSettings, argument, bare_flag, check_alone, flag
from mdl.cli.session import Session, typed
from mdl.config.places import place_of
from mdl.formatting import counted, human_bytes, if_known, local_time
from mdl.hashing import fingerprint
from mdl.paths import shown
from mdl.units import parse_size
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl import ArchiveMember, ReleaseList, ReleaseRequest, ReleaseResult
    from mdl.jobs.log import OperationLog


@value_class
class BombFlags:
    """How much an archive may hold before it is taken for a zip bomb."""

    max_members: Annotated[int, flag("--max-members N", "Refuse an archive of more members.", min=1)] = 1_000_000
    max_ratio: Annotated[
        float,
        flag("--max-ratio N", "Refuse an archive that unpacks to more than this times its size, past 100 MiB.", min=1),
    ] = 200


@value_class
class LimitFlags(BombFlags):
    """How much an archive may hold."""

    max_size: Annotated[
        str | None,
        flag("--max-size SIZE", "Refuse an archive that unpacks to more than this. [default: no limit]"),
    ] = None


Keep = Annotated[int, flag("--keep N", "With --release: how many releases stay.", panel="Afterwards", min=1)]
Check = Annotated[
    str | None,
    flag(
        "--check CMD",
        "With --release: must end with 0 before the switch; runs in the new folder; no shell.",
        panel="Afterwards",
    ),
]


@value_class
class ReleaseFlags:
    """How a release is put into service."""

    release: Annotated[
        bool,
        flag("--release", "Serve it: DIR/releases/<version>, and DIR/current switched to it.", panel="Afterwards"),
    ] = False
    keep: Keep = 3
    check: Check = None


@command(
    "unpack",
    "mdl unpack tts.zip --to models/tts  # a new folder, all or nothing",
    "mdl unpack tts.zip --list  # what it holds; nothing is written",
    "mdl unpack tts.zip --test  # every byte checked; nothing is written",
    "mdl unpack tts.zip --to /srv/tts --release  # into service",
)
def unpack(
    session: Session,
    source: Annotated[str, argument("ARCHIVE", "A zip, tar or tar.gz, mdl's own or any other.")],
    bounds: LimitFlags,
    serving: ReleaseFlags,
    settings: ReleaseSettings,
    target: Annotated[
        str | None, flag("--to DIR", "A new or empty folder. [default: the archive's name]", panel="Where")
    ] = None,
    listing: Annotated[bool, flag("--list", "List what is in it, and write nothing.")] = False,
    testing: Annotated[bool, flag("--test", "Read and check every byte, and write nothing.")] = False,
    log_file: LogFile = None,
) -> int:
    """Unpack an archive into a new folder, all or nothing; everything is checked before the first byte is written."""
    session.empty = {"archive": source}
    archive = place_of(source, "ARCHIVE")
    to = place_of(target, "--to") if target is not None else None
    size = parse_size(bounds.max_size, "--max-size") if bounds.max_size else None
    limits = mdl.ArchiveLimits(bounds.max_members, bounds.max_ratio, size)
    if serving.check is not None and not serving.release:
        raise UsageError("--check belongs to --release", hint="add --release, or leave out --check")
    if serving.release:
        check_alone("--release", {"--list": listing, "--test": testing}, "puts the archive into service")
    if listing:
        check_alone("--list", {"--test": testing}, "reads no file of the archive")
    if listing:
        with session.console.watch(method="inline") as on_event:
            rows = mdl.contents(archive, limits=limits, cancel=session.cancel, on_event=on_event)
        return _show_members(session, archive, rows)
    if testing:
        with session.console.watch(method="inline") as on_event, all_or_nothing():
            rows = mdl.verify_archive(archive, limits=limits, cancel=session.cancel, on_event=on_event)
        return _show_members(session, archive, rows)
    with session.operation_log(log_file) as log:
        if serving.release:
            if to is None:
                raise UsageError("--release needs the folder of the releases", hint="add --to DIR")
            wait = session.config_of(settings)["lock_wait"]
            request = mdl.ReleaseRequest(archive, to, serving.keep, serving.check, limits, wait)
            return _release(session, archive, request, log)
        with session.console.watch(method="inline", others=[log]) as on_event, all_or_nothing():
            done = mdl.unpack(mdl.UnpackRequest(archive, to, limits), on_event=on_event)
        log.note(archive.name, f"unpacked into {done.path}, {counted(done.files, 'file')}, {done.bytes} bytes")
    path = str(done.path)
    facts = _facts(archive, files=done.files, size=done.bytes, path=path) if session.common.json else {}
    return session.show(facts, lambda: session.console.data(path))


def _facts(archive: Path, *, files: int, size: int, path: str | None, **more: Any) -> dict[str, Any]:
    with archive.open("rb") as file:
        sha256 = fingerprint(file.fileno(), "sha256").digest.hex
    facts = {"archive": str(archive), "bytes": size, "files": files, "sha256": sha256, "skipped": [], "path": path}
    return facts | more


def _show_members(session: Session, archive: Path, rows: list[ArchiveMember]) -> int:
    if session.common.json:
        size = sum(row.size for row in rows)
        return session.show(_facts(archive, files=len(rows), size=size, path=None, members=rows))
    table = []
    for row in rows:
        packed = if_known(row.packed, human_bytes)
        table.append((human_bytes(row.size), packed, (row.sha256 or "")[:12], shown(row.path)))
    session.console.table(("SIZE", "PACKED", "SHA256", "PATH"), table, drop=("PACKED", "SHA256"))
    return 0


def _release(session: Session, archive: Path, request: ReleaseRequest, log: OperationLog) -> int:
    with session.console.watch(method="inline", others=[log]) as on_event, all_or_nothing():
        done = mdl.release(request, cancel=session.cancel, on_event=on_event)
    _note_release(log, done)
    facts: dict[str, Any] = {}
    if session.common.json:
        files = done.manifest.files if done.manifest else ()
        size = sum(one.size for one in files)
        path = str(done.path)
        facts = _facts(archive, files=len(files), size=size, path=path, release=released_facts(done))
    return session.show(facts, lambda: show_release(session, done))


def show_release(session: Session, done: ReleaseResult) -> None:
    """What is served now, what was served before, what was removed, and last the folder."""
    if not done.changed:
        session.console.note(f"{done.version} was served already")
    else:
        before = f"; before it: {done.previous}" if done.previous else ""
        session.console.note(f"{done.version} is served now, as {done.path.parent.parent / 'current'}{before}")
    for version in done.removed:
        session.console.note(f"removed the old release {version}")
    session.console.data(str(done.path))


def _note_release(log: OperationLog, done: ReleaseResult) -> None:
    """Have the log say what is served now, what was served before, and what was removed."""
    before = f"; before it: {done.previous}" if done.previous else ""
    log.note(done.version, f"{'is served now' if done.changed else 'was served already'}: {done.path}{before}")
    for version in done.removed:
        log.note(version, "this old release was removed")


def released_facts(done: ReleaseResult) -> dict[str, Any]:
    names = ("version", "changed", "previous", "linked", "removed")
    return {name: getattr(done, name) for name in names}


ReleasesFolder = Annotated[str, argument("DIR", "A folder of releases.")]


@command(
    "releases",
    "mdl releases /srv/tts  # what is here, and which one is served",
    "mdl releases /srv/tts --history  # what was served when",
)
def releases(
    session: Session,
    folder: ReleasesFolder,
    history: Annotated[bool, bare_flag("--history", "Every switch: when, from and to which, by whom.")] = False,
) -> int:
    """List the releases of a folder, the newest first, and say which one is served."""
    found = mdl.releases(place_of(folder, "DIR"))
    show = _show_history if history else _show_releases
    return session.show({**vars(found), "current": found.current or None}, lambda: show(session, found))


def _show_releases(session: Session, found: ReleaseList) -> None:
    rows = [
        (
            one.version,
            one.state if one.is_complete else f"{one.state}, incomplete",
            if_known(one.released_at, local_time),
            if_known(one.served_at, local_time),
            "?" if one.files is None else str(one.files),
            human_bytes(one.bytes),
        )
        for one in reversed(found.versions)
    ]
    heads = ("VERSION", "STATE", "RELEASED", "LAST SERVED", "FILES", "SIZE")
    session.console.table(heads, rows, cut=(), drop=("RELEASED", "FILES", "LAST SERVED", "SIZE"))
    if not found.current:
        serve = typed(["mdl", "rollback", str(found.folder), "--to", "VERSION"])
        session.console.note(f"none is served: 'current' is gone, or leads to none of them; '{serve}' serves one")


def _show_history(session: Session, found: ReleaseList) -> None:
    rows = [
        (if_known(one.time, local_time), one.why, one.before, one.after, one.by) for one in reversed(found.switches)
    ]
    session.console.table(("TIME", "WHAT", "FROM", "TO", "BY"), rows, cut=(), drop=("BY", "FROM"))


@command(
    "rollback",
    "mdl rollback /srv/tts  # serve the release before",
    "mdl rollback /srv/tts --to step-1500  # the one with this in its name",
)
def rollback(
    session: Session,
    folder: ReleasesFolder,
    settings: ReleaseSettings,
    to: Annotated[str | None, bare_flag("--to VERSION", "This release: its name, or any unique part of it.")] = None,
    log_file: LogFile = None,
) -> int:
    """Serve the previous release again, or another one: one atomic switch, without a network."""
    if to == "":
        raise UsageError("the version is empty", item="--to", hint="is a variable unset?")
    wait = session.config_of(settings)["lock_wait"]
    place = place_of(folder, "DIR")
    with session.operation_log(log_file) as log:
        with session.console.watch(method="inline", others=[log]) as on_event:
            done = mdl.rollback(place, to=to or "", lock_wait=wait, cancel=session.cancel, on_event=on_event)
        _note_release(log, done)
    facts = {"path": str(done.path), "release": released_facts(done)}
    return session.show(facts, lambda: show_release(session, done))
