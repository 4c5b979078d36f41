"""mdl fleet on a real Ray of four nodes."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import ray_cluster as support
from support.fleets import REPO, SIZE, SLOWLY, arrived, head_of, sent
from support.long import LONG
from support.loopback_hub import LoopbackHub
from support.polling import until
from support.processes import running
from support.ray_cluster import NAMES, PYTHON, RayCluster, ray_cluster
from support.shell import Shell, done, ended, started

WHY_NOT = support.missing() or ("" if LONG else "MDL_LONG is not set")
pytestmark = [pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT), pytest.mark.timeout(300)]
ON = ("--on=ray", f"--mdl={PYTHON} -m mdl")
REPOS = [REPO]


@dataclass(frozen=True)
class WithRay(Shell):
    """A shell whose mdl runs where Ray is installed."""

    def command(self, *words: str) -> list[str]:
        return [PYTHON, "-m", "mdl", *words]


@pytest.fixture
def four(tmp_path: Path, hub: LoopbackHub) -> Iterator[RayCluster]:
    with ray_cluster(tmp_path / "ray", HF_ENDPOINT=hub.url, HOME=str(tmp_path)) as cluster:
        yield cluster


@pytest.fixture
def head(tmp_path: Path, hub: LoopbackHub, four: RayCluster) -> Shell:
    quick = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}  # Ray believes in a head that is gone for a minute
    shell = head_of(tmp_path / "head", hub, RAY_ADDRESS=four.address, RAY_USAGE_STATS_ENABLED="0", **quick)
    return WithRay(shell.home, shell.endpoint, shell.extra)


@pytest.mark.fault(522)
@pytest.mark.fault(524)
@pytest.mark.fault(527)
def test_stopped_and_killed(hub: LoopbackHub, four: RayCluster, head: Shell) -> None:
    """Ctrl-C and kill -9 end what runs on the nodes. If one of three nodes dies in the middle of a get, the spare one
    does it, and all is well; of a verify it is a row without an answer. Ray says nothing on stdout."""
    for how, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        hub.bytes_per_second = SLOWLY
        with started(head, "fleet", "get", "model", *ON) as process:
            until(lambda: all(arrived(four.disk(name)) > SIZE / 50 for name in NAMES))
            process.send_signal(how)
            ended(process, code)
        until(lambda: not running(PYTHON, "--locked", "--progress=none"))
    for name in NAMES:
        shutil.rmtree(four.disk(name))
    before = sent(hub)
    hub.bytes_per_second = SIZE / 160  # for each connection: no node is done before the slowest one has a quarter
    with started(head, "fleet", "get", "model", *ON, "--nodes=3", "--json") as process:
        until(lambda: sum(arrived(four.disk(name)) > SIZE / 4 for name in NAMES) == 3)
        dead = max(NAMES[1:], key=lambda name: arrived(four.disk(name)))
        [spare] = [name for name in NAMES if not four.disk(name).exists()]
        four.kill_node(dead)
        hub.bytes_per_second = None
        until(lambda: process.poll() is not None)
        rows = {row["node"]: row for row in ended(process, 0).document["nodes"]}
    assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys(NAMES, "present") | {dead: "no answer"}
    assert rows[dead]["replaced_by"] == spare
    assert sent(hub) - before < 4.2 * SIZE
    found = head.run("fleet", "verify", "model", *ON, "--nodes=3", "--json")  # Ray may still believe in the dead one
    is_dead = dead in [row["node"] for row in found.document["nodes"]]
    assert [row["node"] for row in found.document["nodes"] if row["status"] != "present"] == [dead] * is_dead
    done(found, 5 if is_dead else 0)


@pytest.mark.fault(522)
def test_the_head_is_killed(hub: LoopbackHub, four: RayCluster, head: Shell) -> None:
    """If the cluster itself is gone, its head and every other node that has not answered is a row; exit code 5."""
    hub.bytes_per_second = SLOWLY
    with started(head, "fleet", "get", "model", *ON, "--json") as process:
        until(lambda: all(arrived(four.disk(name)) for name in NAMES))
        four.kill_node(NAMES[0])
        until(lambda: process.poll() is not None)
        rows = ended(process, 5).document["nodes"]
    assert [row["node"] for row in rows] == [*NAMES]
    assert rows[0]["status"] == "no answer"


@pytest.mark.fault(528)
def test_no_cluster(tmp_path: Path, hub: LoopbackHub) -> None:
    """A cluster that is not there is told with exit code 5, one of another Python that has no Ray with 2."""
    shell = head_of(tmp_path / "head", hub, RAY_ADDRESS="127.0.0.1:9", RAY_USAGE_STATS_ENABLED="0")
    ran = WithRay(shell.home, shell.endpoint, shell.extra).run("fleet", "status", "model", *ON)
    assert (ran.code, "RAY_ADDRESS" in ran.err) == (5, True), ran.err
    assert "pip install 'ray" in done(shell.run("fleet", "status", "model", *ON), 2).err
