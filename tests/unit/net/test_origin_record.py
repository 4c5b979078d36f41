"""What a run finds out about an origin: whether it serves a second connection, by the time of its first byte."""

from __future__ import annotations

import pytest
from support.cases import each

from mdl.net.pacer import OriginRecord


@pytest.mark.fault(22)
@each(
    ("first_byte", "seconds", "offset_seconds", "answer"),
    [
        (0.05, 0.06, 4.0, "served"),  # a CDN
        (5.0, 5.1, 600.0, "served"),  # slow to begin, for each answer alike
        (0.05, 1.5, 4.0, "late"),  # a cache that has fetched a third of what is before
        (0.05, 4.0, 4.0, "late"),  # one that fetches all of it
        (0.05, 2.5, 1000.0, "late"),  # no first byte at all for seconds
        (0.05, 0.2, 0.2, "unclear"),  # so near that it may be either
        (0.05, 0.6, 0.6, "late"),
        (0.3, 0.35, 2.0, "served"),  # far away
    ],
)
def test_a_second_connection_is_a_question(
    first_byte: float, seconds: float, offset_seconds: float, answer: str
) -> None:
    """It is late if it takes much longer than usual, in proportion to the bytes before it."""
    record = OriginRecord(first_byte=first_byte)
    assert record.judge_second(seconds, offset_seconds) == answer


@pytest.mark.parametrize(
    ("seconds", "offset_seconds", "late"), [(0.5, 0.5, False), (4.0, 4.2, True), (2.0, 60.0, False)]
)
def test_a_late_beginning(seconds: float, offset_seconds: float, late: bool) -> None:
    """A file that goes on in its middle shows by its first answer whether all before it is fetched first."""
    assert OriginRecord().is_late_beginning(seconds, offset_seconds) is late


def test_one_refusal_does_not_undo_what_was_seen() -> None:
    """An origin that has served ranges is not taken for one that does not; one of which nothing is known is."""
    known, unknown = OriginRecord(serves_ranges=True), OriginRecord()
    for record in (known, unknown):
        record.note_refused_range()
    assert (known.may_have_two, unknown.may_have_two) == (True, False)
