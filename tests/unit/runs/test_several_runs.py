"""A folder of several runs is never taken for one, and weights that nobody knows are never taken for one model."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.long import examples
from support.packing import names, planned, skipped
from support.runs import index_of, rows, write

from mdl.errors import NotFound, ProtocolError
from mdl.runs import find_run
from mdl.runs.checkpoint import Found

# How a run lies below a folder: a trainer's own layout, or none

KINDS = {
    "lightning": "checkpoints/{last,epoch=1-step=10}.ckpt",
    "lightning versions": "lightning_logs/version_{0,1}/checkpoints/epoch=1-step=10.ckpt",
    "hf": "checkpoint-{5,10}/{model.safetensors,config.json,trainer_state.json}",
    "a finished hf model": "{model.safetensors,config.json}",
    "names": "epoch_{1,2}.pth",
    "one file and its optimizer": "{net,optimizer}.pt",
    "ultralytics": "weights/{best,last}.pt",
    "coqui": "{checkpoint_10,best_model}.pth config.json",
    "vits": "{G,D}_{8,16}.pth",
    "keras": "m.0{1,2}.keras",
    "saved model": "saved_model.pb variables/variables.{index,data-00000-of-00001}",
    "nemo": "checkpoints/{a--step=5,a--step=5-last}.ckpt",
    "deeper": "out/ckpt/epoch_{1,2}.pth",
    "tensorflow": "ckpt-{1,2}.{index,data-00000-of-00001}",
}
FOLDERS = [("first", "second"), ("2024-01-01", "2024-01-02"), ("1", "2"), ("a1b2c3", "ffe001"), ("lr1", "lr10")]
VERSIONS = ("saved model", ("1", "2"))
"""TensorFlow Serving numbers the versions of one model."""


def refusal(folder: Path, name: str) -> NotFound:
    with pytest.raises(NotFound) as caught:
        find_run(folder).checkpoint(name)
    return caught.value


@pytest.mark.parametrize(("one", "other"), FOLDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_side_by_side(tmp_path: Path, kind: str, one: str, other: str) -> None:
    """Under whatever names: neither is the latest or the best of both, a plain pack ends with 3 and names both, and
    each is packed by itself; --all packs the complete folder."""
    if (kind, (one, other)) == VERSIONS:
        pytest.skip("these are versions of one model")
    for name in (one, other):
        write(tmp_path / name, KINDS[kind])
    run = find_run(tmp_path)
    assert not any(row.latest or row.best for row in run.checkpoints)
    assert run.latest_note
    listed = {path for path, _ in run.runs_below} | {row.base for row in run.checkpoints}
    assert {path.split("/")[0] for path in listed} == {one, other}
    assert not {path for path, _ in run.runs_below} & {row.base for row in run.checkpoints}
    for error in (refusal(tmp_path, "latest"), refusal(tmp_path, "best")):
        assert (error.exit_code, one in error.message, other in error.message) == (3, True, True)
    with pytest.raises(NotFound) as caught:
        planned(tmp_path)
    assert "--all" in (caught.value.hint or "")
    assert planned(tmp_path, whole_run=True).selection.members
    assert find_run(tmp_path / one).latest or kind == "lightning versions"


@pytest.mark.parametrize("kind", KINDS)
def test_one_run_in_a_folder_is_that_run(tmp_path: Path, kind: str) -> None:
    """A folder with nothing but one run in it is that run, as before."""
    write(tmp_path / "only", KINDS[kind])
    below, itself = find_run(tmp_path), find_run(tmp_path / "only")
    assert below.is_recognised
    assert len(below.checkpoints) == len(itself.checkpoints)
    assert (below.latest and below.latest.name) == (itself.latest and itself.latest.name)


@given(
    st.lists(st.sampled_from(sorted(set(KINDS) - {"saved model"})), min_size=2, max_size=2),
    st.lists(st.text("abc019-_=", min_size=1, max_size=8), min_size=2, max_size=2, unique=True),
)
@settings(max_examples=examples(60), deadline=None)
def test_any_two_runs(kinds: list[str], folders: list[str]) -> None:
    """For any folder of two runs, the latest of the folder is 3."""
    with tempfile.TemporaryDirectory() as folder:
        for kind, name in zip(kinds, folders, strict=True):
            write(Path(folder, name), KINDS[kind])
        assert refusal(Path(folder), "latest").exit_code == 3


def test_a_sweep_is_listed_with_its_checkpoints(tmp_path: Path) -> None:
    """The message counts the checkpoints of each run, and the hint names one of them."""
    for name in ("lr1", "lr2"):
        write(tmp_path / name, "checkpoints/{last,epoch=1-step=10}.ckpt")
    run = find_run(tmp_path)
    assert run.runs_below == (("lr1", 2), ("lr2", 2))
    assert run.checkpoints == ()
    error = refusal(tmp_path, "latest")
    why = "this folder holds several runs: lr1 (2 checkpoints), lr2 (2 checkpoints)"
    assert error.message == f"no latest checkpoint: {why}"
    assert run.latest_note == why
    assert f"mdl pack {tmp_path / 'lr1'}" in (error.hint or "")


def test_versions_of_one_logger_are_one_run(tmp_path: Path) -> None:
    """Lightning numbers the versions of one logger; two loggers are two runs."""
    write(tmp_path, "logs/version_{2,10}/checkpoints/{epoch=0-step=9,last}.ckpt")
    run = find_run(tmp_path)
    assert run.latest
    assert (run.latest.name, run.latest.base) == ("last.ckpt", "logs/version_10/checkpoints")
    assert run.runs_below == ()
    write(tmp_path, "other/version_0/checkpoints/{epoch=0-step=9,last}.ckpt")
    assert refusal(tmp_path, "latest").exit_code == 3


def test_the_own_folders_of_a_run_are_not_named_beside_it(tmp_path: Path) -> None:
    """What the list shows already is not among the other runs."""
    write(tmp_path, "checkpoints/{last,epoch=1-step=10}.ckpt old/checkpoint-{1,2}/{model.safetensors,config.json}")
    run = find_run(tmp_path)
    assert run.runs_below == (("old", 2),)
    assert run.latest
    assert run.latest.name == "last.ckpt"


@pytest.mark.parametrize(
    "files",
    [
        "cat-00000{1,2}.safetensors dog-00000{1,2,3}.safetensors",
        "cat-000001.safetensors cat.safetensors dog-000001.safetensors",
        "anna_e100_s1000.pth bob_e50_s800.pth anna.pth bob.pth",
        "alpha_epoch_{1,2}.pt beta_epoch_3.pt",
        "seed1_epoch_5.pt seed2_epoch_3.pt",
    ],
)
def test_files_of_several_trainings_in_one_folder(tmp_path: Path, files: str) -> None:
    """Nobody can say which training is meant: 3 with the list, each can be named, and --all packs all of them."""
    folder = write(tmp_path / "run", files)
    run = find_run(folder)
    assert not any(row.latest for row in run.checkpoints)
    for checkpoint in ("latest", None):
        with pytest.raises(NotFound, match="they may be of several trainings: ") as caught:
            planned(folder, checkpoint)
        assert all(row.name in caught.value.message for row in run.checkpoints)
    for row in run.checkpoints:
        assert names(planned(folder, row.name))
    assert names(planned(folder, whole_run=True)) == {path.name for path in folder.iterdir()}


# No model is recognised

ONE_SET = {
    "a file": "net.pt readme.md",
    "a file deep in it": "a/b/net.pth notes.txt",
    "shards of one index": "w-0000{1,2}-of-00002.gguf",
    "a marked folder": "export/saved_model.pb export/variables/variables.{index,data-00000-of-00001} notes.md",
    "an MLflow model": "MLmodel data/model.pth conda.yaml",
    "a spaCy pipeline": "meta.json config.cfg ner/model tok2vec/model vocab/strings.json",
    "weights and their optimizer": "{net,optimizer,scheduler}.pt rng_state.pth",
    "exports of one stem": "net.pt net.onnx net.onnx_data",
    "an MLflow model without weights": "MLmodel model.pkl conda.yaml",
    "an MLflow model with a checkpoint": "MLmodel model.pkl artifacts/checkpoint-500/{config.json,model.safetensors}",
    "an MLflow model with a file of an epoch": "MLmodel python_model.pkl artifacts/epoch_10.pt",
    "a checkpoint of orbax": (
        "_CHECKPOINT_METADATA metrics/metrics "
        "default/{_METADATA,manifest.ocdbt,d/0a,ocdbt.process_0/manifest.ocdbt,ocdbt.process_0/d/0b}"
    ),
    "an item of orbax": "_METADATA manifest.ocdbt d/0a ocdbt.process_0/{manifest.ocdbt,d/0b}",
    "a predictor of AutoGluon": (
        "predictor.pkl learner.pkl models/TFT/W0/{model.pkl,lightning_logs/version_0/checkpoints/epoch=1-step=5.ckpt}"
    ),
    "a pipeline with embeddings of textual inversion": (
        "model_index.json {unet,vae}/{config.json,diffusion_pytorch_model.safetensors} "
        "learned_embeds{-steps-500,}.safetensors"
    ),
    "a Core ML package": "m.mlpackage/{Manifest.json,Data/com.apple.CoreML/{model.mlmodel,weights/weight.bin}}",
    "shards of TensorFlow.js": "model.json group1-shard{1,2}of2.bin",
    "an estimator of scikit-learn": "model.joblib scaler.joblib notes.md",
    "a pickled estimator": "final_model.pkl features.txt",
    "one checkpoint of LeRobot": "pretrained_model/{model.safetensors,train_config.json} training_state/o.safetensors",
    "one checkpoint of verl": "actor/{{model,optim}_world_size_1_rank_0.pt,fsdp_config.json} data.pt",
    "features of recordings beside a model": "net.pt wavs/a.wav wavs/a.spec.pt wavs/b.bert.pt",
}
SEVERAL_SETS = {
    "two files": ("encoder.pt decoder.pt", "decoder.pt encoder.pt"),
    "files and a folder": ("a.pt sub/b.pt", "a.pt sub"),
    "two folders": ("first/{net,optimizer}.pt second/{net,optimizer}.pt", "first second"),
    "deeper folders": ("out/first/net.pt out/second/net.pt", "first second"),
}


@pytest.mark.parametrize("files", ONE_SET.values(), ids=ONE_SET)
def test_one_set_of_weights_is_the_model(tmp_path: Path, files: str) -> None:
    """It is a row ``final``, and what lies beside it goes along."""
    run = find_run(write(tmp_path / "run", files))
    assert [(row.name, row.latest, row.complete) for row in run.checkpoints] == [("final", True, True)]
    everything = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert names(planned(tmp_path / "run")) == everything


def test_the_settings_beside_the_folder_of_the_model(tmp_path: Path) -> None:
    """What a model is loaded with goes along with the folder ``model``, if that has none."""
    run = write(tmp_path / "run", "model/w.safetensors optim/o.pt config.yaml vocab.txt notes.md")
    assert names(planned(run)) == {"w.safetensors", "config.yaml"}
    write(run, "model/config.yaml")
    assert names(planned(run)) == {"w.safetensors", "config.yaml"}


@pytest.mark.parametrize(
    "files",
    [
        "checkpoints/epoch_{1,2}.pt",
        "checkpoints/epoch_1.pt",
        "checkpoint-{5,10}/{model.safetensors,config.json}",
        "{model.safetensors,config.json}",
        "epoch_{1,2}.pt model/weights.unknown",
        "checkpoints/epoch_{1,2}.pt model/{model.safetensors.index.json,config.json}",
        "checkpoints/epoch_1.pt model/checkpoint-500/net.py",
        "checkpoints/epoch_{1,2}.pt model/optimizer.pt",
    ],
)
def test_a_folder_called_model_without_a_model(tmp_path: Path, files: str) -> None:
    """A package of source code is often called so: the run's weights are packed, with the code."""
    run = write(tmp_path / "run", f"{files} model/{{__init__,net}}.py")
    everything = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert names(planned(run)) == everything


