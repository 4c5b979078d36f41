"""Deletion: what is to go of a model, in either layout, and what stays and why. Nothing is deleted here."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mdl.catalog.model import COMMAND_LINE, Model
from mdl.disk import publish, user_name
from mdl.disk.safe_open import is_own_folder
from mdl.downloader.hub_cache import TREES, CachedFile, CachedRepo, part_of, repo_in, shared_links
from mdl.downloader.partial_folders import size_of_partial
from mdl.downloader.store import Store
from mdl.errors import NotFound, StorageError
from mdl.files import Receipt
from mdl.formatting import spelled
from mdl.local.on_disk import (
    SHORT_COMMIT,
    CacheEntry,
    Known,
    ModelOnDisk,
    hub_origins,
    meant_of,
    model_on_disk,
    of_hubs,
    partials_of,
    repo_on_disk,
)
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
    """The plan of deleting one model, which people call ``label``.

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
        """Tell whether nothing of the model is here."""
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
    known: Known,
    *,
    force: bool = False,
) -> list[Deletion]:
    """Plan what is to go of a model from the first of ``stores``, the one in use; ``known`` says which files it has. Of
    a reference to a part of a repository, or to one URL, only those files go. In the hub's cache a reference stands for
    what any program brought, a name for what mdl brought for it.

    Raises `NotFound`, which names the command if it is in the hub's cache instead; `StateError`, `StorageError`.
    """
    store = stores[0]
    paths = {remote.path.text for remote in known(store, model)}
    if not store.layout.is_by_digest:
        deletions = [of_folder(store, model, force=force)]
    else:
        paths.update(receipt.path.text for receipt in store.receipts.of_model(model.name))
        origins = hub_origins(model)
        if model.origin == COMMAND_LINE and origins:
            deletions = [of_repo(store, origin) for origin in origins]
        else:
            deletions = of_cached_model(store, model.name, force=force)
    deletions = [deletion for deletion in deletions if not deletion.is_empty]
    unfinished = partials_of(store, model.name, sorted(paths))
    if unfinished and not deletions:
        deletions = [Deletion(store, model.name, model.label, store.folder(model.name), [model.name])]
    if not deletions:
        raise _not_in_cache(model, store) if store.layout.is_by_digest else _not_in_folder(model, stores[1:])
    deletions[0].add_partials(unfinished)
    return deletions


def of_model(store: Store, name: str) -> list[Deletion]:
    """Plan the deletion of what mdl brought for the model ``name``, in either layout. Raises as `of_folder`."""
    if store.layout.is_by_digest:
        return of_cached_model(store, name)
    return [of_folder(store, Model(name))]


def _not_in_folder(model: Model, others: Sequence[Store]) -> NotFound:
    """The error for a model of which nothing is in the plain models folder. Its hint says if the cache has it."""
    hint = _LIST
    for store in others:
        for origin in hub_origins(model):
            if store.layout.is_by_digest and repo_in(store.root, origin).is_there:
                hint = f"Hugging Face's cache has it: mdl rm {origin} --layout hf-cache"
    return NotFound("nothing of it is on this disk", hint=hint)


def _not_in_cache(model: Model, store: Store) -> NotFound:
    """The error for a model of which nothing is in the hub's cache, or nothing that mdl brought for it."""
    hint = _LIST
    repos = [repo_in(store.root, origin) for origin in hub_origins(model)]
    if model.origin != COMMAND_LINE or not repos:
        for repo in repos:
            if repo.is_there:
                hint = f"another program downloaded {repo.origin}: mdl rm {repo.origin} --layout hf-cache"
        return NotFound("mdl downloaded nothing of it to Hugging Face's cache", hint=hint)
    commits: set[str] = set()
    for repo in repos:
        commits.update(file.commit[:SHORT_COMMIT] for file in repo.files)
    if commits:
        hint = f"there is {', '.join(sorted(commits))}"
    return NotFound("not in Hugging Face's cache", hint=hint)


# The plain layout: a folder for each model.


