"""Deletion: what is to go of a model, in either layout, and what stays and why. Nothing is deleted here."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from mdl.catalog.model import COMMAND_LINE, Model
from mdl.disk import publish, user_name
from mdl.disk.safe_open import is_own_folder, names_below
from mdl.downloader.adoption import leftovers, size_of_partial
from mdl.downloader.hub_cache import TREES, shared_links
from mdl.downloader.hub_repos import CachedFile, CachedRepo, part_of, repo_in
from mdl.downloader.receipts import file_key
from mdl.downloader.store import Store
from mdl.errors import NotFound, StorageError
from mdl.files import Receipt, RemoteFile
from mdl.sources.hub_origin import HubOrigin
from mdl.values import value_class


@value_class
class KeptFile:
    """A file that stays, and why."""

    path: Path
    why: str


@dataclass
class Deletion:
    """What is to go of one model.

    ``steps`` are files, links and whole folders below the models folder, in the order in which they go; then those of
    the ``folders`` that are empty. ``shared_links`` are those blobs among them that lead to files which the hub's
    client keeps for several repositories; such a file goes with the last of its links. ``sizes`` are the other files
    that take room, ``unfinished`` the bytes of ``partials``; ``imported`` counts those of the ``files`` that were
    imported. Meanwhile the locks of the models ``names`` are held; ``foreign_locks`` are those of the hub's client.
    ``records`` are those of the steps in which the hub's client notes something. ``forget`` removes the receipts.
    """

    store: Store
    name: str
    path: Path
    names: Sequence[str]
    steps: list[Path] = field(default_factory=list)
    sizes: list[os.stat_result] = field(default_factory=list)
    files: int = 0
    imported: int = 0
    unfinished: int = 0
    folders: list[Path] = field(default_factory=list)
    shared_links: Mapping[Path, set[Path]] = field(default_factory=dict)
    records: Collection[Path] = ()
    kept: list[KeptFile] = field(default_factory=list)
    partials: list[Path] = field(default_factory=list)
    foreign_locks: Sequence[Path] = ()
    forget: Callable[[], None] = lambda: None

    def count(self, path: Path) -> None:
        """Note the size of a file that goes, if it is there and no link."""
        with contextlib.suppress(OSError):
            found = path.lstat()
            self.sizes += [found] if stat.S_ISREG(found.st_mode) else []

    def add_partials(self, folders: Iterable[Path]) -> None:
        """Unfinished downloads that go, each once."""
        for folder in folders:
            if folder not in self.partials:
                self.partials.append(folder)
                self.unfinished += size_of_partial(folder)


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
    paths = {remote.path for remote in known(store, model)}
    if store.layout.is_by_digest:
        paths |= {one.path for one in store.receipts.of_model(model.name)}
    unfinished = [one for path in paths for one in leftovers(store.partials, file_key(model.name, path))]
    try:
        found = _whole(model, stores, force=force)
    except NotFound:
        if not unfinished:
            raise
        found = [Deletion(store, model.name, store.folder(model.name), [model.name])]
    found[0].add_partials(unfinished)
    return found


def _whole(model: Model, stores: Sequence[Store], *, force: bool) -> list[Deletion]:
    """As `plan`, but without downloads of which no file is finished."""
    store = stores[0]
    origins = [origin for origin in model.sources if isinstance(origin, HubOrigin)]
    if not store.layout.is_by_digest:
        try:
            return [of_folder(store, model.name, partial(_meant, model), force=force)]
        except NotFound as error:
            caches = [other.root for other in stores if other.layout.is_by_digest]
            hint = error.hint
            item = error.item
            for origin in origins:
                if any(repo_in(cache, origin).is_there for cache in caches):
                    hint = f"Hugging Face's cache has it: mdl rm {origin} --layout hf-cache"
                if not origin.is_whole:
                    item = str(origin)  # of the folder there may be something
            raise error.but(hint=hint, item=item) from error
    if model.origin == COMMAND_LINE and origins:
        return [of_repo(store, origin) for origin in origins]
    if found := of_cached_model(store, model.name, force=force):
        return found
    hint = "'mdl list --local' shows what is on this disk"
    for origin in (one for one in origins if repo_in(store.root, one).is_there):
        hint = f"another program brought {origin.repository}: mdl rm {origin.repository} --layout hf-cache"
    raise NotFound("mdl brought nothing of it to Hugging Face's cache", item=model.name, hint=hint)


def _meant(model: Model, here: Mapping[str, Receipt | None]) -> Collection[str]:
    """Those of the paths ``here`` in a model's folder that it means: all of them, unless it is a reference to a part of
    a repository, to a commit, or to one URL."""
    if model.origin != COMMAND_LINE:
        return here
    found = {file.path.text for file in model.files}
    for origin in model.sources:
        found.update(_part(origin, here) if isinstance(origin, HubOrigin) else here)
    return found & here.keys()


def _part(origin: HubOrigin, here: Mapping[str, Receipt | None]) -> Collection[str]:
    """Those of the paths ``here`` that a reference to a repository means."""
    found: Collection[str] = here
    if origin.revision:
        hubs = {path: receipt.hub for path, receipt in here.items() if receipt and receipt.hub}
        found = [path for path, hub in hubs.items() if origin.revision in (hub.branch, hub.revision)]
    return part_of(origin, found)


def of_model(store: Store, name: str) -> list[Deletion]:
    """What mdl brought for the model ``name``, in either layout. Raises as `of_folder`."""
    return of_cached_model(store, name) if store.layout.is_by_digest else [of_folder(store, name)]


# The plain layout: a folder for each model.


def of_folder(
    store: Store,
    name: str,
    meant: Callable[[Mapping[str, Receipt | None]], Collection[str]] = lambda here: here,
    *,
    force: bool = False,
) -> Deletion:
    """What of a model's folder is mdl's; with ``force`` everything in it. ``meant`` narrows it: it gets the path of
    each file with its receipt. Only those files are hashed that seem to be changed.

    Raises `NotFound` if nothing of it is here, `StateError`, `StorageError`, `Cancelled`.
    """
    _refuse_closed(store, name)
    folder = store.folder(name)
    receipts = {one.path.text: one for one in store.receipts.of_model(name)}
    found = Deletion(store, name, folder, [name])

    paths = {str(path.relative_to(folder)): path for path in files_in_folder(store, name)}
    wanted = meant({text: receipts.get(text) for text in (*paths, *receipts)})
    for text, path in paths.items():
        if text not in wanted:
            continue
        receipt = receipts.get(text)
        why = _why_kept(store, receipt)
        if why and not force and not publish.is_staged(path.name):
            found.kept.append(KeptFile(path, why))
        else:
            found.steps.append(path)
            found.count(path)
            found.imported += receipt is not None and receipt.url.startswith("file:")
    found.files = len(found.steps)
    going = {receipt.path for text, receipt in receipts.items() if text in wanted}
    for one in going:
        found.add_partials(leftovers(store.partials, file_key(name, one)))
    if not (going or found.steps or found.kept or found.partials):
        raise NotFound("nothing of it is on this disk", item=name, hint="'mdl list --local' shows what is")
    if not folder.is_symlink():
        found.folders = [Path(at) for at, _, _ in os.walk(folder)]
        found.forget = lambda: store.receipts.drop(name, going)
    return found


def files_in_folder(store: Store, name: str) -> Iterator[Path]:
    """Everything in a model's folder that is no folder, without the folders of other models that are below it."""
    folder = store.folder(name)

    def is_of_another_model(below: Path) -> bool:
        return store.receipts.may_have(f"{name}/{below.relative_to(folder).as_posix()}")

    yield from names_below(folder, is_of_another_model)


