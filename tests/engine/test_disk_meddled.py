"""Somebody else at mdl's files while it is at work: folders that go, partials cut or exchanged, a file in the way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import faults
from support.bench import Bench, loose, pinned
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Handler, Request
from support.polling import until

from mdl.engine import store as stores
from mdl.events import Event, Planned

DATA, OTHER, TINY = noise(4 * MIB), noise(4 * MIB, 1), noise(1000, 2)
SIZE = len(DATA)
Act = Callable[[Bench], object]


def midway(bench: Bench, act: Act) -> Handler:
    """Serves the file, and does something in the middle of it, once half of it is claimed."""
    right, done = faults.honest(DATA), [False]

    def handler(request: Request, number: int) -> Answer:
        def body() -> Iterator[bytes]:
            yield DATA[: SIZE // 2]
            until(lambda: bench.claimed >= SIZE // 2 - 1)  # the last byte of a piece is sent with the next one
            done[0] = True
            act(bench)
            yield DATA[SIZE // 2 :]

        answer = right(request, number)
        return answer if done[0] else replace(answer, body=body())

    return handler


def elsewhere(bench: Bench) -> Path:
    return bench.store.root.with_name("elsewhere")


def gone(bench: Bench) -> None:
    shutil.rmtree(bench.store.root)


def moved(bench: Bench) -> None:
    bench.store.root.rename(bench.store.root.with_name("moved"))


def linked(bench: Bench) -> None:
    moved(bench)
    elsewhere(bench).mkdir()
    bench.store.root.symlink_to(elsewhere(bench))


def another(bench: Bench) -> None:
    moved(bench)
    bench.store.root.mkdir()


def exchanged(bench: Bench) -> None:
    data = bench.partials[0]
    data.unlink()
    data.write_bytes(OTHER)


def unlinked(bench: Bench) -> None:
    bench.partials[0].unlink()


TAKEN = [gone, moved, linked, another, exchanged, unlinked]


@pytest.mark.fault(117, 118)
@pytest.mark.parametrize("act", TAKEN, ids=lambda act: act.__name__)
def test_taken_away_on_the_way(bench: Bench, act: Act) -> None:
    """Where the models folder or the partial goes, or is another one, midway: no file, nothing written where a link
    leads, and the same command again ends well."""
    with FaultyServer(faults.honest(DATA)) as server:
        server.handler = midway(bench, act)
        file = pinned(server.url + "/f", DATA)
        run = bench.run(file)
        assert (run.code in (7, 9, 11), bench.final.exists()) == (True, False), run
        if act is linked:
            found = [path.name for path in elsewhere(bench).rglob("*") if path.is_file() and ".mdl" not in path.parts]
            assert found == []
        assert bench.run(file).code == 0
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(117)
@pytest.mark.parametrize("act", [gone, moved], ids=lambda act: act.__name__)
def test_what_is_gone_is_no_busy_neighbour(bench: Bench, act: Act) -> None:
    """A folder that was removed under mdl is trouble with the disk (7), not another mdl to wait for (9)."""
    with FaultyServer(faults.honest(DATA)) as server:
        server.handler = midway(bench, act)
        assert bench.run(pinned(server.url + "/f", DATA)).code == 7


def cut(bench: Bench) -> None:
    os.truncate(bench.partials[0], 1000)


def grown(bench: Bench) -> None:
    os.truncate(bench.partials[0], 2 * SIZE)


@pytest.mark.fault(118)
@pytest.mark.parametrize("act", [cut, grown], ids=lambda act: act.__name__)
def test_a_partial_of_another_length(bench: Bench, act: Act) -> None:
    """A partial that somebody cuts or lengthens midway is never published as it is."""
    with FaultyServer(faults.honest(DATA)) as server:
        server.handler = midway(bench, act)
        file = pinned(server.url + "/f", DATA)
        run = bench.run(file)
        assert run.code in (0, 6, 7)
        assert bench.final.read_bytes() == DATA if run.code == 0 else not bench.final.exists()
        assert bench.run(file).code == 0
    assert bench.final.read_bytes() == DATA


def without_journal(bench: Bench) -> None:
    (bench.partials[0].parent / "journal").unlink()


def with_a_link_for_it(bench: Bench) -> None:
    without_journal(bench)
    (precious := bench.store.root.with_name("precious")).write_text("mine")
    (bench.partials[0].parent / "journal").symlink_to(precious)


@pytest.mark.fault(104, 118)
@pytest.mark.parametrize("act", [without_journal, with_a_link_for_it], ids=lambda act: act.__name__)
def test_a_journal_taken_away(bench: Bench, act: Act) -> None:
    """The journal only serves the next run: without it this one ends well, and nothing is written through a link."""
    with FaultyServer(faults.honest(DATA)) as server:
        server.handler = midway(bench, act)
        assert bench.run(pinned(server.url + "/f", DATA)).code == 0
    assert bench.final.read_bytes() == DATA
    assert act is without_journal or bench.store.root.with_name("precious").read_text() == "mine"


@pytest.mark.fault(119)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
def test_a_strangers_file_that_comes_meanwhile(bench: Bench, data: bytes) -> None:
    """A file that somebody puts under the final name while the bytes come is not overwritten without --force."""
    right = faults.honest(data)

    def handler(request: Request, number: int) -> Answer:
        bench.final.parent.mkdir(parents=True, exist_ok=True)
        bench.final.write_bytes(b"mine")
        return right(request, number)

    with FaultyServer(handler) as server:
        file = pinned(server.url + "/f", data)
        run = bench.run(file)
        assert (run.code, bench.final.read_bytes()) == (7, b"mine")
        assert bench.run(file, force=True).code == 0
    assert bench.final.read_bytes() == data


def other_bytes_now(path: Path) -> None:
    """Others of the same length, under the same name, as a program that writes beside and renames puts them."""
    path.with_name("other").write_bytes(OTHER)
    path.with_name("other").replace(path)


@pytest.mark.fault(119, 130)
@pytest.mark.parametrize("kept", [False, True], ids=["fetched", "adopted"])
def test_a_receipt_vouches_for_what_was_hashed(bench: Bench, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    """A file that is exchanged between its hash and its receipt is not believed by the next run."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        if kept:
            bench.final.parent.mkdir(parents=True)
            bench.final.write_bytes(DATA)

            def tell(event: Event) -> None:
                if isinstance(event, Planned):
                    other_bytes_now(bench.final)

            bench.run(file, tell=tell)
        else:
            real = stores.staging.publish

            def publish(staged: Path, entry: object) -> None:
                real(staged, entry)  # type: ignore[arg-type]
                other_bytes_now(bench.final)

            with monkeypatch.context() as patch:
                patch.setattr(stores.staging, "publish", publish)
                bench.run(file)
        assert bench.final.read_bytes() == OTHER
        again = bench.run(file)
    assert again.code in (0, 7)
    assert again.code == 7 or bench.final.read_bytes() == DATA


