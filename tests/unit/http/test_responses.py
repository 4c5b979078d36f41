"""What an answer is worth: every row of a range answer's faults that can be judged without a socket."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdl.errors import ProtocolError
from mdl.http.ranges import ByteRange
from mdl.http.responses import Accept, ContentChanged, Invalid, RangeIgnored, Verdict, announced_size, judge

calm = settings(deadline=None)

SIZE = 1000
LATER = ByteRange(100, 200)
FIRST = ByteRange(0, 200)


def answer(status: int, asked: ByteRange | None, headers: dict[str, Any], **known: Any) -> Verdict:
    """Judge an answer to a file begun with 1000 bytes and the ETag ``"a"``, unless ``known`` says otherwise."""
    texts = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return judge(status, texts, asked=asked, **{"size": SIZE, "validator": '"a"', **known})


def test_206_of_what_was_asked_is_accepted() -> None:
    """The range asked for, of the file begun, is accepted where it stands."""
    verdict = answer(206, LATER, {"content_range": "bytes 100-199/1000", "etag": '"a"', "content_length": 100})
    assert verdict == Accept(100, 200, 1000, '"a"', ranged=True)


@pytest.mark.fault(1)
def test_a1_200_to_a_later_range_is_the_whole_file() -> None:
    """A server without ranges sends the file from its start, and that is not the range asked for."""
    verdict = answer(200, LATER, {"content_length": 1000})
    assert verdict == RangeIgnored(Accept(0, 1000, 1000, None, ranged=False))


@pytest.mark.parametrize("asked", [None, FIRST])
def test_200_from_the_start_is_accepted(asked: ByteRange | None) -> None:
    """A whole file is right for a plain request and for a range from its start, but is not called ranged."""
    assert answer(200, asked, {"content_length": 1000}) == Accept(0, 1000, 1000, None, ranged=False)


@pytest.mark.fault(3)
@pytest.mark.parametrize("text", ["bytes 0-99/1000", "bytes 101-200/1000", "bytes 99-199/1000"])
def test_a3_206_from_elsewhere_is_a_lie(text: str) -> None:
    """A range that begins elsewhere than asked is written nowhere."""
    verdict = answer(206, LATER, {"content_range": text})
    assert isinstance(verdict, Invalid)
    assert "asked for bytes from 100" in verdict.error.message


@pytest.mark.fault(4)
@pytest.mark.parametrize("total", [999, 1001])
def test_a4_206_with_another_total_is_another_file(total: int) -> None:
    """Another total tells that the file changed, and says both sizes."""
    verdict = answer(206, LATER, {"content_range": f"bytes 100-199/{total}"})
    assert isinstance(verdict, ContentChanged)
    assert verdict.total == total
    assert str(total) in verdict.why
    assert "1000" in verdict.why


@pytest.mark.fault(5)
@pytest.mark.parametrize("headers", [{}, {"content_range": ""}, {"content_range": "bytes */1000"}])
def test_a5_206_without_a_content_range_is_a_lie(headers: dict[str, str]) -> None:
    """A partial answer that does not say which part is never appended."""
    assert isinstance(answer(206, LATER, {**headers, "content_length": 100}), Invalid)


@pytest.mark.fault(6)
def test_a6_206_with_unknown_total_is_accepted() -> None:
    """``*`` for a total is no contradiction."""
    assert answer(206, LATER, {"content_range": "bytes 100-199/*"}) == Accept(100, 200, None, None, ranged=True)


@pytest.mark.fault(7)
def test_a7_206_shorter_than_asked_is_accepted_as_far_as_it_goes() -> None:
    """A server may send less than asked; only that much is taken."""
    assert answer(206, LATER, {"content_range": "bytes 100-149/1000"}) == Accept(100, 150, 1000, None, ranged=True)


@pytest.mark.fault(8)
def test_a8_206_longer_than_asked_stops_where_asked() -> None:
    """What goes beyond the range asked for is not taken."""
    verdict = answer(206, LATER, {"content_range": "bytes 100-999/1000", "content_length": 900})
    assert verdict == Accept(100, 200, 1000, None, ranged=True)


@pytest.mark.fault(9)
@pytest.mark.parametrize("kind", ["multipart/byteranges; boundary=x", "Multipart/Byteranges"])
def test_a9_multipart_is_a_lie(kind: str) -> None:
    """A multipart body holds headers between the bytes and is not written."""
    assert isinstance(answer(206, LATER, {"content_range": "bytes 100-199/1000", "content_type": kind}), Invalid)


@pytest.mark.fault(11, 12)
@pytest.mark.parametrize(
    ("status", "headers"),
    [(206, {"content_range": "bytes 100-199/1000"}), (200, {"content_length": 1000}), (416, {})],
)
def test_a11_a12_another_etag_is_another_file(status: int, headers: dict[str, Any]) -> None:
    """Another strong ETag tells that the file changed, whatever else the answer says."""
    verdict = answer(status, LATER, {**headers, "etag": '"b"'})
    assert isinstance(verdict, ContentChanged)
    assert verdict.validator == '"b"'
    assert "validator" in verdict.why
    assert '"b"' not in verdict.why  # it may repeat the request, and that a signature


@pytest.mark.fault(14)
def test_a14_a_weak_etag_does_not_count() -> None:
    """A weak ETag neither confirms a file nor contradicts the one begun."""
    verdict = answer(206, LATER, {"content_range": "bytes 100-199/1000", "etag": 'W/"b"'})
    assert verdict == Accept(100, 200, 1000, None, ranged=True)


@pytest.mark.fault(15)
def test_a15_an_old_date_is_a_validator() -> None:
    """Without an ETag another Last-Modified, safely in the past, tells that the file changed."""
    dates = {"last_modified": "Wed, 21 Oct 2020 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    headers = {"content_range": "bytes 100-199/1000", **dates}
    assert isinstance(answer(206, LATER, headers, validator="Wed, 21 Oct 2020 07:00:00 GMT"), ContentChanged)
    assert isinstance(answer(206, LATER, headers, validator="Wed, 21 Oct 2020 07:28:00 GMT"), Accept)


@pytest.mark.fault(16)
def test_a16_no_validator_at_all_is_accepted() -> None:
    """A body host that sends no validator can still be resumed from; the digest decides in the end."""
    verdict = answer(206, LATER, {"content_range": "bytes 100-199/1000"}, validator=None)
    assert isinstance(verdict, Accept)


@pytest.mark.fault(18)
def test_a18_416_of_a_file_of_the_right_size_is_a_lie() -> None:
    """A range inside the file that is refused all the same is the server's fault, not another file."""
    verdict = answer(416, LATER, {"content_range": "bytes */1000"})
    assert isinstance(verdict, Invalid)
    assert "416" in verdict.error.message


