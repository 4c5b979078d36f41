"""Base: what every open archive has: checked members, their bytes, a manifest, and limits of how much it may hold.

`mdl.archive.unpack.open_archive` tells what a file is; zips are read in `mdl.archive.zip_read`, tars in
`mdl.archive.tar`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from mdl.archive.manifest import NAME, Manifest
from mdl.archive.streaming import BackgroundHash
from mdl.disk import write_all
from mdl.disk.pool import Pool
from mdl.errors import DigestMismatch, ProtocolError, StateError, Unsafe, storage_trouble
from mdl.files import Stamp
from mdl.paths import RelPath, refuse_twin_folders, refuse_twins, shown
from mdl.values import value_class
from mdl.weights.end_records import ReadableFile

HARMLESS = 100 * 2**20
"""Bytes up to which no ratio is dangerous."""


@value_class
class ArchiveLimits:
    """How much an archive may hold before it is refused as a bomb: ``members`` in all, ``ratio`` of unpacked to packed
    bytes (above 100 MiB), and ``bytes`` unpacked (None for any number)."""

    members: int = 1_000_000
    ratio: float = 200.0
    bytes: int | None = None

    def check_count(self, count: int) -> None:
        """Raises `Unsafe` for more members than allowed."""
        if count > self.members:
            hint = "--max-members allows more, if you trust its source"
            raise Unsafe(f"{count:,} members, the limit is {self.members:,}", hint=hint)

    def check_bytes(self, size: int) -> None:
        """Raises `Unsafe` if ``size`` bytes, unpacked, are more than allowed."""
        if self.bytes is not None and size > self.bytes:
            what = f"it unpacks to {size:,} bytes and {self.bytes:,} are allowed by --max-size"
            raise Unsafe(what, hint="nothing was written")

    def check_ratio(self, size: int, packed: int, item: str | None = None) -> None:
        """Raises `Unsafe` if ``packed`` bytes unpack to so many more that it may be a bomb."""
        if size > HARMLESS and size > self.ratio * max(packed, 1):
            hint = "--max-ratio allows more, if you trust its source"
            raise Unsafe(f"{packed:,} bytes unpack to {size:,}, more than {self.ratio:g} to 1", item=item, hint=hint)


# What members may be called

TOP = RelPath("")
"""The folder that is unpacked into, as a member: it says nothing."""
_BACKSLASH = (
    "some Windows programs write '\\' for '/', and readers disagree on what it means: unpack it with '7z x', and zip it"
    " again"
)


def member_path(name: str) -> RelPath:
    """The checked path of a member; a folder's name may end with a slash. `TOP` if it is the folder that is unpacked
    into. Raises `Unsafe`."""
    segments = name.removesuffix("/").split("/")
    kept = [segment for segment in segments if segment != "."]
    if not kept and name.endswith("/"):
        return TOP
    try:
        return RelPath.parse("/".join(kept))
    except Unsafe as error:
        hint = _BACKSLASH if "\\" in name else error.hint
        raise error.but(item=shown(name)[:200], hint=hint) from error


def refuse_collisions(members: Iterable[tuple[RelPath, bool]]) -> None:
    """Refuse two members of one name, and two that would be one on some file system. Of each, its path is given and
    whether it is a folder. Raises `Unsafe`."""
    names: set[str] = set()
    files: list[RelPath] = []
    folders: list[RelPath] = []
    for path, is_folder in members:
        if path.text in names:
            raise Unsafe("it is in the archive twice", item=shown(path.text or "./"))
        names.add(path.text)
        if not is_folder:
            files.append(path)
        elif path != TOP:
            folders.append(path)
    refuse_twins(files)
    refuse_twin_folders(files, folders)


# An open archive

_SMALL = 64 * 2**10
"""Bytes up to which another thread takes longer to begin a hash than this one to finish it."""
_HINTS = {
    ProtocolError.exit_code: "nothing was written; fetch or pack the archive again",
    Unsafe.exit_code: "nothing was written; look at who made this archive",
}
_MANIFEST_BASE = 2**20
_MANIFEST_LINE = 200
_ESCAPED = 12
"""Bytes that a manifest may have: for itself, for each member, and for each character of a name, which JSON may
escape."""


class ArchiveEntry(Protocol):
    """One file or folder of an archive. ``size`` is in bytes as it is, ``packed`` as it lies in the archive, None if
    that cannot be told."""

    @property
    def path(self) -> RelPath: ...
    @property
    def is_folder(self) -> bool: ...
    @property
    def size(self) -> int: ...
    @property
    def packed(self) -> int | None: ...
    @property
    def executable(self) -> bool: ...
    @property
    def shown(self) -> str: ...


Entry = TypeVar("Entry", bound=ArchiveEntry)


class Archive(ABC, Generic[Entry]):
    """An open archive. It is checked when it is opened: afterwards `members` and `manifest` can be relied on.

    ``members`` are in the order of their data; ``manifest`` is None if the archive has none. ``checked_by`` names what
    the bytes of a file are compared with if there is no manifest. The descriptor ``fd`` is closed at the end.
    Raises `ProtocolError`, `Unsafe`, `StateError`, `StorageError`.
    """

    checked_by = "size"
    members: Sequence[Entry]

    def __init__(self, path: Path, fd: int, limits: ArchiveLimits) -> None:
        self.path = path
        self._fd = fd
        try:
            with self.named(), storage_trouble(path, ""):
                self._stamp = Stamp.of(os.fstat(fd))
                self.members = self._read_members(limits)
                self.manifest = self._read_manifest()
        except BaseException:
            os.close(fd)
            raise
        self._pool = Pool(1, "mdl-hash")

    @abstractmethod
    def _read_members(self, limits: ArchiveLimits) -> Sequence[Entry]:
        """Every member, checked. Raises as the constructor."""

    @abstractmethod
    def _blocks(self, member: Entry) -> Iterator[bytes]:
        """The bytes of a member, which are compared with what the archive says of them. Raises `ProtocolError`."""

    @property
    def size(self) -> int:
        """Bytes of all members, unpacked."""
        return sum(member.size for member in self.members)

    @property
    def file_count(self) -> int:
        """How many members are files, mdl's manifest too; the others are folders."""
        return sum(not member.is_folder for member in self.members)

    @cached_property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file by its path, as far as a manifest tells."""
        return self.manifest.digests if self.manifest else {}

    @property
    def compared_with(self) -> str:
        """What the bytes of a file are compared with: ``sha256`` if there is a manifest."""
        return "sha256" if self.manifest else self.checked_by

    def copy(self, member: Entry, to: int | None, wrote: Callable[[int], None]) -> str:
        """Write a member's bytes to the descriptor ``to``, or only check them if that is None; returns their SHA-256.

        They are compared with what the archive says of them, and with the manifest. ``wrote`` is called with the number
        of bytes of each step. Raises `ProtocolError` for damage, `OSError`.
        """
        sha256 = BackgroundHash(self._pool) if member.size > _SMALL else hashlib.sha256()
        for block in self._blocks(member):
            sha256.update(block)
            if to is not None:
                write_all(to, block)
            wrote(len(block))
        digest = sha256.hexdigest()
        expected = self.digests.get(member.path.text, digest)
        if digest != expected:
            raise DigestMismatch(f"sha256 is {digest}, the manifest says {expected}", item=member.shown)
        return digest

    @abstractmethod
    def open(self, member: Entry) -> ReadableFile:
        """A member's bytes as a file in which one can move. They are not compared with what the archive says of them,
        and what is read raises `ProtocolError` for damage."""

    def check_unchanged(self) -> None:
        """Raises `ProtocolError` if the archive was written to since it was opened."""
        if Stamp.of(os.fstat(self._fd)) != self._stamp:
            raise ProtocolError("the archive changed while it was read")

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """A context in which errors name this archive, and give a hint that fits one."""
        try:
            yield
        except (ProtocolError, Unsafe, StateError) as error:
            item = f"{self.path}: {error.item}" if error.item else str(self.path)
            raise error.but(item=item, hint=error.hint or _HINTS.get(error.exit_code)) from error

    def _read_manifest(self) -> Manifest | None:
        """mdl's own member, compared with the others."""
        own: Entry | None = None
        sizes: dict[str, int] = {}
        most = _MANIFEST_BASE
        for member in self.members:
            name = member.path.text
            most += _MANIFEST_LINE + _ESCAPED * len(name)
            if name.partition("/")[0] == NAME:
                if member.is_folder or name != NAME:
                    raise Unsafe("a folder has the name that is reserved for mdl's manifest", item=NAME)
                own = member
            elif not member.is_folder:
                sizes[name] = member.size
        if own is None:
            return None
        if own.size > most:
            raise ProtocolError("its manifest is too long for its members", item=NAME)
        manifest = Manifest.from_json(b"".join(self._blocks(own)))
        manifest.check_members(sizes)
        return manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        os.close(self._fd)


