"""Story 2, the way back: unpack an archive, put it into service, go back to the one before."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mdl import staging
from mdl.archive.limits import Limits
from mdl.archive.manifest import Manifest
from mdl.archive.meter import Meter
from mdl.archive.reader import Archive
from mdl.archive.releases import History, Shelf, back, seal, switched
from mdl.archive.unpacking import (
    Unpacked,
    check_target,
    free_space,
    publish,
    staged_folder,
    unpack_into,
)
from mdl.errors import ProtocolError, UsageError
from mdl.events import Listener, Noticed, silence
from mdl.turns import held

_NEW = "new"
_STDERR = 2


@dataclass(frozen=True)
class Service:
    """How a release is put into service: ``keep`` complete ones stay; ``check`` must end with 0 before the switch;
    ``lock_wait`` seconds to wait for another mdl that is at it."""

    keep: int = 3
    check: str = ""
    lock_wait: float = 600.0


@dataclass(frozen=True)
class Released:
    """What is served now. ``changed`` is false where it was served already."""

    version: str
    place: Path
    changed: bool
    previous: str
    manifest: Manifest | None = field(default=None, repr=False)
    linked: int = 0
    removed: tuple[str, ...] = ()


def default_target(archive: Path) -> Path:
    """Where an archive goes that nobody named a place for: its own name, in the current folder."""
    name = archive.name
    return Path(name.removesuffix(".zip") if name.endswith(".zip") else f"{name}.unpacked")


def unpack(archive: Path, target: Path, *, limits: Limits, tell: Listener = silence) -> Unpacked:
    """The whole archive into ``target``, or nothing. Raises `MdlError`, `OSError`."""
    with Archive(archive, limits) as opened:
        target = Path(os.path.abspath(target))
        check_target(target)
        limits.check(opened.members, free_space(target.parent))
        with staged_folder(target) as staged:
            meter = Meter(tell, archive.name, "unpack", len(opened.members), opened.size)
            unpacked = unpack_into(opened, staged, meter)
            publish(staged, target)
        meter.finish(unpacked.bytes, "unpacked", _held_against(opened))
        return unpacked


def release(archive: Path, folder: Path, *, limits: Limits, service: Service, tell: Listener = silence) -> Released:
    """Unpack beside the releases, check, switch ``current``, remember. Raises `MdlError`, `OSError`."""
    shelf = Shelf(Path(os.path.abspath(folder)))
    with Archive(archive, limits) as opened:
        shelf.folder.mkdir(parents=True, exist_ok=True)
        with held(shelf.folder / ".mdl", "releases", service.lock_wait, _waiting(tell)):
            shelf.prepare()
            history = shelf.history()
            known = opened.manifest.version if opened.manifest else ""
            if known and shelf.place(known).is_dir():
                return _serve(shelf, history, known, service, tell)
            limits.check(opened.members, free_space(shelf.folder))
            return _release_new(opened, shelf, history, service, tell)


def _release_new(opened: Archive, shelf: Shelf, history: History, service: Service, tell: Listener) -> Released:
    with staged_folder(shelf.place(_NEW)) as staged:
        meter = Meter(tell, opened.path.name, "unpack", len(opened.members), opened.size)
        unpacked = unpack_into(opened, staged, meter, shelf.reuse(history.active))
        meter.finish(unpacked.bytes, "unpacked", _held_against(opened))
        version = unpacked.manifest.version
        if shelf.place(version).is_dir():
            return _serve(shelf, history, version, service, tell)
        _run_check(service.check, staged, version)
        seal(staged, unpacked.manifest)
        staged.chmod(0o755)
        staging.publish_folder(staged, shelf.place(version))
    return _switch(shelf, history, version, service, linked=unpacked.linked)


def _serve(shelf: Shelf, history: History, version: str, service: Service, tell: Listener) -> Released:
    """Serve a release that is here already."""
    if history.active == version:
        return Released(version, shelf.place(version), False, history.previous, shelf.manifest(version))
    shelf.check(version)
    if version in history.withdrawn:
        tell(Noticed(message=f"{version} was rolled back from before, and is served again now"))
    _run_check(service.check, shelf.place(version), version)
    return _switch(shelf, history, version, service)


def _switch(shelf: Shelf, history: History, version: str, service: Service, linked: int = 0) -> Released:
    shelf.serve(version)
    history = history.released(version, switched(history.active, version, "release"))
    gone = history.superfluous(service.keep)
    shelf.record(history.without(gone))
    shelf.remove(gone)
    place, manifest = shelf.place(version), shelf.manifest(version)
    return Released(version, place, True, history.previous, manifest, linked, tuple(gone))


def roll_back(folder: Path, *, lock_wait: float = 600.0, tell: Listener = silence) -> Released:
    """Serve the release that was served before, and mark the one that was active. Raises `NotFound`, `OSError`."""
    shelf = Shelf(Path(os.path.abspath(folder)))
    if not shelf.releases.is_dir():
        return Released(back(shelf, History()), shelf.folder, False, "")
    with held(shelf.folder / ".mdl", "releases", lock_wait, _waiting(tell)):
        history = shelf.history()
        version = back(shelf, history)
        shelf.serve(version)
        history = history.rolled_back(switched(history.active, version, "rollback"))
        shelf.record(history)
        return Released(version, shelf.place(version), True, history.previous, shelf.manifest(version))


def _held_against(archive: Archive) -> str:
    return "sha256" if archive.manifest else "crc32"


def _run_check(command: str, place: Path, version: str) -> None:
    """Ask the user's own check. What it prints goes to stderr. Raises `ProtocolError` unless it ends with 0."""
    if not command:
        return
    environ = {**os.environ, "MDL_RELEASE": str(place), "MDL_VERSION": version}
    try:
        code = subprocess.run(shlex.split(command), cwd=place, env=environ, stdout=_STDERR, check=False).returncode
    except (OSError, ValueError) as error:
        raise UsageError(f"the check cannot be run: {error}", item="--check") from error
    if code:
        hint = "nothing was switched; 'current' is what it was"
        raise ProtocolError(f"the check ended with {code}: {command}", item=version, hint=hint)


def _waiting(tell: Listener) -> Callable[[str], None]:
    return lambda holder: tell(Noticed(message=f"waiting for {holder}"))