@pytest.mark.fault(19)
def test_a19_416_of_a_shorter_file_is_another_file() -> None:
    """A 416 that tells another size tells that the file changed."""
    verdict = answer(416, LATER, {"content_range": "bytes */50"})
    assert isinstance(verdict, ContentChanged)
    assert verdict.total == 50


@pytest.mark.fault(20)
def test_a20_416_without_a_size_is_never_accepted() -> None:
    """A bare 416, with a body or not, is written nowhere."""
    assert isinstance(answer(416, LATER, {"content_length": 23}), Invalid)


@pytest.mark.fault(21)
@pytest.mark.parametrize("size", [0, None])
def test_a21_416_of_an_empty_file_is_an_empty_file(size: int | None) -> None:
    """An empty file has no range to give: asked for its first byte, it is accepted as empty."""
    verdict = answer(416, ByteRange(0, 1), {"content_range": "bytes */0"}, size=size, validator=None)
    assert verdict == Accept(0, 0, 0, None, ranged=True)


@pytest.mark.fault(21)
def test_a21_a_file_that_became_empty_is_another_file() -> None:
    """A 416 of an empty file does not end a file that was begun with bytes."""
    assert isinstance(answer(416, LATER, {"content_range": "bytes */0"}), ContentChanged)


@pytest.mark.fault(24)
def test_a24_offsets_beyond_2_to_53() -> None:
    """Offsets beyond what a double can count are taken to the byte."""
    asked, total = ByteRange(2**53 + 1, 2**53 + 3), 2**54
    headers = {"content_range": f"bytes {asked.start}-{asked.stop - 1}/{total}"}
    assert answer(206, asked, headers, size=total) == Accept(asked.start, asked.stop, total, None, ranged=True)
    near = {"content_range": f"bytes {2**53}-{2**53 + 1}/{total}"}
    assert isinstance(answer(206, asked, near, size=total), Invalid)


