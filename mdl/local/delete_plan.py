"""Deletion: what is to go of a model, in either layout, and what stays and why. Nothing is deleted here."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mdl.catalog.model import COMMAND_LINE, Model
from mdl.disk import publish, user_name
from mdl.disk.safe_open import is_own_folder
from mdl.downloader.adoption import size_of_partial
from mdl.downloader.hub_cache import TREES, shared_links
from mdl.downloader.hub_repos import CachedFile, CachedRepo, part_of, repo_in
from mdl.downloader.store import Store
from mdl.errors import NotFound, StorageError
from mdl.files import Receipt, RemoteFile
from mdl.formatting import spelled
from mdl.local.on_disk import ModelOnDisk, RepoOnDisk, model_on_disk, partials_of, repo_on_disk
from mdl.paths import RelPath
from mdl.sources.hub_origin import HubOrigin
from mdl.values import value_class

_LIST = "'mdl list --local' shows what is on this disk"


@value_class
class KeptFile:
    """A file that stays, and why."""

    path: Path
    why: str


@dataclass
class Deletion:
    """What is to go of one model, which people call ``label``.

    ``steps`` are files, links and whole folders below the models folder, in the order in which they go; then those of
    the ``folders`` that are empty; then the receipts ``forgotten``, which are paths by their model. ``shared_links``
    are those blobs among the steps that lead to files which the hub's client keeps for several repositories; such a
    file goes with the last of its links. ``sizes`` are the other files that take room; ``imported`` counts those of the
    ``files`` that were imported. Meanwhile the locks of the models ``names`` are held; ``foreign_locks`` are those of
    the hub's client. ``records`` are those of the steps in which the hub's client notes something.
    """

    store: Store
    name: str
    label: str
    path: Path
    names: Sequence[str]
    steps: list[Path] = field(default_factory=list)
    sizes: list[os.stat_result] = field(default_factory=list)
    files: int = 0
    imported: int = 0
    folders: list[Path] = field(default_factory=list)
    shared_links: Mapping[Path, set[Path]] = field(default_factory=dict)
    records: Collection[Path] = ()
    kept: list[KeptFile] = field(default_factory=list)
    partials: list[Path] = field(default_factory=list)
    foreign_locks: Sequence[Path] = ()
    forgotten: dict[str, list[RelPath]] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the model is here."""
        return not (self.steps or self.kept or self.partials or any(self.forgotten.values()))

    @property
    def unfinished(self) -> int:
        """Bytes of the unfinished downloads that go."""
        return sum(size_of_partial(folder) for folder in self.partials)

    def count(self, path: Path) -> None:
        """Note the size of a file that goes, if it is there and no link."""
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                self.sizes.append(status)

    def add_partials(self, folders: Iterable[Path]) -> None:
        """Unfinished downloads that go, each once."""
        self.partials = list(dict.fromkeys([*self.partials, *folders]))


def plan(
    model: Model,
    stores: Sequence[Store],
    known: Callable[[Store, Model], Sequence[RemoteFile]],
    *,
    force: bool = False,
) -> list[Deletion]:
    """What is to go of a model from the first of ``stores``, the one in use; ``known`` says which files it has. Of a
    reference to a part of a repository, or to one URL, only those files go. In the hub's cache a reference stands for
    what any program brought, a name for what mdl brought for it.

    Raises `NotFound`, which names the command if it is in the hub's cache instead; `StateError`, `StorageError`.
    """
    store = stores[0]
    paths = {remote.path.text for remote in known(store, model)}
    if not store.layout.is_by_digest:
        deletions = [of_folder(store, model, force=force)]
    else:
        paths.update(receipt.path.text for receipt in store.receipts.of_model(model.name))
        origins = _hub_origins(model)
        if model.origin == COMMAND_LINE and origins:
            deletions = [of_repo(store, origin) for origin in origins]
        else:
            deletions = of_cached_model(store, model.name, force=force)
    deletions = [deletion for deletion in deletions if not deletion.is_empty]
    unfinished = partials_of(store, model.name, sorted(paths))
    if unfinished and not deletions:
        deletions = [Deletion(store, model.name, model.label, store.folder(model.name), [model.name])]
    if not deletions:
        raise _not_here(model, stores)
    deletions[0].add_partials(unfinished)
    return deletions


def of_model(store: Store, name: str) -> list[Deletion]:
    """What mdl brought for the model ``name``, in either layout. Raises as `of_folder`."""
    if store.layout.is_by_digest:
        return of_cached_model(store, name)
    return [of_folder(store, Model(name))]


def _hub_origins(model: Model) -> list[HubOrigin]:
    return [origin for origin in model.sources if isinstance(origin, HubOrigin)]


