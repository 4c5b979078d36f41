"""Which node of a swarm asks the origin, and for what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mdl.swarm.feeder import PATIENCE, pieces_to_feed

IDS = st.sets(st.binary(min_size=20, max_size=20), min_size=1, max_size=9)


@given(IDS, st.lists(st.integers(0, 3), min_size=1, max_size=40), st.floats(0, PATIENCE, exclude_max=True))
def test_one_of_all_feeds_and_only_what_nobody_has(ids: set[bytes], availability: list[int], idle: float) -> None:
    """While bytes come, one node of those that see each other asks for pieces, and for none that a peer has."""
    pieces = range(len(availability))
    asked = {one: pieces_to_feed(one, ids - {one}, pieces, availability, idle) for one in ids}
    rare = [piece for piece in pieces if not availability[piece]]
    assert [one for one in ids if asked[one]] == ([min(ids)] if rare else [])
    assert sorted(asked[min(ids)]) == rare


def test_nodes_that_do_not_see_each_other_begin_elsewhere() -> None:
    """Eight nodes that are alone ask for four of 64 pieces each: most of the 32 are different ones."""
    alone = [pieces_to_feed(b"node %d" % number, (), range(64), [0] * 64, 0.0)[:4] for number in range(8)]
    assert len({piece for pieces in alone for piece in pieces}) > 24


@given(IDS)
def test_when_the_feeder_leaves_the_next_one_feeds(ids: set[bytes]) -> None:
    """Whoever is gone, one of those that are left feeds."""
    left = sorted(ids)
    while left:
        feeding = [one for one in left if pieces_to_feed(one, set(left) - {one}, [0, 1], [0, 0], 0.0)]
        assert feeding == left[:1]
        left.pop(0)


@given(IDS, st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_when_nothing_comes_every_node_feeds_in_the_end(ids: set[bytes], availability: list[int]) -> None:
    """A feeder that is frozen, and peers that keep what they have, hold nobody up for ever."""
    pieces = range(len(availability))
    for place, one in enumerate(sorted(ids)):
        late = pieces_to_feed(one, ids - {one}, pieces, availability, PATIENCE * max(place, 1))
        assert sorted(late) == list(pieces)
        assert [availability[piece] for piece in late] == sorted(availability)
