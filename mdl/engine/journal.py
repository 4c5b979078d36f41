"""Journal: which bytes of a partial are safely on disk. Never ahead of the disk.

One line a fact, each with its own CRC-32: ``<8 hex> <json>\\n``. The first line is the file's identity; every
other one claims a range, appended only after those bytes were synced, or notes the validator of a host
that serves them. A line that is torn or damaged claims nothing; a damaged first line, and nothing is claimed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdl import crc_json
from mdl.errors import StateError
from mdl.files import RemoteFile
from mdl.fs.private import open_new, open_own, read_regular
from mdl.http.ranges import ByteRange, RangeSet
from mdl.presigned import identity

VERSION = 1
LARGEST = 16 * 2**20
"""Of a longer journal only the beginning is read; half as long, and it is written anew when it is gone on with."""


@dataclass(frozen=True)
class Identity:
    """What a partial is a part of. ``digest`` as text, or None; ``url`` is what `identity` makes of it."""

    url: str
    size: int | None
    digest: str | None
    validator: str | None
    commit: str | None

    @classmethod
    def of(cls, remote: RemoteFile) -> Identity:
        digest = str(remote.digest) if remote.digest else None
        return cls(identity(remote.url), remote.size, digest, remote.validator, remote.commit)

    def resumable_as(self, other: Identity) -> bool:
        """True where bytes of this are bytes of ``other``: the same digest and size, or, where no digest is
        known, the same URL, size and strong validator."""
        if self.size != other.size and None not in (self.size, other.size):
            return False
        if self.digest or other.digest:
            return self.digest == other.digest
        return self.validator is not None and (self.url, self.validator) == (other.url, other.validator)


@dataclass
class Record:
    """What a journal says: ``have`` is on disk, ``validators`` maps an origin to what it called the file."""

    identity: Identity
    have: RangeSet = field(default_factory=RangeSet)
    validators: dict[str, str] = field(default_factory=dict)

    def resumable_as(self, identity: Identity) -> bool:
        """Bytes of this are bytes of ``identity``, and not more than it has."""
        return self.identity.resumable_as(identity) and (identity.size is None or self.have.end <= identity.size)


def header_of(identity: Identity) -> bytes:
    return crc_json.dumps({"mdl-journal": VERSION, **vars(identity)})


def parse(data: bytes, name: str) -> Record | None:
    """Read a journal's bytes. None where it claims nothing at all.

    Raises `StateError` where a newer mdl wrote it; ``name`` is for that message.
    """
    lines = data.split(b"\n")[:-1]
    if not lines:
        return None
    identity = _identity(crc_json.loads(lines[0]), name)
    if identity is None:
        return None
    record, claims = Record(identity), []
    for line in lines[1:]:
        claims += _take(record, crc_json.loads(line))
    record.have = RangeSet(claims)
    return record


def _identity(head: Any, name: str) -> Identity | None:
    if not isinstance(head, dict):
        return None
    version = head.pop("mdl-journal", None)
    if isinstance(version, int) and version > VERSION:
        raise StateError("a newer mdl wrote this journal", item=name, hint="upgrade mdl, or 'mdl clean'")
    texts = [head.get(key) for key in ("digest", "validator", "commit")]
    sound = (
        version == VERSION and isinstance(head.get("url"), str) and all(t is None or isinstance(t, str) for t in texts)
    )
    size = head.get("size")
    if not sound or set(head) != set(Identity.__annotations__) or not (size is None or type(size) is int):
        return None
    return Identity(**head)


def _take(record: Record, fact: Any) -> list[ByteRange]:
    """The bytes that a line claims; a validator is noted."""
    size = record.identity.size
    if isinstance(fact, list) and len(fact) == 2 and all(type(n) is int for n in fact):
        start, stop = fact
        if 0 <= start < stop and (size is None or stop <= size):
            return [ByteRange(start, stop)]
    elif isinstance(fact, dict) and isinstance(fact.get("origin"), str) and isinstance(fact.get("validator"), str):
        record.validators[fact["origin"]] = fact["validator"]
    return []


def load(path: Path) -> Record | None:
    """Read the journal at ``path``; None where there is none that claims anything, or it may be somebody else's work.
    Raises `StateError`."""
    try:
        data = read_regular(path, LARGEST)
    except OSError:
        return None
    return None if data is None else parse(data, str(path))


class Journal:
    """An open journal, only ever appended to."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path, self._fd = path, fd

    @classmethod
    def create(cls, path: Path, identity: Identity) -> Journal:
        """Begin anew: what stood there claims nothing from now on, also after a power cut."""
        journal = cls(path, open_new(path, os.O_WRONLY | os.O_APPEND))
        journal._append(header_of(identity))
        os.fsync(journal._fd)
        return journal

    @classmethod
    def reopen(cls, path: Path) -> Journal:
        """Go on with a journal that was read. A torn tail is closed with a newline first, so that it
        stays one damaged line."""
        journal = cls(path, open_own(path, os.O_RDWR | os.O_APPEND))
        size = os.fstat(journal._fd).st_size
        if size and os.pread(journal._fd, 1, size - 1) != b"\n":
            journal._append(b"\n")
        return journal

    def claim(self, ranges: Iterable[ByteRange]) -> None:
        """Say that these bytes are on disk. Call it only after they were synced."""
        self._append(b"".join(crc_json.dumps([item.start, item.stop]) for item in ranges))

    def note_validator(self, origin: str, validator: str) -> None:
        self._append(crc_json.dumps({"origin": origin, "validator": validator}))

    def sync(self) -> None:
        """Have all claims survive a power cut too; a killed process costs none of them. Raises `OSError`."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
