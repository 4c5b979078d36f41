"""HF Trainer, PEFT, axolotl and LLaMA-Factory: numbered folders, the finished model beside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.runs import (
    adapter,
    best,
    found,
    fsdp_shards,
    hf_checkpoint,
    hf_model,
    inferred,
    latest,
    names,
    peft_checkpoint,
    pickles,
    put,
    row,
    safetensors,
    sharded,
    zero3_checkpoint,
    zero_states,
)

from mdl.errors import NotFound


def test_rows_go_by_number(tmp_path: Path) -> None:
    """checkpoint-1000 comes after checkpoint-500 and is the latest, whatever their times; the final model is last."""
    for step in (1000, 500, 90):
        hf_checkpoint(tmp_path, step)
    hf_model(tmp_path)
    whole = found(tmp_path)
    assert (whole.layout, names(whole)) == (
        "hf-trainer",
        ["checkpoint-90", "checkpoint-500", "checkpoint-1000", "final"],
    )
    assert [one.step for one in whole.checkpoints] == [90, 500, 1000, None]
    assert (latest(whole), best(whole), whole.best_note) == ("checkpoint-1000", None, "none is recorded")
    assert all(one.complete and not one.note for one in whole.checkpoints)


def test_entries_are_each_row_s_own(tmp_path: Path) -> None:
    """A checkpoint has what is in its folder, the final model everything else; sizes and times are of these."""
    hf_checkpoint(tmp_path, 5)
    hf_model(tmp_path)
    put(tmp_path / "runs" / "events.out.tfevents.1", b"log")
    whole = found(tmp_path)
    inner, final = row(whole, "checkpoint-5"), row(whole, "final")
    assert (inner.base, final.base) == ("checkpoint-5", "")
    assert len(inner.files) == 8
    assert all(entry.path.startswith("checkpoint-5/") for entry in inner.entries)
    assert {entry.path for entry in final.files} == {
        *("config.json", "model.safetensors", "tokenizer.json", "training_args.bin", "runs/events.out.tfevents.1")
    }
    assert inner.bytes == sum(file.stat().st_size for file in (tmp_path / "checkpoint-5").iterdir())


def test_final_is_latest_only_where_nothing_is_numbered(tmp_path: Path) -> None:
    """A finished model alone is the latest; it is in the folder asked for."""
    hf_model(tmp_path / "model")
    whole = found(tmp_path, "model")
    assert (names(whole), latest(whole), row(whole, "final").base) == (["final"], "final", "model")


def test_final_is_latest_where_every_numbered_one_is_torn(tmp_path: Path) -> None:
    """What is complete comes before what is not."""
    hf_checkpoint(tmp_path, 5)
    weights = next((tmp_path / "checkpoint-5").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    hf_model(tmp_path)
    assert latest(found(tmp_path)) == "final"


def test_a_run_without_any_state_is_not_judged_by_it(tmp_path: Path) -> None:
    """Where no checkpoint has its trainer's state the copy was stripped: the newest is the latest all the same."""
    for step in (5, 10):
        hf_checkpoint(tmp_path, step, state=False)
    assert latest(found(tmp_path)) == "checkpoint-10"


@pytest.mark.parametrize("step", [300, 500])
def test_best_is_what_the_newest_state_records(tmp_path: Path, step: int) -> None:
    """The newest complete checkpoint's state says which is best; an older one's opinion is void."""
    hf_checkpoint(tmp_path, 300, best=300)
    hf_checkpoint(tmp_path, 500, best=step)
    assert best(found(tmp_path)) == f"checkpoint-{step}"


def test_best_by_the_last_name_of_its_path(tmp_path: Path) -> None:
    """An older Trainer records a path of the training's own machine, perhaps Windows': its last name counts."""
    hf_checkpoint(tmp_path, 300)
    folder = hf_checkpoint(tmp_path, 500)
    for path in ("/root/out/checkpoint-300", "C:\\out\\checkpoint-300\\", "../../checkpoint-300/"):
        put(folder / "trainer_state.json", {"best_model_checkpoint": path})
        assert best(found(tmp_path)) == "checkpoint-300"


def test_best_gone_is_named(tmp_path: Path) -> None:
    """A recorded best that was deleted is nobody else."""
    hf_checkpoint(tmp_path, 500, best=300)
    whole = found(tmp_path)
    assert (best(whole), whole.best_note) == (None, "checkpoint-300 is recorded as best and is gone")


