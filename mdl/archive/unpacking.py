"""Unpacking: an archive becomes one new folder, all or nothing: written beside it first, synced, then renamed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mdl.archive.headers import ZipEntry
from mdl.archive.manifest import NAME, Manifest, ManifestEntry
from mdl.archive.reader import Archive
from mdl.archive.streaming import BackgroundSync, Progress
from mdl.errors import DigestMismatch, NoSpace, Occupied, ProtocolError
from mdl.fs import staging
from mdl.trainers.completeness import SAFETENSORS, why_truncated

FindCopy = Callable[[ManifestEntry], Path | None]
"""Says where a file with the same bytes is already, to which a hard link may be made."""
_SYNCERS = 4


@dataclass(frozen=True)
class Extracted:
    """What is in the folder now: ``manifest`` lists the files, ``linked`` of which are hard links to earlier ones."""

    manifest: Manifest
    linked: int = 0


@contextlib.contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A new, private folder beside ``final``. It is removed at the end unless it was renamed."""
    final.parent.mkdir(parents=True, exist_ok=True)
    staging.sweep(final.parent)
    folder = staging.staged_name(final)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        staging.remove(folder)


def check_target(target: Path) -> None:
    """See that ``target`` is absent, or an empty folder that can be replaced. Raises `Occupied`."""
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
    """Rename the staged folder. Raises `Occupied` if another program filled ``target`` meanwhile, `OSError`."""
    staged.chmod(stat.S_IMODE(target.stat().st_mode) if target.is_dir() else 0o777 & ~staging.umask())
    try:
        staging.publish_folder(staged, target)
    except OSError as error:
        if target.is_dir() and not target.is_symlink() and any(target.iterdir()):
            raise Occupied("this folder is not empty any more", item=str(target)) from error
        raise


def check_free_space(archive: Archive, folder: Path) -> None:
    """See that the disk has room for all of an archive below ``folder``, which need not exist yet.

    Raises `NoSpace` with the bytes needed and free, before anything is written.
    """
    near = next(one for one in (folder, *folder.parents) if one.exists() or one == one.parent)
    space = os.statvfs(near)
    free, hint = space.f_bavail * space.f_frsize, "free some space, or unpack to another disk; nothing was written"
    if archive.size > free:
        what = f"it unpacks to {archive.size:,} bytes and {free:,} are free: {archive.size - free:,} short"
        raise NoSpace(what, item=str(folder), hint=hint)
    if space.f_files and len(archive.members) > space.f_favail:
        what = f"it unpacks to {len(archive.members):,} files and the disk has inodes for {space.f_favail:,} more"
        raise NoSpace(what, item=str(folder), hint=hint)


def check_bytes(archive: Archive, progress: Progress) -> None:
    """Read every member and compare it with its CRC-32 and the manifest. Writes nothing. Raises `ProtocolError`."""
    digests = archive.manifest.digests if archive.manifest else {}
    with archive.named():
        for member in (one for one in archive.members if not one.is_folder):
            sha256 = archive.copy(member, None, partial(progress.add, file=member.path.text))
            _compare(member, sha256, digests)
        archive.check_unchanged()


def _compare(member: ZipEntry, sha256: str, digests: dict[str, str]) -> None:
    expected = digests.get(member.path.text)
    if expected and sha256 != expected:
        raise DigestMismatch(f"sha256 is {sha256}, the manifest says {expected}", item=member.shown)


def extract(archive: Archive, folder: Path, progress: Progress, find_copy: FindCopy | None = None) -> Extracted:
    """Write every member into ``folder``, checked and synced. Raises `ProtocolError`, `OSError`."""
    with archive.named(), BackgroundSync(_SYNCERS) as sync:
        extracted = _Extraction(archive, folder, progress, sync, find_copy or (lambda _entry: None)).run()
        archive.check_unchanged()
    return extracted


class _Extraction:
    """One archive on its way into one folder."""

    def __init__(
        self, archive: Archive, folder: Path, progress: Progress, sync: BackgroundSync, find_copy: FindCopy
    ) -> None:
        self._archive, self._folder, self._progress, self._sync = archive, folder, progress, sync
        self._find_copy = find_copy
        self._digests = archive.manifest.digests if archive.manifest else {}
        self._incomplete = archive.manifest.incomplete if archive.manifest else ()
        self._made: set[Path] = {folder}
        self._entries: list[ManifestEntry] = []
        self._linked = 0

    def run(self) -> Extracted:
        for member in self._archive.members:
            if member.is_folder:
                self._make(member.path.under(self._folder))
            else:
                self._file(member)
        listed = tuple(sorted(self._entries, key=lambda entry: entry.path))
        return Extracted(self._archive.manifest or Manifest(listed), self._linked)

    def _make(self, folder: Path) -> None:
        if folder not in self._made:
            self._make(folder.parent)
            folder.mkdir(exist_ok=True)
            self._made.add(folder)

    def _file(self, member: ZipEntry) -> None:
        name, place = member.path.text, member.path.under(self._folder)
        self._make(place.parent)
        expected = self._digests.get(name)
        if expected and self._link(ManifestEntry(name, member.size, expected), member, place):
            self._progress.add(member.size, name)
            return
        sha256 = self._write(member, place)
        _compare(member, sha256, self._digests)
        entry = ManifestEntry(name, member.size, sha256)
        if name != NAME and (expected or not self._link(entry, member, place)):
            self._entries.append(entry)

    def _link(self, entry: ManifestEntry, member: ZipEntry, place: Path) -> bool:
        """Make ``place`` a hard link to a file with the same bytes, if there is one and the system allows it."""
        source = self._find_copy(entry)
        if source is None or bool(source.stat().st_mode & stat.S_IXUSR) != member.executable:
            return False
        try:
            staging.link(source, place)
        except OSError:
            return False
        self._entries.append(entry)
        self._linked += 1
        return True

    def _write(self, member: ZipEntry, place: Path) -> str:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd, name = os.open(place, flags, 0o777 if member.executable else 0o666), member.path.text

        def wrote(count: int) -> None:
            self._progress.add(count, name)
            self._sync.wrote(fd, count)

        try:
            sha256 = self._archive.copy(member, fd, wrote)
            is_judged = place.suffix == SAFETENSORS and name not in self._incomplete
            why = why_truncated(member.size, lambda count: os.pread(fd, count, 0)) if is_judged else None
            if why:
                raise ProtocolError(why, item=member.shown)
        except BaseException:
            os.close(fd)
            raise
        self._sync.close(fd)
        return sha256
