"""The engine and a hub whose branches move, whose repositories get new names, and which fails (faults, group D)."""

from __future__ import annotations

import hashlib
import time
from types import SimpleNamespace

import pytest
from support import faults
from support.bench import Bench, Run, stalled
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Handler, Request, json_reply
from support.loopback_hub import LoopbackHub, Repo

from mdl.events import Event, Started
from mdl.sources.hub_origin import HubOrigin

OLD, NEW, TINY = noise(3 * MIB), noise(3 * MIB, 1), b'{"a": 1}'
HALF = len(OLD) // 2
MAIN = HubOrigin("demo/x")
FIRST, SECOND = "a" * 40, "b" * 40


class Hub:
    """A bare hub of one repository with ``model.bin`` and ``config.json``: no X-Linked-*, no commit header.

    ``commit`` is where main is, ``files`` what each commit holds, ``serve`` answers for a file of that name.
    """

    def __init__(self, **files: bytes) -> None:
        self.files = {FIRST: OLD, SECOND: NEW, **files}
        self.commit = FIRST
        self.serve: dict[str, Handler] = {}

    def __call__(self, request: Request, number: int) -> Answer:
        words = request.path.strip("/").split("/")
        if "revision" in words:
            return json_reply({"sha": self.commit})
        if "tree" in words:
            return json_reply([_entry("model.bin", self.files[words[-1]], lfs=True), _entry("config.json", TINY)])
        commit, name = words[-2:]
        right = faults.honest(self.files[commit] if name == "model.bin" else TINY)
        return self.serve.get(name, right)(request, number)


def _entry(path: str, data: bytes, *, lfs: bool = False) -> dict[str, object]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    large = {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}} if lfs else {}
    return {"type": "file", "path": path, "size": len(data), "oid": blob, **large}


def rows(run: Run) -> dict[str, tuple[str, str]]:
    assert run.report
    return {row.path: (row.action, row.verified) for row in run.report.models[0].files}


def half_of_it(bench: Bench, hub: Hub, server: FaultyServer, source: HubOrigin = MAIN) -> None:
    """Have half of model.bin here, interrupted; the hub is honest again."""
    hub.serve["model.bin"] = stalled(faults.honest(OLD), HALF)
    assert bench.run(source=source, hub=server.url, stop_at=HALF).code == 130
    hub.serve.clear()


@pytest.mark.fault(71, 72)
def test_a_bare_hub(bench: Bench) -> None:
    """Without X-Linked-* headers the listing's digests hold: sha256 for large files, git's own for small ones."""
    with FaultyServer(Hub()) as server:
        run = bench.run(source=MAIN, hub=server.url)
    assert (run.code, run.status) == (0, "present")
    assert rows(run) == {"model.bin": ("fetched", "sha256"), "config.json": ("fetched", "git-sha1")}


@pytest.mark.fault(72)
@pytest.mark.parametrize("name", ["model.bin", "config.json"])
def test_other_bytes_than_listed(bench: Bench, name: str) -> None:
    """Other bytes of the listed size are refused, whichever of the two digests there is; the other file is there."""
    hub = Hub()
    hub.serve[name] = faults.honest(NEW if name == "model.bin" else b"x" * len(TINY))
    with FaultyServer(hub) as server:
        run = bench.run(source=MAIN, hub=server.url, retries=1)
    assert (run.code, run.error["code"]) == (6, "HASH")
    assert {path for path, (action, _) in rows(run).items() if action == "failed"} == {name}
    assert {path for path, (action, _) in rows(run).items() if action == "fetched"} == set(rows(run)) - {name}


@pytest.mark.fault(67)
@pytest.mark.parametrize("is_pinned", [True, False])
def test_branch_moves_between_start_and_resume(bench: Bench, is_pinned: bool) -> None:
    """A part of the commit that was requested is resumed; of one that a branch has left it is dropped and reported."""
    hub, source = Hub(), HubOrigin("demo/x", revision=FIRST if is_pinned else None)
    with FaultyServer(hub) as server:
        half_of_it(bench, hub, server, source)
        hub.commit = SECOND
        run = bench.run(source=source, hub=server.url)
    assert run.code == 0
    assert run.rewound == run.report.bytes_discarded == (0 if is_pinned else HALF)
    assert bench.final.read_bytes() == (OLD if is_pinned else NEW)
    assert not bench.partials


