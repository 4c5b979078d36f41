"""The eleven ways in which a server may lie to a resumed download: no silent corruption in any.

The same eleven are put to a naive resumer (what ``curl -C -`` does), which must be taken in by at least four of
them, so that these tests are known to have teeth.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from support import faults
from support.bench import NAME, Bench, loose, pinned
from support.data import MIB, noise, sha256
from support.faulty_server import FaultyServer, Handler
from support.polling import until
from support.shell import child

DATA, OTHER = noise(2 * MIB), noise(2 * MIB, 1)
SIZE = len(DATA)

MODES: dict[str, Callable[[], Handler]] = {
    "same file": lambda: faults.honest(DATA),
    "file and ETag change": lambda: faults.honest(OTHER, etag='"v2"'),
    "bytes change, ETag same": lambda: faults.honest(OTHER),
    "200 for a range": lambda: faults.norange(DATA),
    "wrong Content-Range start": lambda: faults.wrong_start(DATA),
    "206 with other bytes": lambda: faults.other_bytes(DATA),
    "captive portal": lambda: faults.portal(),
    "body cut at half": lambda: faults.short_body(DATA, SIZE // 4),
    "extra bytes after the length": lambda: faults.extra_bytes(DATA),
    "no length": lambda: faults.no_length(DATA),
    "no length, cut": lambda: faults.no_length_cut(DATA, SIZE // 2),
}
ENDS_WITH = {
    "same file": 0,
    "file and ETag change": 6,
    "bytes change, ETag same": 6,
    "200 for a range": 0,
    "wrong Content-Range start": 6,
    "206 with other bytes": 0,
    "captive portal": 6,
    "body cut at half": 0,
    "extra bytes after the length": 0,
    "no length": 0,
    "no length, cut": 6,
}
"""The exit code where the digest is known; 0 always with the right bytes."""

KEPT = {"same file", "wrong Content-Range start", "captive portal", "body cut at half", "extra bytes after the length"}
"""Where nothing of the first half need be thrown away."""


def naive(url: str, path: Path) -> bool:
    """Go on by appending blindly, as ``curl -C -``; True where it takes the download for whole."""
    have = path.stat().st_size
    try:
        with httpx.stream("GET", url, headers={"Range": f"bytes={have}-"}, trust_env=False) as response:
            if response.status_code not in (200, 206):
                return False
            said = response.headers.get("content-range", "")
            if said and not said.startswith(f"bytes {have}-"):
                return False
            with path.open("ab") as file:
                for chunk in response.iter_raw():
                    file.write(chunk)
        return True
    except httpx.HTTPError:
        return False


def test_the_naive_resumer_is_taken_in(tmp_path: Path) -> None:
    """The control: blind appending ends in at least four files that are taken for whole and are not (1.3)."""
    corrupt = []
    for mode, make in MODES.items():
        path = tmp_path / mode
        path.write_bytes(DATA[: SIZE // 2])
        with FaultyServer(make()) as server:
            whole = naive(server.url + "/f", path)
        if whole and path.read_bytes() not in (DATA, OTHER):
            corrupt.append(mode)
        if mode == "same file":
            assert whole
            assert path.read_bytes() == DATA
    assert len(corrupt) >= 4, corrupt


@pytest.mark.fault(1, 3, 10, 11, 13, 25, 26, 28, 38)
@pytest.mark.parametrize("mode", MODES)
def test_no_silent_corruption(bench: Bench, mode: str) -> None:
    """Interrupted at half, then lied to: the right file or an error, and losses are announced (1.3, I1, I4)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        at = bench.half(file, server, DATA)
        server.handler = MODES[mode]()
        run = bench.run(file)
    assert run.code == ENDS_WITH[mode], mode
    if run.code == 0:
        assert bench.final.read_bytes() == DATA
        assert (run.row.verified, run.status) == ("sha256", "present")
    else:
        assert not bench.final.exists()
        assert (run.row.action, run.error["exit_code"]) == ("failed", 6)
    assert run.rewound == run.report.bytes_discarded
    assert run.rewound == 0 if mode in KEPT else run.rewound >= at
    assert not bench.strangers()


@pytest.mark.fault(1, 3, 10, 11, 13, 25, 26, 28, 38)
@pytest.mark.parametrize("mode", MODES)
def test_nothing_needs_deleting_by_hand(bench: Bench, mode: str) -> None:
    """Whatever the lie was, the next run against an honest server brings the right file (1.3, I3)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        bench.half(file, server, DATA)
        server.handler = MODES[mode]()
        bench.run(file)
        server.handler = faults.honest(DATA)
        run = bench.run(file)
    assert run.code == 0
    assert bench.final.read_bytes() == DATA
    assert not bench.partials


UNDETECTABLE = {"bytes change, ETag same", "206 with other bytes"}
"""Nobody can tell these without a digest, and mdl does not claim to."""

HOPELESS = {"no length", "no length, cut"}
"""What must be refused, once and for all, because nothing tells the file's end."""


@pytest.mark.fault(1, 3, 11, 25, 26, 28)
@pytest.mark.parametrize("mode", MODES)
def test_without_a_digest(bench: Bench, mode: str) -> None:
    """Without a digest: never a mixture where an ETag or a length tells, and never reported as verified (1.3)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = loose(server.url + "/f")
        bench.half(file, server, DATA)
        server.handler = MODES[mode]()
        run = bench.run(file)
    assert mode not in HOPELESS or run.code == 6
    if run.code == 0:
        assert mode != "captive portal"
        assert (run.row.verified in ("size", "none"), run.status) == (True, "unverified")
        if mode not in UNDETECTABLE:
            assert bench.final.read_bytes() in (DATA, OTHER)
    else:
        assert run.code == (4 if mode == "captive portal" else 6)
        assert not bench.final.exists()
    assert run.rewound == run.report.bytes_discarded


@pytest.mark.fault(3, 13, 26, 38)
@pytest.mark.parametrize("mode", [*list(MODES)[:7:2], "no length, cut"])
def test_killed_and_lied_to(mode: str, tmp_path: Path) -> None:
    """As the first, by SIGKILL of a real process: exit code, one line of cause, no corruption (1.3, I1, I7)."""
    with FaultyServer(faults.stall_in_body(DATA, SIZE // 2)) as server:
        catalog = tmp_path / "catalog.toml"
        catalog.write_text(
            f'schema = 1\n[models.m]\n[[models.m.files]]\npath = "{NAME}"\nurl = "{server.url}/f"\n'
            f'size = {SIZE}\nsha256 = "{sha256(DATA)}"\n'
        )
        words = ("get", "m", "--catalog", str(catalog), "--to", str(tmp_path / "models"), "--retries", "2")
        first = child(tmp_path, *words)
        until(lambda: claims(tmp_path / "models") >= SIZE // 2)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        server.handler = MODES[mode]()
        second = child(tmp_path, *words)
        _, errors = second.communicate(timeout=60)
    final = tmp_path / "models" / "m" / NAME
    assert second.returncode == ENDS_WITH[mode], errors
    assert final.read_bytes() == DATA if second.returncode == 0 else not final.exists()
    assert "Traceback" not in errors


def claims(models: Path) -> int:
    """Bytes that the journals in a models folder claim."""
    from mdl.engine import journal

    records = [journal.load(path) for path in models.glob(".mdl/partials/*/journal")]
    return sum(record.have.total for record in records if record)
