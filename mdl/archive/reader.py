"""Reader: an archive that was checked before anything else, and its members' bytes, each held against its digests."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from mdl.archive.compression import crc32, inflate_errors, new_inflater
from mdl.archive.directory import Directory, read_directory
from mdl.archive.headers import Listed
from mdl.archive.limits import Limits
from mdl.archive.manifest import NAME, Manifest
from mdl.archive.records import STORED
from mdl.errors import DigestMismatch, NotFound, ProtocolError, StateError, Unsafe
from mdl.files import Stamp

_BLOCK = 2**20
_READ = 256 * 2**10
_HINTS = {
    ProtocolError.exit_code: "nothing was written; fetch or pack the archive again",
    Unsafe.exit_code: "nothing was written; look at who made this archive",
}
_MANIFEST_BASE, _MANIFEST_LINE, _ESCAPED = 2**20, 200, 6
"""Bytes that a manifest may have: for itself, for a line, and for each byte of a name where JSON escapes it."""


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever is wrong is wrong with this archive, and its source is the place to look at."""
    try:
        yield
    except (ProtocolError, Unsafe, StateError) as error:
        error.item = f"{path}: {error.item}" if error.item else str(path)
        error.hint = error.hint or _HINTS.get(error.exit_code)
        raise


class Archive:
    """An open zip. Everything is checked when it is opened: `members` and `manifest` can be relied on.

    ``manifest`` is None where the zip brings none. Raises `NotFound`, `ProtocolError`, `Unsafe`, `StateError`,
    `OSError`.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self._fd = _opened(path)
        try:
            with _named(path):
                self._stamp = Stamp.of(os.fstat(self._fd))
                self._directory: Directory = read_directory(self._fd, limits)
                limits.check(self.members)
                self.manifest = self._read_manifest()
        except BaseException:
            os.close(self._fd)
            raise
        self._pool = ThreadPoolExecutor(1, "mdl-hash")

    @property
    def members(self) -> tuple[Listed, ...]:
        """In the order of their data."""
        return self._directory.members

    @property
    def size(self) -> int:
        """Bytes that all members have unpacked."""
        return sum(member.size for member in self.members)

    def copy(self, member: Listed, to: int | None) -> Iterator[int | str]:
        """Write a member's bytes to the descriptor ``to``, if any: yields the bytes of each step, at last the sha256.

        Raises `ProtocolError` for damage, `OSError`.
        """
        hasher, crc, count = hashlib.sha256(), 0, 0
        hashing = None

        def hashed(block: bytes | memoryview) -> None:
            nonlocal crc
            crc = crc32(block, crc)
            hasher.update(block)

        for block in self._blocks(member):
            if hashing:
                hashing.result()
            hashing = self._pool.submit(hashed, block)
            if to is not None:
                _write(to, block)
            count += len(block)
            yield len(block)
        if hashing:
            hashing.result()
        if count != member.size:
            raise ProtocolError(f"{count} bytes, the directory says {member.size}", item=member.shown)
        if crc != member.crc:
            raise DigestMismatch(f"damaged: CRC {crc:08x}, the archive says {member.crc:08x}", item=member.shown)
        yield hasher.hexdigest()

    def check_unchanged(self) -> None:
        """Raises `ProtocolError` where somebody wrote to the archive meanwhile."""
        if Stamp.of(os.fstat(self._fd)) != self._stamp:
            raise ProtocolError("the archive changed while it was read")

    def named(self) -> AbstractContextManager[None]:
        """A context in which errors bear the archive's name."""
        return _named(self.path)

    def _blocks(self, member: Listed) -> Iterator[bytes]:
        return self._stored(member) if member.method == STORED else self._inflated(member)

    def _stored(self, member: Listed) -> Iterator[bytes]:
        at, stop = member.data, member.data + member.packed
        while at < stop:
            block = os.pread(self._fd, min(_BLOCK, stop - at), at)
            if not block:
                raise ProtocolError("the archive was cut", item=member.shown)
            at += len(block)
            yield block

    def _inflated(self, member: Listed) -> Iterator[bytes]:
        """Never more than one byte past the size that was announced."""
        inflater, at, stop, left = new_inflater(), member.data, member.data + member.packed, member.size
        data = b""
        while not inflater.eof:
            if not data:
                data = os.pread(self._fd, min(_READ, stop - at), at)
                at += len(data)
            try:
                block = inflater.decompress(data, min(_BLOCK, left + 1))
            except inflate_errors() as error:
                raise ProtocolError(f"damaged: {error}", item=member.shown) from error
            if not data and not block and not inflater.eof:
                raise ProtocolError("damaged: its data ends too early", item=member.shown)
            data = inflater.unconsumed_tail
            left -= len(block)
            if left < 0:
                raise ProtocolError(f"it unpacks to more than the {member.size} bytes announced", item=member.shown)
            if block:
                yield block
        if at != stop or data or inflater.unused_data:
            raise ProtocolError("data follows its end", item=member.shown)

    def _read_manifest(self) -> Manifest | None:
        """mdl's own member, held against the directory."""
        bearing = [one for one in self.members if f"{one.path}/".startswith(f"{NAME}/")]
        if any(one.is_folder or one.path.text != NAME for one in bearing):
            raise Unsafe("a folder of this name; only mdl's manifest bears it", item=NAME)
        if not bearing:
            return None
        found = bearing[0]
        if found.size > _MANIFEST_BASE + sum(_MANIFEST_LINE + _ESCAPED * len(one.raw) for one in self.members):
            raise ProtocolError("its manifest is too long for its members", item=NAME)
        data = b"".join(self._blocks(found))
        if len(data) != found.size or crc32(data) != found.crc:
            raise DigestMismatch("its manifest is damaged", item=NAME)
        manifest = Manifest.from_json(data)
        manifest.against({one.path.text: one.size for one in self.members if not one.is_folder and one is not found})
        return manifest

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        os.close(self._fd)


def _opened(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound("no such archive", item=str(path), hint="name the zip that was fetched or packed") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        hint = "name a zip file; a pipe cannot be read"
        raise ProtocolError("this is no archive, not even a file", item=str(path), hint=hint)
    return fd


def _write(fd: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view) :]
