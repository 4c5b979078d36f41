"""Status: what of a model is on this disk, found without contacting a server and without reading the files.

`judge` is the one judgement of a file, for `mdl list` as for `mdl verify`, which reads the bytes first.
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
from mdl.downloader.hub_cache import part_of
from mdl.downloader.store import Store
from mdl.errors import MdlError, NotFound, StorageError, UsageError
from mdl.files import LocalFile, Receipt, RemoteFile
from mdl.formatting import counted, listed
from mdl.hashing import Fingerprint
from mdl.local.from_receipts import MeantFiles, fetched_files, hub_origins, meant_paths
from mdl.paths import RelPath
from mdl.values import value_class

_NAMED = 10
"""The number of files of a model that a message names."""

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
    """Some of what is here is mdl's: it fetched it, or adopted it."""

    @property
    def is_here(self) -> bool:
        """Return whether all of it is on this disk."""
        return self.status in ("present", "unverified")


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
        """Return whether anything of it is on this disk, be it a part of one file."""
        return self.bytes_present > 0 or self.files_present > 0

    @property
    def commits(self) -> tuple[str, ...]:
        """The commits at which mdl, or the hub's client, fetched what is here."""
        return tuple(dict.fromkeys(row.commit for row in self.rows if row.commit))

    @property
    def since(self) -> float | None:
        """When the newest of its files came to this disk, in seconds since 1970."""
        moments = [row.since for row in self.rows if row.since is not None]
        return max(moments, default=None)


def can_run_code(path: Path, name: str) -> bool | None:
    """Return whether the file at ``path``, which its model knows by ``name``, can run code when it is loaded, as far as
    its name and first bytes show it; None if it cannot be read here, and its name does not tell."""
    from mdl.weights.pickles import head_of, runs_code

    head = None
    with contextlib.suppress(OSError):
        head = read_regular(path, head_of(name))
    if runs_code(name, head or b""):
        return True
    return None if head is None else False


def path_of_file(model: Model, status: ModelStatus, store: Store, typed: str) -> Path:
    """The path of the one file of a model that is in the store. Of a model that a reference to a part of a repository
    means, only the files of that part count. ``typed`` is what the user called it. Raises `NotFound` if none is here,
    `UsageError` that lists them if there are several."""
    here = [row.remote.path.text for row in status.rows if row.is_here]
    meant = set(here)
    origins = hub_origins(model)
    if origins:
        meant = set()
        for origin in origins:
            meant.update(part_of(origin, here))
    if not meant:
        raise NotFound("no file of it is on this disk", item=typed)
    if len(meant) == 1:
        return RelPath(meant.pop()).under(status.path)
    hint = f"take the folder: {store.command('path', typed)}"
    if origins and not model.is_of_catalog:  # its folder bears the name of the catalog, which no reference means
        hint = f"name one of them: {store.command('path', '--file', f'{origins[0].whole}/PATH')}; or {hint}"
    names = listed(sorted(meant), most=_NAMED)
    raise UsageError(f"it has {len(meant)} files, not one: {names}", item=typed, hint=hint)


Judgement = Literal["present", "unverified", "changed", "corrupt", "partial", "missing"]


def judge(local: LocalFile, remote: RemoteFile) -> Judgement:
    """Judge a file: by its bytes if ``local`` tells that they were read, else by its receipt. Pure.

    ``changed``: somebody edited it after mdl wrote it. ``corrupt``: other bytes, or no file at all, are in its place;
    without reading that is not known, and a file that is not the one at its source is ``missing``.
    """
    if local.kind == "file":
        if local.fingerprint is not None:
            return _judge_bytes(local, local.fingerprint, remote)
        if _seems_right(local, remote):
            return "present" if _seems_vouched_for(local, remote) else "unverified"
        if local.is_edited:
            return "changed"
    elif local.kind != "absent":
        return "corrupt"
    return _absent(local)


def _absent(local: LocalFile) -> Literal["partial", "missing"]:
    """Judge a file that is not there: an unfinished download may be."""
    return "partial" if local.partial else "missing"


