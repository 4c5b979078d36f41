"""The record of a model's receipts: a file that is only appended to, in the format of `mdl.crc_json`.

A line is the receipt of one file, or says that the file has none any more; the last line of a file counts, and one that
makes no sense gives no receipt. Once half of the lines are of no use, the record is written again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mdl import crc_json
from mdl.bounds import LARGEST_JSON, LARGEST_RECORD
from mdl.disk import publish, refuses_order, sync, write_all
from mdl.disk.mutex import try_lock, unlock_and_close
from mdl.disk.own_files import make_private_dir, open_own, open_own_regular
from mdl.errors import MdlError, StateError, Unsafe
from mdl.files import ACCESSES, VOUCHERS, HubFile, Receipt, RemoteFile, Stamp
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.values import facts_of

AnyWord = TypeVar("AnyWord", bound=str)
Value = TypeVar("Value")

VERSION = 2
"""Of the format. A line that a newer mdl wrote is not read."""
_REPO_TYPES = ("model", "dataset", "space")
_OPTIONAL = (str, type(None))
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(
        ("model", "path", "digest", "verified", "url", "asked", "endpoint", "access", "vouched_by"), (str,)
    ),
    **dict.fromkeys(("validator", "commit", "catalog"), _OPTIONAL),
    **dict.fromkeys(("suspect", "adopted"), (bool,)),
    **dict.fromkeys(("stamp", "prefixes"), (list,)),
    **dict.fromkeys(("hub", "replaced"), (list, type(None))),
}
"""The facts of a receipt, and of which type each may be."""
_ITEM_KINDS: dict[str, type] = {"stamp": int, "replaced": int, "prefixes": str, "hub": str}
"""Of which type the members of its lists are."""
_OF_HUB = ("repo", "repo_type", "revision", "path", "branch")
_SPARE = 32
"""A record may have so many lines of no use, beside as many as it has receipts."""
_REWRITE_SECONDS = 10.0
"""How long another process that writes the record anew is waited for. What this one appended to the old file meanwhile
would be lost."""


class Record:
    """The record of one model, as it is on the disk. ``by_path`` has what its last line says of each file, in the order
    in which they were written: a receipt, or the line itself if that makes no sense. ``is_newer`` if a newer mdl wrote
    one of them."""

    def __init__(self, model: str, path: Path) -> None:
        self.path = path
        self._model = model
        self._clear()

    def _clear(self) -> None:
        self.by_path: dict[str, Receipt | bytes] = {}
        self.is_newer = False
        self._damaged = 0
        self._count = 0
        self._read = 0
        self._state = (0, 0, 0)
        self._last = _sign_of(b"")

    def refresh(self) -> None:
        """Read what was appended since the last time, or everything if it is another file now."""
        state = self._look()
        if state == self._state:
            return
        if not self._has_grown(state):
            self._clear()
        last = b""
        for line in self._lines_from(self._read):
            self._read += len(line)
            last = line
            self._add(line.removesuffix(b"\n"))
        if last:
            self._last = _sign_of(last)
        self._state = state

    def _has_grown(self, state: tuple[int, int, int]) -> bool:
        """Tell whether the record in this ``state`` goes on after what was read of it. Its inode does not prove that: a
        new file may have the old one's."""
        inode, size, _ = state
        length, _ = self._last
        if not length or inode != self._state[0] or size < self._read:
            return False
        return _sign_of(next(self._lines_from(self._read - length), b"")) == self._last

    def _lines_from(self, start: int) -> Iterator[bytes]:
        """Yield the record's lines from byte ``start`` on; none if they cannot be read or trusted. A torn last line is
        left out: it may still be on its way. What is longer than any receipt comes in pieces, which make no sense."""
        with contextlib.suppress(OSError, Unsafe), os.fdopen(open_own_regular(self.path), "rb") as file:
            file.seek(start)
            for line in iter(partial(file.readline, LARGEST_RECORD), b""):
                is_whole = line.endswith(b"\n") or len(line) == LARGEST_RECORD
                if not is_whole or file.tell() > LARGEST_JSON:
                    return
                yield line

    def _look(self) -> tuple[int, int, int]:
        """Return what tells whether the record has changed: its inode, size and time; zeros if there is none."""
        try:
            status = os.lstat(self.path)
        except OSError:
            return 0, 0, 0
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _add(self, line: bytes) -> None:
        """Take note of a line."""
        facts = crc_json.facts_in(line)
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
            is_of_model = receipt is not None and receipt.model == self._model
            self._take(path, receipt if is_of_model else line)

    def _take(self, path: str, last: Receipt | bytes | None) -> None:
        self._count += 1
        self.by_path.pop(path, None)
        if last is not None:
            self.by_path[path] = last

    def check_version(self) -> Record:
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
        if isinstance(last, Receipt):
            return len(line_of(last)) - 1
        return len(last)

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
            self._last = _sign_of(data[data[:-1].rfind(b"\n") + 1 :])
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
                try_lock(fd, _REWRITE_SECONDS)
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


