"""The engine against files that change and validators that mislead (faults, group A)."""

from __future__ import annotations

import threading
import time
from email.utils import formatdate

import pytest
from support import faults
from support.bench import Bench, loose, pinned, stalled
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Request
from support.polling import until

DATA, OTHER = noise(4 * MIB), noise(4 * MIB, 1)
SIZE = len(DATA)


def good(bench: Bench, data: bytes = DATA) -> bool:
    """The final name holds the file, and nothing is left over."""
    return bench.final.read_bytes() == data and not bench.partials and not bench.strangers()


@pytest.mark.fault(11)
def test_changed_between_runs_pinned(bench: Bench) -> None:
    """Another ETag on resume drops the part aloud; the new file is not the one asked for: 6 (A11)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        at = bench.half(file, server, DATA)
        server.handler = faults.honest(OTHER, etag='"v2"')
        run = bench.run(file)
    assert run.code == 6
    assert run.rewound >= at
    assert not bench.final.exists()


@pytest.mark.fault(4, 11, 19)
@pytest.mark.parametrize(
    "size",
    [SIZE, 2 * SIZE, MIB // 2],
    ids=["same size", "larger", "small"],
)
def test_changed_between_runs_loose(bench: Bench, size: int) -> None:
    """Without a digest, another ETag on resume starts anew with the new file, aloud, and leaves no rest (A11, A19)."""
    new = noise(size, 2)
    with FaultyServer(faults.honest(DATA)) as server:
        file = loose(server.url + "/f")
        at = bench.half(file, server, DATA)
        server.handler = faults.honest(new, etag='"v2"')
        run = bench.run(file)
    assert (run.code, run.row.verified) == (0, "size")
    assert run.rewound == run.report.bytes_discarded == at
    assert good(bench, new)


@pytest.mark.fault(12, 23)
@pytest.mark.parametrize("known", [True, False])
def test_flapping_versions(bench: Bench, known: bool) -> None:
    """Two versions behind one name are never mixed: a whole one of them, or a refusal (A12, A23)."""
    with FaultyServer(faults.flaps(DATA, OTHER)) as server:
        url = server.url + "/f"
        run = bench.run(pinned(url, DATA) if known else loose(url))
    assert run.code in (0, 6)
    assert bench.final.exists() == (run.code == 0)
    if run.code == 0:
        assert bench.final.read_bytes() in ((DATA,) if known else (DATA, OTHER))


@pytest.mark.fault(4)
@pytest.mark.parametrize(
    ("etag", "known"),
    [
        (faults.ETAG, True),
        (faults.ETAG, False),
        ('"v2"', True),
        ('"v2"', False),
    ],
)
def test_it_grows_while_it_comes(bench: Bench, etag: str, known: bool) -> None:
    """A file that becomes a longer one between two segments: refused where its digest is known, else the new, whole."""
    bench.segments(MIB)
    longer = noise(5 * MIB, 2)
    calls = faults.first(3, faults.honest(DATA), faults.honest(longer, etag=etag))
    with FaultyServer(calls) as server:
        url = server.url + "/f"
        run = bench.run(pinned(url, DATA) if known else loose(url), connections=1)
    assert run.code == (6 if known else 0)
    assert run.rewound == run.report.bytes_discarded
    assert not bench.final.exists() if known else good(bench, longer)


@pytest.mark.fault(12, 16)
@pytest.mark.parametrize("kind", ["etag", "modified"])
def test_validators_that_never_agree(bench: Bench, kind: str) -> None:
    """Right bytes whose validator is another in each answer, as of machines behind one name, arrive by their digest."""
    bench.segments(MIB)

    def handler(request: Request, number: int) -> Answer:
        if kind == "etag":
            return faults.honest(DATA, etag=f'"v{number}"')(request, number)
        return faults.honest(DATA, etag=None, modified=formatdate(1e9 + number, usegmt=True))(request, number)

    with FaultyServer(handler) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
    assert run.code == 0
    assert good(bench)


@pytest.mark.fault(13, 23)
def test_versions_per_connection(bench: Bench) -> None:
    """Machines behind one name with other bytes under the same ETag: HASH, or the right file (A13, A23)."""
    with FaultyServer(faults.per_connection(faults.honest(DATA), faults.honest(OTHER))) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
    assert run.code in (0, 6)
    assert (bench.final.read_bytes() == DATA) if run.code == 0 else not bench.final.exists()


@pytest.mark.fault(13)
def test_bytes_change_under_one_etag(bench: Bench) -> None:
    """Bytes that change under the same ETag are found by the digest (A13)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        bench.half(file, server, DATA)
        server.handler = faults.honest(OTHER)
        run = bench.run(file)
    assert (run.code, run.error["code"]) == (6, "HASH")
    assert not bench.final.exists()


