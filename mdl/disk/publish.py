"""Publishing: write a file under a hidden name, sync it, then give it its final name. Only this module does that."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mdl.disk import is_unsupported, refuses_order, sync, write_all
from mdl.disk.process import PATTERN, ProcessId
from mdl.disk.safe_open import NO_LINK, EntryAt, create, open_parent
from mdl.paths import RelPath

_STAGED = rf"\..+\.({PATTERN})\.mdl-tmp"
"""The hidden name of a staged file: anything, and the process that makes it."""
_ABANDONED_SECONDS = 86400.0
_FOLDERS_AT_ONCE = 64
"""So many are opened before `OpenFolders.sync_if_many` closes them: a process may often have no more than 256 files."""
_MARK_BYTES = 5
"""Random bytes that tell the staged names of one process apart: also from those of a dead one that had the same id."""


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_open_folder(fd)
    finally:
        os.close(fd)


def sync_open_folder(folder: int) -> None:
    """As `sync_folder`, for an open folder. Raises `OSError`, unless the file system cannot sync folders."""
    sync(folder)


def write_file(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True, sweep_first: bool = False) -> None:
    """Write ``data`` to ``path`` completely or not at all; it is on the disk before it is visible.

    ``durable=False`` leaves the syncing to the system, for data that can be found out again. With ``sweep_first`` the
    staged files that killed processes left in that folder are removed: for folders that no other code sweeps.
    Raises `OSError`.
    """
    if sweep_first:
        sweep(path.parent)
    replace_file(stage(path.parent, path.name, data, mode=mode, durable=durable), path)
    if durable:
        sync_folder(path.parent)


def replace_file(staged: Path, final: Path) -> None:
    """Give a staged file its final name, which is free or that of a regular file. If this raises `OSError`, the staged
    file is removed and nothing else changed. The caller syncs the folder."""
    try:
        refuse_special(final)
        os.replace(staged, final)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def refuse_special(path: Path) -> None:
    """Raises `FileExistsError` if ``path`` is a folder, device, pipe or socket, or a link to one: a rename would put a
    regular file in its place, and root could do that even to ``/dev/null``. Raises `OSError`."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return
        raise
    _refuse(mode, path)


