"""The engine and a hub whose branches move, whose files are named anew, and which has hard days (faults, group D)."""

from __future__ import annotations

import hashlib
import json
import time
from types import SimpleNamespace

import pytest
from support import faults
from support.bench import Bench, stalled
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Handler, Request, reply
from support.loopback_hub import LoopbackHub, Repo

from mdl.sources.hub_origin import HubOrigin

OLD, NEW, TINY = noise(3 * MIB), noise(3 * MIB, 1), b'{"a": 1}'
SIZE, HALF = len(OLD), len(OLD) // 2
MAIN = HubOrigin("demo/x")
FIRST, SECOND = "a" * 40, "b" * 40


class Hub:
    """A hub of one repository, ``model.bin`` and ``config.json``, as bare as can be: no X-Linked-*, no commit header.

    ``commit`` is where main is; ``files`` what each commit holds; ``serve`` answers for model.bin.
    """

    def __init__(self, **files: bytes) -> None:
        self.files = {FIRST: OLD, SECOND: NEW, **files}
        self.commit = FIRST
        self.serve: dict[str, Handler] = {}

    def __call__(self, request: Request, number: int) -> Answer:
        words = request.path.strip("/").split("/")
        if "revision" in words:
            return _json({"sha": self.commit})
        if "tree" in words:
            return _json([_entry("model.bin", self.files[words[-1]], lfs=True), _entry("config.json", TINY)])
        commit, name = words[-2:]
        right = faults.honest(self.files[commit] if name == "model.bin" else TINY)
        return self.serve.get(name, right)(request, number)


def _json(data: object) -> Answer:
    return reply(200, json.dumps(data).encode(), ("Content-Type", "application/json"))


def _entry(path: str, data: bytes, *, lfs: bool = False) -> dict[str, object]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    large = {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}} if lfs else {}
    return {"type": "file", "path": path, "size": len(data), "oid": blob, **large}


def rows(run: object) -> dict[str, tuple[str, str]]:
    return {row.path: (row.action, row.verified) for row in run.report.models[0].files}  # type: ignore[attr-defined]


def held(bench: Bench, name: str) -> bytes:
    return (bench.store.folder("m") / name).read_bytes()


@pytest.mark.fault(71, 72)
def test_a_bare_hub(bench: Bench) -> None:
    """Without X-Linked-* headers the listing's digests hold: sha256 for large files, git's own for small ones."""
    with FaultyServer(Hub()) as server:
        run = bench.run(source=MAIN, hub=server.url)
    assert run.code == 0
    assert rows(run) == {"model.bin": ("fetched", "sha256"), "config.json": ("fetched", "git-sha1")}
    assert run.status == "present"


@pytest.mark.fault(72)
@pytest.mark.parametrize("name", ["model.bin", "config.json"])
def test_other_bytes_than_listed(bench: Bench, name: str) -> None:
    """Other bytes of the listed size are refused, whichever of the two digests there is; the other file is there."""
    hub = Hub()
    hub.serve[name] = faults.honest(NEW if name == "model.bin" else b"x" * len(TINY))
    with FaultyServer(hub) as server:
        run = bench.run(source=MAIN, hub=server.url, retries=1)
    assert (run.code, run.error["code"]) == (6, "HASH")
    assert {path: action for path, (action, _) in rows(run).items()} == {
        path: "failed" if path == name else "fetched" for path in ("model.bin", "config.json")
    }


@pytest.mark.fault(67)
@pytest.mark.parametrize("pinned", [True, False])
def test_branch_moves_between_start_and_resume(bench: Bench, pinned: bool) -> None:
    """A part of the commit asked for is gone on with; of one that a branch has left it is dropped, aloud."""
    hub = Hub()
    source = HubOrigin("demo/x", revision=FIRST if pinned else None)
    hub.serve["model.bin"] = stalled(faults.honest(OLD), HALF)
    with FaultyServer(hub) as server:
        assert bench.run(source=source, hub=server.url, stop_at=HALF).code == 130
        hub.commit = SECOND
        hub.serve.clear()
        run = bench.run(source=source, hub=server.url)
    assert run.code == 0
    assert run.rewound == run.report.bytes_discarded == (0 if pinned else HALF)
    assert held(bench, "model.bin") == (OLD if pinned else NEW)
    assert not bench.partials


@pytest.mark.fault(67)
def test_branch_moves_but_not_the_file(bench: Bench) -> None:
    """A branch that moves for the sake of another file costs no byte of this one."""
    hub = Hub(**{SECOND: OLD})
    hub.serve["model.bin"] = stalled(faults.honest(OLD), HALF)
    with FaultyServer(hub) as server:
        assert bench.run(source=MAIN, hub=server.url, stop_at=HALF).code == 130
        hub.commit = SECOND
        hub.serve.clear()
        before = server.bytes_sent
        run = bench.run(source=MAIN, hub=server.url)
        asked = [r.path for r in server.requests if r.header("range")]
    assert (run.code, run.rewound) == (0, 0)
    assert server.bytes_sent - before < SIZE - HALF + MIB // 2
    assert FIRST in asked[0]
    assert SECOND in asked[-1]


