"""Stock: what of a model is on this disk, found without contacting anybody and without reading its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mdl.catalog.model import Model
from mdl.catalog.resolver import Resolver
from mdl.engine.store import Store
from mdl.errors import MdlError, UsageError
from mdl.files import LocalFile, Receipt, RemoteFile


@dataclass(frozen=True)
class StockRow:
    """One file: ``present``, ``partial``, ``missing`` or ``unverified``."""

    remote: RemoteFile
    status: str
    bytes_present: int


@dataclass(frozen=True)
class Stock:
    """A model's files on this disk. ``files`` and ``bytes`` are None where the hub was never asked."""

    path: Path
    status: str
    rows: tuple[StockRow, ...]
    files: int | None
    files_present: int
    bytes: int | None
    bytes_present: int

    @property
    def files_text(self) -> str:
        return "?" if self.files is None else str(self.files)


def stock_of(model: Model, resolver: Resolver, store: Store) -> Stock:
    """Look at every file of the model, by the catalog, kept listings and receipts."""
    known = _known(model, resolver)
    expected = known if known is not None else [receipt.remote for receipt in store.receipts.of_model(model.name)]
    rows = tuple(_stood(model.name, remote, store) for remote in expected)
    here = [row for row in rows if row.status in ("present", "unverified")]
    sizes = [row.remote.size for row in rows]
    total = sum(size for size in sizes if size is not None) if known is not None and None not in sizes else None
    return Stock(
        path=store.folder(model.name),
        status=_status(rows, known is not None),
        rows=rows,
        files=len(rows) if known is not None else None,
        files_present=len(here),
        bytes=total,
        bytes_present=sum(row.bytes_present for row in rows),
    )


def _known(model: Model, resolver: Resolver) -> list[RemoteFile] | None:
    try:
        return resolver.known(model)
    except MdlError:
        return None  # the catalog's patterns no longer fit the last listing; 'get' will say so


def _stood(model: str, remote: RemoteFile, store: Store) -> StockRow:
    try:
        row = _row(store.glance(model, remote), remote)
        is_found = row.status == "partial" or store.pointed(model, remote) == "right"
    except UsageError:
        is_found = False  # this layout has no place for it
    return row if is_found else StockRow(remote, "missing", 0)


def _row(local: LocalFile, remote: RemoteFile) -> StockRow:
    receipt, stamp = local.receipt, local.stamp
    if local.kind == "file" and stamp is not None:
        right = remote.size is None or stamp.size == remote.size
        ours = receipt is not None and local.untouched and _is_its(receipt, remote)
        if right and ours and receipt is not None:
            weak = receipt.verified in ("size", "none") and remote.digest != receipt.digest
            return StockRow(remote, "unverified" if weak else "present", stamp.size)
        if right and receipt is None:
            return StockRow(remote, "unverified", stamp.size)
        return StockRow(remote, "partial" if local.partial else "missing", local.partial)
    return StockRow(remote, "partial" if local.partial else "missing", local.partial)


def _is_its(receipt: Receipt, remote: RemoteFile) -> bool:
    """What came is what the source has, as far as that can be told without reading."""
    digest = remote.digest
    return receipt.settles(remote) or (digest is not None and digest.algorithm != receipt.digest.algorithm)


def _status(rows: tuple[StockRow, ...], complete: bool) -> str:
    statuses = {row.status for row in rows}
    if not rows or statuses == {"missing"}:
        return "missing"
    if statuses & {"missing", "partial"} or not complete:
        return "partial"
    return "unverified" if "unverified" in statuses else "present"
