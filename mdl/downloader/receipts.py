"""Receipts: what mdl published, so that a finished file need not be hashed again. One record for each model.

A record is a file that is only appended to, in the format of `mdl.crc_json`. A line is the receipt of one file, or says
that the file has none any more; the last line of a file counts. Once half of the lines are of no use, the record is
written again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mdl import crc_json
from mdl.bounds import LARGEST_JSON, LARGEST_RECORD
from mdl.disk import publish, refuses_order, sync, write_all
from mdl.disk.mutex import try_lock, unlock_and_close
from mdl.disk.safe_open import make_private_dir, open_own, open_regular, read_regular
from mdl.downloader.receipt_lines import VERSION, gone_line, line_of, receipt_of
from mdl.errors import StateError, Unsafe
from mdl.files import Receipt, RemoteFile, Stamp
from mdl.hashing import Fingerprint
from mdl.paths import RelPath, record_name
from mdl.presigned import query_hash
from mdl.redact import bare_url

RECORD = "all.receipts"
"""The name of a record, in the folder of its model."""
_RECORD_NAME = re.compile(r"[0-9a-f]{32}")
"""What `record_name` makes of the name of a model."""
_SPARE = 32
"""A record may have so many lines of no use, beside as many as it has receipts."""


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
    is_same = receipt.hub is None or remote.hub is None or receipt.hub.is_same_as(remote.hub)
    if not is_same and not moves:
        return receipt
    vouched = replace(receipt, vouched_by=remote.vouched_by, verified=remote.hash_algorithm)
    if remote.vouched_by == "hub":
        access = remote.access
        if is_same and access == "unknown":
            access = receipt.access
        return replace(vouched, hub=remote.hub, commit=remote.commit, access=access)
    if is_same or remote.hub is None or receipt.hub is None:
        return receipt if receipt.is_vouched_for else vouched
    hub = replace(remote.hub, endpoint=receipt.hub.endpoint)
    return replace(vouched, hub=hub, commit=remote.commit, access="unknown")


class Receipts:
    """The receipts of one models folder, by model. For any number of threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._wanted = folder.parent / "wanted"
        self._records: dict[str, _Record] = {}
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
        return sorted(receipts, key=lambda receipt: receipt.path.text)

    def in_order(self, model: str) -> list[Receipt]:
        """Return every receipt of ``model`` that can be read, the last one that was written at the end."""
        with self._lock:
            return self._record(model).receipts()

    def models(self) -> list[str]:
        """Return the models that may have receipts, sorted; none if the folder is a link, for mdl makes none."""
        if self._folder.is_symlink():
            return []
        names: set[str] = set()
        with contextlib.suppress(OSError):
            for entry in self._folder.iterdir():
                if _RECORD_NAME.fullmatch(entry.name) and _has_any(entry):
                    names.add(_model_of(entry))
        return sorted(names)

    def may_have(self, model: str) -> bool:
        """Tell whether `models` names this one; it takes no longer if there are many."""
        return not self._folder.is_symlink() and _has_any(self.place(model))

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
        if not place.is_dir() or place.is_symlink():
            return
        with self._lock:
            receipts = self._record(model).check_version().receipts()
            stay = [] if paths is None else [receipt for receipt in receipts if receipt.path not in paths]
            if paths is not None and stay:
                self.forget(model, *paths)
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

    def useless(self, model: str, gone: Sequence[RelPath] = ()) -> tuple[Path, int, int]:
        """Return the record of a model, how many bytes of it cannot be read, and how many are of files that are
        ``gone``."""
        with self._lock:
            record = self._record(model)
            return record.path, record.unreadable(), sum(record.length(path.text) for path in gone)

    def place(self, model: str) -> Path:
        """Return the folder in which the record of ``model`` is."""
        return self._folder / _name_of(model)

    def _record(self, model: str) -> _Record:
        record = self._records.get(model)
        if record is None:
            record = _Record(model, str(self.place(model)))
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


