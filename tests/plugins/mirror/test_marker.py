"""The marker of a mirror: what it says, and how large a part is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl.errors import ProtocolError
from mdl.plugins.mirror.marker import MarkedFile, Marker, part_size

MIB = 2**20


@given(size=st.integers(0, 48 * 2**40))
def test_there_are_never_more_parts_than_a_store_takes(size: int) -> None:
    """At most 10,000 parts of 32 MiB or more, and as few more bytes a part as whole MiB allow."""
    part = part_size(size)
    assert part >= 32 * MIB
    assert part % MIB == 0
    assert -(-size // part) <= 10_000
    assert part == 32 * MIB or -(-size // (part - MIB)) > 10_000


MARKER = Marker("one", "0" * 16, (MarkedFile("a b.bin", 3, "f" * 64),), "hf:org/repo", "c" * 40, "mit", "now", "1.0")


def test_a_marker_comes_back() -> None:
    """What is written is read."""
    assert Marker.from_json(MARKER.to_json(), "s3://b") == MARKER


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "mdl.mirror-complete/2"},
        {"files": [{"path": "../x", "size": 1, "sha256": "f" * 64}]},
        {"files": [{"path": "x", "size": -1, "sha256": "f" * 64}]},
        {"files": [{"path": "x", "size": True, "sha256": "f" * 64}]},
        {"files": [{"path": "x", "size": 1, "sha256": "F" * 64}]},
        {"files": 3},
        {"files": [3]},
        {"name": None, "files": None},
    ],
)
def test_what_is_no_marker(change: dict[str, Any]) -> None:
    """A marker with anything wrong in it is refused as a whole, and the error says of which object."""
    text = json.dumps(json.loads(MARKER.to_json()) | change).encode()
    for data in (text, text[:-5], b"[]", b"\xff", b"[" * 200_000):
        with pytest.raises(ProtocolError) as caught:
            Marker.from_json(data, "s3://bucket/key")
        assert caught.value.item == "s3://bucket/key"
