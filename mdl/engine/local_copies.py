"""Local copies: the same bytes elsewhere on this disk: in another model, the hub's cache, or folders that the user
names.

A file that is found is only a candidate: it is hashed before it is used. `mdl.fs.copying` says how its bytes are taken.
What files turned out to be is remembered in a hash cache, so that each is read once and not at every download:
fine-tuned models have files of exactly the same size as their base model. The cache only ever rules a file out. If it
is lost or damaged, files are read again and it is written anew.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mdl import crc_json
from mdl.engine.plan import Item
from mdl.engine.store import Store
from mdl.errors import Busy, MdlError, ProtocolError, StateError
from mdl.events import Finished, Listener, Noticed, Rewound, Verifying
from mdl.files import Receipt, RemoteFile, Stamp
from mdl.fs import nearest_existing, staging
from mdl.fs.copying import SharingRule, Way, predict_way
from mdl.fs.entries import open_for_reading
from mdl.fs.private import make_private_dir, read_regular
from mdl.hashing import Digest

_CACHE_VERSION = 1
_MOST_CACHED = 10_000
"""So many files are remembered; the oldest are forgotten."""
_LARGEST_CACHE = 16 * 2**20
_DAMAGED = (ValueError, OverflowError, KeyError, TypeError, AttributeError, ProtocolError)

Candidate = tuple[Path, SharingRule]
"""A file that may have the bytes, and the rule by which they may be shared with it."""


@dataclass(frozen=True)
class LocalCopies:
    """Where to look for files that ``store`` needs. ``others`` are models folders beside it, ``caches`` are laid out as
    the hub's cache, ``also`` are folders of other programs. ``link`` is one of `mdl.fs.copying.RULES`."""

    store: Store
    others: Sequence[Store] = ()
    caches: Sequence[Path] = ()
    also: Sequence[Path] = ()
    link: str = "auto"

    def candidates(self, remote: RemoteFile) -> Iterator[Candidate]:
        """Files that may have these bytes, the likeliest first, each once; of a link, the file that it leads to."""
        seen = set()
        for found, is_ours in self._found(remote):
            with contextlib.suppress(OSError):
                path = Path(os.path.realpath(found))
                status = os.stat(path)
                inode = (status.st_dev, status.st_ino)
                if not stat.S_ISREG(status.st_mode) or status.st_size != remote.size or inode in seen:
                    continue
                seen.add(inode)
                if remote.digest and not self.hashes.is_other(path, Stamp.of(status), remote.digest):
                    yield path, SharingRule(self.link, may_make_read_only=is_ours)

    def _found(self, remote: RemoteFile) -> Iterator[tuple[Path, bool]]:
        """Where to look, and whether it is mdl's own file or a blob: the hub's client never writes into a blob."""
        if remote.digest is None or not remote.size:
            return
        for _, path, receipt in self._published.get(remote.digest, ()):
            yield path, not receipt.adopted
        for repo in self._repos:
            yield repo / "blobs" / remote.digest.hex, True
        for path in self._by_size.get(remote.size, ()):
            yield path, False

    def cheapest_first(self, remote: RemoteFile) -> list[tuple[Candidate, Way | None]]:
        """The candidates, and how the bytes of each will be taken: None if it cannot be opened. Copies come last."""
        found: list[tuple[Candidate, Way | None]] = []
        for path, rule in self.candidates(remote):
            way = None
            with contextlib.suppress(OSError), open_for_reading(path) as fd:
                way = predict_way(fd, nearest_existing(self.store.own), rule)
            found.append(((path, rule), way))
        return sorted(found, key=lambda one: one[1] == "copy")

    def predict(self, item: Item) -> Item | None:
        """The item with how its bytes will be taken from this disk; None if they do not seem to be there. Reads none of
        them."""
        ways = [way for _, way in self.cheapest_first(item.remote) if way]
        return replace(item, way=ways[0]) if ways else None

    def predict_duplicate(self, item: Item) -> Item:
        """The item with how it will get the bytes that another file of the plan fetches."""
        folder = nearest_existing(self.store.own)
        way: Way = "copy"
        with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as nameless:
            way = predict_way(nameless.fileno(), folder, SharingRule(self.link), item.remote.size)
        return replace(item, way=way)

    @cached_property
    def hashes(self) -> HashCache:
        """What files that were not the right ones turned out to be."""
        return HashCache(self.store.own / "hashes")

    def take(self, item: Item, candidate: Candidate) -> Way | None:
        """Publish the candidate's bytes as the item, and return how they were taken; None if they are other bytes: then
        the receipts that promise them are distrusted. Raises `OSError`, `MdlError`, `Cancelled`."""
        (path, rule), remote = candidate, item.remote
        before = Stamp.of(os.stat(path))
        digest, way = self.store.reuse(item.wanted.model, remote, path, rule, item.seen)
        if digest == remote.digest:
            return way
        if Stamp.of(os.stat(path)) == before:
            self.hashes.note(path, before, digest)
        for store, published, receipt in self._published.get(remote.digest, ()) if remote.digest else ():
            if os.path.realpath(published) == str(path):
                with contextlib.suppress(OSError):
                    store.receipts.distrust(receipt.model, receipt.path)
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
    def _repos(self) -> list[Path]:
        found: list[Path] = []
        for cache in self.caches:
            with contextlib.suppress(OSError):
                found += [entry for entry in cache.iterdir() if "--" in entry.name]
        return found

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
    try:
        for item in items:
            way = _reuse_one(item, copies, tell)
            if way:
                reused.append(replace(item, way=way))
            else:
                left.append(item)
    finally:
        copies.hashes.save()
    return reused, left


