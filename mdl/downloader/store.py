"""The store of a models folder: says what is there, opens partials, publishes files, keeps their receipts.

``root`` holds the models as its `Layout` says, and mdl's own folder on the same file system.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mdl.cancel import CancelToken
from mdl.disk import copy, free_space, nearest_existing, publish, reading_error, refuses_order, sync
from mdl.disk.mutex import HeldFile, try_lock, unlock_and_close
from mdl.disk.names import NameFolding, name_folding
from mdl.disk.own_files import make_private_dir
from mdl.disk.process import ProcessId
from mdl.disk.publish import OpenFolders, StagedFile
from mdl.disk.safe_open import EntryAt, open_for_reading
from mdl.downloader.journal import Identity
from mdl.downloader.layouts import Layout, inspect_path
from mdl.downloader.partial import OrderedPartial, Partial
from mdl.downloader.partial_folders import claimed_bytes, discard_leftovers, key_of
from mdl.downloader.receipts import Receipts, file_key, new_receipt
from mdl.errors import MdlError, Occupied, StorageError, Unsafe, UsageError
from mdl.files import LocalFile, Receipt, RemoteFile, Stamp
from mdl.hashing import Fingerprint, fingerprint
from mdl.net.ranges import ByteRange
from mdl.paths import RelPath, clashing, folded, shown
from mdl.values import value_class

_UNREADABLE = (UsageError, StorageError, Unsafe, OSError)


@value_class
class Ready:
    """Verified bytes that are to get their final name.

    ``source`` is a partial, a whole file on the same file system, or a small file that was staged. ``verified`` is as
    in a receipt. A file that came there since it was ``seen``, and is not mdl's, is not replaced; without ``seen`` any
    file is. ``stamp`` is that of the source before it was hashed, if another program wrote it; an ``adopted`` file
    remains that program's as well.
    """

    model: str
    remote: RemoteFile
    source: Partial | Path | StagedFile
    fingerprint: Fingerprint
    verified: str
    seen: LocalFile | None = None
    stamp: Stamp | None = None
    adopted: bool = False

    def sync(self) -> Stamp:
        """Bring the bytes to the disk, unless `publish` does; returns the stamp for the receipt. Raises `OSError`."""
        source = self.source
        if isinstance(source, Path):
            with source.open("rb") as file:
                sync(file.fileno())
            return self.stamp or Stamp.of(source.lstat())
        if isinstance(source, StagedFile):
            source.sync()
        return Stamp.of(os.fstat(source.fd))

    def publish(self, entry: EntryAt) -> os.stat_result | None:
        """Do as `publish.give_name`."""
        return publish.give_name(self.source, entry) if isinstance(self.source, Path) else self.source.publish(entry)


_OWN = RelPath(".mdl")
"""mdl's own folder, which may be in the folder of a model."""


