"""Which node of a swarm asks the origin, and for what."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import faults
from support.bench import Bench
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Request

from mdl.files import RemoteFile
from mdl.http.ranges import ByteRange
from mdl.paths import RelPath
from mdl.swarm.feeder import PATIENCE, Feeder, pieces_to_feed

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


def test_a_piece_that_others_brought_first_is_not_the_origins(bench: Bench) -> None:
    """A piece whose request was left in the middle, as all is here, did not come from the origin; a whole one did."""
    data, over, brought = noise(2 * MIB), threading.Event(), threading.Event()

    def left(request: Request, number: int) -> Answer:
        answer = faults.honest(data)(request, number)

        def body() -> Iterator[bytes]:
            yield data[MIB : MIB + MIB // 2]
            over.wait(10)
            yield data[MIB + MIB // 2 :]

        return Answer(answer.status, answer.headers, body=body())

    handler = faults.choose(lambda request: "bytes=0-" in str(request.header("range")), faults.honest(data), left)
    with FaultyServer(handler) as server, bench.http() as http:
        remote = RemoteFile(RelPath.parse("f"), server.url + "/f", len(data))
        feeder = Feeder(http, lambda n: (remote, ByteRange(n * MIB, (n + 1) * MIB)), lambda *_: brought.set())
        feeder.feed([0, 1])
        assert brought.wait(10)
        feeder.is_over = True
        over.set()
        while feeder.connections:
            threading.Event().wait(0.01)
    assert (feeder.error, [feeder.has_fetched(piece) for piece in (0, 1)]) == (None, [True, False])


def test_bytes_of_two_pieces_at_once_are_all_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that count a block at the same moment lose neither."""
    data, both, brought = noise(2 * MIB), threading.Barrier(2, timeout=10), threading.Semaphore(0)

    class Met(bytes):
        """A block whose length is told once that of another one is asked for as well."""

        def __len__(self) -> int:
            both.wait()
            return super().__len__()

    with FaultyServer(faults.honest(data)) as server, bench.http() as http:
        remote = RemoteFile(RelPath.parse("f"), server.url + "/f", len(data))
        feeder = Feeder(http, lambda n: (remote, ByteRange(n * MIB, (n + 1) * MIB)), lambda *_: brought.release())
        body = http.body
        monkeypatch.setattr(http, "body", lambda *asked: [Met(b"".join(map(bytes, body(*asked))))])
        feeder.feed([0, 1])
        assert [brought.acquire(timeout=10) for _ in range(2)] == [True, True]
    assert (feeder.error, feeder.bytes_fetched) == (None, 2 * MIB)
