"""Models on this disk, in both layouts: the one view that list, rm, mv, clean and verify share.

In a plain models folder a model has a folder (`ModelOnDisk`); in the hub's cache a repository has one (`RepoOnDisk`),
and mdl's receipts say for which models it brought files of it. Nothing is contacted, and no file is read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mdl.catalog.model import COMMAND_LINE, Model
from mdl.catalog.resolver import narrow
from mdl.disk import publish, user_name
from mdl.disk.own_files import is_own_folder
from mdl.disk.safe_open import names_below
from mdl.downloader.hub_cache import CachedFile, CachedRepo, cached_repos, part_of, repo_in
from mdl.downloader.partial_folders import key_of
from mdl.downloader.receipts import file_key
from mdl.downloader.store import Store
from mdl.errors import StorageError
from mdl.files import HubFile, LocalFile, Receipt, RemoteFile
from mdl.local.from_receipts import hub_origins, of_hubs
from mdl.paths import RelPath
from mdl.sources import Origin
from mdl.sources.hub_origin import HubOrigin
from mdl.values import value_class

Known = Callable[[Store, Model], Sequence[RemoteFile]]
"""Returns a model's files as its source or lock has them; none if they are not known."""
SHORT_COMMIT = 12
"""Digits of a commit that tell it from others, for people."""


# A folder of a plain models folder.


def closed_by(store: Store, name: str) -> str:
    """The other account that has downloaded a model, so that nobody else can tell which files are mdl's; '' if there is
    none."""
    if os.path.lexists(store.folder(name)):
        for records in (store.own, store.receipts.place(name)):
            with contextlib.suppress(OSError):
                owner = records.lstat().st_uid
                if owner != os.geteuid() and not is_own_folder(records):
                    return user_name(owner)
    return ""


def owned_by(owner: str, hint: str) -> StorageError:
    """The error of a model that is `closed_by` another account."""
    reason = f"{owner} downloads into this folder, and only {owner} can see which files are mdl's"
    return StorageError(reason, hint=hint)


FileKind = Literal["own", "changed", "stranger", "staged", "blocked", "gone"]
"""What a name in a model's folder is: a file as mdl wrote it (``own``), or ``changed`` after that; a ``stranger`` that
mdl did not write; ``staged`` by a process that was killed; something else than a file in the place of one
(``blocked``); or nothing, where a receipt says that a file was (``gone``)."""


_NOT_LOOKED_AT = LocalFile()


@value_class
class ModelFile:
    """A ``place`` in the folder of a model, by its ``path`` below it. ``local`` says what is there, of what has a
    ``receipt``."""

    path: str
    place: Path
    kind: FileKind
    receipt: Receipt | None = None
    local: LocalFile = _NOT_LOOKED_AT

    @property
    def why_kept(self) -> str:
        """Why it stays where it is; '' if it is mdl's, unchanged."""
        if self.kind == "stranger":
            return "not mdl's"
        if self.kind == "changed":
            return "changed since mdl wrote it"
        return self.local.why


@value_class
class ModelOnDisk:
    """The folder of one model: everything in it that is no folder. ``receipts`` are mdl's, by the path of the file,
    which may be gone."""

    store: Store
    folder: Path
    files: tuple[ModelFile, ...]
    receipts: Mapping[str, Receipt]

    @property
    def paths(self) -> list[str]:
        """The paths of what is there, and of what mdl wrote there."""
        return list(dict.fromkeys([*(file.path for file in self.files), *self.receipts]))

    def nameless(self) -> list[ModelFile]:
        """What is in the place of each file that has a receipt and no name in the folder any more. Raises `Unsafe` if
        its folder is a link, `StateError`, `StorageError`."""
        named = {file.path for file in self.files}
        places: list[ModelFile] = []
        for path, receipt in self.receipts.items():
            if path not in named:
                places.append(_file_with_receipt(self.store, self.folder / path, receipt, reads=False))
        return places


def model_on_disk(store: Store, name: str, *, reads: bool = False) -> ModelOnDisk:
    """Look at the folder of a model, without the folders of other models that are below it. If it ``reads``, files with
    another stamp are hashed, and are ``changed`` only if their bytes are. Raises `StateError`, `StorageError`,
    `Cancelled`."""
    folder = store.folder(name)

    def is_of_another_model(below: Path) -> bool:
        return store.receipts.may_have(f"{name}/{below.relative_to(folder).as_posix()}")

    receipts = {receipt.path.text: receipt for receipt in store.receipts.of_model(name)}
    files: list[ModelFile] = []
    for place in names_below(folder, is_of_another_model):
        path = place.relative_to(folder).as_posix()
        if path in receipts:
            files.append(_file_with_receipt(store, place, receipts[path], reads=reads))
        elif publish.is_staged(place.name):
            files.append(ModelFile(path, place, "staged"))
        else:
            files.append(ModelFile(path, place, "stranger"))
    return ModelOnDisk(store, folder, tuple(files), receipts)


