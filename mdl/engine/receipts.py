"""Receipts: what mdl published, so that a finished file need not be hashed again. One small file each.

A receipt has two lines in the format of `mdl.crc_json`: the facts, and the prefix digests that a repair uses.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from mdl import crc_json
from mdl.errors import MdlError, StateError
from mdl.files import HubFile, Receipt, RemoteFile, Stamp
from mdl.fs import staging
from mdl.fs.private import make_private_dir, read_regular
from mdl.hashing import Digest, Fingerprint
from mdl.paths import RelPath, record_name
from mdl.presigned import query_hash
from mdl.redact import bare_url

VERSION = 1
_LARGEST = 64 * 2**20
_REPO_TYPES = ("model", "dataset", "space")
_OPTIONAL = (str, type(None))
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("model", "path", "digest", "verified", "url", "asked"), (str,)),
    **dict.fromkeys(("validator", "commit", "catalog"), _OPTIONAL),
    "suspect": (bool,),
    "hub": (list, type(None)),
}
_AS_THEY_ARE = ("verified", "url", "asked", "validator", "commit", "suspect", "catalog")
_DEFAULTS: dict[str, Any] = {"asked": "", "adopted": False, "hub": None, "catalog": None}
"""The facts that receipts of earlier versions lack."""


def file_key(model: str, path: RelPath) -> str:
    """The name of mdl's own records of one file: 32 hex digits, however long the path is."""
    return hashlib.sha256(f"{model}\0{path}".encode()).hexdigest()[:32]


def new_receipt(
    model: str,
    remote: RemoteFile,
    print_: Fingerprint,
    verified: str,
    stamp: Stamp,
    *,
    validator: str | None = None,
    adopted: bool = False,
) -> Receipt:
    """The receipt of a file with ``stamp``. ``verified`` says what its bytes were compared with; ``validator`` is used
    if the source had none; an ``adopted`` file was there before."""
    return Receipt(
        model=model,
        path=remote.path,
        stamp=stamp,
        digest=print_.digest,
        verified=verified,
        url=bare_url(remote.url),
        asked=query_hash(remote.url),
        validator=remote.validator or validator,
        commit=remote.commit,
        adopted=adopted,
        hub=remote.hub,
        prefixes=print_.prefixes,
    )


class Receipts:
    """The receipts of one models folder, by model."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, model: str, path: RelPath, *, prefixes: bool = False) -> Receipt | None:
        """The receipt of one file, with its ``prefixes`` only if they are asked for. None if there is none or it is
        damaged. Raises `StateError` if a newer mdl wrote it."""
        return _read(self._path(model, path), prefixes=prefixes)

    def of_model(self, model: str) -> list[Receipt]:
        """Every receipt of ``model``, sorted by path."""
        with contextlib.suppress(OSError):
            found = [_read(entry, prefixes=False) for entry in (self._folder / record_name(model)).glob("*.receipt")]
            return sorted((receipt for receipt in found if receipt), key=lambda receipt: receipt.path)
        return []

    def all(self) -> list[Receipt]:
        """Every receipt of every model that can be read."""
        with contextlib.suppress(OSError):
            found = [read_receipt(entry) for entry in sorted(self._folder.glob("*/*.receipt"))]
            return [receipt for receipt in found if receipt]
        return []

    def put(self, receipt: Receipt) -> None:
        """Write a receipt. Raises `OSError`, `Unsafe`."""
        facts = {
            "mdl-receipt": VERSION,
            **vars(receipt),
            "path": receipt.path.text,
            "stamp": astuple(receipt.stamp),
            "digest": str(receipt.digest),
            "url": bare_url(receipt.url),
            "hub": astuple(receipt.hub) if receipt.hub else None,
        }
        del facts["prefixes"]
        data = crc_json.dumps(facts) + crc_json.dumps(list(receipt.prefixes))
        path = self._path(receipt.model, receipt.path)
        make_private_dir(path.parent)
        staging.write_file(path, data, durable=False)

    def restore(self, receipt: Receipt, before: Receipt | None) -> None:
        """Replace a receipt by the one from ``before``, or remove it, as far as the disk allows that."""
        with contextlib.suppress(OSError):
            if before:
                self.put(before)
            else:
                self._path(receipt.model, receipt.path).unlink(missing_ok=True)

    def distrust(self, model: str, path: RelPath) -> None:
        """Have the file hashed at the next check. Raises `OSError`, `StateError`."""
        receipt = self.get(model, path, prefixes=True)
        if receipt and not receipt.suspect:
            self.put(replace(receipt, suspect=True))

    def mark_shared(self, model: str, path: RelPath, catalog: str | None) -> None:
        """Take note that a file is kept for ``catalog`` too: then it belongs to no single catalog. Raises `OSError`,
        `StateError`."""
        receipt = self.get(model, path, prefixes=True)
        if receipt and receipt.catalog not in (None, catalog):
            self.put(replace(receipt, catalog=None))

    def _path(self, model: str, path: RelPath) -> Path:
        return self._folder / record_name(model) / f"{file_key(model, path)}.receipt"


def read_receipt(path: Path) -> Receipt | None:
    """The receipt in a file; None if it is damaged, or a newer mdl wrote it."""
    try:
        return _read(path, prefixes=False)
    except StateError:
        return None


def _read(path: Path, *, prefixes: bool) -> Receipt | None:
    try:
        first, _, second = (read_regular(path, _LARGEST) or b"").partition(b"\n")
    except OSError:
        return None
    facts = crc_json.loads(first)
    if not isinstance(facts, dict):
        return None
    version = facts.get("mdl-receipt")
    if isinstance(version, int) and version > VERSION:
        raise StateError("a newer mdl wrote this receipt", item=str(path), hint="upgrade mdl")
    steps = crc_json.loads(second.partition(b"\n")[0]) if prefixes else None
    return _receipt(facts, tuple(steps) if isinstance(steps, list) else ())


def _receipt(facts: dict[str, Any], prefixes: tuple[Any, ...]) -> Receipt | None:
    try:
        stamp, facts = facts["stamp"], _DEFAULTS | facts
        kinds = [(facts[key], kinds) for key, kinds in _KINDS.items()]
        kinds += [(number, (int,)) for number in stamp] + [(prefix, (str,)) for prefix in prefixes]
        if any(type(value) not in allowed for value, allowed in kinds):
            return None
        algorithm, _, text = facts["digest"].partition(":")
        return Receipt(
            **{key: facts[key] for key in _AS_THEY_ARE},
            model=RelPath.parse(facts["model"]).text,
            path=RelPath.parse(facts["path"]),
            stamp=Stamp(*stamp),
            digest=Digest.parse(algorithm, text),
            adopted=facts["adopted"] is True,
            prefixes=prefixes,
            hub=_hub_file(facts["hub"]) if facts["hub"] is not None else None,
        )
    except (KeyError, ValueError, TypeError, AttributeError, MdlError):
        return None


def _hub_file(facts: Any) -> HubFile:
    repo, repo_type, revision, path, branch = facts
    if any(type(fact) is not str for fact in facts) or repo_type not in _REPO_TYPES:
        raise ValueError(f"{facts!r} is not a file of a hub")
    return HubFile(repo, repo_type, revision, RelPath.parse(path).text, branch)
