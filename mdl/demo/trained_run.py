"""A small trained run, as a trainer would leave it: three checkpoints, the second the best, a log, and a secret."""

from __future__ import annotations

import json
import random
from pathlib import Path

_STEPS = (100, 200, 300)
_BEST = 200
_TENSOR = 2**21
"""Bytes of a checkpoint's one tensor; twice that for the optimizer's two moments."""


def write_run(folder: Path) -> None:
    """Write the run into ``folder``, which must not exist."""
    for step in _STEPS:
        _write_checkpoint(folder / f"checkpoint-{step}", step)
    (folder / "training.log").write_text("".join(f"step {n} loss {3 / (n + 1):.4f}\n" for n in range(_STEPS[-1])))
    (folder / ".env").write_text("HF_TOKEN=not-a-real-one\n")


def _write_checkpoint(folder: Path, step: int) -> None:
    folder.mkdir(parents=True)
    draw = random.Random(step)
    (folder / "config.json").write_text(json.dumps({"model_type": "demo", "hidden_size": 64}, indent=2))
    (folder / "tokenizer.json").write_text(json.dumps({"vocab": {f"word{n}": n for n in range(5000)}}))
    (folder / "model.safetensors").write_bytes(_safetensors(draw.randbytes(_TENSOR)))
    (folder / "optimizer.pt").write_bytes(draw.randbytes(2 * _TENSOR))
    state = {"global_step": step, "best_global_step": _BEST, "best_metric": 0.1}
    (folder / "trainer_state.json").write_text(json.dumps(state))


def _safetensors(data: bytes) -> bytes:
    table = {"weight": {"dtype": "BF16", "shape": [len(data) // 2], "data_offsets": [0, len(data)]}}
    head = json.dumps(table).encode()
    return len(head).to_bytes(8, "little") + head + data