@pytest.mark.parametrize(("files", "candidates"), SEVERAL_SETS.values(), ids=SEVERAL_SETS)
def test_several_sets_of_weights_are_candidates(tmp_path: Path, files: str, candidates: str) -> None:
    """Nobody can say which is meant: 3 with the list, each can be named, and --all packs the folder as it is."""
    run = find_run(write(tmp_path / "run", files))
    assert rows(Found(run.checkpoints)) == candidates
    for name in candidates.split():
        assert run.checkpoint(name).complete
        assert names(planned(tmp_path / "run", name))
    with pytest.raises(NotFound) as caught:
        planned(tmp_path / "run")
    assert all(name in caught.value.message for name in candidates.split())
    assert "--all" in (caught.value.hint or "")
    plan = planned(tmp_path / "run", whole_run=True)
    count = len(plan.selection.members)
    weights = sum(1 for name in names(plan) if name.endswith(".pt"))
    assert f"no model is recognised: all {count} files are packed, {weights} of them weights" in plan.selection.notes


def test_a_plain_pack_of_several_checkpoints_says_so(tmp_path: Path) -> None:
    """Also if nobody can say which of them is the latest."""
    plan = planned(write(tmp_path / "run", "epoch_3.pt step_900.pt"))
    assert plan.selection.notes == ("no finished model: all 2 checkpoints are packed; --checkpoint NAME packs one",)


