"""Tar headers: tarfile and mdl read what mdl writes, and mdl reads what GNU's and POSIX's formats write."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
from support.cases import each

from mdl.archive.tar import END, TarMember, TarReader, header, padding
from mdl.errors import ProtocolError
from mdl.paths import RelPath

SIZES = (0, 1, 511, 512, 8 * 2**30 - 1, 8 * 2**30, 70 * 10**9)
NAMES = ("a.bin", "n" * 100, "d/" * 50 + "n" * 101, "x" * 255, "مدل/é.bin")
FORMATS: dict[str, Callable[[str, int], bytes]] = {"mdl": header}
for name, number in {"ustar and pax": tarfile.PAX_FORMAT, "GNU": tarfile.GNU_FORMAT}.items():

    def made(path: str, size: int, number: int = number) -> bytes:
        info = tarfile.TarInfo(path)
        info.size = size
        return info.tobuf(number, "utf-8")

    FORMATS[name] = made


class Sparse:
    """The bytes of a tar whose files are holes: only the headers are held."""

    def __init__(self, *pieces: bytes | int) -> None:
        self._pieces = list(pieces)

    def read_into(self, view: memoryview) -> int:
        piece = self._pieces.pop(0) if self._pieces else b""
        assert isinstance(piece, bytes)
        count = min(len(view), len(piece))
        view[:count] = piece[:count]
        if piece[count:]:
            self._pieces.insert(0, piece[count:])
        return count

    def skip(self, count: int) -> None:
        if count:
            assert self._pieces.pop(0) == count


@pytest.mark.parametrize("form", FORMATS)
def test_every_name_and_size(form: str) -> None:
    """Long names, names that are not ASCII, and sizes above 8 GiB come back as they were; tarfile reads the same."""
    for path in NAMES:
        for size in SIZES:
            head = FORMATS[form](path, size)
            body = size + len(padding(size))
            assert len(head) % 512 == body % 512 == 0
            [found] = TarReader(Sparse(head, *([body] if body else []), END))
            assert found == TarMember(RelPath.parse(path), size)
            with tarfile.open(fileobj=io.BytesIO(head + END)) as tar:
                first = tar.next()
                assert first is not None
                assert (first.name, first.size, first.isreg()) == (path, size, True)


@each("cut", [0, 1, 511, 512, 600, 1023, 1024])
def test_what_is_cut_off(cut: int) -> None:
    """A tar that ends anywhere before its end is refused as truncated, also between two members."""
    whole = header("a", 5) + b"12345" + padding(5)
    with pytest.raises(ProtocolError, match="ends too early"):
        for _ in (reader := TarReader(Bytes(whole[:cut]))):
            reader.read_into(memoryview(bytearray(9)))


class Bytes(Sparse):
    """The same for a tar that is all there."""

    def skip(self, count: int) -> None:
        if self.read_into(memoryview(bytearray(count))) < count:
            raise ProtocolError("it ends too early")
