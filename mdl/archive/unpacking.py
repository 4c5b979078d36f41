"""Unpacking: an archive into one new folder, all or nothing: beside it first, synced, then renamed."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mdl.archive.headers import Listed
from mdl.archive.manifest import NAME, Line, Manifest, digests
from mdl.archive.meter import Meter
from mdl.archive.reader import Archive
from mdl.errors import DigestMismatch, NoSpace, Occupied, ProtocolError
from mdl.fs import staging
from mdl.trainers.safetensors import SUFFIX, trouble

Reuse = Callable[[Line], Path | None]
"""Tells where the same bytes are already, of which a hard link may be made."""
_SYNCERS, _WAITING = 4, 32


@dataclass(frozen=True)
class Unpacked:
    """What is in the folder now: ``files`` without the manifest, ``bytes`` of them, ``linked`` of them from before."""

    manifest: Manifest
    files: int
    bytes: int
    linked: int = 0


@contextlib.contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A new, private folder beside ``final``; whatever is left of it in the end is removed."""
    final.parent.mkdir(parents=True, exist_ok=True)
    staging.sweep(final.parent)
    folder = staging.staged_name(final)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        staging.remove(folder)


def check_target(target: Path) -> None:
    """A target is absent, or an empty folder that nobody stands in. Raises `Occupied`."""
    if target.is_symlink():
        raise Occupied("this is a link; nothing is unpacked through it", item=str(target))
    if not target.exists():
        return
    if not target.is_dir():
        raise Occupied("this is not a folder", item=str(target))
    if os.path.ismount(target):
        hint = "name a folder inside it with --to"
        raise Occupied("this is a mount point, which cannot be replaced in one step", item=str(target), hint=hint)
    if any(target.iterdir()):
        raise Occupied("this folder is not empty", item=str(target), hint="name a new folder with --to")
    if os.path.samefile(target, os.curdir):
        raise Occupied("this is the working folder itself", item=str(target), hint="name a new folder with --to")


def publish(staged: Path, target: Path) -> None:
    """Give the folder its name. Raises `Occupied` where somebody was quicker, `OSError`."""
    staged.chmod(stat.S_IMODE(target.stat().st_mode) if target.is_dir() else 0o777 & ~staging.umask())
    try:
        staging.publish_folder(staged, target)
    except OSError as error:
        if target.is_dir() and not target.is_symlink() and any(target.iterdir()):
            raise Occupied("this folder is not empty any more", item=str(target)) from error
        raise


def check_room(archive: Archive, folder: Path) -> None:
    """See that the disk has room for all of an archive below ``folder``, which need not be there yet.

    Raises `NoSpace` with need and have, before anything is written.
    """
    near = folder
    while not near.exists() and near != near.parent:
        near = near.parent
    space = os.statvfs(near)
    free, hint = space.f_bavail * space.f_frsize, "free some space, or unpack to another disk; nothing was written"
    if archive.size > free:
        what = f"it unpacks to {archive.size:,} bytes and {free:,} are free: {archive.size - free:,} short"
        raise NoSpace(what, item=str(folder), hint=hint)
    if space.f_files and len(archive.members) > space.f_favail:
        what = f"it unpacks to {len(archive.members):,} files and the disk has inodes for {space.f_favail:,} more"
        raise NoSpace(what, item=str(folder), hint=hint)


def check_bytes(archive: Archive, meter: Meter) -> None:
    """Read every member, and hold it against its CRC-32 and the manifest. Writes nothing. Raises `ProtocolError`."""
    known = digests(archive.manifest.files) if archive.manifest else {}
    with archive.named():
        for member in (one for one in archive.members if not one.is_folder):
            for step in archive.copy(member, None):
                if isinstance(step, str):
                    _hold(member, step, known)
                else:
                    meter.add(step, member.path.text)
        archive.check_unchanged()


def _hold(member: Listed, sha256: str, known: dict[str, str]) -> None:
    expected = known.get(member.path.text)
    if expected and sha256 != expected:
        raise DigestMismatch(f"sha256 is {sha256}, the manifest says {expected}", item=member.shown)