OLD = formatdate(time.time() - 86400, usegmt=True)


@pytest.mark.fault(14, 15, 16)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("etag", "age", "resumes"),
    [('"v1"', None, True), ('W/"v1"', None, False), (None, 86400.0, True), (None, 5.0, False), (None, None, False)],
    ids=["strong", "weak", "old date", "fresh date", "nothing"],
)
def test_what_may_resume(bench: Bench, etag: str | None, age: float | None, resumes: bool, known: bool) -> None:
    """A digest always lets a part be resumed; without one only a strong ETag or an old date does, else it starts
    anew, aloud. A weak tag is never in If-Range (A14, A15, A16)."""
    modified = formatdate(time.time() - age, usegmt=True) if age is not None else None
    with FaultyServer(faults.honest(DATA)) as server:
        url = server.url + "/f"
        file = pinned(url, DATA) if known else loose(url)
        right = faults.honest(DATA, etag=etag, modified=modified)
        half = SIZE // 2
        server.handler = stalled(right, half)
        assert bench.run(file, stop_at=half).code == 130
        server.handler = right
        run = bench.run(file)
        tags = [r.header("if-range") for r in server.requests]
    kept = half if known or resumes else 0
    assert (run.code, run.row.resumed_at, run.report.bytes_fetched) == (0, kept, SIZE - kept)
    assert run.rewound == half - kept
    assert not any(tag and tag.startswith("W/") for tag in tags)
    assert good(bench)


@pytest.mark.fault(17)
def test_ignored_if_range(bench: Bench) -> None:
    """206 of a new version, whatever was asked: never mixed with the old, and dropped bytes are announced (A17)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = loose(server.url + "/f")
        bench.half(file, server, DATA)
        calls = faults.first(1, faults.honest(DATA), faults.ignores_if_range(OTHER))
        server.handler = calls  # the probe sees the old version, the resume the new
        run = bench.run(file)
    assert (run.code, run.rewound) == (0, SIZE // 2)
    assert good(bench, OTHER)


def test_a_large_file_that_becomes_a_small_one(bench: Bench) -> None:
    """The new version of a file is small: it goes on in what was begun, and nothing stays open or behind."""
    bench.segments(256 * 1024)
    new = noise(300 * 1024, 9)
    old = faults.honest(DATA, etag='"v1"')
    with FaultyServer(faults.first(1, old, faults.honest(new, etag='"v2"'))) as server:
        run = bench.run(loose(server.url + "/f"), connections=2)
    assert (run.code, bench.final.read_bytes() == new, bench.partials) == (0, True, [])
    until(lambda: not any(thread.name == "mdl-hasher" for thread in threading.enumerate()))


@pytest.mark.fault(11)
@pytest.mark.parametrize("size", [2000, 300 * 1024, 2 * MIB])
def test_a_small_file_that_changes_once_is_fetched_anew(bench: Bench, size: int) -> None:
    """A small file without a digest changed between the plan and the request: its new version comes, of any size."""
    new = noise(size, 11)
    changed = faults.first(1, faults.honest(DATA[:1000], etag='"v1"'), faults.honest(new, etag='"v2"'))
    with FaultyServer(changed) as server:
        run = bench.run(loose(server.url + "/f"))
    assert (run.code, bench.final.read_bytes() == new) == (0, True)


@pytest.mark.fault(12)
def test_a_small_file_that_always_changes_is_given_up(bench: Bench) -> None:
    """One that is another at every request is the server's fault: 6, after two requests for it."""
    turns = faults.alternate(*(faults.honest(noise(1000, n), etag=f'"v{n}"') for n in range(9)))
    with FaultyServer(turns) as server:
        run = bench.run(loose(server.url + "/f"))
        requests = len(server.requests)
    assert (run.code, requests) == (6, 3)