@pytest.mark.fault(68)
def test_branch_moves_under_a_run(bench: Bench) -> None:
    """All files of one run are of the commit it began with, though the branch moves while it fetches."""
    hub = Hub()

    def moves(request: Request, number: int) -> Answer:
        hub.commit = SECOND
        return faults.honest(OLD)(request, number)

    hub.serve["model.bin"] = moves
    with FaultyServer(hub) as server:
        run = bench.run(source=MAIN, hub=server.url, connections=1)
        commits = {r.path.split("/")[-2] for r in server.requests if "/resolve/" in r.path}
    assert (run.code, commits) == (0, {FIRST})
    assert held(bench, "model.bin") == OLD


@pytest.mark.fault(73)
def test_too_large_for_plain_http(bench: Bench) -> None:
    """A file that the hub gives to its own client alone: its words, 4 at once, no half file; the others are there."""
    hub = Hub()
    words = "the file is too large to be served without hf_xet"
    hub.serve["model.bin"] = faults.answers(403, ("X-Error-Message", words))
    with FaultyServer(hub) as server:
        run = bench.run(source=MAIN, hub=server.url)
        tries = sum(r.path.endswith("model.bin") for r in server.requests)
    assert (run.code, run.error["code"], tries) == (4, "AUTH", 1)
    assert words in run.error["message"]
    assert rows(run)["config.json"] == ("fetched", "git-sha1")
    assert not bench.final.exists()


@pytest.mark.fault(74)
@pytest.mark.parametrize("status", [301, 307, 308])
def test_renamed_repository(bench: Bench, status: int) -> None:
    """A repository that was given another name is fetched under the old one, redirect by redirect, and gone on with."""
    hub = Hub()

    def renamed(request: Request, number: int) -> Answer:
        if "demo/x" in request.path:
            target = request.target.replace("demo/x", "fresh/name")
            return faults.redirects(target, status=status)(request, number)
        return hub(request, number)

    with FaultyServer(renamed) as server:
        hub.serve["model.bin"] = stalled(faults.honest(OLD), HALF)
        assert bench.run(source=MAIN, hub=server.url, stop_at=HALF).code == 130
        hub.serve.clear()
        run = bench.run(source=MAIN, hub=server.url)
    assert (run.code, run.rewound) == (0, 0)
    assert held(bench, "model.bin") == OLD


@pytest.mark.fault(82)
@pytest.mark.parametrize(
    ("status", "what"), [(500, "everything"), (503, "everything"), (502, "the files"), (429, "the files")]
)
def test_a_hub_that_is_down_for_a_while(bench: Bench, status: int, what: str) -> None:
    """A hub that is down is given up after the attempts allowed: 5, what is there is kept; the next run goes on."""
    hub = Hub()
    hub.serve["model.bin"] = stalled(faults.honest(OLD), HALF)
    down = faults.answers(status, body=b"back soon")
    with FaultyServer(hub) as server:
        assert bench.run(source=MAIN, hub=server.url, stop_at=HALF).code == 130
        kept = bench.claimed
        hub.serve = {"model.bin": down, "config.json": down}
        server.handler = down if what == "everything" else hub
        run = bench.run(source=MAIN, hub=server.url, retries=3)
        assert (run.code, run.error["code"], bench.claimed, run.rewound) == (5, "NET", kept, 0)
        assert "back soon" in run.error["message"]
        hub.serve.clear()
        server.handler = hub
        again = bench.run(source=MAIN, hub=server.url)
    assert (again.code, again.rewound) == (0, 0)
    assert held(bench, "model.bin") == OLD


@pytest.mark.fault(61, 134)
@pytest.mark.parametrize("years", [-20, 20])
def test_a_clock_that_is_wrong(bench: Bench, monkeypatch: pytest.MonkeyPatch, years: int) -> None:
    """Signed links that seem to be expired, or good for ever, by this machine's clock: the file comes all the same."""
    wrong = SimpleNamespace(time=lambda: time.time() + years * 365 * 86400, monotonic=time.monotonic)
    monkeypatch.setattr("mdl.engine.download.time", wrong)
    bench.segments(MIB)
    with LoopbackHub([Repo("demo/x", {"model.bin": OLD})]) as hub:
        run = bench.run(source=MAIN, hub=hub.url, connections=2)
    assert (run.code, run.retries, run.rewound) == (0, 0, 0)
    assert held(bench, "model.bin") == OLD


@pytest.mark.fault(59, 67)
def test_links_expire_and_the_branch_moves(bench: Bench) -> None:
    """Signed links that expire while the branch moves are asked for anew at the commit the run began with."""
    repo = Repo("demo/x", {"model.bin": OLD})
    moved = Repo("demo/x", {"model.bin": NEW})
    bench.segments(MIB)
    with LoopbackHub([repo]) as hub:

        def tell(event: object) -> None:
            if type(event).__name__ == "Started":
                hub.publish(moved)
                hub.expire_links()

        run = bench.run(source=MAIN, hub=hub.url, tell=tell, connections=1)
    assert run.code == 0
    assert held(bench, "model.bin") == OLD
