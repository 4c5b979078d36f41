"""inventory: everything that is on this disk, in both layouts, whether or not a catalog names it. Contacts nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mdl.catalog.model import COMMAND_LINE, Model
from mdl.disk.safe_open import names_below
from mdl.downloader.hub_cache import SNAPSHOTS
from mdl.downloader.partial_folders import key_of, size_of_partial
from mdl.downloader.receipts import file_key
from mdl.downloader.store import Store
from mdl.files import Receipt
from mdl.formatting import human_bytes
from mdl.local.from_receipts import fetched_files, model_of
from mdl.local.on_disk import Known, RepoOnDisk, entries, foreign_entries, repos_on_disk
from mdl.local.status import BroughtBy, FileStatus, ModelStatus, Status, status_of, status_of_files
from mdl.notebook import html_table
from mdl.sources import Origin
from mdl.values import value_class


@value_class
class Inventory:
    """The models on this disk. ``bytes`` is what all models take: a file with several names counts once.
    ``unfinished`` are those of further downloads, which were only begun."""

    models: tuple[tuple[Model, ModelStatus], ...]
    bytes: int
    unfinished: int

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each model, and what all of them take."""
        rows = []
        for model, status in self.models:
            rows.append((model.label, status.status, human_bytes(status.bytes_present), str(status.path)))
        return html_table(("Model", "Status", "Size", "Folder"), rows, f"{human_bytes(self.bytes)} in all")


class _Room:
    """The room that files take on the disk: one that has several names counts once."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[int, int], int] = {}
        """Bytes of files, by device and inode."""

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(self._sizes.values())

    def add(self, path: Path, *, follow: bool = False) -> int:
        """Count a file, if it is there; a link itself, unless it is to be followed. Return the bytes that were not
        counted before."""
        try:
            status = os.stat(path, follow_symlinks=follow)
        except OSError:
            return 0
        inode = status.st_dev, status.st_ino
        if inode in self._sizes:
            return 0
        self._sizes[inode] = status.st_size
        return status.st_size

    def add_all(self, other: _Room) -> None:
        """Count every file of another one."""
        self._sizes |= other._sizes


@value_class
class _Listed:
    """A model, with what it takes on the disk: complete files, and bytes of ``unfinished`` ones."""

    model: Model
    status: ModelStatus
    room: _Room
    unfinished: int = 0


def take_inventory(
    stores: Sequence[Store], catalog: Mapping[str, Model], known: Known, endpoint: str, fits: Callable[[Model], bool]
) -> Inventory:
    """List what is in ``stores`` and ``fits``. ``endpoint`` is the URL of the hub. Raises `StateError`,
    `StorageError`."""
    models: list[tuple[Model, ModelStatus]] = []
    room = _Room()
    unfinished = 0
    keys: set[str] = set()
    for store in stores:
        in_store = _in_folder(store, catalog, known)
        if store.layout.is_by_digest:
            in_store = _in_cache(store, endpoint)
        for listed in in_store:
            if not listed.status.is_here or not fits(listed.model):
                continue
            models.append((listed.model, listed.status))
            room.add_all(listed.room)
            unfinished += listed.unfinished
            keys.update(file_key(listed.model.name, row.remote.path) for row in listed.status.rows)
    only_begun = 0
    for store in stores:
        for partial in entries(store.partials):
            if key_of(partial) not in keys:
                only_begun += size_of_partial(partial)
    return Inventory(tuple(models), room.bytes + unfinished, only_begun)


def is_here(origin: Origin, model: Model, status: ModelStatus) -> bool:
    """Return whether a model of the inventory is what ``origin`` means: its whole repository, at its revision if it
    names one. A part of a repository is never taken for another one."""
    if not (origin.repository and origin.is_whole):
        return False
    if origin.repository not in {source.repository for source in model.sources}:
        return False
    revisions = {row.commit for row in status.rows}
    for source in model.sources:
        revisions.update((source.revision, source.branch))
    return origin.revision is None or origin.revision in revisions


def _in_folder(store: Store, catalog: Mapping[str, Model], known: Known) -> Iterator[_Listed]:
    """The models of a plain models folder, then what is there that is not mdl's."""
    names_here: list[str] = []
    for name in sorted({*store.receipts.models(), *catalog}):
        receipts = store.receipts.in_order(name)
        model = catalog.get(name) or model_of(name, receipts)
        wanted = store.receipts.wanted(name)
        files = fetched_files(receipts, known(store, model), wanted, is_exact=name in catalog)
        status = status_of_files(name, files, store)
        if receipts or status.is_here:
            names_here.append(name)
        room = _Room()
        unfinished = 0
        for row in status.rows:
            room.add(store.final_path(name, row.remote))
            if row.status == "partial":
                unfinished += row.bytes_present
        yield _Listed(model, status, room, unfinished)
    for place in foreign_entries(store, names_here):
        room = _Room()
        files_here = 0
        for file in names_below(place):
            room.add(file)
            files_here += 1
        status = ModelStatus(place, "unverified", (), None, files_here, None, room.bytes, brought_by="other")
        yield _Listed(Model(str(place.relative_to(store.root)), kind=""), status, room)


def _in_cache(store: Store, endpoint: str) -> Iterator[_Listed]:
    """The repositories of the hub's cache, no matter which program brought them."""
    for cached in repos_on_disk(store):
        repo = cached.repo
        room = _Room()
        rows = _rows_of(cached, store, endpoint, room)
        status = status_of(rows, store, str(repo.origin), is_complete=not repo.unfinished)
        path = repo.folder
        commits = {file.commit for file in repo.files}
        if len(commits) == 1:
            path = repo.folder / SNAPSHOTS / commits.pop()
        brought_by: BroughtBy = "hub-client"
        if any(row.is_own for row in rows):
            brought_by = "mdl"
        status = replace(status, path=path, bytes_present=room.bytes + repo.unfinished, brought_by=brought_by)
        model = Model(str(repo.origin), kind=repo.origin.kind, sources=(repo.origin,), origin=COMMAND_LINE)
        yield _Listed(model, status, room, repo.unfinished)


def _rows_of(cached: RepoOnDisk, store: Store, endpoint: str, room: _Room) -> list[FileStatus]:
    """The files of a repository, which are counted in ``room``; bytes that have several names count at the first
    one."""
    rows: list[FileStatus] = []
    for entry in cached.entries:
        file = entry.file
        if file is None:
            continue
        remote = file.remote(cached.repo.origin, endpoint)
        if remote is None:
            continue
        bytes_present = room.add(file.blob or file.pointer, follow=True)
        status: Status = "missing"
        if file.size is not None:
            status = _status_by(entry.receipts, store)
        is_own = bool(entry.receipts) and not entry.receipts[-1].adopted
        rows.append(FileStatus(remote, status, bytes_present, file.commit, file.since, is_own))
    return rows


def _status_by(receipts: Sequence[Receipt], store: Store) -> Status:
    """The status of a file of the cache that is there, by its receipts."""
    if not receipts:
        return "unverified"
    newest = receipts[-1]
    if newest.is_vouched_for and store.path_of(newest) is not None:
        return "present"
    return "unverified"
