"""move: take models to another models folder, with their receipts and their unfinished downloads.

On one file system the files are renamed. To another one they are copied: every file of a model is in the new folder,
verified and on the disk, before the first one goes in the old folder. A move that is killed loses nothing, and the same
command finishes it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mdl.catalog.model import Model
from mdl.context import Context, model_locks
from mdl.disk import copy, nearest_existing, publish, sync
from mdl.disk.copy import SharingRule
from mdl.disk.publish import OpenFolders
from mdl.disk.safe_open import EntryAt, open_for_reading, open_parent
from mdl.downloader.copies import LocalCopies
from mdl.downloader.partial_folders import key_of, move_leftover, size_of_partial, wait_for_owners
from mdl.downloader.plan import Item, Plan, Wanted
from mdl.downloader.store import Store, hash_file
from mdl.errors import DigestMismatch, MdlError, NotFound, Occupied, UsageError, storage_error
from mdl.events import Noticed, Planned
from mdl.files import LocalFile, Receipt, Stamp
from mdl.hashing import Digest
from mdl.local.delete import prune
from mdl.local.delete_plan import KeptFile
from mdl.local.from_receipts import hub_origins, of_hubs
from mdl.local.hash_progress import ReadingProgress
from mdl.local.on_disk import Known, model_on_disk, partials_of
from mdl.paths import RelPath
from mdl.reports import TargetsReport, no_space
from mdl.sources.hub_listing import Listings
from mdl.sources.hub_origin import HubOrigin
from mdl.values import value_class

_SHARED = ("clone", "link")
"""The ways in which a file has the bytes of another one without taking room."""


@value_class
class MovedModel:
    """The result of one model, which people call ``label``: ``path`` is the folder in which it is now, ``source`` the
    one in which it was.

    ``files`` and ``bytes`` count what is in the new folder because of this move, ``bytes_copied`` those that went to
    another file system, ``unfinished`` the bytes of downloads that can be continued there. ``kept`` files stay in the
    old folder.
    """

    name: str
    label: str
    path: Path
    source: Path
    files: int = 0
    bytes: int = 0
    bytes_copied: int = 0
    unfinished: int = 0
    kept: tuple[KeptFile, ...] = ()
    error: MdlError | None = None


@value_class
class MoveReport(TargetsReport):
    """The result of a move, model by model, and the errors of targets that are not here at all."""

    models: tuple[MovedModel, ...] = ()
    errors: tuple[MdlError, ...] = ()


@value_class
class _File:
    """A file of a model in the old folder. ``way`` is how its bytes come to the new folder: they are ``kept`` if they
    are there already."""

    receipt: Receipt
    path: Path
    local: LocalFile
    way: Literal["kept", "rename", "copy"]

    @property
    def size(self) -> int:
        return self.local.stamp.size if self.local.stamp else 0


@value_class
class _Content:
    """The files, receipts and partials to be moved of one model. ``gone`` receipts are of files that are not in the old
    folder any more."""

    files: Sequence[_File] = ()
    gone: Sequence[Receipt] = ()
    partials: Sequence[Path] = ()
    partials_cross: bool = False
    kept: Sequence[KeptFile] = ()

    @property
    def to_copy(self) -> list[_File]:
        """The files that go to another file system."""
        return [file for file in self.files if file.way == "copy"]


@value_class
class MoveRequest:
    """Which models are moved to the models folder ``to``. ``absent`` are the errors of what was named and is not on
    this disk: they go into the report."""

    models: tuple[Model, ...]
    to: Path
    absent: tuple[MdlError, ...] = ()


def move(
    context: Context,
    request: MoveRequest,
    *,
    copies_in: Callable[[Store], LocalCopies | None],
    known: Known,
) -> MoveReport:
    """Move models from ``context.store`` to another folder; ``copies_in`` says where the new disk may have the same
    bytes.

    What fails for one model is in the report and hinders no other. Raises `NoSpace` before the first byte if the new
    disk has no room for all of them, and `Cancelled`.
    """
    target = Store(request.to, catalog=context.store.catalog, cancel=context.store.cancel)
    copies = copies_in(target)
    failed = list(request.absent)
    contents: list[tuple[Model, _Content]] = []
    for model in request.models:
        try:
            contents.append((model, _content_of(model, context, target, known)))
        except (MdlError, OSError) as error:
            failed.append(_named(error, model, context.store))
    no_room = no_space(0, _bytes_to_copy([content for _, content in contents], copies), target.free_space())
    if no_room:
        raise no_room
    to_copy: list[_File] = []
    for _, content in contents:
        to_copy += content.to_copy
    size = sum(file.size for file in to_copy)
    if to_copy:
        context.on_event(Planned(files=len(to_copy), bytes_total=size, bytes_to_fetch=size, bytes_kept=0, verb="copy"))
    progress = ReadingProgress(context.on_event, 0, size)
    brought: set[Digest] = set()
    moved_models = [_Move(model, context, target, copies, known, progress, brought).run() for model, _ in contents]
    return MoveReport(tuple(moved_models), tuple(failed))


def check_target(store: Store, target: Store, names: Iterable[str]) -> None:
    """Raises `UsageError` unless ``target`` is another folder than ``store``, and not inside one of these models."""
    place = Path(os.path.realpath(target.root))
    item = str(target.root)
    if place == Path(os.path.realpath(store.root)):
        raise UsageError("the models are in this folder already", item=item, hint="name another one with --to")
    for name in names:
        if place.is_relative_to(os.path.realpath(store.folder(name))):
            raise UsageError(f"it is inside the folder of {name}", item=item, hint="name another one with --to")


def _named(error: MdlError | OSError, model: Model, store: Store) -> MdlError:
    if isinstance(error, OSError):
        return storage_error(error, str(error.filename or store.folder(model.name)))
    return error.on(model.label)


def _bytes_to_copy(contents: Sequence[_Content], copies: LocalCopies | None) -> int:
    """Count the room that everything needs on the new disk. Bytes that are there already, or that two of the files
    have, may be shared."""
    needed = 0
    seen: set[Digest] = set()
    for content in contents:
        if content.partials_cross:
            needed += sum(map(size_of_partial, content.partials))
        for file in content.to_copy:
            if not _is_to_be_shared(file, copies, seen):
                needed += file.size
            seen.add(file.receipt.digest)
    return needed


def _is_to_be_shared(file: _File, copies: LocalCopies | None, seen: Collection[Digest]) -> bool:
    """Return whether a file will share the bytes of another file on the new disk, for all that is known."""
    if copies is None or not file.local.untouched:
        return False
    if file.receipt.digest in seen and copies.predict_duplicate(_item_of(file)).way != "copy":
        return True
    return any(way in _SHARED for _, way in copies.candidates(file.receipt.model, file.receipt.remote))


def _item_of(file: _File) -> Item:
    [item] = Plan.of([Wanted(file.receipt.model, file.receipt.remote, LocalFile())]).items
    return item


def _content_of(model: Model, context: Context, target: Store, known: Known) -> _Content:
    """Look at what there is of a model in the old folder. Raises `NotFound` if it is neither there nor in the new one,
    `Occupied` if the new folder has other bytes under one of its names, `StateError`, `StorageError`."""
    store = context.store
    name = model.name
    new_folder = nearest_existing(target.folder(name))
    on_disk = model_on_disk(store, name)
    files: list[_File] = []
    gone: list[Receipt] = []
    kept: list[KeptFile] = []
    for file in (*on_disk.files, *on_disk.nameless()):
        receipt = file.receipt
        if receipt is None:
            if file.kind == "stranger":
                kept.append(KeptFile(file.place, file.why_kept))
        elif file.kind == "gone":
            gone.append(receipt)
        elif file.kind == "blocked":
            kept.append(KeptFile(file.place, file.why_kept))
        elif _is_there(receipt, file.place, file.local, target):
            files.append(_File(receipt, file.place, file.local, "kept"))
        elif copy.is_same_mount(file.place, new_folder):
            files.append(_File(receipt, file.place, file.local, "rename"))
        else:
            files.append(_File(receipt, file.place, file.local, "copy"))
    paths = {remote.path.text for remote in known(store, model)}
    paths.update(on_disk.receipts, store.receipts.wanted(name))
    partials = partials_of(store, name, sorted(paths))
    partials.sort(key=size_of_partial, reverse=True)  # the first of one file is the one that is kept
    if not (files or gone or partials) and not target.receipts.may_have(name):
        raise NotFound("not on this disk", hint=f"'{store.command('list', '--local')}' shows what is")
    partials_cross = bool(partials) and not copy.is_same_mount(partials[0], nearest_existing(target.own))
    return _Content(files, gone, partials, partials_cross, kept)


def _is_there(receipt: Receipt, path: Path, local: LocalFile, target: Store) -> bool:
    """Return whether the new folder has the very bytes that the old one has. Raises `Occupied` if it has others."""
    there = target.quick_check(receipt.model, receipt.remote)
    if there.kind == "absent":
        return False
    final = target.final_path(receipt.model, receipt.remote)
    if there.kind == "file":
        has_this_receipt = there.receipt is not None and there.receipt.digest == receipt.digest
        if local.untouched and there.untouched and has_this_receipt:
            return True
        algorithm = receipt.digest.algorithm
        old, _ = hash_file(path, algorithm, target.stoppable())
        new, _ = hash_file(final, algorithm, target.stoppable())
        if old == new:
            return True
    hint = "remove it, or choose another folder with --to"
    raise Occupied("something else has this name already", item=str(final), hint=hint)


@value_class
class _Move:
    """The move of one model. ``brought`` are the digests of what this command has brought to the new disk so far."""

    model: Model
    context: Context
    target: Store
    copies: LocalCopies | None
    known: Known
    progress: ReadingProgress
    brought: set[Digest]

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def store(self) -> Store:
        """The old models folder."""
        return self.context.store

    def run(self) -> MovedModel:
        """Move the model, and say how it went. Raises `Cancelled`."""
        label = self.model.label
        moved = MovedModel(self.name, label, self.target.folder(self.name), self.store.folder(self.name))
        try:
            with self._locks():
                content = _content_of(self.model, self.context, self.target, self.known)
                moved = replace(moved, kept=tuple(content.kept), unfinished=sum(map(size_of_partial, content.partials)))
                self._bring(content)
                self._bring_partials(content.partials)
                self._bring_listings()
                self._remove_old(content)
        except (MdlError, OSError) as error:
            return replace(moved, unfinished=0, error=_named(error, self.model, self.store))
        copied = sum(file.size for file in content.to_copy)
        size = sum(file.size for file in content.files)
        return replace(moved, files=len(content.files), bytes=size, bytes_copied=copied)

    @contextlib.contextmanager
    def _locks(self) -> Iterator[None]:
        """Hold the model's lock in both folders, taken in one order, so that two moves cannot wait for each other.
        Raises `Busy`."""
        with contextlib.ExitStack() as stack:
            for store in sorted((self.store, self.target), key=lambda store: store.root):
                stack.enter_context(model_locks([self.model], replace(self.context, store=store)))
            yield

    def _bring(self, content: _Content) -> None:
        """Give every file its name in the new folder, with its receipt. What is copied stays in the old one for now.
        Raises `DigestMismatch`, `Occupied`, `OSError`, `Unsafe`, `Cancelled`."""
        target = self.target
        wanted = self.store.receipts.wanted(self.name)
        if wanted:
            target.receipts.begin(self.name, [RelPath(path) for path in wanted])
        renamed = [file.receipt for file in content.files if file.way == "rename"]
        target.receipts.put(*renamed)  # first: a file without a receipt would be nobody's
        with OpenFolders() as folders:
            for file in content.files:
                target.cancel.check()
                if file.way == "kept":
                    self._keep(file)
                    continue
                folders.sync_if_many()
                entry = folders.entry(target.folder(self.name), file.receipt.path)
                if entry.file_stat() is not None:
                    raise Occupied("another file was put there meanwhile", item=str(entry.path))
                if file.way == "rename":
                    publish.give_name(file.path, entry.as_new())
                elif not self._share(file):
                    self._copy(file, entry)
            folders.sync()

    def _keep(self, file: _File) -> None:
        """A file is in the new folder already: see that it has a receipt there."""
        there = self.target.quick_check(self.name, file.receipt.remote)
        if there.receipt is None or there.receipt.digest != file.receipt.digest:
            stamp = file.receipt.stamp
            if file.local.untouched and there.stamp is not None:
                stamp = there.stamp
            self.target.receipts.put(replace(file.receipt, stamp=stamp))

    def _share(self, file: _File) -> bool:
        """Let the file share the bytes that another model on the new disk has, as `get` would; tells whether it could.
        Only an untouched file is what its receipt says. Raises `OSError`, `MdlError`."""
        if self.copies is None or not file.local.untouched:
            return False
        copies = self.copies
        if file.receipt.digest in self.brought:
            copies = replace(copies)  # it looks again: the other file with these bytes has just come
        self.brought.add(file.receipt.digest)
        remote = file.receipt.remote
        for candidate, way in copies.candidates(self.name, remote):
            if way in _SHARED and copies.take(_item_of(file), candidate):
                final = self.target.final_path(self.name, remote)
                self.target.receipts.put(replace(file.receipt, stamp=Stamp.of(final.lstat())))
                return True
        return False

    def _copy(self, file: _File, entry: EntryAt) -> None:
        """Copy a file, compare the copy with the digest of the original, and publish it. Raises `DigestMismatch`,
        `OSError`, `Unsafe`, `Cancelled`."""
        target = self.target
        receipt = file.receipt
        algorithm = receipt.digest.algorithm
        watch = target.stoppable(self.progress.look)
        with (
            target.scratch_folder(self.name, receipt.remote) as scratch,
            open_for_reading(file.path, os.O_NOFOLLOW) as fd,
        ):
            here = scratch / "data"
            status = os.fstat(fd)
            copy.clone_link_or_copy(fd, file.path, here, SharingRule("reflink"), target.free_space(), watch)
            print_, _ = hash_file(here, algorithm, target.stoppable())
            expected = receipt.digest
            if not file.local.untouched:
                expected = hash_file(file.path, algorithm, target.stoppable())[0].digest
            if print_.digest != expected:
                item = f"{self.name}/{receipt.path}"
                hint = self.store.command("verify", "--repair", self.name)
                raise DigestMismatch("it is damaged: it stays where it is", item=item, hint=hint)
            os.utime(here, ns=(status.st_atime_ns, status.st_mtime_ns))
            with open_for_reading(here) as copied:
                sync(copied)
            if file.local.untouched:
                receipt = replace(receipt, stamp=Stamp.of(here.lstat()))
            target.receipts.put(receipt)  # that of an edited file goes on saying that it was edited
            publish.give_name(here, entry.as_new())
        self.progress.done += file.size

    def _bring_partials(self, partials: Sequence[Path]) -> None:
        """Raises `Busy` if another process is at work on one, `OSError`, `Cancelled`."""
        keys = [key_of(folder) for folder in partials]
        wait_for_owners(self.store.partials, keys, self.context.lock_wait, self._tell_waiting, self.store.cancel)
        for folder in partials:
            move_leftover(folder, self.target.partials)

    def _tell_waiting(self, holder: str) -> None:
        self.context.on_event(Noticed(self.name, message=f"waiting for {holder}"))

    def _bring_listings(self) -> None:
        """Keep in the new folder what the hub listed of the model's repositories, for use without a network."""
        old = Listings(self.store.listings)
        new = Listings(self.target.listings)
        endpoint = self.context.endpoint
        origins = {origin.whole for origin in hub_origins(self.model)}
        for hub, _ in of_hubs(self.store.receipts.of_model(self.name)):
            for revision in (hub.branch, hub.revision):
                origins.add(HubOrigin(hub.repo, hub.repo_type, revision or None))
        for origin in origins:
            with contextlib.suppress(OSError, MdlError):
                listing = old.get(endpoint, origin)
                if listing and new.get(endpoint, origin) is None:
                    new.put(endpoint, origin, listing)

    def _remove_old(self, content: _Content) -> None:
        """Take away what is in the new folder now. A file that was changed meanwhile stays. Raises `Occupied`,
        `OSError`, `Unsafe`."""
        store = self.store
        folder = store.folder(self.name)
        folders = {folder}
        changed: list[Path] = []
        moved = [*content.gone]
        for file in content.files:
            folders.add(file.path.parent)
            with contextlib.suppress(FileNotFoundError), open_parent(folder, file.receipt.path, make=False) as entry:
                status = entry.stat()
                if status is not None:
                    if Stamp.of(status) != file.local.stamp:
                        changed.append(file.path)
                        continue
                    os.unlink(entry.name, dir_fd=entry.folder)
            moved.append(file.receipt)
        store.receipts.drop(self.name, {receipt.path for receipt in moved})
        prune(folders, store.root)
        if changed:
            raise Occupied("it was changed while it was moved, and stays", item=str(changed[0]))
