"""Journals: which bytes of a partial were written, and which of these are on the disk. A journal is never ahead.

Each line is one fact in the format of `mdl.crc_json`. The first line is the file's identity. Each other line is one of

- ``[start, stop, boot]``: these bytes were written in this boot of this machine. They are there as long as that boot
  lasts, also if mdl was killed; a power cut may have taken them.
- ``{"synced": offset, "boot": boot}``: what the lines before this offset claim of this boot is on the disk. What an
  earlier boot wrote and did not sync may be gone, and no later sync brings it back.
- ``{"lost": true}``: a sync failed. What the lines above claim and no sync confirmed is not there.
- ``[start, stop]``: these bytes are on the disk.
- ``{"origin": …, "validator": …}``: what a host that serves the file sent as its ETag or date.

A torn or damaged line claims nothing; if the first line is damaged, the whole journal claims nothing. (ADR 66)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdl import crc_json
from mdl.bounds import LARGEST_DOCUMENT
from mdl.disk import sync, write_all
from mdl.disk.own_files import open_new, open_own, read_own
from mdl.disk.process import this_boot
from mdl.errors import StateError
from mdl.files import RemoteFile
from mdl.net.ranges import ByteRange, RangeSet
from mdl.urls import url_identity
from mdl.values import value_class

VERSION = 1
_NONE: Mapping[str, str] = {}


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
        """Return whether bytes of this file are bytes of ``other``: both have the same digest and size, or, if no
        digest is known, the same URL, size and strong validator."""
        sizes = {self.size, other.size} - {None}
        if len(sizes) > 1:
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
    """What a journal says: the bytes that the partial has, and those of them that are ``on_disk``. ``validators`` maps
    an origin to the ETag or date that it sent."""

    identity: Identity
    have: RangeSet = field(default_factory=RangeSet)
    on_disk: RangeSet = field(default_factory=RangeSet)
    validators: dict[str, str] = field(default_factory=dict)

    def resumable_as(self, identity: Identity) -> bool:
        """Return whether these bytes are bytes of ``identity``, and it is not shorter than they are."""
        return self.identity.resumable_as(identity) and (identity.size is None or self.have.end <= identity.size)


def header(identity: Identity) -> bytes:
    """Return the first line of a journal."""
    return crc_json.dumps({"mdl-journal": VERSION, **vars(identity)})


def parse(data: bytes, name: str) -> Record | None:
    """Read a journal's bytes; None if it claims nothing at all.

    Raises `StateError` if a newer mdl wrote it; ``name`` is for that message.
    """
    first, *lines = data.split(b"\n")
    if not lines:
        return None
    identity = _identity(crc_json.facts_in(first), name)
    if identity is None:
        return None
    on_disk: list[ByteRange] = []
    written: list[_Claim] = []
    validators: dict[str, str] = {}
    offset = len(first) + 1
    for line in lines[:-1]:
        match crc_json.loads(line):
            case [start, stop]:
                on_disk += _claimed(identity, start, stop)
            case [start, stop, boot]:
                for claimed in _claimed(identity, start, stop):
                    written.append(_Claim(offset, claimed, boot))
            case {"origin": str(origin), "validator": str(validator)}:
                validators[origin] = validator
            case {"synced": int(length), "boot": boot} if length <= offset:
                unconfirmed: list[_Claim] = []
                for claim in written:
                    if claim.is_confirmed(length, boot):
                        on_disk.append(claim.bytes)
                    else:
                        unconfirmed.append(claim)
                written = unconfirmed
            case {"lost": True}:
                written = []
        offset += len(line) + 1
    have = list(on_disk)
    boot_now = this_boot()
    if boot_now:
        have += [claim.bytes for claim in written if claim.boot == boot_now]
    return Record(identity, RangeSet(have), RangeSet(on_disk), validators)


@value_class
class _Claim:
    """These ``bytes`` were written in a ``boot``. It is at an ``offset`` of the journal."""

    offset: int
    bytes: ByteRange
    boot: object

    def is_confirmed(self, length: int, boot: object) -> bool:
        """Return whether a sync in this ``boot`` after so many bytes of the journal brought it to the disk."""
        return self.offset < length and self.boot == boot


def _identity(head: dict[str, Any], name: str) -> Identity | None:
    """Return the identity that the first line tells; None if it tells none. Raises `StateError` as `parse` does."""
    version = head.pop("mdl-journal", None)
    if isinstance(version, int) and version > VERSION:
        raise StateError("a newer mdl wrote this journal", item=name, hint="upgrade mdl, or 'mdl clean'")
    if version != VERSION or head.keys() != _KINDS.keys() or not crc_json.are_of_types(head, _KINDS):
        return None
    return Identity(**head)


def _claimed(identity: Identity, start: object, stop: object) -> list[ByteRange]:
    """Return the range that a claim names; nothing if no bytes of this file lie there."""
    if type(start) is not int or type(stop) is not int or not 0 <= start < stop:
        return []
    if identity.size is not None and stop > identity.size:
        return []
    return [ByteRange(start, stop)]


def load(path: Path) -> Record | None:
    """Read the journal at ``path``; None if there is none, if it claims nothing, or if another user may have written
    it. Raises `StateError`."""
    try:
        data = read_own(path, LARGEST_DOCUMENT)
    except OSError:
        return None
    return None if data is None else parse(data, str(path))


class Journal:
    """An open journal, which is only appended to. One thread at a time may append."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._length = os.fstat(fd).st_size

    @classmethod
    def create(
        cls, path: Path, identity: Identity, on_disk: Iterable[ByteRange] = (), validators: Mapping[str, str] = _NONE
    ) -> Journal:
        """Begin anew: what was there claims nothing from now on, even after a power cut. The bytes ``on_disk`` were
        synced. Raises `OSError`."""
        journal = cls(open_new(path, os.O_WRONLY | os.O_APPEND))
        try:
            claims = b"".join(crc_json.dumps([claim.start, claim.stop]) for claim in on_disk)
            journal._append(header(identity) + claims)
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
        Where the system does not number its boots, what was not synced is given up: no sync of this process may confirm
        it. Raises `OSError`."""
        journal = cls(open_own(path, os.O_RDWR | os.O_APPEND))
        if journal._length and os.pread(journal._fd, 1, journal._length - 1) != b"\n":
            journal._append(b"\n")
        if not this_boot():
            journal.note_lost()
        return journal

    @property
    def length(self) -> int:
        """Bytes of the journal; `note_synced` takes it to say how far it was before a sync."""
        return self._length

    def claim(self, ranges: Iterable[ByteRange]) -> None:
        """Record that these bytes were written. Raises `OSError`."""
        boot = this_boot()
        self._append(b"".join(crc_json.dumps([claim.start, claim.stop, boot]) for claim in ranges))

    def note_synced(self, length: int) -> None:
        """Record that the claims of this boot among the first ``length`` bytes of the journal are on the disk. Raises
        `OSError`."""
        self._append(crc_json.dumps({"synced": length, "boot": this_boot()}))

    def note_lost(self) -> None:
        """Record that a sync failed: only what earlier syncs confirmed is there. If this cannot be written, the journal
        claims nothing any more. Raises `OSError` if not even that can be said."""
        try:
            self._append(b"\n" + crc_json.dumps({"lost": True}))  # the line before it may be torn
        except OSError:
            os.ftruncate(self._fd, 0)

    def note_validator(self, origin: str, validator: str) -> None:
        """Record what an origin sent as the file's ETag or date. Raises `OSError`."""
        self._append(crc_json.dumps({"origin": origin, "validator": validator}))

    def sync(self) -> None:
        """Bring what the journal says to the disk. Raises `OSError`."""
        sync(self._fd, data_only=True)

    def close(self) -> None:
        """Close the file, once. Raises `OSError`."""
        fd = self._fd
        self._fd = -1
        if fd >= 0:
            os.close(fd)

    def _append(self, data: bytes) -> None:
        try:
            write_all(self._fd, data)
        finally:
            self._length = os.fstat(self._fd).st_size
