"""inventory: everything that is on this disk, in both layouts, whether or not a catalog names it. Contacts nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mdl.catalog.model import COMMAND_LINE, Model
from mdl.disk.safe_open import names_below
from mdl.downloader.partial_folders import key_of, size_of_partial
from mdl.downloader.receipts import file_key
from mdl.downloader.store import Store
from mdl.local.from_receipts import fetched_files, model_of
from mdl.local.on_disk import CacheEntry, Known, RepoOnDisk, entries, foreign_entries, repos_on_disk
from mdl.local.status import FileStatus, ModelStatus, Status, status_of, status_of_files
from mdl.sources import Origin
from mdl.values import value_class

_Sizes = dict[tuple[int, int], int]
"""Bytes of files, by device and inode."""


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


@value_class
class _Listed:
    """A model, with what it takes on the disk: whole files, and bytes of ``unfinished`` ones."""

    model: Model
    status: ModelStatus
    sizes: _Sizes
    unfinished: int = 0


def take_inventory(
    stores: Sequence[Store], catalog: Mapping[str, Model], known: Known, endpoint: str, fits: Callable[[Model], bool]
) -> Inventory:
    """List what is in ``stores`` and ``fits``. ``endpoint`` is the URL of the hub. Raises `StateError`,
    `StorageError`."""
    models: list[tuple[Model, ModelStatus]] = []
    sizes: _Sizes = {}
    unfinished = 0
    keys: set[str] = set()
    for store in stores:
        in_store = _in_cache(store, endpoint) if store.layout.is_by_digest else _in_folder(store, catalog, known)
        for listed in in_store:
            if not listed.status.is_here or not fits(listed.model):
                continue
            models.append((listed.model, listed.status))
            sizes |= listed.sizes
            unfinished += listed.unfinished
            keys.update(file_key(listed.model.name, row.remote.path) for row in listed.status.rows)
    only_begun = 0
    for store in stores:
        for partial in entries(store.partials):
            if key_of(partial) not in keys:
                only_begun += size_of_partial(partial)
    return Inventory(tuple(models), sum(sizes.values()) + unfinished, only_begun)


def is_here(origin: Origin, model: Model, status: ModelStatus) -> bool:
    """Tell whether a model of the inventory is what ``origin`` means: its whole repository, at its revision if it names
    one. A part of a repository is never taken for another one."""
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
        sizes: _Sizes = {}
        unfinished = 0
        for row in status.rows:
            sizes |= _size_of(store.final_path(name, row.remote))
            if row.status == "partial":
                unfinished += row.bytes_present
        yield _Listed(model, status, sizes, unfinished)
    for place in foreign_entries(store, names_here):
        sizes = {}
        files = list(names_below(place))
        for file in files:
            sizes |= _size_of(file)
        size = sum(sizes.values())
        status = ModelStatus(place, "unverified", (), None, len(files), None, size, brought_by="other")
        yield _Listed(Model(str(place.relative_to(store.root)), kind=""), status, sizes)


def _in_cache(store: Store, endpoint: str) -> Iterator[_Listed]:
    """The repositories of the hub's cache, no matter which program brought them."""
    for cached in repos_on_disk(store):
        repo = cached.repo
        rows, sizes = _rows_of(cached, store, endpoint)
        commits = {file.commit for file in repo.files}
        whole = status_of(rows, store, str(repo.origin), is_complete=not repo.unfinished)
        status = replace(
            whole,
            path=repo.folder / "snapshots" / commits.pop() if len(commits) == 1 else repo.folder,
            bytes_present=sum(sizes.values()) + repo.unfinished,
            brought_by="mdl" if any(row.is_own for row in rows) else "hub-client",
        )
        origin = repo.origin
        model = Model(str(origin), kind=origin.kind, sources=(origin,), origin=COMMAND_LINE)
        yield _Listed(model, status, sizes, repo.unfinished)


def _rows_of(cached: RepoOnDisk, store: Store, endpoint: str) -> tuple[list[FileStatus], _Sizes]:
    """The files of a repository; bytes that have several names count at the first one."""
    rows: list[FileStatus] = []
    sizes: _Sizes = {}
    for entry in cached.entries:
        file = entry.file
        remote = file.remote(cached.repo.origin, endpoint) if file else None
        if file is None or remote is None:
            continue
        bytes_present = 0
        for key, size in _size_of(file.blob or file.pointer, follow=True).items():
            if key not in sizes:
                sizes[key] = size
                bytes_present += size
        is_own = bool(entry.receipts) and not entry.receipts[-1].adopted
        rows.append(FileStatus(remote, _status_of(entry, store), bytes_present, file.commit, file.since, is_own))
    return rows, sizes


def _status_of(entry: CacheEntry, store: Store) -> Status:
    """The status of a file of the cache, as its receipt has it."""
    if entry.file is None or entry.file.size is None:
        return "missing"
    if entry.receipts:
        receipt = entry.receipts[-1]
        if receipt.is_vouched_for and store.path_of(receipt) is not None:
            return "present"
    return "unverified"


def _size_of(path: Path, *, follow: bool = False) -> _Sizes:
    """The size of a file by its device and inode, if it is there; of a link itself, unless it is to be followed."""
    with contextlib.suppress(OSError):
        status = os.stat(path, follow_symlinks=follow)
        return {(status.st_dev, status.st_ino): status.st_size}
    return {}