@contextlib.contextmanager
def _errors_to(errors: dict[int, Exception], number: int) -> Iterator[None]:
    """Keep an error inside the block as that of one file only."""
    try:
        yield
    except (OSError, MdlError) as error:
        errors[number] = error


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
        flags: Sequence[str] = (),
    ) -> None:
        """With ``into`` the files of one model are in ``root`` itself. ``catalog`` names the catalog for which files
        are fetched, if there is one. ``cancel`` ends what reads large files. ``flags`` are those of a command line
        that lead here."""
        self.root = root.absolute()
        self._flags = tuple(flags)
        self.catalog = catalog
        self.cancel = cancel or CancelToken()
        self.layout = layout(self.root) if layout else Layout(self.root, into=into)
        self.own = self.layout.own
        self.at_work: list[threading.Thread] = []
        """Threads of a transfer that was stopped. They may write for a moment yet."""
        self.leases: set[HeldFile] = set()
        """What `show_life` touches: the leases of the mutexes that are held while something works on this store."""
        self.receipts = Receipts(self.own / "receipts")
        self.partials = self.own / "partials"
        self.listings = self.own / "listings"
        self.locks = self.own / "locks"
        self.archives = self.own / "archives"
        self.writes_in_order = False
        """Whether a call was refused that only a file needs which is written at any place: see `write_in_order`."""
        self._switching = threading.Lock()
        self._stage: Path | None = None
        self._partials_seen: tuple[tuple[int, int], set[str]] = ((0, 0), set())
        self._foldings: dict[Path, NameFolding] = {}

    def command(self, *words: str) -> str:
        """Return a command of mdl that works on this store, as it can be typed: ``mdl get NAME --layout hf-cache``."""
        return shlex.join(["mdl", *words, *self._flags])

    def folder(self, model: str) -> Path:
        """Return the folder that is shown as the place of ``model``."""
        return self.layout.folder(model)

    def final_path(self, model: str, remote: RemoteFile) -> Path:
        """Return the file's final path. Raises `UsageError` if the layout has no place for it."""
        base, path = self.layout.place(model, remote)
        return path.under(base)

    def visible_path(self, model: str, remote: RemoteFile) -> Path:
        """Return the path by which programs find the file. Raises `UsageError` if the layout has no place for it."""
        return self.layout.pointer(remote) or self.final_path(model, remote)

    def clashes(self, model: str, remotes: Sequence[RemoteFile]) -> dict[int, Unsafe]:
        """Return those of a model's files, by their numbers, that cannot lie in their folder beside an earlier one,
        each with the error that names that one. Where names look alike, the very folder is asked whether it tells them
        apart."""
        paths = [_OWN, *(remote.path for remote in remotes)]
        same = clashing(paths)
        by_folding: dict[NameFolding, dict[int, RelPath]] = {}
        clashes: dict[int, Unsafe] = {}
        for place in clashing(paths, folded):
            number = place - 1
            if other := same.get(place):
                clashes[number] = _clash(other, "is a file too")
                continue
            folding = self._folding(self._named_in(model, remotes[number]))
            if folding not in by_folding:
                by_folding[folding] = clashing(paths, folding.key)
            if other := by_folding[folding].get(place):
                clashes[number] = _clash(other, "has the same name in this folder")
        return clashes

    def apart(self, model: str, remotes: Sequence[RemoteFile]) -> list[RemoteFile]:
        """Return those of a model's files that this disk can have beside one another."""
        clashes = self.clashes(model, remotes)
        return [remote for number, remote in enumerate(remotes) if number not in clashes]

    def _named_in(self, model: str, remote: RemoteFile) -> Path:
        """Return the folder in which programs find the file, or the nearest one above it that is there."""
        try:
            place = self.visible_path(model, remote)
        except UsageError:
            place = self.root / "-"
        return nearest_existing(place.parent)

    def _folding(self, folder: Path) -> NameFolding:
        if folder not in self._foldings:
            self._foldings[folder] = name_folding(folder)
        return self._foldings[folder]

    def is_named(self, model: str, remote: RemoteFile) -> bool:
        """Return whether anything is under the file's final name."""
        base, path = self.layout.place(model, remote)
        return os.path.lexists(f"{base}/{path.text}")

    def pointer_state(self, model: str, remote: RemoteFile) -> str:
        """Return whether programs find the file by its name: ``right``, ``missing``, or ``other`` if that name leads to
        something else. Reads no file."""
        pointer = self.layout.pointer(remote)
        if pointer is None:
            return "right"
        try:
            return "right" if pointer.samefile(self.final_path(model, remote)) else "other"
        except OSError:
            return "missing"

    def check(
        self,
        model: str,
        remote: RemoteFile,
        *,
        watch: Callable[[int], None] | None = None,
        deep: bool = False,
        found: LocalFile | None = None,
    ) -> LocalFile:
        """Return what is under the file's final name. The file is hashed only if its receipt does not settle what it
        is, or with ``deep``; ``watch`` is called with the bytes read so far. ``found`` is what `quick_check` just
        returned, if the caller has asked. Raises `StorageError`, `StateError`, `Cancelled`."""
        found = found or self.quick_check(model, remote)
        if found.kind != "file":
            return found
        path = self.final_path(model, remote)
        receipt = found.receipt
        if receipt is None and remote.digest:
            from mdl.downloader.foreign_partials import why_no_part, written_ranges

            found = replace(found, written=written_ranges(path, remote))
            if found.written is None:
                found = replace(found, why=why_no_part(path, remote.path.name))
        if deep or _is_open(found, remote):
            print_, stamp = hash_file(path, remote.hash_algorithm, self.stoppable(watch))
            if found.written is not None:
                copy.drop_what_was_read(path)
            found = replace(found, fingerprint=print_, stamp=stamp)
            is_in_doubt = deep and receipt is not None and receipt.suspect  # until its own digest was found again
            if print_.digest == remote.digest and not is_in_doubt:
                return found
        is_open = found.is_edited or (deep and receipt and receipt.digest.algorithm != remote.hash_algorithm)
        if receipt and is_open and found.size == receipt.stamp.size:
            print_, stamp = hash_file(path, receipt.digest.algorithm, self.stoppable(watch))
            found = replace(found, fingerprint=found.fingerprint or print_, stamp=stamp, own_digest=print_.digest)
        return found

    def quick_check(self, model: str, remote: RemoteFile, receipt: Receipt | None = None) -> LocalFile:
        """As `check`, without reading a byte of the file itself. ``receipt`` is that of the file, if the caller has
        it."""
        self.layout.expect(model, remote)
        local_file = self._inspect(model, remote)
        partial = self._claimed_bytes(model, remote)
        receipt = receipt or self.receipts.get(model, remote.path, remote)
        if receipt is None or not self.layout.is_of_same_file(receipt, remote):
            return replace(local_file, partial=partial) if partial else local_file
        stamp = receipt.stamp if receipt.stamp == local_file.stamp else local_file.stamp  # kept once
        return replace(local_file, stamp=stamp, receipt=receipt, partial=partial)

    def is_new(self, model: str, remote: RemoteFile) -> bool:
        """Return whether nothing of the file is here: neither under its name, nor a partial, whatever that is of. May
        be asked from any thread."""
        try:
            place = self.final_path(model, remote)
        except MdlError:
            return False
        return not os.path.lexists(place) and self._key_of_partial(model, remote) is None

    def _key_of_partial(self, model: str, remote: RemoteFile) -> str | None:
        """Return the key of a file that has a partial; None if it has none."""
        keys = self._keys_of_partials()
        key = file_key(model, remote.path) if keys else ""
        return key if key in keys else None

    def _keys_of_partials(self) -> set[str]:
        """Return the keys of the files that have a partial. The folder of partials is listed when it has changed: there
        may be thousands of files to look at."""
        try:
            status = os.lstat(self.partials)
            state = status.st_ino, status.st_mtime_ns
            seen = self._partials_seen
            if state != seen[0]:
                seen = self._partials_seen = state, set(map(key_of, self.partials.iterdir()))
        except OSError:
            return set()
        return seen[1]

    def _claimed_bytes(self, model: str, remote: RemoteFile) -> int:
        """Return how many bytes of a file its best partial has."""
        key = self._key_of_partial(model, remote)
        return claimed_bytes(self.partials, key, Identity.of(remote)) if key else 0

    def _inspect(self, model: str, remote: RemoteFile) -> LocalFile:
        return inspect_path(*self.layout.place(model, remote), self.own)

    def open_partial(self, model: str, remote: RemoteFile) -> Partial:
        """Go on with the best partial of the file, or begin one. Raises as `Partial.open` does."""
        return Partial.open(self.partials, file_key(model, remote.path), Identity.of(remote))

    def write_in_order(self, error: OSError) -> bool | None:
        """After this ``error`` of a partial's: whether this folder's files are written in order from now on, and were
        not before; None if the error means something else."""
        if not refuses_order(error):
            return None
        with self._switching:
            is_news = not self.writes_in_order
            self.writes_in_order = True
        return is_news

    def open_in_order(self, model: str, remote: RemoteFile) -> OrderedPartial:
        """Begin a partial that is written in order. Raises as `OrderedPartial.open` does."""
        return OrderedPartial.open(self.partials, file_key(model, remote.path), Identity.of(remote))

    def discard_partials(self, model: str, remote: RemoteFile) -> int:
        """Remove the partials of a file that is not downloaded in parts; returns how many bytes the largest one had.
        Raises as `discard_leftovers` does."""
        key = self._key_of_partial(model, remote)
        return discard_leftovers(self.partials, key) if key else 0

    def open_for_repair(self, model: str, remote: RemoteFile) -> Partial:
        """Return a partial with a copy of a damaged file of known size; a hasher has to find out which blocks are
        right. Raises as `Partial.open` does."""
        partial = self.open_partial(model, remote)
        assert remote.size is not None
        partial.rewind(Identity.of(remote))
        with self.final_path(model, remote).open("rb") as file:
            copied = copy.copy_range(file.fileno(), partial.fd, remote.size, self.stoppable())
        partial.set_length(remote.size)
        partial.claim_only_below(0)
        if copied:
            partial.mark_present(ByteRange(0, copied))
        return partial

    def stage(self, data: bytes) -> StagedFile:
        """Write the bytes of a small file under a staged name. Raises `Unsafe`, `OSError`."""
        if self._stage is None:
            self._stage = make_private_dir(self.own / "stage")
        try:
            return StagedFile.write(self._stage, data)
        except FileNotFoundError:
            return StagedFile.write(make_private_dir(self._stage), data)

    def publish(self, ready: Ready) -> None:
        """Give verified bytes their final name and write the receipt. Raises `Occupied`, `Busy`, `Unsafe`,
        `OSError`."""
        if error := self.publish_all([ready])[0]:
            raise error

    def publish_all(self, ready: Sequence[Ready]) -> list[Exception | None]:
        """As `publish` for several, which takes little longer than one; returns the error of each, if it has one.

        The bytes of small files reach the disk first, then all receipts, then the names: a process that is killed on
        the way leaves no file without a receipt, and a power cut no name without its bytes.
        """
        self.layout.prepare()
        errors: dict[int, Exception] = {}
        receipts: dict[int, Receipt] = {}
        entries: dict[int, EntryAt] = {}
        before: dict[int, Receipt | None] = {}
        with contextlib.ExitStack() as stack, OpenFolders() as folders:
            staged = [item.source for item in ready if isinstance(item.source, StagedFile)]
            for file in staged:
                stack.callback(file.close)
            publish.start_syncing(file.fd for file in staged)
            for number, item in enumerate(ready):
                with _errors_to(errors, number):
                    stamp = item.sync()
                    entries[number], replaced = self._entry(item, folders)
                    before[number] = self.receipts.get(item.model, item.remote.path)
                    receipts[number] = self._receipt(item, stamp, replaced, before[number])
            self.receipts.put(*receipts.values())
            copies: list[Receipt] = []
            for number, receipt in receipts.items():
                with _errors_to(errors, number):
                    try:
                        copied = self._give_name(ready[number], entries[number], folders)
                    except BaseException:
                        self.receipts.restore(receipt, before[number])
                        raise
                    copies += [replace(receipt, stamp=Stamp.of(copied))] if copied else []
            self.receipts.put(*copies)
            folders.sync()  # the names of files before those of links to them
            for number in receipts.keys() - errors.keys():
                with _errors_to(errors, number):
                    self.layout.expose(ready[number].remote, folders)
            folders.sync()
        return [errors.get(number) for number in range(len(ready))]

    def _receipt(
        self, item: Ready, stamp: Stamp, status_there: os.stat_result | None, before: Receipt | None
    ) -> Receipt:
        """Return the receipt of a file that will take the place of one with the status ``status_there``, if there is
        one; ``before`` is the last receipt."""
        catalog = self.catalog
        replaced: Stamp | None = None
        if before and before.catalog != catalog:
            catalog = None
        if before and status_there:
            now = Stamp.of(status_there)
            if before.stamp.fits(now) or before.replaced_one_of(now):
                replaced = now
        validator: str | None = None
        if not isinstance(item.source, Path | StagedFile):
            validator = next(iter(item.source.validators.values()), None)
        return new_receipt(
            item.model,
            item.remote,
            item.fingerprint,
            item.verified,
            stamp,
            validator=validator,
            adopted=item.adopted,
            catalog=catalog,
            replaced=replaced,
        )

    def _give_name(self, item: Ready, entry: EntryAt, folders: OpenFolders) -> os.stat_result | None:
        """Give a file its name; returns the status of a copy, if the final folder is on another file system."""
        try:
            return item.publish(entry if entry.is_new else self._entry(item, folders)[0])
        except FileExistsError:  # another process was faster; it may have brought the same bytes
            return item.publish(self._entry(item, folders)[0])

    def _entry(self, item: Ready, folders: OpenFolders) -> tuple[EntryAt, os.stat_result | None]:
        """Return the entry in which a file gets its final name, once it is clear that what is there may be replaced,
        and the status of that. Raises `Unsafe`, `Occupied`, `OSError`."""
        place = self.layout.place(item.model, item.remote)
        entry = folders.entry(*place)
        now = entry.file_stat()
        if item.seen is None or self.layout.names_digest(item.remote, place):
            return entry, now
        if now is None:
            return entry.as_new(), now
        if Stamp.of(now) != item.seen.stamp:
            self._check_meanwhile(item)
        elif item.seen.receipt is None and not _holds(item.source, entry, item.seen):
            raise _occupied("another file has this name, and is no part of this one", item)
        return entry, now

    def _check_meanwhile(self, item: Ready) -> None:
        """Raises `Occupied` if another file was put under the final name since it was looked at, unless that is mdl's
        own or has the same bytes."""
        local_file = self.check(item.model, item.remote, deep=True)
        if local_file.untouched:
            return
        if local_file.fingerprint is None or local_file.fingerprint.digest != item.fingerprint.digest:
            raise _occupied("another file was put there meanwhile", item)

    @contextlib.contextmanager
    def scratch_folder(self, model: str, remote: RemoteFile) -> Iterator[Path]:
        """Make a folder of mdl's own for a file that does not come through a partial; it is removed at the end. Raises
        `Unsafe`, `OSError`."""
        folder = self.own / "side" / f"{file_key(model, remote.path)}.{ProcessId.current()}"
        make_private_dir(folder)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            try_lock(lock)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            unlock_and_close(lock)

    def fingerprint(self, path: Path, remote: RemoteFile) -> Fingerprint:
        """Hash a file as the digest of ``remote`` needs it. Raises `StorageError`, `Cancelled`."""
        return hash_file(path, remote.hash_algorithm, self.stoppable())[0]

    def path_of(self, receipt: Receipt) -> Path | None:
        """Return the path of the file of a receipt, if the file is there and untouched."""
        with contextlib.suppress(*_UNREADABLE):
            local_file = self._inspect(receipt.model, receipt.remote)
            if local_file.kind == "file" and replace(local_file, receipt=receipt).untouched:
                return self.final_path(receipt.model, receipt.remote)
        return None

    def is_gone(self, receipt: Receipt) -> bool:
        """Return whether nothing is left under the name of the file of a receipt."""
        with contextlib.suppress(*_UNREADABLE):
            return self._inspect(receipt.model, receipt.remote).kind == "absent"
        return False

    def free_space(self) -> int | None:
        """Bytes that an ordinary user can still write on the file system of the models folder."""
        return free_space(self.root)

    def stoppable(self, watch: Callable[[int], None] | None = None) -> Callable[[int], None]:
        """Return a ``watch`` for what reads a large file, which raises `Cancelled` once everything is to stop."""

        def on_bytes(done: int) -> None:
            self.cancel.check()
            self.show_life()
            if watch:
                watch(done)

        return on_bytes

    def show_life(self) -> None:
        """Show processes of other machines that work on this store goes on. Whatever takes longer than a minute calls
        it again and again. (ADR 68)"""
        for lease in tuple(self.leases):
            lease.touch()


