"""mdl fleet over a real sshd for each of three hosts, on loopback."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import sshd
from support.fleets import IN_FEW_PARTS, NODE_MDL, REPO, SIZE, SLOWLY, arrived, damage, head_of, sent
from support.long import LONG
from support.loopback_hub import LoopbackHub
from support.polling import until
from support.processes import running
from support.shell import Shell, done, ended, started
from support.sshd import Hosts, hosts

WHY_NOT = sshd.missing() or ("" if LONG else "MDL_LONG is not set")
pytestmark = [pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT), pytest.mark.timeout(300)]
ON = ("--on", "ssh", "--hosts", "a,b,c", NODE_MDL)
MARK = f"--lock-wait={3600 + os.getpid()}"
"""By which the processes of this test are known."""
ALL = 3 * (SIZE + 2)
REPOS = [REPO]


@pytest.fixture
def three(tmp_path: Path, hub: LoopbackHub) -> Iterator[Hosts]:
    with hosts(tmp_path / "hosts", "abc", HF_ENDPOINT=hub.url) as found:
        yield found


@pytest.fixture
def head(tmp_path: Path, hub: LoopbackHub, three: Hosts) -> Shell:
    return head_of(tmp_path / "head", hub, PATH=f"{three.path}:{os.environ['PATH']}")


def model(three: Hosts, name: str) -> Path:
    return three.home(name) / "models" / "model" / "model.safetensors"


@pytest.mark.fault(526)
def test_get_verify_and_status(hub: LoopbackHub, three: Hosts, head: Shell) -> None:
    """Each host has the model in its own folder; wrong and missing bytes are told host by host, and mended there."""
    got = done(head.run("fleet", "get", "model", *ON, "--json")).document
    assert [(row["node"], row["bytes_fetched"]) for row in got["nodes"]] == [(name, SIZE + 2) for name in "abc"]
    damage(model(three, "b"))
    model(three, "c").unlink()
    found = done(head.run("fleet", "verify", "model", *ON, "--json"), 10).document
    assert [(row["status"], row["exit_code"]) for row in found["nodes"]] == [
        ("present", 0),
        ("corrupt", 6),
        ("partial", 3),
    ]
    before = sent(hub)
    done(head.run("fleet", "verify", "model", *ON, "--repair"))
    assert sent(hub) - before < 1.5 * SIZE
    assert "3 of 3 nodes ok" in done(head.run("fleet", "status", "model", *ON)).err


@pytest.mark.fault(524)
@pytest.mark.fault(527)
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_nobody_waits_any_more(hub: LoopbackHub, three: Hosts, head: Shell, how: signal.Signals, code: int) -> None:
    """However the fleet's mdl ends, each host stops its own and keeps what it has; the next run goes on from there."""
    hub.bytes_per_second = SLOWLY
    with started(head, "fleet", "get", "model", *ON, IN_FEW_PARTS, MARK) as process:
        until(lambda: all(arrived(three.home(name)) > SIZE / 50 for name in "abc"))
        process.send_signal(how)
        ended(process, code)
    until(lambda: not running(MARK))
    assert all(arrived(three.home(name)) > SIZE / 50 for name in "abc")
    hub.bytes_per_second = None
    done(head.run("fleet", "get", "model", *ON))
    assert sent(hub) < 1.2 * ALL


@pytest.mark.fault(521)
def test_a_host_is_killed(hub: LoopbackHub, three: Hosts, head: Shell) -> None:
    """The two others finish; the killed one is a row without an answer."""
    hub.bytes_per_second = SLOWLY
    with started(head, "fleet", "get", "model", *ON, "--json") as process:
        until(lambda: arrived(three.home("b")) > SIZE / 50)
        three.kill("b")
        hub.bytes_per_second = None
        rows = ended(process, 5).document["nodes"]
    assert [(row["node"], row["status"]) for row in rows] == [("a", "present"), ("b", "no answer"), ("c", "present")]
    assert rows[1]["error"]["code"] == "NET"