def test_what_is_packed_from_the_folder_of_the_model_is_not_listed_as_left_out(tmp_path: Path) -> None:
    """Of the checkpoints in it none is finished, and the latest lies elsewhere; another form of its one model stays."""
    plan = planned(write(tmp_path / "run", "model/best.{pth,onnx} checkpoints/epoch_1.pt"))
    assert names(plan) == {"best.pth", "best.onnx"}
    assert skipped(plan) == {"epoch_1.pt": "a checkpoint beside model/"}
    assert plan.selection.notes[-1] == "no finished model: all 2 checkpoints are packed; --checkpoint NAME packs one"
    plan = planned(write(tmp_path / "lora", "model/{a-000001,a}.safetensors model/a_openvino_model/x.bin"))
    assert names(plan) == {"a.safetensors", "a_openvino_model/x.bin"}
    assert skipped(plan).keys() == {"a-000001.safetensors"}


def test_weights_beside_the_folder_of_the_model_are_listed(tmp_path: Path) -> None:
    """That folder is the model, be it one to begin with in a package of source code: what stays behind is said."""
    files = f"model/{{net.py,backbone.pth}} {MODEL} checkpoint-5/{MODEL} optimizer.pt"
    plan = planned(write(tmp_path / "run", files))
    assert names(plan) == {"net.py", "backbone.pth", "config.json"}
    assert skipped(plan).keys() == {"model.safetensors", "checkpoint-5"}


