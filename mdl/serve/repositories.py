"""Repositories: what this disk has of the hub's repositories, as a table in which requests are looked up.

No part of a request ever becomes part of a path. The table is made from receipts: only a file that was compared with a
published digest is in it, under its name in the repository, at every commit whose kept listing has these bytes.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, TypeAlias

from mdl.engine.receipts import RECORD
from mdl.engine.status import is_verified
from mdl.engine.store import Store
from mdl.files import Receipt, Stamp, is_open
from mdl.hashing import Digest
from mdl.sources.hub import Listing, Listings
from mdl.sources.hub_origin import HubOrigin, is_pinned
from mdl.values import value_class

_LOOK_AGAIN, _OLDEST = 2.0, 60.0
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

    @property
    def etag(self) -> str:
        """As the hub has it: the sha256 of a large file, the blob id in git of a small one."""
        return f'"{self.digest.hex}"'

    def open(self) -> BinaryIO | None:
        """The file, if it is still the one that was verified; else None."""
        path = self.store.path_of(self.receipt)
        if path is None:
            return None
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        if Stamp.of(os.fstat(fd)) != self.receipt.stamp:
            os.close(fd)
            return None
        return os.fdopen(fd, "rb", buffering=0)


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
    """One repository. ``refs`` are the commits of its branches. It ``is_open`` if everybody may have it at the hub; of
    any other it is not known that this is so."""

    id: str
    refs: Mapping[str, str]
    revisions: Mapping[str, Revision]
    is_open: bool

    @property
    def head(self) -> Revision:
        """What its default branch is here."""
        return self.revisions[self.refs["main"]]

    def at(self, revision: str) -> Revision | None:
        """What a branch, tag or commit means here; ``HEAD`` is the default branch."""
        if revision == "HEAD":
            return self.head
        return self.revisions.get(self.refs.get(revision, revision))


Table: TypeAlias = dict[tuple[str, str], Repository]
"""Repositories by type (``model``, ``dataset``, ``space``) and id."""


class Repositories:
    """The table of several models folders, made again when their receipts have changed. For any number of threads."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores, self._lock = stores, threading.Lock()
        self._table: Table = {}
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

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_AGAIN:
            state = [found for store in self._stores for found in _state(store)]
            if state != self._state or now - self._made_at >= _OLDEST:
                self._table, self._state, self._made_at = make_table(self._stores), state, now
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
    """What the receipts and the listings tell of one repository."""

    accesses: set[str] = field(default_factory=set)
    refs: dict[str, str] = field(default_factory=dict)
    commits: defaultdict[str, dict[str, ServedFile]] = field(default_factory=lambda: defaultdict(dict))
    totals: dict[str, int] = field(default_factory=dict)
    by_digest: dict[Digest, ServedFile] = field(default_factory=dict)

    def add(self, file: ServedFile) -> None:
        hub = file.receipt.hub
        assert hub is not None
        self.commits[hub.revision][hub.path] = file
        self.by_digest[file.digest] = file
        if hub.branch:
            self.refs[hub.branch] = hub.revision

    def add_listing(self, listing: Listing) -> None:
        """What a listing has of the files that are here."""
        self.accesses.add(listing.access)
        self.totals[listing.commit] = len(listing.entries)
        for entry in listing.entries:
            if entry.digest in self.by_digest:
                same = self.by_digest[entry.digest]
                file = ServedFile(entry.path.text, same.store, same.receipt)
                self.commits[listing.commit].setdefault(entry.path.text, file)

    def newest(self) -> str:
        """The commit of the file that came last."""
        times = {commit: max(one.receipt.stamp.mtime_ns for one in files.values()) for commit, files in self._filled()}
        return max(times, key=lambda commit: (times[commit], commit))

    def _filled(self) -> list[tuple[str, dict[str, ServedFile]]]:
        return [(commit, files) for commit, files in self.commits.items() if files]

    def as_repository(self, name: str) -> Repository:
        refs = {"main": self.newest()} | self.refs
        revisions = {
            commit: Revision(commit, dict(sorted(files.items())), self.totals.get(commit))
            for commit, files in self._filled()
        }
        return Repository(name, refs, revisions, is_open(self.accesses))


def make_table(stores: Sequence[Store]) -> Table:
    """The repositories that have a verified file in one of ``stores``."""
    found: defaultdict[tuple[str, str], _Gathered] = defaultdict(_Gathered)
    for store in stores:
        for receipt in store.receipts.all():
            hub = receipt.hub
            if hub is None or not is_pinned(hub.revision):
                continue
            repo = found[hub.repo_type, hub.repo]
            repo.accesses.add(receipt.access)
            if is_verified(receipt.verified) and store.path_of(receipt) is not None:
                repo.add(ServedFile(hub.path, store, receipt))
    for store in stores:
        listings = Listings(store.listings)
        for (repo_type, name), repo in found.items():
            whole = HubOrigin(name, repo_type)
            for revision in listings.revisions(whole.repository):
                if listing := listings.of_any_hub(replace(whole, revision=revision)):
                    repo.add_listing(listing)
    return {key: repo.as_repository(key[1]) for key, repo in sorted(found.items()) if repo.by_digest}
