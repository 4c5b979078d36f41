"""delete: take models from this disk. Shared bytes stay, and so do files that the user changed or added.

Files go before the receipts that tell of them: if this is killed, the same command finishes it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mdl.disk import publish
from mdl.disk.mutex import file_lock, is_locked
from mdl.disk.own_files import is_own_folder, make_private_dir
from mdl.disk.safe_open import open_parent
from mdl.downloader.hub_cache import all_shared_links, remove_shared
from mdl.downloader.partial_folders import is_held
from mdl.downloader.store import Store
from mdl.errors import Busy, MdlError, storage_error
from mdl.files import Stamp
from mdl.local.delete_plan import Deletion, KeptFile
from mdl.paths import RelPath, record_name
from mdl.reports import TargetsReport
from mdl.values import value_class


@value_class
class DeletedModel:
    """A model, and what of it was or would be deleted. People call it ``label``.

    ``bytes_freed`` does not count ``bytes_shared``, which another model or program has too. ``files_imported`` have no
    source that mdl could fetch them from again. ``error`` says why it is still there.
    """

    name: str
    label: str
    path: Path
    layout: str
    files: int = 0
    bytes_freed: int = 0
    bytes_shared: int = 0
    files_imported: int = 0
    kept: tuple[KeptFile, ...] = ()
    error: MdlError | None = None

    @property
    def has_only_kept(self) -> bool:
        """Return whether nothing of it goes."""
        return bool(self.kept) and not (self.files or self.bytes_freed)


@value_class
class DeleteReport(TargetsReport):
    """Report of a deletion, model by model, and the errors of targets that are not here at all."""

    models: tuple[DeletedModel, ...] = ()
    errors: tuple[MdlError, ...] = ()

    @property
    def bytes_freed(self) -> int:
        return sum(model.bytes_freed for model in self.models if not model.error)


def delete(
    store: Store, deletions: Sequence[Deletion], errors: Sequence[MdlError] = (), *, dry_run: bool = False
) -> DeleteReport:
    """Carry deletions out, or with ``dry_run`` only say what they would do. What fails for one model hinders no other.
    Raises `Cancelled` between two files."""
    if not dry_run and is_own_folder(store.own / "stage"):
        publish.sweep(store.own / "stage")  # what a deletion that was killed had put there
    models: list[DeletedModel] = []
    freeing = _Freeing()
    for deletion in deletions:
        freed, shared = freeing.sizes_of(deletion)
        kept = list(deletion.kept)
        failure: MdlError | None = None
        try:
            _refuse_busy(deletion)
            if not dry_run:
                kept += _carry_out(deletion)
        except MdlError as error:
            failure = error.on(deletion.label)
        except OSError as error:
            failure = storage_error(error, str(error.filename or deletion.path))
        if failure is not None:
            freeing.take_back(deletion)
        deleted = DeletedModel(
            name=deletion.name,
            label=deletion.label,
            path=deletion.path,
            layout=deletion.store.layout.name,
            files=deletion.files,
            bytes_freed=freed,
            bytes_shared=shared,
            files_imported=deletion.imported,
            kept=tuple(kept),
            error=failure,
        )
        models.append(deleted)
    return DeleteReport(tuple(models), tuple(errors))


class _Freeing:
    """The bytes that the deletions up to now free: those that have several names are freed with the last of these."""

    def __init__(self) -> None:
        self._names_gone: Counter[tuple[int, int]] = Counter()
        """The number of names of a file that go, by its device and inode."""
        self._links: dict[Path, dict[Path, set[Path]]] = {}
        """By hub cache: the links to each file of its shared store that are left."""

    def sizes_of(self, deletion: Deletion) -> tuple[int, int]:
        """The bytes that one more deletion frees, and those that stay, for they have other names."""
        freed = deletion.unfinished
        shared = 0
        by_inode: dict[tuple[int, int], os.stat_result] = {}
        for status in deletion.sizes:
            inode = status.st_dev, status.st_ino
            by_inode[inode] = status
            self._names_gone[inode] += 1
        for inode, status in by_inode.items():
            if self._names_gone[inode] >= status.st_nlink:
                freed += status.st_size
            else:
                shared += status.st_size
        for path, links_gone in deletion.shared_links.items():
            links = self._links_of(deletion.store.root).get(path, set())
            links -= links_gone
            if not path.is_file():
                continue
            if links:
                shared += path.stat().st_size
            else:
                freed += path.stat().st_size
        return freed, shared

    def take_back(self, deletion: Deletion) -> None:
        """A deletion failed: its names stay."""
        self._names_gone.subtract((status.st_dev, status.st_ino) for status in deletion.sizes)

    def _links_of(self, cache: Path) -> dict[Path, set[Path]]:
        if cache not in self._links:
            self._links[cache] = all_shared_links(cache)
        return self._links[cache]


def _refuse_busy(deletion: Deletion) -> None:
    """Raises `Busy` if a process, also one of another machine, is at work on it."""
    for name in deletion.names:
        if is_locked(deletion.store.locks / f"{record_name(name)}.lock"):
            raise _busy()
    for folder in deletion.partials:
        if is_held(folder):
            raise _busy()
    for lock in deletion.foreign_locks:
        if is_locked(lock):
            raise Busy("Hugging Face's client is downloading into it", hint="wait for it, or stop it")


def _busy() -> Busy:
    return Busy("another mdl is at work on it", hint="wait for it, or stop it: 'mdl jobs' shows what runs")


def _carry_out(deletion: Deletion) -> list[KeptFile]:
    """Returns what stays after all, for it was changed meanwhile. Raises `Busy`, `OSError`, `Unsafe`."""
    store = deletion.store
    changed: list[KeptFile] = []
    folders = set(deletion.folders)
    with contextlib.ExitStack() as stack:
        for name in sorted(set(deletion.names)):
            stack.enter_context(file_lock(store.locks, name, 0.0, lambda _holder: None))
        for folder in deletion.partials:
            publish.remove(folder)
        seen = {(status.st_dev, status.st_ino): Stamp.of(status) for status in deletion.sizes}
        for path in deletion.steps:
            store.cancel.check()
            with contextlib.suppress(FileNotFoundError):
                if path in deletion.records:
                    _remove(path, store, None)
                elif not _remove(path, store, seen):
                    changed.append(KeptFile(path, "changed just now"))
                folders.add(path.parent)
        for shared in deletion.shared_links:
            remove_unlinked(store.root, shared)
        prune([folder for folder in folders if folder.is_relative_to(store.root)], store.root)
        for model, paths in deletion.forgotten.items():
            store.receipts.drop(model, paths)
    return changed


def _remove(path: Path, store: Store, seen: Mapping[tuple[int, int], Stamp] | None) -> bool:
    """Remove a file, a link or a whole folder; tells whether it is gone. A file stays that is not as it was ``seen``,
    by its device and inode, if that is given. Raises `FileNotFoundError`, `OSError`, `Unsafe`."""
    base = store.root
    if not path.is_relative_to(base):
        base = path.parent  # where a link of the user's leads to
    with open_parent(base, RelPath(str(path.relative_to(base))), make=False) as entry:
        status = entry.stat()
        if status is None:
            raise FileNotFoundError(str(path))
        if stat.S_ISDIR(status.st_mode):
            publish.retire_entry(entry, make_private_dir(store.own / "stage"))
            return True
        if seen is not None and stat.S_ISREG(status.st_mode):
            stamp = seen.get((status.st_dev, status.st_ino))
            if stamp != Stamp.of(status):
                return False
        os.unlink(entry.name, dir_fd=entry.folder)
    return True


def remove_unlinked(cache: Path, shared: Path) -> None:
    """Remove a file of the shared store of a hub cache if no repository leads to it any more. Raises `OSError`,
    `Unsafe`."""
    with contextlib.suppress(FileNotFoundError):
        remove_shared(cache, shared, lambda: shared in all_shared_links(cache))


def prune(folders: Iterable[Path], root: Path) -> None:
    """Sync the folders, and remove those that are empty, and those above them that become so, but not ``root``."""
    for folder in sorted(folders, reverse=True):
        with contextlib.suppress(OSError):
            publish.sync_folder(folder)
        with contextlib.suppress(OSError):
            while folder != root:
                folder.rmdir()
                folder = folder.parent
