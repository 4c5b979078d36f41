"""Judging a response to a request for a file or a range of it, without a socket."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.cases import each

from mdl.errors import ProtocolError
from mdl.net.ranges import ByteRange
from mdl.net.responses import Accept, ContentChanged, Invalid, RangeIgnored, Verdict, announced_size, judge

calm = settings(deadline=None)
SIZE = 1000
LATER, FIRST, BYTE = ByteRange(100, 200), ByteRange(0, 200), ByteRange(0, 1)
HUGE = ByteRange(2**53 + 1, 2**53 + 3)
UNKNOWN: dict[str, Any] = {"size": None, "validator": None}
PART, WHOLE = {"content-range": "bytes 100-199/1000"}, {"content-length": "1000"}
HUGE_PART = {"content-range": f"bytes {2**53 + 1}-{2**53 + 2}/{2**54}"}
BYTES_0 = {"content-range": "bytes */0"}
NO_RANGES = ({}, {"content-range": ""}, BYTES_0, {"content-range": "bytes */1000"})
GZIP = {"content-encoding": "x-gzip"}
NO_CODINGS = ("aws-chunked", "AWS-Chunked, identity", "utf-8", "binary", "none", "application/octet-stream", "")
"""What buckets say of an object because it was once uploaded so."""
ARCHIVE = ["m", "https://a.example/m.tar.gz?x=y.bin"]
OLD = "Wed, 21 Oct 2020 07:28:00 GMT"
DATES = {"last-modified": OLD, "date": "Wed, 21 Oct 2026 07:28:00 GMT"}
RIGHT_PART = Accept(100, 200, None, ranged=True)
RIGHT_WHOLE = Accept(0, 1000, None, ranged=False)
ENDLESS = Accept(0, None, None, ranged=False, ends_with_connection=True)


def answer(status: int, asked: ByteRange | None, headers: dict[str, Any], **known: Any) -> Verdict:
    """Judge a response for a file begun with 1000 bytes and the ETag ``"a"``, unless ``known`` says otherwise."""
    return judge(status, headers, asked=asked, **{"size": SIZE, "validator": '"a"', **known})


@pytest.mark.fault(6, 7, 8, 14, 15, 16, 21, 24, 33, 233, 237)
@each(
    ("status", "asked", "headers", "known", "accepted"),
    [
        (206, LATER, {**PART, "etag": '"a"', "content-length": "100"}, {}, Accept(100, 200, '"a"', True)),
        (200, None, WHOLE, {}, RIGHT_WHOLE),
        (200, FIRST, WHOLE, {}, RIGHT_WHOLE),
        (206, LATER, {"content-range": "bytes 100-199/*"}, {}, Accept(100, 200, None, True)),
        (206, LATER, {"content-range": "bytes 100-149/1000"}, {}, Accept(100, 150, None, True)),
        (206, LATER, {"content-range": "bytes 100-999/1000", "content-length": "900"}, {}, RIGHT_PART),
        (206, LATER, {**PART, "etag": 'W/"b"'}, {}, RIGHT_PART),
        (206, LATER, PART | DATES, {"validator": OLD}, Accept(100, 200, OLD, True)),
        (206, LATER, PART, {"validator": None}, RIGHT_PART),
        (416, BYTE, BYTES_0, {"size": 0, "validator": None}, Accept(0, 0, None, True)),
        (416, BYTE, BYTES_0, UNKNOWN, Accept(0, 0, None, True)),
        (206, HUGE, HUGE_PART, {"size": 2**54}, Accept(HUGE.start, HUGE.stop, None, True)),
        *((200, None, {"content-length": n}, {}, ENDLESS) for n in ("-5", "5,5", "+9", "")),
        (200, None, {"transfer-encoding": "chunked"}, {}, Accept(0, None, None, False)),
        (200, LATER, {**PART, "content-length": "100"}, {}, RIGHT_PART),
        (200, FIRST, {"content-range": "bytes 0-199/1000"}, {}, Accept(0, 200, None, True)),
        *((status, None, {"content-range": "bytes 0-999/1000", **WHOLE}, {}, RIGHT_WHOLE) for status in (200, 206)),
        (200, None, GZIP | WHOLE, {"names": ARCHIVE}, RIGHT_WHOLE),
        *((200, None, WHOLE | {"content-encoding": name}, {}, RIGHT_WHOLE) for name in NO_CODINGS),
        *((206, LATER, PART | {"content-encoding": name}, {}, RIGHT_PART) for name in NO_CODINGS),
        (200, None, GZIP | WHOLE, {"names": ["m.TGZ"]}, RIGHT_WHOLE),
        (206, LATER, GZIP | PART, {"names": ARCHIVE}, RIGHT_PART),
        (200, None, GZIP | {"content-length": "17"}, {}, Accept(0, None, None, False, encoded=True)),
        (200, None, WHOLE | {"content-encoding": "dcb"}, {"pinned": True}, RIGHT_WHOLE),
    ],
)
def test_accepted(status: int, asked: ByteRange | None, headers: Any, known: Any, accepted: Accept) -> None:
    """What the response holds is taken from where it stands to where the request ends, and no further."""
    assert answer(status, asked, headers, **known) == accepted


@pytest.mark.fault(1, 233)
@pytest.mark.parametrize("headers", [WHOLE, WHOLE | {"content-range": "bytes 0-999/1000"}])
def test_range_ignored(headers: dict[str, str]) -> None:
    """A server without ranges sends the file from its start, which is not the range that was requested."""
    for asked in (LATER, ByteRange(1, 200)):
        assert answer(200, asked, headers) == RangeIgnored(RIGHT_WHOLE)
    assert not RIGHT_WHOLE.encoded


@pytest.mark.fault(3, 5, 9, 18, 20, 24, 31, 232, 233, 237)
@each(
    ("status", "asked", "headers", "known"),
    [
        *((206, LATER, {"content-range": f"bytes {span}/1000"}, {}) for span in ("0-99", "101-200", "99-199")),
        *((206, LATER, {"content-length": "100", **said}, {}) for said in NO_RANGES),
        (206, LATER, {**PART, "content-type": "multipart/byteranges; boundary=x"}, {}),
        (206, LATER, {**PART, "content-type": "Multipart/Byteranges"}, {}),
        (206, LATER, {**PART, "content-length": "99"}, {}),
        (206, LATER, WHOLE | {"content-range": "bytes 0-999/1000"}, {}),
        (206, HUGE, {"content-range": f"bytes {2**53}-{2**53 + 1}/{2**54}"}, {"size": 2**54}),
        *((206, LATER, {**PART, "content-encoding": coding}, {}) for coding in ("gzip", "br", "zstd")),
        (206, LATER, GZIP | PART, {"names": ["m.json"]}),
        *((206, None, {"content-range": f"bytes {part}"}, {}) for part in ("0-998/1000", "1-999/1000", "0-999/*")),
        *((status, None, {"content-range": "bytes 0-999/1000", "content-length": "5"}, {}) for status in (200, 206)),
        (206, None, {"content-range": "bytes 0-999/1000", "content-type": "multipart/byteranges; boundary=x"}, {}),
        *(
            (200, None, {"content-range": "bytes 0-0/1000", "content-length": "1"}, {"size": n})
            for n in (None, 1, SIZE)
        ),
        (200, LATER, {"content-range": "bytes 0-0/1000", "content-length": "1"}, {}),
        (200, LATER, {"content-range": "bytes 0-0/1000", "content-length": "1"}, {"size": None}),
        (200, LATER, {"content-range": "nonsense", "content-length": "1"}, {}),
        (416, LATER, {"content-range": "bytes */1000"}, {}),
        (416, LATER, {"content-length": "23"}, {}),
        *((416, None, {"content-length": "23", **said}, known) for said in NO_RANGES for known in ({}, UNKNOWN)),
        *((status, None, WHOLE, {}) for status in (201, 202, 203, 204, 205, 300, 304)),
    ],
)
def test_invalid(status: int, asked: ByteRange | None, headers: Any, known: Any) -> None:
    """A response that does not provably hold the requested bytes is written nowhere, and says what to do."""
    verdict = answer(status, asked, headers, **known)
    assert isinstance(verdict, Invalid)
    assert verdict.error.hint
    if status not in (200, 206):
        assert str(status) in verdict.error.message


@pytest.mark.fault(3)
def test_wrong_start_is_named() -> None:
    """The error says from which byte the range was requested."""
    verdict = answer(206, LATER, {"content-range": "bytes 0-99/1000"})
    assert isinstance(verdict, Invalid)
    assert "asked for bytes from 100" in verdict.error.message


@pytest.mark.fault(4, 19, 21, 29, 38)
@each(
    ("status", "asked", "headers", "total"),
    [
        (206, LATER, {"content-range": "bytes 100-199/999"}, 999),
        (206, LATER, {"content-range": "bytes 100-199/1001"}, 1001),
        (416, LATER, {"content-range": "bytes */50"}, 50),
        (416, LATER, BYTES_0, 0),
        *((200, None, {"content-length": str(n), "content-type": "text/html"}, n) for n in (999, 1001, 23)),
    ],
)
def test_another_size(status: int, asked: ByteRange | None, headers: dict[str, str], total: int) -> None:
    """A file of another size is another file; both sizes are named."""
    verdict = answer(status, asked, headers)
    assert isinstance(verdict, ContentChanged)
    assert verdict.total == total
    assert str(total) in verdict.why
    assert "1000" in verdict.why


@pytest.mark.fault(11, 12, 15)
@pytest.mark.parametrize(
    ("status", "headers", "known"),
    [
        *((status, {**headers, "etag": '"b"'}, '"a"') for status, headers in ((206, PART), (200, WHOLE), (416, {}))),
        (206, PART | DATES, "Wed, 21 Oct 2020 07:00:00 GMT"),
    ],
)
def test_another_validator(status: int, headers: dict[str, str], known: str) -> None:
    """Another strong validator tells that the file changed. It is not quoted: it may repeat a signed request."""
    verdict = answer(status, LATER, headers, validator=known)
    assert isinstance(verdict, ContentChanged)
    assert verdict.validator in ('"b"', OLD)
    assert "validator" in verdict.why
    assert str(verdict.validator) not in verdict.why


@pytest.mark.fault(233, 237)
@each(
    ("status", "headers", "names", "size"),
    [
        (200, {"content-length": "9"}, [], 9),
        (200, {"content-length": "1", "content-range": "bytes 0-0/9"}, [], 9),
        (200, {"content-length": "1", "content-range": "bytes 0-0/*"}, [], None),
        (200, {"content-length": "1", "content-range": "nonsense"}, [], None),
        (206, {"content-length": "1", "content-range": "bytes 0-0/9"}, [], 9),
        (206, {"content-length": "1"}, [], None),
        (416, {"content-length": "1", "content-range": "bytes */9"}, [], 9),
        (200, {"content-length": "9", "content-encoding": "gzip"}, [], None),
        (206, {"content-range": "bytes 0-0/9", "content-encoding": "gzip"}, [], None),
        (200, {"content-length": "9", "content-encoding": "x-gzip"}, ARCHIVE, 9),
    ],
)
def test_announced_size(status: int, headers: dict[str, str], names: list[str], size: int | None) -> None:
    """A part announces the file's size by its Content-Range alone; an encoding announces none."""
    assert announced_size(status, headers, names) == size