def _reuse_one(item: Item, copies: LocalCopies, tell: Listener) -> Way | None:
    model, remote, name = item.wanted.model, item.remote, item.remote.path.text
    for candidate, _ in copies.cheapest_first(remote):
        tell(Verifying(model, name, done=0, total=remote.size))
        try:
            if way := copies.take(item, candidate):
                with contextlib.suppress(OSError, Busy, StateError):  # what cannot be removed is left for 'mdl clean'
                    if lost := copies.store.discard_partials(model, remote):
                        why = "all of it was found elsewhere on this disk"
                        tell(Rewound(model, name, bytes_discarded=lost, why=why))
                tell(Finished(model, name, remote.size or 0, "linked", remote.hash_algorithm, way))
                return way
            why = f"it does not have {remote.digest}"
        except (OSError, MdlError) as error:
            why = error.message if isinstance(error, MdlError) else error.strerror or str(error)
        tell(Noticed(model, name, f"{candidate[0]} cannot be used: {why}"))
    return None


def unique_by_digest(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """The first item of each digest, and those that need the same bytes again."""
    first: list[Item] = []
    again: list[Item] = []
    seen: set[Digest] = set()
    for item in items:
        digest = item.remote.digest
        (again if digest and digest in seen else first).append(item)
        if digest:
            seen.add(digest)
    return first, again


class HashCache:
    """The digests of files of other programs, in the file ``path`` of mdl's own."""

    def __init__(self, path: Path) -> None:
        self._path, self._is_new = path, False
        self._known: dict[tuple[str, str], tuple[Stamp, Digest]] = {}
        with contextlib.suppress(OSError, *_DAMAGED):
            facts = crc_json.loads((read_regular(path, _LARGEST_CACHE) or b"").rstrip(b"\n"))
            if isinstance(facts, dict) and facts["mdl-hashes"] == _CACHE_VERSION:
                self._known = dict(_cached(*row) for row in facts["files"])

    def is_other(self, file: Path, stamp: Stamp, digest: Digest) -> bool:
        """Whether ``file``, which still has this ``stamp``, was read and has another digest of the same algorithm."""
        known = self._known.get((str(file), digest.algorithm))
        return known is not None and known[0] == stamp and known[1] != digest

    def note(self, file: Path, stamp: Stamp, digest: Digest) -> None:
        """Remember the digest of a file that had this ``stamp`` when it was read."""
        self._known.pop((str(file), digest.algorithm), None)
        self._known[str(file), digest.algorithm] = stamp, digest
        self._is_new = True

    def save(self) -> None:
        """Write what is new, completely or not at all. An error is ignored: the files would be read again."""
        if self._is_new:
            latest = list(self._known.items())[-_MOST_CACHED:]
            rows = [[file, *astuple(stamp), str(digest)] for (file, _), (stamp, digest) in latest]
            with contextlib.suppress(OSError):
                make_private_dir(self._path.parent)
                facts = {"mdl-hashes": _CACHE_VERSION, "files": rows}
                staging.write_file(self._path, crc_json.dumps(facts), durable=False)
                self._is_new = False


def _cached(file: Any, size: Any, mtime_ns: Any, inode: Any, text: Any) -> tuple[tuple[str, str], tuple[Stamp, Digest]]:
    algorithm, _, value = text.partition(":")
    return (str(file), algorithm), (Stamp(int(size), int(mtime_ns), int(inode)), Digest.parse(algorithm, value))