def of_folder(store: Store, model: Model, *, force: bool = False) -> Deletion:
    """Plan the deletion of what is mdl's in a model's folder and meant by ``model``; with ``force`` of all that is
    meant. Only those files are hashed that seem to be changed. Raises `StateError`, `StorageError`, `Cancelled`."""
    name = model.name
    _refuse_closed(store, name)
    on_disk = model_on_disk(store, name)
    meant = _meant(model, on_disk)
    deletion = Deletion(store, name, model.label, on_disk.folder, [name])
    for path, place in on_disk.files.items():
        if path not in meant:
            continue
        receipt = on_disk.receipts.get(path)
        reason = _why_kept(store, receipt)
        if reason and not force and not publish.is_staged(place.name):
            deletion.kept.append(KeptFile(place, reason))
            continue
        deletion.steps.append(place)
        deletion.count(place)
        if receipt is not None and receipt.url.startswith("file:"):
            deletion.imported += 1
    deletion.files = len(deletion.steps)
    forgotten = [path for path in on_disk.receipts if path in meant]
    deletion.add_partials(partials_of(store, name, forgotten))
    if not on_disk.folder.is_symlink():
        deletion.folders = [Path(at) for at, _, _ in os.walk(on_disk.folder)]
        deletion.forgotten[name] = [on_disk.receipts[path].path for path in forgotten]
    return deletion


def _meant(model: Model, on_disk: ModelOnDisk) -> Collection[str]:
    """Return the paths in a model's folder that it means: all of them, unless it is a reference to a part of a
    repository, to a commit, or to one URL."""
    if model.origin != COMMAND_LINE:
        return set(on_disk.paths)
    meant = {file.path.text for file in model.files}
    for origin in model.sources:
        if isinstance(origin, HubOrigin):
            meant.update(meant_of(origin, on_disk.paths, on_disk.receipts))
        else:
            meant.update(on_disk.paths)
    return meant


def _refuse_closed(store: Store, name: str) -> None:
    """Raises `StorageError` if another account has downloaded the model: nobody else can tell which files are mdl's."""
    if not os.path.lexists(store.folder(name)):
        return
    for records in (store.own, store.receipts.place(name)):
        with contextlib.suppress(OSError):
            owner = records.lstat().st_uid
            if owner != os.geteuid() and not is_own_folder(records):
                who = user_name(owner)
                reason = f"{who} downloads into this folder, and only {who} can tell which files are mdl's"
                raise StorageError(reason, hint=f"have it deleted by {who}")


def _why_kept(store: Store, receipt: Receipt | None) -> str:
    """Say why a file must stay; '' if it is as mdl wrote it."""
    if receipt is None:
        return "not mdl's"
    local = store.check(receipt.model, receipt.remote)
    if local.kind != "file":
        return local.why
    return "changed since mdl wrote it" if local.is_edited else ""


# The hub's cache.


def of_repo(store: Store, origin: HubOrigin) -> Deletion:
    """Plan the deletion of a repository of the hub's cache, no matter which program brought it, or of the part of it
    that ``origin`` means; if it has a revision, of that revision alone."""
    cached = repo_on_disk(store, origin)
    repo = cached.repo
    entries = cached.entries
    if origin.revision:
        commit = repo.commit_of(origin.revision)
        entries = [entry for entry in entries if entry.commit == commit]
    if not origin.is_whole:
        meant = set(part_of(origin, [entry.path for entry in entries]))
        entries = [entry for entry in entries if entry.path in meant]
    name = str(origin)
    is_whole = origin.is_whole and not origin.revision
    if not entries and not (is_whole and repo.is_there):
        return Deletion(store, name, "", repo.folder, [])
    files: list[CachedFile] = []
    receipts: list[Receipt] = []
    for entry in entries:
        receipts += entry.receipts
        if entry.file is not None:
            files.append(entry.file)
    return _of_cache(store, name, name.removeprefix("hf:"), repo, files, receipts, is_whole=is_whole)