def _sign_of(line: bytes) -> tuple[int, int]:
    """Return the length and a hash of a line, by which a change is noticed. A call may hold thousands of records."""
    return len(line), hash(line)


def _sharing(receipt: Receipt, remote: RemoteFile) -> Receipt:
    """Return the same receipt. What it has in common with the file at its source is kept once: there may be 100,000 of
    both."""
    return replace(
        receipt,
        path=remote.path,
        url=_one_of_both(receipt.url, remote.url),
        digest=_one_of_both(receipt.digest, remote.digest),
        hub=_one_of_both(receipt.hub, remote.hub),
    )


def _one_of_both(own: Value, other: Value | None) -> Value:
    """Return the ``other`` value in place of an equal one."""
    if other is not None and other == own:
        return other
    return own


# The lines of a record.


def line_of(receipt: Receipt) -> bytes:
    """Return the line of a receipt, with its end."""
    facts = {
        "mdl-receipt": VERSION,
        **facts_of(receipt),
        "path": receipt.path.text,
        "stamp": list(facts_of(receipt.stamp).values()),
        "digest": str(receipt.digest),
        "hub": [getattr(receipt.hub, name) for name in _OF_HUB] if receipt.hub else None,
        "endpoint": receipt.hub.endpoint if receipt.hub else "",
        "replaced": list(facts_of(receipt.replaced).values()) if receipt.replaced else None,
    }
    return crc_json.dumps(facts)


def gone_line(path: str) -> bytes:
    """Return the line that says that the file at ``path`` has no receipt any more."""
    return crc_json.dumps({"mdl-receipt": VERSION, "path": path, "gone": True})


def receipt_of(facts: dict[str, Any]) -> Receipt | None:
    """Return the receipt with the ``facts`` of a line; None if they make no sense."""
    try:
        if not crc_json.are_of_types(facts, _KINDS):
            return None
        _check_lists(facts)
        algorithm, _, digits = facts["digest"].partition(":")
        path = RelPath.of_repository(facts["path"])
        return Receipt(
            model=sys.intern(RelPath.parse(facts["model"]).text),
            path=path,
            stamp=Stamp(*facts["stamp"]),
            digest=Digest.parse(algorithm, digits),
            verified=sys.intern(facts["verified"]),
            url=facts["url"],
            asked=facts["asked"],
            validator=facts["validator"],
            commit=_interned(facts["commit"]),
            catalog=_interned(facts["catalog"]),
            suspect=facts["suspect"],
            adopted=facts["adopted"],
            access=_one_of(ACCESSES, facts["access"]),
            vouched_by=_one_of(VOUCHERS, facts["vouched_by"]),
            replaced=Stamp(*facts["replaced"]) if facts["replaced"] else None,
            prefixes=tuple(facts["prefixes"]),
            hub=_hub_file(facts["hub"], facts["endpoint"], path) if facts["hub"] is not None else None,
        )
    except (KeyError, ValueError, TypeError, AttributeError, MdlError):
        return None


def _check_lists(facts: dict[str, Any]) -> None:
    """Raises `TypeError` unless each list has only what it may hold."""
    for key, kind in _ITEM_KINDS.items():
        for item in facts[key] or ():
            if type(item) is not kind:
                raise TypeError(f"{item!r} in {key} of a receipt")


def _one_of(words: Sequence[AnyWord], word: str) -> AnyWord:
    """Return the word among ``words`` that ``word`` is. Raises `ValueError` if it is none."""
    return words[words.index(word)]


def _interned(text: str | None) -> str | None:
    """Return a text that many files of a model have in common, which is kept once."""
    return None if text is None else sys.intern(text)


def _hub_file(facts: Any, endpoint: str, file: RelPath) -> HubFile:
    repo, repo_type, revision, path, branch = facts
    if repo_type not in _REPO_TYPES:
        raise ValueError(f"{facts!r} is not a file of a hub")
    if path != file.text:
        path = RelPath.of_repository(path).text
    return HubFile(
        repo=sys.intern(repo),
        repo_type=sys.intern(repo_type),
        revision=sys.intern(revision),
        path=path,
        branch=sys.intern(branch),
        endpoint=sys.intern(endpoint),
    )
