"""The engine and a hub whose branches move, whose repositories get new names, and which fails (faults, group D)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support import faults
from support.bench import Bench, Run, stalled
from support.data import MIB, noise
from support.faulty_server import Answer, Request
from support.loopback_hub import LoopbackHub, Repo, at_path

from mdl.events import Event, Started
from mdl.sources.hub_origin import HubOrigin

OLD, NEW, TINY = noise(3 * MIB), noise(3 * MIB, 1), b'{"a": 1}'
HALF = len(OLD) // 2
MAIN = HubOrigin("demo/x")
FIRST, SECOND = "a" * 40, "b" * 40


def repo(commit: str, weights: bytes) -> Repo:
    """The one repository of these tests at a commit."""
    return Repo("demo/x", {"model.bin": weights, "config.json": TINY}, commit=commit, lfs_threshold=1000)


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """A bare hub: it sends the bytes itself, and tells neither commit nor digest in a header."""
    with LoopbackHub([repo(FIRST, OLD)], lacks={"redirects", "headers"}) as hub:
        yield hub


def rows(run: Run) -> dict[str, tuple[str, str]]:
    assert run.report
    return {row.path: (row.action, row.verified) for row in run.report.models[0].files}


def half_of_it(bench: Bench, hub: LoopbackHub, source: HubOrigin = MAIN) -> None:
    """Have half of model.bin here, interrupted; the hub is honest again."""
    before = hub.script
    stall = at_path("/model.bin", stalled(hub.ordinary, HALF))

    def stop_half_way(request: Request, number: int) -> Answer | None:
        return (before(request, number) if before else None) or stall(request, number)

    hub.script = stop_half_way
    assert bench.run(source=source, hub=hub.url, stop_at=HALF).code == 130
    hub.script = before


@pytest.mark.fault(71, 72)
def test_a_bare_hub(bench: Bench, hub: LoopbackHub) -> None:
    """Without X-Linked-* headers the listing's digests hold: sha256 for large files, git's own for small ones."""
    run = bench.run(source=MAIN, hub=hub.url)
    assert (run.code, run.status) == (0, "present")
    assert rows(run) == {"model.bin": ("fetched", "sha256"), "config.json": ("fetched", "git-sha1")}


@pytest.mark.fault(72)
@pytest.mark.parametrize("name", ["model.bin", "config.json"])
def test_other_bytes_than_listed(bench: Bench, hub: LoopbackHub, name: str) -> None:
    """Other bytes of the listed size are refused, whichever of the two digests there is; the other file is there."""
    hub.script = at_path(f"/{name}", faults.honest(NEW if name == "model.bin" else b"x" * len(TINY)))
    run = bench.run(source=MAIN, hub=hub.url, retries=1)
    assert (run.code, run.error["code"]) == (6, "HASH")
    assert {path for path, (action, _) in rows(run).items() if action == "failed"} == {name}
    assert {path for path, (action, _) in rows(run).items() if action == "fetched"} == set(rows(run)) - {name}


@pytest.mark.fault(67)
@pytest.mark.parametrize("is_pinned", [True, False])
def test_branch_moves_between_start_and_resume(bench: Bench, hub: LoopbackHub, is_pinned: bool) -> None:
    """A part of the commit that was requested is resumed; of one that a branch has left it is dropped and reported."""
    source = HubOrigin("demo/x", revision=FIRST if is_pinned else None)
    half_of_it(bench, hub, source)
    hub.publish(repo(SECOND, NEW))
    run = bench.run(source=source, hub=hub.url)
    assert run.code == 0
    assert run.rewound == run.report.bytes_discarded == (0 if is_pinned else HALF)
    assert bench.final.read_bytes() == (OLD if is_pinned else NEW)
    assert not bench.partials


@pytest.mark.fault(67)
def test_branch_moves_but_not_the_file(bench: Bench, hub: LoopbackHub) -> None:
    """A branch that moves because of another file costs no byte of this one."""
    half_of_it(bench, hub)
    before = hub.sent
    hub.publish(repo(SECOND, OLD))
    run = bench.run(source=MAIN, hub=hub.url)
    asked = [request.path for request in hub.requests if "/resolve/" in request.path]
    assert (run.code, run.rewound) == (0, 0)
    assert hub.sent - before < len(OLD) - HALF + MIB // 2
    assert FIRST in asked[0]
    assert SECOND in asked[-1]


@pytest.mark.fault(68)
def test_branch_moves_under_a_run(bench: Bench, hub: LoopbackHub) -> None:
    """All files of one run are of the commit it began with, though the branch moves while it fetches."""

    def move(request: Request, number: int) -> None:
        if request.path.endswith("/model.bin"):
            hub.publish(repo(SECOND, NEW))

    hub.script = move
    run = bench.run(source=MAIN, hub=hub.url, connections=1)
    commits = {request.path.split("/")[-2] for request in hub.requests if "/resolve/" in request.path}
    assert (run.code, commits, bench.final.read_bytes() == OLD) == (0, {FIRST}, True)


@pytest.mark.fault(73)
def test_too_large_for_plain_http(bench: Bench, hub: LoopbackHub) -> None:
    """A file that the hub gives to its own client alone: its words, 4 at once, no half file; the others are there."""
    words = "the file is too large to be served without hf_xet"
    hub.script = at_path("/model.bin", faults.answers(403, ("X-Error-Message", words)))
    run = bench.run(source=MAIN, hub=hub.url, connections=1)  # a refusal beside other requests is asked about once more
    tries = sum(request.path.endswith("model.bin") for request in hub.requests)
    assert (run.code, run.error["code"], tries) == (4, "AUTH", 1)
    assert words in run.error["message"]
    assert rows(run)["config.json"] == ("fetched", "git-sha1")
    assert not bench.final.exists()


@pytest.mark.fault(74)
@pytest.mark.parametrize("status", [301, 307, 308])
def test_renamed_repository(bench: Bench, hub: LoopbackHub, status: int) -> None:
    """A repository with a new name is fetched under the old one, redirect by redirect, and resumed."""

    def redirect(request: Request, number: int) -> Answer | None:
        if "fresh/name" in request.path:
            return None
        return faults.redirects(request.target.replace("demo/x", "fresh/name"), status=status)(request, number)

    hub.publish(replace(repo(FIRST, OLD), id="fresh/name"))
    hub.script = redirect
    half_of_it(bench, hub)
    run = bench.run(source=MAIN, hub=hub.url)
    assert (run.code, run.rewound, bench.final.read_bytes() == OLD) == (0, 0, True)


@pytest.mark.fault(82)
@pytest.mark.parametrize(
    ("status", "what"), [(500, "everything"), (503, "everything"), (502, "the files"), (429, "the files")]
)
def test_a_hub_that_is_down_for_a_while(bench: Bench, hub: LoopbackHub, status: int, what: str) -> None:
    """A hub that is down is given up after the attempts allowed: 5, what is there is kept; the next run goes on."""
    refuse = faults.answers(status, body=b"back soon")

    def down(request: Request, number: int) -> Answer | None:
        is_file = "/resolve/" in request.path
        return refuse(request, number) if is_file or what == "everything" else None

    half_of_it(bench, hub)
    kept = bench.claimed
    hub.script = down
    run = bench.run(source=MAIN, hub=hub.url, retries=3)
    assert (run.code, run.error["code"], bench.claimed, run.rewound) == (5, "NET", kept, 0)
    assert "back soon" in run.error["message"]
    hub.script = None
    again = bench.run(source=MAIN, hub=hub.url)
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
