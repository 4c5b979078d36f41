"""A run to pack, the plan of it, and an archive read by Python's own zipfile."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Literal

from mdl.archive.manifest import Manifest
from mdl.ops.pack import PackPlan, plan_pack
from support.data import noise
from support.weights import safetensors_of

MANIFEST = "mdl-manifest.json"


def archive_of(run: str) -> bytes:
    """An archive that mdl made of a run of this name, and that is no longer what mdl would make of it."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr(MANIFEST, Manifest((), run=run).to_json())
    return whole.getvalue()


BEFORE = archive_of("run")
"""The archive of yesterday."""


def staged_in(home: Path) -> list[str]:
    """What an unfinished pack left beside the archive."""
    return [path.name for path in home.iterdir() if path.name.endswith(".mdl-tmp")]


def make_run(home: Path, name: str = "run") -> Path:
    """A run as HF Trainer leaves it: two checkpoints, the first of them the best, the finished model, a log."""
    run = home / name
    for step in (500, 1000):
        folder = run / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(safetensors_of(noise(40_000, step), 40_000))
        (folder / "optimizer.pt").write_bytes(noise(80_000, step + 1))
        (folder / "config.json").write_text('{"a": 1}')
        state = {"global_step": step, "best_global_step": 500, "best_model_checkpoint": f"old/{name}/checkpoint-500"}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    (run / "model.safetensors").write_bytes(safetensors_of(noise(2**20 + 70_000, 3), 2**20 + 70_000))
    (run / "config.json").write_text('{"a": 1}')
    (run / "train.log").write_text("loss 1.0\n" * 100)
    return run


def read_whole(archive: Path) -> dict[str, bytes]:
    """Every member of an archive that is whole: CRCs right, the manifest last and true of each."""
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        names = opened.namelist()
        assert names[-1] == MANIFEST
        assert len(set(names)) == len(names)
        held = {name: opened.read(name) for name in names}
    lines = json.loads(held[MANIFEST])["files"]
    assert [line["path"] for line in lines] == [name for name in names[:-1] if not name.endswith("/")]
    for line in lines:
        data = held[line["path"]]
        assert (line["size"], line["sha256"]) == (len(data), hashlib.sha256(data).hexdigest()), line["path"]
    return held


def planned(run: Path, checkpoint: str | None = None, **options: Any) -> PackPlan:
    return plan_pack(run, run.parent / "x.zip", checkpoint=checkpoint, **options)


def names(plan: PackPlan) -> set[str]:
    return {member.path.text for member in plan.selection.members}


def skipped(plan: PackPlan) -> dict[str, str]:
    return {one.path: one.why for one in plan.selection.skipped}


_MEASURED = """
import sys
from pathlib import Path
from mdl.errors import MdlError
from mdl.ops.pack import pack
from mdl.ops.unpack import unpack
def peak():
    [line] = [one for one in open("/proc/self/status") if one.startswith("VmHWM")]
    return int(line.split()[1])
code, before = 0, peak()
try:
    {"pack": pack, "unpack": unpack}[sys.argv[1]](*map(Path, sys.argv[2:]))
except MdlError as error:
    code = error.exit_code
print(code, before, peak())
"""


def memory_of(operation: Literal["pack", "unpack"], source: Path, target: Path) -> tuple[int, float, float]:
    """Pack or unpack in another process: its exit code, its peak memory in MiB, and how much of that the operation
    took. By /proc, as ru_maxrss may be what the parent had."""
    command = [sys.executable, "-c", _MEASURED, operation, source, target]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, before, peak = map(int, done.stdout.split())
    return code, peak / 1024, (peak - before) / 1024
