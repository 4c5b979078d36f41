"""Deletion: what is to go of a model, in either layout, and what stays and why. Nothing is deleted here."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mdl.catalog.model import COMMAND_LINE, Model
from mdl.downloader.hub_cache import TREES, CachedFile, CachedRepo, shared_links
from mdl.downloader.partial_folders import size_of_partial
from mdl.downloader.store import Store
from mdl.errors import NotFound
from mdl.formatting import spelled
from mdl.local.from_receipts import hub_origins, meant_paths, of_hubs, was_imported
from mdl.local.on_disk import (
    SHORT_COMMIT,
    CacheEntry,
    Known,
    closed_by,
    model_on_disk,
    owned_by,
    partials_of,
    repo_on_disk,
    repos_of,
)
from mdl.paths import RelPath
from mdl.sources.hub_origin import HubOrigin
from mdl.values import value_class


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
        """Return whether none of its files is here."""
        return not (self.steps or self.kept or any(self.forgotten.values()))

    @property
    def unfinished(self) -> int:
        """Bytes of the unfinished downloads that go."""
        return sum(map(size_of_partial, self.partials))

    def count(self, path: Path) -> None:
        """Note the size of a file that goes, if it is there and no link."""
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                self.sizes.append(status)


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
    if not store.layout.is_by_digest:
        planned = [of_folder(store, model, force=force)]
    elif _is_reference(model):
        planned = [of_repo(store, origin) for origin in hub_origins(model)]
    else:
        planned = of_cached_model(store, model.name, force=force)
    paths = {remote.path.text for remote in known(store, model)}
    deletions: list[Deletion] = []
    for deletion in planned:
        if not deletion.is_empty:
            deletions.append(deletion)
            paths.update(path.text for path in deletion.forgotten.get(model.name, ()))
    unfinished = partials_of(store, model.name, sorted(paths))
    if unfinished and not deletions:
        deletions = [Deletion(store, model.name, model.label, store.folder(model.name), [model.name])]
    if not deletions:
        raise _nothing_here(model, stores)
    deletions[0].partials = unfinished
    return deletions


def _is_reference(model: Model) -> bool:
    """Return whether a model stands for what any program brought to the hub's cache: for the repository itself."""
    return model.origin == COMMAND_LINE and bool(hub_origins(model))


def _nothing_here(model: Model, stores: Sequence[Store]) -> NotFound:
    """The error for a model of which nothing is in the first of ``stores``, the one in use, or nothing that mdl brought
    for it there. Its hint says what is in the hub's cache."""
    reason = "nothing of it is on this disk"
    hint = f"'{stores[0].command('list', '--local')}' shows what is on this disk"
    if not stores[0].layout.is_by_digest:
        for store in stores[1:]:
            for repo in repos_of(model, store):
                hint = f"Hugging Face's cache has it: mdl rm {repo.origin} --layout hf-cache"
    elif _is_reference(model):
        reason = "not in Hugging Face's cache"
        commits: set[str] = set()
        for repo in repos_of(model, stores[0]):
            commits.update(file.commit[:SHORT_COMMIT] for file in repo.files)
        if commits:
            hint = f"there is {', '.join(sorted(commits))}"
    else:
        reason = "mdl downloaded nothing of it to Hugging Face's cache"
        for repo in repos_of(model, stores[0]):
            hint = f"another program downloaded {repo.origin}: {stores[0].command('rm', str(repo.origin))}"
    return NotFound(reason, hint=hint)


# The plain layout: a folder for each model.


def of_folder(store: Store, model: Model, *, force: bool = False) -> Deletion:
    """Plan the deletion of what is mdl's in a model's folder and meant by ``model``; with ``force`` of all that is
    meant. Only those files are hashed that seem to be changed. Raises `StateError`, `StorageError`, `Cancelled`."""
    name = model.name
    owner = closed_by(store, name)
    if owner:
        raise owned_by(owner, f"have it deleted by {owner}")
    on_disk = model_on_disk(store, name, reads=not force)
    meant = meant_paths(model, on_disk.paths, on_disk.receipts)
    deletion = Deletion(store, name, model.label, on_disk.folder, [name])
    for file in on_disk.files:
        if file.path not in meant:
            continue
        if file.why_kept and not force:
            deletion.kept.append(KeptFile(file.place, file.why_kept))
            continue
        deletion.steps.append(file.place)
        deletion.count(file.place)
        if file.receipt is not None and was_imported(file.receipt):
            deletion.imported += 1
    deletion.files = len(deletion.steps)
    if not on_disk.folder.is_symlink():
        deletion.folders = [Path(at) for at, _, _ in os.walk(on_disk.folder)]
        deletion.forgotten[name] = [receipt.path for path, receipt in on_disk.receipts.items() if path in meant]
    return deletion


# The hub's cache.