def test_files_beside_the_folder_of_the_model_are_named_with_all(tmp_path: Path) -> None:
    """A pattern alone picks from the names that a plain pack has; what to do if these are not meant is said."""
    run = write(tmp_path / "run", f"model/{MODEL} checkpoint-5/{MODEL} run.yaml")
    assert names(planned(run, include=["*.json"])) == {"config.json"}
    with pytest.raises(NotFound, match="no file is left") as caught:
        planned(run, include=["checkpoint-5/*"])
    assert "--all" in (caught.value.hint or "")
    wanted = {"checkpoint-5/model.safetensors", "checkpoint-5/config.json"}
    assert names(planned(run, whole_run=True, include=["checkpoint-5/*"])) == wanted


def test_the_last_checkpoint_of_nemo_is_no_finished_model(tmp_path: Path) -> None:
    """It is written after every epoch, with the optimizer; what NeMo writes at the end is a ``.nemo``."""
    run = write(tmp_path / "run", "checkpoints/{a--step=5,a--step=5-last}.ckpt")
    assert names(planned(run)) == {"checkpoints/a--step=5.ckpt", "checkpoints/a--step=5-last.ckpt"}
    with pytest.raises(NotFound, match="no finished model"):
        planned(run, inference_only=True)
    write(run, "checkpoints/asr.nemo")
    assert names(planned(run, inference_only=True)) == {"asr.nemo"}


