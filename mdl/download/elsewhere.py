"""Elsewhere: the same bytes somewhere else on this disk: another model, the hub's cache, folders the user names.

What is found is only a candidate: it is hashed before it is taken.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mdl.digests import Digest
from mdl.download.hashes import Hashes
from mdl.download.plan import Item
from mdl.download.store import Store
from mdl.errors import Busy, MdlError, StateError
from mdl.events import Finished, Listener, Noticed, Rewound, Verifying
from mdl.files import Receipt, RemoteFile, Stamp


@dataclass(frozen=True)
class Elsewhere:
    """Where to look. ``caches`` are laid out as the hub's cache; ``also`` are folders of other programs."""

    store: Store
    caches: Sequence[Path] = field(default=())
    also: Sequence[Path] = field(default=())

    def candidates(self, remote: RemoteFile) -> Iterator[Path]:
        """Files that may have these bytes, the surest first, each once; where one is a link, what it leads to."""
        seen = set()
        for found in self._found(remote):
            with contextlib.suppress(OSError):
                path = Path(os.path.realpath(found))
                status = os.stat(path)
                inode = (status.st_dev, status.st_ino)
                if not stat.S_ISREG(status.st_mode) or status.st_size != remote.size or inode in seen:
                    continue
                seen.add(inode)
                if remote.digest and not self.hashes.is_other(path, Stamp.of(status), remote.digest):
                    yield path

    def _found(self, remote: RemoteFile) -> Iterator[Path]:
        if remote.digest is None or not remote.size:
            return
        yield from (path for path, _ in self._published.get(remote.digest, ()))
        for repo in self._repos:
            yield repo / "blobs" / remote.digest.hex
        yield from self._by_size.get(remote.size, ())

    @cached_property
    def hashes(self) -> Hashes:
        """What files that were not the right ones turned out to be."""
        return Hashes(self.store.own / "hashes")

    def take(self, item: Item, path: Path) -> bool:
        """Give the item the bytes at ``path``; False where they are others. Raises `OSError`, `MdlError`."""
        before = Stamp.of(os.stat(path))
        found = self.store.take(item.wanted.model, item.remote, path, item.seen)
        if found == item.remote.digest:
            return True
        if Stamp.of(os.stat(path)) == before:
            self.hashes.note(path, before, found)
        self.distrust(item.remote, path)
        return False

    def distrust(self, remote: RemoteFile, path: Path) -> None:
        """What stands there is not what it was: no receipt vouches for it any more."""
        for place, receipt in self._published.get(remote.digest, ()) if remote.digest else ():
            if os.path.realpath(place) == str(path):
                with contextlib.suppress(OSError):
                    self.store.receipts.distrust(receipt.model, receipt.path)

    @cached_property
    def _published(self) -> dict[Digest, list[tuple[Path, Receipt]]]:
        """What mdl itself published in this models folder, by the receipts."""
        found: dict[Digest, list[tuple[Path, Receipt]]] = {}
        for receipt in self.store.receipts.all():
            path = self.store.place_of(receipt)
            if path is not None:
                found.setdefault(receipt.digest, []).append((path, receipt))
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


def link_all(items: Sequence[Item], elsewhere: Elsewhere, tell: Listener) -> tuple[list[Item], list[Item]]:
    """Take from this disk what is on it: what was linked, and what is left to fetch. Nothing is taken unverified."""
    linked: list[Item] = []
    left: list[Item] = []
    try:
        for item in items:
            (linked if _link(item, elsewhere, tell) else left).append(item)
    finally:
        elsewhere.hashes.save()
    return linked, left


def _link(item: Item, elsewhere: Elsewhere, tell: Listener) -> bool:
    model, remote = item.wanted.model, item.remote
    for path in elsewhere.candidates(remote):
        tell(Verifying(model, remote.path.text, done=0, total=remote.size))
        try:
            if elsewhere.take(item, path):
                assert remote.digest is not None
                _forget_partial(item, elsewhere.store, tell)
                tell(Finished(model, remote.path.text, remote.size or 0, "linked", remote.digest.algorithm))
                return True
            why = f"it does not have {remote.digest}"
        except (OSError, MdlError) as error:
            why = _why(error)
        tell(Noticed(model, remote.path.text, f"{path} cannot be used: {why}"))
    return False


def _forget_partial(item: Item, store: Store, tell: Listener) -> None:
    """What was fetched of it in vain. Where it cannot go it stays for ``mdl clean``."""
    with contextlib.suppress(OSError, Busy, StateError):
        if lost := store.forget_partials(item.wanted.model, item.remote):
            why = "all of it was found elsewhere on this disk"
            tell(Rewound(item.wanted.model, item.remote.path.text, bytes_discarded=lost, why=why))


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def once(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Each digest's first item, and those that want the same bytes again."""
    first: list[Item] = []
    again: list[Item] = []
    seen: set[Digest] = set()
    for item in items:
        digest = item.remote.digest
        (again if digest and digest in seen else first).append(item)
        if digest:
            seen.add(digest)
    return first, again
