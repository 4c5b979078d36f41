"""The engine against files that change and validators that mislead (faults, group A)."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from email.utils import formatdate

import pytest
from support import faults
from support.bench import Bench, loose, pinned, stalled
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Handler, Request
from support.polling import until

from mdl.downloader.connection_scaler import Tuning
from mdl.paths import RelPath

DATA, OTHER = noise(4 * MIB), noise(4 * MIB, 1)
SIZE = len(DATA)
KNOWN = pytest.mark.parametrize("known", [True, False])


@pytest.mark.fault(4, 11, 19)
@pytest.mark.parametrize("size", [SIZE, 2 * SIZE, MIB // 2], ids=["same size", "larger", "small"])
def test_changed_between_runs_loose(bench: Bench, size: int) -> None:
    """Without a digest, another ETag on resume starts anew with the new file, reports that, and leaves nothing over
    (A11, A19)."""
    new = noise(size, 2)
    run = bench.fetch(faults.honest(new, etag='"v2"'), DATA, known=False, half=True)
    assert (run.code, run.row.verified) == (0, "size")
    assert run.rewound == run.report.bytes_discarded == SIZE // 2
    assert bench.has(new)


FLAPS = faults.flaps(DATA, OTHER)
BY_CONNECTION = faults.per_connection(faults.honest(DATA), faults.honest(OTHER))


@pytest.mark.fault(12, 13, 23)
@pytest.mark.parametrize(("handler", "known"), [(FLAPS, True), (FLAPS, False), (BY_CONNECTION, True)])
def test_flapping_versions(bench: Bench, handler: Handler, known: bool) -> None:
    """Two versions behind one name are never mixed: a whole one of them, or a refusal. If they have the same ETag, as
    of machines that each serve some connections, the digest tells them apart (A12, A13, A23)."""
    run = bench.fetch(handler, DATA, known=known)
    assert run.code in (0, 6)
    assert bench.final.exists() == (run.code == 0)
    if run.code == 0:
        assert bench.final.read_bytes() in ((DATA,) if known else (DATA, OTHER))


@pytest.mark.fault(4)
@KNOWN
@pytest.mark.parametrize("etag", [faults.ETAG, '"v2"'])
def test_it_grows_while_it_comes(bench: Bench, etag: str, known: bool) -> None:
    """A file that becomes longer between two answers: refused if its digest is known, else the new one, whole."""
    bench.segments_in_turn(MIB)
    longer = noise(5 * MIB, 2)
    grows = faults.first(1, faults.cut(faults.honest(DATA), 2 * MIB), faults.honest(longer, etag=etag))
    run = bench.fetch(grows, DATA, known=known, connections=1)
    assert run.code == (6 if known else 0)
    assert run.rewound == run.report.bytes_discarded
    assert not bench.final.exists() if known else bench.has(longer)


@pytest.mark.fault(12, 16)
@pytest.mark.parametrize("kind", ["etag", "modified"])
def test_validators_that_never_agree(bench: Bench, kind: str) -> None:
    """Right bytes with another validator in each answer, as of several machines behind one name, are accepted by their
    digest."""
    bench.segments(MIB)

    def handler(request: Request, number: int) -> Answer:
        if kind == "etag":
            return faults.honest(DATA, etag=f'"v{number}"')(request, number)
        return faults.honest(DATA, etag=None, modified=formatdate(1e9 + number, usegmt=True))(request, number)

    assert bench.fetch(handler, DATA).code == 0
    assert bench.has(DATA)


@pytest.mark.fault(14, 15, 16)
@KNOWN
@pytest.mark.parametrize(
    ("etag", "age", "resumes"),
    [('"v1"', None, True), ('W/"v1"', None, False), (None, 86400.0, True), (None, 5.0, False), (None, None, False)],
    ids=["strong", "weak", "old date", "fresh date", "nothing"],
)
def test_what_may_resume(bench: Bench, etag: str | None, age: float | None, resumes: bool, known: bool) -> None:
    """A digest always lets a part be resumed; without one only a strong ETag or an old date does, else the file starts
    anew, and says so. A weak tag is never in If-Range (A14, A15, A16)."""
    modified = formatdate(time.time() - age, usegmt=True) if age is not None else None
    right, half = faults.honest(DATA, etag=etag, modified=modified), SIZE // 2
    with FaultyServer(stalled(right, half)) as server:
        file = pinned(server.url + "/f", DATA) if known else loose(server.url + "/f")
        assert bench.run(file, stop_at=half).code == 130
        server.handler = right
        run = bench.run(file)
        tags = [r.header("if-range") for r in server.requests]
    kept = half if known or resumes else 0
    assert (run.code, run.row.resumed_at, run.report.bytes_fetched) == (0, kept, SIZE - kept)
    assert run.rewound == half - kept
    assert not any(tag and tag.startswith("W/") for tag in tags)
    assert bench.has(DATA)


@pytest.mark.fault(17)
def test_ignored_if_range(bench: Bench) -> None:
    """206 of a new version, whatever was requested: never mixed with the old, and dropped bytes are reported (A17)."""
    changes = faults.first(1, faults.honest(DATA), faults.ignores_if_range(OTHER))  # the probe sees the old version
    run = bench.fetch(changes, DATA, known=False, half=True)
    assert (run.code, run.rewound) == (0, SIZE // 2)
    assert bench.has(OTHER)


def test_a_large_file_that_becomes_a_small_one(bench: Bench) -> None:
    """The new version of a file is small: it goes into the partial that was begun, and nothing stays open or behind."""
    bench.segments(256 * 1024)
    others, new = set(threading.enumerate()), noise(300 * 1024, 9)
    shrinks = faults.first(1, faults.cut(faults.honest(DATA, etag='"v1"'), MIB), faults.honest(new, etag='"v2"'))
    assert bench.fetch(shrinks, DATA, known=False, connections=2).code == 0
    assert bench.has(new)
    until(lambda: not any(thread.name == "mdl-hasher" for thread in {*threading.enumerate()} - others))


@pytest.mark.fault(11)
@pytest.mark.parametrize("size", [2000, 300 * 1024, 2 * MIB])
def test_a_small_file_that_changes_once_is_fetched_anew(bench: Bench, size: int) -> None:
    """A small file without a digest changed between two answers: its new version comes, of any size."""
    new = noise(size, 11)
    cut = faults.cut(faults.honest(DATA[:1000], etag='"v1"'), 500)
    changed = faults.first(1, cut, faults.honest(new, etag='"v2"'))
    assert bench.fetch(changed, DATA[:1000], known=False).code == 0
    assert bench.has(new)


@pytest.mark.fault(12)
@pytest.mark.parametrize("size", [1000, 4 * MIB])
def test_a_file_that_always_changes_is_given_up(bench: Bench, size: int) -> None:
    """A file that is another at every request, and of another size, is the server's fault: 6, after two requests."""
    versions = [faults.honest(noise(size + n, n), etag=f'"v{n}"') for n in range(9)]
    turns = faults.alternate(*(faults.cut(version, size // 2) for version in versions))
    run = bench.fetch(turns, DATA, known=False)
    assert (run.code, len(run.requests)) == (6, 3)


def of_server(number: int) -> dict[str, str | None]:
    """Validators as machine ``number`` behind one name sends them."""
    return {"etag": f'"s{number}"', "modified": formatdate(1e9 + number, usegmt=True)}


BALANCED: dict[str, list[dict[str, str | None]]] = {
    "three servers": [of_server(0), of_server(1), of_server(2)],
    "each answer": [of_server(n) for n in range(50)],
    "one weak": [{"etag": 'W/"s0"', "modified": None}, of_server(1)],
    "one without": [{"etag": None, "modified": None}, of_server(1), of_server(2)],
    "dates alone": [{"etag": None, "modified": of_server(n)["modified"]} for n in range(3)],
}


@pytest.mark.fault(12)
@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("size", [1000, 12 * MIB])
@pytest.mark.parametrize("kind", BALANCED)
def test_servers_of_one_name(bench: Bench, kind: str, size: int, connections: int) -> None:
    """Servers behind a balancer, each with validators of its own, bring a file without a digest in one answer, with at
    most three times the bytes; it is reported as unverified."""
    data = noise(size, 3)
    bench.tuning = Tuning(probe_after=0.0, fast_enough=1e99)
    turns = faults.alternate(*(faults.honest(data, **validators) for validators in BALANCED[kind]))  # type: ignore[arg-type]
    with FaultyServer(turns) as server:
        run = bench.run(loose(f"{server.url}/f"), connections=connections)
        sent = server.bytes_sent
    assert (run.code, run.status) == (0, "unverified"), run.error
    assert bench.has(data)
    assert sent <= 3 * size + MIB


@pytest.mark.fault(12)
def test_servers_of_one_name_after_a_kill(bench: Bench) -> None:
    """What came in one answer without a validator is not gone on with: it starts anew."""
    turns = faults.alternate(*(stalled(faults.honest(DATA, etag=f'"v{n}"'), SIZE // 2) for n in range(50)))
    with FaultyServer(turns) as server:
        assert bench.run(loose(f"{server.url}/f"), stop_at=SIZE // 2).code == 130
        server.handler = faults.honest(DATA)
        run = bench.run(loose(f"{server.url}/f"))
    assert (run.code, run.row.resumed_at) == (0, 0)
    assert bench.has(DATA)


@pytest.mark.parametrize("size", [SIZE, MIB // 2], ids=["large", "small"])
def test_the_digest_of_a_folder_verifies_nothing(bench: Bench, size: int) -> None:
    """Bytes are compared with a digest that only a bundle's lock names, and are not called verified by it."""
    with FaultyServer(faults.honest(DATA[:size])) as server:
        file = replace(pinned(server.url + "/f", DATA[:size]), vouched_by="folder")
        run = bench.run(file)
        assert (run.code, run.row.verified, run.status) == (0, "size", "unverified")
        server.handler = faults.honest(OTHER[:size])
        assert bench.run(replace(file, path=RelPath.parse("other.bin"))).code == 6
