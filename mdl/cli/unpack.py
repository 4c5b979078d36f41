"""unpack and rollback: an archive opened safely, put into service, and taken out of it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

import mdl
from mdl import ArchiveLimits, ReleaseResult, UsageError
from mdl.cli.command import all_or_nothing, command
from mdl.cli.flags import ReleaseSettings, flag
from mdl.cli.session import Session
from mdl.formatting import human_bytes
from mdl.hashing import fingerprint
from mdl.paths import shown
from mdl.places import place_of
from mdl.units import parse_size


@dataclass(frozen=True)
class LimitFlags:
    """How much an archive may hold."""

    max_members: Annotated[int, flag("--max-members", "Refuse an archive of more members.", min=1)] = 1_000_000
    max_ratio: Annotated[
        float,
        flag("--max-ratio", "Refuse an archive that unpacks to more than this times its size, past 100 MiB.", min=1),
    ] = 200.0
    max_size: Annotated[
        str | None,
        flag("--max-size SIZE", "Refuse an archive that unpacks to more than this. [default: no limit]"),
    ] = None


@dataclass(frozen=True)
class ReleaseFlags:
    """How a release is put into service."""

    release: Annotated[
        bool, flag("--release", "Put it into service: DIR/releases/<version>, and DIR/current switched to it.")
    ] = False
    keep: Annotated[int, flag("--keep N", "With --release: how many releases stay.", min=1)] = 3
    check: Annotated[str | None, flag("--check CMD", "With --release: must end with 0 before the switch.")] = None


_EXAMPLES = """Examples: mdl unpack tts.zip --to models/tts · mdl unpack tts.zip --list ·
mdl unpack tts.zip --to /srv/tts --release --keep 3 --check './smoke-test'"""


@command("unpack", epilog=_EXAMPLES)
def unpack(
    session: Session,
    source: Annotated[str, typer.Argument(metavar="ARCHIVE", help="A zip, mdl's own or any other.")],
    bounds: LimitFlags,
    serving: ReleaseFlags,
    settings: ReleaseSettings,
    target: Annotated[str | None, flag("--to DIR", "A new or empty folder. [default: the archive's name]")] = None,
    listing: Annotated[bool, flag("--list", "Check it, show what it holds, write nothing.")] = False,
) -> int:
    """Unpack a zip into a new folder, all or nothing; everything is checked before the first byte is written."""
    session.empty = {"archive": source}
    archive = place_of(source, "ARCHIVE")
    to = place_of(target, "--to") if target is not None else None
    size = parse_size(bounds.max_size, "--max-size") if bounds.max_size else None
    limits = ArchiveLimits(bounds.max_members, bounds.max_ratio, size)
    if serving.check is not None and not serving.release:
        raise UsageError("--check belongs to --release", hint="add --release, or leave out --check")
    if listing and serving.release:
        raise UsageError("--list writes nothing, --release puts into service", hint="choose one of the two")
    if listing:
        return _show_archive(session, archive, limits)
    if serving.release:
        return _release(session, archive, to, limits, serving, session.config_of(settings)["lock_wait"])
    with session.console.watch(method="inline") as on_event, all_or_nothing():
        done = mdl.unpack(archive, to, limits=limits, on_event=on_event)
    path = str(done.path)
    facts = _facts(archive, files=done.files, size=done.bytes, path=path) if session.common.json else {}
    return session.show(facts, lambda: session.console.data(path))


def _facts(archive: Path, *, files: int, size: int, path: str | None, **more: Any) -> dict[str, Any]:
    with archive.open("rb") as file:
        sha256 = fingerprint(file.fileno(), "sha256").digest.hex
    facts = {"archive": str(archive), "bytes": size, "files": files, "sha256": sha256, "skipped": [], "path": path}
    return facts | more


def _show_archive(session: Session, archive: Path, limits: ArchiveLimits) -> int:
    rows = mdl.contents(archive, limits=limits)
    if session.common.json:
        members, size = [vars(row) for row in rows], sum(row.size for row in rows)
        return session.show(_facts(archive, files=len(rows), size=size, path=None, members=members))
    table = [
        (human_bytes(row.size), human_bytes(row.packed), (row.sha256 or "-")[:12], shown(row.path)) for row in rows
    ]
    session.console.table(("SIZE", "PACKED", "SHA256", "PATH"), table)
    return 0


def _release(
    session: Session,
    archive: Path,
    to: Path | None,
    limits: ArchiveLimits,
    serving: ReleaseFlags,
    lock_wait: float,
) -> int:
    if to is None:
        raise UsageError("--release needs the folder of the releases", hint="add --to DIR")
    with session.console.watch(method="inline") as on_event, all_or_nothing():
        done = mdl.release(
            archive,
            to,
            keep=serving.keep,
            check=serving.check,
            limits=limits,
            lock_wait=lock_wait,
            cancel=session.cancel,
            on_event=on_event,
        )

    def show() -> None:
        if not done.changed:
            session.console.note(f"{done.version} is active already")
        for version in done.removed:
            session.console.note(f"removed the old release {version}")
        session.console.data(str(done.path))

    facts: dict[str, Any] = {}
    if session.common.json:
        files = done.manifest.files if done.manifest else ()
        size, path = sum(one.size for one in files), str(done.path)
        facts = _facts(archive, files=len(files), size=size, path=path, release=released_facts(done))
    return session.show(facts, show)


def released_facts(done: ReleaseResult) -> dict[str, Any]:
    names = ("version", "changed", "previous", "linked", "removed")
    return {name: getattr(done, name) for name in names}


@command("rollback")
def rollback(
    session: Session,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder of releases.")],
    settings: ReleaseSettings,
) -> int:
    """Serve the release that was served before; no network, one atomic switch."""
    wait, place = session.config_of(settings)["lock_wait"], place_of(folder, "DIR")
    with session.console.watch(method="inline") as on_event:
        done = mdl.rollback(place, lock_wait=wait, cancel=session.cancel, on_event=on_event)
    facts = {"path": str(done.path), "release": released_facts(done)}
    return session.show(facts, lambda: session.console.data(str(done.path)))