def look_at(store: Store, model: str, remote: RemoteFile, receipt: Receipt | None = None) -> LocalFile:
    """Look at a file. If it was touched since mdl wrote it, it is read: it is edited only if its bytes are others.
    Raises `StateError`, `StorageError`, `Cancelled`."""
    local = store.quick_check(model, remote, receipt)
    if local.is_edited:
        return store.check(model, remote, found=local)
    return local


def _file_with_receipt(store: Store, place: Path, receipt: Receipt, *, reads: bool) -> ModelFile:
    if reads:
        local = look_at(store, receipt.model, receipt.remote, receipt)
    else:
        local = store.quick_check(receipt.model, receipt.remote, receipt)
    kind: FileKind = "own"
    if local.kind == "absent":
        kind = "gone"
    elif local.kind != "file":
        kind = "blocked"
    elif local.is_edited:
        kind = "changed"
    return ModelFile(receipt.path.text, place, kind, receipt, local)


def foreign_entries(store: Store, names: Sequence[str]) -> Iterator[Path]:
    """The entries of a plain models folder that belong to none of the models ``names``."""
    own_places = {store.own, *(store.root / name for name in names)}
    folders_above: set[Path] = set()
    for place in own_places:
        folders_above.update(place.parents)
    folders = [store.root]
    while folders:
        for entry in entries(folders.pop()):
            if entry in own_places or publish.is_staged(entry.name):
                continue
            if entry in folders_above and entry.is_dir() and not entry.is_symlink():
                folders.append(entry)
            else:
                yield entry


def entries(folder: Path) -> list[Path]:
    """List a folder, sorted; nothing if it cannot be read."""
    with contextlib.suppress(OSError):
        return sorted(folder.iterdir())
    return []


def partials_of(store: Store, name: str, paths: Iterable[str]) -> list[Path]:
    """Return the folders of the unfinished downloads of these files of a model, in the order of the files."""
    by_key: dict[str, list[Path]] = {}
    for folder in entries(store.partials):
        if is_own_folder(folder):
            by_key.setdefault(key_of(folder), []).append(folder)
    folders: list[Path] = []
    for path in paths:
        folders += by_key.get(file_key(name, RelPath(path)), ())
    return folders


# A repository of the hub's cache.


@value_class
class CacheEntry:
    """A file of a repository at one commit: the ``file``, if its name is in a snapshot, and mdl's ``receipts`` of it,
    of which several models may have one."""

    commit: str
    path: str
    file: CachedFile | None
    receipts: tuple[Receipt, ...]

    @property
    def stranger(self) -> CachedFile | None:
        """The file, if another program brought it and mdl has no receipt of it."""
        return None if self.receipts else self.file


@value_class
class RepoOnDisk:
    """A repository of the hub's cache, no matter which program brought it, with mdl's ``receipts`` of its files."""

    repo: CachedRepo
    receipts: tuple[Receipt, ...]

    @property
    def entries(self) -> list[CacheEntry]:
        """Every name in its snapshots in order, then files of which only a receipt is left."""
        receipts: dict[tuple[str, str], list[Receipt]] = {}
        for hub, receipt in of_hubs(self.receipts):
            receipts.setdefault((hub.revision, hub.path), []).append(receipt)
        entries: list[CacheEntry] = []
        for file in self.repo.files:
            of_file = receipts.pop((file.commit, file.path), [])
            entries.append(CacheEntry(file.commit, file.path, file, tuple(of_file)))
        for (commit, path), of_file in receipts.items():
            entries.append(CacheEntry(commit, path, None, tuple(of_file)))
        return entries

    def entries_of(self, commit: str | None, origin: HubOrigin) -> list[CacheEntry]:
        """The entries at a commit, or at all, that are of the part of the repository that a reference means."""
        entries = [entry for entry in self.entries if commit in (None, entry.commit)]
        meant = set(part_of(origin, [entry.path for entry in entries]))
        return [entry for entry in entries if entry.path in meant]

    @property
    def strangers(self) -> list[CachedFile]:
        """Files that other programs brought, and of which mdl has no receipt."""
        return [entry.stranger for entry in self.entries if entry.stranger is not None]


