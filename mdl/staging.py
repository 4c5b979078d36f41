"""Write beside, fsync, replace: the only way anything of mdl's gets its final name."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import time
from pathlib import Path
from types import TracebackType

from mdl import vacant
from mdl.owner import NAME, is_alive, me
from mdl.spots import Spot

_STAGED = re.compile(rf"\..+\.({NAME})\.mdl-tmp")
_ABANDONED_SECONDS = 86400.0
_SPECIAL = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_LONGEST = 150
"""Bytes of a final name that its staged name repeats."""


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(fd)
    finally:
        os.close(fd)


def _sync(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def write_file(path: Path, data: bytes, *, mode: int = 0o600, lasting: bool = True, sweeps: bool = False) -> None:
    """Put ``data`` under ``path`` whole or not at all, on the disk before it is seen.

    ``lasting=False`` leaves the syncing to the system: for what can be found out again. ``sweeps``: what killed
    processes left staged in that folder goes first, for nobody else looks there.
    """
    if sweeps:
        sweep(path.parent)
    staged = stage(path.parent, path.name, data, mode=mode, lasting=lasting)
    try:
        _replace(staged, path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    if lasting:
        sync_folder(path.parent)


def _replace(staged: Path, final: Path) -> None:
    """Give a staged file the name of a regular file, or one that nobody has. Raises `OSError`."""
    refuse_special(final)
    os.replace(staged, final)


def refuse_special(path: Path) -> None:
    """Raises `FileExistsError` if ``path`` is a folder, device, pipe or socket, or a link to one: a rename would put a
    regular file in its place, and root may do that even to ``/dev/null``. Raises `OSError`."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return
        raise
    _refuse(mode, path)


def _refuse(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        what = next((word for is_such, word in _SPECIAL if is_such(mode)), "no regular file")
        raise FileExistsError(errno.EEXIST, f"it is {what}, and mdl replaces regular files only", str(path))


def withdraw(path: Path) -> None:
    """Remove a regular file that was published under ``path``, if one is there. Raises `OSError`."""
    refuse_special(path)
    path.unlink(missing_ok=True)


def stage(folder: Path, name: str, data: bytes, *, mode: int, lasting: bool = True) -> Path:
    """Write ``data`` under a staged name in ``folder``, on the disk unless not ``lasting``. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    staged = beside(folder / f"{secrets.token_hex(6)}-{name}")
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    return staged


def stage_link(folder: Path, name: str, target: str) -> Path:
    """Make a link to ``target`` under a staged name in ``folder``. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    staged = beside(folder / f"{secrets.token_hex(6)}-{name}")
    os.symlink(target, staged)
    return staged


def publish(staged: Path, spot: Spot) -> os.stat_result | None:
    """Give an already synced file its final name; nothing is seen under that name before.

    Where the final folder is on another file system (a mount inside the models folder) the bytes are copied beside
    the final name first; returns what the copy is then. Raises `FileExistsError` where the spot is to be new and is
    taken, `OSError`.
    """
    copied = None
    try:
        _rename(staged, spot)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copied = _copy_beside(staged, spot)
        staged.unlink()
    _sync(spot.folder)
    return copied


def _rename(staged: Path, spot: Spot) -> None:
    if spot.is_new and vacant.take(staged, spot.folder, spot.name):
        return
    found = spot.stat()
    if found is not None and spot.is_new:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(spot.path))
    if found is not None and not stat.S_ISLNK(found.st_mode):
        _refuse(found.st_mode, spot.path)
    os.replace(staged, spot.name, dst_dir_fd=spot.folder)


def _copy_beside(staged: Path, spot: Spot) -> os.stat_result:
    near = beside(spot.path).name
    with staged.open("rb") as source:
        mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(near, flags, mode, dir_fd=spot.folder)
        try:
            with os.fdopen(fd, "wb") as file:
                shutil.copyfileobj(source, file)
                file.flush()
                os.fsync(file.fileno())
                copied = os.fstat(file.fileno())
            if spot.is_new and spot.stat() is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(spot.path))
            os.replace(near, spot.name, src_dir_fd=spot.folder, dst_dir_fd=spot.folder)
            return copied
        except BaseException:
            os.unlink(near, dir_fd=spot.folder)
            raise


