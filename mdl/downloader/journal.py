"""Journals: which bytes of a partial are safely on disk. A journal is never ahead of the disk.

Each line is one fact in the format of `mdl.crc_json`. The first line is the file's identity. Every other one claims a
range of bytes and is appended only after they were synced, or notes the validator of a host that serves the file. A
torn or damaged line claims nothing; if the first line is damaged, the whole journal claims nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mdl import crc_json
from mdl.disk import sync, write_all
from mdl.disk.safe_open import open_new, open_own, read_regular
from mdl.errors import StateError
from mdl.files import RemoteFile
from mdl.net.ranges import ByteRange, RangeSet
from mdl.presigned import url_identity
from mdl.values import value_class

VERSION = 1
_NONE: Mapping[str, str] = {}
LARGEST = 16 * 2**20
"""Bytes of a journal that are read. One that is half as long is written anew when its download is resumed."""


@value_class
class Identity:
    """The file that a partial is part of. ``digest`` is text or None; ``url`` is as `identity` returns it."""

    url: str
    size: int | None
    digest: str | None
    validator: str | None
    commit: str | None

    @classmethod
    def of(cls, remote: RemoteFile) -> Identity:
        digest = str(remote.digest) if remote.digest else None
        return cls(url_identity(remote.url), remote.size, digest, remote.validator, remote.commit)

    def resumable_as(self, other: Identity) -> bool:
        """Whether bytes of this file are bytes of ``other``: both have the same digest and size, or, if no digest is
        known, the same URL, size and strong validator."""
        if self.size != other.size and None not in (self.size, other.size):
            return False
        if self.digest or other.digest:
            return self.digest == other.digest
        return self.validator is not None and (self.url, self.validator) == (other.url, other.validator)


_KINDS: dict[str, tuple[type, ...]] = {
    "url": (str,),
    "size": (int, type(None)),
    **dict.fromkeys(("digest", "validator", "commit"), (str, type(None))),
}


@dataclass
class Record:
    """What a journal says: ``have`` is on disk, ``validators`` maps an origin to the ETag or date that it sent."""

    identity: Identity
    have: RangeSet = field(default_factory=RangeSet)
    validators: dict[str, str] = field(default_factory=dict)

    def resumable_as(self, identity: Identity) -> bool:
        """Whether these bytes are bytes of ``identity``, and it is not shorter than they are."""
        return self.identity.resumable_as(identity) and (identity.size is None or self.have.end <= identity.size)


def header(identity: Identity) -> bytes:
    """The first line of a journal."""
    return crc_json.dumps({"mdl-journal": VERSION, **vars(identity)})


def parse(data: bytes, name: str) -> Record | None:
    """Read a journal's bytes; None if it claims nothing at all.

    Raises `StateError` if a newer mdl wrote it; ``name`` is for that message.
    """
    lines = data.split(b"\n")[:-1]
    if not lines:
        return None
    head = crc_json.loads(lines[0])
    if not isinstance(head, dict):
        return None
    version = head.pop("mdl-journal", None)
    if isinstance(version, int) and version > VERSION:
        raise StateError("a newer mdl wrote this journal", item=name, hint="upgrade mdl, or 'mdl clean'")
    if version != VERSION or set(head) != set(_KINDS) or any(type(head[key]) not in _KINDS[key] for key in head):
        return None
    identity = Identity(**head)
    claims = []
    validators = {}
    for line in lines[1:]:
        fact = crc_json.loads(line)
        if isinstance(fact, list) and len(fact) == 2 and all(type(n) is int for n in fact):
            start, stop = fact
            if 0 <= start < stop and (identity.size is None or stop <= identity.size):
                claims.append(ByteRange(start, stop))
        elif isinstance(fact, dict) and isinstance(fact.get("origin"), str) and isinstance(fact.get("validator"), str):
            validators[fact["origin"]] = fact["validator"]
    return Record(identity, RangeSet(claims), validators)


def load(path: Path) -> Record | None:
    """Read the journal at ``path``; None if there is none, if it claims nothing, or if another user may have written
    it. Raises `StateError`."""
    try:
        data = read_regular(path, LARGEST)
    except OSError:
        return None
    return None if data is None else parse(data, str(path))


class Journal:
    """An open journal. It is only appended to."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def create(
        cls, path: Path, identity: Identity, have: Iterable[ByteRange] = (), validators: Mapping[str, str] = _NONE
    ) -> Journal:
        """Begin anew: what was there claims nothing from now on, even after a power cut; ``have`` is on disk. Raises
        `OSError`."""
        journal = cls(open_new(path, os.O_WRONLY | os.O_APPEND))
        try:
            journal._append(header(identity))
            journal.claim(have)
            for origin, validator in validators.items():
                journal.note_validator(origin, validator)
            sync(journal._fd)
        except BaseException:
            journal.close()
            raise
        return journal

    @classmethod
    def reopen(cls, path: Path) -> Journal:
        """Go on with a journal that was read. A torn last line gets a newline first, so that it stays one damaged line.
        Raises `OSError`."""
        journal = cls(open_own(path, os.O_RDWR | os.O_APPEND))
        size = os.fstat(journal._fd).st_size
        if size and os.pread(journal._fd, 1, size - 1) != b"\n":
            journal._append(b"\n")
        return journal

    def claim(self, ranges: Iterable[ByteRange]) -> None:
        """Record that these bytes are on disk. Call this only after they were synced. Raises `OSError`."""
        self._append(b"".join(crc_json.dumps([item.start, item.stop]) for item in ranges))

    def note_validator(self, origin: str, validator: str) -> None:
        """Record what an origin sent as the file's ETag or date. Raises `OSError`."""
        self._append(crc_json.dumps({"origin": origin, "validator": validator}))

    def sync(self) -> None:
        """Make all claims survive a power cut; they survive a killed process anyway. Raises `OSError`."""
        sync(self._fd, data_only=True)

    def close(self) -> None:
        """Close the file, once. Raises `OSError`."""
        fd = self._fd
        self._fd = -1
        if fd >= 0:
            os.close(fd)

    def _append(self, data: bytes) -> None:
        write_all(self._fd, data)
