"""Local copies: the same bytes elsewhere on this disk: in another model, the hub's cache, or folders that the user
names.

A file that is found is only a candidate: it is hashed before it is used. `mdl.disk.copy` says how its bytes are taken.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from mdl.disk import copy, nearest_existing
from mdl.disk.copy import SharingRule, Way, predict_way
from mdl.disk.publish import OpenFolders
from mdl.disk.safe_open import open_for_reading
from mdl.downloader.hub_cache import CachedRepo, cached_repos
from mdl.downloader.plan import Item
from mdl.downloader.receipts import new_receipt
from mdl.downloader.store import Ready, Store
from mdl.errors import Busy, MdlError, StateError, StorageError
from mdl.events import Finished, Listener, Noticed, Rewound, Verifying
from mdl.files import Receipt, RemoteFile, Stamp
from mdl.hashing import Digest
from mdl.values import value_class

Candidate = tuple[Path, SharingRule]
"""A file that may have the bytes, and the rule by which they may be shared with it."""


@value_class
class LocalCopies:
    """Where to look for files that ``store`` needs. ``others`` are models folders beside it, ``caches`` are laid out as
    the hub's cache, ``also`` are folders of other programs. ``link`` is one of `mdl.disk.copy.RULES`."""

    store: Store
    others: Sequence[Store] = ()
    caches: Sequence[Path] = ()
    also: Sequence[Path] = ()
    link: str = "auto"

    def candidates(self, model: str, remote: RemoteFile) -> list[tuple[Candidate, Way | None]]:
        """Files that may have these bytes, each once: the likeliest first, those that must be copied last. And how the
        bytes of each will be taken: None if it cannot be opened. Links are followed."""
        found: list[tuple[Candidate, Way | None]] = []
        own = self._own_place(model, remote) if remote.digest and remote.size else None
        seen = set()
        for place, is_ours in [*([(own, True)] if own else []), *self._places(remote)]:
            with contextlib.suppress(OSError):
                path = Path(os.path.realpath(place))
                status = os.stat(path)
                inode = (status.st_dev, status.st_ino)
                has_its_size = remote.size in (None, status.st_size)
                if not stat.S_ISREG(status.st_mode) or not has_its_size or inode in seen:
                    continue
                seen.add(inode)
                rule = SharingRule(self.link, may_make_read_only=is_ours)
                way = None
                with contextlib.suppress(OSError), open_for_reading(path) as fd:
                    way = predict_way(fd, nearest_existing(self.store.own), rule)
                found.append(((path, rule), way))
        return sorted(found, key=lambda one: (one[0][0] != own, one[1] == "copy"))

    def _own_place(self, model: str, remote: RemoteFile) -> Path | None:
        """Return where the file will be, if another one with the same bytes is there too: to bring it again would
        replace that one, whose receipt is of the file that was there."""
        if not self.store.layout.is_by_digest:
            return None
        return Path(os.path.realpath(self.store.final_path(model, remote)))

    def _places(self, remote: RemoteFile) -> Iterator[tuple[Path, bool]]:
        """Yield where to look, and whether it is mdl's own file or a blob: the hub's client never writes into a
        blob."""
        if remote.digest is None or remote.size == 0:
            return
        for _, path, receipt in self._published.get(remote.digest, ()):
            yield path, not receipt.adopted
        for repo in self.repos:
            yield repo.real_blobs / remote.digest.hex, True
        if remote.size is None:  # what is told apart by its size alone cannot be looked for
            return
        for path in self._in_snapshots(remote):
            yield path, False
        for path in self._by_size.get(remote.size, ()):
            yield path, False

    def predict(self, item: Item) -> Item | None:
        """Return the item with how its bytes will be taken from this disk; None if they do not seem to be there. Reads
        none of them."""
        ways = [way for _, way in self.candidates(item.wanted.model, item.remote) if way]
        return replace(item, way=ways[0]) if ways else None

    def predict_duplicate(self, item: Item) -> Item:
        """Return the item with how it will get the bytes that another file of the plan fetches."""
        folder = nearest_existing(self.store.own)
        way: Way = "copy"
        with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as nameless:
            way = predict_way(nameless.fileno(), folder, SharingRule(self.link), item.remote.size)
        return replace(item, way=way)

    def take(self, item: Item, candidate: Candidate) -> Way | None:
        """Publish the candidate's bytes as the item too, and return how they were taken; None if they have another
        digest: then the receipts that promise them are distrusted. Raises `OSError`, `MdlError`, `Cancelled`."""
        path, rule = candidate
        model = item.wanted.model
        remote = item.remote
        store = self.store
        if path == self._own_place(model, remote):
            stamp = Stamp.of(path.stat())
            print_ = store.fingerprint(path, remote)
            if print_.digest == remote.digest:  # two files of one repository are one file here
                receipt = new_receipt(model, remote, print_, print_.digest.algorithm, stamp)
                store.receipts.put(replace(receipt, catalog=store.catalog))
                with OpenFolders() as folders:
                    store.layout.expose(remote, folders)
                    folders.sync()
                return "clone"
        with store.scratch_folder(model, remote) as folder, open_for_reading(path) as fd:
            before = Stamp.of(os.fstat(fd))
            here = folder / "data"
            way = copy.clone_link_or_copy(fd, path, here, rule, store.free_space(), store.stoppable())
            stamp = Stamp.of(os.lstat(here))
            print_ = store.fingerprint(here, remote)
            if print_.digest == remote.digest:
                if way == "link":
                    copy.make_read_only(here)
                    if Stamp.of(os.lstat(here)) != before:
                        raise StorageError("it was written to while it was read")
                store.publish(Ready(model, remote, here, print_, print_.digest.algorithm, item.seen, stamp))
                return way
        for other, published, receipt in self._published.get(remote.digest, ()) if remote.digest else ():
            if os.path.realpath(published) == str(path):
                with contextlib.suppress(OSError):
                    other.receipts.distrust(receipt.model, receipt.path)
        return None

    @cached_property
    def _published(self) -> dict[Digest, list[tuple[Store, Path, Receipt]]]:
        """What mdl itself published in these models folders, by the receipts."""
        found: dict[Digest, list[tuple[Store, Path, Receipt]]] = {}
        for store in (self.store, *self.others):
            for receipt in store.receipts.all():
                path = store.path_of(receipt)
                if path is not None:
                    found.setdefault(receipt.digest, []).append((store, path, receipt))
        return found

    @cached_property
    def repos(self) -> list[CachedRepo]:
        """The repositories in these caches."""
        found: list[CachedRepo] = []
        for cache in self.caches:
            found += cached_repos(cache)
        return found

    def _in_snapshots(self, remote: RemoteFile) -> Iterator[Path]:
        """Files of the same repository, of any commit, that lie in the snapshots themselves: of a cache that was copied
        without its links, or is on a disk that has none."""
        for repo in self.repos if remote.hub else ():
            if remote.hub and (repo.origin.repo_type, repo.origin.repo) == (remote.hub.repo_type, remote.hub.repo):
                yield from (file.pointer for file in repo.files if file.blob is None and file.size == remote.size)

    @cached_property
    def _by_size(self) -> dict[int, list[Path]]:
        """Every file below the user's folders, by its size. Links are not followed."""
        found: dict[int, list[Path]] = {}
        for folder in self.also:
            for at, _, names in os.walk(folder):
                for name in names:
                    with contextlib.suppress(OSError):
                        status = os.lstat(os.path.join(at, name))
                        if stat.S_ISREG(status.st_mode):
                            found.setdefault(status.st_size, []).append(Path(at, name))
        return found