class _Record:
    """The record of one model, as it is on the disk. ``by_path`` has what its last line says of each file, in the order
    in which they were written: a receipt, or the line itself if that makes no sense. ``is_newer`` if a newer mdl wrote
    one of them."""

    def __init__(self, model: str, folder: str) -> None:
        self._model = model
        self._folder_name = folder
        self._name = f"{folder}/{RECORD}"
        self._clear()

    @property
    def path(self) -> Path:
        """Where the record is."""
        return Path(self._name)

    def _clear(self) -> None:
        self.by_path: dict[str, Receipt | bytes] = {}
        self.is_newer = False
        self._damaged = 0
        self._count = 0
        self._read = 0
        self._state = (0, 0, 0)
        self._last = b""

    def refresh(self) -> None:
        """Read what was appended since the last time, or everything if it is another file now."""
        state = self._look()
        if state == self._state:
            return
        if not self._has_grown(state):
            self._clear()
        for line in self._lines_from(self._read):
            self._read += len(line)
            self._last = line
            self._add(line.removesuffix(b"\n"))
        self._state = state

    def _has_grown(self, state: tuple[int, int, int]) -> bool:
        """Tell whether the record in this ``state`` goes on after what was read of it. Its inode does not prove that: a
        new file may have the old one's."""
        inode, size, _ = state
        if not self._last or inode != self._state[0] or size < self._read:
            return False
        return next(self._lines_from(self._read - len(self._last)), b"") == self._last

    def _lines_from(self, start: int) -> Iterator[bytes]:
        """Yield the record's lines from byte ``start`` on; none if they cannot be read or trusted. A torn last line is
        left out: it may still be on its way. What is longer than any receipt comes in pieces, which make no sense."""
        with contextlib.suppress(OSError, Unsafe), os.fdopen(open_regular(self.path), "rb") as file:
            file.seek(start)
            for line in iter(lambda: file.readline(LARGEST_RECORD), b""):
                is_whole = line.endswith(b"\n") or len(line) == LARGEST_RECORD
                if not is_whole or file.tell() > LARGEST_JSON:
                    return
                yield line

    def _look(self) -> tuple[int, int, int]:
        """Return what tells whether the record has changed: its inode, size and time; if there is none, those of its
        folder, and no size."""
        try:
            status = os.lstat(self._name)
            return status.st_ino, status.st_size, status.st_mtime_ns
        except OSError:
            pass
        try:
            status = os.lstat(self._folder_name)
            return status.st_ino, 0, status.st_mtime_ns
        except OSError:
            return 0, 0, 0

    def _add(self, line: bytes) -> None:
        """Take note of a line."""
        facts = crc_json.loads(line)
        if not isinstance(facts, dict):
            facts = {}
        version = facts.get("mdl-receipt")
        if isinstance(version, int) and version > VERSION:
            self.is_newer = True
        path = facts.get("path")
        if not isinstance(path, str):
            self._count += 1
            self._damaged += len(line)
        elif facts.get("gone"):
            self._take(path, None)
        else:
            receipt = receipt_of(facts)
            if receipt is None or receipt.model != self._model:
                self._take(path, line)
            else:
                self._take(path, receipt)

    def _take(self, path: str, last: Receipt | bytes | None) -> None:
        self._count += 1
        self.by_path.pop(path, None)
        if last is not None:
            self.by_path[path] = last

    def check_version(self) -> _Record:
        """Return the record itself. Raises `StateError` if a newer mdl wrote to it."""
        if self.is_newer:
            raise StateError("a newer mdl wrote this receipt", item=str(self.path), hint="upgrade mdl")
        return self

    def receipt(self, path: RelPath, remote: RemoteFile | None = None) -> Receipt | None:
        """Return the receipt of one file; None if there is none or it makes no sense."""
        receipt = self.by_path.get(path.text)
        if not isinstance(receipt, Receipt):
            return None
        if remote is not None and receipt.url is not remote.url:
            receipt = _sharing(receipt, remote)
            self.by_path[path.text] = receipt
        return receipt

    def receipts(self) -> list[Receipt]:
        """Return every receipt that makes sense, the last one that was written at the end."""
        return [receipt for receipt in self.by_path.values() if isinstance(receipt, Receipt)]

    def length(self, path: str) -> int:
        """Return how many bytes the line of a file has."""
        last = self.by_path.get(path, b"")
        return len(line_of(last)) - 1 if isinstance(last, Receipt) else len(last)

    def unreadable(self) -> int:
        """Return how many bytes are in lines that are neither a receipt nor a removal."""
        return self._damaged + sum(len(line) for line in self.by_path.values() if isinstance(line, bytes))

    def append(self, written: Mapping[str, Receipt | None], *, is_anew: bool = False) -> None:
        """Write the receipt of each path; None removes it. With ``is_anew`` the whole record is written without what
        is of no use, and so it is on a mount that takes no appending. Raises `OSError`, `Unsafe`, `StateError`."""
        if not written and not is_anew:
            return
        try:
            self._append(written, is_anew=is_anew)
        except OSError as error:
            if not refuses_order(error):
                raise
            self.check_version()  # what a newer mdl wrote would be lost
            for path, receipt in written.items():
                self._take(path, receipt)
            self._rewrite()

    def _append(self, written: Mapping[str, Receipt | None], *, is_anew: bool) -> None:
        make_private_dir(self.path.parent)
        lines = [line_of(receipt) if receipt else gone_line(path) for path, receipt in written.items()]
        with self._locked() as fd:
            self.refresh()
            before = os.fstat(fd).st_size
            if before and os.pread(fd, 1, before - 1) != b"\n":
                lines.insert(0, b"\n")  # after a torn line
            data = b"".join(lines)
            write_all(fd, data)
            sync(fd)
            if not before:
                publish.sync_folder(self.path.parent)
            if self._read == before and os.fstat(fd).st_size == before + len(data):
                self._take_written(written, data)
            else:
                self.refresh()  # another process appends too, where no lock hinders it
            is_half_useless = self._count > 2 * len(self.by_path) + _SPARE
            if is_anew:
                self._rewrite()
            elif is_half_useless and not self.is_newer:
                with contextlib.suppress(OSError):  # the lines are on the disk: this can wait
                    self._rewrite()

    def _take_written(self, written: Mapping[str, Receipt | None], data: bytes) -> None:
        """Take note of lines that were appended just now: they need not be parsed."""
        for path, receipt in written.items():
            self._take(path, receipt)
        if data:
            self._read += len(data)
            self._last = data[data[:-1].rfind(b"\n") + 1 :]
        self._state = self._look()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Open the record, made if it is missing. No other process rewrites it meanwhile, if locks work there."""
        while True:
            try:
                fd = open_own(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            except Unsafe:  # another user could write it: nothing of it is believed
                self.path.unlink(missing_ok=True)
                continue
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise FileExistsError(errno.EEXIST, "it is a device or pipe", str(self.path))
                try_lock(fd)
                if self._is_named(fd):
                    yield fd
                    return
            finally:
                unlock_and_close(fd)

    def _is_named(self, fd: int) -> bool:
        """Tell whether this open file is the record still."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.lstat(self.path), os.fstat(fd))
        return False

    def _rewrite(self) -> None:
        """Write the record without what is of no use; without any receipt it is removed. Raises `OSError`."""
        data = b"".join(map(line_of, self.receipts()))
        if data:
            publish.write_file(self.path, data)
        else:
            self.path.unlink(missing_ok=True)
        self._clear()
        self.refresh()


