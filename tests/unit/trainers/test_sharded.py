"""DeepSpeed and FSDP by themselves, and folders of weights that nobody's layout fits."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.runs import (
    best,
    found,
    fsdp_shards,
    inferred,
    latest,
    names,
    pickles,
    put,
    row,
    safetensors,
    sharded,
    zero_states,
)

from mdl.errors import NotFound


def test_deepspeed(tmp_path: Path) -> None:
    """``latest`` names the latest; what is newer is doubted; ZeRO-2 keeps its model states for inference."""
    for step in (90, 100, 110):
        zero_states(tmp_path / f"global_step{step}", stage=2)
    put(tmp_path / "latest", "global_step100\n")
    whole = found(tmp_path)
    assert (whole.layout, latest(whole), best(whole)) == ("deepspeed", "global_step100", None)
    assert [one.step for one in whole.checkpoints] == [90, 100, 110]
    assert "newer" in row(whole, "global_step110").note
    _, kept, dropped, unknown = inferred(tmp_path, "global_step90")
    assert (kept, len(dropped), unknown) == (["mp_rank_00_model_states.pt"], 2, [])


@pytest.mark.parametrize("tag", ["", "global_step7", "../..", "\x00\xff", "x" * 5000])
def test_deepspeed_hostile_tag(tmp_path: Path, tag: str) -> None:
    """A tag that names nothing leaves the highest number the latest."""
    for step in (90, 100):
        zero_states(tmp_path / f"global_step{step}", stage=2)
    put(tmp_path / "latest", tag)
    assert latest(found(tmp_path)) == "global_step100"


def test_deepspeed_without_model_states(tmp_path: Path) -> None:
    """A folder of optimizer states alone is torn."""
    put(tmp_path / "global_step5" / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    whole = found(tmp_path)
    assert (latest(whole), row(whole, "global_step5").complete) == (None, False)


def test_deepspeed_zero3_is_refused(tmp_path: Path) -> None:
    """ZeRO-3 shards cannot be loaded, and what merges them is said."""
    zero_states(tmp_path / "global_step5", stage=3)
    assert latest(found(tmp_path)) == "global_step5"
    with pytest.raises(NotFound) as caught:
        inferred(tmp_path, "global_step5")
    assert "zero_to_fp32.py" in (caught.value.hint or "")
    assert caught.value.exit_code == 3


def test_fsdp_folders(tmp_path: Path) -> None:
    """Folders that hold FSDP's parts go by their number; shards are refused, full weights kept."""
    for step in (90, 100):
        fsdp_shards(tmp_path / f"step_{step}")
    whole = found(tmp_path)
    assert (whole.layout, names(whole), latest(whole)) == ("fsdp", ["step_90", "step_100"], "step_100")
    with pytest.raises(NotFound) as caught:
        inferred(tmp_path, "step_100")
    assert "accelerate merge-weights" in (caught.value.hint or "")
    put(tmp_path / "step_100" / "pytorch_model_fsdp.bin")
    assert inferred(tmp_path, "step_100")[1] == ["pytorch_model_fsdp.bin"]


def test_fsdp_alone(tmp_path: Path) -> None:
    """The parts of every rank in the run's own folder are one row, refused for inference."""
    pickles(tmp_path, "pytorch_model_fsdp_rank0.bin", "pytorch_model_fsdp_rank1.bin", "optimizer.bin")
    assert (found(tmp_path).layout, names(found(tmp_path))) == ("fsdp", ["final"])
    with pytest.raises(NotFound, match="FSDP"):
        inferred(tmp_path, "final")


@pytest.mark.parametrize("name", ["a.gguf", "a.onnx", "a.pt", "a.h5", "sub/deep/b.pth", "x.bin"])
def test_plain(tmp_path: Path, name: str) -> None:
    """A folder with weights of nobody's layout is one complete row, the latest."""
    put(tmp_path / name)
    put(tmp_path / "notes.xyz", b"text")
    whole = found(tmp_path)
    assert (whole.layout, names(whole), latest(whole), best(whole)) == ("plain", ["final"], "final", None)
    assert (row(whole, "final").step, row(whole, "final").base) == (None, "")
    _, kept, dropped, unknown = inferred(tmp_path, "final")
    assert (kept, dropped, unknown) == ([name], [], ["notes.xyz"])


def test_plain_broken(tmp_path: Path) -> None:
    """A short file, a lost shard or a lost part of a split file make the row incomplete and nothing the latest."""
    safetensors(tmp_path / "short" / "a.safetensors", missing=1)
    sharded(tmp_path / "shards", stem="w")
    (tmp_path / "shards" / "w-00001-of-00002.safetensors").unlink()
    pickles(tmp_path / "split", "q-00001-of-00003.gguf", "q-00003-of-00003.gguf")
    wanted = {"short": "header says", "shards": "w-00001-of-00002", "split": "q-00002-of-00003.gguf is missing"}
    for folder, text in wanted.items():
        whole = found(tmp_path / folder)
        assert (whole.layout, latest(whole)) == ("plain", None)
        assert text in row(whole, "final").note


def test_nothing(tmp_path: Path) -> None:
    """A folder without anything like weights has no rows; nor has one that is not there."""
    put(tmp_path / "train.log", "log")
    assert (found(tmp_path).layout, names(found(tmp_path))) == ("plain", [])
    assert names(found(tmp_path, "model")) == []


def test_plain_optimizer_alone(tmp_path: Path) -> None:
    """Optimizer state alone is nothing to load."""
    pickles(tmp_path, "optimizer.pt", "scheduler.pt")
    with pytest.raises(NotFound, match="nothing that can be loaded"):
        inferred(tmp_path, "final")
