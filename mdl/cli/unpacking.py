"""unpack and rollback: an archive opened safely, put into service, and taken out of it again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mdl.cli.command import all_or_nothing, command
from mdl.cli.places import place_of
from mdl.cli.session import Session
from mdl.console.humans import human_bytes
from mdl.errors import UsageError
from mdl.paths import shown
from mdl.units import parse_duration, parse_size


@dataclass(frozen=True)
class Bounds:
    """How much an archive may hold."""

    max_members: Annotated[int, typer.Option("--max-members", min=1, help="Refuse an archive of more members.")] = (
        1_000_000
    )
    max_ratio: Annotated[
        float,
        typer.Option(
            "--max-ratio", min=1, help="Refuse an archive that unpacks to more than this times its size, past 100 MiB."
        ),
    ] = 200.0
    max_size: Annotated[
        str | None,
        typer.Option(
            "--max-size", metavar="SIZE", help="Refuse an archive that unpacks to more than this. [default: no limit]"
        ),
    ] = None


@dataclass(frozen=True)
class Serving:
    """How a release is put into service."""

    release: Annotated[
        bool,
        typer.Option("--release", help="Put it into service: DIR/releases/<version>, and DIR/current switched to it."),
    ] = False
    keep: Annotated[int, typer.Option("--keep", min=1, metavar="N", help="With --release: how many releases stay.")] = 3
    check: Annotated[
        str | None, typer.Option("--check", metavar="CMD", help="With --release: must end with 0 before the switch.")
    ] = None
    lock_wait: Annotated[
        str, typer.Option("--lock-wait", metavar="TIME", help="With --release: how long to wait for another mdl.")
    ] = "10m"


def register(app: typer.Typer) -> None:
    command(app, "unpack", epilog=_UNPACK_EXAMPLES)(unpack)
    command(app, "rollback")(rollback)


_UNPACK_EXAMPLES = """Examples: mdl unpack tts.zip --to models/tts · mdl unpack tts.zip --list ·
mdl unpack tts.zip --to /srv/tts --release --keep 3 --check './smoke-test'"""


def unpack(
    session: Session,
    source: Annotated[str, typer.Argument(metavar="ARCHIVE", help="A zip, mdl's own or any other.")],
    bounds: Bounds,
    serving: Serving,
    target: Annotated[
        str | None,
        typer.Option(
            "--to", envvar="MDL_TO", metavar="DIR", help="A new or empty folder. [default: the archive's name]"
        ),
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="Check it, show what it holds, write nothing.")] = False,
) -> int:
    """Unpack a zip into a new folder, all or nothing; everything is checked before the first byte is written."""
    from mdl.archive.limits import Limits

    session.empty = {"archive": source}
    archive = place_of(source, "ARCHIVE")
    to = place_of(target, "--to") if target is not None else None
    size = parse_size(bounds.max_size, "--max-size") if bounds.max_size else None
    limits = Limits(bounds.max_members, bounds.max_ratio, size)
    if serving.check is not None and not serving.release:
        raise UsageError("--check belongs to --release", hint="add --release, or leave out --check")
    if listing and serving.release:
        raise UsageError("--list writes nothing, --release puts into service", hint="choose one of the two")
    if listing:
        return _show_archive(session, archive, limits)
    if serving.release:
        return _release(session, archive, to, limits, serving)
    from mdl.operations.release import default_target
    from mdl.operations.release import unpack as write

    to = to or default_target(archive)
    with session.console.watch(method="inline") as tell, all_or_nothing():
        unpacked = write(archive, to, limits=limits, tell=tell)
    place = os.path.abspath(to)
    if session.common.json:
        _document(session, archive, files=unpacked.files, size=unpacked.bytes, path=place)
    else:
        session.console.data(place)
    return 0


def _document(session: Session, archive: Path, *, files: int, size: int, path: str | None, **more: Any) -> None:
    from mdl.hashing import fingerprint

    with archive.open("rb") as file:
        sha256 = fingerprint(file.fileno(), "sha256").digest.hex
    payload = {"archive": str(archive), "bytes": size, "files": files, "sha256": sha256, "skipped": [], "path": path}
    session.console.document(session.command, payload | more, ok=True, exit_code=0)


def _show_archive(session: Session, archive: Path, limits: Any) -> int:
    from mdl.archive.reader import Archive

    with Archive(archive, limits) as opened:
        members = sorted((one for one in opened.members if not one.is_folder), key=lambda one: one.path.text)
        known = {line.path: line.sha256 for line in opened.manifest.files} if opened.manifest else {}
    rows: list[dict[str, Any]] = [
        {"path": one.path.text, "size": one.size, "packed": one.packed, "sha256": known.get(one.path.text)}
        for one in members
    ]
    if session.common.json:
        _document(session, archive, files=len(rows), size=sum(one.size for one in members), path=None, members=rows)
        return 0
    table = [
        (human_bytes(row["size"]), human_bytes(row["packed"]), (row["sha256"] or "-")[:12], shown(row["path"]))
        for row in rows
    ]
    session.console.table(("SIZE", "PACKED", "SHA256", "PATH"), table)
    return 0


def _release(session: Session, archive: Path, to: Path | None, limits: Any, serving: Serving) -> int:
    from mdl.operations.release import Service, release

    if to is None:
        raise UsageError("--release needs the folder of the releases", hint="add --to DIR")
    wait = parse_duration(serving.lock_wait, "--lock-wait", least=0)
    service = Service(serving.keep, serving.check, wait, session.cancel)
    with session.console.watch(method="inline") as tell, all_or_nothing():
        done = release(archive, to, limits=limits, service=service, tell=tell)
    files = done.manifest.files if done.manifest else ()
    if session.common.json:
        size = sum(line.size for line in files)
        facts = _released_facts(done)
        _document(session, archive, files=len(files), size=size, path=str(done.place), release=facts)
        return 0
    if not done.changed:
        session.console.note(f"{done.version} is active already")
    for version in done.removed:
        session.console.note(f"removed the old release {version}")
    session.console.data(str(done.place))
    return 0


def _released_facts(done: Any) -> dict[str, Any]:
    return {
        "version": done.version,
        "changed": done.changed,
        "previous": done.previous or None,
        "linked": done.linked,
        "removed": list(done.removed),
    }


def rollback(
    session: Session,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder of releases.")],
    lock_wait: Annotated[
        str, typer.Option("--lock-wait", metavar="TIME", help="How long to wait for another mdl.")
    ] = "10m",
) -> int:
    """Serve the release that was served before; no network, one atomic switch."""
    from mdl.operations.release import roll_back

    wait = parse_duration(lock_wait, "--lock-wait", least=0)
    done = roll_back(place_of(folder, "DIR"), lock_wait=wait, tell=session.console.watch(method="inline"))
    if session.common.json:
        payload = {"path": str(done.place), "release": _released_facts(done)}
        session.console.document("rollback", payload, ok=True, exit_code=0)
    else:
        session.console.data(str(done.place))
    return 0