def of_repo(store: Store, origin: HubOrigin) -> Deletion:
    """Plan the deletion of a repository of the hub's cache, no matter which program brought it, or of the part of it
    that ``origin`` means; if it has a revision, of that revision alone."""
    cached = repo_on_disk(store, origin)
    name = str(origin)
    deletion = Deletion(store, name, name.removeprefix("hf:"), cached.repo.folder, [])
    if origin.revision:
        commit = cached.repo.commit_of(origin.revision)
        if commit is not None:
            _add_cached(deletion, cached.repo, cached.entries_of(commit, origin), is_whole=False)
        return deletion
    entries = cached.entries_of(None, origin)
    if entries or origin.is_whole:
        _add_cached(deletion, cached.repo, entries, is_whole=origin.is_whole)
    return deletion


def of_cached_model(store: Store, name: str, *, force: bool = False) -> list[Deletion]:
    """Plan the deletion of what mdl brought to the hub's cache for the model ``name``, by repository. What another
    model has too stays; so does what another program had brought before, unless ``force`` is set."""
    origins: dict[HubOrigin, None] = {}
    for hub, _ in of_hubs(store.receipts.of_model(name)):
        origins[HubOrigin(hub.repo, hub.repo_type)] = None
    deletions: list[Deletion] = []
    for origin in origins:
        cached = repo_on_disk(store, origin)
        label = spelled(name, origin.repository)
        deletion = Deletion(store, name, label, cached.repo.folder, [])
        going: list[CacheEntry] = []
        for entry in cached.entries:
            own = tuple(receipt for receipt in entry.receipts if receipt.model == name)
            if not own:
                continue
            file = entry.file
            reason = _why_kept_in_cache(entry, name, force=force)
            if file is not None and reason:
                deletion.kept.append(KeptFile(file.pointer, reason))
                file = None  # only the receipts go
            going.append(CacheEntry(entry.commit, entry.path, file, own))
        _add_cached(deletion, cached.repo, going, is_whole=False)
        deletions.append(deletion)
    return deletions


def _why_kept_in_cache(entry: CacheEntry, name: str, *, force: bool) -> str:
    """Say why a file that mdl brought for a model must stay; '' if it may go."""
    for receipt in entry.receipts:
        if receipt.model != name:
            return f"{receipt.model} has it too"
        if receipt.adopted and not force:
            return "another program downloaded it"
    return ""


def _add_cached(deletion: Deletion, repo: CachedRepo, going: Sequence[CacheEntry], *, is_whole: bool) -> None:
    """Plan the deletion of these files and receipts of a repository: their names, the bytes that no other name leads
    to, and the branches and snapshots of which nothing is left. A folder disappears at once, so that the hub's client
    never meets half."""
    files: list[CachedFile] = []
    for entry in going:
        for receipt in entry.receipts:  # also of a file that has lost its name in the snapshot
            deletion.forgotten.setdefault(receipt.model, []).append(receipt.path)
        if entry.file is not None:
            files.append(entry.file)
    others = set(repo.files).difference(files)
    commits_gone = {file.commit for file in files}.difference(file.commit for file in others)
    blobs = _blobs_gone(repo, going, others)
    if is_whole and not repo.has_own_links:
        blobs = set(repo.blobs)  # with those of unfinished downloads
    blobs_here = [blob for blob in sorted(blobs) if os.path.lexists(blob)]
    for path in (*blobs_here, *(file.pointer for file in files)):
        deletion.count(path)

    cache = deletion.store.root
    listings = [repo.real_folder / TREES / f"{commit}.json" for commit in sorted(commits_gone)]
    deletion.files = len(files)
    deletion.names = sorted(deletion.forgotten) or [repo.origin.folder]
    deletion.foreign_locks = list((cache / ".locks" / repo.folder.name).glob("*.lock"))
    deletion.shared_links = shared_links(cache, blobs_here)
    deletion.records = {*repo.refs, *listings}
    is_nothing_left = not others and blobs.issuperset(repo.blobs)
    if not is_whole and not is_nothing_left:
        deletion.steps = _pieces_gone(repo, files, commits_gone) + listings + blobs_here
    elif repo.is_there:
        deletion.steps = [repo.folder]
        if repo.has_own_links:
            deletion.steps = repo.pieces(blobs_here)


def _blobs_gone(repo: CachedRepo, going: Sequence[CacheEntry], others: Collection[CachedFile]) -> set[Path]:
    """The bytes of the files and receipts that go, to which none of the ``others`` leads."""
    blobs: set[Path] = set()
    for entry in going:
        blobs.update(repo.real_blobs / receipt.digest.hex for receipt in entry.receipts)
        if entry.file is not None and entry.file.blob is not None:
            blobs.add(entry.file.blob)
    return blobs.difference(file.blob for file in others)


def _pieces_gone(repo: CachedRepo, files: Sequence[CachedFile], commits_gone: Collection[str]) -> list[Path]:
    """The branches and snapshots of which nothing is left, and the names of files in other snapshots."""
    steps: list[Path] = []
    for path, commit in repo.refs.items():
        if commit in commits_gone:
            steps.append(path)
    for file in files:
        if file.commit not in commits_gone:
            steps.append(file.pointer)
    for snapshot in repo.commits:
        if snapshot.name in commits_gone:
            steps.append(snapshot)
    return steps
