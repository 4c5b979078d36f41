"""Folder: whether files can be kept there, how much of them, and how fast they get onto the disk."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mdl.doctor.abilities import abilities
from mdl.doctor.finding import Finding
from mdl.errors import MdlError, NoSpace, StorageError
from mdl.fs import staging

_BLOCK = 2**20
_MOST_BLOCKS = 32
_SECONDS = 0.5
"""How long is written; what is begun is finished."""


def models_folder(place: Callable[[], Path]) -> list[Finding]:
    """Room, speed, and what the file system can do. Raises nothing but an interruption, which leaves nothing there."""
    advice = "choose another folder with --to or MDL_HOME"
    try:
        folder = place()
    except MdlError as error:
        return [Finding.of("models folder", error)]
    found = _room("models folder", folder, advice)
    if not found.ok:
        return [found]
    try:
        with _probes(_nearest(folder)) as probes:
            speed, can = write_speed(probes), abilities(probes)
    except OSError as error:
        return [_refused("models folder", folder, error, advice)]
    return [found, Finding("disk speed", True, f"{speed / 1e6:.0f} MB/s written and synced"), can]


def state_folder(place: Callable[[], Path]) -> Finding:
    """Room for records, locks and logs."""
    try:
        folder = place()
    except MdlError as error:
        return Finding("state folder", True, f"none: {error.message}")
    advice = "choose another folder with XDG_STATE_HOME"
    found = _room("state folder", folder, advice)
    try:
        with _probes(_nearest(folder)):
            return found
    except OSError as error:
        return _refused("state folder", folder, error, advice)


def _room(name: str, folder: Path, advice: str) -> Finding:
    at, own = _nearest(folder), folder / ".mdl"
    try:
        space = os.statvfs(at)
        is_anothers = own.is_dir() and not os.access(own, os.W_OK | os.X_OK)
    except OSError as error:
        return _refused(name, folder, error, advice)
    free = space.f_bavail * space.f_frsize
    files = f", room for {space.f_favail:,} files" if space.f_files else ""
    detail = f"{folder}{'' if at == folder else ' (not made yet)'}: {free / 1e9:.1f} GB free{files}"
    if free <= 0:
        return Finding(name, False, detail, f"free some space, or {advice}", NoSpace.exit_code)
    if space.f_files and space.f_favail <= 0:
        free_some = "remove files that nobody needs ('df -i' shows the inodes)"
        return Finding(name, False, detail, f"{free_some}, or {advice}", NoSpace.exit_code)
    if is_anothers:
        return Finding(name, False, f"{own} cannot be written by this user", advice, StorageError.exit_code)
    return Finding(name, True, detail)


def _refused(name: str, folder: Path, error: OSError, advice: str) -> Finding:
    at = _nearest(folder)
    place = f"{folder}" if at == folder else f"{folder}, to be made in {at}"
    return Finding(name, False, f"{place}: {error.strerror or error}", advice, StorageError.exit_code)


def _nearest(folder: Path) -> Path:
    """The folder, or as long as it has not been made the one that it will be made in."""
    at = folder
    while not os.path.lexists(at) and at != at.parent:
        at = at.parent
    return at


@contextlib.contextmanager
def _probes(folder: Path) -> Iterator[Path]:
    """A hidden folder inside ``folder``, gone afterwards; one that was killed before loses its own now."""
    staging.sweep(folder)
    probes = staging.staged_name(folder / "doctor")
    try:
        probes.mkdir(0o700)
        yield probes
    finally:
        staging.remove(probes)


def write_speed(folder: Path) -> float:
    """Bytes a second that get onto the disk. Each round writes twice as much as the one before, then syncs.

    The file has lost its name before the first byte, so that nothing stays whatever ends this.
    """
    fd = os.open(folder / "speed", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        (folder / "speed").unlink()
        data, count, began = os.urandom(_BLOCK), 1, time.monotonic()
        while True:
            start = time.monotonic()
            for _ in range(count):
                os.write(fd, data)
            os.fsync(fd)
            now = time.monotonic()
            took = max(now - start, 1e-6)
            if count >= _MOST_BLOCKS or now - began + 2 * took > _SECONDS:
                return count * _BLOCK / took
            count *= 2
    finally:
        os.close(fd)