def claim(folder: Path, mine: Path) -> bool:
    """Take a leftover folder over by renaming it. False when another process was quicker."""
    try:
        os.replace(folder, mine)
    except OSError:
        return False
    return True


def beside(final: Path) -> Path:
    """The hidden name beside ``final`` under which this process writes it; it tells whose it is."""
    name = os.fsdecode(os.fsencode(final.name)[:_LONGEST])
    return final.with_name(f".{name}.{me()}.mdl-tmp")


def sweep(folder: Path) -> None:
    """Remove what processes that are gone left staged in ``folder``."""
    for entry in leftovers(folder):
        remove(entry)


def leftovers(folder: Path) -> list[Path]:
    """What processes that are gone left staged in ``folder``."""
    found = []
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            match = _STAGED.fullmatch(entry.name)
            if match and _is_left(entry, match[1]):
                found.append(entry)
    return found


def _is_left(entry: Path, owner: str) -> bool:
    """Whether its owner is gone; one that cannot be seen from here, if nothing was written for a day."""
    alive = is_alive(owner)
    if alive is not None:
        return not alive
    paths = [entry] if entry.is_symlink() else [entry, *entry.rglob("*")]
    newest = max(path.lstat().st_mtime for path in paths)
    return time.time() - newest > _ABANDONED_SECONDS


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, also where it was made read-only; or nothing."""
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        for folder, _, _ in os.walk(path):
            Path(folder).chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def retire(path: Path) -> None:
    """Remove a folder so that it is never seen half: its name goes first. Raises `OSError`."""
    gone = beside(path)
    remove(gone)
    os.replace(path, gone)
    remove(gone)


class StagedFile:
    """A file written under its staged name; `publish` gives it the final one. Left unpublished, it is removed."""

    def __init__(self, final: Path) -> None:
        self.final, self.path = final, beside(final)
        sweep(final.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(self.path, flags, 0o666)

    def publish(self) -> None:
        """On the disk first, then seen. Raises `OSError`."""
        os.fsync(self.fd)
        _replace(self.path, self.final)
        sync_folder(self.final.parent)

    def __enter__(self) -> StagedFile:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        os.close(self.fd)
        self.path.unlink(missing_ok=True)


def publish_folder(staged: Path, final: Path) -> None:
    """Give a folder, whose files are synced, its final name; ``final`` is absent or an empty folder."""
    for folder, _, _ in os.walk(staged, topdown=False):
        sync_folder(Path(folder))
    os.replace(staged, final)
    sync_folder(final.parent)


def link(source: Path, final: Path) -> None:
    """Make ``final`` a hard link to ``source``, in place of what is there. Raises `OSError`, and nothing changed."""
    staged = beside(final)
    os.link(source, staged)
    try:
        _replace(staged, final)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def switch_link(link: Path, target: str) -> None:
    """Point ``link`` at ``target`` in one step: a reader finds the old one or the new one, never none. What is there
    and is no link stays. Raises `OSError`."""
    if os.path.lexists(link) and not link.is_symlink():
        raise FileExistsError(errno.EEXIST, "it is not a symbolic link", str(link))
    staged = beside(link)
    staged.unlink(missing_ok=True)
    os.symlink(target, staged)
    try:
        os.replace(staged, link)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync_folder(link.parent)


def rotate(path: Path, kept: int) -> None:
    """Put ``path`` aside as ``path.1``, the older ones one further; the last of ``kept`` goes. Raises `OSError`."""
    for number in range(kept, 0, -1):
        older = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
        with contextlib.suppress(FileNotFoundError):
            os.replace(older, path.with_name(f"{path.name}.{number}"))


def umask() -> int:
    """The process's umask, read without changing it where the system tells it."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
