"""Write beside, fsync, replace: the only way anything of mdl's gets its final name."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def write_file(path: Path, data: bytes, *, mode: int = 0o600, lasting: bool = True, stage: Path | None = None) -> None:
    """Put ``data`` under ``path`` whole or not at all, on the disk before it is seen.

    ``lasting=False`` leaves the syncing to the system: for what can be found out again. ``stage`` is the folder to
    write in first, on the same file system; beside ``path`` without it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = (stage or path.parent) / f".{secrets.token_hex(6)}.tmp"
    beside.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if lasting:
        sync_folder(path.parent)


def publish(staged: Path, final: Path) -> None:
    """Give an already synced file its final name; nothing is seen under that name before.

    Where the final folder is on another file system (a link or a mount inside the models folder)
    the bytes are copied beside the final name first.
    """
    try:
        os.replace(staged, final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _publish_across(staged, final)
    sync_folder(final.parent)


def _publish_across(staged: Path, final: Path) -> None:
    beside = final.with_name(f".mdl-{secrets.token_hex(6)}.tmp")
    try:
        shutil.copyfile(staged, beside)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, final)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    staged.unlink()


def claim(folder: Path, mine: Path) -> bool:
    """Take a leftover folder over by renaming it. False when another process was quicker."""
    try:
        os.replace(folder, mine)
    except OSError:
        return False
    return True
