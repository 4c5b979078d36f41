"""Killed, interrupted, run twice, run side by side: what is here is kept and nothing is fetched twice."""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path

import pytest
from support import faults
from support.bench import NAME, Bench, claimed_in, loose, pinned, probes
from support.data import MIB, noise, sha256
from support.faulty_server import FaultyServer, Handler
from support.loopback_hub import Generated, LoopbackHub, Repo
from support.polling import until
from support.shell import child

from mdl.downloader import journal
from mdl.errors import Cancelled
from mdl.net.ranges import ByteRange, RangeSet
from mdl.sources.hub_origin import HubOrigin

DATA = noise(4 * MIB)
SIZE = len(DATA)
KILLS = 10 if os.environ.get("MDL_LONG") == "1" else 2


def catalog(folder: Path, *rows: tuple[str, str, bytes]) -> tuple[str, ...]:
    """Write a catalog of one model ``m`` of (path, url, bytes); returns the words that name it and a models folder."""
    lines = ["schema = 1", "[models.m]"]
    for path, url, data in rows:
        lines += ["[[models.m.files]]", f'path = "{path}"', f'url = "{url}"']
        lines += [f"size = {len(data)}", f'sha256 = "{sha256(data)}"']
    (folder / "catalog.toml").write_text("\n".join(lines) + "\n")
    return ("--catalog", str(folder / "catalog.toml"), "--to", str(folder / "models"))


def ranges_asked(hub: LoopbackHub) -> list[ByteRange]:
    """The ranges that the hub's CDN was asked for, in that order; of the whole file its first byte."""
    headers = [one.headers.get("range", "bytes=0-0") for one in hub.requests if one.origin == "cdn"]
    words = [header.removeprefix("bytes=").split("-") for header in headers]
    return [ByteRange(int(first), int(last) + 1) for first, last in words]


def claims_of(models: Path) -> RangeSet:
    """What the journal of the one partial claims."""
    (path,) = models.glob(".mdl/partials/*/journal")
    record = journal.load(path)
    assert record
    return record.have


def again(asked: list[ByteRange], claims: RangeSet) -> list[ByteRange]:
    """Those of the ranges that hold a claimed byte."""
    return [one for one in asked if RangeSet([one]).without(claims) != [one]]


@pytest.mark.fault(124)
def test_killed_again_and_again(tmp_path: Path) -> None:
    """After a kill -9 no byte is asked for that a journal claims, and byte 0 is asked for once in all; in the end
    nothing is left over (I2, I3).

    How much a kill costs depends on the disk's syncs, and is measured by benchmarks/kill.py.
    """
    content = Generated(32 * MIB * KILLS, 3)
    repo = Repo("demo/big", {"model.bin": content})
    models, dice = tmp_path / "models", random.Random(7)
    words = ("get", f"hf:demo/big@{repo.commit}", "--into", str(models), "--connections", "4")
    claims, before = RangeSet(), 0
    with LoopbackHub([repo], bytes_per_second=14e6) as hub:
        for _ in range(KILLS):
            goal = claims.total + dice.randint(2 * MIB, 5 * MIB)
            process = child(tmp_path, *words, HF_ENDPOINT=hub.url)
            until(lambda process=process, goal=goal: claimed_in(models) >= goal or process.poll() is not None)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            assert not (models / "model.bin").exists()
            assert not again(ranges_asked(hub)[before:], claims)
            claims, before = claims_of(models), len(ranges_asked(hub))
        hub.bytes_per_second = 60e6
        last = child(tmp_path, *words, HF_ENDPOINT=hub.url)
        _, errors = last.communicate()
        asked = ranges_asked(hub)
    assert last.returncode == 0, errors
    assert asked[before:]
    assert not again(asked[before:], claims)
    assert [one.start for one in asked].count(0) == 1
    assert (models / "model.bin").read_bytes() == content[0 : len(content)]
    assert sorted(path.name for path in models.iterdir()) == [".mdl", "model.bin"]
    assert not list((models / ".mdl" / "partials").iterdir())