HOSTILE = [
    *("", "{", "null", "[]", "7", '"text"', "\x00", "[" * 100_000, '{"best_model_checkpoint": 1e999}'),
    *('{"best_model_checkpoint": ["checkpoint-5"]}', '{"best_model_checkpoint": {}}', '{"best_global_step": true}'),
    *('{"best_global_step": -5}', '{"best_global_step": 5.5}', '{"best_global_step": {"a": 1}}'),
    f'{{"best_model_checkpoint": "{"x" * 100_000}"}}',
    '{"best_global_step": ' + "9" * 5000 + "}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_state_is_no_record(tmp_path: Path, text: str) -> None:
    """Whatever a state file holds, the rows stand, and nothing is best."""
    put(hf_checkpoint(tmp_path, 5) / "trainer_state.json", text)
    whole = found(tmp_path)
    assert (names(whole), latest(whole), best(whole)) == (["checkpoint-5"], "checkpoint-5", None)
    assert whole.best_note == "none is recorded"


@pytest.mark.parametrize("path", ["..", "/etc/passwd", "../../../checkpoint-5/..", "a\nb", "/"])
def test_hostile_best_path_marks_nothing(tmp_path: Path, path: str) -> None:
    """A path that names no checkpoint here leads nowhere."""
    put(hf_checkpoint(tmp_path, 5) / "trainer_state.json", {"best_model_checkpoint": path})
    assert best(found(tmp_path)) is None


def test_half_written_is_never_latest(tmp_path: Path) -> None:
    """No state, a lost shard, a short file, no index yet, a staging folder: each is told, none is latest."""
    hf_checkpoint(tmp_path, 100)
    hf_checkpoint(tmp_path, 200, state=False)
    folder = hf_checkpoint(tmp_path, 300)
    sharded(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    safetensors(hf_checkpoint(tmp_path, 400) / "model.safetensors", missing=5)
    sharded(hf_checkpoint(tmp_path, 500))
    (tmp_path / "checkpoint-500" / "model.safetensors.index.json").unlink()
    hf_checkpoint(tmp_path, 600, name="tmp-checkpoint-600")
    put(hf_checkpoint(tmp_path, 700) / "model.safetensors.tmp")
    put(hf_checkpoint(tmp_path, 800) / "model.safetensors", b"")
    whole = found(tmp_path)
    assert latest(whole) == "checkpoint-100"
    notes = {one.step: one.note for one in whole.checkpoints if not one.complete}
    wanted = {
        200: "trainer_state.json",
        300: "shard model-00002-of-00002.safetensors of the index is missing",
        400: "its header says",
        500: "the index of model-00001-of-00002.safetensors is missing",
        600: "staging",
        700: "model.safetensors.tmp was still being written",
        800: "model.safetensors is empty",
    }
    assert notes.keys() == wanted.keys()
    assert all(text in notes[step] for step, text in wanted.items()), notes


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 5}', '{"weight_map": {}}', '{"weight_map": {"a": [1]}}'])
def test_broken_index_is_incomplete(tmp_path: Path, text: str) -> None:
    """An index that cannot be read vouches for nothing."""
    folder = hf_checkpoint(tmp_path, 5)
    put(folder / "model.safetensors.index.json", text)
    whole = found(tmp_path)
    assert (latest(whole), row(whole, "checkpoint-5").complete) == (None, False)


def test_index_leads_to_no_other_folder(tmp_path: Path) -> None:
    """A shard outside its own folder is a missing one."""
    folder = hf_checkpoint(tmp_path, 5)
    put(folder / "model.safetensors.index.json", {"weight_map": {"a": "../secret.safetensors"}})
    safetensors(tmp_path / "secret.safetensors")
    assert "../secret.safetensors" in row(found(tmp_path), "checkpoint-5").note


def test_folder_without_weights_is_incomplete(tmp_path: Path) -> None:
    """A state without weights is no checkpoint to go on from; a dangling link is none either."""
    folder = hf_checkpoint(tmp_path, 5)
    (folder / "model.safetensors").unlink()
    assert row(found(tmp_path), "checkpoint-5").note == "it holds no weights"
    os.symlink("nowhere", folder / "model.safetensors")
    whole = found(tmp_path)
    assert row(whole, "checkpoint-5").note == "model.safetensors: a dangling link"
    assert any(entry.kind == "special" for entry in row(whole, "checkpoint-5").entries)


def test_best_and_last_by_name(tmp_path: Path) -> None:
    """Folders that are called checkpoint-best and checkpoint-last are what they are called, state file or none."""
    hf_checkpoint(tmp_path, 5)
    for name in ("checkpoint-best", "checkpoint-last"):
        hf_checkpoint(tmp_path, 0, name=name, state=False)
    whole = found(tmp_path)
    assert names(whole) == ["checkpoint-5", "checkpoint-best", "checkpoint-last"]
    assert (latest(whole), best(whole)) == ("checkpoint-last", "checkpoint-best")


def test_inference_of_a_checkpoint(tmp_path: Path) -> None:
    """Weights, configuration, tokenizer and code stay; the training's state goes; the unknown stays and is told."""
    folder = hf_checkpoint(tmp_path, 5)
    pickles(folder, "rng_state_0.pth", "scaler.pt", "mystery.xyz", "modeling_own.py", "chat_template.jinja")
    zero_states(folder / "global_step5", stage=2)
    put(folder / "latest", "global_step5")
    _, kept, dropped, unknown = inferred(tmp_path, "checkpoint-5")
    assert set(kept) == {
        *("model.safetensors", "config.json", "tokenizer.json", "modeling_own.py", "chat_template.jinja")
    }
    assert {"optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "training_args.bin", "latest"} <= set(dropped)
    assert "global_step5/mp_rank_00_model_states.pt" in dropped
    assert unknown == ["mystery.xyz"]


def test_inference_refuses_a_lost_shard(tmp_path: Path) -> None:
    """A model that lacks a shard its index names is refused, and the shard named."""
    sharded(hf_checkpoint(tmp_path, 5))
    (tmp_path / "checkpoint-5" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(NotFound, match="model-00002-of-00002"):
        inferred(tmp_path, "checkpoint-5")


def test_inference_refuses_zero3(tmp_path: Path) -> None:
    """ZeRO-3 shards alone cannot be loaded: complete to resume from, refused for inference, with what to run."""
    zero3_checkpoint(tmp_path, 5)
    whole = found(tmp_path)
    assert (whole.layout, latest(whole)) == ("hf-trainer", "checkpoint-5")
    with pytest.raises(NotFound) as caught:
        inferred(tmp_path, "checkpoint-5")
    assert caught.value.hint == "run `python zero_to_fp32.py . .` in it first"
    safetensors(tmp_path / "checkpoint-5" / "model.safetensors")
    assert "model.safetensors" in inferred(tmp_path, "checkpoint-5")[1]


def test_deepspeed_tag_must_be_there(tmp_path: Path) -> None:
    """A checkpoint whose ``latest`` names a folder that is not there was cut short."""
    put(zero3_checkpoint(tmp_path, 5) / "latest", "global_step6")
    assert row(found(tmp_path), "checkpoint-5").note == "global_step6, which 'latest' names, is missing"


def test_inference_refuses_fsdp_shards(tmp_path: Path) -> None:
    """FSDP shards alone cannot be loaded; without their .metadata they are not even whole."""
    folder = hf_checkpoint(tmp_path, 5)
    (folder / "model.safetensors").unlink()
    fsdp_shards(folder)
    assert latest(found(tmp_path)) == "checkpoint-5"
    with pytest.raises(NotFound) as caught:
        inferred(tmp_path, "checkpoint-5")
    assert "accelerate merge-weights" in (caught.value.hint or "")
    (folder / "pytorch_model_fsdp_0" / ".metadata").unlink()
    assert "pytorch_model_fsdp_0/.metadata" in row(found(tmp_path), "checkpoint-5").note


def test_inference_refuses_optimizer_files_alone(tmp_path: Path) -> None:
    """Where only the training's state is left there is nothing to load."""
    (hf_checkpoint(tmp_path, 5) / "model.safetensors").unlink()
    with pytest.raises(NotFound, match="nothing that can be loaded"):
        inferred(tmp_path, "checkpoint-5")


def test_peft(tmp_path: Path) -> None:
    """An adapter's run is ``peft``; for inference the adapter stays, and its base model is named."""
    for step in (20, 100):
        peft_checkpoint(tmp_path, step, "/models/base")
    adapter(tmp_path)
    whole = found(tmp_path)
    assert (whole.layout, names(whole), latest(whole)) == (
        "peft",
        ["checkpoint-20", "checkpoint-100", "final"],
        "checkpoint-100",
    )
    sifted, kept, dropped, unknown = inferred(tmp_path, "checkpoint-20")
    assert set(kept) == {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    assert (len(dropped), unknown) == (5, [])
    assert sifted.notes == ("an adapter: it needs its base model, /models/base",)


@pytest.mark.parametrize("text", ["{}", "[1]", '{"base_model_name_or_path": 5}', "{"])
def test_hostile_adapter_config(tmp_path: Path, text: str) -> None:
    """An adapter's configuration may hold anything and still be packed."""
    put(peft_checkpoint(tmp_path, 5) / "adapter_config.json", text)
    assert "adapter_model.safetensors" in inferred(tmp_path, "checkpoint-5")[1]


def test_merged_is_a_row_of_its_own(tmp_path: Path) -> None:
    """axolotl's merged model is picked by its folder's name and is no part of the adapter beside it."""
    peft_checkpoint(tmp_path, 5)
    adapter(tmp_path)
    hf_model(tmp_path / "merged")
    whole = found(tmp_path)
    assert names(whole) == ["checkpoint-5", "merged", "final"]
    assert not [entry for entry in row(whole, "final").entries if entry.path.startswith("merged")]
