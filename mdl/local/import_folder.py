"""import: take over what another program downloaded. Every file is hashed, matched with the catalog, and recorded.

The original stays as it is, its mode too, unless it is to be moved. A large file is published as soon as it is hashed,
so that an import that is stopped goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

from mdl.bounds import LARGEST_RECORD
from mdl.catalog.model import Model
from mdl.config.places import CATALOG_NAME, LOCK_NAME
from mdl.context import Context, adopt_kept, model_locks, verified_by
from mdl.disk import copy, nearest_existing
from mdl.disk.copy import SharingRule, predict_way
from mdl.disk.safe_open import open_for_reading, read_regular
from mdl.downloader.content_check import LOOKED_AT, check_message
from mdl.downloader.plan import Plan, Wanted
from mdl.downloader.receipts import new_receipt
from mdl.downloader.store import Ready, hash_file
from mdl.errors import (
    MdlError,
    NotFound,
    Occupied,
    ProtocolError,
    StorageError,
    Unsafe,
    UsageError,
    one_error,
    storage_error,
)
from mdl.events import Failed, Finished, Planned
from mdl.files import Receipt, RemoteFile, Stamp
from mdl.hashing import Fingerprint
from mdl.local.formats import Folder, FoundFile, FoundModel, is_hidden, recognize
from mdl.local.hash_progress import ReadingProgress, watch_reading
from mdl.local.import_match import HashedFile, KnownFiles, Match, Target
from mdl.paths import RelPath
from mdl.reports import BaseReport, no_space
from mdl.values import value_class

How = Literal["auto", "move", "link", "copy"]
_LARGE = 2**20
"""Two files of this size in bytes, or more, do not have the same bytes by chance."""
_OWN_NAMES = (CATALOG_NAME, LOCK_NAME)
"""How mdl calls a catalog and its lock, which are about models and of none, unless a repository has such a file."""
_OWN = "mdl's own: a catalog or its lock"
_HUB_BLOB = re.compile(r"(^|/)(models|datasets|spaces)--[^/]+/blobs/")


@value_class
class ImportedFile:
    """The result of one file. ``source`` is its path below the folder. ``action`` is ``imported``, ``kept``, ``failed``
    or ``planned``; ``way`` is how its bytes came: ``clone``, ``link``, ``copy`` or ``move``, and None if they are in
    their place already. ``verified`` is as in a `FileReport`: ``none`` if no digest is published of it. In a plan
    nothing is hashed: ``model`` and ``path`` are then those of a catalog's file of the same size, if there is one."""

    source: str
    model: str
    path: str
    size: int
    digest: str | None = None
    verified: str = "none"
    action: str = "planned"
    way: str | None = None
    of_catalog: bool = False
    error: MdlError | None = None


@value_class
class ImportReport(BaseReport):
    """The result of an import: the ``format`` that was recognized, each file, and what was ``left_out`` and why.
    ``labels`` are the names of models as people write them."""

    folder: Path
    format: str
    files: tuple[ImportedFile, ...]
    left_out: Mapping[str, str]
    bytes_to_copy: int = 0
    bytes_free: int | None = 0
    labels: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def all_errors(self) -> list[MdlError]:
        """The errors of files; without any, that there is no room for what is planned."""
        failed = [file.error for file in self.files if file.error]
        no_room = no_space(0, self.bytes_to_copy, self.bytes_free)
        if no_room is not None and not failed:
            return [no_room]
        return failed

    @property
    def error(self) -> MdlError | None:
        """The one error that sums up all failures; None if all is well."""
        errors = self.all_errors
        return one_error(f"{len(errors)} of {len(self.files)} failed", errors)


