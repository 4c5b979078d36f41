"""Repositories: what this disk has of the hub's repositories, as a table in which requests are looked up.

No part of a request ever becomes part of a path. The table is made from receipts, and it has nothing that must not be
offered: what is not in it cannot be told from what is not here. A file is in it under its name in the repository, at
its own commit, and at every other one whose kept listing of the same hub has these bytes. Nothing of two hubs is ever
in one repository, though both may have one of that name (docs/adr/0056).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeAlias

from mdl.downloader.receipts import RECORD
from mdl.downloader.store import Store
from mdl.files import HubFile, Receipt, Stamp, is_verified
from mdl.hashing import Digest
from mdl.sources.hub_listing import Listing, Listings
from mdl.sources.hub_origin import HubOrigin, is_pinned
from mdl.values import value_class

LOOK_AGAIN = 2.0
_OLDEST = 60.0
"""Seconds until the receipts are looked at again, and until the table is made again whatever they say."""


@value_class
class ServedFile:
    """A verified file of this disk, as a file of a repository."""

    path: str
    store: Store = field(repr=False)
    receipt: Receipt = field(repr=False)

    @property
    def size(self) -> int:
        return self.receipt.stamp.size

    @property
    def digest(self) -> Digest:
        return self.receipt.digest

    def open(self) -> tuple[BinaryIO, Stamp] | None:
        """The file and its stamp, if it is still the one that was verified; else None."""
        path = self.store.path_of(self.receipt)
        if path is None:
            return None
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        stamp = Stamp.of(os.fstat(fd))
        if not self.receipt.stamp.fits(stamp):
            os.close(fd)
            return None
        return os.fdopen(fd, "rb", buffering=0), stamp


@value_class
class Revision:
    """A repository at a commit: its files that are here, by path. ``total`` is how many it has at the hub, if that is
    known."""

    commit: str
    files: Mapping[str, ServedFile]
    total: int | None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is known to be missing."""
        return self.total in (None, len(self.files))


@value_class
class Repository:
    """One repository of one hub. ``endpoint`` is that hub, "" if it is not known: then a bundle brought it, or an
    earlier mdl. ``refs`` are the commits of its branches. It ``is_public`` if everybody may have all that is here of
    it."""

    id: str
    endpoint: str
    refs: Mapping[str, str]
    revisions: Mapping[str, Revision]
    is_public: bool

    @property
    def head(self) -> Revision:
        """What its default branch is here."""
        return self.revisions[self.refs["main"]]

    def at(self, revision: str) -> Revision | None:
        """What a branch, tag or commit means here; ``HEAD`` is the default branch."""
        if revision == "HEAD":
            return self.head
        return self.revisions.get(self.refs.get(revision, revision))


Table: TypeAlias = dict[tuple[str, str], tuple[Repository, ...]]
"""Repositories by type (``model``, ``dataset``, ``space``) and id: one of each hub, the likeliest first."""


class Repositories:
    """The table of several models folders, made again when their receipts have changed. For any number of threads.

    ``endpoint`` is the hub in use. With ``gated`` what is not known to be public is offered too."""

    def __init__(self, stores: Sequence[Store], endpoint: str, *, gated: bool) -> None:
        self._stores = stores
        self._lock = threading.Lock()
        self._endpoint = endpoint
        self._gated = gated
        self._table: Table = {}
        self._names: frozenset[str] = frozenset()
        self._state: object = None
        self._looked_at = self._made_at = float("-inf")

    def table(self) -> Table:
        """The repositories as they are now, or were two seconds ago."""
        if self._lock.acquire(blocking=self._state is None):  # while a new one is made, the old one is good enough
            try:
                self._refresh()
            finally:
                self._lock.release()
        return self._table

    def offered(self) -> frozenset[str]:
        """The names of the models, and the references of the repositories, all of whose files here are offered."""
        self.table()
        return self._names

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked_at >= LOOK_AGAIN:
            state = [found for store in self._stores for found in _state(store)]
            if state != self._state or now - self._made_at >= _OLDEST:
                self._table = make_table(self._stores, self._endpoint, gated=self._gated)
                self._names = names_of(self._stores, self._table)
                self._state = state
                self._made_at = now
            self._looked_at = time.monotonic()


def _state(store: Store) -> Iterator[tuple[str, int, int]]:
    """What differs when another receipt or listing is there."""
    receipts = store.own / "receipts"
    records = [entry / RECORD for entry in _entries(receipts)]
    for path in (store.listings, receipts, *records):
        try:
            found = os.lstat(path)
            yield str(path), found.st_mtime_ns, found.st_size
        except OSError:
            continue


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