def of_cached_model(store: Store, name: str, *, force: bool = False) -> list[Deletion]:
    """Plan the deletion of what mdl brought to the hub's cache for the model ``name``, by repository. What another
    model has too stays; so does what another program had brought before, unless ``force`` is set."""
    origins: dict[HubOrigin, None] = {}
    for hub, _ in of_hubs(store.receipts.of_model(name)):
        origins[HubOrigin(hub.repo, hub.repo_type)] = None
    deletions: list[Deletion] = []
    for origin in origins:
        cached = repo_on_disk(store, origin)
        files: list[CachedFile] = []
        receipts: list[Receipt] = []
        kept: list[KeptFile] = []
        for entry in cached.entries:
            own = [receipt for receipt in entry.receipts if receipt.model == name]
            if not own:
                continue
            receipts += own
            if entry.file is None:
                continue
            reason = _why_kept_in_cache(entry, name, force=force)
            if reason:
                kept.append(KeptFile(entry.file.pointer, reason))
            else:
                files.append(entry.file)
        label = spelled(name, origin.repository)
        deletion = _of_cache(store, name, label, cached.repo, files, receipts, is_whole=False)
        deletion.kept = kept
        deletions.append(deletion)
    return deletions


def _why_kept_in_cache(entry: CacheEntry, name: str, *, force: bool) -> str:
    """Say why a file that mdl brought for a model must stay; '' if it may go."""
    is_adopted = False
    for receipt in entry.receipts:
        if receipt.model != name:
            return f"{receipt.model} has it too"
        is_adopted = receipt.adopted
    return "another program downloaded it" if is_adopted and not force else ""


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
    """Plan the deletion of these files and receipts: their names, the bytes that no other name leads to, and the
    branches and snapshots of which nothing is left. A folder disappears at once, so that the hub's client never meets
    half."""
    deletion = Deletion(store, name, label, repo.folder, [], files=len(going))
    deletion.foreign_locks = list((store.root / ".locks" / repo.folder.name).glob("*.lock"))
    for receipt in receipts:
        deletion.forgotten.setdefault(receipt.model, []).append(receipt.path)
    deletion.names = sorted(deletion.forgotten) or [repo.origin.folder]

    set_of_going = set(going)
    staying = [file for file in repo.files if file not in set_of_going]
    commits = {file.commit for file in going}.difference(file.commit for file in staying)
    listings = [repo.real_folder / TREES / f"{commit}.json" for commit in sorted(commits)]
    blobs = _blobs_to_go(repo, going, staying, receipts, is_whole=is_whole)
    for path in blobs:
        deletion.count(path)
    for file in going:
        if file.blob is None:
            deletion.count(file.pointer)
    deletion.shared_links = shared_links(store.root, blobs)
    deletion.records = {*repo.refs, *listings}
    if not is_whole and (staying or repo.blobs - blobs):
        deletion.steps += [path for path, commit in repo.refs.items() if commit in commits]
        deletion.steps += [file.pointer for file in going if file.commit not in commits]
        deletion.steps += [snapshot for snapshot in repo.commits if snapshot.name in commits]
        deletion.steps += listings
        deletion.steps += sorted(blobs)
    elif repo.is_there:
        deletion.steps = repo.pieces(blobs) if repo.has_own_links else [repo.folder]
    return deletion


def _blobs_to_go(
    repo: CachedRepo,
    going: Sequence[CachedFile],
    staying: Sequence[CachedFile],
    receipts: Sequence[Receipt],
    *,
    is_whole: bool,
) -> set[Path]:
    """Return the bytes of files that go, also of receipts whose file has lost its name in the snapshot, unless a file
    that stays has them; of a whole repository all bytes, with those of unfinished downloads."""
    if is_whole and not repo.has_own_links:
        return set(repo.blobs)
    blobs = {repo.real_blobs / receipt.digest.hex for receipt in receipts}
    blobs.update(file.blob for file in going if file.blob)
    blobs.difference_update(file.blob for file in staying if file.blob)
    return {blob for blob in blobs if os.path.lexists(blob)}
