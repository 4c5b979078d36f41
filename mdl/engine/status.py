"""Status: what of a model is on this disk, found without contacting a server and without reading the files.

There is one definition of each: `is_verified`, `file_status`, `joint_status`. `model_status` looks at a whole model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mdl.catalog.model import Model
from mdl.catalog.resolver import Resolver
from mdl.engine.store import Store
from mdl.errors import MdlError, UsageError
from mdl.files import LocalFile, RemoteFile

Status = Literal["present", "partial", "missing", "unverified"]


@dataclass(frozen=True)
class FileStatus:
    """The status of one file, and how many of its bytes are on this disk."""

    remote: RemoteFile
    status: Status
    bytes_present: int


@dataclass(frozen=True)
class ModelStatus:
    """The status of a model. ``files`` and ``bytes`` are None if they are not known: its source was never asked."""

    path: Path
    status: Status
    rows: tuple[FileStatus, ...]
    files: int | None
    files_present: int
    bytes: int | None
    bytes_present: int


def is_verified(verified: str) -> bool:
    """Whether bytes were compared with a published digest. ``verified`` is as in a receipt or report: the algorithm of
    that digest, ``size`` or ``none``."""
    return verified not in ("size", "none")


def file_status(local: LocalFile, remote: RemoteFile) -> FileStatus:
    """The status of a file that was checked without reading it. Pure."""
    receipt, stamp = local.receipt, local.stamp
    if local.kind == "file" and stamp is not None and remote.size in (None, stamp.size):
        if receipt is None:
            return FileStatus(remote, "unverified", stamp.size)
        digest = remote.digest
        may_match = receipt.matches(remote) or (digest is not None and digest.algorithm != receipt.digest.algorithm)
        if local.untouched and may_match:
            is_sure = is_verified(receipt.verified) or digest == receipt.digest
            return FileStatus(remote, "present" if is_sure else "unverified", stamp.size)
    return FileStatus(remote, "partial" if local.partial else "missing", local.partial)


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
    have a receipt. Raises `StorageError`, `StateError`."""
    known = None
    with contextlib.suppress(MdlError):  # the catalog's patterns no longer fit the last listing: 'get' will report it
        known = resolver.known(model) or resolver.described(model)
    expected = known if known is not None else [receipt.remote for receipt in store.receipts.of_model(model.name)]
    rows = tuple(_checked(model.name, remote, store) for remote in expected)
    sizes = [row.remote.size for row in rows if row.remote.size is not None]
    return ModelStatus(
        path=store.folder(model.name),
        status=joint_status((row.status for row in rows), is_complete=known is not None),
        rows=rows,
        files=len(rows) if known is not None else None,
        files_present=sum(row.status in ("present", "unverified") for row in rows),
        bytes=sum(sizes) if known is not None and len(sizes) == len(rows) else None,
        bytes_present=sum(row.bytes_present for row in rows),
    )


def _checked(model: str, remote: RemoteFile, store: Store) -> FileStatus:
    try:
        row = file_status(store.quick_check(model, remote), remote)
        is_found = row.status == "partial" or store.pointer_state(model, remote) == "right"
    except UsageError:
        is_found = False  # this layout cannot store it
    return row if is_found else FileStatus(remote, "missing", 0)