def reuse(items: Sequence[Item], copies: LocalCopies, tell: Listener) -> tuple[list[Item], list[Item]]:
    """Take files from elsewhere on this disk: returns those that were published, and those that are left to fetch. Only
    verified bytes are published. Raises `Cancelled`."""
    reused: list[Item] = []
    left: list[Item] = []
    for item in items:
        way = _reuse_one(item, copies, tell)
        if way:
            reused.append(replace(item, way=way))
        else:
            left.append(item)
    return reused, left


def _reuse_one(item: Item, copies: LocalCopies, tell: Listener) -> Way | None:
    model = item.wanted.model
    remote = item.remote
    name = item.remote.path.text
    for candidate, _ in copies.candidates(model, remote):
        tell(Verifying(model, name, done=0, total=remote.size))
        try:
            if way := copies.take(item, candidate):
                with contextlib.suppress(OSError, Busy, StateError):  # what cannot be removed is left for 'mdl clean'
                    if lost := copies.store.discard_partials(model, remote):
                        why = "all of it was found elsewhere on this disk"
                        tell(Rewound(model, name, bytes_discarded=lost, why=why))
                source = str(candidate[0])
                tell(Finished(model, name, remote.size or 0, "linked", remote.hash_algorithm, way, source))
                return way
            why = f"it does not have {remote.digest}"
        except (OSError, MdlError) as error:
            why = error.message if isinstance(error, MdlError) else error.strerror or str(error)
        tell(Noticed(model, name, f"{candidate[0]} cannot be used: {why}"))
    return None


def unique_by_digest(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Return the first item of each digest, and those that need the same bytes again."""
    first: list[Item] = []
    again: list[Item] = []
    seen: set[Digest] = set()
    for item in items:
        digest = item.remote.digest
        (again if digest and digest in seen else first).append(item)
        if digest:
            seen.add(digest)
    return first, again