def _judge_bytes(local: LocalFile, fingerprint: Fingerprint, remote: RemoteFile) -> Judgement:
    """Judge a file that was read. A right one is ``present`` only if somebody else than the folder that brought it
    says which digest it has. Another version, as mdl wrote it, is ``missing``, as before it was read: nothing happened
    to it."""
    has_size = remote.size in (None, fingerprint.size)
    has_bytes = remote.digest in (None, fingerprint.digest)
    if has_size and has_bytes:
        return "present" if remote.is_vouched_for else "unverified"
    if local.was_read_as_written and local.receipt is not None and local.receipt.vouched_by != "folder":
        return _absent(local)
    return "changed" if local.is_edited else "corrupt"


def _seems_right(local: LocalFile, remote: RemoteFile) -> bool:
    """Return whether a file that was not read is the one at its source, as far as its size and its receipt tell."""
    if local.stamp is None or remote.size not in (None, local.stamp.size):
        return False
    receipt = local.receipt
    if receipt is None:
        return True
    if not local.untouched:
        return False
    if remote.digest is not None and remote.digest.algorithm != receipt.digest.algorithm:
        return True  # the two digests cannot be compared
    return receipt.matches(remote)


def _seems_vouched_for(local: LocalFile, remote: RemoteFile) -> bool:
    """Return whether somebody else than the folder that brought a file said that the bytes of its receipt are right."""
    receipt = local.receipt
    if receipt is None:
        return False
    if receipt.is_vouched_for:
        return True
    return remote.is_vouched_for and remote.digest == receipt.digest


def expected_file(remote: RemoteFile, receipt: Receipt | None) -> RemoteFile:
    """The file with which the bytes here are to be compared: as its source describes it; if that names no digest, with
    the one in the receipt of what came from there. Pure."""
    if receipt is None or remote.digest is not None:
        return remote
    expected = replace(remote, digest=receipt.digest, vouched_by="folder")
    if receipt.matches(remote):
        expected = replace(expected, size=receipt.stamp.size)
        if receipt.is_vouched_for:
            expected = replace(expected, vouched_by=receipt.vouched_by)
    return expected


_STATUSES: dict[Judgement, Status] = {
    "present": "present",
    "unverified": "unverified",
    "changed": "unverified",  # only reading tells what was changed
}
"""The status of a file that is here, by the judgement of it."""


def file_status(local: LocalFile, remote: RemoteFile) -> FileStatus:
    """The status of a file that was checked without reading it. Pure."""
    status = _STATUSES.get(judge(local, remote))
    if status is None or local.stamp is None:
        return FileStatus(remote, _absent(local), local.partial, is_own=local.partial > 0)
    row = FileStatus(remote, status, local.stamp.size, since=local.stamp.mtime_ns / 1e9)
    if local.receipt is None:
        return row
    return replace(row, commit=local.receipt.commit, is_own=True)


def joint_status(statuses: Iterable[str], *, is_complete: bool = True) -> Status:
    """The status of a model from those of its files; not ``is_complete`` if there may be further files. Pure."""
    different = set(statuses)
    if different <= {"missing"}:
        return "missing"
    if not is_complete or different & {"missing", "partial"}:
        return "partial"
    return "unverified" if "unverified" in different else "present"


def model_status(model: Model, resolver: Resolver, store: Store) -> ModelStatus:
    """Look at every file of the model: those that its catalog entry, a lock or a kept listing names, else those that
    have a receipt, and are what its reference means. Raises `StorageError`, `StateError`."""
    known = None
    with contextlib.suppress(MdlError):  # the catalog's patterns no longer fit the last listing: 'get' will report it
        known = resolver.described(model)
    meant = _fetched(model, store) if known is None else MeantFiles(known)
    return status_of_files(model.name, meant, store)