@pytest.mark.fault(232)
@pytest.mark.parametrize("headers", [{"content_range": "bytes */0"}, {"content_range": "bytes */1000"}, {}])
@pytest.mark.parametrize("known", [{}, {"size": None, "validator": None}])
def test_416_to_a_plain_request_is_a_lie(headers: dict[str, str], known: dict[str, Any]) -> None:
    """A range is refused that nobody asked for: whatever it tells of the file, its body holds none."""
    assert isinstance(answer(416, None, {**headers, "content_length": 23}, **known), Invalid)


@pytest.mark.fault(233)
@pytest.mark.parametrize("asked", [FIRST, LATER])
def test_200_with_a_content_range_is_a_part(asked: ByteRange) -> None:
    """A part is a part also with status 200, as rclone's S3 sends it."""
    headers = {"content_range": f"bytes {asked.start}-{asked.stop - 1}/1000", "content_length": asked.length}
    assert answer(200, asked, headers) == answer(206, asked, headers)
    assert isinstance(answer(200, asked, headers), Accept)


@pytest.mark.fault(233)
@pytest.mark.parametrize("size", [None, 1, SIZE])
def test_200_with_a_content_range_is_not_the_whole(size: int | None) -> None:
    """A part that nobody asked for is refused; its length is not taken for the file's."""
    headers = {"content_range": "bytes 0-0/1000", "content_length": 1}
    assert isinstance(answer(200, None, headers, size=size), Invalid)
    assert isinstance(answer(200, LATER, headers, size=size), Invalid)
    assert isinstance(answer(200, LATER, {**headers, "content_range": "nonsense"}, size=size), Invalid)


@pytest.mark.fault(233)
def test_200_with_the_content_range_of_the_whole() -> None:
    """A Content-Range that tells of the whole file makes no part of it."""
    headers = {"content_range": "bytes 0-999/1000", "content_length": 1000}
    assert answer(200, None, headers) == Accept(0, 1000, 1000, None, ranged=False)
    assert answer(200, LATER, headers) == RangeIgnored(Accept(0, 1000, 1000, None, ranged=False))


@pytest.mark.fault(233)
@pytest.mark.parametrize(
    ("status", "headers", "size"),
    [
        (200, {"content-length": "9"}, 9),
        (200, {"content-length": "1", "content-range": "bytes 0-0/9"}, 9),
        (200, {"content-length": "1", "content-range": "bytes 0-0/*"}, None),
        (200, {"content-length": "1", "content-range": "nonsense"}, None),
        (206, {"content-length": "1", "content-range": "bytes 0-0/9"}, 9),
        (206, {"content-length": "1"}, None),
        (416, {"content-length": "1", "content-range": "bytes */9"}, 9),
        (200, {"content-length": "9", "content-encoding": "gzip"}, None),
        (206, {"content-range": "bytes 0-0/9", "content-encoding": "gzip"}, None),
    ],
)
def test_the_size_that_is_announced(status: int, headers: dict[str, str], size: int | None) -> None:
    """A part tells the whole file's size by its Content-Range alone, an encoding tells none."""
    assert announced_size(status, headers) == size


