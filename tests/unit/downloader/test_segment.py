"""Segments: whatever is cut off while a block is being written, each byte is fetched by one connection alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mdl.downloader.segment import Segment
from mdl.net.ranges import RangeSet

SIZE = 100
STEPS = st.lists(st.tuples(st.sampled_from(["begin", "wrote", "cut"]), st.integers(1, SIZE)), max_size=30)


@given(STEPS)
def test_no_byte_belongs_to_two(steps: list[tuple[str, int]]) -> None:
    """What a segment takes to write, what others got of it, and what is left of it are the whole file, and no byte is
    in two of them. A cut below a block that is being written was one below bytes that were hashed already."""
    segment = Segment(SIZE, 0)
    given_away = RangeSet()
    taken = RangeSet()
    block = 0
    for step, number in steps:
        if step == "begin" and not block:
            block = segment.begin_block(number)
            taken.add(segment.at, segment.at + block)
        elif step == "wrote":
            segment.wrote(block)
            block = 0
        elif step == "cut" and (rest := segment.cut(number)):
            given_away.add(rest.start, rest.stop)
    assert segment.stop is not None
    assert (segment.first, segment.at) <= (0, segment.stop)
    assert taken.total + given_away.total + segment.left - block == SIZE
    assert not [one for one in taken if any(one.start < other.stop and other.start < one.stop for other in given_away)]
