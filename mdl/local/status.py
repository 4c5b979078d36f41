"""Status: what of a model is on this disk, found without contacting a server and without reading the files.

There is one definition of each: `file_status`, `joint_status`. `model_status` looks at a whole model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mdl.catalog.model import Model
from mdl.catalog.resolver import Resolver
from mdl.disk.safe_open import read_regular
from mdl.downloader.hub_repos import part_of
from mdl.downloader.store import Store
from mdl.errors import MdlError, NotFound, StorageError, UsageError
from mdl.files import LocalFile, Receipt, RemoteFile
from mdl.formatting import listed
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.sources.hub_origin import HubOrigin
from mdl.values import value_class
from mdl.weights.pickles import head_of, runs_code

_NAMED = 10
"""How many files of a model a message names."""

Status = Literal["present", "partial", "missing", "unverified"]


@value_class
class FileStatus:
    """The status of one file, and how many of its bytes are on this disk."""

    remote: RemoteFile
    status: Status
    bytes_present: int
    commit: str | None = None
    """The commit at which mdl fetched what is here."""
    since: float | None = None
    """When the bytes came to this disk, in seconds since 1970."""
    is_own: bool = False
    """mdl fetched it, or adopted it."""


BroughtBy = Literal["mdl", "hub-client", "other"]


@value_class
class ModelStatus:
    """The status of a model. ``files`` and ``bytes`` are None if they are not known: its source was never asked.

    ``layout`` is that of the models folder. ``brought_by`` is None if nothing is here; ``hub-client`` is the hub's own
    client, ``other`` whoever put a folder there of which mdl knows nothing.
    """

    path: Path
    status: Status
    rows: tuple[FileStatus, ...]
    files: int | None
    files_present: int
    bytes: int | None
    bytes_present: int
    layout: str = "plain"
    brought_by: BroughtBy | None = None

    @property
    def is_here(self) -> bool:
        """Whether anything of it is on this disk, be it a part of one file."""
        return self.bytes_present > 0 or self.files_present > 0

    @property
    def commits(self) -> tuple[str, ...]:
        """The commits at which mdl, or the hub's client, fetched what is here."""
        return tuple(dict.fromkeys(row.commit for row in self.rows if row.commit))

    @property
    def since(self) -> float | None:
        """When the newest of its files came to this disk, in seconds since 1970."""
        return max((row.since for row in self.rows if row.since is not None), default=None)


def can_run_code(path: Path, name: str) -> bool | None:
    """Whether the file at ``path``, which its model knows by ``name``, can run code when it is loaded, as far as its
    name and first bytes show it; None if it cannot be read here, and its name does not tell."""
    head = None
    with contextlib.suppress(OSError):
        head = read_regular(path, head_of(name), is_own=False)
    if runs_code(name, head or b""):
        return True
    return None if head is None else False


def path_of_file(model: Model, found: ModelStatus) -> Path:
    """The path of the one file of a model that is on this disk. Of a model that a reference to a part of a repository
    or a bucket means, only the files of that part count. Raises `NotFound` if none is here, `UsageError` that lists
    them if there are several."""
    here = [row.remote.path.text for row in found.rows if row.status in ("present", "unverified")]
    meant = set(here)
    parts = [origin for origin in model.sources if isinstance(origin, HubOrigin) and not origin.is_whole]
    if parts:
        meant = set()
        for origin in parts:
            meant.update(part_of(origin, here))
    if not meant:
        raise NotFound("no file of it is on this disk", item=model.target)
    if len(meant) > 1:
        names = listed(sorted(meant), most=_NAMED)
        hint = f"name one of them: mdl path --file hf:org/repo/PATH; or take the folder: mdl path {model.target}"
        raise UsageError(f"it has {len(meant)} files, not one: {names}", item=model.target, hint=hint)
    return RelPath(meant.pop()).under(found.path)


def file_status(local: LocalFile, remote: RemoteFile) -> FileStatus:
    """The status of a file that was checked without reading it. Pure."""
    receipt = local.receipt
    stamp = local.stamp
    if local.kind == "file" and stamp is not None and remote.size in (None, stamp.size):
        since = stamp.mtime_ns / 1e9
        if receipt is None:
            return FileStatus(remote, "unverified", stamp.size, since=since)
        digest = remote.digest
        may_match = receipt.matches(remote) or (digest is not None and digest.algorithm != receipt.digest.algorithm)
        if local.untouched and may_match:
            is_sure = receipt.is_vouched_for or (remote.is_vouched_for and digest == receipt.digest)
            return FileStatus(remote, "present" if is_sure else "unverified", stamp.size, receipt.commit, since, True)
    if local.kind == "file" and stamp is not None and local.is_edited:  # by whom and how only reading it would tell
        since = stamp.mtime_ns / 1e9
        return FileStatus(remote, "unverified", stamp.size, receipt.commit if receipt else None, since, True)
    return FileStatus(remote, "partial" if local.partial else "missing", local.partial, is_own=True)