def repos_on_disk(store: Store) -> list[RepoOnDisk]:
    """Look at every repository in the hub's cache, by name."""
    receipts = _receipts_by_repo(store)
    repos: list[RepoOnDisk] = []
    for repo in cached_repos(store.root):
        repos.append(RepoOnDisk(repo, tuple(receipts.get(_key(repo.origin), ()))))
    return repos


def repo_on_disk(store: Store, origin: HubOrigin) -> RepoOnDisk:
    """Look at one repository in the hub's cache, whether or not anything of it is there."""
    receipts = _receipts_by_repo(store).get(_key(origin), ())
    return RepoOnDisk(repo_in(store.root, origin), tuple(receipts))


def repos_of(model: Model, store: Store) -> list[CachedRepo]:
    """Return the repositories of a model that are in a store, if that is a cache of the hub's client."""
    repos: list[CachedRepo] = []
    if store.layout.is_by_digest:
        for origin in hub_origins(model):
            repo = repo_in(store.root, origin)
            if repo.is_there:
                repos.append(repo)
    return repos


def _receipts_by_repo(store: Store) -> dict[tuple[str, str], list[Receipt]]:
    receipts: dict[tuple[str, str], list[Receipt]] = {}
    for hub, receipt in of_hubs(store.receipts.all()):
        receipts.setdefault(_key(hub), []).append(receipt)
    return receipts


def _key(repository: HubOrigin | HubFile) -> tuple[str, str]:
    return repository.repo_type, repository.repo


def cached_models(store: Store) -> Iterator[Model]:
    """Yield a model for each commit of which other programs have brought files to the hub's cache, without a
    receipt. It follows the branch that leads to the commit there, if one does."""
    for cached in repos_on_disk(store):
        commits = {file.commit for file in cached.strangers}
        folder = cached.repo.origin.folder
        is_taken = len(commits) > 1 or store.receipts.may_have(folder)
        for commit in sorted(commits):
            name = f"{folder}@{commit[:SHORT_COMMIT]}" if is_taken else folder
            revision = cached.repo.branch_of(commit) or commit
            origin = replace(cached.repo.origin, revision=None if revision == "main" else revision)
            yield Model(name, kind=origin.kind, sources=(origin,), origin=COMMAND_LINE)


def as_cached(model: Model, store: Store) -> Model:
    """Return the model with each repository at the commit that the hub's cache has of it, in all formats: whatever is
    listed there can be compared with it."""
    sources: list[Origin] = []
    for origin in model.sources:
        commit = _cached_commit(origin, store)
        sources.append(origin.at(commit) if commit else origin)
    return replace(model, sources=tuple(sources), include=model.include or ("*",))


def cached_commits(model: Model, store: Store) -> list[str]:
    """Return the commits of the model's repositories that the hub's cache has, no matter which program brought them;
    none in another layout."""
    commits = [_cached_commit(origin, store) for origin in model.sources]
    return [commit for commit in commits if commit]


def _cached_commit(origin: Origin, store: Store) -> str | None:
    if not store.layout.is_by_digest or not isinstance(origin, HubOrigin):
        return None
    return repo_in(store.root, origin).commit_meant(origin.revision)


def cached_files(store: Store, model: Model, endpoint: str) -> list[RemoteFile]:
    """Return the files of a model in the hub's cache that mdl has no receipt of. Their digests are those by which
    their blobs are named, or those that the hub's client has noted: the cache alone vouches for them. Raises `NotFound`
    if the model's patterns fit none of them."""
    files: list[RemoteFile] = []
    for origin in hub_origins(model):
        cached = repo_on_disk(store, origin)
        commit = cached.repo.commit_meant(origin.revision)
        if commit is None and origin.revision:
            continue
        of_origin: list[RemoteFile] = []
        for entry in cached.entries_of(commit, origin):
            file = entry.stranger
            remote = file.remote(cached.repo.origin, endpoint) if file else None
            if remote is None:
                continue
            noted = cached.repo.listed(entry.commit).get(entry.path)
            if remote.digest is None and noted is not None:
                remote = replace(remote, digest=noted[1])
            of_origin.append(replace(remote, vouched_by="folder"))
        if of_origin:
            files += narrow(of_origin, model.include, model.exclude, origin.label)
    return files