def import_folder(
    folder: Path,
    context: Context,
    find_known: Callable[[Sequence[str]], KnownFiles],
    *,
    how: How = "auto",
    dry_run: bool = False,
    catalogs: Collection[Path] = (),
) -> ImportReport:
    """Adopt the files of ``folder``: those that are known as files of a model, the others as models of their own.
    ``find_known`` returns the files that are known; it gets the commits of which the folder says that its files are.
    ``catalogs`` are those in use, which are no files of a model.

    ``auto`` clones where the file system can, else hard-links large files and copies small ones, else copies; only
    ``move`` takes the original away. What fails for one file hinders no other and is in the report. Raises `NotFound`,
    `UsageError`, `NoSpace` before the first byte, `StorageError`, `Busy`, `Cancelled`.
    """
    listed, left_out = _scan(folder, {os.path.realpath(path) for path in catalogs})
    form, models = recognize(listed)
    known = find_known(_commits_in(models))
    own = {path for path in listed.files if Path(path).name in _OWN_NAMES}
    models = known.arranged(models, own)
    wanted = Counter[str]()
    for model in models:
        wanted.update(file.at for file in model.files)
    for path in listed.files:
        if path not in wanted and not is_hidden(path):
            left_out[path] = _OWN if path in own else known.why_left_out(form)

    work = _Import(folder, context, known, how, wanted)
    planned: list[ImportedFile] = []
    for model in models:
        planned += [work.planned(model, file) for file in model.files]
    size = 0
    kept = 0
    to_copy = 0
    for file in planned:
        size += file.size
        if file.action == "kept":
            kept += file.size
        elif file.action == "planned" and file.way == "copy":
            to_copy += file.size
    report = ImportReport(folder, form, tuple(planned), left_out, to_copy, context.store.free_space())
    if dry_run:
        return report
    if error := no_space(0, to_copy, report.bytes_free):
        raise error
    context.on_event(
        Planned(files=len(planned), bytes_total=size, bytes_kept=kept, bytes_to_fetch=size - kept, verb="import")
    )
    work.progress = ReadingProgress(context.on_event, kept, size)
    imported_files: list[ImportedFile] = []
    for model in models:
        imported_files += work.bring(model)
    return replace(report, files=tuple(imported_files), bytes_to_copy=0)


def _commits_in(models: Sequence[FoundModel]) -> list[str]:
    """The commits that the folder says its files are of, the most frequent first."""
    commits = Counter[str]()
    for model in models:
        commits.update(file.commit for file in model.files if file.commit)
    return [commit for commit, _ in commits.most_common()]


# Reading the folder.


def _scan(folder: Path, catalogs: Collection[str]) -> tuple[Folder, dict[str, str]]:
    """Read what is below a folder, and what of it cannot be taken: what is no file, and ``catalogs``, which are in use.
    Links are not followed, and models folders of mdl's are passed over.

    Raises `NotFound`, `UsageError`, `StorageError`."""
    item = str(folder)
    if folder.is_file():
        hint = "put it into a folder of its own, and import that one: mdl import DIR --as NAME"
        raise UsageError("it is a file, and mdl imports folders", item=item, hint=hint)
    if not folder.is_dir():
        raise NotFound("no such folder", item=item, hint="name the folder that holds the models")
    if (folder / ".mdl").is_dir():
        hint = "'mdl mv NAME --to DIR' moves its models"
        raise UsageError("it is a models folder of mdl already", item=item, hint=hint)
    files: dict[str, int] = {}
    left_out: dict[str, str] = {}
    for place in _entries_below(folder):
        path = os.path.relpath(place, folder)
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            continue
        if place in catalogs:
            left_out[path] = _OWN
        elif stat.S_ISREG(status.st_mode):
            files[path] = status.st_size
            if _HUB_BLOB.search(f"{folder.name}/{path}"):
                hint = "mdl takes files from there by itself; --layout hf-cache works in it"
                raise UsageError("it is a cache of the hub's client", item=item, hint=hint)
        elif not is_hidden(path):
            is_link = stat.S_ISLNK(status.st_mode)
            left_out[path] = "a link is not followed; import what it leads to" if is_link else "it is not a file"

    def read(path: str) -> str:
        try:
            return (read_regular(folder / path, LARGEST_RECORD) or b"").decode()
        except (OSError, UnicodeDecodeError):
            return ""

    return Folder(folder.name, files, read), left_out


