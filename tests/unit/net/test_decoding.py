"""Undoing Content-Encoding: every framing of gzip, pieces of bounded size, and bodies that are cut or damaged."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import each

from mdl.net.body import STEP, gunzip
from mdl.net.responses import codings_of, is_as_stored, is_readable

CODED = {
    "gzip": gzip.compress,
    "members": lambda data: gzip.compress(data[:7], mtime=0) + gzip.compress(b"") + gzip.compress(data[7:]),
}


def decoded(chunks: Iterable[bytes]) -> tuple[list[bytes], bool]:
    """The pieces, and whether the chunks end where a member ends."""
    pieces, decoder = list[bytes](), gunzip(chunks)
    while True:
        try:
            pieces.append(next(decoder))
        except StopIteration as end:
            return pieces, end.value


@pytest.mark.parametrize("how", CODED)
@settings(deadline=None)
@given(data=st.binary(max_size=200), repeats=st.integers(0, 3000), cut=st.integers(1, 100))
def test_gunzip(how: str, data: bytes, repeats: int, cut: int) -> None:
    """In any chunks: the same bytes, in pieces of a bounded size, complete at the end and not before."""
    whole = data + b" " * (repeats * 1000)
    body = CODED[how](whole)
    pieces, is_complete = decoded([body[at : at + cut] for at in range(0, len(body), cut)])
    assert b"".join(pieces) == whole
    assert is_complete
    assert max(map(len, pieces), default=0) <= STEP
    pieces, is_complete = decoded([body[:-1]])
    assert whole.startswith(b"".join(pieces))
    assert not is_complete


@pytest.mark.parametrize(
    "body",
    [b"no gzip", gzip.compress(b"a", mtime=0) + b"rest", gzip.compress(b"a", mtime=0)[:-8] + bytes(8)],
    ids=["none", "more after it", "another checksum"],
)
def test_no_gzip(body: bytes) -> None:
    """Bytes that are no gzip, that follow its end, or whose checksum is wrong are refused."""
    with pytest.raises(zlib.error):
        decoded([body])


@each(
    ("text", "codings", "readable"),
    [
        *((text, (), False) for text in ("", "identity", " Identity , ")),
        *((text, (text.strip().lower(),), True) for text in ("gzip", "x-gzip", " GZip ")),
        *((text, (text,), False) for text in ("br", "zstd", "deflate")),
        ("gzip, gzip", ("gzip", "gzip"), False),
    ],
)
def test_codings(text: str, codings: tuple[str, ...], readable: bool) -> None:
    """Only gzip alone is decoded: no other coding, and no coding inside another. ``identity`` is no coding."""
    found = codings_of({"content-encoding": text})
    assert (found, is_readable(found)) == (codings, readable)


@each(
    ("coding", "name", "pinned", "length", "size", "expected"),
    [
        ("gzip", "m.tar.gz", False, 9, None, True),
        ("gzip", "config.json", False, 9, None, False),
        ("gzip", "config.json", False, 9, 9, False),
        ("gzip", "config.json", True, 9, 9, True),
        ("gzip", "m.tar.gz", True, 9, 99, False),
        ("gzip", "m.tar.gz", True, None, 99, True),
        ("gzip", "config.json", True, None, 99, False),
        ("gzip, gzip", "m.tar.gz", False, 9, None, False),
        ("x-bzip2", "m.bz2", False, 9, None, True),
        ("zstd", "m.zst", False, None, None, True),
        ("br", "m.tar.gz", False, 9, 9, False),
        ("br", "config.json", True, 9, 99, True),
    ],
)
def test_is_as_stored(
    coding: str, name: str, pinned: bool, length: int | None, size: int | None, expected: bool
) -> None:
    """If a digest decides in the end, the length tells whether an encoding is the file itself; else its name does."""
    codings = codings_of({"content-encoding": coding})
    assert is_as_stored(codings, [name], pinned=pinned, length=length, size=size) is expected