@pytest.mark.parametrize(
    "files",
    [
        "version_0/checkpoints/{asr.nemo,asr-last.ckpt} version_1/checkpoints/{asr-last,asr--v=1-epoch=1}.ckpt",
        "pretrained.nemo checkpoints/{x--v=1-epoch=1,x-last}.ckpt",
        "pretrained.nemo checkpoints/{epoch=1,step=900}.ckpt",
        "{a,b}.nemo",
        "checkpoints/{a--step=5.ckpt,a.nemo,a-averaged.nemo}",
    ],
)
def test_an_archive_of_nemo_that_is_perhaps_not_the_model(tmp_path: Path, files: str) -> None:
    """It may be of an earlier run, or the base of a training that goes on, or one of several: all is packed, and
    inference ends with 3."""
    run = write(tmp_path / "run", files)
    everything = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert names(planned(run)) == everything
    with pytest.raises(NotFound, match="no finished model") as caught:
        planned(run, inference_only=True)
    assert all(row.name in (caught.value.hint or "") for row in find_run(run).checkpoints)


def test_a_base_of_nemo_is_not_the_model_while_the_first_checkpoint_is_written(tmp_path: Path) -> None:
    """The only whole file of weights is what the training began with."""
    run = write(tmp_path / "run", "pretrained.nemo checkpoints/x-last.ckpt", {"checkpoints/x-last.ckpt": b"PK\3\4cut"})
    with pytest.raises(NotFound, match="no finished model"):
        planned(run, inference_only=True)


MODEL = "{model.safetensors,config.json}"
MODEL_FILES = "model.safetensors config.json"
RUNS_IN_FOLDERS = {
    "the only run, in a folder below": (
        f"exp/{MODEL} exp/checkpoint-5/{MODEL}",
        "exp/model.safetensors exp/config.json",
    ),
    "the same, with its model in a folder": (f"exp/model/{MODEL} exp/checkpoint-5/{MODEL}", MODEL_FILES),
    "checkpoints in a folder of another name": (f"{MODEL} ckpts/epoch_{{1,2}}.pt", MODEL_FILES),
    "one checkpoint that is counted": (f"{MODEL} state/global_step20/mp_rank_00_model_states.pt", MODEL_FILES),
    "a module of the model": (
        f"{MODEL} 2_Dense/model.safetensors ckpts/epoch_{{1,2}}.pt",
        f"{MODEL_FILES} 2_Dense/model.safetensors",
    ),
    "a model's folder with its checkpoints": ("model/{a-000001,a-000002,a}.safetensors", "a.safetensors"),
    "checkpoints beside the model's folder": (f"model/{MODEL} checkpoint-5/{MODEL}", MODEL_FILES),
    "a run below the only run": (f"exp/{MODEL} exp/ckpts/epoch_{{1,2}}.pt", "exp/model.safetensors exp/config.json"),
    "a folder that says it is final": (
        f"step_{{5,10}}/{MODEL} final_model/{MODEL}",
        "final_model/model.safetensors final_model/config.json",
    ),
    "a file that says it is final, and its average": ("model_{0004999,final,final_ema}.pth", "model_final.pth"),
    "a file that says it is final, and a part of it": (
        f"epoch_1.pt final.pt encoder/{MODEL}",
        "final.pt encoder/model.safetensors encoder/config.json",
    ),
    "a file that says it is final, and a file that is a part of it": (
        "epoch_1.pt final.pt encoder.pt",
        "final.pt encoder.pt",
    ),
    "the finished model, and a merged copy": (f"{MODEL} {{checkpoint-5,merged}}/{MODEL}", MODEL_FILES),
    "a file that says it is final": ("model_{0004999,final}.pth last_checkpoint", "model_final.pth last_checkpoint"),
    "the same, in the folder of the checkpoints": (
        "checkpoints/model_{0004999,final}.pth config.yaml",
        "checkpoints/model_final.pth config.yaml",
    ),
    "a finished model in the folder of the checkpoints": (
        f"checkpoints/checkpoint-{{5,10}}/{MODEL} checkpoints/{MODEL} notes.md",
        "checkpoints/model.safetensors checkpoints/config.json notes.md",
    ),
    "NeMo's own archive": ("checkpoints/{{a--step=5,a--step=5-last}.ckpt,asr.nemo}", "checkpoints/asr.nemo"),
    "a checkpoint with settings beside the folder of the finished model": (
        "checkpoints/{final,step_1}/model.safetensors best.pt config.json tokenizer.json",
        "checkpoints/final/model.safetensors config.json tokenizer.json",
    ),
    "the same, the finished model a file": (
        "checkpoints/model_{0001999,final}.pth model_0000999.pth config.yaml",
        "checkpoints/model_final.pth config.yaml",
    ),
    "settings that are no model's": (
        f"{MODEL} checkpoints/{{epoch_1.pt,vocab.txt,step_5/model.safetensors}}",
        MODEL_FILES,
    ),
    "the only checkpoint of the model's folder": ("model/best.pth checkpoints/{epoch_1,final}.pt", "best.pth"),
    "source code called model, and a finished model": (
        f"model/{{__init__,net}}.py checkpoint-5/{MODEL} {MODEL}",
        f"{MODEL_FILES} model/__init__.py model/net.py",
    ),
}