def _not_here(model: Model, stores: Sequence[Store]) -> NotFound:
    """The error for a model of which nothing is in the store in use: its hint says where it is."""
    store, *others = stores
    origins = _hub_origins(model)
    if not store.layout.is_by_digest:
        hint = _LIST
        for origin in origins:
            for other in others:
                if other.layout.is_by_digest and repo_in(other.root, origin).is_there:
                    hint = f"Hugging Face's cache has it: mdl rm {origin} --layout hf-cache"
        return NotFound("nothing of it is on this disk", hint=hint)
    repos = [repo_in(store.root, origin) for origin in origins]
    if model.origin == COMMAND_LINE and repos:
        commits = sorted({file.commit[:12] for repo in repos for file in repo.files})
        return NotFound("not in Hugging Face's cache", hint=f"there is {', '.join(commits)}" if commits else _LIST)
    hint = _LIST
    for repo in repos:
        if repo.is_there:
            hint = f"another program brought {repo.origin}: mdl rm {repo.origin} --layout hf-cache"
    return NotFound("mdl brought nothing of it to Hugging Face's cache", hint=hint)


# The plain layout: a folder for each model.


def of_folder(store: Store, model: Model, *, force: bool = False) -> Deletion:
    """What of a model's folder is mdl's and meant by ``model``; with ``force`` everything that is meant. Only those
    files are hashed that seem to be changed. Raises `StateError`, `StorageError`, `Cancelled`."""
    name = model.name
    _refuse_closed(store, name)
    found = model_on_disk(store, name)
    meant = _meant(model, found)
    deletion = Deletion(store, name, model.label, found.folder, [name])
    for path, place in found.files.items():
        if path not in meant:
            continue
        receipt = found.receipts.get(path)
        why = _why_kept(store, receipt)
        if why and not force and not publish.is_staged(place.name):
            deletion.kept.append(KeptFile(place, why))
            continue
        deletion.steps.append(place)
        deletion.count(place)
        if receipt is not None and receipt.url.startswith("file:"):
            deletion.imported += 1
    deletion.files = len(deletion.steps)
    forgotten = [path for path in found.receipts if path in meant]
    deletion.add_partials(partials_of(store, name, forgotten))
    if not found.folder.is_symlink():
        deletion.folders = [Path(at) for at, _, _ in os.walk(found.folder)]
        deletion.forgotten[name] = [found.receipts[path].path for path in forgotten]
    return deletion


def _meant(model: Model, found: ModelOnDisk) -> Collection[str]:
    """Those of the paths in a model's folder that it means: all of them, unless it is a reference to a part of a
    repository, to a commit, or to one URL."""
    if model.origin != COMMAND_LINE:
        return set(found.paths)
    meant = {file.path.text for file in model.files}
    for origin in model.sources:
        paths: Collection[str] = found.paths
        if isinstance(origin, HubOrigin):
            if origin.revision:
                paths = [path for path in paths if _is_of_revision(found.receipts.get(path), origin.revision)]
            paths = part_of(origin, paths)
        meant.update(paths)
    return meant


def _is_of_revision(receipt: Receipt | None, revision: str) -> bool:
    return receipt is not None and receipt.hub is not None and revision in (receipt.hub.branch, receipt.hub.revision)


def _refuse_closed(store: Store, name: str) -> None:
    """Raises `StorageError` if another account has downloaded the model: nobody else can tell which files are mdl's."""
    if not os.path.lexists(store.folder(name)):
        return
    for records in (store.own, store.receipts.place(name)):
        with contextlib.suppress(OSError):
            owner = records.lstat().st_uid
            if owner != os.geteuid() and not is_own_folder(records):
                who = user_name(owner)
                why = f"{who} downloads into this folder, and only {who} can tell which files are mdl's"
                raise StorageError(why, hint=f"have it deleted by {who}")


def _why_kept(store: Store, receipt: Receipt | None) -> str:
    """Why a file must stay; '' if it is as mdl wrote it."""
    if receipt is None:
        return "not mdl's"
    local = store.check(receipt.model, receipt.remote)
    if local.kind != "file":
        return local.why
    return "changed since mdl wrote it" if local.is_edited else ""


# The hub's cache.


def of_repo(store: Store, origin: HubOrigin) -> Deletion:
    """A repository of the hub's cache, no matter which program brought it, or the part of it that ``origin`` means; if
    it has a revision, that revision alone."""
    found = repo_on_disk(store, origin)
    repo = found.repo
    files = list(repo.files)
    receipts = list(found.receipts)
    if origin.revision:
        commit = repo.commit_of(origin.revision)
        files = [file for file in files if file.commit == commit]
        receipts = [receipt for receipt in receipts if receipt.hub and receipt.hub.revision == commit]
    if not origin.is_whole:
        paths = [*(file.path for file in files), *(receipt.path.text for receipt in receipts)]
        part = set(part_of(origin, list(dict.fromkeys(paths))))
        files = [file for file in files if file.path in part]
        receipts = [receipt for receipt in receipts if receipt.path.text in part]
    is_whole = origin.is_whole and not origin.revision
    if not (files or receipts or (is_whole and repo.is_there)):
        return Deletion(store, str(origin), "", repo.folder, [])
    name = str(origin)
    return _of_cache(store, name, name.removeprefix("hf:"), repo, files, receipts, is_whole=is_whole)