def strangers(store: Store, name: str, receipts: Sequence[Receipt]) -> Iterator[Path]:
    """What is in a model's folder and has none of the model's ``receipts``."""
    own = {receipt.path.text for receipt in receipts}
    folder = store.folder(name)
    for path in files_in_folder(store, name):
        if path.relative_to(folder).as_posix() not in own and not publish.is_staged(path.name):
            yield path


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
                raise StorageError(why, item=name, hint=f"have it deleted by {who}")


def _why_kept(store: Store, receipt: Receipt | None) -> str:
    """Why a file must stay; '' if it is as mdl wrote it."""
    if receipt is None:
        return "not mdl's"
    found = store.check(receipt.model, receipt.remote)
    if found.kind != "file":
        return found.why
    return "changed since mdl wrote it" if found.is_edited else ""


# The hub's cache.


def of_repo(store: Store, origin: HubOrigin) -> Deletion:
    """A repository of the hub's cache, no matter which program brought it, or the part of it that ``origin`` means; if
    it has a revision, that revision alone. Raises `NotFound`."""
    repo = repo_in(store.root, origin)
    revision = origin.revision
    commit = repo.commit_of(revision) if revision else None
    receipts = [one for one in _receipts(store, repo) if commit in (None, one.hub and one.hub.revision)]
    if (revision and commit is None) or not (repo.is_there or receipts):
        there = sorted({file.commit[:12] for file in repo.files})
        hint = f"there is {', '.join(there)}" if there else "'mdl list --local' shows what is"
        raise NotFound("not in Hugging Face's cache", item=str(origin), hint=hint)
    going = [file for file in repo.files if commit in (None, file.commit)]
    if not origin.is_whole:
        here = dict.fromkeys([*(file.path for file in going), *(one.path.text for one in receipts)])
        part = _part(replace(origin, revision=None), here)
        going = [file for file in going if file.path in part]
        receipts = [one for one in receipts if one.path.text in part]
        if not (going or receipts):
            raise NotFound("nothing of it is on this disk", item=str(origin), hint="'mdl list --local' shows what is")
    return _of_cache(store, str(origin), repo, going, receipts, is_whole=commit is None and origin.is_whole)


