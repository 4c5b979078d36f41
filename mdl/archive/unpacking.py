"""Unpacking: an archive becomes one new folder, all or nothing: written beside it first, synced, then renamed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from mdl.archive.manifest import NAME, Manifest, ManifestEntry
from mdl.archive.reader import AnyArchive, ArchiveEntry
from mdl.archive.streaming import BackgroundSync, Progress
from mdl.disk import disk_space, publish
from mdl.errors import NoSpace, Occupied, ProtocolError
from mdl.weights.end_records import ReadableFile
from mdl.weights.table import is_of_another_format, is_weights, why_not_whole

FindCopy = Callable[[ManifestEntry], Path | None]
"""Finds a file with the same bytes that is on the disk already, to which a hard link may be made."""
_SYNCERS = 4


@contextlib.contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A new, private folder beside ``final``. It is removed at the end unless it was renamed."""
    final.parent.mkdir(parents=True, exist_ok=True)
    publish.sweep(final.parent)
    folder = publish.staged_name(final)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        publish.remove(folder)


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


def publish_folder(staged: Path, target: Path) -> None:
    """Rename the staged folder. Raises `Occupied` if another program filled ``target`` meanwhile, `OSError`."""
    staged.chmod(stat.S_IMODE(target.stat().st_mode) if target.is_dir() else 0o777 & ~publish.umask())
    try:
        publish.publish_folder(staged, target)
    except OSError as error:
        if target.is_dir() and not target.is_symlink() and any(target.iterdir()):
            raise Occupied("this folder is not empty any more", item=str(target)) from error
        raise


def check_free_space(archive: AnyArchive, folder: Path) -> None:
    """See that the disk has room for all of an archive below ``folder``, which need not exist yet.

    Raises `NoSpace` with the bytes needed and free, before anything is written.
    """
    space = disk_space(folder)
    hint = "free some space, or unpack to another disk; nothing was written"
    free = space.free_bytes
    if free is not None and archive.size > free:
        what = f"it unpacks to {archive.size:,} bytes and {free:,} are free: {archive.size - free:,} short"
        raise NoSpace(what, item=str(folder), hint=hint)
    if space.free_files is not None and len(archive.members) > space.free_files:
        what = f"it unpacks to {len(archive.members):,} files and the disk has inodes for {space.free_files:,} more"
        raise NoSpace(what, item=str(folder), hint=hint)


def check_bytes(archive: AnyArchive, progress: Progress) -> dict[str, str]:
    """Read every member and check it as `extract` does, and write nothing; returns the SHA-256 of each file by its
    path. Raises `ProtocolError`."""
    digests: dict[str, str] = {}
    with archive.named():
        for member in (one for one in archive.members if not one.is_folder):
            name = member.path.text
            progress.add(0, name)
            digests[name] = archive.copy(member, None, partial(progress.add, file=name))
            _check_whole(archive, member, archive.open(member), to_serve=False)
        archive.check_unchanged()
    return digests


def extract(
    archive: AnyArchive,
    folder: Path,
    progress: Progress,
    find_copy: FindCopy = lambda _entry: None,
    *,
    to_serve: bool = False,
) -> tuple[Manifest, int]:
    """Write every member into ``folder``, checked and synced; returns the list of the files, and how many of them are
    hard links to what ``find_copy`` found. ``to_serve``: they are to be put into service.

    Raises `ProtocolError`, `OSError`.
    """
    entries = []
    linked = 0
    root = os.fspath(folder)
    made = {""}
    with archive.named(), BackgroundSync(_SYNCERS) as sync:
        for member in archive.members:
            name = member.path.text
            parent = name if member.is_folder else name.rpartition("/")[0]
            if parent not in made:
                Path(root, parent).mkdir(parents=True, exist_ok=True)
                made.add(parent)
            if not member.size:
                progress.add(0, name)  # there may be a million of these
            if member.is_folder:
                continue
            place = f"{root}/{name}"
            sha256 = archive.digests.get(name, "")
            is_linked = sha256 != "" and _link(find_copy(ManifestEntry(name, member.size, sha256)), member, place)
            if is_linked:
                progress.add(member.size, name)
            elif sha256:
                _write(archive, member, place, progress, sync, to_serve=to_serve)
            else:
                sha256 = _write(archive, member, place, progress, sync, to_serve=to_serve)
                is_linked = name != NAME and _link(find_copy(ManifestEntry(name, member.size, sha256)), member, place)
            linked += is_linked
            if name != NAME:
                entries.append(ManifestEntry(name, member.size, sha256))
        archive.check_unchanged()
    listed = tuple(sorted(entries, key=lambda entry: entry.path))
    return archive.manifest or Manifest(listed), linked


def _link(source: Path | None, member: ArchiveEntry, place: str) -> bool:
    """Make ``place`` a hard link to a file with the same bytes, if there is one and the system allows it."""
    if source is None or bool(source.stat().st_mode & stat.S_IXUSR) != member.executable:
        return False
    try:
        publish.link(source, Path(place))
    except OSError:
        return False
    return True


def _write(
    archive: AnyArchive, member: ArchiveEntry, place: str, progress: Progress, sync: BackgroundSync, *, to_serve: bool
) -> str:
    """Write one member to a new file; returns its SHA-256."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(place, flags, 0o777 if member.executable else 0o666)
    name = member.path.text

    def wrote(count: int) -> None:
        progress.add(count, name)
        sync.wrote(fd, count)

    try:
        sha256 = archive.copy(member, fd, wrote)
        with open(fd, "rb", closefd=False) as file:
            _check_whole(archive, member, file, to_serve=to_serve)
    except BaseException:
        os.close(fd)
        raise
    sync.close(fd, member.size)
    return sha256


def _check_whole(archive: AnyArchive, member: ArchiveEntry, file: ReadableFile, *, to_serve: bool) -> None:
    """See that a file of weights has its end, unless the manifest says that it was packed incomplete.

    ``file`` is the member, open. What only has a name of weights, and holds something else, may be unpacked, but not
    put into service: ``to_serve``. Raises `ProtocolError`.
    """
    name = member.path.text
    may_be_cut = archive.manifest is not None and name in archive.manifest.incomplete
    if may_be_cut or not is_weights(name) or (not to_serve and is_of_another_format(file, member.size, name)):
        return
    why = why_not_whole(file, member.size, name)
    if why:
        raise ProtocolError(why, item=member.shown)