def of_cached_model(store: Store, name: str, *, force: bool = False) -> list[Deletion]:
    """What mdl brought to the hub's cache for the model ``name``, by repository. What another model has too stays; so
    does what another program had brought before, unless ``force`` is set."""
    origins: dict[HubOrigin, None] = {}
    for receipt in store.receipts.of_model(name):
        if receipt.hub is not None:
            origins[HubOrigin(receipt.hub.repo, receipt.hub.repo_type)] = None
    deletions: list[Deletion] = []
    for origin in origins:
        found = repo_on_disk(store, origin)
        going, kept = _own_files(found, name, force=force)
        receipts = [receipt for receipt in found.receipts if receipt.model == name]
        label = spelled(name, found.repo.origin.repository)
        deletion = _of_cache(store, name, label, found.repo, going, receipts, is_whole=False)
        deletion.kept = kept
        deletions.append(deletion)
    return deletions


def _own_files(found: RepoOnDisk, name: str, *, force: bool) -> tuple[list[CachedFile], list[KeptFile]]:
    """The files of a repository that mdl brought for a model: those that go, and those that stay."""
    by_file = found.by_file
    going: list[CachedFile] = []
    kept: list[KeptFile] = []
    for file in found.repo.files:
        own: Receipt | None = None
        other: Receipt | None = None
        for receipt in by_file.get((file.commit, file.path), ()):
            if receipt.model == name:
                own = receipt
            else:
                other = receipt
        if own is None:
            continue
        if other is not None:
            kept.append(KeptFile(file.pointer, f"{other.model} has it too"))
        elif own.adopted and not force:
            kept.append(KeptFile(file.pointer, "another program brought it"))
        else:
            going.append(file)
    return going, kept


def _of_cache(
    store: Store,
    name: str,
    label: str,
    repo: CachedRepo,
    going: Sequence[CachedFile],
    receipts: Sequence[Receipt],
    *,
    is_whole: bool,
) -> Deletion:
    """The deletion of these files and receipts: their names, the bytes that no other name leads to, and the branches
    and snapshots of which nothing is left. A folder disappears at once, so that the hub's client never meets half."""
    deletion = Deletion(store, name, label, repo.folder, [], files=len(going))
    deletion.foreign_locks = list((store.root / ".locks" / repo.folder.name).glob("*.lock"))
    for receipt in receipts:
        deletion.forgotten.setdefault(receipt.model, []).append(receipt.path)
    deletion.names = sorted(deletion.forgotten) or [repo.origin.folder]

    set_of_going = set(going)
    staying = [file for file in repo.files if file not in set_of_going]
    commits = {file.commit for file in going} - {file.commit for file in staying}
    if is_whole and not repo.has_own_links:
        blobs = set(repo.blobs)
    else:
        blobs = _blobs_of(repo, going, receipts) - {file.blob for file in staying if file.blob}
    blobs = {blob for blob in blobs if os.path.lexists(blob)}
    deletion.shared_links = shared_links(store.root, blobs)
    listings = [repo.real_folder / TREES / f"{commit}.json" for commit in sorted(commits)]
    deletion.records = {*repo.refs, *listings}
    for path in blobs:
        deletion.count(path)
    for file in going:
        if file.blob is None:
            deletion.count(file.pointer)

    is_all = is_whole or not (staying or repo.blobs - blobs)
    if is_all and repo.is_there:
        deletion.steps = repo.pieces(blobs) if repo.has_own_links else [repo.folder]
    if not is_all:
        deletion.steps = [
            *(path for path, commit in repo.refs.items() if commit in commits),
            *(file.pointer for file in going if file.commit not in commits),
            *(snapshot for snapshot in repo.commits if snapshot.name in commits),
            *listings,
            *sorted(blobs),
        ]
    return deletion


def _blobs_of(repo: CachedRepo, files: Sequence[CachedFile], receipts: Sequence[Receipt]) -> set[Path]:
    """The bytes of these files; also those of a receipt whose file has lost its name in the snapshot."""
    blobs = {repo.real_blobs / receipt.digest.hex for receipt in receipts}
    blobs.update(file.blob for file in files if file.blob)
    return blobs