@pytest.mark.parametrize(("files", "packed"), RUNS_IN_FOLDERS.values(), ids=RUNS_IN_FOLDERS)
def test_a_finished_model_is_packed_without_the_checkpoints_below(tmp_path: Path, files: str, packed: str) -> None:
    """What is listed as finished is what a plain pack takes; what else the run holds is left out, and counted or named;
    ``--all`` packs the folder as it is."""
    run = write(tmp_path / "run", files)
    plan = planned(run)
    assert names(plan) == set(packed.split())
    assert plan.selection.notes[0].startswith("left out: ")
    everything = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert names(planned(run, whole_run=True)) == everything
    for path, _ in find_run(run).runs_below:
        assert f"left out: {path} (" in plan.selection.notes[-1]
        assert names(planned(run / path))


def test_a_torn_run_below_leaves_the_finished_model_whole(tmp_path: Path) -> None:
    """What another run is still writing says nothing of the model beside it."""
    run = write(tmp_path / "run", f"{MODEL} ckpts/epoch_{{1,2}}.pt", {"ckpts/epoch_2.pt": b"PK\3\4torn"})
    assert rows(Found(find_run(run).checkpoints)) == "final*"


def test_a_run_below_leaves_a_cut_model_cut(tmp_path: Path) -> None:
    """Without the other run's files the finished model is what its layout says of it."""
    run = write(tmp_path / "run", "export.pkl m.txt old/epoch_3.pth", {"export.pkl": b"PK\3\4" + bytes(99)})
    assert rows(Found(find_run(run).checkpoints)) == "final!"
    with pytest.raises(ProtocolError, match="a zip without its end record"):
        planned(run)


@pytest.mark.parametrize(
    ("files", "cut", "checkpoint"),
    [
        ("{g,do}_000{05000,10000} config.json", "g_00010000", "10000"),
        ("checkpoint_{1000,2000}", "checkpoint_2000", "2000"),
        ("export.pkl models/{model_0,model_1}.pth", "export.pkl", "final"),
        ("export.pkl models/{model_0,model_1}.pth", "export.pkl", None),
    ],
)
def test_a_cut_file_without_a_suffix_of_weights_is_not_packed(
    tmp_path: Path, files: str, cut: str, checkpoint: str | None
) -> None:
    """Its layout tells that it holds weights: by its name it is refused as any other cut one, and it is not the
    latest."""
    run = write(tmp_path / "run", files, {cut: b"PK\3\4cut"})
    with pytest.raises(ProtocolError, match="a zip without its end record"):
        planned(run, checkpoint)
    assert cut not in names(planned(run, "latest"))
    assert cut in names(planned(run, checkpoint, allow_incomplete=True))


