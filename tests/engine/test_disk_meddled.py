"""Other programs change mdl's files while it is at work: folders go, partials are cut, a file is in the way."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import faults
from support.bench import KNOWN, Bench, pinned, probes
from support.data import MIB, noise
from support.faulty_server import FaultyServer, Handler
from support.polling import until

from mdl.events import Event, Planned

DATA, OTHER, TINY = noise(4 * MIB), noise(4 * MIB, 1), noise(1000, 2)
SIZE, HALF = len(DATA), len(DATA) // 2
Act = Callable[[Bench], object]


def midway(bench: Bench, act: Act, *, always: bool = False) -> Handler:
    """Serves the file, and does something in the middle of the first body, or of each, once half of it is claimed. For
    one connection: it is asked for the whole file only."""
    done = threading.Event()

    def come() -> None:
        until(lambda: bench.claimed >= HALF - 1)  # the last byte of a piece is sent with the next one
        if not always:
            done.set()
        act(bench)

    is_plain = lambda request: done.is_set() or probes(request)  # noqa: E731
    return faults.choose(is_plain, faults.honest(DATA), faults.acting_at(come, DATA, HALF))


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


@pytest.mark.fault(117, 118)
@pytest.mark.parametrize("act", [gone, moved, linked, another, exchanged, unlinked], ids=lambda act: act.__name__)
def test_taken_away_on_the_way(bench: Bench, act: Act) -> None:
    """If the models folder or the partial goes, or is another one, midway: no file, nothing written at a link's target,
    and the same command again ends well. A folder that is gone is a disk error (7), not another mdl to wait for (9)."""
    with FaultyServer(midway(bench, act)) as server:
        file = pinned(server.url + "/f", DATA)
        run = bench.run(file, connections=1)
        assert run.code in ((7,) if act in (gone, moved) else (7, 9, 11)), run
        assert not bench.final.exists()
        if act is linked:
            found = [path for path in elsewhere(bench).rglob("*") if path.is_file() and ".mdl" not in path.parts]
            assert found == []
        assert bench.run(file).code == 0
    assert bench.final.read_bytes() == DATA


def cut(bench: Bench) -> None:
    os.truncate(bench.partials[0], 1000)


def grown(bench: Bench) -> None:
    os.truncate(bench.partials[0], 2 * SIZE)


@pytest.mark.fault(118)
@KNOWN
@pytest.mark.parametrize("act", [cut, grown], ids=lambda act: act.__name__)
def test_a_partial_of_another_length(bench: Bench, act: Act, known: bool) -> None:
    """A partial that another program cuts or lengthens midway is never published as it is: what was hashed on the way
    is compared with what is on the disk, also if no digest was published."""
    run = bench.fetch(midway(bench, act), DATA, known=known, connections=1)
    if known:
        assert run.code in (0, 6, 7)
        assert bench.has(DATA) if run.code == 0 else not bench.final.exists()
        assert bench.fetch(faults.honest(DATA), DATA).code == 0
    else:
        assert (run.code, run.report.bytes_discarded > 0) == (0, act is cut)
    assert bench.has(DATA)


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
    assert bench.fetch(midway(bench, act), DATA, connections=1).code == 0
    assert bench.final.read_bytes() == DATA
    assert act is without_journal or bench.store.root.with_name("precious").read_text() == "mine"


@pytest.mark.fault(118)
def test_a_partial_that_is_cut_each_time(bench: Bench) -> None:
    """If another program keeps changing the partial it is 7 after the second time; the next run begins anew."""
    run = bench.fetch(midway(bench, cut, always=True), DATA, connections=1)
    assert (run.code, run.error["message"]) == (7, "another program changed the unfinished file")
    assert bench.fetch(faults.honest(DATA), DATA).row.resumed_at == 0
    assert bench.has(DATA)


def put(path: Path, data: bytes) -> None:
    """Put a file there as programs do that write beside it and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("other").write_bytes(data)
    path.with_name("other").replace(path)


@pytest.mark.fault(119)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
def test_a_strangers_file_that_comes_meanwhile(bench: Bench, data: bytes) -> None:
    """A file that another program puts under the final name while the bytes come needs --force to be replaced."""
    run = bench.fetch(faults.acting(lambda: put(bench.final, b"mine"), faults.honest(data)), data)
    assert (run.code, bench.final.read_bytes()) == (7, b"mine")
    assert bench.fetch(faults.honest(data), data, force=True).code == 0
    assert bench.has(data)


@pytest.mark.fault(119)
@pytest.mark.parametrize("data", [OTHER, DATA], ids=["other bytes", "the same"])
def test_an_own_file_that_is_exchanged_meanwhile(bench: Bench, data: bytes) -> None:
    """An older file of mdl's own may be replaced; another that is there by then only if it is right."""
    assert bench.fetch(faults.honest(TINY), TINY).code == 0
    run = bench.fetch(faults.acting(lambda: put(bench.final, data), faults.honest(DATA)), DATA)
    assert (run.code, bench.final.read_bytes() == data) == (0 if data is DATA else 7, True)


@pytest.mark.fault(119, 130)
@pytest.mark.parametrize("kept", [False, True], ids=["fetched", "adopted"])
def test_a_receipt_vouches_for_what_was_hashed(bench: Bench, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    """A file that is exchanged between its hash and its receipt is not believed by the next run."""
    if kept:
        put(bench.final, DATA)

        def tell(event: Event) -> None:
            if isinstance(event, Planned):
                put(bench.final, OTHER)

        bench.fetch(faults.honest(DATA), DATA, tell=tell)
    else:
        real = os.link

        def link(*names: object, **folders: object) -> None:
            real(*names, **folders)  # type: ignore[arg-type]
            put(bench.final, OTHER)

        with monkeypatch.context() as patch:
            patch.setattr(os, "link", link)
            bench.fetch(faults.honest(DATA), DATA)
    assert bench.final.read_bytes() == OTHER
    again = bench.fetch(faults.honest(DATA), DATA)
    assert again.code == 7 or (again.code == 0 and bench.final.read_bytes() == DATA)