@pytest.mark.fault(237)
@pytest.mark.parametrize("name", ["https://a.example/m.tar.gz?x=y.bin", "m.TGZ"])
def test_an_archive_that_is_called_encoded(name: str) -> None:
    """An archive's own compression is no encoding, in a range neither."""
    headers = {"content_encoding": "x-gzip", "content_length": 1000}
    assert answer(200, None, headers, names=["m", name]) == Accept(0, 1000, 1000, None, ranged=False)
    part = {"content_encoding": "x-gzip", "content_range": "bytes 100-199/1000"}
    assert answer(206, LATER, part, names=["m", name]) == Accept(100, 200, 1000, None, ranged=True)
    assert isinstance(answer(206, LATER, part, names=["m.json"]), Invalid)
    assert announced_size(200, {"content-encoding": "x-gzip", "content-length": "9"}, [name]) == 9


def test_206_to_a_plain_request_is_a_lie() -> None:
    """A part nobody asked for is not the file."""
    assert isinstance(answer(206, None, {"content_range": "bytes 0-999/1000"}), Invalid)


def test_206_whose_length_disagrees_is_a_lie() -> None:
    """A Content-Length that is not the range's length contradicts it."""
    assert isinstance(answer(206, LATER, {"content_range": "bytes 100-199/1000", "content_length": 99}), Invalid)


@pytest.mark.fault(31)
@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_a_range_of_an_encoding_is_a_lie(encoding: str) -> None:
    """Bytes 100 to 199 of a compressed body are not those of the file."""
    headers = {"content_range": "bytes 100-199/1000", "content_encoding": encoding}
    assert isinstance(answer(206, LATER, headers), Invalid)


def test_an_encoded_whole_announces_no_length() -> None:
    """A compressed body's Content-Length is not the file's, and neither ends nor contradicts it."""
    verdict = answer(200, None, {"content_length": 17, "content_encoding": "gzip"})
    assert verdict == Accept(0, None, 1000, None, ranged=False, encoded=True)


@pytest.mark.fault(29, 38)
@pytest.mark.parametrize("length", [999, 1001, 23])
def test_a_200_of_another_length_is_another_file(length: int) -> None:
    """A captive portal's page, a longer or a shorter file: not the one begun."""
    verdict = answer(200, None, {"content_length": length, "content_type": "text/html"})
    assert isinstance(verdict, ContentChanged)
    assert verdict.total == length


@pytest.mark.fault(33)
@pytest.mark.parametrize("length", ["-5", "5,5", "+1000", ""])
def test_an_unreadable_length_is_no_announced_end(length: str) -> None:
    """A Content-Length that cannot be read announces nothing."""
    verdict = answer(200, None, {"content_length": length})
    assert verdict == Accept(0, None, 1000, None, ranged=False)


@pytest.mark.parametrize("status", [201, 202, 203, 204, 205, 300, 304])
def test_another_status_is_never_accepted(status: int) -> None:
    """Only 200, 206 and 416 say anything about a file's bytes."""
    assert isinstance(answer(status, None, {"content_length": 1000}), Invalid)


@pytest.mark.parametrize("status", [202, 204])
def test_another_status_is_called_by_its_number(status: int) -> None:
    """The error says what the server answered, not another thing."""
    verdict = answer(status, None, {})
    assert isinstance(verdict, Invalid)
    assert str(status) in verdict.error.message


@pytest.mark.fault(3, 4, 5, 8)
@calm
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
def test_what_is_accepted_lies_where_it_was_asked(
    status: int, headers: dict[str, str], size: int | None, validator: str | None
) -> None:
    """Whatever the headers, an accepted answer begins where it was asked to and never contradicts what is known."""
    verdict = judge(status, headers, asked=LATER, size=size, validator=validator)
    if isinstance(verdict, Accept):
        empty = (verdict.start, verdict.stop) == (0, 0) and not size
        is_part = status == 206 or "content-range" in headers
        assert empty or (is_part and verdict.start == LATER.start)
        assert verdict.stop is not None
        assert verdict.stop <= LATER.stop
        assert size is None or verdict.total in (None, size)
        assert None in (validator, verdict.validator) or verdict.validator == validator
    elif isinstance(verdict, Invalid):
        assert isinstance(verdict.error, ProtocolError)
        assert verdict.error.hint
