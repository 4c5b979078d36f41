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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from mdl.bounds import LARGEST_RECORD
from mdl.catalog.model import Model
from mdl.context import Context, adopt_kept, model_locks, verified_by
from mdl.disk import copy, nearest_existing
from mdl.disk.copy import SharingRule, predict_way
from mdl.disk.safe_open import open_for_reading, read_regular
from mdl.downloader.check import LOOKED_AT, check_message
from mdl.downloader.plan import Item, Plan, Wanted
from mdl.downloader.receipts import new_receipt
from mdl.downloader.store import Ready, hash_file
from mdl.errors import (
    DigestMismatch,
    MdlError,
    NotFound,
    Occupied,
    ProtocolError,
    StorageError,
    UsageError,
    storage_error,
)
from mdl.events import Failed, Finished, Planned
from mdl.files import Receipt, RemoteFile, Stamp
from mdl.hashing import Fingerprint
from mdl.local.formats import Folder, FoundFile, FoundModel, is_hidden, recognize
from mdl.local.hash_progress import ReadingProgress, watch_reading
from mdl.local.import_report import ImportedFile, ImportReport
from mdl.local.known_files import CatalogFiles, RepositoryFiles
from mdl.paths import RelPath
from mdl.reports import no_space
from mdl.values import value_class

AskRepository = Callable[[Sequence[str]], RepositoryFiles]
"""Returns the files of the repository that was named. It gets the commits that the folder itself names."""
_KEEP_OR_FETCH = "it stays as it is: 'mdl get {}' fetches the right one, and --as NAME imports this one"
How = Literal["auto", "move", "link", "copy"]
_LARGE = 2**20
"""Two files of this size in bytes, or more, do not have the same bytes by chance."""
_HUB_BLOB = re.compile(r"(^|/)(models|datasets|spaces)--[^/]+/blobs/")


@value_class
class Target:
    """Where a file goes. ``verified`` says which digest its bytes were compared with; ``none`` if only the folder
    itself has one."""

    model: str
    remote: RemoteFile
    verified: str
    of_catalog: bool


def import_folder(
    folder: Path,
    context: Context,
    known: CatalogFiles,
    *,
    name: str | None = None,
    ask: AskRepository | None = None,
    how: How = "auto",
    dry_run: bool = False,
) -> ImportReport:
    """Adopt the files of ``folder``: those that the catalog knows as files of its models, the others as models of their
    own, or as the one model ``name``. With ``ask`` they are files of the one repository that it asks for.

    ``auto`` clones where the file system can, else hard-links large files and copies small ones, else copies; only
    ``move`` takes the original away. What fails for one file hinders no other and is in the report. Raises `NotFound`,
    `UsageError`, `NoSpace` before the first byte, `StorageError`, `Busy`, `Cancelled`.
    """
    listed, left_out = _scan(folder)
    form, models = recognize(listed)
    if len(models) > 1 and (name is not None or ask is not None):
        raise UsageError(f"{len(models)} models were found, and one is named", item=name or str(folder))
    if name is not None:
        models = [replace(model, name=name) for model in models]
    repository = None
    why_left_out = f"it belongs to no model ({form})"
    if ask is not None and models:
        repository = ask(_commits_in(models[0]))
        why_left_out = f"{repository.origin} has no such file"
        of_repository = [file for file in models[0].files if file.path in repository.by_path]
        models = [FoundModel(repository.name, tuple(of_repository))]
    wanted = Counter[str]()
    for model in models:
        wanted.update(file.at for file in model.files)
    for path in listed.files:
        if path not in wanted and not is_hidden(path):
            left_out[path] = why_left_out
    work = _Import(folder, context, known, repository, how, wanted)
    planned: list[ImportedFile] = []
    for model in models:
        planned += [work.planned(model, file) for file in model.files]
    to_copy = sum(row.size for row in planned if row.way == "copy" and row.action == "planned")
    report = ImportReport(folder, form, tuple(planned), left_out, to_copy, context.store.free_space())
    if dry_run:
        return report
    if error := no_space(0, to_copy, report.bytes_free):
        raise error
    size = sum(row.size for row in planned)
    kept = sum(row.size for row in planned if row.action == "kept")
    context.on_event(
        Planned(files=len(planned), bytes_total=size, bytes_kept=kept, bytes_to_fetch=size - kept, verb="import")
    )
    work.progress = ReadingProgress(context.on_event, kept, size)
    rows = [row for model in models for row in work.bring(model)]
    return replace(report, files=tuple(rows), bytes_to_copy=0)


