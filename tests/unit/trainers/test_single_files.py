"""Trainers that write one file a checkpoint: kohya, ai-toolkit, Lightning, NeMo, Ultralytics, Coqui, fairseq, Keras."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.runs import (
    ai_toolkit_run,
    best,
    coqui_run,
    fairseq_run,
    found,
    inferred,
    kohya_run,
    latest,
    lightning_run,
    names,
    nemo_run,
    pickles,
    put,
    row,
    safetensors,
    saved_model,
    tensorflow_run,
    ultralytics_run,
    zero_states,
)

from mdl.errors import NotFound

INSIDE = "contains optimizer state; stripping it needs torch"


def test_kohya(tmp_path: Path) -> None:
    """The file without a number is the latest; steps are the header's; each state goes with its file."""
    kohya_run(tmp_path)
    whole = found(tmp_path)
    assert (whole.layout, latest(whole), best(whole)) == ("kohya", "style.safetensors", None)
    assert names(whole) == ["style-000002.safetensors", "style-000004.safetensors", "style.safetensors"]
    assert [one.step for one in whole.checkpoints] == [100, 200, 300]
    assert [entry.path for entry in row(whole, "style-000004.safetensors").files] == [
        "style-000004.safetensors",
        "style-000004-state/optimizer.bin",
        "style-000004-state/train_state.json",
    ]


def test_kohya_epochs_and_steps(tmp_path: Path) -> None:
    """Epochs and steps do not compare: the header's steps decide, and a bare number says what it counts."""
    safetensors(tmp_path / "a-000009.safetensors", ss_steps="90")
    safetensors(tmp_path / "a-step00000100.safetensors", ss_steps="100")
    put(tmp_path / "a-000999.ckpt")
    put(tmp_path / "a-step00000095.ckpt")
    put(tmp_path / "a-000012.ckpt")
    put(tmp_path / "a-000012-state" / "train_state.json", {"current_step": 120})
    whole = found(tmp_path)
    assert latest(whole) == "a-000012.ckpt"
    told = {one.name: (one.step, one.note) for one in whole.checkpoints}
    assert told["a-000009.safetensors"] == (90, "")
    assert told["a-000999.ckpt"] == (999, "its number counts epochs")
    assert told["a-step00000095.ckpt"] == (95, "its number counts steps")
    assert told["a-000012.ckpt"] == (120, "")


def test_kohya_without_a_name(tmp_path: Path) -> None:
    """A run without a name ends in ``last``."""
    for name in ("epoch-000001", "at-step00000010", "last"):
        safetensors(tmp_path / f"{name}.safetensors")
    assert latest(found(tmp_path)) == "last.safetensors"


def test_kohya_torn_final(tmp_path: Path) -> None:
    """A finished file that is too short is told and not the latest; so is a hostile count of steps."""
    kohya_run(tmp_path)
    safetensors(tmp_path / "style.safetensors", missing=3, ss_steps="many")
    whole = found(tmp_path)
    assert latest(whole) == "style-000004.safetensors"
    assert (row(whole, "style.safetensors").complete, row(whole, "style.safetensors").step) == (False, None)


def test_kohya_inference(tmp_path: Path) -> None:
    """The one file is the model; its state stays behind."""
    kohya_run(tmp_path)
    _, kept, dropped, unknown = inferred(tmp_path, "style-000002.safetensors")
    assert (kept, len(dropped), unknown) == (["style-000002.safetensors"], 2, [])


def test_ai_toolkit(tmp_path: Path) -> None:
    """The file without a number is the latest, its step the header's; variants of one step are one row."""
    ai_toolkit_run(tmp_path)
    safetensors(tmp_path / "dog_LoRA_000001500.safetensors")
    safetensors(tmp_path / "CRITIC_dog_000001500.safetensors")
    safetensors(tmp_path / "dog_000001500_refiner.safetensors")
    whole = found(tmp_path)
    assert (whole.layout, latest(whole)) == ("ai-toolkit", "dog.safetensors")
    assert [one.step for one in whole.checkpoints] == [500, 1000, 1500, 2000]
    assert row(whole, "dog_000001500.safetensors").complete
    assert len([one for one in row(whole, "dog_000001500.safetensors").files if "1500" in one.name]) == 4
    _, kept, dropped, unknown = inferred(tmp_path, "dog.safetensors")
    assert (set(kept), unknown) == ({"dog.safetensors", "config.yaml"}, [])
    assert set(dropped) == {"optimizer.pt", "learnable_snr.json"}