AnyArchive = Archive[Any]
"""An archive of either kind."""


class StoredMember:
    """The bytes of a stored member, ``size`` from ``start`` on in the archive that ``read(count, at)`` reads."""

    def __init__(self, read: Callable[[int, int], bytes], start: int, size: int) -> None:
        self._read = read
        self._start = start
        self._size = size
        self._at = 0

    def seek(self, at: int, /) -> int:
        """Move to ``at``, counted from the beginning."""
        self._at = at
        return at

    def read(self, count: int, /) -> bytes:
        """The next ``count`` bytes, or as many as there are."""
        left = max(0, self._size - self._at)
        data = self._read(min(count, left), self._start + self._at)
        self._at += len(data)
        return data


class InflatedMember:
    """The bytes of a deflated member. To move back means to inflate it again from its beginning.

    ``blocks`` begins that.
    """

    def __init__(self, blocks: Callable[[], Iterator[bytes]]) -> None:
        self._blocks = blocks
        self._at = 0
        self._rewind()

    def _rewind(self) -> None:
        self._left = self._blocks()
        self._block = b""
        self._block_at = 0

    def seek(self, at: int, /) -> int:
        """Move to ``at``, counted from the beginning."""
        self._at = at
        return at

    def read(self, count: int, /) -> bytes:
        """The next ``count`` bytes, or as many as there are."""
        if self._at < self._block_at:
            self._rewind()
        data = bytearray()
        while len(data) < count:
            start = self._at - self._block_at
            if start >= len(self._block):
                block = next(self._left, b"")
                if not block:
                    break
                self._block_at += len(self._block)
                self._block = block
                continue
            taken = self._block[start : start + count - len(data)]
            data += taken
            self._at += len(taken)
        return bytes(data)