def _entries_below(folder: Path) -> Iterator[str]:
    """Every name below a folder that is no folder itself, in order. Raises `StorageError`."""

    def refuse(error: OSError) -> None:
        if isinstance(error, FileNotFoundError) and error.filename != str(folder):
            return  # it went meanwhile, as a temporary folder does
        raise storage_error(error, str(error.filename or folder)) from error

    for at, folders, names in os.walk(folder, onerror=refuse):
        entered: list[str] = []
        for name in sorted(folders):
            if Path(at, name, ".mdl").is_dir():
                continue
            if Path(at, name).is_symlink():
                names.append(name)
            else:
                entered.append(name)
        folders[:] = entered
        for name in sorted(names):
            yield os.path.join(at, name)


# Taking over its files.


class _Import:
    """The state of one import: what was hashed so far, and what of it is in the store."""

    def __init__(
        self,
        folder: Path,
        context: Context,
        known: KnownFiles,
        how: How,
        wanted: Mapping[str, int],
    ) -> None:
        """``wanted`` says how many models want each file: only the last of them may move it."""
        self._folder = folder
        self._context = context
        self._known = known
        self._how = how
        self._store = context.store
        self._wanted = dict(wanted)
        self.progress = ReadingProgress(context.on_event, 0, 0)

    # What an earlier import brought.

    @cached_property
    def _here(self) -> dict[str, Receipt]:
        """The receipts of what is in the store already, by the validator of the original that it was imported from."""
        here: dict[str, Receipt] = {}
        for receipt in self._store.receipts.all():
            if receipt.validator and self._store.path_of(receipt) is not None:
                here[receipt.validator] = receipt
        return here

    def _validator(self, model: FoundModel, file: FoundFile, stamp: Stamp) -> str:
        """Return a text that stays the same while the original is untouched, as an ETag does; two models may share
        one."""
        place = hashlib.sha256(os.fsencode(f"{self._folder / file.at}\0{model.name}")).hexdigest()[:16]
        return f"{place}-{stamp.inode:x}-{stamp.mtime_ns:x}-{stamp.size:x}"

    def _kept(self, model: FoundModel, file: FoundFile) -> ImportedFile | None:
        """The result of a file that an earlier import brought, and that has not changed since."""
        stamp = Stamp.of(os.lstat(self._folder / file.at))
        receipt = self._here.get(self._validator(model, file, stamp))
        if receipt is None:
            return None
        return ImportedFile(
            source=file.at,
            model=receipt.model,
            path=receipt.path.text,
            size=file.size,
            digest=str(receipt.digest),
            verified=receipt.verified if receipt.is_vouched_for else "none",
            action="kept",
            of_catalog=receipt.model in self._known.names,
        )

    def _cleared(self, imported: ImportedFile) -> ImportedFile:
        """The result of a file that an earlier import brought. If files are to be moved, its original is removed, which
        that import left."""
        source = self._folder / imported.source
        in_store = self._store.folder(imported.model) / imported.path
        is_last = self._is_last_to_want(imported.source)
        if is_last and os.path.realpath(source) != os.path.realpath(in_store):
            source.unlink()
            return replace(imported, way="move")
        return imported

    def _is_last_to_want(self, source: str) -> bool:
        """Take note that a model got a file; tell whether it is to be moved, and no other model wants it."""
        self._wanted[source] -= 1
        return self._how == "move" and self._wanted[source] <= 0

    # The plan.

    def planned(self, model: FoundModel, file: FoundFile) -> ImportedFile:
        """Plan what is done with a file, as far as that can be told without reading it."""
        try:
            kept = self._kept(model, file)
            if kept is not None:
                return kept
            guess = self._known.guess(file)
            with open_for_reading(self._folder / file.at, os.O_NOFOLLOW) as fd:
                way = self._way(fd)
        except (OSError, MdlError) as error:
            return _failed(model, file, _named(error, model, file))
        if guess is None:
            return ImportedFile(file.at, model.name, file.path, file.size, way=way)
        name, remote = guess
        return ImportedFile(file.at, name, remote.path.text, file.size, way=way, of_catalog=True)

    def _rule(self, fd: int) -> SharingRule:
        """Choose how the bytes of an open file are taken. A hard link leaves the original's mode alone."""
        if self._how in ("link", "move"):
            return SharingRule("hard")
        clones = SharingRule("reflink")
        if self._how == "copy" or os.fstat(fd).st_size < _LARGE:
            return clones
        can_clone = predict_way(fd, nearest_existing(self._store.own), clones) == "clone"
        return clones if can_clone else SharingRule("hard")

    def _way(self, fd: int) -> str:
        """Raises `StorageError` if the file is to be linked and cannot be."""
        way = predict_way(fd, nearest_existing(self._store.own), self._rule(fd))
        if self._how == "link" and way != "link":
            reason = "it cannot be linked: it is another user's, or on another file system"
            raise StorageError(reason, hint="--copy copies it, --move moves it")
        if self._how == "move" and way == "link":
            return "move"
        return way

    # The work.

    def bring(self, model: FoundModel) -> Iterator[ImportedFile]:
        """Import the files of a model, large ones first: if these belong to a model of the catalog, so do the small
        ones, which many models have alike. They also belong to the catalog's model of this name."""
        sure = {model.name}
        small: list[HashedFile] = []
        for file in sorted(model.files, key=lambda file: (-file.size, file.at)):
            try:
                kept = self._kept(model, file)
                if kept is not None:
                    yield self._cleared(kept)
                    continue
                hashed = self._hash(model, file)
                if file.size < _LARGE:
                    small.append(hashed)
                    continue
                matches = self._known.matches(hashed)
                sure.update(name for name, _ in matches)
                yield self._place(hashed, self._target(hashed, matches))
            except (OSError, MdlError) as error:
                yield self._told_failed(model, file, error)
        matches_of_small = [self._known.matches(hashed) for hashed in small]
        sure |= self._known.whole_models(list(chain.from_iterable(matches_of_small)))
        for hashed, matches in zip(small, matches_of_small, strict=True):
            try:
                matches = [match for match in matches if _is_sure(match, hashed, sure)]
                yield self._place(hashed, self._target(hashed, matches))
            except (OSError, MdlError) as error:
                yield self._told_failed(model, hashed.file, error)

    def _hash(self, model: FoundModel, file: FoundFile) -> HashedFile:
        """Read a file. Raises `StorageError` if it changes meanwhile, `Unsafe` for a name that cannot be kept here."""
        place = self._folder / file.at
        try:
            remote = RemoteFile(RelPath.of_repository(file.path), "", file.size)
        except Unsafe as error:
            raise error.but(hint="it was left out; rename it and import the folder again") from None
        tell = watch_reading(model.name, remote, self._context.on_event)

        def watch(done: int) -> None:
            tell(done)
            self.progress.look(done)

        prints: dict[str, Fingerprint] = {}
        stamps: set[Stamp] = set()
        for algorithm in sorted(self._known.algorithms(file)):
            prints[algorithm], stamp = hash_file(place, algorithm, self._store.stoppable(watch))
            stamps.add(stamp)
        stamps.add(Stamp.of(os.lstat(place)))
        if len(stamps) > 1:
            raise _changed()
        self.progress.done += file.size
        return HashedFile(model, file, place, prints, stamps.pop())

    def _target(self, hashed: HashedFile, matches: Sequence[Match]) -> Target:
        """Find where a file goes. Raises `DigestMismatch`, `Occupied`, `Unsafe`; `ProtocolError` if a server's message
        was kept under the name of a model's file, as some programs do, and no digest says that it belongs there."""
        target = self._known.identify(hashed, matches)
        if target.verified != "none" or hashed.has_noted_digest:
            return target
        with open_for_reading(hashed.path, os.O_NOFOLLOW) as fd:
            beginning = os.pread(fd, LOOKED_AT, 0)
        message = check_message(target.remote.path.text, beginning, hashed.file.size)
        if message is not None:
            hint = "download it again: its text says why the download failed"
            raise ProtocolError(f"it is no model file: {message.message}", hint=hint)
        return target

    def _place(self, hashed: HashedFile, target: Target) -> ImportedFile:
        """Publish a file in the store, or give it a receipt if it is in its place. Raises `Occupied`, `StorageError`,
        `OSError`."""
        store = self._store
        model = target.model
        remote = replace(target.remote, validator=self._validator(hashed.model, hashed.file, hashed.stamp))
        print_ = hashed.prints[remote.hash_algorithm]
        imported = ImportedFile(
            source=hashed.file.at,
            model=model,
            path=remote.path.text,
            size=hashed.file.size,
            digest=str(print_.digest),
            verified=target.verified,
            action="imported",
            of_catalog=target.of_catalog,
        )
        with model_locks([Model(model)], self._context):
            if os.path.realpath(hashed.path) == os.path.realpath(store.final_path(model, remote)):
                receipt = new_receipt(model, remote, print_, target.verified, hashed.stamp, adopted=True)
                store.receipts.put(replace(receipt, catalog=store.catalog))
                return self._told(imported)
            plan = Plan.of([Wanted(model, remote, store.check(model, remote))])
            [item] = plan.items
            if plan.keep:
                adopt_kept(plan, store)
                return self._told(replace(imported, action="kept", verified=verified_by(item)))
            if item.local.kind != "absent":
                hint = "--as NAME imports it under another name; 'mdl rm' deletes the model of this name"
                raise item.refused or Occupied("another file has this name", hint=hint)
            ready = Ready(model, remote, hashed.path, print_, target.verified, item.seen, hashed.stamp)
            return self._told(replace(imported, way=self._publish(ready, hashed)))

    def _publish(self, ready: Ready, hashed: HashedFile) -> str:
        """Publish the bytes of a file, and return how they came."""
        store = self._store
        source = hashed.path
        may_move = self._is_last_to_want(hashed.file.at)
        with (
            store.scratch_folder(ready.model, ready.remote) as scratch,
            open_for_reading(source, os.O_NOFOLLOW) as fd,
        ):
            way = self._way(fd)
            if way != "move" or not may_move:
                here = scratch / "data"
                way = copy.clone_link_or_copy(fd, source, here, self._rule(fd), store.free_space(), store.stoppable())
                ready = replace(ready, source=here, stamp=Stamp.of(os.lstat(here)), adopted=way == "link")
            if {Stamp.of(os.lstat(source)), Stamp.of(os.fstat(fd))} != {hashed.stamp}:
                raise _changed()
            store.publish(ready)
        if may_move and way != "move" and Stamp.of(os.lstat(source)) == hashed.stamp:
            source.unlink()
            return "move"
        return way

    def _told(self, imported: ImportedFile) -> ImportedFile:
        self._context.on_event(
            Finished(imported.model, imported.path, imported.size, imported.action, imported.verified)
        )
        return imported

    def _told_failed(self, model: FoundModel, file: FoundFile, error: OSError | MdlError) -> ImportedFile:
        failure = _named(error, model, file)
        self._context.on_event(Failed(model.name, file.path, failure.code, failure.message, failure.advice))
        return _failed(model, file, failure)


def _is_sure(match: Match, hashed: HashedFile, sure: Collection[str]) -> bool:
    """Return whether a small file belongs to the catalog's model that has one with its bytes: a large one of that model
    was found, or it has the name of the folder, or the folder says that the file is of that commit."""
    name, remote = match
    commit = hashed.file.commit
    return name in sure or (commit is not None and commit == remote.commit)


def _changed() -> StorageError:
    return StorageError("it changed while it was read", hint="run it again once nothing writes to it")


def _named(error: OSError | MdlError, model: FoundModel, file: FoundFile) -> MdlError:
    if isinstance(error, OSError):
        error = storage_error(error, file.at)
    return error.but(item=f"{model.name}/{file.path}")


def _failed(model: FoundModel, file: FoundFile, failure: MdlError) -> ImportedFile:
    return ImportedFile(file.at, model.name, file.path, file.size, action="failed", error=failure)
