"""diffusers' scripts: accelerate's numbered folders, the finished LoRA or pipeline beside."""

from __future__ import annotations

from pathlib import Path

from support.runs import best, diffusers_checkpoint, found, inferred, latest, names, pipeline, put, row, safetensors


def test_diffusers(tmp_path: Path) -> None:
    """Checkpoints go by number, one without its random states is torn; the LoRA stays for inference, its state goes."""
    for step in (500, 1000):
        diffusers_checkpoint(tmp_path, step)
    diffusers_checkpoint(tmp_path, 1500, cut_short=True)
    safetensors(tmp_path / "pytorch_lora_weights.safetensors")
    whole = found(tmp_path)
    assert (whole.layout, latest(whole), best(whole)) == ("diffusers", "checkpoint-1000", None)
    assert names(whole) == ["checkpoint-500", "checkpoint-1000", "checkpoint-1500", "final"]
    assert "random_states" in row(whole, "checkpoint-1500").note
    _, kept, dropped, unknown = inferred(tmp_path, "checkpoint-500")
    assert (kept, unknown) == (["pytorch_lora_weights.safetensors"], [])
    assert set(dropped) == {"optimizer.bin", "scheduler.bin", "scaler.pt", "random_states_0.pkl"}


def test_pipeline(tmp_path: Path) -> None:
    """A finished pipeline is kept whole for inference, its scheduler's folder too."""
    pipeline(tmp_path)
    put(tmp_path / "optimizer.bin")
    assert (found(tmp_path).layout, latest(found(tmp_path))) == ("diffusers", "final")
    _, kept, dropped, unknown = inferred(tmp_path, "final")
    assert {"model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json"} <= set(kept)
    assert (len(kept), dropped, unknown) == (7, ["optimizer.bin"], [])