def _refuse(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise FileExistsError(errno.EEXIST, f"it is {what}, and mdl replaces regular files only", str(path))


def unpublish(path: Path) -> None:
    """Remove the regular file that was published under ``path``, if there is one. Raises `OSError`."""
    refuse_special(path)
    path.unlink(missing_ok=True)


def stage(folder: Path, name: str, data: bytes, *, mode: int, durable: bool = True) -> Path:
    """Write ``data`` under a staged name in ``folder``, synced if ``durable``; returns the path. Raises `OSError` with
    the name that the file is to get: people do not know the staged one, and a full disk tells none."""
    folder.mkdir(parents=True, exist_ok=True)
    staged = staged_name(folder / name)
    try:
        fd = create(staged, mode)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    sync(file.fileno())
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno is not None:
            error.filename = str(folder / name)
        raise
    return staged


def stage_link(folder: Path, name: str, target: str) -> Path:
    """Make a symbolic link to ``target`` under a staged name in ``folder``; returns its path. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    staged = staged_name(folder / name)
    os.symlink(target, staged)
    return staged


def can_link(folder: Path) -> bool:
    """Return whether symbolic links can be made in a folder. Raises `OSError`."""
    try:
        stage_link(folder, "probe", "probe").unlink(missing_ok=True)
    except OSError as error:
        if is_unsupported(error):
            return False
        raise
    return True


def publish_link(stage: Path, target: str, entry: EntryAt) -> None:
    """Make a symbolic link to ``target``, which replaces a file or a link. It is staged in the folder ``stage``, or
    beside its final name if that is on another file system. Raises `OSError`."""
    staged = stage_link(stage, entry.name, target)
    try:
        _give_name(staged, entry)
        return
    except OSError as error:
        staged.unlink(missing_ok=True)
        if error.errno != errno.EXDEV:
            raise
    near = Path(hidden_name())
    os.symlink(target, near, dir_fd=entry.folder)
    try:
        _give_name(near, entry, entry.folder)
    except BaseException:
        os.unlink(near, dir_fd=entry.folder)
        raise


@dataclass(eq=False, repr=False)
class StagedFile:
    """A small file under a staged name, open until it is closed. Several are synced for little more than one."""

    path: Path
    fd: int
    is_published: bool = False

    @classmethod
    def write(cls, folder: Path, data: bytes) -> StagedFile:
        """Stage ``data`` in a folder that is there, not synced yet. Raises `OSError`."""
        path = folder / hidden_name()
        staged = cls(path, create(path, flags=os.O_RDWR))
        try:
            write_all(staged.fd, data)
        except BaseException:
            staged.close()
            raise
        return staged

    def sync(self) -> None:
        """Raises `OSError`."""
        sync(self.fd)

    def publish(self, entry: EntryAt) -> os.stat_result | None:
        """As `give_name`. A file that is written may have to be closed first, as on mounts of buckets."""
        try:
            copied = give_name(self.path, entry)
        except OSError as error:
            if error.errno != errno.EBUSY and not refuses_order(error):
                raise
            fd = self.fd
            self.fd = -1
            os.close(fd)
            self.fd = os.open(self.path, os.O_RDONLY | NO_LINK)
            copied = give_name(self.path, entry)
        self.is_published = True
        return copied

    def close(self) -> None:
        """Close the file, once, and remove it unless it was published."""
        fd = self.fd
        self.fd = -1
        if fd >= 0:
            os.close(fd)
            if not self.is_published:
                self.path.unlink(missing_ok=True)


def start_syncing(files: Iterable[int]) -> None:
    """Have the system begin to write these open files, if it takes that hint. Then the first sync commits the entries
    of all of them to the file system's journal, and the others need not: one commit instead of one for each."""
    if hasattr(os, "posix_fadvise"):
        for fd in files:
            with contextlib.suppress(OSError):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


class OpenFolders:
    """Folders in which many files get their names: each is opened once and synced once, unless there are many."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._found: dict[tuple[Path, str], EntryAt] = {}
        self._changed: set[int] = set()

    def __enter__(self) -> OpenFolders:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def entry(self, root: Path, path: RelPath) -> EntryAt:
        """As `open_parent`."""
        key = root, path.text.rpartition("/")[0]
        if key not in self._found:
            self._found[key] = self._stack.enter_context(open_parent(root, path))
        self._changed.add(self._found[key].folder)
        return self._found[key].beside(path.name)

    def sync(self) -> None:
        """Make the names that were given since the last time survive a power cut. Raises `OSError`."""
        while self._changed:
            sync_open_folder(self._changed.pop())

    def sync_if_many(self) -> None:
        """Sync and close the folders if so many are open that the process might run out of descriptors; entries that
        were given before are then of no use any more. Raises `OSError`."""
        if len(self._found) >= _FOLDERS_AT_ONCE:
            self.sync()
            self._found.clear()
            self._stack.close()


def publish(staged: Path, entry: EntryAt) -> os.stat_result | None:
    """As `give_name`, and make the name survive a power cut."""
    copied = give_name(staged, entry)
    sync_open_folder(entry.folder)
    return copied


def give_name(staged: Path, entry: EntryAt) -> os.stat_result | None:
    """Give a file that is already synced its final name; nothing is visible under that name before.

    If the final folder is on another file system (a mount inside the models folder), the bytes are copied to a staged
    name beside the final one first, and the status of the copy is returned. Raises `FileExistsError` if the entry is to
    be new and something is there, `OSError`.
    """
    try:
        _give_name(staged, entry)
        return None
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    copied = _copy_beside(staged, entry)
    staged.unlink()
    return copied


def _give_name(staged: Path, entry: EntryAt, staged_in: int | None = None) -> None:
    """Rename a staged file to its final name. ``staged`` is relative to the open folder ``staged_in``, if that is
    given."""
    if entry.is_new and rename_noreplace(staged, entry.folder, entry.name, staged_in):
        return
    status = entry.stat()
    if status is not None and entry.is_new:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(entry.path))
    if status is not None and not stat.S_ISLNK(status.st_mode):
        _refuse(status.st_mode, entry.path)
    os.replace(staged, entry.name, src_dir_fd=staged_in, dst_dir_fd=entry.folder)


def rename_noreplace(source: Path, folder: int, name: str, source_folder: int | None = None) -> bool:
    """Rename a file to ``name`` in an open folder, atomically only if that name is free: by a hard link, after which
    the old name is removed. A process killed in between leaves both names.

    False if no hard link can be made there, and nothing was done; then a rename tells what the trouble is. Raises
    `FileExistsError`.
    """
    try:
        os.link(source, name, src_dir_fd=source_folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not os.path.samestat(there, os.stat(source, dir_fd=source_folder, follow_symlinks=False)):
            raise  # else NFS repeated a request that had succeeded
    except (OSError, NotImplementedError):
        return False
    with contextlib.suppress(OSError):
        os.unlink(source, dir_fd=source_folder)
    return True


def _copy_beside(staged: Path, entry: EntryAt) -> os.stat_result:
    near = Path(hidden_name())
    with staged.open("rb") as source:
        mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode)
        fd = create(near, mode, folder=entry.folder)
        try:
            with os.fdopen(fd, "wb") as file:
                shutil.copyfileobj(source, file)
                file.flush()
                sync(file.fileno())
                copied = os.fstat(file.fileno())
            _give_name(near, entry, entry.folder)
            return copied
        except BaseException:
            os.unlink(near, dir_fd=entry.folder)
            raise


def take_over(folder: Path, mine: Path) -> bool:
    """Take over a folder that another process left, by renaming it. False if a third process was faster."""
    try:
        os.replace(folder, mine)
    except OSError:
        return False
    return True


def take_away(path: Path, is_it: Callable[[Path], bool]) -> bool:
    """Remove a file that another process left. It is renamed first: if ``is_it`` says that it is another file, which a
    third process put there meanwhile, it gets its name back, and this returns False. Raises `OSError`."""
    mine = staged_name(path)
    try:
        os.replace(path, mine)
    except FileNotFoundError:
        return True
    found = is_it(mine)
    if not found:
        with contextlib.suppress(FileExistsError):
            os.link(mine, path)
    remove(mine)
    return found


def staged_name(final: Path) -> Path:
    """Return a hidden name in the folder of ``final``, under which it is written first. No other call returns it."""
    return final.parent / hidden_name()


def hidden_name(mark: str = "") -> str:
    """Return the name of a staged file: short, whatever its final name is, as some disks take 143 bytes or fewer (ADR
    52). It has the `ProcessId` in it, for `sweep`, and the ``mark``, or a random one if there is none."""
    return f".{mark or os.urandom(_MARK_BYTES).hex()}.{ProcessId.current()}.mdl-tmp"


def sweep(folder: Path) -> None:
    """Remove the staged files in ``folder`` whose processes have ended."""
    for entry in leftovers(folder):
        remove(entry)


def is_staged(name: str) -> bool:
    """Return whether a file of this name is staged, by a living process or a dead one."""
    return re.fullmatch(_STAGED, name) is not None


def leftovers(folder: Path) -> list[Path]:
    """Return the staged files and folders in ``folder`` whose processes have ended. A process that cannot be seen from
    here counts as ended after a day without a write."""
    abandoned = []
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if not (match := re.fullmatch(_STAGED, entry.name)):
                continue
            alive = ProcessId(match[1]).is_alive()
            if alive is None:
                paths = [entry] if entry.is_symlink() else [entry, *entry.rglob("*")]
                newest = max(path.lstat().st_mtime for path in paths)
                alive = time.time() - newest <= _ABANDONED_SECONDS
            if not alive:
                abandoned.append(entry)
    return abandoned


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with everything in it, also if it is read-only; errors are ignored."""
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        for folder, _, _ in os.walk(path):
            Path(folder).chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def retire(path: Path) -> None:
    """Remove a folder so that it is never visible half: it is renamed first. Raises `OSError`."""
    gone = staged_name(path)
    os.replace(path, gone)
    remove(gone)


def retire_entry(entry: EntryAt, stage: Path) -> None:
    """As `retire`, of the folder at ``entry``: it is renamed into ``stage``, which `sweep` clears if this process is
    killed. On another file system it is removed where it is. Raises `OSError`."""
    gone = stage / hidden_name()
    try:
        os.replace(entry.name, gone, src_dir_fd=entry.folder)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.rmtree(entry.name, dir_fd=entry.folder)
    remove(gone)


@contextlib.contextmanager
def staged_file(final: Path) -> Iterator[int]:
    """A new file, open under a staged name. At the end it is synced and gets its final name; if anything is raised, it
    is removed. Raises `OSError`."""
    sweep(final.parent)
    staged = staged_name(final)
    fd = create(staged, flags=os.O_RDWR)
    try:
        yield fd
        sync(fd)
        replace_file(staged, final)
        sync_folder(final.parent)
    finally:
        os.close(fd)
        staged.unlink(missing_ok=True)


def publish_folder(staged: Path, final: Path) -> None:
    """Give a folder whose files are synced its final name; ``final`` does not exist or is an empty folder."""
    for folder, _, _ in os.walk(staged, topdown=False):
        sync_folder(Path(folder))
    os.replace(staged, final)
    sync_folder(final.parent)


def link(source: Path, final: Path) -> None:
    """Make ``final`` a hard link to ``source``; an old file is replaced. If this raises `OSError`, nothing changed."""
    staged = staged_name(final)
    os.link(source, staged)
    replace_file(staged, final)


def switch_link(link: Path, target: str) -> None:
    """Point the symbolic link ``link`` at ``target`` atomically: a reader finds the old target or the new one. Raises
    `OSError`, also if there is something else than a link."""
    if os.path.lexists(link) and not link.is_symlink():
        raise FileExistsError(errno.EEXIST, "it is not a symbolic link", str(link))
    staged = stage_link(link.parent, link.name, target)
    try:
        os.replace(staged, link)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync_folder(link.parent)


def rotate(path: Path, kept: int) -> None:
    """Rename ``path`` to ``path.1``, that to ``path.2`` and so on; at most ``kept`` old ones are kept. Raises
    `OSError`."""
    for number in range(kept, 0, -1):
        older = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
        with contextlib.suppress(FileNotFoundError):
            os.replace(older, path.with_name(f"{path.name}.{number}"))


def umask() -> int:
    """Return the umask of this process; read without changing it, if the system tells."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