@pytest.mark.fault(118)
@pytest.mark.parametrize("act", [cut, grown], ids=lambda act: act.__name__)
def test_a_changed_partial_of_which_no_digest_is_known(bench: Bench, act: Act) -> None:
    """What was hashed on the way is held against what is on the disk, also where nobody published a digest."""
    with FaultyServer(faults.honest(DATA)) as server:
        server.handler = midway(bench, act)
        run = bench.run(loose(server.url + "/f"))
        assert (run.code, bench.final.read_bytes() == DATA) == (0, True)
        assert run.report
        assert (run.report.bytes_discarded > 0) == (act is cut)


@pytest.mark.fault(118)
def test_a_partial_that_is_cut_each_time(bench: Bench) -> None:
    """Whoever keeps changing the partial is told of: 7 after the second time, and the next run begins anew."""
    right = faults.honest(DATA)

    def handler(request: Request, number: int) -> Answer:
        def body() -> Iterator[bytes]:
            yield DATA[: SIZE // 2]
            until(lambda: bench.claimed >= SIZE // 2 - 1)
            cut(bench)
            yield DATA[SIZE // 2 :]

        return replace(right(request, number), body=body())

    with FaultyServer(handler) as server:
        file = pinned(server.url + "/f", DATA)
        run = bench.run(file, connections=1)
        assert (run.code, run.error["message"]) == (7, "another program changed the unfinished file")
        server.handler = right
        assert bench.run(file).row.resumed_at == 0
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(119)
@pytest.mark.parametrize("data", [OTHER, DATA], ids=["other bytes", "the same"])
def test_an_own_file_that_is_exchanged_meanwhile(bench: Bench, data: bytes) -> None:
    """An older file of mdl's own may be replaced; another that stands there by then only if it is right."""
    with FaultyServer(faults.honest(TINY)) as server:
        assert bench.run(pinned(server.url + "/f", TINY)).code == 0
        right = faults.honest(DATA)

        def handler(request: Request, number: int) -> Answer:
            bench.final.with_name("other").write_bytes(data)
            bench.final.with_name("other").replace(bench.final)
            return right(request, number)

        server.handler = handler
        run = bench.run(pinned(server.url + "/f", DATA))
    assert (run.code, bench.final.read_bytes() == data) == (0 if data is DATA else 7, True)