def _fetched(model: Model, store: Store) -> MeantFiles:
    """The files that mdl was last asked to fetch of a model, by its receipts; none that are complete without any."""
    by_path = {receipt.path.text: receipt for receipt in store.receipts.of_model(model.name)}
    meant = meant_paths(model, list(by_path), by_path)
    receipts = [by_path[path] for path in by_path if path in meant]
    if not receipts:
        return MeantFiles((), is_complete=False)
    is_a_part = not all(origin.is_whole for origin in model.sources)
    return fetched_files(receipts, (), store.receipts.wanted(model.name), is_exact=is_a_part)


def usable(model: Model, status: ModelStatus, store: Store, typed: str) -> ModelStatus:
    """The status of a model that is here, as far as it was asked for: a part that was fetched as such is enough, and so
    is an older version than its source has by now, unless the download of a newer one was stopped (ADR 101).
    ``status`` is that by its listing, which also says where it is, unless nothing of that version is here. ``typed`` is
    what the user called it. Raises `NotFound`, and `StorageError` if only another account can tell."""
    fetched = _fetched(model, store)
    came = status_of_files(model.name, fetched, store) if fetched.files else status
    wanted = store.receipts.wanted(model.name)  # by a download that was stopped: it may have been an update
    if any(row.remote.path.text in wanted and not row.is_here for row in status.rows):
        came = status
    if not status.files_present:
        status = came
    if not status.files_present:
        from mdl.local.on_disk import closed_by, owned_by

        get = store.command("get", typed)
        owner = closed_by(store, model.name)
        if owner:
            raise owned_by(owner, f"'{get}' compares the files that are there").on(typed)
        raise NotFound("not on this disk", item=typed, hint=f"'{get}' downloads it")
    if came.status == "partial":
        count = ""
        if came.files is not None:
            count = f": {came.files_present} of {counted(came.files, 'file')}"
        hint = f"'{store.command('get', typed)}' downloads the rest"
        raise NotFound(f"only partly on this disk{count}", item=typed, hint=hint)
    return status


def status_of_files(name: str, meant: MeantFiles, store: Store) -> ModelStatus:
    """Judge a model by its files: look which of those that are meant are here. (ADR 123) Raises `StateError`,
    `StorageError`."""
    clashes = store.clashes(name, meant.files)
    rows: list[FileStatus] = []
    for number, remote in enumerate(meant.files):
        row = FileStatus(remote, "missing", 0)
        if number not in clashes:
            row = _look(name, remote, store)
        if row.bytes_present or remote.path not in meant.optional:
            rows.append(row)
    return status_of(rows, store, name, is_complete=meant.is_complete)


def status_of(rows: Sequence[FileStatus], store: Store, name: str, *, is_complete: bool = True) -> ModelStatus:
    """The status of a model whose files are ``rows``; there are more of them unless it ``is_complete``."""
    files_present = 0
    bytes_present = 0
    size = 0
    is_size_known = is_complete
    for row in rows:
        bytes_present += row.bytes_present
        if row.is_here:
            files_present += 1
        if row.remote.size is None:
            is_size_known = False
        else:
            size += row.remote.size
    brought_by: BroughtBy | None = None
    if any(row.is_own for row in rows):
        brought_by = "mdl"
    elif files_present:
        brought_by = "other"
    return ModelStatus(
        path=store.folder(name),
        status=joint_status((row.status for row in rows), is_complete=is_complete),
        rows=tuple(rows),
        files=len(rows) if is_complete else None,
        files_present=files_present,
        bytes=size if is_size_known else None,
        bytes_present=bytes_present,
        layout=store.layout.name,
        brought_by=brought_by,
    )


def _look(model: str, remote: RemoteFile, store: Store) -> FileStatus:
    """The status of a file, by what is under its name. Raises `StateError`, `StorageError`."""
    missing = FileStatus(remote, "missing", 0)
    try:
        row = file_status(store.quick_check(model, remote), remote)
        if row.status != "partial" and store.pointer_state(model, remote) != "right":
            return missing
    except UsageError:
        return missing  # this layout cannot store it
    except StorageError as error:
        if isinstance(error.__cause__, PermissionError):
            return missing  # in a folder that is closed to this account, which has nothing of it
        raise
    return row
