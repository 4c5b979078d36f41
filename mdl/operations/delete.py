"""delete: take models from this disk. Shared bytes stay, and so do files that the user changed or added.

Files go before the receipts that tell of them: if this is killed, the same command finishes it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mdl.engine.adoption import is_held
from mdl.engine.store import Store
from mdl.errors import Busy, MdlError, joint_error, storage_error
from mdl.files import Stamp
from mdl.fs import staging
from mdl.fs.entries import open_parent
from mdl.fs.private import is_own_folder, make_private_dir
from mdl.locks import file_lock, is_locked
from mdl.operations.deletion import Deletion, KeptFile
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
        staging.sweep(store.own / "stage")  # what a deletion that was killed had put there
    rows: list[DeletedModel] = []
    names: Counter[tuple[int, int]] = Counter()
    for one in deletions:
        names.update((found.st_dev, found.st_ino) for found in one.sizes)
        sizes = {(found.st_dev, found.st_ino): found for found in one.sizes}
        freed = sum(found.st_size for key, found in sizes.items() if names[key] >= found.st_nlink)
        shared = sum(found.st_size for found in sizes.values()) - freed
        layout, kept = one.store.layout.name, tuple(one.kept)
        freed += one.unfinished
        row = DeletedModel(one.name, one.path, layout, one.files, freed, shared, one.imported, kept)
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


def _refuse_busy(one: Deletion) -> None:
    """Raises `Busy` if a process, also one of another machine, is at work on it."""
    locks = [one.store.locks / f"{record_name(name)}.lock" for name in one.names]
    if any(map(is_locked, locks)) or any(map(is_held, one.partials)):
        raise Busy("another mdl is at work on it", hint=_BUSY)
    if any(map(is_locked, one.foreign_locks)):
        raise Busy("Hugging Face's client is downloading into it", hint="wait for it, or stop it")


def _carry_out(one: Deletion) -> list[KeptFile]:
    """Returns what stays after all, for it was changed meanwhile. Raises `Busy`, `OSError`, `Unsafe`."""
    root, changed, folders = one.store.root, list[KeptFile](), set(one.folders)
    seen = {(found.st_dev, found.st_ino): Stamp.of(found) for found in one.sizes}
    with contextlib.ExitStack() as stack:
        for name in sorted(set(one.names)):
            stack.enter_context(file_lock(one.store.locks, name, 0.0, lambda _holder: None))
        for folder in one.partials:
            staging.remove(folder)
        for path in one.steps:
            one.store.cancel.check()
            with (
                contextlib.suppress(FileNotFoundError),
                open_parent(root, RelPath(str(path.relative_to(root))), make=False) as entry,
            ):
                now = entry.stat()
                if now is None:
                    continue
                if stat.S_ISDIR(now.st_mode):
                    staging.retire_entry(entry, make_private_dir(one.store.own / "stage"))
                elif stat.S_ISREG(now.st_mode) and seen.get((now.st_dev, now.st_ino)) != Stamp.of(now):
                    changed.append(KeptFile(path, "changed just now"))
                else:
                    os.unlink(entry.name, dir_fd=entry.folder)
                folders.add(path.parent)
        prune(folders, root)
        one.forget()
    return changed


def prune(folders: Iterable[Path], root: Path) -> None:
    """Sync the folders, and remove those that are empty, and those above them that become so, but not ``root``."""
    for folder in sorted(folders, reverse=True):
        with contextlib.suppress(OSError):
            staging.sync_folder(folder)
        with contextlib.suppress(OSError):
            while folder != root:
                folder.rmdir()
                folder = folder.parent