def test_ai_toolkit_unfinished(tmp_path: Path) -> None:
    """Without a finished file the highest number is the latest, and the optimizer's file is its."""
    ai_toolkit_run(tmp_path, finished=False)
    whole = found(tmp_path)
    assert latest(whole) == "dog_000001500.safetensors"
    assert "optimizer.pt" in {entry.path for entry in row(whole, "dog_000001500.safetensors").files}
    assert "optimizer.pt" not in {entry.path for entry in row(whole, "dog_000000500.safetensors").files}


def test_ai_toolkit_folders(tmp_path: Path) -> None:
    """A checkpoint may be a folder: its names begin in it."""
    for step in (9, 10):
        safetensors(tmp_path / f"flux_{step:09}" / "transformer" / "model.safetensors")
    whole = found(tmp_path)
    assert (whole.layout, latest(whole)) == ("ai-toolkit", "flux_000000010")
    assert row(whole, "flux_000000010").base == "flux_000000010"
    assert inferred(tmp_path, "flux_000000009")[1] == ["transformer/model.safetensors"]


@pytest.mark.parametrize("info", ["{", "[]", '{"step": "x"}', "5", "[" * 50_000])
def test_ai_toolkit_hostile_header(tmp_path: Path, info: str) -> None:
    """A header may hold anything: the file is a row without a step."""
    safetensors(tmp_path / "a.safetensors", training_info=info)
    whole = found(tmp_path)
    assert (whole.layout, row(whole, "a.safetensors").step) == ("ai-toolkit", None)


def test_lightning(tmp_path: Path) -> None:
    """The highest version's ``last`` is the latest, not the most steps; of one name in two the newest has it."""
    lightning_run(tmp_path)
    whole = found(tmp_path)
    assert whole.layout == "lightning"
    assert names(whole) == [
        *("epoch=0-step=900.ckpt", "epoch=1-step=1800.ckpt", "lightning_logs-version_2-checkpoints-last.ckpt"),
        *("epoch=0-step=90.ckpt", "epoch=1-step=180-val_loss=0.31.ckpt", "last.ckpt"),
    ]
    assert [one.step for one in whole.checkpoints] == [900, 1800, None, 90, 180, None]
    assert next(one.base for one in whole.checkpoints if one.latest) == "lightning_logs/version_10/checkpoints"
    assert (best(whole), whole.best_note) == (None, "none is recorded")


def test_lightning_lasts(tmp_path: Path) -> None:
    """``last-v10`` is newer than ``last-v9`` and ``last``; without any, the most steps are; a link tells its step."""
    pickles(tmp_path, "epoch=0-step=90.ckpt", "epoch=1-step=100.ckpt")
    assert latest(found(tmp_path)) == "epoch=1-step=100.ckpt"
    os.symlink("epoch=1-step=100.ckpt", tmp_path / "last.ckpt")
    assert (latest(found(tmp_path)), row(found(tmp_path), "last.ckpt").step) == ("last.ckpt", 100)
    pickles(tmp_path, "last-v9.ckpt", "last-v10.ckpt")
    assert latest(found(tmp_path)) == "last-v10.ckpt"


def test_lightning_inference(tmp_path: Path) -> None:
    """One pickle is kept whole, and said to hold the optimizer; shards of a folder are refused, with their tool."""
    lightning_run(tmp_path)
    sifted, kept, dropped, _ = inferred(tmp_path, "last.ckpt")
    assert (kept, dropped, sifted.notes) == (["last.ckpt"], [], (f"last.ckpt {INSIDE}",))
    shards = tmp_path / "lightning_logs" / "version_10" / "checkpoints" / "epoch=2-step=270.ckpt"
    pickles(shards, "__0_0.distcp", ".metadata", "meta.pt")
    with pytest.raises(NotFound) as caught:
        inferred(tmp_path, "epoch=2-step=270.ckpt")
    assert "consolidate_checkpoint" in (caught.value.hint or "")