def joint_status(statuses: Iterable[str], *, is_complete: bool = True) -> Status:
    """The status of a model from those of its files; not ``is_complete`` if there may be further files. Pure."""
    found = set(statuses)
    if found <= {"missing"}:
        return "missing"
    if found & {"missing", "partial"} or not is_complete:
        return "partial"
    return "unverified" if "unverified" in found else "present"


def model_status(model: Model, resolver: Resolver, store: Store) -> ModelStatus:
    """Look at every file of the model: those that its catalog entry, a lock or a kept listing names, else those that
    have a receipt, and are what its reference means. Raises `StorageError`, `StateError`."""
    known = None
    with contextlib.suppress(MdlError):  # the catalog's patterns no longer fit the last listing: 'get' will report it
        known = resolver.known(model) or resolver.described(model)
    if known is not None:
        return status_of_files(model.name, known, store)
    if receipts := _meant(model, store.receipts.of_model(model.name)):
        is_a_part = not all(origin.is_whole for origin in model.sources)
        return local_status(model.name, receipts, (), store, is_exact=is_a_part)
    return status_of((), store, model.name, is_complete=False)


def _meant(model: Model, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
    """The receipts of the revision and the part of a repository that a reference names; for a name, and for a reference
    to no repository, all of them."""
    origins = [origin for origin in model.sources if isinstance(origin, HubOrigin)]
    if model.is_of_catalog or not origins or len(origins) < len(model.sources):
        return receipts
    meant: list[Receipt] = []
    for origin in origins:
        of_revision: dict[str, Receipt] = {}
        for receipt in receipts:
            if receipt.hub and origin.revision in (None, receipt.hub.branch, receipt.hub.revision):
                of_revision[receipt.hub.path] = receipt
        meant += [of_revision[path] for path in part_of(origin, of_revision)]
    return meant


def status_of_files(name: str, remotes: Sequence[RemoteFile], store: Store) -> ModelStatus:
    """What of a model's files, which are these, is here. Raises as `model_status`."""
    clashes = store.clashes(name, remotes)
    rows: list[FileStatus] = []
    for number, remote in enumerate(remotes):
        if number in clashes:
            rows.append(FileStatus(remote, "missing", 0))
        else:
            rows.append(_checked(name, remote, store))
    return status_of(rows, store, name)


def status_of(rows: Sequence[FileStatus], store: Store, name: str, *, is_complete: bool = True) -> ModelStatus:
    """The status of a model whose files are ``rows``; there are more of them unless it ``is_complete``."""
    present = 0
    bytes_present = 0
    size = 0
    are_all_sizes_known = is_complete
    by: BroughtBy = "other"
    for row in rows:
        bytes_present += row.bytes_present
        if row.status in ("present", "unverified"):
            present += 1
        if row.is_own and row.bytes_present:
            by = "mdl"
        if row.remote.size is None:
            are_all_sizes_known = False
        else:
            size += row.remote.size
    return ModelStatus(
        path=store.folder(name),
        status=joint_status((row.status for row in rows), is_complete=is_complete),
        rows=tuple(rows),
        files=len(rows) if is_complete else None,
        files_present=present,
        bytes=size if are_all_sizes_known else None,
        bytes_present=bytes_present,
        layout=store.layout.name,
        brought_by=by if present or bytes_present else None,
    )


def local_status(
    name: str, receipts: Sequence[Receipt], known: Sequence[RemoteFile], store: Store, *, is_exact: bool = False
) -> ModelStatus:
    """What of a model is here, judged by its receipts. ``known`` are its files as its source has them: those without a
    receipt count too, but if they are missing only if it ``is_exact``ly these that are wanted, or if the last download
    wanted them. Raises as `model_status`."""
    rows: dict[RelPath, FileStatus] = {}
    wanted = store.receipts.wanted(name)
    published = _published(known)
    for receipt in receipts:
        row = _checked(name, receipt.remote, store)
        is_sure = receipt.is_vouched_for or published.get(receipt.path) == receipt.digest
        if row.status == "present" and not is_sure:
            row = replace(row, status="unverified")
        rows[receipt.path] = row
    for remote in known:
        if remote.path in rows:
            continue
        row = _checked(name, remote, store)
        is_meant = is_exact or remote.path.text in wanted
        if is_meant or row.bytes_present:
            rows[remote.path] = row
    is_complete = is_exact or wanted <= {path.text for path in rows}
    return status_of([rows[path] for path in sorted(rows)], store, name, is_complete=is_complete)


def _published(known: Iterable[RemoteFile]) -> dict[RelPath, Digest]:
    """The digests that a hub, the server of a URL, the catalog or a lock names, by path."""
    return {one.path: one.digest for one in known if one.digest and one.vouched_by not in ("first use", "folder")}


def _checked(model: str, remote: RemoteFile, store: Store) -> FileStatus:
    try:
        row = file_status(store.quick_check(model, remote), remote)
        is_found = row.status == "partial" or store.pointer_state(model, remote) == "right"
    except UsageError:
        is_found = False  # this layout cannot store it
    except StorageError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        is_found = False  # in a folder that is closed to this account, which has nothing of it
    return row if is_found else FileStatus(remote, "missing", 0)
