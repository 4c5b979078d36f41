"""inventory: everything that is on this disk, in both layouts, whether or not a catalog names it. Contacts nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mdl.catalog.model import COMMAND_LINE, CatalogFile, Model
from mdl.catalog.resolver import narrow
from mdl.disk.publish import is_staged
from mdl.disk.safe_open import names_below
from mdl.downloader.adoption import key_of, size_of_partial
from mdl.downloader.hub_repos import CachedFile, CachedRepo, cached_repos, part_of, repo_in
from mdl.downloader.receipts import file_key
from mdl.downloader.store import Store
from mdl.files import HubFile, Receipt, RemoteFile
from mdl.local.status import FileStatus, ModelStatus, Status, local_status, status_of
from mdl.sources import Origin
from mdl.sources.hub_origin import HubOrigin, is_pinned
from mdl.values import value_class

Known = Callable[[Store, Model], Sequence[RemoteFile]]
"""A model's files as its source or lock has them; none if they are not known."""
_HubKey = tuple[str, str, str, str]
"""A file of the hub: type and name of its repository, commit, path."""
_SHORT = 12
"""How much of a commit tells it from others, for people."""
_Sizes = dict[tuple[int, int], int]
"""Bytes of files, by device and inode."""


@value_class
class Inventory:
    """What is on this disk. ``bytes`` is what all models take: a file with several names counts once.
    ``unfinished`` are those of further downloads, which were only begun."""

    models: tuple[tuple[Model, ModelStatus], ...]
    bytes: int
    unfinished: int


@value_class
class _Found:
    """One row, with what it takes on the disk: whole files, and bytes of ``unfinished`` ones."""

    model: Model
    status: ModelStatus
    sizes: _Sizes
    unfinished: int = 0


def take_inventory(
    stores: Sequence[Store], catalog: Mapping[str, Model], known: Known, endpoint: str, fits: Callable[[Model], bool]
) -> Inventory:
    """What is in ``stores`` and ``fits``. ``endpoint`` is the URL of the hub. Raises `StateError`, `StorageError`."""
    found: list[_Found] = []
    for store in stores:
        rows = _in_folder(store, catalog, known)
        if store.layout.is_by_digest:
            rows = _in_cache(store, endpoint)
        found += [row for row in rows if row.status.is_here and fits(row.model)]
    sizes: _Sizes = {}
    unfinished = 0
    keys: set[str] = set()
    for row in found:
        sizes |= row.sizes
        unfinished += row.unfinished
        keys.update(file_key(row.model.name, file.remote.path) for file in row.status.rows)
    only_begun = 0
    for store in stores:
        for folder in _entries(store.partials):
            if key_of(folder) not in keys:
                only_begun += size_of_partial(folder)
    models = tuple((row.model, row.status) for row in found)
    return Inventory(models, sum(sizes.values()) + unfinished, only_begun)


def is_here(origin: Origin, model: Model, status: ModelStatus) -> bool:
    """Whether a model of the inventory is what ``origin`` means: its whole repository, at its revision if it names one.
    A part of a repository is never taken for another one."""
    if not (origin.repository and origin.is_whole):
        return False
    if origin.repository not in {source.repository for source in model.sources}:
        return False
    revisions = {row.commit for row in status.rows}
    for source in model.sources:
        revisions.update((source.revision, source.branch))
    return origin.revision is None or origin.revision in revisions


def model_of(name: str, receipts: Sequence[Receipt]) -> Model:
    """What the receipts tell of a model that no catalog names."""
    hubs = [receipt.hub for receipt in receipts if receipt.hub]
    origins = tuple(dict.fromkeys(map(_origin, hubs)))
    files = [] if hubs else receipts
    named = tuple(
        CatalogFile(one.path, one.url, size=one.stamp.size, digest=one.digest, vouched_by=one.vouched_by)
        for one in files
    )
    kind = origins[0].kind if origins else "model"
    return Model(name, title=name, kind=kind, sources=origins, files=named)


def at_its_hub(model: Model, receipts: Sequence[Receipt]) -> Model:
    """A model that a reference named, with the hub that its files here came from, if that is one and known. It may be
    another one than the hub in use."""
    endpoints = {receipt.hub.endpoint for receipt in receipts if receipt.hub}
    if len(endpoints) != 1:
        return model
    [endpoint] = endpoints
    sources = (replace(one, endpoint=endpoint) if isinstance(one, HubOrigin) else one for one in model.sources)
    return replace(model, sources=tuple(sources))


def _origin(hub: HubFile) -> HubOrigin:
    revision = hub.branch or (hub.revision if is_pinned(hub.revision) else None)
    return HubOrigin(hub.repo, hub.repo_type, revision, endpoint=hub.endpoint)


def _in_folder(store: Store, catalog: Mapping[str, Model], known: Known) -> Iterator[_Found]:
    """The models of a plain models folder, then what stands there that is not mdl's."""
    here: list[str] = []
    for name in sorted({*store.receipts.models(), *catalog}):
        receipts = store.receipts.in_order(name)
        model = catalog.get(name) or model_of(name, receipts)
        status = local_status(name, receipts, known(store, model), store, is_exact=name in catalog)
        here += [name] if receipts or status.is_here else []
        paths = [store.final_path(name, row.remote) for row in status.rows]
        unfinished = sum(row.bytes_present for row in status.rows if row.status == "partial")
        yield _Found(model, status, _sizes_of(paths), unfinished)
    for place in foreign(store, here):
        files = list(names_below(place))
        sizes = _sizes_of(files)
        status = ModelStatus(place, "unverified", (), None, len(files), None, sum(sizes.values()), brought_by="other")
        yield _Found(Model(str(place.relative_to(store.root)), kind=""), status, sizes)


