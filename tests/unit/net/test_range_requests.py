"""Conditions: which bytes of a file a request gets (RFC 9110, 13 and 14)."""

from __future__ import annotations

import pytest
from support.cases import each

from mdl.net.ranges import answer_to

ETAG = '"abc"'
ANSWERS: dict[str, tuple[dict[str, str], tuple[int, int, int]]] = {
    "all of it": ({}, (200, 0, 100)),
    "a range": ({"range": "bytes=5-9"}, (206, 5, 10)),
    "to the end": ({"range": "bytes=5-"}, (206, 5, 100)),
    "past the end": ({"range": "bytes=90-1000"}, (206, 90, 100)),
    "the last bytes": ({"range": "bytes=-5"}, (206, 95, 100)),
    "more last bytes than there are": ({"range": "bytes=-500"}, (206, 0, 100)),
    "no last byte": ({"range": "bytes=-0"}, (416, 0, 0)),
    "behind the end": ({"range": "bytes=100-"}, (416, 0, 0)),
    "backwards": ({"range": "bytes=9-5"}, (200, 0, 100)),
    "nothing": ({"range": "bytes=-"}, (200, 0, 100)),
    "another unit": ({"range": "lines=1-2"}, (200, 0, 100)),
    "several ranges": ({"range": "bytes=0-1,5-6"}, (200, 0, 100)),
    "very many ranges": ({"range": "bytes=" + ",".join(["0-"] * 5000)}, (200, 0, 100)),
    "a number of a million digits": ({"range": f"bytes={'9' * 10**6}-"}, (200, 0, 100)),
    "digits that are not ASCII": ({"range": "bytes=٣-٩"}, (200, 0, 100)),
    "if the file is the same": ({"range": "bytes=5-9", "if-range": ETAG}, (206, 5, 10)),
    "if the file were the same": ({"range": "bytes=5-9", "if-range": '"old"'}, (200, 0, 100)),
    "a weak validator": ({"range": "bytes=5-9", "if-range": f"W/{ETAG}"}, (200, 0, 100)),
    "known already": ({"if-none-match": f'"x", W/{ETAG}'}, (304, 0, 0)),
    "whatever it is": ({"if-none-match": "*"}, (304, 0, 0)),
    "known in another version": ({"if-none-match": '"x"'}, (200, 0, 100)),
    "of another version, whether it is known or not": ({"if-match": '"x"', "if-none-match": ETAG}, (412, 0, 0)),
    "only if it is the same": ({"if-match": ETAG}, (200, 0, 100)),
    "only if it were the same": ({"if-match": f'W/{ETAG}, "x"'}, (412, 0, 0)),
}


@pytest.mark.fault(540)
@each(("headers", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_which_bytes(headers: dict[str, str], expected: tuple[int, int, int]) -> None:
    """One range is a part, or 416 if there is none of it; several, or what is none, is ignored; conditions hold."""
    found = answer_to(headers, 100, ETAG)
    assert (int(found.status), found.start, found.stop) == expected


def test_an_empty_file() -> None:
    """Of an empty file there is all or nothing."""
    assert answer_to({}, 0, ETAG).stop == 0
    assert answer_to({"range": "bytes=0-"}, 0, ETAG).status == 416