@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8), (3, 5)])
def test_other_number_of_connections(bench: Bench, before: int, after: int) -> None:
    """Another --connections than before costs no byte of what is here (I2)."""
    bench.segments(MIB)
    hangs = faults.stall_before_headers()
    slow = faults.choose(lambda r: r.header("range") == f"bytes={MIB}-{2 * MIB - 1}", hangs, faults.honest(DATA))
    with FaultyServer(slow if before > 1 else faults.stall_in_body(DATA, MIB // 2)) as server:
        file = pinned(server.url + "/f", DATA)
        stop = 3 * MIB if before > 1 else MIB // 2
        assert bench.run(file, connections=before, stop_at=stop).code == 130
        kept = bench.claimed
        server.handler = faults.honest(DATA)
        run = bench.run(file, connections=after)
    assert kept >= stop
    assert (run.code, run.row.resumed_at, run.report.bytes_fetched, run.rewound) == (0, kept, SIZE - kept, 0)
    assert bench.has(DATA)


@pytest.mark.parametrize("pinned_to_commit", [True, False])
def test_second_run(bench: Bench, pinned_to_commit: bool) -> None:
    """What is here is not requested again: nothing is requested for a pinned model, no body for a branch."""
    repo = Repo("demo/x", {"config.json": b"{}", "model.bin": Generated(3 * MIB)})
    source = HubOrigin("demo/x", revision=repo.commit if pinned_to_commit else None)
    with LoopbackHub([repo]) as hub:
        first = bench.run(source=source, hub=hub.url)
        before = len(hub.requests)
        second = bench.run(source=source, hub=hub.url)
        asked = hub.requests[before:]
    assert (first.code, second.code, second.report.bytes_fetched) == (0, 0, 0)
    assert {row.action for row in second.report.models[0].files} == {"kept"}
    assert len(asked) == 0 if pinned_to_commit else 0 < len(asked) <= 2
    assert all(request.path.startswith("/api/") for request in asked)


def test_second_run_of_a_direct_file(bench: Bench) -> None:
    """A pinned direct URL costs no second request; one without a digest costs one small request."""
    with FaultyServer(faults.honest(DATA)) as server:
        known, unknown = pinned(server.url + "/a", DATA, path="a"), loose(server.url + "/b", path="b")
        assert bench.run(known, unknown).code == 0
        before = len(server.requests)
        run = bench.run(known, unknown)
        asked = [(request.path, probes(request)) for request in server.requests[before:]]
    assert (run.code, run.report.bytes_fetched, asked) == (0, 0, [("/b", True)])


def test_side_by_side(tmp_path: Path) -> None:
    """A second mdl on the same model waits and says for which process; without a wait it ends with 9 and names it."""
    gate = threading.Event()
    with FaultyServer(faults.stall_in_body(DATA, MIB, gate=gate)) as server:
        words = (*catalog(tmp_path, (NAME, server.url + "/f", DATA)), "--connections", "1")
        first = child(tmp_path, "get", "m", *words)
        until(lambda: claimed_in(tmp_path / "models") >= MIB)
        hasty = child(tmp_path, "get", "m", *words, "--lock-wait", "0")
        _, errors = hasty.communicate()
        assert hasty.returncode == 9
        assert str(first.pid) in errors
        patient = child(tmp_path, "get", "m", *words, "--lock-wait", "60", "--progress", "lines")
        said = patient.stderr.readline() if patient.stderr else ""
        assert f"process {first.pid}" in said
        gate.set()
        first.communicate()
        patient.communicate()
        bodies = len(server.requests)
    assert (first.returncode, patient.returncode, bodies) == (0, 0, 1)
    assert (tmp_path / "models" / "m" / NAME).read_bytes() == DATA


def test_the_lock_only_saves_work(bench: Bench, tmp_path: Path) -> None:
    """Even if the lock file and its lease are gone, a second mdl does not touch the partial of a living one: 9, and it
    names that process (F112)."""
    gate = threading.Event()
    with FaultyServer(faults.stall_in_body(DATA, MIB, gate=gate)) as server:
        first = child(tmp_path, "get", "m", *catalog(tmp_path, (NAME, server.url + "/f", DATA)))
        until(lambda: claimed_in(tmp_path / "models") >= MIB)
        for lock in (tmp_path / "models" / ".mdl" / "locks").iterdir():
            lock.unlink()
        run = bench.run(pinned(server.url + "/f", DATA))
        gate.set()
        first.communicate()
    assert (run.code, first.returncode) == (9, 0)
    assert str(first.pid) in run.error["message"]
    assert bench.has(DATA)


STALLS = {
    "before the headers": faults.stall_before_headers(),
    "in the body": faults.stall_in_body(DATA, 100_000),
}


@pytest.mark.parametrize("stall", STALLS)
def test_interrupt(tmp_path: Path, stall: str) -> None:
    """Ctrl-C with eight stalled connections ends mdl with 130 before they are given up, and what came is kept."""
    interrupt(tmp_path, STALLS[stall], signal.SIGINT, 130)
    assert claimed_in(tmp_path / "models") == (8 * 100_000 if stall == "in the body" else 0)


def test_terminated(tmp_path: Path) -> None:
    """SIGTERM ends mdl as Ctrl-C does, with 143."""
    interrupt(tmp_path, STALLS["in the body"], signal.SIGTERM, 143)


def interrupt(folder: Path, handler: Handler, number: signal.Signals, code: int) -> None:
    """Send mdl a signal while it has eight connections that would stall for an hour: it ends with this code."""
    with FaultyServer(handler) as server:
        words = catalog(folder, *((f"{n}.bin", f"{server.url}/{n}", DATA[:-1] + bytes([n])) for n in range(8)))
        process = child(folder, "get", "m", *words, "--connections", "8", "--stall", "1h")
        enough = 0 if handler is STALLS["before the headers"] else 8 * 100_000
        until(lambda: len(server.requests) == 8 and claimed_in(folder / "models") >= enough)
        process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == code, errors
    assert "Traceback" not in errors


def test_cancel_in_the_process_frees_everything(bench: Bench) -> None:
    """After an interruption no thread of the engine is at work, and a cancelled client sends no request."""
    others, names = set(threading.enumerate()), ("mdl-worker", "mdl-syncer", "mdl-hasher")
    with FaultyServer(faults.stall_in_body(DATA, MIB)) as server:
        bench.run(pinned(server.url + "/f", DATA), stop_at=MIB)
        until(lambda: not [t for t in {*threading.enumerate()} - others if t.name.startswith(names)])
        before = len(server.requests)
        with bench.http() as http:
            http.cancel.set()
            with pytest.raises(Cancelled), http.open("GET", server.url + "/f"):
                pass
        assert len(server.requests) == before