def foreign(store: Store, names: Sequence[str]) -> Iterator[Path]:
    """The entries of a plain models folder that belong to none of the models ``names``."""
    folders_above: set[str] = set()
    for model in names:
        *above, _ = model.split("/")
        for depth in range(1, len(above) + 1):
            folders_above.add("/".join(above[:depth]))
    todo = [store.root]
    while todo:
        folder = todo.pop()
        for entry in _entries(folder):
            name = str(entry.relative_to(store.root))
            if name in names or entry == store.own or is_staged(entry.name):
                continue
            if name in folders_above and entry.is_dir() and not entry.is_symlink():
                todo.append(entry)
            else:
                yield entry


def _in_cache(store: Store, endpoint: str) -> Iterator[_Found]:
    """The repositories of the hub's cache, no matter which program brought them."""
    own = _own(store)
    for repo in cached_repos(store.root):
        rows, sizes = _rows(repo, store, own, endpoint)
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
        yield _Found(model, status, sizes, repo.unfinished)


def _rows(
    repo: CachedRepo, store: Store, receipts: Mapping[_HubKey, Receipt], endpoint: str
) -> tuple[list[FileStatus], _Sizes]:
    """The files of a repository; bytes that have several names count at the first one."""
    rows: list[FileStatus] = []
    sizes: _Sizes = {}
    for file in repo.files:
        remote = file.remote(repo.origin, endpoint)
        if remote is None:
            continue
        taken = _sizes_of([file.blob or file.pointer], follow=True)
        new = sum(size for key, size in taken.items() if key not in sizes)
        sizes |= taken
        own = receipts.get(_key(repo, file))
        status: Status = "unverified"
        if file.size is None:
            status = "missing"
        elif own is not None and own.is_vouched_for and store.path_of(own) is not None:
            status = "present"
        is_own = own is not None and not own.adopted
        rows.append(FileStatus(remote, status, new, file.commit, file.since, is_own))
    return rows, sizes


def _sizes_of(paths: Sequence[Path], *, follow: bool = False) -> _Sizes:
    """The sizes of those files that are there; of a link itself, unless links are to be followed."""
    found: _Sizes = {}
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.stat(path, follow_symlinks=follow)
            found[status.st_dev, status.st_ino] = status.st_size
    return found


def _entries(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(folder.iterdir())
    return []


def cached_models(store: Store) -> Iterator[Model]:
    """What other programs have brought to the hub's cache, and mdl has no receipt of: a model for each commit."""
    own = _own(store)
    for repo in cached_repos(store.root):
        new = {file.commit for file in repo.files if _key(repo, file) not in own}
        for commit in sorted(new):
            origin = replace(repo.origin, revision=commit)
            is_only = len(new) == 1 and not store.receipts.may_have(origin.folder)
            name = origin.folder if is_only else f"{origin.folder}@{commit[:_SHORT]}"
            yield Model(name, kind=origin.kind, sources=(origin,), origin=COMMAND_LINE)


def cached_files(store: Store, model: Model, endpoint: str) -> list[RemoteFile]:
    """The files of a model in the hub's cache that mdl has no receipt of. Raises `NotFound` if its patterns fit none of
    them."""
    own = _own(store)
    found: list[RemoteFile] = []
    for origin in (one for one in model.sources if isinstance(one, HubOrigin)):
        repo = repo_in(store.root, origin)
        commit = repo.commit_of(origin.revision or "main")
        if commit is None and origin.revision:
            continue
        files = [file for file in repo.files if commit in (None, file.commit) and _key(repo, file) not in own]
        part = part_of(origin, [file.path for file in files])
        there: list[RemoteFile] = []
        for file in files:
            remote = _listed(repo, file, endpoint)
            if remote and file.path in part:
                there.append(remote)
        if there:
            found += narrow(there, model.include, model.exclude, origin.label)
    return found


def _listed(repo: CachedRepo, file: CachedFile, endpoint: str) -> RemoteFile | None:
    """A file of the cache with its digest, if that is known: from the name of its blob, or from a listing that the
    hub's client keeps."""
    remote = file.remote(repo.origin, endpoint)
    if remote and remote.digest is None:
        size_and_digest = repo.listed(file.commit).get(file.path)
        return replace(remote, digest=size_and_digest[1]) if size_and_digest else remote
    return remote


def _own(store: Store) -> dict[_HubKey, Receipt]:
    """The receipts of files of the hub's repositories."""
    hubs = [(receipt.hub, receipt) for receipt in store.receipts.all() if receipt.hub]
    return {(hub.repo_type, hub.repo, hub.revision, hub.path): receipt for hub, receipt in hubs}


def _key(repo: CachedRepo, file: CachedFile) -> _HubKey:
    return repo.origin.repo_type, repo.origin.repo, file.commit, file.path
