"""mdl pack killed at every call that changes the disk: what was there before, or a whole archive, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.data import noise
from support.packing import read_whole
from support.shell import Shell

BEFORE = b"the archive of yesterday"
CALLS = ["rename", "fsync", "unlink", "write"] if os.environ.get("MDL_LONG") else ["rename"]
"""With MDL_LONG=1 all of them."""
_MOST = 200


@pytest.fixture(scope="module")
def strace() -> str:
    found = shutil.which("strace")
    if not found or subprocess.run([found, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no strace that may trace: the calls cannot be met")
    return found


@pytest.mark.fault(215)
@pytest.mark.parametrize("call", CALLS)
def test_killed_at_every_call(tmp_path: Path, strace: str, call: str) -> None:
    """SIGKILL at the first, second, … such call until one pack comes through; then nothing is left of the others."""
    shell = Shell(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "w.bin").write_bytes(noise(2**21))
    archive, killed = tmp_path / "model_run.zip", 0
    for number in range(1, _MOST):
        archive.write_bytes(BEFORE)
        inject = f"inject={call}:signal=KILL:when={number}"
        ran = shell.run("pack", "run", "-q", prefix=(strace, "-f", "-qq", "-o", "/dev/null", "-e", inject))
        if ran.code == 0:
            break
        killed += 1
        assert ran.code in (-9, 137)
        if archive.read_bytes() != BEFORE:
            read_whole(archive)
    assert killed
    read_whole(archive)
    assert sorted(os.listdir(tmp_path)) == ["model_run.zip", "run"]
