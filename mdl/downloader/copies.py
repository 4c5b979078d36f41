"""Local copies: the same bytes elsewhere on this disk: in another model, the hub's cache, or folders that the user
names.

A file that is found is only a candidate: it is hashed before it is used. `mdl.disk.copy` says how its bytes are taken.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property
from itertools import chain
from pathlib import Path

from mdl.disk import copy, explain_oserror, nearest_existing
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
from mdl.hashing import Digest, Fingerprint
from mdl.values import value_class

Candidate = tuple[Path, SharingRule]
"""A file that may have the bytes, and the rule by which they may be shared with it."""
_READ_FAULTS = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ETIMEDOUT, errno.EREMOTEIO)
"""What reading an open file fails by. Any other error of a copy is that of the disk that it is written to."""
_GIT_LFS = Path(".git", "lfs", "objects")
"""Where a clone of a Git repository has its large files, below the folder that was cloned into."""


class UnusableCandidate(Exception):
    """A file on this disk does not have the wanted bytes, or they cannot be read."""


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
        """Return the files that may have these bytes, each once, the likeliest first and those that must be copied
        last; and how the bytes of each will be taken, None if it cannot be opened. Links are followed."""
        usable: list[tuple[Candidate, Way | None]] = []
        seen: set[tuple[int, int]] = set()
        own = self._own_place(model, remote)
        places = self._places(model, remote)
        if own is not None:
            places = chain([(own, True)], places)
        for place, is_ours in places:
            with contextlib.suppress(OSError):
                path = Path(os.path.realpath(place))
                status = os.stat(path)
                inode = (status.st_dev, status.st_ino)
                if inode in seen or not stat.S_ISREG(status.st_mode) or remote.size not in (None, status.st_size):
                    continue
                seen.add(inode)
                rule = SharingRule(self.link, may_make_read_only=is_ours)
                usable.append(((path, rule), self._predict_way(path, rule)))
        return sorted(usable, key=lambda entry: (entry[0][0] != own, entry[1] == "copy"))

    def _predict_way(self, path: Path, rule: SharingRule) -> Way | None:
        with contextlib.suppress(OSError), open_for_reading(path) as fd:
            return predict_way(fd, nearest_existing(self.store.own), rule)
        return None

    def _own_place(self, model: str, remote: RemoteFile) -> Path | None:
        """Return where the file will be, if another one with the same bytes is there too: to bring it again would
        replace that one, whose receipt is of the file that was there."""
        if not (self.store.layout.is_by_digest and remote.digest and remote.size):
            return None
        return Path(os.path.realpath(self.store.final_path(model, remote)))

    def _places(self, model: str, remote: RemoteFile) -> Iterator[tuple[Path, bool]]:
        """Yield where to look, and whether it is mdl's own file or a blob: the hub's client never writes into a
        blob."""
        if remote.digest is None or remote.size == 0:
            return
        for _, path, receipt in self._published.get(remote.digest, ()):
            yield path, not receipt.adopted
        for repo in self.repos:
            yield repo.real_blobs / remote.digest.hex, True
        objects = self._lfs_objects(model)
        if objects:
            digits = remote.digest.hex
            yield objects / digits[:2] / digits[2:4] / digits, False
        if remote.size is None:  # what is told apart by its size alone cannot be looked for
            return
        for path in self._in_snapshots(remote):
            yield path, False
        for path in self._by_size.get(remote.size, ()):
            yield path, False

    @cached_property
    def _lfs_objects(self) -> Callable[[str], Path | None]:
        """Returns the folder that has the large files of a model whose own folder is a Git clone; None if it is not
        one. It is looked for once for each model."""

        @cache
        def objects_of(model: str) -> Path | None:
            objects = self.store.folder(model) / _GIT_LFS
            return objects if objects.is_dir() else None

        return objects_of

    def predict(self, item: Item) -> Item | None:
        """Return the item with how its bytes will be taken from this disk; None if they do not seem to be there. Reads
        none of them."""
        for _, way in self.candidates(item.wanted.model, item.remote):
            if way:
                return replace(item, way=way)
        return None

    def predict_duplicate(self, item: Item) -> Item:
        """Return the item with how it will get the bytes that another file of the plan fetches."""
        folder = nearest_existing(self.store.own)
        way: Way = "copy"
        with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as nameless:
            way = predict_way(nameless.fileno(), folder, SharingRule(self.link), item.remote.size)
        return replace(item, way=way)

    def take(self, item: Item, candidate: Candidate) -> Way:
        """Publish the candidate's bytes as the item too, and return how they were taken. Raises `UnusableCandidate` if
        they have another digest, whereupon the receipts that promise them are distrusted, or cannot be read;
        `OSError` and `MdlError` if they cannot be written to the store; `Cancelled`."""
        path, rule = candidate
        model = item.wanted.model
        remote = item.remote
        store = self.store
        if path == self._own_place(model, remote) and self._takes_own_place(item, path):
            return "clone"
        with store.scratch_folder(model, remote) as folder:
            staged = folder / "data"
            way, before = self._bring(path, rule, staged)
            stamp = Stamp.of(os.lstat(staged))
            print_ = self._fingerprint(staged, remote)
            if print_.digest != remote.digest:
                self._distrust(path, remote)
                raise UnusableCandidate(f"it does not have {remote.digest}")
            if way == "link":
                copy.make_read_only(staged)
                if Stamp.of(os.lstat(staged)) != before:
                    raise UnusableCandidate("it was written to while it was read")
            store.publish(Ready(model, remote, staged, print_, print_.digest.algorithm, item.seen, stamp))
        return way

    def _takes_own_place(self, item: Item, path: Path) -> bool:
        """Return whether the file in the item's own place has its bytes: two files of one repository are one file here,
        which gets its second name and receipt."""
        store = self.store
        stamp = Stamp.of(path.stat())
        print_ = self._fingerprint(path, item.remote)
        if print_.digest != item.remote.digest:
            return False
        receipt = new_receipt(item.wanted.model, item.remote, print_, print_.digest.algorithm, stamp)
        store.receipts.put(replace(receipt, catalog=store.catalog))
        with OpenFolders() as folders:
            store.layout.expose(item.remote, folders)
            folders.sync()
        return True

    def _bring(self, path: Path, rule: SharingRule, staged: Path) -> tuple[Way, Stamp]:
        """Make a file ``staged`` of the bytes of another one; returns how, and the stamp of that one before."""
        store = self.store
        with contextlib.ExitStack() as stack:
            try:
                fd = stack.enter_context(open_for_reading(path))
            except OSError as error:
                raise UnusableCandidate(error.strerror or str(error)) from error
            before = Stamp.of(os.fstat(fd))
            try:
                way = copy.clone_link_or_copy(fd, path, staged, rule, store.free_space(), store.stoppable())
            except OSError as error:
                if error.errno not in _READ_FAULTS:
                    raise
                raise UnusableCandidate(error.strerror or str(error)) from error
        return way, before

    def _fingerprint(self, path: Path, remote: RemoteFile) -> Fingerprint:
        try:
            return self.store.fingerprint(path, remote)
        except StorageError as error:
            raise UnusableCandidate(error.message) from error

    def _distrust(self, path: Path, remote: RemoteFile) -> None:
        """Have the file hashed at the next check for which receipts promise the bytes of ``remote``."""
        assert remote.digest is not None
        for store, published, receipt in self._published.get(remote.digest, ()):
            if os.path.realpath(published) == str(path):
                with contextlib.suppress(OSError):
                    store.receipts.distrust(receipt.model, receipt.path)

    @cached_property
    def _published(self) -> dict[Digest, list[tuple[Store, Path, Receipt]]]:
        """The files that mdl itself published in these models folders, by their digests, as the receipts say."""
        by_digest: dict[Digest, list[tuple[Store, Path, Receipt]]] = {}
        for store in (self.store, *self.others):
            for receipt in store.receipts.all():
                path = store.path_of(receipt)
                if path is not None:
                    by_digest.setdefault(receipt.digest, []).append((store, path, receipt))
        return by_digest

    @cached_property
    def repos(self) -> list[CachedRepo]:
        """The repositories in these caches."""
        repositories: list[CachedRepo] = []
        for folder in self.caches:
            repositories += cached_repos(folder)
        return repositories

    def _in_snapshots(self, remote: RemoteFile) -> Iterator[Path]:
        """Yield the files of the same repository, of any commit, that lie in the snapshots themselves: of a cache that
        was copied without its links, or is on a disk that has none."""
        hub = remote.hub
        if hub is None:
            return
        for repo in self.repos:
            if (repo.origin.repo_type, repo.origin.repo) != (hub.repo_type, hub.repo):
                continue
            for file in repo.files:
                if file.blob is None and file.size == remote.size:
                    yield file.pointer

    @cached_property
    def _by_size(self) -> dict[int, list[Path]]:
        """Every file below the user's folders, by its size. Links are not followed."""
        by_size: dict[int, list[Path]] = {}
        for folder in self.also:
            for at, _, names in os.walk(folder):
                for name in names:
                    with contextlib.suppress(OSError):
                        status = os.lstat(os.path.join(at, name))
                        if stat.S_ISREG(status.st_mode):
                            by_size.setdefault(status.st_size, []).append(Path(at, name))
        return by_size


