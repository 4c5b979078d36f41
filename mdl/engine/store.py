"""The store of a models folder: says what is there, opens partials, publishes files, keeps their receipts.

``root`` holds the models as its `Layout` says, and mdl's own folder on the same file system.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial as bound
from pathlib import Path

from mdl.cancel import CancelToken
from mdl.engine.adoption import claimed_bytes, leftovers
from mdl.engine.journal import Identity
from mdl.engine.layout import Layout, inspect_path
from mdl.engine.partial import Partial
from mdl.engine.receipts import Receipts, file_key, new_receipt
from mdl.errors import Occupied, StorageError, Unsafe, UsageError, storage_error
from mdl.files import LocalFile, Receipt, RemoteFile, Stamp
from mdl.fs import copying, free_space, staging
from mdl.fs.entries import EntryAt, open_for_reading, open_parent
from mdl.fs.private import make_private_dir
from mdl.hashing import Fingerprint, fingerprint
from mdl.http.ranges import ByteRange
from mdl.locks import try_lock
from mdl.process import ProcessId

_UNREADABLE = (UsageError, StorageError, Unsafe, OSError)
_Publish = Callable[[EntryAt], os.stat_result | None]


class Store:
    """One models folder, laid out as ``layout`` says."""

    def __init__(
        self,
        root: Path,
        *,
        into: bool = False,
        layout: Callable[[Path], Layout] | None = None,
        catalog: str | None = None,
        cancel: CancelToken | None = None,
    ) -> None:
        """With ``into`` the files of one model are in ``root`` itself. ``catalog`` names the catalog for which files
        are fetched, if there is one. ``cancel`` ends what reads large files."""
        self.root, self.catalog, self.cancel = root.absolute(), catalog, cancel or CancelToken()
        self.layout = layout(self.root) if layout else Layout(self.root, into=into)
        self.own = self.layout.own
        self.receipts = Receipts(self.own / "receipts")
        self.partials = self.own / "partials"
        self.listings = self.own / "listings"
        self.locks = self.own / "locks"
        self.archives = self.own / "archives"

    def folder(self, model: str) -> Path:
        """The folder that is shown as the place of ``model``."""
        return self.layout.folder(model)

    def final_path(self, model: str, remote: RemoteFile) -> Path:
        """The file's final path. Raises `UsageError` if the layout has no place for it."""
        base, path = self.layout.place(model, remote)
        return path.under(base)

    def pointer_state(self, model: str, remote: RemoteFile) -> str:
        """Whether programs find the file by its name: ``right``, ``missing``, or ``other`` if that name leads to
        something else. Reads no file."""
        pointer = self.layout.pointer(remote)
        try:
            return "right" if pointer is None or pointer.samefile(self.final_path(model, remote)) else "other"
        except OSError:
            return "missing"

    def check(
        self, model: str, remote: RemoteFile, *, watch: Callable[[int], None] | None = None, deep: bool = False
    ) -> LocalFile:
        """What is under the file's final name. The file is hashed only if its receipt does not settle what it is, or
        with ``deep``; ``watch`` is called with the bytes read so far. Raises `StorageError`, `StateError`,
        `Cancelled`."""
        found = self.quick_check(model, remote)
        if found.kind != "file" or found.stamp is None:
            return found
        final, receipt, digest = self.final_path(model, remote), found.receipt, remote.digest
        is_settled = found.untouched and receipt and digest and receipt.digest.algorithm == digest.algorithm
        if deep or (digest and remote.size in (None, found.stamp.size) and not is_settled):
            print_, stamp = hash_file(final, remote.hash_algorithm, self.stoppable(watch))
            found = replace(found, fingerprint=print_, stamp=stamp)
            if print_.digest == digest:
                return found
        if receipt and found.is_edited and found.stamp and found.stamp.size == receipt.stamp.size:
            print_, stamp = hash_file(final, receipt.digest.algorithm, self.stoppable(watch))
            found = replace(found, fingerprint=found.fingerprint or print_, stamp=stamp, own_digest=print_.digest)
        return found

    def quick_check(self, model: str, remote: RemoteFile) -> LocalFile:
        """As `check`, without reading a byte of the file itself."""
        self.layout.expect(model, remote)
        found = self._inspect(model, remote)
        receipt = self.receipts.get(model, remote.path)
        partial = claimed_bytes(self.partials, file_key(model, remote.path), Identity.of(remote))
        return replace(found, receipt=receipt, partial=partial)

    def _inspect(self, model: str, remote: RemoteFile) -> LocalFile:
        return inspect_path(*self.layout.place(model, remote), self.own)

    def open_partial(self, model: str, remote: RemoteFile) -> Partial:
        """Go on with the best partial of the file, or begin one. Raises as `Partial.open` does."""
        return Partial.open(self.partials, file_key(model, remote.path), Identity.of(remote))

    def discard_partials(self, model: str, remote: RemoteFile) -> int:
        """Remove the partials of a file that is not downloaded in parts; returns how many bytes they had. Raises as
        `Partial.open` does."""
        if not leftovers(self.partials, file_key(model, remote.path)):
            return 0
        partial = self.open_partial(model, remote)
        lost = partial.dropped + partial.total
        partial.close()
        partial.discard()
        return lost

    def open_for_repair(self, model: str, remote: RemoteFile) -> Partial:
        """A partial with a copy of a damaged file of known size; a hasher has to find out which blocks are right.
        Raises as `Partial.open` does."""
        partial = self.open_partial(model, remote)
        assert remote.size is not None
        partial.rewind(Identity.of(remote))
        with self.final_path(model, remote).open("rb") as file:
            copied = copying.copy_range(file.fileno(), partial.fd, remote.size, self.stoppable())
        partial.set_length(remote.size)
        partial.claim_below = 0
        if copied:
            partial.mark_present(ByteRange(0, copied))
        return partial

    def publish(
        self,
        model: str,
        remote: RemoteFile,
        source: Partial | Path | bytes,
        print_: Fingerprint,
        verified: str,
        seen: LocalFile | None = None,
        *,
        stamp: Stamp | None = None,
    ) -> None:
        """Give verified bytes their final name and write the receipt.

        ``source`` is a partial, a whole file on the same file system, or the bytes of a small file. ``stamp`` is that
        of the source before it was hashed, if another program wrote it. A file that came there since it was ``seen``,
        and is not mdl's, is not replaced; without ``seen`` any file is. Raises `Occupied`, `OSError`, `Busy`, `Unsafe`.
        """
        validator = next(iter(source.validators.values()), None) if isinstance(source, Partial) else None
        with (
            self._staged(source, remote.path.name) as (found, publish),
            self._reserve(model, remote, print_, seen) as entry,
        ):
            before = self.receipts.get(model, remote.path, prefixes=True)
            is_shared = before is not None and before.catalog != self.catalog
            receipt = new_receipt(model, remote, print_, verified, stamp or found, validator=validator)
            receipt = replace(receipt, catalog=None if is_shared else self.catalog)
            # The receipt comes first: a process that is killed in between never leaves a file without one.
            self.receipts.put(receipt)
            try:
                copied = publish(entry)
            except BaseException:
                self.receipts.restore(receipt, before)
                raise
            if copied:
                self.receipts.put(replace(receipt, stamp=Stamp.of(copied)))
        self.layout.expose(remote)

    @contextlib.contextmanager
    def _staged(self, source: Partial | Path | bytes, name: str) -> Iterator[tuple[Stamp, _Publish]]:
        """The stamp of the source, and how to publish it: that returns the status of a copy, if it made one."""
        if isinstance(source, Partial):
            yield Stamp.of(os.fstat(source.fd)), source.publish
        elif isinstance(source, Path):
            with source.open("rb") as file:
                os.fsync(file.fileno())
            yield Stamp.of(source.lstat()), bound(staging.publish, source)
        else:
            staged = staging.stage(make_private_dir(self.own / "stage"), name, source, mode=0o666)
            try:
                yield Stamp.of(staged.lstat()), bound(staging.publish, staged)
            except BaseException:
                staged.unlink(missing_ok=True)
                raise

    @contextlib.contextmanager
    def _reserve(
        self, model: str, remote: RemoteFile, print_: Fingerprint, seen: LocalFile | None
    ) -> Iterator[EntryAt]:
        """The entry in which the file gets its final name, once it is clear that what is there may be replaced. Raises
        `Unsafe`, `Occupied`, `OSError`."""
        hint = "use --force to replace it, or --to for another folder"
        occupied = Occupied("another file was put there meanwhile", item=remote.path.text, hint=hint)
        seen = None if self.layout.is_by_digest else seen
        with open_parent(*self.layout.place(model, remote)) as entry:
            entry.refuse_special()
            now = entry.stat() if seen else None
            is_as_seen = seen is None or now is None or Stamp.of(now) == seen.stamp
            if not is_as_seen:
                here = self.check(model, remote, deep=True)
                has_same_bytes = here.fingerprint is not None and here.fingerprint.digest == print_.digest
                if not here.untouched and not has_same_bytes:
                    raise occupied
            try:
                yield entry.as_new() if seen and now is None else entry
            except FileExistsError:
                raise occupied from None

    @contextlib.contextmanager
    def scratch_folder(self, model: str, remote: RemoteFile) -> Iterator[Path]:
        """A folder of mdl's own for a file that does not come through a partial; it is removed at the end. Raises
        `Unsafe`, `OSError`."""
        folder = self.own / "side" / f"{file_key(model, remote.path)}.{ProcessId.current()}"
        make_private_dir(folder)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            try_lock(lock)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    def fingerprint(self, path: Path, remote: RemoteFile) -> Fingerprint:
        """Hash a file as the digest of ``remote`` needs it. Raises `StorageError`, `Cancelled`."""
        return hash_file(path, remote.hash_algorithm, self.stoppable())[0]

    def read_head(self, model: str, remote: RemoteFile, count: int) -> bytes:
        """The first ``count`` bytes under the final name; none if they cannot be read."""
        with (
            contextlib.suppress(*_UNREADABLE),
            open_for_reading(self.final_path(model, remote), os.O_NOFOLLOW) as fd,
        ):
            return os.read(fd, count)
        return b""

    def path_of(self, receipt: Receipt) -> Path | None:
        """The path of the file of a receipt, if the file is there and untouched."""
        with contextlib.suppress(*_UNREADABLE):
            found = self._inspect(receipt.model, receipt.remote)
            if found.kind == "file" and replace(found, receipt=receipt).untouched:
                return self.final_path(receipt.model, receipt.remote)
        return None

    def is_gone(self, receipt: Receipt) -> bool:
        """Whether nothing is left under the name of the file of a receipt."""
        with contextlib.suppress(*_UNREADABLE):
            return self._inspect(receipt.model, receipt.remote).kind == "absent"
        return False

    def free_space(self) -> int:
        """Bytes that an ordinary user can still write on the file system of the models folder."""
        return free_space(self.root)

    def stoppable(self, watch: Callable[[int], None] | None = None) -> Callable[[int], None]:
        """``watch`` for what reads a large file; raises `Cancelled` once everything is to stop."""

        def on_bytes(done: int) -> None:
            self.cancel.check()
            if watch:
                watch(done)

        return on_bytes


def hash_file(path: Path, algorithm: str, watch: Callable[[int], None]) -> tuple[Fingerprint, Stamp]:
    """The fingerprint of a file, and its stamp before it was read. ``watch`` is called with the bytes read so far.
    Raises `StorageError`, and what ``watch`` raises."""
    try:
        with open_for_reading(path, os.O_NOFOLLOW) as fd:
            stamp = Stamp.of(os.fstat(fd))
            return fingerprint(fd, algorithm, watch=watch), stamp
    except OSError as error:
        raise storage_error(error, str(path)) from error
