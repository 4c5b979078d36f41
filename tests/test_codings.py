"""Undoing Content-Encoding: every framing of gzip and deflate, bounded pieces, and ends that are none."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl.errors import ProtocolError
from mdl.http.codings import STEP, Decoder, beginning, codings_of, is_as_stored

GZIP, DEFLATE = ("gzip",), ("deflate",)


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


CODED = {
    "gzip": (GZIP, gzip.compress),
    "x-gzip": (("x-gzip",), gzip.compress),
    "members": (GZIP, lambda data: gzip.compress(data[:7], mtime=0) + gzip.compress(b"") + gzip.compress(data[7:])),
    "deflate": (DEFLATE, zlib.compress),
    "bare deflate": (DEFLATE, raw_deflate),
}


@pytest.mark.parametrize("how", CODED)
@given(data=st.binary(max_size=200), repeats=st.integers(0, 3000), cut=st.integers(1, 100))
def test_what_was_encoded_comes_back(how: str, data: bytes, repeats: int, cut: int) -> None:
    """However the wire cuts it: the bytes, in pieces of a bounded size, complete at its end and not before."""
    codings, encode = CODED[how]
    whole = data + b" " * (repeats * 1000)
    body, got, decoder = encode(whole), [], Decoder(codings)
    for at in range(0, len(body), cut):
        got += list(decoder.decode(body[at : at + cut]))
    assert b"".join(got) == whole
    assert decoder.is_complete
    assert max(map(len, got), default=0) <= STEP
    half = Decoder(codings)
    assert whole.startswith(b"".join(half.decode(body[:-1])))
    assert not half.is_complete


@pytest.mark.parametrize(
    "body",
    [b"no gzip", gzip.compress(b"a", mtime=0) + b"rest", gzip.compress(b"a", mtime=0)[:-8] + bytes(8)],
    ids=["none", "more after it", "another checksum"],
)
def test_what_is_no_gzip(body: bytes) -> None:
    """Bytes that are none, that follow the end, or whose checksum is wrong are refused."""
    with pytest.raises(ProtocolError):
        list(Decoder(GZIP).decode(body))


def test_deflate_has_one_end() -> None:
    """A deflate stream has no members: what follows it is refused."""
    with pytest.raises(ProtocolError):
        list(Decoder(DEFLATE).decode(zlib.compress(b"a") * 2))


@pytest.mark.parametrize("text", ["br", "zstd", "gzip, gzip", "gzip,br"])
def test_what_cannot_be_read_is_named(text: str) -> None:
    """Another coding, or more than one, is refused by name."""
    with pytest.raises(ProtocolError, match=codings_of({"content-encoding": text})[-1]):
        Decoder(codings_of({"content-encoding": text}))


def test_no_coding() -> None:
    """Nothing, or ``identity``, is no coding; case and blanks do not matter."""
    for text in ("", "identity", " Identity , "):
        assert codings_of({"content-encoding": text}) == ()
    assert codings_of({"content-encoding": " GZip "}) == GZIP


def test_the_beginning_of_a_body() -> None:
    """What came of an answer tells its beginning, never more than a piece; nothing where it cannot be read."""
    bomb = gzip.compress(b" " * 10 * STEP, mtime=0)
    assert beginning({"content-encoding": "gzip"}, bomb) == b" " * STEP
    assert beginning({"content-encoding": "gzip"}, gzip.compress(b"words", mtime=0)[:-3]) == b"words"
    assert beginning({"content-encoding": "br"}, b"x") == b""
    assert beginning({}, b"words") == b"words"


@pytest.mark.parametrize(
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
def test_what_is_taken_as_it_comes(
    coding: str, name: str, pinned: bool, length: int | None, size: int | None, expected: bool
) -> None:
    """Where a digest decides, the length tells whether an encoding is the file itself; else its name does."""
    codings = codings_of({"content-encoding": coding})
    assert is_as_stored(codings, [name], pinned=pinned, length=length, size=size) is expected
