"""Story 2, the way back: unpack an archive, put it into service, go back to the one before."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mdl import process
from mdl.archive.history import History
from mdl.archive.limits import Limits
from mdl.archive.manifest import Manifest
from mdl.archive.meter import Meter
from mdl.archive.reader import Archive
from mdl.archive.releases import Shelf, Watch, back, seal, switched
from mdl.archive.unpacking import (
    Unpacked,
    check_bytes,
    check_room,
    check_target,
    publish,
    staged_folder,
    unpack_into,
)
from mdl.cancel import Cancel
from mdl.errors import ProtocolError, storage_trouble
from mdl.events import Listener, Noticed, silence
from mdl.locks import file_lock
from mdl.paths import shown

_NEW = "new"
_NAMED = 5
_WHEN_FULL = "free some space; nothing was left behind"


@dataclass(frozen=True)
class Service:
    """How a release is put into service: ``keep`` complete ones stay; ``check`` must end with 0 before the switch;
    ``lock_wait`` seconds to wait for another mdl that is at it; ``cancel`` ends the check."""

    keep: int = 3
    check: str | None = None
    lock_wait: float = 600.0
    cancel: Cancel | None = field(default=None, compare=False)


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
    target = Path(os.path.abspath(target))
    with Archive(archive, limits) as opened:
        check_target(target)
        check_room(opened, target.parent)
        with storage_trouble(target, _WHEN_FULL), staged_folder(target) as staged:
            meter = Meter(tell, archive.name, "unpack", len(opened.members), opened.size)
            unpacked = unpack_into(opened, staged, meter)
            publish(staged, target)
        meter.finish(unpacked.bytes, "unpacked", _held_against(opened))
        return unpacked


def release(archive: Path, folder: Path, *, limits: Limits, service: Service, tell: Listener = silence) -> Released:
    """Unpack beside the releases, check, switch ``current``, remember. Raises `MdlError`, `OSError`."""
    shelf = Shelf(Path(os.path.abspath(folder)))
    if service.check is not None:
        process.split_command(service.check, "--check")
    with Archive(archive, limits) as opened:
        known = opened.manifest.version if opened.manifest else ""
        if not shelf.has(known):
            check_room(opened, shelf.folder)
        shelf.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(shelf.folder / ".mdl", "releases", service.lock_wait, _waiting(tell)):
            shelf.prepare()
            history = shelf.history()
            if shelf.has(known):
                _check_archive(opened, tell)
                return _serve(shelf, history, known, service, tell)
            return _release_new(opened, shelf, history, service, tell)


def _check_archive(opened: Archive, tell: Listener) -> None:
    """An archive that says it is a release that is here must be it, down to its bytes. Raises `ProtocolError`."""
    meter = Meter(tell, opened.path.name, "check", len(opened.members), opened.size)
    check_bytes(opened, meter)
    meter.finish(opened.size, "kept", _held_against(opened))


def _release_new(opened: Archive, shelf: Shelf, history: History, service: Service, tell: Listener) -> Released:
    with storage_trouble(shelf.folder, _WHEN_FULL), staged_folder(shelf.place(_NEW)) as staged:
        meter = Meter(tell, opened.path.name, "unpack", len(opened.members), opened.size)
        unpacked = unpack_into(opened, staged, meter, shelf.reuse(history.active))
        meter.finish(unpacked.bytes, "unpacked", _held_against(opened))
        version = unpacked.manifest.version
        if shelf.has(version):
            return _serve(shelf, history, version, service, tell)
        seal(staged, unpacked.manifest)
        _run_check(service, staged, version, unpacked.manifest)
        publish(staged, shelf.place(version))
    return _switch(shelf, history, version, service, linked=unpacked.linked)


def _serve(shelf: Shelf, history: History, version: str, service: Service, tell: Listener) -> Released:
    """Serve a release that is here already."""
    if history.active == version:
        shelf.settle(history)
        return Released(version, shelf.place(version), False, history.previous, shelf.manifest(version))
    manifest = shelf.check(version)
    if version in history.withdrawn:
        tell(Noticed(message=f"{version} was rolled back from before, and is served again now"))
    _run_check(service, shelf.place(version), version, manifest)
    return _switch(shelf, history, version, service)


def _switch(shelf: Shelf, history: History, version: str, service: Service, linked: int = 0) -> Released:
    after = history.released(version, switched(history.active, version, "release")).kept(service.keep, shelf.here())
    shelf.switch(history, after)
    gone = shelf.settle(after)
    place, manifest = shelf.place(version), shelf.manifest(version)
    return Released(version, place, True, after.previous, manifest, linked, gone)


def roll_back(folder: Path, *, lock_wait: float = 600.0, tell: Listener = silence) -> Released:
    """Serve the release that was served before, and mark the one that was active. Raises `NotFound`, `OSError`."""
    shelf = Shelf(Path(os.path.abspath(folder)))
    if not shelf.releases.is_dir():
        back(shelf, History())
    with file_lock(shelf.folder / ".mdl", "releases", lock_wait, _waiting(tell)):
        shelf.prepare()
        history = shelf.history()
        version = back(shelf, history)
        shelf.glance(version)
        after = history.rolled_back(switched(history.active, version, "rollback"))
        shelf.switch(history, after)
        return Released(version, shelf.place(version), True, after.previous, shelf.manifest(version))


def _held_against(archive: Archive) -> str:
    return "sha256" if archive.manifest else "crc32"


def _run_check(service: Service, place: Path, version: str, manifest: Manifest) -> None:
    """Ask the user's own check; what it prints goes to stderr, and it may change nothing.

    Raises `ProtocolError` unless it ends with 0, `UsageError` where it cannot be run.
    """
    command = service.check
    if command is None:
        return
    watch = Watch(place, manifest)
    facts = {"MDL_RELEASE_PATH": str(place), "MDL_RELEASE_VERSION": version}
    code = process.run_program(process.split_command(command, "--check"), facts, cancel=service.cancel)
    hint = "nothing was switched; 'current' is what it was"
    if code:
        raise ProtocolError(f"the check ended with {code}: {command}", item=version, hint=hint)
    changed = watch.changed()
    if changed:
        what = f"the check changed the release: {', '.join(map(shown, changed[:_NAMED]))}"
        raise ProtocolError(what, item=version, hint="let it write elsewhere; nothing was switched")


def _waiting(tell: Listener) -> Callable[[str], None]:
    return lambda holder: tell(Noticed(message=f"waiting for {holder}"))
