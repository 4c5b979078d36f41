"""mdl fleet on a real Slurm of four nodes, each with a disk of its own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import slurm as support
from support.fleets import IN_FEW_PARTS, NODE_MDL, REPO, SIZE, SLOWLY, arrived, damage, head_of, sent
from support.long import LONG
from support.loopback_hub import LoopbackHub
from support.polling import until
from support.processes import running
from support.shell import Shell, done, ended, started
from support.slurm import Slurm, slurm

WHY_NOT = support.missing() or ("" if LONG else "MDL_LONG is not set")
pytestmark = [pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT), pytest.mark.timeout(300)]
TOKEN = "hf_" + "t" * 30
REPOS = [REPO]


@pytest.fixture
def four(tmp_path: Path) -> Iterator[Slurm]:
    with slurm(tmp_path / "slurm") as cluster:
        yield cluster


@pytest.fixture
def head(tmp_path: Path, hub: LoopbackHub, four: Slurm) -> Shell:
    return head_of(tmp_path / "head", hub, HF_TOKEN=TOKEN, **four.environ)


@pytest.fixture
def on(four: Slurm) -> tuple[str, ...]:
    return ("--on=slurm", "--nodes=4", NODE_MDL, f"--to={four.local}/models")


def disk(four: Slurm, name: str) -> Path:
    return four.disk(name) / "models" / "model" / "model.safetensors"


@pytest.mark.fault(526)
def test_one_download_reaches_all_disks(hub: LoopbackHub, four: Slurm, head: Shell, on: tuple[str, ...]) -> None:
    """With sbcast the origin sends one copy, and each node verifies its own; a corrupt one is found and mended. The
    token is nowhere but in the environment that Slurm keeps for the job."""
    before = sent(hub)
    got = done(head.run("fleet", "get", "model", *on, "--fan-out=sbcast", "--json")).document
    assert sorted(row["bytes_fetched"] for row in got["nodes"]) == [0, 0, 0, SIZE + 2]
    assert sent(hub) - before < 1.1 * SIZE
    assert {path.name for name in four.names for path in four.disk(name).joinpath("models").iterdir()} == {
        "model",
        ".mdl",
    }
    damage(disk(four, "n2"))
    rows = done(head.run("fleet", "verify", "model", *on, "--json"), 6).document["nodes"]
    assert [(row["node"], row["status"]) for row in rows if row["error"]] == [("n2", "corrupt")]
    done(head.run("fleet", "verify", "model", *on, "--repair"))
    assert "4 of 4 nodes ok" in done(head.run("fleet", "status", "model", *on)).err
    told = [path for path in four.folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert {path.name for path in told} <= {"environment"}


@pytest.mark.fault(524)
@pytest.mark.fault(520)
def test_cancelled_then_killed(hub: LoopbackHub, four: Slurm, head: Shell, on: tuple[str, ...]) -> None:
    """Ctrl-C ends the job and all that it runs. A node that is killed later is a row, the others finish, and when it is
    back it goes on from what its disk has: hardly a byte comes twice."""
    before, hub.bytes_per_second = sent(hub), SLOWLY
    with started(head, "fleet", "get", "model", *on, IN_FEW_PARTS) as process:
        until(lambda: all(arrived(four.disk(name)) > SIZE / 50 for name in four.names))
        process.send_signal(signal.SIGINT)
        assert "cancelled on the nodes too" in ended(process, 130).err
    until(lambda: not running(str(four.local), "--locked"))
    until(lambda: "mdl-fleet" not in four.call("squeue", "--noheader", "--format=%j"))
    assert not list((head.home / ".local/state/mdl/fleet").iterdir())
    hub.bytes_per_second = SIZE / 40
    with started(head, "fleet", "get", "model", *on, "--json") as process:
        until(lambda: arrived(four.disk("n3")) > SIZE / 3)
        four.kill_node("n3")
        hub.bytes_per_second = None
        rows = ended_late(process, 5)
    assert [(row["node"], row["status"]) for row in rows if row["error"]] == [("n3", "no answer")]
    four.start_node("n3")
    until(lambda: four.states()["n3"] == "idle")
    done(head.run("fleet", "get", "model", *on))
    assert sent(hub) - before < 1.2 * 4 * SIZE


def ended_late(process: object, code: int) -> list[dict[str, object]]:
    """The rows of a fleet whose end Slurm takes its time to notice."""
    until(lambda: process.poll() is not None)  # type: ignore[attr-defined]
    rows: list[dict[str, object]] = ended(process, code).document["nodes"]  # type: ignore[arg-type]
    return rows


@pytest.mark.fault(525)
def test_requeued(four: Slurm, head: Shell, on: tuple[str, ...], tmp_path: Path) -> None:
    """A job whose nodes end with 75 is queued again by itself; the answers of its second run count."""
    again = tmp_path / "mdl-again"
    again.write_text(f'#!/bin/sh\n[ "$SLURM_RESTART_COUNT" ] || exit 75\nexec {NODE_MDL.partition("=")[2]} "$@"\n')
    again.chmod(0o755)
    with started(head, "fleet", "get", "model", *on, f"--mdl={again}", "--json") as process:
        waiting = ("squeue", "--noheader", "--states=PENDING", "--format=%r")
        until(lambda: "BeginTime" in four.call(*waiting))
        # Slurm would wait for two minutes, so that no node still knows the job that it was told to end.
        four.call(
            "scontrol", "update", f"JobId={four.call('squeue', '--noheader', '--format=%A').strip()}", "StartTime=now+4"
        )
        until(lambda: process.poll() is not None)
        ran = ended(process, 0)
    assert [row["exit_code"] for row in ran.document["nodes"]] == [0] * 4
    assert ran.err.count("Slurm's job") == 2
