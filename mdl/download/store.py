"""Store: where files live. Looks at what is there, opens a partial, publishes, keeps the receipts.

``root`` holds the models, one folder each, and mdl's own ``.mdl/`` on the same file system; with ``--into``
the one model's files land in ``root`` itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from mdl import staging
from mdl.digests import Fingerprint, fingerprint
from mdl.download.journal import Identity
from mdl.download.partial import Partial, claimed_of, leftovers
from mdl.download.receipts import Receipts, key_of
from mdl.errors import Occupied, Unsafe, storage_error
from mdl.files import Kind, LocalFile, Receipt, RemoteFile, Stamp
from mdl.net.ranges import ByteRange
from mdl.owner import me
from mdl.paths import RelPath


class Store:
    """One models folder."""

    def __init__(self, root: Path, *, into: bool = False) -> None:
        self.root = root.absolute()
        self.into = into
        self.own = self.root / ".mdl"
        self.receipts = Receipts(self.own / "receipts")
        self.partials = self.own / "partials"
        self.listings = self.own / "listings"
        self.locks = self.own / "locks"

    def folder(self, model: str) -> Path:
        """Where the files of ``model`` land."""
        return self.root if self.into else RelPath.parse(model).under(self.root)

    def final(self, model: str, path: RelPath) -> Path:
        return path.under(self.folder(model))

    def look(
        self, model: str, remote: RemoteFile, *, watch: Callable[[int], None] | None = None, deep: bool = False
    ) -> LocalFile:
        """What stands under the file's final name. Bytes are read only where the receipt does not settle it,
        or with ``deep``; ``watch`` is told the bytes read. Raises `StorageError`, `StateError`."""
        found = self.glance(model, remote)
        if found.kind != "file" or found.stamp is None:
            return found
        algorithm = remote.digest.algorithm if remote.digest else "sha256"
        settled = found.untouched and found.receipt is not None and found.receipt.digest.algorithm == algorithm
        if not deep and (settled or not _worth_hashing(found.stamp, remote, found.receipt)):
            return found
        print_, stamp = _hash(self.final(model, remote.path), algorithm, watch)
        return LocalFile("file", stamp, found.receipt, print_, found.partial)

    def glance(self, model: str, remote: RemoteFile) -> LocalFile:
        """As `look`, without reading a byte of the file itself."""
        kind, stamp, why = self._lstat(model, remote.path)
        receipt = self.receipts.get(model, remote.path)
        partial = 0
        if self.partials.exists():
            partial = claimed_of(self.partials, key_of(model, remote.path), Identity.of(remote))
        return LocalFile(kind, stamp, receipt, None, partial, why)

    def _lstat(self, model: str, path: RelPath) -> tuple[Kind, Stamp | None, str]:
        """The kind of what stands there; nothing on the way from the models folder may be a link."""
        at = self.folder(model)
        for segment in ("", *path.text.split("/")):
            at = at / segment if segment else at
            last = at == self.final(model, path)
            try:
                status = at.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return "absent", None, ""
            except OSError as error:
                raise storage_error(error, str(at)) from error
            if stat.S_ISLNK(status.st_mode) and (last or segment):
                return "link", None, f"{at} is a symbolic link"
            if not last and segment and not stat.S_ISDIR(status.st_mode):
                return "folder", None, f"{at} is a file where a folder is needed"
        if stat.S_ISREG(status.st_mode):
            return "file", Stamp.of(status), ""
        if stat.S_ISDIR(status.st_mode):
            return "folder", None, f"{at} is a folder"
        return "special", None, f"{at} is a device, pipe or socket"

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
        with self.final(model, remote.path).open("rb") as file:
            copied = _copy(file.fileno(), partial.fd, remote.size)
        partial.stretch(remote.size)
        partial.claim_below = 0
        if copied:
            partial.believe(ByteRange(0, copied))
        return partial

    def publish(self, model: str, remote: RemoteFile, partial: Partial, print_: Fingerprint, verified: str) -> None:
        """Give a verified partial its final name and write the receipt. Raises `OSError`, `Busy`, `Unsafe`."""
        final = self._make_room(model, remote.path)
        validator = remote.validator or next(iter(partial.validators.values()), None)
        partial.publish(final)
        self.write_receipt(model, remote, print_, verified, validator=validator)

    def publish_small(self, model: str, remote: RemoteFile, data: bytes, print_: Fingerprint, verified: str) -> None:
        """As `publish`, for a file small enough to be held in memory."""
        umask = staging.umask()
        staging.write_file(self._make_room(model, remote.path), data, mode=0o666 & ~umask, stage=self.own / "stage")
        self.write_receipt(model, remote, print_, verified, validator=remote.validator)

    @contextlib.contextmanager
    def side_folder(self, model: str, remote: RemoteFile) -> Iterator[Path]:
        """A folder of mdl's own for another client to write into; kept on failure only for as long as this runs."""
        folder = self.own / "side" / f"{key_of(model, remote.path)}.{me()}"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def fingerprint(self, path: Path, remote: RemoteFile) -> Fingerprint:
        """Hash a file that somebody else wrote. Raises `StorageError`."""
        return _hash(path, remote.digest.algorithm if remote.digest else "sha256", None)[0]

    def publish_file(self, model: str, remote: RemoteFile, path: Path, print_: Fingerprint, verified: str) -> None:
        """As `publish`, for a whole file that somebody else wrote and that was verified."""
        final = self._make_room(model, remote.path)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        staging.publish(path, final)
        self.write_receipt(model, remote, print_, verified)

    def _make_room(self, model: str, path: RelPath) -> Path:
        final = self.final(model, path)
        kind, _, why = self._lstat(model, path)
        if kind in ("link", "special"):
            raise Unsafe(f"refused: {why}", item=str(path))
        if kind == "folder":
            raise Occupied(why, item=str(path))
        final.parent.mkdir(parents=True, exist_ok=True)
        return final

    def write_receipt(
        self, model: str, remote: RemoteFile, print_: Fingerprint, verified: str, *, validator: str | None = None
    ) -> Receipt:
        """Note what stands under the final name now. Raises `OSError`."""
        receipt = Receipt(
            model=model,
            path=remote.path,
            stamp=Stamp.of(self.final(model, remote.path).lstat()),
            digest=print_.digest,
            verified=verified,
            url=remote.url,
            validator=remote.validator or validator,
            commit=remote.commit,
            prefixes=print_.prefixes,
        )
        self.receipts.put(receipt)
        return receipt

    def free_bytes(self) -> int:
        """Bytes an ordinary user can still write on the file system of the models folder."""
        at = self.root
        while not os.path.exists(at) and at != at.parent:
            at = at.parent
        space = os.statvfs(at)
        return space.f_bavail * space.f_frsize


def _hash(path: Path, algorithm: str, watch: Callable[[int], None] | None) -> tuple[Fingerprint, Stamp]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return fingerprint(fd, algorithm, watch=watch), Stamp.of(os.fstat(fd))
        finally:
            os.close(fd)
    except OSError as error:
        raise storage_error(error, str(path)) from error


def _worth_hashing(stamp: Stamp, remote: RemoteFile, receipt: Receipt | None) -> bool:
    """Hash only what could turn out right: a known digest and the right size."""
    if remote.size is not None and stamp.size != remote.size:
        return False
    return remote.digest is not None or receipt is not None


def _copy(source: int, target: int, size: int) -> int:
    """Copy up to ``size`` bytes, inside the kernel where it can be done and sharing blocks where the file system
    knows how; tells how many there were."""
    done = 0
    while done < size:
        try:
            count = os.copy_file_range(source, target, min(size - done, 2**30), done, done)
        except OSError:
            count = os.pwrite(target, os.pread(source, 2**20, done), done)
        if count == 0:
            break
        done += count
    return done