@pytest.mark.fault(67)
def test_branch_moves_but_not_the_file(bench: Bench) -> None:
    """A branch that moves because of another file costs no byte of this one."""
    hub = Hub(**{SECOND: OLD})
    with FaultyServer(hub) as server:
        half_of_it(bench, hub, server)
        hub.commit, before = SECOND, server.bytes_sent
        run = bench.run(source=MAIN, hub=server.url)
        asked = [request.path for request in server.requests if "/resolve/" in request.path]
    assert (run.code, run.rewound) == (0, 0)
    assert server.bytes_sent - before < len(OLD) - HALF + MIB // 2
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
    assert (run.code, commits, bench.final.read_bytes() == OLD) == (0, {FIRST}, True)


@pytest.mark.fault(73)
def test_too_large_for_plain_http(bench: Bench) -> None:
    """A file that the hub gives to its own client alone: its words, 4 at once, no half file; the others are there."""
    hub, words = Hub(), "the file is too large to be served without hf_xet"
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
    """A repository with a new name is fetched under the old one, redirect by redirect, and resumed."""
    hub = Hub()

    def renamed(request: Request, number: int) -> Answer:
        if "demo/x" in request.path:
            target = request.target.replace("demo/x", "fresh/name")
            return faults.redirects(target, status=status)(request, number)
        return hub(request, number)

    with FaultyServer(renamed) as server:
        half_of_it(bench, hub, server)
        run = bench.run(source=MAIN, hub=server.url)
    assert (run.code, run.rewound, bench.final.read_bytes() == OLD) == (0, 0, True)


@pytest.mark.fault(82)
@pytest.mark.parametrize(
    ("status", "what"), [(500, "everything"), (503, "everything"), (502, "the files"), (429, "the files")]
)
def test_a_hub_that_is_down_for_a_while(bench: Bench, status: int, what: str) -> None:
    """A hub that is down is given up after the attempts allowed: 5, what is there is kept; the next run goes on."""
    hub = Hub()
    down = faults.answers(status, body=b"back soon")
    with FaultyServer(hub) as server:
        half_of_it(bench, hub, server)
        kept = bench.claimed
        hub.serve = {"model.bin": down, "config.json": down}
        server.handler = down if what == "everything" else hub
        run = bench.run(source=MAIN, hub=server.url, retries=3)
        assert (run.code, run.error["code"], bench.claimed, run.rewound) == (5, "NET", kept, 0)
        assert "back soon" in run.error["message"]
        hub.serve.clear()
        server.handler = hub
        again = bench.run(source=MAIN, hub=server.url)
    assert (again.code, again.rewound, bench.final.read_bytes() == OLD) == (0, 0, True)


@pytest.mark.fault(61, 134)
@pytest.mark.parametrize("years", [-20, 20])
def test_a_clock_that_is_wrong(bench: Bench, monkeypatch: pytest.MonkeyPatch, years: int) -> None:
    """Signed links that seem to be expired, or good for ever, by this machine's clock: the file comes all the same."""
    wrong = SimpleNamespace(time=lambda: time.time() + years * 365 * 86400, monotonic=time.monotonic)
    monkeypatch.setattr("mdl.downloader.fetch.time", wrong)  # the hub, in this process too, has the right one
    bench.segments(MIB)
    with LoopbackHub([Repo("demo/x", {"model.bin": OLD})]) as hub:
        run = bench.run(source=MAIN, hub=hub.url, connections=2)
    assert (run.code, run.retries, run.rewound, bench.final.read_bytes() == OLD) == (0, 0, 0, True)


@pytest.mark.fault(59, 67)
def test_links_expire_and_the_branch_moves(bench: Bench) -> None:
    """Signed links that expire while the branch moves are requested anew at the commit that the run began with."""
    bench.segments(MIB)
    with LoopbackHub([Repo("demo/x", {"model.bin": OLD})]) as hub:

        def tell(event: Event) -> None:
            if isinstance(event, Started):
                hub.publish(Repo("demo/x", {"model.bin": NEW}))
                hub.expire_links()

        run = bench.run(source=MAIN, hub=hub.url, tell=tell, connections=1)
    assert (run.code, bench.final.read_bytes() == OLD) == (0, True)