def _name_of(model: str) -> str:
    """Return the name of what is kept of a model. A record whose lines do not tell its model is called as its folder:
    so it is shown, and can be removed."""
    return model if _RECORD_NAME.fullmatch(model) else record_name(model)


def _model_of(folder: Path) -> str:
    """Return the model whose record is in a folder, as its first line that makes sense says; without one the name of
    the folder."""
    with contextlib.suppress(OSError, Unsafe), os.fdopen(open_regular(folder / RECORD), "rb") as file:
        for line in iter(lambda: file.readline(LARGEST_RECORD), b""):
            facts = crc_json.loads(line.removesuffix(b"\n"))
            model = facts.get("model") if isinstance(facts, dict) else None
            if isinstance(model, str) and record_name(model) == folder.name:
                return model
    return folder.name


def _read_note(path: Path) -> dict[str, Any]:
    """Return what a note of wanted files says; nothing if it cannot be read."""
    with contextlib.suppress(OSError):
        facts = crc_json.loads((read_regular(path, LARGEST_JSON) or b"").rstrip(b"\n"))
        if isinstance(facts, dict):
            return facts
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


def _sharing(receipt: Receipt, remote: RemoteFile) -> Receipt:
    """Return the same receipt. What it has in common with the file at its source is kept once: there may be 100,000 of
    both."""
    return replace(
        receipt,
        path=remote.path,
        url=remote.url if remote.url == receipt.url else receipt.url,
        digest=remote.digest if remote.digest == receipt.digest else receipt.digest,
        hub=remote.hub if remote.hub == receipt.hub else receipt.hub,
    )