def _commits_in(model: FoundModel) -> list[str]:
    """The commits that the folder says its files are of, the most frequent first."""
    return [commit for commit, _ in Counter(file.commit for file in model.files if file.commit).most_common()]


def _scan(folder: Path) -> tuple[Folder, dict[str, str]]:
    """What is below a folder, and what of it cannot be taken, for it is not a file. Links are not followed, and models
    folders of mdl's are passed over. Raises `NotFound`, `UsageError`, `StorageError`."""
    if not folder.is_dir():
        raise NotFound("no such folder", item=str(folder), hint="name the folder that holds the models")
    if (folder / ".mdl").is_dir():
        raise UsageError(
            "it is a models folder of mdl already", item=str(folder), hint="'mdl mv NAME --to DIR' moves its models"
        )
    files: dict[str, int] = {}
    left_out: dict[str, str] = {}

    def refuse(error: OSError) -> None:
        if isinstance(error, FileNotFoundError) and error.filename != str(folder):
            return  # it went meanwhile, as a temporary folder does
        raise storage_error(error, str(error.filename or folder)) from error

    for at, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(one for one in folders if not Path(at, one, ".mdl").is_dir())
        for entry in sorted([*names, *(one for one in folders if Path(at, one).is_symlink())]):
            path = os.path.relpath(os.path.join(at, entry), folder)
            try:
                status = os.lstat(os.path.join(at, entry))
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                files[path] = status.st_size
            elif not is_hidden(path):
                is_link = stat.S_ISLNK(status.st_mode)
                left_out[path] = "a link is not followed; import what it leads to" if is_link else "it is not a file"

    def read(path: str) -> str:
        try:
            return (read_regular(folder / path, LARGEST_RECORD, is_own=False) or b"").decode()
        except (OSError, UnicodeDecodeError):
            return ""

    if any(_HUB_BLOB.search(f"{folder.name}/{path}") for path in files):
        hint = "mdl takes files from there by itself; --layout hf-cache works in it"
        raise UsageError("it is a cache of the hub's client", item=str(folder), hint=hint)
    return Folder(folder.name, files, read), left_out