def test_a_file_named_like_a_rank(tmp_path: Path) -> None:
    """A file of DeepSpeed's beside Lightning's checkpoints is not the folder of one of NeMo's ranks."""
    pickles(tmp_path, "epoch=0-step=5.ckpt", "mp_rank_00_model_states.pt")
    assert (found(tmp_path).layout, latest(found(tmp_path))) == ("lightning", "epoch=0-step=5.ckpt")


def test_lightning_deepspeed_folder(tmp_path: Path) -> None:
    """A folder of DeepSpeed's ZeRO-3 state is a row, and refused for inference."""
    zero_states(tmp_path / "epoch=0-step=5.ckpt" / "checkpoint", stage=3)
    assert latest(found(tmp_path)) == "epoch=0-step=5.ckpt"
    with pytest.raises(NotFound, match="DeepSpeed"):
        inferred(tmp_path, "epoch=0-step=5.ckpt")


def test_nemo(tmp_path: Path) -> None:
    """``…-last`` is the latest, the .nemo the finished model and last row; it is what inference keeps."""
    nemo_run(tmp_path)
    whole = found(tmp_path)
    assert (whole.layout, names(whole)[-1]) == ("nemo", "asr.nemo")
    assert latest(whole) == "asr--val_wer=0.20-epoch=2-step=200-last.ckpt"
    assert [one.step for one in whole.checkpoints] == [100, 200, 200, None]
    assert inferred(tmp_path, "asr.nemo")[1] == ["asr.nemo"]
    assert inferred(tmp_path, names(whole)[0])[0].notes == (f"{names(whole)[0]} {INSIDE}",)


def test_nemo_unfinished(tmp_path: Path) -> None:
    """A checkpoint beside its ``-unfinished`` marker is torn."""
    nemo_run(tmp_path)
    stem = "asr--val_wer=0.20-epoch=2-step=200-last"
    put(tmp_path / "2024-07-01_12-00-00" / "checkpoints" / f"{stem}-unfinished", b"")
    whole = found(tmp_path)
    assert latest(whole) == "asr--val_wer=0.20-epoch=2-step=200.ckpt"
    assert f"{stem}-unfinished" in row(whole, f"{stem}.ckpt").note


def test_nemo_ranks(tmp_path: Path) -> None:
    """The parts of all ranks are one checkpoint, and torn where a rank's part is not there."""
    for rank in ("mp_rank_00", "mp_rank_01"):
        pickles(tmp_path / rank, "gpt-step=9.ckpt", "gpt-step=10.ckpt")
    (tmp_path / "mp_rank_01" / "gpt-step=10.ckpt").unlink()
    whole = found(tmp_path)
    assert (names(whole), latest(whole)) == (["gpt-step=9.ckpt", "gpt-step=10.ckpt"], "gpt-step=9.ckpt")
    assert len(row(whole, "gpt-step=9.ckpt").files) == 2
    assert row(whole, "gpt-step=10.ckpt").note == "the part of mp_rank_01 is missing"


def test_ultralytics(tmp_path: Path) -> None:
    """best.pt is the best, last.pt the latest, of the experiment with the highest number; its settings stay."""
    ultralytics_run(tmp_path, "train", "train2", "train10")
    whole = found(tmp_path)
    assert (whole.layout, latest(whole), best(whole)) == ("ultralytics", "last.pt", "best.pt")
    assert row(whole, "best.pt").base == row(whole, "last.pt").base == "runs/detect/train10"
    assert names(whole)[-4:] == ["epoch5.pt", "epoch10.pt", "best.pt", "last.pt"]
    assert (row(whole, "epoch10.pt").step, row(whole, "epoch10.pt").note) == (10, "its number counts epochs")
    sifted, kept, dropped, unknown = inferred(tmp_path, "best.pt")
    assert (kept, dropped, unknown) == (["args.yaml", "results.csv", "weights/best.pt"], [], [])
    assert "contains optimizer state" in sifted.notes[0]


def test_ultralytics_empty_last(tmp_path: Path) -> None:
    """An empty last.pt was cut short."""
    ultralytics_run(tmp_path)
    put(tmp_path / "runs/detect/train/weights/last.pt", b"")
    assert latest(found(tmp_path)) == "epoch10.pt"