@dataclass
class _Gathered:
    """What the receipts and the listings tell of one repository of one hub. With ``gated`` what is not known to be
    public is offered too."""

    gated: bool
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, ServedFile]] = field(default_factory=dict)
    """The files of each commit by their paths; no commit is without files."""
    totals: dict[str, int] = field(default_factory=dict)
    by_digest: dict[Digest, ServedFile] = field(default_factory=dict)
    is_public: bool = True

    def add(self, file: ServedFile, hub: HubFile, listing: Listing | None) -> None:
        """Take a file, unless it must not be offered. ``listing`` is what its hub had at its commit, if it is kept:
        what only others vouch for never stands in the place of what the hub has there."""
        receipt = file.receipt
        is_of_hub = receipt.vouched_by == "hub"
        is_public = is_of_hub and receipt.access == "public" and hub.endpoint != ""
        if not is_public and not self.gated:
            return
        if not is_of_hub and self._contradicts_hub(file, hub, listing):
            return
        self.commits.setdefault(hub.revision, {})[hub.path] = file
        self.is_public = self.is_public and is_public
        if is_of_hub:
            self.by_digest[file.digest] = file
        if hub.branch:
            self.refs[hub.branch] = hub.revision

    def _contradicts_hub(self, file: ServedFile, hub: HubFile, listing: Listing | None) -> bool:
        """Whether the hub has another file there, or none, or one of the hub is here."""
        if listing is not None:
            entry = listing.entry(hub.path)
            if entry is None or entry.digest != file.digest:
                return True
        here = self.commits.get(hub.revision, {}).get(hub.path)
        return here is not None and here.receipt.vouched_by == "hub"

    def add_listing(self, listing: Listing) -> None:
        """What a listing of this hub has of the files that are here."""
        self.totals[listing.commit] = len(listing.entries)
        if listing.access != "public" and not self.gated:
            return
        for entry in listing.entries:
            if entry.digest in self.by_digest:
                same = self.by_digest[entry.digest]
                file = ServedFile(entry.path.text, same.store, same.receipt)
                self.commits.setdefault(listing.commit, {}).setdefault(entry.path.text, file)

    def newest(self) -> tuple[int, str]:
        """When the file came that came last, and its commit."""
        times = []
        for commit, files in self.commits.items():
            times.append((max(file.receipt.stamp.mtime_ns for file in files.values()), commit))
        return max(times)

    def as_repository(self, name: str, endpoint: str) -> Repository:
        _, newest = self.newest()
        revisions = {}
        for commit, files in self.commits.items():
            revisions[commit] = Revision(commit, dict(sorted(files.items())), self.totals.get(commit))
        return Repository(name, endpoint, {"main": newest, **self.refs}, revisions, self.is_public)


def make_table(stores: Sequence[Store], endpoint: str, *, gated: bool) -> Table:
    """What may be offered of ``stores``. Of several hubs that have a repository of one name, the one at ``endpoint``
    comes first, then the one of the newest file, and what came from no known hub at the end.

    Offered is what the hub that it came from calls public, and whose digest that hub published. With ``gated`` it is
    every file that was compared with a digest."""
    gathered: dict[tuple[str, str, str], _Gathered] = {}
    listings = [Listings(store.listings) for store in stores]
    for store in stores:
        for receipt in store.receipts.all():
            hub = receipt.hub
            if hub is None or not is_pinned(hub.revision) or not is_verified(receipt.verified):
                continue
            if store.path_of(receipt) is None:
                continue
            repo = gathered.setdefault((hub.repo_type, hub.repo, hub.endpoint), _Gathered(gated))
            listing = None
            if receipt.vouched_by != "hub":
                listing = _listing_of(hub, listings)
            repo.add(ServedFile(hub.path, store, receipt), hub, listing)
    ranked: dict[tuple[str, str], list[tuple[bool, bool, int, Repository]]] = {}
    for (repo_type, name, hub_url), repo in sorted(gathered.items()):
        for kept in listings:
            for listing in kept.all_of(hub_url, HubOrigin(name, repo_type).repository):
                repo.add_listing(listing)
        if repo.commits:
            came_at, _ = repo.newest()
            ranks = ranked.setdefault((repo_type, name), [])
            ranks.append((hub_url == endpoint, hub_url != "", came_at, repo.as_repository(name, hub_url)))
    table = {}
    for key, ranks in ranked.items():
        ranks.sort(key=lambda rank: rank[:3], reverse=True)
        table[key] = tuple(repository for *_, repository in ranks)
    return table


def _listing_of(hub: HubFile, listings: Sequence[Listings]) -> Listing | None:
    """What the hub of a file had at its commit, if that is kept in one of the models folders."""
    origin = HubOrigin(hub.repo, hub.repo_type, hub.revision)
    for kept in listings:
        listing = kept.get(hub.endpoint, origin)
        if listing is not None:
            return listing
    return None


def names_of(stores: Sequence[Store], table: Table) -> frozenset[str]:
    """The names of models, and the references of repositories, of which nothing is here that is not in the table."""
    served = set()
    for repositories in table.values():
        for repository in repositories:
            for revision in repository.revisions.values():
                for file in revision.files.values():
                    served.add((file.store.root, file.receipt.model, file.receipt.path))
    offered: set[str] = set()
    withheld: set[str] = set()
    for store in stores:
        for receipt in store.receipts.all():
            names = {receipt.model}
            if receipt.hub:
                whole = HubOrigin(receipt.hub.repo, receipt.hub.repo_type)
                names |= {whole.repository, whole.repo_path}
            if (store.root, receipt.model, receipt.path) in served:
                offered |= names
            else:
                withheld |= names
    return frozenset(offered - withheld)