def of_cached_model(store: Store, name: str, *, force: bool = False) -> list[Deletion]:
    """What mdl brought to the hub's cache for the model ``name``, by repository. What another model has too stays; so
    does what another program had brought before, unless ``force`` is set."""
    hubs = [one.hub for one in store.receipts.of_model(name) if one.hub]
    origins = dict.fromkeys(HubOrigin(hub.repo, hub.repo_type) for hub in hubs)
    found: list[Deletion] = []
    for repo in (repo_in(store.root, origin) for origin in origins):
        receipts = _receipts(store, repo)
        own = {_key(one): one for one in receipts if one.model == name}
        others = {_key(one): one.model for one in receipts if one.model != name}
        going = []
        kept = []
        for file in repo.files:
            key = file.commit, file.path
            if key in own and key in others:
                kept.append(KeptFile(file.pointer, f"{others[key]} has it too"))
            elif key in own and own[key].adopted and not force:
                kept.append(KeptFile(file.pointer, "another program brought it"))
            elif key in own:
                going.append(file)
        found.append(_of_cache(store, name, repo, going, list(own.values()), is_whole=False))
        found[-1].kept = kept
    return found


def _of_cache(
    store: Store,
    name: str,
    repo: CachedRepo,
    going: Sequence[CachedFile],
    receipts: Sequence[Receipt],
    *,
    is_whole: bool,
) -> Deletion:
    """The deletion of these files and receipts: their names, the bytes that no other name leads to, and the branches
    and snapshots of which nothing is left. A folder disappears at once, so that the hub's client never meets half."""
    staying = [file for file in repo.files if file not in set(going)]
    names = {one.model for one in receipts}
    found = Deletion(store, name, repo.folder, sorted(names or {repo.origin.folder}), files=len(going))
    found.foreign_locks = list((store.root / ".locks" / repo.folder.name).glob("*.lock"))
    gone = {file.commit for file in going} - {file.commit for file in staying}
    digests = [repo.real_blobs / one.digest.hex for one in receipts]
    blobs = {file.blob for file in going if file.blob} | {path for path in digests if os.path.lexists(path)}
    blobs -= {file.blob for file in staying}
    blobs = {blob for blob in (repo.blobs if is_whole and not repo.has_own_links else blobs) if os.path.lexists(blob)}
    found.shared_links = shared_links(store.root, blobs)
    listings = [repo.real_folder / TREES / f"{commit}.json" for commit in sorted(gone)]
    found.records = {*repo.refs, *listings}
    for path in blobs | {file.pointer for file in going if not file.blob}:
        found.count(path)
    if is_whole or not (staying or repo.blobs - blobs):
        found.steps = repo.pieces(blobs) if repo.has_own_links else [repo.folder]
        found.steps = found.steps if repo.is_there else []
    else:
        found.steps = [path for path, commit in repo.refs.items() if commit in gone]
        found.steps += [file.pointer for file in going if file.commit not in gone]
        found.steps += [place for place in repo.commits if place.name in gone]
        found.steps += listings
        found.steps += sorted(blobs)

    def forget() -> None:
        for model in names:
            store.receipts.drop(model, [one.path for one in receipts if one.model == model])

    found.forget = forget
    return found


def _receipts(store: Store, repo: CachedRepo) -> list[Receipt]:
    """The receipts of all models for files of a repository."""
    asked = repo.origin.repo_type, repo.origin.repo
    return [one for one in store.receipts.all() if one.hub and (one.hub.repo_type, one.hub.repo) == asked]


def _key(receipt: Receipt) -> tuple[str, str]:
    assert receipt.hub is not None
    return receipt.hub.revision, receipt.hub.path