def test_checkpoints_that_are_packed_together_are_whole(tmp_path: Path) -> None:
    """One that lacks a shard is refused by its name; of one without the trainer's last mark that is said."""
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    step = f"{{{shards[0]},config.json,trainer_state.json}}"
    index = {f"checkpoint-{at}/model.safetensors.index.json": index_of(*shards) for at in (5, 10)}
    run = write(tmp_path / "run", f"checkpoint-{{5,10}}/{step} checkpoint-5/{shards[1]}", index)
    with pytest.raises(ProtocolError, match=f"shard {shards[1]} of the index is missing") as caught:
        planned(run)
    assert caught.value.item == "checkpoint-10"
    plan = planned(run, allow_incomplete=True)
    assert f"checkpoint-10 is not complete: shard {shards[1]} of the index is missing" in plan.selection.notes
    write(run, f"checkpoint-10/{shards[1]}")
    (run / "checkpoint-10" / "trainer_state.json").unlink()
    assert any(
        note.startswith("checkpoint-10 is not complete: trainer_state.json") for note in planned(run).selection.notes
    )


def test_a_checkpoint_that_is_excluded_need_not_be_whole(tmp_path: Path) -> None:
    """One that is still being written is left out by its name; what is packed of one says that it is not whole."""
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = {"checkpoint-10/model.safetensors.index.json": index_of(*shards)}
    run = write(tmp_path / "run", f"checkpoint-5/{MODEL} checkpoint-10/{{{shards[0]},optimizer.pt}}", index)
    assert names(planned(run, exclude=["checkpoint-10/*"])) == {
        "checkpoint-5/model.safetensors",
        "checkpoint-5/config.json",
    }
    for exclude in ("checkpoint-10/optimizer.pt", "checkpoint-5/*"):
        with pytest.raises(ProtocolError, match="is missing"):
            planned(run, exclude=[exclude])
    (run / "checkpoint-10" / shards[0]).unlink()
    with pytest.raises(ProtocolError, match="is missing"):
        planned(run, exclude=["*optimizer.pt"])


def test_many_candidates_are_counted(tmp_path: Path) -> None:
    """Ten are named, and how many more there are."""
    write(tmp_path, " ".join(f"part{letter}/net.pt" for letter in "abcdefghijklm"))
    assert "parta, " in refusal(tmp_path, "latest").message
    assert refusal(tmp_path, "latest").message.endswith(" and 3 more")


def test_a_folder_without_weights(tmp_path: Path) -> None:
    """There is nothing to pack but the folder as it is."""
    write(tmp_path / "run", "", {"notes.txt": "x"})
    with pytest.raises(NotFound, match="no model is recognised"):
        planned(tmp_path / "run")
    assert names(planned(tmp_path / "run", whole_run=True)) == {"notes.txt"}


@pytest.mark.parametrize(
    "files",
    [
        "{g,do}_00000100",
        "snapshot.ep.{1,2} model.json",
        "network-snapshot-00010{1,2}.pkl",
        "{1,2}/_CHECKPOINT_METADATA",
        "model_index.json unet/config.json",
    ],
)
def test_a_run_below_is_found_by_the_marks_of_its_layout(tmp_path: Path, files: str) -> None:
    """Where no suffix says that a file holds weights, the layout's own marks lead to the run in a folder."""
    write(tmp_path / "out" / "run", files)
    below, itself = find_run(tmp_path), find_run(tmp_path / "out" / "run")
    assert (below.layout, below.is_recognised) == (itself.layout, True)
    assert [row.name for row in below.checkpoints] == [row.name for row in itself.checkpoints]
    assert below.checkpoints
