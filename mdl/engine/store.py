"""Store: where files live. Looks at what is there, opens a partial, publishes, keeps the receipts.

``root`` holds the models, by its `Layout`, and mdl's own folder on the same file system.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from mdl.cancel import Cancel
from mdl.engine.clearing import cleared
from mdl.engine.journal import Identity
from mdl.engine.layout import Layout, Plain
from mdl.engine.partial import Partial, claimed_of, leftovers
from mdl.engine.receipts import Receipts, key_of, receipt_of
from mdl.engine.sight import hashed, opened, standing
from mdl.errors import StorageError, Unsafe, UsageError
from mdl.files import LocalFile, Receipt, RemoteFile, Stamp
from mdl.fs import copying, staging, volume
from mdl.fs.copying import SharingRule, Way
from mdl.fs.entries import EntryAt
from mdl.fs.private import make_private_dir
from mdl.hashing import Digest, Fingerprint
from mdl.http.ranges import ByteRange
from mdl.locks import try_lock
from mdl.process import ProcessId

_NOT_THERE = (UsageError, StorageError, Unsafe, OSError)


class Store:
    """One models folder, laid out as ``layout`` says. ``cancel`` ends what takes long."""

    def __init__(
        self,
        root: Path,
        *,
        into: bool = False,
        layout: Callable[[Path], Layout] | None = None,
        catalog: str | None = None,
        cancel: Cancel | None = None,
    ) -> None:
        """``catalog`` names the catalog for which files are brought, if there is one; ``cancel`` ends long reads."""
        self.root, self.catalog, self.cancel = root.absolute(), catalog, cancel or Cancel()
        self._layout = layout(self.root) if layout else Plain(self.root, into=into)
        self.own = self._layout.own
        self.receipts = Receipts(self.own / "receipts")
        self.partials = self.own / "partials"
        self.listings = self.own / "listings"
        self.locks = self.own / "locks"

    def folder(self, model: str) -> Path:
        """Where the files of ``model`` land."""
        return self._layout.folder(model)

    def final(self, model: str, remote: RemoteFile) -> Path:
        """The file's final name. Raises `UsageError` where the layout has no place for it."""
        base, path = self._layout.place(model, remote)
        return path.under(base)

    def expose(self, model: str, remote: RemoteFile) -> None:
        """Make a published file findable, where the layout has a second name for it. Raises `OSError`."""
        self.final(model, remote)
        self._layout.expose(remote)

    @property
    def is_by_digest(self) -> bool:
        """Files are named by their bytes, and shared by whoever names them; others remove them."""
        return self._layout.is_by_digest

    def pointed(self, model: str, remote: RemoteFile) -> str:
        """Whether programs find the file there by its name: ``right``, ``missing``, or ``other`` where something else
        is under that name. Reads nothing."""
        pointer = self._layout.pointer(remote)
        try:
            return "right" if pointer is None or pointer.samefile(self.final(model, remote)) else "other"
        except OSError:
            return "missing"

    def settle(self, remotes: Sequence[RemoteFile], *, is_news: bool) -> None:
        """All files of a model are there, as their source says (now, if ``is_news``). Raises `OSError`."""
        self._layout.settle(remotes, is_news=is_news)

    def look(
        self, model: str, remote: RemoteFile, *, watch: Callable[[int], None] | None = None, deep: bool = False
    ) -> LocalFile:
        """What stands under the file's final name. Bytes are read only where the receipt does not settle it,
        or with ``deep``; ``watch`` is told the bytes read. Raises `StorageError`, `StateError`, `Cancelled`."""
        found = self.glance(model, remote)
        if found.kind != "file" or found.stamp is None:
            return found
        final, receipt = self.final(model, remote), found.receipt
        algorithm = remote.digest.algorithm if remote.digest else "sha256"
        if deep or _may_be_right(found, remote):
            print_, stamp = hashed(final, algorithm, self._stoppable(watch))
            found = replace(found, fingerprint=print_, stamp=stamp)
            if print_.digest == remote.digest:
                return found
        if receipt and found.is_edited and found.stamp and found.stamp.size == receipt.stamp.size:
            print_, stamp = hashed(final, receipt.digest.algorithm, self._stoppable(watch))
            found = replace(found, fingerprint=found.fingerprint or print_, stamp=stamp, own_digest=print_.digest)
        return found

    def glance(self, model: str, remote: RemoteFile) -> LocalFile:
        """As `look`, without reading a byte of the file itself."""
        self._layout.expect(model, remote)
        found = self._standing(model, remote)
        receipt = self.receipts.get(model, remote.path)
        partial = claimed_of(self.partials, key_of(model, remote.path), Identity.of(remote))
        return replace(found, receipt=receipt, partial=partial)

    def _standing(self, model: str, remote: RemoteFile) -> LocalFile:
        return standing(*self._layout.place(model, remote), self.own)

    def open_partial(self, model: str, remote: RemoteFile) -> Partial:
        return Partial.open(self.partials, key_of(model, remote.path), Identity.of(remote))

    def forget_partials(self, model: str, remote: RemoteFile) -> int:
        """Remove what is left of a file that is not downloaded in parts; tells how many bytes that were."""
        key = key_of(model, remote.path)
        if not leftovers(self.partials, key):
            return 0
        partial = Partial.open(self.partials, key, Identity.of(remote))
        lost = partial.dropped + partial.total
        partial.close()
        partial.discard()
        return lost

    def open_damaged(self, model: str, remote: RemoteFile, receipt: Receipt) -> Partial:
        """A partial that holds a copy of the damaged file; what of it is right is for a follower to find."""
        partial = self.open_partial(model, remote)
        assert remote.size is not None
        partial.rewind(Identity.of(remote))
        with self.final(model, remote).open("rb") as file:
            copied = copying.copy_range(file.fileno(), partial.fd, remote.size, self._stoppable())
        partial.stretch(remote.size)
        partial.claim_below = 0
        if copied:
            partial.believe(ByteRange(0, copied))
        return partial

    def publish(
        self,
        model: str,
        remote: RemoteFile,
        partial: Partial,
        print_: Fingerprint,
        verified: str,
        seen: LocalFile | None = None,
    ) -> None:
        """Give a verified partial its final name and write the receipt. What came there since it was ``seen``, and is
        not mdl's, stays; without ``seen`` whatever file is there goes. Raises `Occupied`, `OSError`, `Busy`, `Unsafe`.
        """
        validator = remote.validator or next(iter(partial.validators.values()), None)
        receipt = receipt_of(model, remote, print_, verified, Stamp.of(partial.status()), validator=validator)
        with self._make_room(model, remote, print_, seen) as spot:
            self._vouched(receipt, lambda: partial.publish(spot))
        self._layout.expose(remote)

    def publish_small(
        self,
        model: str,
        remote: RemoteFile,
        data: bytes,
        print_: Fingerprint,
        verified: str,
        seen: LocalFile | None = None,
    ) -> None:
        """As `publish`, for a file small enough to be held in memory."""
        with self._make_room(model, remote, print_, seen) as spot:
            staged = staging.stage(make_private_dir(self.own / "stage"), spot.name, data, mode=0o666)
            try:
                receipt = receipt_of(model, remote, print_, verified, Stamp.of(staged.lstat()))
                self._vouched(receipt, lambda: staging.publish(staged, spot))
            except BaseException:
                staged.unlink(missing_ok=True)
                raise
        self._layout.expose(remote)

    @contextlib.contextmanager
    def side_folder(self, model: str, remote: RemoteFile) -> Iterator[Path]:
        """A folder of mdl's own for another client to write into; kept on failure only for as long as this runs."""
        folder = self.own / "side" / f"{key_of(model, remote.path)}.{ProcessId.current()!s}"
        make_private_dir(folder)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            try_lock(lock)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    def fingerprint(self, path: Path, remote: RemoteFile) -> Fingerprint:
        """Hash a file that somebody else wrote. Raises `StorageError`."""
        return hashed(path, remote.digest.algorithm if remote.digest else "sha256", self._stoppable())[0]

    def _stoppable(self, watch: Callable[[int], None] | None = None) -> Callable[[int], None]:
        """``watch``, for what reads a large file; it raises once all is to stop."""

        def look(done: int) -> None:
            self.cancel.check()
            if watch:
                watch(done)

        return look

    def publish_file(
        self,
        model: str,
        remote: RemoteFile,
        path: Path,
        print_: Fingerprint,
        verified: str,
        stamp: Stamp,
        seen: LocalFile | None = None,
    ) -> None:
        """As `publish`, for a whole file that somebody else wrote; it bore ``stamp`` before it was verified."""
        with path.open("rb") as file:
            os.fsync(file.fileno())
        with self._make_room(model, remote, print_, seen) as spot:
            self._vouched(receipt_of(model, remote, print_, verified, stamp), lambda: staging.publish(path, spot))
        self._layout.expose(remote)

    def _vouched(self, receipt: Receipt, give: Callable[[], os.stat_result | None]) -> None:
        """Write the receipt, then ``give`` the file its name: who is killed in between leaves a receipt of what is not
        there yet, and never a file that nobody vouches for. ``give`` tells of the copy that it made, if it made one.
        Where it fails the receipt of before is back. Raises what ``give`` does, `OSError`."""
        before = self.receipts.get(receipt.model, receipt.path, prefixes=True)
        is_shared = before is not None and before.catalog != self.catalog
        receipt = replace(receipt, catalog=None if is_shared else self.catalog)
        self.receipts.put(receipt)
        try:
            copied = give()
        except BaseException:
            self.receipts.take_back(receipt, before)
            raise
        if copied:
            self.receipts.put(replace(receipt, stamp=Stamp.of(copied)))

    def take(
        self, model: str, remote: RemoteFile, source: Path, rule: SharingRule, seen: LocalFile | None = None
    ) -> tuple[Digest, Way]:
        """Give the bytes of another file here the final name too, as the ``rule`` says; or only tell their digest, if
        that is another one. Returns the digest and how it was done. Raises `OSError`, `MdlError`."""
        with self.side_folder(model, remote) as folder, opened(source) as fd:
            before, here = Stamp.of(os.fstat(fd)), folder / "data"
            way = copying.clone_link_or_copy(fd, source, here, rule, self.free_bytes(), self._stoppable())
            stamp, print_ = Stamp.of(os.lstat(here)), self.fingerprint(here, remote)
            if print_.digest != remote.digest:
                return print_.digest, way
            if way == "link":
                copying.make_read_only(here)
                if Stamp.of(os.lstat(here)) != before:
                    raise StorageError("it was written to while it was read")
            self.publish_file(model, remote, here, print_, print_.digest.algorithm, stamp, seen)
            return print_.digest, way

    def head(self, model: str, remote: RemoteFile, count: int) -> bytes:
        """The first ``count`` bytes under the final name; none where it cannot be read."""
        with (
            contextlib.suppress(*_NOT_THERE),
            opened(self.final(model, remote), os.O_NOFOLLOW) as fd,
        ):
            return os.read(fd, count)
        return b""

    def place_of(self, receipt: Receipt) -> Path | None:
        """Where the file of a receipt stands, if nobody touched it since."""
        with contextlib.suppress(*_NOT_THERE):
            found = self._standing(receipt.model, receipt.remote)
            if found.kind == "file" and replace(found, receipt=receipt).untouched:
                return self.final(receipt.model, receipt.remote)
        return None

    def is_gone(self, receipt: Receipt) -> bool:
        """Nothing stands where the file of a receipt was."""
        with contextlib.suppress(*_NOT_THERE):
            return self._standing(receipt.model, receipt.remote).kind == "absent"
        return False

    def _make_room(
        self, model: str, remote: RemoteFile, print_: Fingerprint, seen: LocalFile | None
    ) -> AbstractContextManager[EntryAt]:
        """Where the file gets its final name. Raises `Unsafe`, `Occupied`, `OSError`."""

        def is_ours() -> bool:
            here = self.look(model, remote, deep=True)
            return here.untouched or (here.fingerprint is not None and here.fingerprint.digest == print_.digest)

        watched = None if self._layout.is_by_digest else seen
        return cleared(self._layout.place(model, remote), remote, watched, is_ours)

    def free_bytes(self) -> int:
        """Bytes an ordinary user can still write on the file system of the models folder."""
        return volume.free_space(self.root)

    def trouble(self, error: OSError, item: str) -> StorageError:
        """The system's error as mdl's own, with what to do about it here."""
        return volume.explain_oserror(error, item, self.root)


def _may_be_right(local: LocalFile, remote: RemoteFile) -> bool:
    """Only hashing tells whether these are the bytes: a known digest, the right size, and no receipt that says it."""
    if remote.digest is None or local.stamp is None or remote.size not in (None, local.stamp.size):
        return False
    receipt = local.receipt
    return not (local.untouched and receipt and receipt.digest.algorithm == remote.digest.algorithm)
