"""Twelve ways in which a server may lie to a resumed download: no silent corruption in any.

The control is a naive resumer, which does what ``curl -C -`` does: at least four of them must deceive it.
"""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest
from support import faults
from support.bench import Bench, claimed_in
from support.catalogs import catalog_of
from support.data import MIB, noise
from support.faulty_server import FaultyServer, Handler
from support.polling import until
from support.shell import child

DATA, OTHER = noise(2 * MIB), noise(2 * MIB, 1)
SMALLER = DATA[:MIB]
SIZE = len(DATA)

MODES: dict[str, tuple[Handler, str, int]] = {
    "same file": (faults.honest(DATA), "", 0),
    "file and ETag change": (faults.honest(OTHER, etag='"v2"'), "HASH", 5),
    "bytes change, ETag same": (faults.honest(OTHER), "HASH", 4),
    "200 for a range": (faults.norange(DATA), "", 1),
    "wrong Content-Range start": (faults.wrong_start(DATA), "", 1),
    "206 with other bytes": (faults.other_bytes(DATA), "", 2),
    "captive portal": (faults.portal(), "PROTO", 0),
    "body cut at half": (faults.short_body(DATA, SIZE // 4), "", 0),
    "extra bytes after the length": (faults.extra_bytes(DATA), "", 0),
    "a smaller file": (faults.honest(SMALLER), "PROTO", 0),
    "no length": (faults.no_length(DATA), "", 1),
    "no length, cut": (faults.no_length_cut(DATA, SIZE // 2), "PROTO", 3),
}
"""Each with the error if the digest is known (without one the bytes are right), and how many halves of the file are
thrown away."""


def naive(url: str, path: Path) -> bool:
    """Go on by appending blindly, as ``curl -C -``; returns whether it takes the download for whole."""
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


def test_the_naive_resumer_is_deceived(tmp_path: Path) -> None:
    """The control: blind appending ends in at least four files that are taken for whole and are not (1.3)."""
    corrupt = []
    for mode, (handler, *_) in MODES.items():
        path = tmp_path / mode
        path.write_bytes(DATA[: SIZE // 2])
        with FaultyServer(handler) as server:
            whole = naive(server.url + "/f", path)
        if whole and path.read_bytes() not in (DATA, OTHER):
            corrupt.append(mode)
        if mode == "same file":
            assert whole
            assert path.read_bytes() == DATA
    assert len(corrupt) >= 4, corrupt


@pytest.mark.fault(1, 3, 10, 11, 13, 19, 20, 25, 26, 28, 38)
@pytest.mark.parametrize("mode", MODES)
def test_no_silent_corruption(bench: Bench, mode: str) -> None:
    """Interrupted at half, then lied to: the right file or an error, and losses are reported. Whatever the lie was, the
    next run against an honest server brings the right file: nothing needs deleting by hand (1.3, I1, I3, I4)."""
    handler, error, halves = MODES[mode]
    run = bench.fetch(handler, DATA, half=True)
    assert run.code == (6 if error else 0)
    if not error:
        assert bench.has(DATA)
        assert (run.row.verified, run.status) == ("sha256", "present")
    else:
        assert bench.is_untouched
        assert (run.row.action, run.error["code"], run.error["exit_code"]) == ("failed", error, 6)
    assert run.rewound == run.report.bytes_discarded == halves * SIZE // 2
    again = bench.fetch(faults.honest(DATA), DATA)
    assert (again.code, bench.has(DATA)) == (0, True)
    assert not error or halves or again.row.resumed_at == SIZE // 2


@pytest.mark.fault(11)
@pytest.mark.parametrize("data", [DATA, DATA[:1000]], ids=["large", "small"])
def test_another_size_is_asked_for_twice(bench: Bench, data: bytes) -> None:
    """A server that has another size than the digest's file is asked once more, past every cache, and no third time."""
    run = bench.fetch(faults.honest(data[:500]), data)
    assert (run.code, run.error["code"]) == (6, "PROTO")
    assert [request.header("cache-control") for request in run.requests] == [None, "no-cache"]


UNDETECTABLE = {"bytes change, ETag same", "206 with other bytes"}
"""Nothing tells these without a digest, and mdl does not claim to."""

HOPELESS = {"no length", "no length, cut"}
"""These must be refused, because nothing tells the file's end."""


@pytest.mark.fault(1, 3, 11, 25, 26, 28)
@pytest.mark.parametrize("mode", MODES)
def test_without_a_digest(bench: Bench, mode: str) -> None:
    """Without a digest: never a mixture if an ETag or a length tells, and never reported as verified (1.3)."""
    run = bench.fetch(MODES[mode][0], DATA, known=False, half=True)
    assert mode not in HOPELESS or run.code == 6
    if run.code == 0:
        assert mode != "captive portal"
        assert (run.row.verified in ("size", "none"), run.status) == (True, "unverified")
        assert mode in UNDETECTABLE or bench.final.read_bytes() in (DATA, OTHER, SMALLER)
    else:
        assert run.code == (4 if mode == "captive portal" else 6)
        assert not bench.final.exists()
    assert run.rewound == run.report.bytes_discarded


@pytest.mark.fault(3, 13, 26, 38)
@pytest.mark.parametrize("mode", [*list(MODES)[:7:2], "no length, cut"])
def test_killed_and_lied_to(mode: str, tmp_path: Path) -> None:
    """As the first, by SIGKILL of a real process: exit code, one line of cause, no corruption (1.3, I1, I7)."""
    models = tmp_path / "models"
    with FaultyServer(faults.stall_in_body(DATA, SIZE // 2)) as server:
        (tmp_path / "catalog.toml").write_text(catalog_of(DATA, m=f"{server.url}/f"))
        words = ("get", "m", "--to", str(models), "--retries", "2")
        first = child(tmp_path, *words)
        until(lambda: claimed_in(models) >= SIZE // 2)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        server.handler = MODES[mode][0]
        second = child(tmp_path, *words)
        _, errors = second.communicate()
    final = models / "m" / "f.bin"
    assert second.returncode == (6 if MODES[mode][1] else 0), errors
    assert final.read_bytes() == DATA if second.returncode == 0 else not final.exists()
    assert "Traceback" not in errors