def reuse(items: Sequence[Item], copies: LocalCopies, tell: Listener) -> tuple[list[Item], list[Item]]:
    """Take files from elsewhere on this disk: returns those that were published, and those that are left to fetch. Only
    verified bytes are published. Raises `Cancelled`."""
    reused: list[Item] = []
    left: list[Item] = []
    reported: set[tuple[str, str]] = set()
    for item in items:
        way = _reuse_one(item, copies, tell, reported)
        if way:
            reused.append(replace(item, way=way))
        else:
            left.append(item)
    return reused, left


def _reuse_one(item: Item, copies: LocalCopies, tell: Listener, reported: set[tuple[str, str]]) -> Way | None:
    """Take one file from the first candidate that has its bytes; returns how. Each candidate that is of no use is told
    of, and so is what this disk does not take: neither is the other's fault. The latter is told once for a model and
    reason, which ``reported`` remembers."""
    model = item.wanted.model
    remote = item.remote
    name = item.remote.path.text
    for candidate, _ in copies.candidates(model, remote):
        source = candidate[0]
        tell(Verifying(model, name, done=0, total=remote.size))
        try:
            way = copies.take(item, candidate)
        except UnusableCandidate as unusable:
            tell(Noticed(model, name, f"{source} cannot be used: {unusable}"))
        except (OSError, MdlError) as error:
            why = explain_oserror(error, name, copies.store.root) if isinstance(error, OSError) else error
            if (model, why.message) not in reported:
                reported.add((model, why.message))
                tell(Noticed(model, name, f"its bytes are in {source}, but they cannot be stored: {why.message}"))
        else:
            _discard_partials(item, copies.store, tell)
            tell(Finished(model, name, remote.size or 0, "linked", remote.verified, way, str(source)))
            return way
    return None


def _discard_partials(item: Item, store: Store, tell: Listener) -> None:
    """Remove what had come of a file, as far as that is possible: the rest is left for 'mdl clean'."""
    with contextlib.suppress(OSError, Busy, StateError):
        lost = store.discard_partials(item.wanted.model, item.remote)
        if lost:
            why = "all of it was found elsewhere on this disk"
            tell(Rewound(item.wanted.model, item.remote.path.text, bytes_discarded=lost, why=why))


def unique_by_digest(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Return the first item of each digest, and those that need the same bytes again."""
    first: list[Item] = []
    again: list[Item] = []
    seen: set[Digest] = set()
    for item in items:
        digest = item.remote.digest
        if digest in seen:
            again.append(item)
            continue
        first.append(item)
        if digest:
            seen.add(digest)
    return first, again
