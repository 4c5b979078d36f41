"""``mdl demo``: the whole main job, with no network."""

from __future__ import annotations

from pathlib import Path

from support.shell import Shell


def test_the_demo_ends_well(tmp_path: Path) -> None:
    """It lists, loses a connection, is killed, resumes, verifies, asks for nothing twice; it packs, releases and rolls
    back; and it says where everything is."""
    ran = Shell(tmp_path).run("demo", "--in", str(tmp_path / "play"))
    assert ran.code == 0, ran.out + ran.err
    assert (tmp_path / "play" / "models" / "tiny-demo" / "model.safetensors").stat().st_size == 48 * 2**20
    assert "Requests made: 0" in ran.out
    assert "retrying" in ran.err.partition("resumed at")[0]
    assert "resumed at" in ran.err
    assert str(tmp_path / "play") in ran.out
    assert [line.split(".")[0] for line in ran.out.splitlines() if line[:1].isdigit()] == [str(n) for n in range(1, 11)]
    served = (tmp_path / "play" / "service" / "current").resolve()
    assert served.name.startswith("step-200-")
    assert len(list(served.parent.iterdir())) == 2
    assert (served / "model.safetensors").stat().st_size > 2**20
    assert not (served / "optimizer.pt").exists()


def test_the_demo_leaves_a_folder_in_use_alone(tmp_path: Path) -> None:
    """A folder that holds something is refused with 7, and stays as it is."""
    (tmp_path / "play").mkdir()
    (tmp_path / "play" / "mine.txt").write_text("mine")
    ran = Shell(tmp_path).run("demo", "--in", str(tmp_path / "play"), "--json")
    assert (ran.code, ran.document["error"]["code"]) == (7, "OCCUPIED")
    assert [entry.name for entry in (tmp_path / "play").iterdir()] == ["mine.txt"]
