"""delete: take models from this disk. Shared bytes stay, and so do files that the user changed or added.

Files go before the receipts that tell of them: if this is killed, the same command finishes it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mdl.disk import publish
from mdl.disk.mutex import file_lock, is_locked
from mdl.disk.safe_open import is_own_folder, make_private_dir, open_parent
from mdl.downloader.adoption import is_held
from mdl.downloader.hub_cache import remove_shared
from mdl.downloader.hub_repos import all_shared_links
from mdl.downloader.store import Store
from mdl.errors import Busy, MdlError, joint_error, storage_error
from mdl.files import Stamp
from mdl.local.delete_plan import Deletion, KeptFile
from mdl.paths import RelPath, record_name
from mdl.reports import BaseReport
from mdl.values import value_class

_BUSY = "wait for it, or stop it: 'mdl jobs' shows what runs"


@value_class
class DeletedModel:
    """One model, and what of it was or would be deleted. ``bytes_freed`` does not count ``bytes_shared``, which another
    model or program has too. ``files_imported`` have no source that mdl could fetch them from again. ``error`` says why
    it is still there."""

    name: str
    path: Path
    layout: str
    files: int = 0
    bytes_freed: int = 0
    bytes_shared: int = 0
    files_imported: int = 0
    kept: tuple[KeptFile, ...] = ()
    error: MdlError | None = None


@value_class
class DeleteReport(BaseReport):
    """How deleting went, model by model, and the errors of targets that are not here at all."""

    models: tuple[DeletedModel, ...] = ()
    errors: tuple[MdlError, ...] = ()

    @property
    def bytes_freed(self) -> int:
        return sum(model.bytes_freed for model in self.models if not model.error)

    @property
    def error(self) -> MdlError | None:
        """The one error that stands for all; None if all is well."""
        return joint_error([*self.errors, *(model.error for model in self.models if model.error)])


def delete(
    store: Store, deletions: Sequence[Deletion], errors: Sequence[MdlError] = (), *, dry_run: bool = False
) -> DeleteReport:
    """Carry deletions out, or with ``dry_run`` only say what they would do. What fails for one model hinders no other.
    Raises `Cancelled` between two files."""
    if not dry_run and is_own_folder(store.own / "stage"):
        publish.sweep(store.own / "stage")  # what a deletion that was killed had put there
    rows: list[DeletedModel] = []
    shared = _SharedFiles()
    names: Counter[tuple[int, int]] = Counter()
    for one in deletions:
        names.update((found.st_dev, found.st_ino) for found in one.sizes)
        sizes = {(found.st_dev, found.st_ino): found for found in one.sizes}
        freed = sum(found.st_size for key, found in sizes.items() if names[key] >= found.st_nlink)
        staying = sum(found.st_size for found in sizes.values()) - freed
        shared_freed, shared_staying = shared.sizes(one)
        freed += one.unfinished + shared_freed
        staying += shared_staying
        layout = one.store.layout.name
        kept = tuple(one.kept)
        row = DeletedModel(one.name, one.path, layout, one.files, freed, staying, one.imported, kept)
        try:
            _refuse_busy(one)
            if not dry_run:
                row = replace(row, kept=(*row.kept, *_carry_out(one)))
        except (MdlError, OSError) as error:
            names.subtract((found.st_dev, found.st_ino) for found in one.sizes)
            where = str(getattr(error, "filename", None) or one.path)
            row = replace(row, error=storage_error(error, where) if isinstance(error, OSError) else error.on(one.name))
        rows.append(row)
    return DeleteReport(tuple(rows), tuple(errors))


class _SharedFiles:
    """Which files of the shared stores of hub caches still have links, when the deletions up to now are carried out."""

    def __init__(self) -> None:
        self._links: dict[Path, dict[Path, set[Path]]] = {}
        """By cache, then by file."""

    def sizes(self, one: Deletion) -> tuple[int, int]:
        """The bytes of those files that lose their last link with this deletion, and of those that do not."""
        if not one.shared_links:
            return 0, 0
        cache = one.store.root
        links = self._links.setdefault(cache, all_shared_links(cache))
        freed = staying = 0
        for path, going in one.shared_links.items():
            there = links.get(path, set())
            there -= going
            size = path.stat().st_size if path.is_file() else 0
            freed += 0 if there else size
            staying += size if there else 0
        return freed, staying


def _remove_shared(one: Deletion) -> None:
    """Remove the shared files to which no repository leads any more. Raises `OSError`, `Unsafe`."""
    cache = one.store.root
    for path in one.shared_links:
        with contextlib.suppress(FileNotFoundError):
            remove_shared(cache, path, lambda path=path: path in all_shared_links(cache))  # type: ignore[misc]


def _refuse_busy(one: Deletion) -> None:
    """Raises `Busy` if a process, also one of another machine, is at work on it."""
    locks = [one.store.locks / f"{record_name(name)}.lock" for name in one.names]
    if any(map(is_locked, locks)) or any(map(is_held, one.partials)):
        raise Busy("another mdl is at work on it", hint=_BUSY)
    if any(map(is_locked, one.foreign_locks)):
        raise Busy("Hugging Face's client is downloading into it", hint="wait for it, or stop it")


def _carry_out(one: Deletion) -> list[KeptFile]:
    """Returns what stays after all, for it was changed meanwhile. Raises `Busy`, `OSError`, `Unsafe`."""
    root = one.store.root
    changed = list[KeptFile]()
    folders = set(one.folders)
    seen = {(found.st_dev, found.st_ino): Stamp.of(found) for found in one.sizes}
    with contextlib.ExitStack() as stack:
        for name in sorted(set(one.names)):
            stack.enter_context(file_lock(one.store.locks, name, 0.0, lambda _holder: None))
        for folder in one.partials:
            publish.remove(folder)
        for path in one.steps:
            one.store.cancel.check()
            base = root if path.is_relative_to(root) else path.parent  # where a link of the user's leads to
            with (
                contextlib.suppress(FileNotFoundError),
                open_parent(base, RelPath(str(path.relative_to(base))), make=False) as entry,
            ):
                now = entry.stat()
                if now is None:
                    continue
                if stat.S_ISDIR(now.st_mode):
                    publish.retire_entry(entry, make_private_dir(one.store.own / "stage"))
                elif _is_changed(now, seen) and path not in one.records:
                    changed.append(KeptFile(path, "changed just now"))
                else:
                    os.unlink(entry.name, dir_fd=entry.folder)
                folders.add(path.parent)
        _remove_shared(one)
        prune([folder for folder in folders if folder.is_relative_to(root)], root)
        one.forget()
    return changed


def _is_changed(now: os.stat_result, seen: Mapping[tuple[int, int], Stamp]) -> bool:
    """Whether another file is there, or other bytes are in it, than when the deletion was planned."""
    return stat.S_ISREG(now.st_mode) and seen.get((now.st_dev, now.st_ino)) != Stamp.of(now)


def prune(folders: Iterable[Path], root: Path) -> None:
    """Sync the folders, and remove those that are empty, and those above them that become so, but not ``root``."""
    for folder in sorted(folders, reverse=True):
        with contextlib.suppress(OSError):
            publish.sync_folder(folder)
        with contextlib.suppress(OSError):
            while folder != root:
                folder.rmdir()
                folder = folder.parent