def _clash(other: RelPath, why: str) -> Unsafe:
    hint = "--exclude leaves one of the two out; a folder on another disk may take both"
    return Unsafe(f"refused: {shown(other.text)} {why}", hint=hint)


def _occupied(why: str, item: Ready) -> Occupied:
    hint = "use --force to replace it, or choose another folder"
    return Occupied(why, item=item.remote.path.text, hint=hint)


def _is_open(local_file: LocalFile, remote: RemoteFile) -> bool:
    """Return whether only hashing tells if a file that was found is ``remote``: it may be, and no receipt settles
    it."""
    if remote.digest is None or local_file.stamp is None or remote.size not in (None, local_file.stamp.size):
        return False
    if local_file.receipt is None or not local_file.untouched:
        return True
    return local_file.receipt.digest.algorithm != remote.digest.algorithm


def _holds(source: Partial | Path | StagedFile, entry: EntryAt, seen: LocalFile) -> bool:
    """Return whether all bytes that were written to the file at an entry, which was ``seen``, are in the file that is
    to take its place. Raises `OSError`."""
    with contextlib.ExitStack() as stack:
        fd = stack.enter_context(open_for_reading(source)) if isinstance(source, Path) else source.fd
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        other_fd = os.open(entry.name, flags, dir_fd=entry.folder)
        stack.callback(os.close, other_fd)
        ranges = [(0, os.fstat(other_fd).st_size)] if seen.written is None else seen.written
        return copy.holds(fd, other_fd, ranges)


def hash_file(path: Path, algorithm: str, watch: Callable[[int], None]) -> tuple[Fingerprint, Stamp]:
    """Return the fingerprint of a file, and its stamp before it was read. ``watch`` is called with the bytes read so
    far. Raises `StorageError`, and what ``watch`` raises."""
    try:
        with open_for_reading(path, os.O_NOFOLLOW) as fd:
            stamp = Stamp.of(os.fstat(fd))
            return fingerprint(fd, algorithm, watch=watch), stamp
    except OSError as error:
        raise reading_error(error, path, path) from error