@pytest.mark.fault(3, 4, 5, 8)
@calm
@example(206, {"content-range": "bytes 100-199/1000"}, SIZE, None)
@example(200, {"content-range": "bytes 100-199/1000", "etag": '"a"'}, SIZE, '"a"')
@given(
    st.sampled_from([200, 202, 206, 416]),
    st.dictionaries(
        st.sampled_from(["content-range", "content-length", "etag", "content-type", "content-encoding"]),
        st.text(max_size=12)
        | st.sampled_from(["bytes 100-199/1000", "bytes 0-99/1000", "bytes */1000", "1000", "100", '"a"', '"b"']),
    ),
    st.none() | st.just(SIZE),
    st.none() | st.just('"a"'),
)
def test_no_header_misleads(status: int, headers: dict[str, str], size: int | None, validator: str | None) -> None:
    """Whatever the headers, an accepted response begins where requested and contradicts nothing that is known."""
    verdict = judge(status, headers, asked=LATER, size=size, validator=validator)
    if isinstance(verdict, Accept):
        empty = (verdict.start, verdict.stop) == (0, 0) and not size
        is_part = status == 206 or "content-range" in headers
        assert empty or (is_part and verdict.start == LATER.start)
        assert verdict.stop is not None
        assert verdict.stop <= LATER.stop
        assert size is None or empty or headers["content-range"].endswith(f"/{size}")
        assert None in (validator, verdict.validator) or verdict.validator == validator
    elif isinstance(verdict, Invalid):
        assert isinstance(verdict.error, ProtocolError)
        assert verdict.error.hint