@pytest.mark.parametrize("inner", ["", "ljspeech-July-26-2024_12+34AM-abc"])
def test_coqui(tmp_path: Path, inner: str) -> None:
    """The most steps over both kinds is the latest, the last best_model_S the best; all else goes along."""
    coqui_run(tmp_path / inner)
    whole = found(tmp_path)
    assert (whole.layout, latest(whole), best(whole)) == ("coqui", "checkpoint_10000.pth", "best_model_9000.pth")
    assert [one.step for one in whole.checkpoints] == [800, 1000, 9000, 10000, None]
    sifted, kept, dropped, unknown = inferred(tmp_path, "best_model.pth")
    assert set(kept) == {"best_model.pth", "config.json", "speakers.pth", "language_ids.json"}
    assert (dropped, unknown, sifted.notes) == ([], [], (f"best_model.pth {INSIDE}",))


def test_fairseq(tmp_path: Path) -> None:
    """Last and best are what they are called; an epoch's end comes after its updates; the dictionary goes along."""
    fairseq_run(tmp_path)
    whole = found(tmp_path)
    assert (whole.layout, latest(whole), best(whole)) == ("fairseq", "checkpoint_last.pt", "checkpoint_best.pt")
    assert names(whole)[:3] == ["checkpoint2.pt", "checkpoint_10_5000.pt", "checkpoint10.pt"]
    (tmp_path / "checkpoint_last.pt").unlink()
    assert latest(found(tmp_path)) == "checkpoint10.pt"
    assert set(inferred(tmp_path, "checkpoint_best.pt")[1]) == {"checkpoint_best.pt", "dict.en.txt"}


def test_keras(tmp_path: Path) -> None:
    """The highest epoch in a name is the latest, a metric is no epoch, and a file called best is the best."""
    pickles(tmp_path, "model.09-0.34.keras", "model.10-0.9.keras", "best.keras", "resnet50.keras")
    whole = found(tmp_path)
    assert (whole.layout, latest(whole), best(whole)) == ("keras", "model.10-0.9.keras", "best.keras")
    assert [one.step for one in whole.checkpoints] == [9, 10, None, None]
    sifted, kept, _, _ = inferred(tmp_path, "best.keras")
    assert (kept, len(sifted.notes)) == (["best.keras"], 1)


def test_keras_weights_alone(tmp_path: Path) -> None:
    """One weights file is the latest; that it needs its code is said."""
    put(tmp_path / "checkpoints" / "unet.weights.h5")
    assert (names(found(tmp_path)), latest(found(tmp_path))) == (["unet.weights.h5"], "unet.weights.h5")
    assert "code" in inferred(tmp_path, "unet.weights.h5")[0].notes[0]


def test_tensorflow(tmp_path: Path) -> None:
    """The file ``checkpoint`` names the latest; where it names none that is there the highest number is."""
    tensorflow_run(tmp_path)
    whole = found(tmp_path)
    assert (whole.layout, names(whole), latest(whole)) == ("tensorflow", ["ckpt-8", "ckpt-9", "ckpt-10"], "ckpt-9")
    assert inferred(tmp_path, "ckpt-9")[1] == ["ckpt-9.data-00000-of-00001", "ckpt-9.index"]
    put(tmp_path / "checkpoint", b"\xff\x00model_checkpoint_path: garbage")
    assert latest(found(tmp_path)) == "ckpt-10"
    (tmp_path / "ckpt-10.index").unlink()
    whole = found(tmp_path)
    assert (latest(whole), row(whole, "ckpt-10").note) == ("ckpt-9", "ckpt-10.index is missing")


def test_saved_model(tmp_path: Path) -> None:
    """A SavedModel is one row and kept whole; a part of its variables that is not there tears it."""
    saved_model(tmp_path)
    assert (found(tmp_path).layout, latest(found(tmp_path))) == ("tensorflow", "final")
    assert len(inferred(tmp_path, "final")[1]) == 3
    file = tmp_path / "variables" / "variables.data-00000-of-00001"
    file.rename(file.with_name("variables.data-00000-of-00002"))
    assert row(found(tmp_path), "final").note == "variables.data-00001-of-00002 is missing"
