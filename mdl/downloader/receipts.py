"""Receipts: what mdl published, so that a finished file need not be hashed again. One record for each model.

`mdl.downloader.receipt_record` says what is in a record. Beside the receipts there is a note for each model of which a
download has left files to be fetched.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from mdl import crc_json
from mdl.bounds import LARGEST_JSON, LARGEST_RECORD
from mdl.disk import publish
from mdl.disk.own_files import make_private_dir, open_own_regular, read_own
from mdl.downloader.receipt_record import Record
from mdl.errors import Unsafe
from mdl.files import HubFile, Receipt, RemoteFile, Stamp
from mdl.hashing import Fingerprint
from mdl.paths import RelPath, record_name
from mdl.redact import bare_url
from mdl.urls import query_hash

RECORD = "all.receipts"
"""The name of a record, in the folder of its model."""
_RECORD_NAME = re.compile(r"[0-9a-f]{32}")
"""What `record_name` makes of the name of a model."""


def file_key(model: str, path: RelPath) -> str:
    """Return how mdl names what it keeps of one unfinished file: 16 hex digits, however long the path is."""
    return hashlib.sha256(f"{model}\0{path}".encode()).hexdigest()[:16]


def new_receipt(
    model: str,
    remote: RemoteFile,
    print_: Fingerprint,
    verified: str,
    stamp: Stamp,
    *,
    validator: str | None = None,
    adopted: bool = False,
    catalog: str | None = None,
    replaced: Stamp | None = None,
) -> Receipt:
    """Return the receipt of a file with ``stamp``. ``verified`` says what its bytes were compared with; ``validator``
    is used if the source had none; an ``adopted`` file was there before; ``catalog`` is the one for which it came;
    ``replaced`` is the stamp of the file that it takes the place of."""
    return Receipt(
        model=model,
        path=remote.path,
        stamp=stamp,
        digest=remote.digest if remote.digest == print_.digest else print_.digest,
        verified=verified,
        url=bare_url(remote.url),
        asked=query_hash(remote.url),
        validator=remote.validator or validator,
        commit=remote.commit,
        adopted=adopted,
        hub=remote.hub,
        prefixes=print_.prefixes,
        catalog=catalog,
        replaced=replaced,
        access=remote.access,
        vouched_by=remote.vouched_by if remote.digest else "first use",
    )


def also_of(receipt: Receipt, remote: RemoteFile, *, moves: bool) -> Receipt:
    """Return the receipt of bytes that are here, and that somebody says are those of ``remote`` too. With ``moves``
    they are of its commit from now on.

    Only what the hub itself publishes makes them the hub's, and open to those of whom it says so. Who else vouches for
    them does not know from which hub they came, nor who may have another commit."""
    if not remote.is_vouched_for or receipt.digest != remote.digest:
        return receipt
    moved: HubFile | None = None
    if receipt.hub and remote.hub and not receipt.hub.is_same_as(remote.hub):
        if not moves:
            return receipt
        moved = replace(remote.hub, endpoint=receipt.hub.endpoint)
    vouched = replace(receipt, vouched_by=remote.vouched_by, verified=remote.hash_algorithm)
    if remote.vouched_by == "hub":
        access = remote.access
        if access == "unknown" and moved is None:
            access = receipt.access
        return replace(vouched, hub=remote.hub, commit=remote.commit, access=access)
    if moved:
        return replace(vouched, hub=moved, commit=remote.commit, access="unknown")
    return receipt if receipt.is_vouched_for else vouched


class Receipts:
    """The receipts of one models folder, by model. For any number of threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._wanted = folder.parent / "wanted"
        self._records: dict[str, Record] = {}
        self._lock = threading.RLock()

    def get(self, model: str, path: RelPath, remote: RemoteFile | None = None) -> Receipt | None:
        """Return the receipt of one file; None if there is none or it is damaged. What it has in common with
        ``remote``, if that is given, is kept once. Raises `StateError` if a newer mdl wrote one of the model's."""
        with self._lock:
            return self._record(model).check_version().receipt(path, remote)

    def of_model(self, model: str) -> list[Receipt]:
        """Return every receipt of ``model`` that can be read, sorted by path. Raises as `get` does."""
        with self._lock:
            receipts = self._record(model).check_version().receipts()
        return sorted(receipts, key=attrgetter("path.text"))

    def in_order(self, model: str) -> list[Receipt]:
        """Return every receipt of ``model`` that can be read, the last one that was written at the end."""
        with self._lock:
            return self._record(model).receipts()

    def models(self) -> list[str]:
        """Return the models that may have receipts, sorted; none if the folder is a link, for mdl makes none."""
        names: set[str] = set()
        with contextlib.suppress(OSError):  # nobody else may enter another account's
            if self._folder.is_symlink():
                return []
            for entry in self._folder.iterdir():
                if _RECORD_NAME.fullmatch(entry.name) and _has_any(entry):
                    names.add(_model_of(entry))
        return sorted(names)

    def unreadable(self, model: str) -> Path | None:
        """The damaged record that `models` had to name after its folder, if this ``model`` is one; else None."""
        record = self._folder / model / RECORD
        return record if _RECORD_NAME.fullmatch(model) and record.is_file() else None

    def may_have(self, model: str) -> bool:
        """Tell whether `models` names this one; it takes no longer if there are many."""
        with contextlib.suppress(OSError):
            return not self._folder.is_symlink() and _has_any(self.place(model))
        return False

    def all(self) -> list[Receipt]:
        """Return every receipt of every model that can be read."""
        receipts: list[Receipt] = []
        for model in self.models():
            receipts += self.in_order(model)
        return receipts

    def put(self, *receipts: Receipt) -> None:
        """Write receipts, which are on the disk when this returns. Raises `OSError`, `Unsafe`."""
        by_model: dict[str, dict[str, Receipt | None]] = {}
        for receipt in receipts:
            url = bare_url(receipt.url)
            if url != receipt.url:
                receipt = replace(receipt, url=url)
            by_model.setdefault(receipt.model, {})[receipt.path.text] = receipt
        with self._lock:
            for model, written in by_model.items():
                self._record(model).append(written)

    def forget(self, model: str, *paths: RelPath, tidy: bool = False) -> None:
        """Remove the receipts of these files, and with ``tidy`` what cannot be read. Raises `OSError`, `Unsafe`."""
        with self._lock:
            record = self._record(model)
            gone: dict[str, Receipt | None] = {path.text: None for path in paths if path.text in record.by_path}
            record.append(gone, is_anew=tidy)

    def drop(self, model: str, paths: Collection[RelPath] | None = None) -> None:
        """Remove the receipts of these files, or all; without any other the record goes too. The caller holds the
        model's lock. Raises `StateError` if a newer mdl wrote one, `OSError`, `Unsafe`."""
        place = self.place(model)
        if not os.path.lexists(place) or place.is_symlink():
            return
        with self._lock:
            receipts = self._record(model).check_version().receipts()
            gone = {receipt.path for receipt in receipts} if paths is None else paths
            if any(receipt.path not in gone for receipt in receipts):
                self.forget(model, *gone)
                return
            for entry in place.iterdir():
                entry.unlink(missing_ok=True)
            place.rmdir()
            self.finish(model)

    def restore(self, receipt: Receipt, before: Receipt | None) -> None:
        """Replace a receipt by the one from ``before``, or remove it, as far as the disk allows that."""
        with contextlib.suppress(OSError):
            if before:
                self.put(before)
            else:
                self.forget(receipt.model, receipt.path)

    def distrust(self, model: str, path: RelPath) -> None:
        """Have the file hashed at the next check. Raises `OSError`, `StateError`."""
        receipt = self.get(model, path)
        if receipt and not receipt.suspect:
            self.put(replace(receipt, suspect=True))

    def trust(self, receipt: Receipt) -> None:
        """Take back the doubt in a receipt whose file was read and has its bytes, unless another one was written
        meanwhile. Raises `OSError`, `StateError`."""
        if receipt.suspect and self.get(receipt.model, receipt.path) == receipt:
            self.put(replace(receipt, suspect=False))

    def useless(self, model: str, gone: Sequence[RelPath] = ()) -> tuple[Path, int, int]:
        """Return the record of a model, how many bytes of it cannot be read, and how many are of files that are
        ``gone``."""
        with self._lock:
            record = self._record(model)
            return record.path, record.unreadable(), sum(record.length(path.text) for path in gone)

    def place(self, model: str) -> Path:
        """Return the folder in which the record of ``model`` is."""
        return self._folder / _name_of(model)

    def _record(self, model: str) -> Record:
        record = self._records.get(model)
        if record is None:
            record = Record(model, self.place(model) / RECORD)
            self._records[model] = record
        record.refresh()
        return record

    # Which files are wanted: of a file that is not here yet there is no receipt.

    def begin(self, model: str, paths: Collection[RelPath]) -> None:
        """Note which files of ``model`` are wanted, until `finish`. A disk that takes no note is no reason to stop."""
        with contextlib.suppress(OSError, Unsafe):
            folder = make_private_dir(self._wanted)
            data = crc_json.dumps({"model": model, "wanted": sorted(path.text for path in paths)})
            publish.write_file(folder / self._note_of(model).name, data, durable=False)

    def finish(self, model: str) -> None:
        """Remove the note: everything that was wanted of ``model`` is here, or nothing of it is wanted any more."""
        with contextlib.suppress(OSError):
            self._note_of(model).unlink()

    def wanted(self, model: str) -> frozenset[str]:
        """Return the paths of the files that the last download of ``model`` wanted, if it left some to be fetched."""
        paths = _read_note(self._note_of(model)).get("wanted")
        return frozenset(map(str, paths)) if isinstance(paths, list) else frozenset()

    def models_wanted(self) -> list[str]:
        """Return the models of which the last download left files to be fetched."""
        names: list[str] = []
        with contextlib.suppress(OSError):
            for entry in sorted(self._wanted.iterdir()):
                model = _read_note(entry).get("model")
                if isinstance(model, str):
                    names.append(model)
        return names

    def _note_of(self, model: str) -> Path:
        return self._wanted / f"{_name_of(model)}.json"


def _name_of(model: str) -> str:
    """Return the name of what is kept of a model. A record whose lines do not tell its model is called as its folder:
    so it is shown, and can be removed."""
    return model if _RECORD_NAME.fullmatch(model) else record_name(model)


def _model_of(folder: Path) -> str:
    """Return the model whose record is in a folder, as its first line that makes sense says; without one the name of
    the folder."""
    with contextlib.suppress(OSError, Unsafe), os.fdopen(open_own_regular(folder / RECORD), "rb") as file:
        for line in iter(partial(file.readline, LARGEST_RECORD), b""):
            model = crc_json.facts_in(line.removesuffix(b"\n")).get("model")
            if isinstance(model, str) and record_name(model) == folder.name:
                return model
    return folder.name


def _read_note(path: Path) -> dict[str, Any]:
    """Return what a note of wanted files says; nothing if it cannot be read."""
    with contextlib.suppress(OSError):
        return crc_json.facts_in((read_own(path, LARGEST_JSON) or b"").rstrip(b"\n"))
    return {}


def _has_any(folder: Path) -> bool:
    """Tell whether anything is in a folder; a process that was killed while it removed one leaves it empty."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return False
    except OSError:
        return True
