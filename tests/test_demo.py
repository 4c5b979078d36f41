"""``mdl demo``: the whole main job, with no network."""

from __future__ import annotations

from pathlib import Path

from shell import Shell


def test_the_demo_ends_well(tmp_path: Path) -> None:
    """It lists, is killed, resumes from where it was, verifies, asks nobody again, and says where the files are."""
    ran = Shell(tmp_path).run("demo", "--in", str(tmp_path / "play"))
    assert ran.code == 0, ran.out + ran.err
    assert (tmp_path / "play" / "models" / "tiny-demo" / "model.safetensors").stat().st_size == 48 * 2**20
    assert "Requests made: 0" in ran.out
    assert "resumed at" in ran.err
    assert str(tmp_path / "play") in ran.out