class _Import:
    """One import: what was hashed so far, and what of it is in the store."""

    def __init__(
        self,
        folder: Path,
        context: Context,
        known: CatalogFiles,
        repository: RepositoryFiles | None,
        how: How,
        wanted: Mapping[str, int],
    ) -> None:
        """``wanted`` says how many models want each file: only the last of them may move it."""
        self._folder = folder
        self._tools = context
        self._known = known
        self._repository = repository
        self._how = how
        self._store = context.store
        self._wanted = dict(wanted)
        self.progress = ReadingProgress(context.on_event, 0, 0)

    @cached_property
    def _here(self) -> dict[str | None, Receipt]:
        """What is in the store already, by the validator of the original that it was imported from."""
        receipts = self._store.receipts.all()
        return {one.validator: one for one in receipts if one.validator and self._store.path_of(one) is not None}

    def _validator(self, model: FoundModel, file: FoundFile, stamp: Stamp) -> str:
        """What stays the same while the original is untouched, as an ETag does; two models may share one."""
        place = hashlib.sha256(os.fsencode(f"{self._folder / file.at}\0{model.name}")).hexdigest()[:16]
        return f"{place}-{stamp.inode:x}-{stamp.mtime_ns:x}-{stamp.size:x}"

    def _kept(self, model: FoundModel, file: FoundFile) -> ImportedFile | None:
        """The row of a file that an earlier import brought, and that has not changed since."""
        found = self._here.get(self._validator(model, file, Stamp.of(os.lstat(self._folder / file.at))))
        if found is None:
            return None
        verified = found.verified if found.is_vouched_for else "none"
        facts = (str(found.digest), verified, "kept", None, found.model in self._known.names)
        return ImportedFile(file.at, found.model, found.path.text, file.size, *facts)

    def _cleared(self, row: ImportedFile) -> ImportedFile:
        """The row of a file that an earlier import brought. If files are to be moved, its original is removed, which
        that import left."""
        self._wanted[row.source] -= 1
        source = self._folder / row.source
        here = self._store.folder(row.model) / row.path
        if self._how != "move" or self._wanted[row.source] or os.path.realpath(source) == os.path.realpath(here):
            return row
        source.unlink()
        return replace(row, way="move")

    def planned(self, model: FoundModel, file: FoundFile) -> ImportedFile:
        """What would be done with a file, as far as that can be told without reading it."""
        try:
            if row := self._kept(model, file):
                return row
            near = self._known.by_size.get(file.size, []) if file.size else []
            if self._repository is not None:
                near = []
                self._check_size(file, self._repository)
            name, path = next(((name, one.path.text) for name, one in near), (model.name, file.path))
            with open_for_reading(self._folder / file.at, os.O_NOFOLLOW) as fd:
                way = self._way(fd)
            return ImportedFile(file.at, name, path, file.size, way=way, of_catalog=bool(near))
        except (OSError, MdlError) as error:
            return _failed(model, file, error)

    def _rule(self, fd: int) -> SharingRule:
        """How the bytes of an open file are taken. A hard link leaves the original's mode alone."""
        if self._how in ("link", "move"):
            return SharingRule("hard")
        clones = SharingRule("reflink")
        is_small = os.fstat(fd).st_size < _LARGE
        if self._how == "copy" or is_small or predict_way(fd, nearest_existing(self._store.own), clones) == "clone":
            return clones
        return SharingRule("hard")

    def _way(self, fd: int) -> str:
        """Raises `StorageError` if the file is to be linked and cannot be."""
        way = predict_way(fd, nearest_existing(self._store.own), self._rule(fd))
        if self._how == "link" and way != "link":
            why = "it cannot be linked: it is another user's, or on another file system"
            raise StorageError(why, hint="--copy copies it, --move moves it")
        return "move" if self._how == "move" and way == "link" else way

    def bring(self, model: FoundModel) -> Iterator[ImportedFile]:
        """Import the files of a model, large ones first: if these belong to a model of the catalog, so do the small
        ones, which many models have alike."""
        sure: set[str] = set()
        small: list[tuple[FoundFile, dict[str, Fingerprint], Stamp]] = []
        for file in sorted(model.files, key=lambda one: (-one.size, one.at)):
            try:
                if row := self._kept(model, file):
                    yield self._cleared(row)
                    continue
                prints, stamp = self._hash(model, file)
                if file.size < _LARGE:
                    small.append((file, prints, stamp))
                    continue
                found = self._matches(file, prints)
                sure.update(name for name, _ in found)
                yield self._place(model, file, self._checked_target(model, file, prints, found), prints, stamp)
            except (OSError, MdlError) as error:
                yield self._told_failed(model, file, error)
        matched = [(name, one.path) for file, prints, _ in small for name, one in self._matches(file, prints)]
        sure |= {name for name, _ in matched if self._is_whole(name, matched)}
        for file, prints, stamp in small:
            found = self._matches(file, prints)
            found = [(name, one) for name, one in found if name in sure or one.commit == file.commit is not None]
            try:
                yield self._place(model, file, self._checked_target(model, file, prints, found), prints, stamp)
            except (OSError, MdlError) as error:
                yield self._told_failed(model, file, error)

    def _is_whole(self, name: str, matched: Sequence[tuple[str, RelPath]]) -> bool:
        """Whether every file of the catalog's model is among those that matched."""
        return len({path for one, path in matched if one == name}) == self._known.counts.get(name)

    def _told_failed(self, model: FoundModel, file: FoundFile, error: OSError | MdlError) -> ImportedFile:
        row = _failed(model, file, error)
        if known := row.error:
            self._tools.on_event(Failed(model.name, file.path, known.code, known.message, known.advice))
        return row

    def _hash(self, model: FoundModel, file: FoundFile) -> tuple[dict[str, Fingerprint], Stamp]:
        """The fingerprints of a file by their algorithms, and its stamp. Raises `StorageError` if it changes
        meanwhile."""
        path = RelPath.parse(file.path)
        digests = [file.digest, *(one.digest for _, one in self._known.by_size.get(file.size, ()))]
        algorithms = {"sha256", *(digest.algorithm for digest in digests if digest)}
        if self._repository is not None:
            algorithms = {self._repository.by_path[file.path].hash_algorithm}
        tell = watch_reading(model.name, RemoteFile(path, "", file.size), self._tools.on_event)

        def watch(done: int) -> None:
            tell(done)
            self.progress.look(done)

        prints = {}
        stamps = []
        for algorithm in sorted(algorithms):
            print_, stamp = hash_file(self._folder / file.at, algorithm, self._store.stoppable(watch))
            prints[algorithm] = print_
            stamps.append(stamp)
        stamps.append(Stamp.of(os.lstat(self._folder / file.at)))
        if len(set(stamps)) > 1:
            raise StorageError("it changed while it was read", hint="run it again once nothing writes to it")
        self.progress.done += file.size
        return prints, stamps[0]

    def _matches(self, file: FoundFile, prints: Mapping[str, Fingerprint]) -> list[tuple[str, RemoteFile]]:
        """The catalog's files that have these bytes, those of the same name first; none if a repository is named."""
        if self._repository is not None:
            return []
        found = [one for print_ in prints.values() for one in self._known.by_digest.get(print_.digest, ())]
        if not found and file.digest in {print_.digest for print_ in prints.values()}:
            found = [one for one in (self._known.at_commit(file),) if one]
        return sorted(found, key=lambda one: one[1].path.text != file.path and one[1].path.name != file.path)

    def _checked_target(
        self,
        model: FoundModel,
        file: FoundFile,
        prints: Mapping[str, Fingerprint],
        found: Sequence[tuple[str, RemoteFile]],
    ) -> Target:
        """As `_target`. Raises also `ProtocolError` if a server's message was kept under the name of a model's file, as
        some programs do, and no digest says that it belongs there."""
        if self._repository is not None:
            return self._target_in(self._repository, file, prints)
        target = self._target(model, file, prints, found)
        has_its_digest = file.digest in {print_.digest for print_ in prints.values()}
        if target.verified != "none" or has_its_digest:
            return target
        with open_for_reading(self._folder / file.at, os.O_NOFOLLOW) as fd:
            beginning = os.pread(fd, LOOKED_AT, 0)
        if message := check_message(target.remote.path.text, beginning, file.size):
            hint = "fetch it again: what it says tells why the download failed"
            raise ProtocolError(f"it is no model file: {message.message}", hint=hint)
        return target

    def _check_size(self, file: FoundFile, repository: RepositoryFiles) -> None:
        """Raises `DigestMismatch` if the repository's file of this path has another size."""
        remote = repository.by_path[file.path]
        if remote.size not in (None, file.size):
            why = (
                f"it is not the file of {remote.source}: it has {file.size:,} bytes, and the other one {remote.size:,}"
            )
            raise DigestMismatch(why, hint=_KEEP_OR_FETCH.format(repository.origin))

    def _target_in(self, repository: RepositoryFiles, file: FoundFile, prints: Mapping[str, Fingerprint]) -> Target:
        """Where a file goes that must be the one of this path in a repository. Raises `DigestMismatch`."""
        self._check_size(file, repository)
        remote = repository.by_path[file.path]
        found = prints[remote.hash_algorithm].digest
        if remote.digest not in (None, found):
            why = f"it is not the file of {remote.source}: it has {found}, and the other one {remote.digest}"
            raise DigestMismatch(why, hint=_KEEP_OR_FETCH.format(repository.origin))
        verified = remote.hash_algorithm if remote.digest else "size"
        return Target(repository.name, remote, verified, of_catalog=False)

    def _target(
        self,
        model: FoundModel,
        file: FoundFile,
        prints: Mapping[str, Fingerprint],
        found: Sequence[tuple[str, RemoteFile]],
    ) -> Target:
        """Where a file goes: to the catalog's model that has it, else to a model of its own. Raises `DigestMismatch`,
        `Occupied`, `Unsafe`."""
        digests = {print_.digest for print_ in prints.values()}
        if file.named_by_digest and file.digest not in digests:
            raise DigestMismatch(f"it is damaged: it does not have {file.digest}", hint="fetch it again")
        if found:
            name, remote = found[0]
            if remote.digest not in digests:
                has = prints.get(remote.hash_algorithm, prints["sha256"]).digest
                why = f"it is not the catalog's {name}: it has {has}, and {remote.source} has {remote.digest}"
                raise DigestMismatch(why, hint=f"'mdl get {name}' brings the right one; or --as NAME for another name")
            hub = replace(remote.hub, endpoint="") if remote.hub else None
            remote = replace(remote, hub=hub, access="unknown")  # it comes from a folder, and from no hub
            return Target(name, remote, remote.hash_algorithm if remote.is_vouched_for else "none", of_catalog=True)
        if model.name in self._known.names:
            if not self._known.counts.get(model.name):
                why = f"no digest of the catalog's {model.name} is known here"
                raise Occupied(why, hint=f"'mdl get -n {model.name}' asks its source; or --as NAME for another name")
            why = f"the catalog's {model.name} has no such file"
            raise Occupied(why, hint="--as NAME imports it under another name")
        is_right = file.digest is not None and file.digest in digests
        digest = file.digest if is_right and file.digest else prints["sha256"].digest
        url = f"file://{quote(os.fsencode(self._folder / file.at))}"
        commit = file.commit if is_right else None
        remote = RemoteFile(RelPath.parse(file.path), url, file.size, digest, commit=commit, vouched_by="folder")
        return Target(RelPath.parse(model.name).text, remote, "none", of_catalog=False)

    def _place(
        self, model: FoundModel, file: FoundFile, target: Target, prints: Mapping[str, Fingerprint], stamp: Stamp
    ) -> ImportedFile:
        """Publish a file in the store, or give it a receipt if it is in its place. Raises `Occupied`, `StorageError`,
        `OSError`."""
        store = self._store
        source = self._folder / file.at
        remote = replace(target.remote, validator=self._validator(model, file, stamp))
        print_ = prints[remote.hash_algorithm]
        facts = (str(print_.digest), target.verified)
        row = ImportedFile(file.at, target.model, remote.path.text, file.size, *facts, of_catalog=target.of_catalog)
        with model_locks([Model(target.model)], self._tools):
            if os.path.realpath(source) == os.path.realpath(store.final_path(target.model, remote)):
                receipt = new_receipt(target.model, remote, print_, target.verified, stamp, adopted=True)
                store.receipts.put(replace(receipt, catalog=store.catalog))
                return self._told(replace(row, action="imported"))
            plan = Plan.of([Wanted(target.model, remote, store.check(target.model, remote))])
            [item] = plan.items
            if plan.keep:
                adopt_kept(plan, store)
                return self._told(replace(row, action="kept", verified=verified_by(item)))
            if item.local.kind != "absent":
                hint = "--as NAME imports it under another name; 'mdl rm' removes what is there"
                raise item.refused or Occupied("other bytes are there", hint=hint)
            return self._told(replace(row, action="imported", way=self._bring(file, item, target, print_, stamp)))

    def _bring(self, file: FoundFile, item: Item, target: Target, print_: Fingerprint, stamp: Stamp) -> str:
        """Publish the bytes of ``file``, which had this stamp when it was hashed, and return how they came."""
        store = self._store
        model = target.model
        remote = item.remote
        source = self._folder / file.at
        self._wanted[file.at] -= 1
        ready = Ready(model, remote, source, print_, target.verified, item.seen, stamp)
        with store.scratch_folder(model, remote) as folder, open_for_reading(source, os.O_NOFOLLOW) as fd:
            way = self._way(fd)
            here = folder / "data"
            is_last = self._wanted[file.at] == 0
            if way != "move" or not is_last:
                room = store.free_space()
                watch = store.stoppable()
                way = copy.clone_link_or_copy(fd, source, here, self._rule(fd), room, watch)
                ready = replace(ready, source=here, stamp=Stamp.of(os.lstat(here)), adopted=way == "link")
            if Stamp.of(os.lstat(source)) != stamp or Stamp.of(os.fstat(fd)) != stamp:
                raise StorageError("it changed while it was read", hint="run it again once nothing writes to it")
            store.publish(ready)
        if self._how == "move" and way != "move" and is_last and Stamp.of(os.lstat(source)) == stamp:
            source.unlink()
            way = "move"
        return way

    def _told(self, row: ImportedFile) -> ImportedFile:
        self._tools.on_event(Finished(row.model, row.path, row.size, row.action, row.verified))
        return row


def _failed(model: FoundModel, file: FoundFile, error: OSError | MdlError) -> ImportedFile:
    known = error if isinstance(error, MdlError) else storage_error(error, file.at)
    named = known.but(item=f"{model.name}/{file.path}")
    return ImportedFile(file.at, model.name, file.path, file.size, action="failed", error=named)