def unpack_into(archive: Archive, folder: Path, meter: Meter, reuse: Reuse | None = None) -> Unpacked:
    """Write every member into ``folder``, checked and synced. Raises `ProtocolError`, `OSError`."""
    with archive.named(), _Syncing() as syncing:
        unpacked = _Unpacking(archive, folder, meter, syncing, reuse or (lambda _line: None)).run()
        archive.check_unchanged()
    return unpacked


class _Unpacking:
    """One archive on its way into one folder."""

    def __init__(self, archive: Archive, folder: Path, meter: Meter, syncing: _Syncing, reuse: Reuse) -> None:
        self._archive, self._folder, self._meter, self._syncing, self._reuse = archive, folder, meter, syncing, reuse
        self._known = digests(archive.manifest.files) if archive.manifest else {}
        self._incomplete = archive.manifest.incomplete if archive.manifest else ()
        self._made: set[Path] = {folder}
        self._lines: list[Line] = []
        self._linked = 0

    def run(self) -> Unpacked:
        for member in self._archive.members:
            if member.is_folder:
                self._make(member.path.under(self._folder))
            else:
                self._file(member)
        manifest = self._archive.manifest or Manifest(tuple(sorted(self._lines, key=lambda line: line.path)))
        return Unpacked(manifest, len(self._lines), sum(line.size for line in self._lines), self._linked)

    def _make(self, folder: Path) -> None:
        if folder not in self._made:
            self._make(folder.parent)
            folder.mkdir(exist_ok=True)
            self._made.add(folder)

    def _file(self, member: Listed) -> None:
        name, place = member.path.text, member.path.under(self._folder)
        self._make(place.parent)
        expected = self._known.get(name)
        if expected and self._link(Line(name, member.size, expected), member, place):
            self._meter.add(member.size, name)
            return
        sha256 = self._write(member, place)
        _hold(member, sha256, self._known)
        if name == NAME:
            return
        line = Line(name, member.size, sha256)
        if expected or not self._link(line, member, place):
            self._lines.append(line)

    def _link(self, line: Line, member: Listed, place: Path) -> bool:
        """Make ``place`` a hard link to the same bytes of before, where there are any and the system lets us."""
        source = self._reuse(line)
        if source is None or bool(source.stat().st_mode & stat.S_IXUSR) != member.executable:
            return False
        try:
            staging.link(source, place)
        except OSError:
            return False
        self._lines.append(line)
        self._linked += 1
        return True

    def _write(self, member: Listed, place: Path) -> str:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd, sha256 = os.open(place, flags, 0o777 if member.executable else 0o666), ""
        try:
            for step in self._archive.copy(member, fd):
                if isinstance(step, str):
                    sha256 = step
                    continue
                self._meter.add(step, member.path.text)
                self._syncing.wrote(fd, step)
            judged = place.suffix == SUFFIX and member.path.text not in self._incomplete
            why = trouble(member.size, lambda count: os.pread(fd, count, 0)) if judged else None
            if why:
                raise ProtocolError(why, item=member.shown)
        except BaseException:
            os.close(fd)
            raise
        self._syncing.close(fd)
        return sha256


class _Syncing:
    """Syncs what is written while more is being written: large files on the way, small ones several at once."""

    _EVERY = 64 * 2**20

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_SYNCERS, "mdl-sync")
        self._room = threading.BoundedSemaphore(_WAITING)
        self._since = 0
        self._error: OSError | None = None

    def wrote(self, fd: int, count: int) -> None:
        """``count`` more bytes are in ``fd``. Raises the `OSError` of an earlier sync."""
        self._since += count
        if self._since >= self._EVERY:
            self._since = 0
            self._submit(self._sync_and_close, os.dup(fd))

    def close(self, fd: int) -> None:
        """Sync a file that is whole, and close it."""
        self._submit(self._sync_and_close, fd)

    def wait(self) -> None:
        """Until nothing is left to sync."""
        self._pool.shutdown()

    @staticmethod
    def _sync_and_close(fd: int) -> None:
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _submit(self, work: Callable[[int], None], fd: int) -> None:
        if self._error:
            raise self._error
        self._room.acquire()

        def run() -> None:
            try:
                work(fd)
            except OSError as error:
                self._error = error
            finally:
                self._room.release()

        self._pool.submit(run)

    def __enter__(self) -> _Syncing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.wait()
        if self._error and kind is None:
            raise self._error
