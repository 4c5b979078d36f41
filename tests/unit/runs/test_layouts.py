"""Every layout: which checkpoints are found, which of them is the latest and the best, and what inference needs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.runs import found, index_of, inferred, latest, put, row, rows, scanned, write

from mdl.errors import NotFound
from mdl.runs import find_run, inference_files
from mdl.runs.checkpoint import Found

INSIDE = "contains optimizer state; stripping it needs torch"
HF = "{model.safetensors,config.json,tokenizer.json,optimizer.pt,scheduler.pt,rng_state.pth,training_args.bin}"
STATE = "trainer_state.json"
PEFT = f"{{adapter_model.safetensors,adapter_config.json,README.md,optimizer.pt,training_args.bin,{STATE}}}"
BASE_MODEL = {"peft_type": "LORA", "base_model_name_or_path": "/models/base"}
SHARDS = tuple(f"model-{n:05}-of-00002.safetensors" for n in (1, 2))
ZERO = "{0,1}_mp_rank_00"
ZERO2 = f"{{bf16_zero_pp_rank_{ZERO}_optim_states.pt,mp_rank_00_model_states.pt}}"
ZERO3 = f"{{bf16_zero_pp_rank_{ZERO}_optim_states.pt,zero_pp_rank_{ZERO}_model_states.pt}}"
HF_ZERO3 = f"checkpoint-5/global_step5/{ZERO3} checkpoint-5/{{latest,zero_to_fp32.py,config.json,{STATE}}}"
FSDP = "{pytorch_model_fsdp_0,optimizer_0}/{__0_0.distcp,__1_0.distcp,.metadata}"
DIFFUSERS = "{pytorch_lora_weights.safetensors,optimizer.bin,scheduler.bin,scaler.pt}"
KOHYA = "style{-000002,-000004,}.safetensors style-{000002,000004}-state/{optimizer.bin,train_state.json} sample/a.png"
KOHYA_STEPS = {
    f"style{name}.safetensors": {"ss_steps": steps}
    for name, steps in (("-000002", "100"), ("-000004", "200"), ("", "300"))
}
AI = "dog_000000{500,999}.safetensors optimizer.pt learnable_snr.json config.yaml samples/1_0.jpg"
LIGHTNING = (
    "lightning_logs/version_2/checkpoints/{epoch=0-step=900,epoch=1-step=1800,last}.ckpt "
    "lightning_logs/version_10/checkpoints/{epoch=0-step=90,epoch=1-step=180-val_loss=0.31,last}.ckpt"
)
NEMO = (
    "2024-07-01_12-00-00/checkpoints/asr--wer=0.{30-epoch=1-step=100,20-epoch=2-step=200,20-epoch=2-step=200-last}.ckpt"
)
YOLO = "runs/detect/train10/{weights/{best,last,epoch5,epoch10}.pt,args.yaml,results.csv}"
COQUI = "{checkpoint_1000,checkpoint_10000,best_model_9000,best_model_800,best_model}.pth"
COQUI_BESIDE = "{config.json,speakers.pth,language_ids.json,trainer_0_log.txt}"
FAIRSEQ = "checkpoint{2,10,_10_5000,_best,_last}.pt dict.en.txt"
TENSORFLOW = "ckpt-{8,9,10}.{index,data-00000-of-00001} checkpoint"
TF_NEWEST = 'model_checkpoint_path: "/box/ckpt-9"\nall_model_checkpoint_paths: "/box/ckpt-8"\n'
SAVED_MODEL = "saved_model.pb variables/variables.{index,data-00000-of-00001}"


@dataclass
class Case:
    """A run, and what is found in it; ``rows`` as in `support.runs.rows`, ``files`` of inference as in `inferred`."""

    layout: str
    run: str
    rows: str
    contents: Mapping[str, object] = field(default_factory=dict)
    of: str = ""
    files: str = ""
    notes: tuple[str, ...] = ()


CASES = {
    "hf": Case(
        "hf-trainer",
        f"checkpoint-{{90,500,1000}}/{HF} checkpoint-{{90,500,1000}}/{STATE} "
        f"checkpoint-90/{{rng_state_0.pth,scaler.pt,mystery.xyz,modeling_own.py,chat_template.jinja,latest}} "
        f"checkpoint-90/global_step5/mp_rank_00_model_states.pt model.safetensors config.json",
        "checkpoint-90@90 checkpoint-500@500 checkpoint-1000@1000* final",
        {"checkpoint-90/latest": "global_step5"},
        of="checkpoint-90",
        files="chat_template.jinja config.json model.safetensors modeling_own.py tokenizer.json | "
        "global_step5/mp_rank_00_model_states.pt latest optimizer.pt rng_state.pth rng_state_0.pth scaler.pt "
        "scheduler.pt trainer_state.json training_args.bin | mystery.xyz",
    ),
    "hf: best and last by name": Case(
        "hf-trainer",
        f"checkpoint-{{5,best,last}}/{HF} checkpoint-5/{STATE}",
        "checkpoint-5@5 checkpoint-best+ checkpoint-last*",
    ),
    "hf: no state at all": Case("hf-trainer", f"checkpoint-{{5,10}}/{HF}", "checkpoint-5@5 checkpoint-10@10*"),
    "peft": Case(
        "peft",
        f"checkpoint-{{20,100}}/{PEFT} adapter_model.safetensors adapter_config.json",
        "checkpoint-20@20 checkpoint-100@100* final",
        {"checkpoint-20/adapter_config.json": BASE_MODEL},
        of="checkpoint-20",
        files="README.md adapter_config.json adapter_model.safetensors | optimizer.pt trainer_state.json "
        "training_args.bin | ",
    ),
    "diffusers": Case(
        "diffusers",
        f"checkpoint-{{500,1000,1500}}/{DIFFUSERS} checkpoint-{{500,1000}}/random_states_0.pkl "
        "pytorch_lora_weights.safetensors",
        "checkpoint-500@500 checkpoint-1000@1000* checkpoint-1500@1500! final",
        of="checkpoint-500",
        files="pytorch_lora_weights.safetensors | optimizer.bin random_states_0.pkl scaler.pt scheduler.bin | ",
    ),
    "a diffusers pipeline": Case(
        "diffusers",
        "model_index.json {unet,vae}/{config.json,diffusion_pytorch_model.safetensors} optimizer.bin "
        "scheduler/scheduler_config.json tokenizer/vocab.json",
        "final*",
        of="final",
        files="model_index.json scheduler/scheduler_config.json tokenizer/vocab.json unet/config.json "
        "unet/diffusion_pytorch_model.safetensors vae/config.json vae/diffusion_pytorch_model.safetensors | "
        "optimizer.bin | ",
    ),
    "diffusers: a torn checkpoint is no part of the finished pipeline": Case(
        "diffusers",
        "checkpoint-5/optimizer.bin model_index.json unet/diffusion_pytorch_model.safetensors",
        "checkpoint-5@5! final*",
        of="final",
        files="model_index.json unet/diffusion_pytorch_model.safetensors |  | ",
    ),
    "a pipeline in an HF Trainer's run": Case(
        "hf-trainer",
        f"checkpoint-5/{HF} checkpoint-5/{STATE} model_index.json unet/diffusion_pytorch_model.safetensors",
        "unet checkpoint-5@5*",
    ),
    "deepspeed: 'latest' names the latest": Case(
        "deepspeed",
        f"global_step{{90,100,110}}/{ZERO2}",
        "global_step90@90 global_step100@100* global_step110@110",
        {"latest": "global_step100\n"},
        of="global_step90",
        files="mp_rank_00_model_states.pt | bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt "
        "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt | ",
        notes=("mp_rank_00_model_states.pt is a pickle of the model and the training; reading it needs torch",),
    ),
    "one checkpoint of HF Trainer, DeepSpeed's state in it": Case(
        "hf-trainer",
        f"global_step90/{ZERO2} {HF} {STATE} latest zero_to_fp32.py",
        "final*",
        {"latest": "global_step90\n"},
        of="final",
        files="config.json model.safetensors tokenizer.json | "
        "global_step90/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt "
        "global_step90/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt global_step90/mp_rank_00_model_states.pt latest "
        "optimizer.pt rng_state.pth scheduler.pt trainer_state.json training_args.bin zero_to_fp32.py | ",
    ),
    "the same, with nothing but the shards": Case(
        "plain",
        f"global_step90/{ZERO3} {STATE} latest zero_to_fp32.py",
        "final*",
        {"latest": "global_step90"},
    ),
    "fsdp": Case(
        "fsdp",
        f"step_{{90,100}}/{FSDP} step_90/pytorch_model_fsdp.bin",
        "step_90@90 step_100@100*",
        of="step_90",
        files="pytorch_model_fsdp.bin | optimizer_0/.metadata optimizer_0/__0_0.distcp optimizer_0/__1_0.distcp "
        "pytorch_model_fsdp_0/.metadata pytorch_model_fsdp_0/__0_0.distcp pytorch_model_fsdp_0/__1_0.distcp | ",
    ),
    "kohya: the steps are the header's": Case(
        "kohya",
        KOHYA,
        "style-000002.safetensors@100 style-000004.safetensors@200 style.safetensors@300*",
        KOHYA_STEPS,
        of="style-000002.safetensors",
        files="style-000002.safetensors | style-000002-state/optimizer.bin style-000002-state/train_state.json | ",
    ),
    "kohya: a bare number of epochs does not compare with steps": Case(
        "kohya",
        "a-{000009,step00000100}.safetensors a-{000999,step00000095,000012}.ckpt a-000012-state/train_state.json",
        "a-000999.ckpt@e999 a-000009.safetensors@90 a-step00000095.ckpt@95 a-step00000100.safetensors@100 "
        "a-000012.ckpt@120",
        {
            "a-000009.safetensors": {"ss_steps": "90"},
            "a-step00000100.safetensors": {"ss_steps": "100"},
            "a-000012-state/train_state.json": {"current_step": 120},
        },
    ),
    "kohya: two formats of one step are one checkpoint": Case(
        "kohya",
        "a-{000002,000004}.{safetensors,ckpt}",
        "a-000002.ckpt@e2 a-000004.ckpt@e4*",
    ),
    "kohya: a run without a name": Case(
        "kohya",
        "{epoch-000001,at-step00000010,last}.safetensors",
        "epoch-000001.safetensors@e1 at-step00000010.safetensors@10 last.safetensors*",
    ),
    "kohya: a torn final, and a hostile count": Case(
        "kohya",
        KOHYA,
        "style-000002.safetensors@100 style-000004.safetensors@200* style.safetensors!",
        {**KOHYA_STEPS, "style-000004.safetensors": {"ss_steps": "200"}, "style.safetensors": 3},
    ),
    "named: a folder with the state of the training alone is no checkpoint": Case(
        "named",
        "epoch_{0,1}/model.safetensors recipe_state/recipe_state.pt state/training_state.pt",
        "epoch_0@e0 epoch_1@e1*",
    ),
    "ai-toolkit": Case(
        "ai-toolkit",
        f"{AI} dog.safetensors {{dog_LoRA_000001500,CRITIC_dog_000001500,dog_000001500_refiner}}.safetensors "
        "dog_000001500.safetensors",
        "dog_000000500.safetensors@500 dog_000000999.safetensors@999 dog_000001500.safetensors@1500 "
        "dog.safetensors@2000*",
        {"dog.safetensors": {"training_info": '{"step": 2000, "epoch": 2}'}},
        of="dog.safetensors",
        files="config.yaml dog.safetensors | learnable_snr.json optimizer.pt | ",
    ),
    "ai-toolkit: variants of one step, unfinished": Case(
        "ai-toolkit",
        f"{AI} {{dog_LoRA_000000999,CRITIC_dog_000000999,dog_000000999_refiner}}.safetensors",
        "dog_000000500.safetensors@500 dog_000000999.safetensors@999*",
        of="dog_000000999.safetensors",
        files="CRITIC_dog_000000999.safetensors config.yaml dog_000000999.safetensors "
        "dog_000000999_refiner.safetensors dog_LoRA_000000999.safetensors | learnable_snr.json optimizer.pt | ",
    ),
    "ai-toolkit: folders, with the state of the training beside them": Case(
        "ai-toolkit",
        "flux_00000000{1,2}/transformer/model.safetensors optimizer.pt",
        "flux_000000001@1 flux_000000002@2*",
        of="flux_000000002",
        files="transformer/model.safetensors |  | ",
    ),
    "ai-toolkit: folders": Case(
        "ai-toolkit",
        "flux_00000000{1,2}/transformer/model.safetensors",
        "flux_000000001@1 flux_000000002@2*",
        of="flux_000000001",
        files="transformer/model.safetensors |  | ",
    ),
    "lightning: of one name in two versions, the newest has it": Case(
        "lightning",
        LIGHTNING,
        "epoch=0-step=900.ckpt@900 epoch=1-step=1800.ckpt@1800 lightning_logs-version_2-checkpoints-last.ckpt "
        "epoch=0-step=90.ckpt@90 epoch=1-step=180-val_loss=0.31.ckpt@180 last.ckpt*",
        of="last.ckpt",
        files="last.ckpt |  | ",
        notes=(f"last.ckpt {INSIDE}",),
    ),
    "lightning: last-v10 is newer than last-v9": Case(
        "lightning",
        "epoch=0-step=90.ckpt last{,-v9,-v10}.ckpt",
        "epoch=0-step=90.ckpt@90 last.ckpt last-v9.ckpt last-v10.ckpt*",
    ),
    "lightning: without a last, the most steps": Case(
        "lightning",
        "epoch={0-step=90,1-step=100}.ckpt mp_rank_00_model_states.pt",  # the last is no folder of one of NeMo's ranks
        "epoch=0-step=90.ckpt@90 epoch=1-step=100.ckpt@100*",
    ),
    "nemo": Case(
        "nemo",
        f"{NEMO} 2024-07-01_12-00-00/checkpoints/asr.nemo",
        "asr--wer=0.30-epoch=1-step=100.ckpt@100 asr--wer=0.20-epoch=2-step=200.ckpt@200 "
        "asr--wer=0.20-epoch=2-step=200-last.ckpt@200* asr.nemo",
        of="asr.nemo",
        files="asr.nemo |  | ",
    ),
    "nemo: what is still being written": Case(
        "nemo",
        NEMO,
        "asr--wer=0.30-epoch=1-step=100.ckpt@100 asr--wer=0.20-epoch=2-step=200.ckpt@200* "
        "asr--wer=0.20-epoch=2-step=200-last.ckpt@200!",
        {"2024-07-01_12-00-00/checkpoints/asr--wer=0.20-epoch=2-step=200-last-unfinished": b""},
        of="asr--wer=0.30-epoch=1-step=100.ckpt",
        files="asr--wer=0.30-epoch=1-step=100.ckpt |  | ",
        notes=(f"asr--wer=0.30-epoch=1-step=100.ckpt {INSIDE}",),
    ),
    "nemo: every rank's part": Case(
        "nemo",
        "mp_rank_00/gpt-step={9,10}.ckpt mp_rank_01/gpt-step=9.ckpt",
        "gpt-step=9.ckpt@9* gpt-step=10.ckpt@10!",
        of="gpt-step=9.ckpt",
        files="mp_rank_00/gpt-step=9.ckpt mp_rank_01/gpt-step=9.ckpt |  | ",
        notes=(f"mp_rank_00/gpt-step=9.ckpt {INSIDE}", f"mp_rank_01/gpt-step=9.ckpt {INSIDE}"),
    ),
    "ultralytics: the only experiment": Case(
        "ultralytics",
        YOLO,
        "epoch5.pt@e5 epoch10.pt@e10 best.pt+ last.pt*",
        of="best.pt",
        files="args.yaml results.csv weights/best.pt |  | ",
        notes=(
            "weights/best.pt contains optimizer state unless the training came to its end; stripping it needs torch",
        ),
    ),
    "ultralytics: an empty last": Case(
        "ultralytics", "{best,last,epoch5}.pt", "epoch5.pt@e5* best.pt+ last.pt!", {"last.pt": b""}
    ),
    **{
        f"coqui in '{inner}'": Case(
            "coqui",
            f"{inner}{COQUI} {inner}{COQUI_BESIDE}",
            "best_model_800.pth@800 checkpoint_1000.pth@1000 best_model_9000.pth@9000+ checkpoint_10000.pth@10000* "
            "best_model.pth",
            of="best_model.pth",
            files="best_model.pth config.json language_ids.json speakers.pth |  | ",
            notes=(f"best_model.pth {INSIDE}",),
        )
        for inner in ("", "ljspeech-July-26-2024_12+34AM-abc/")
    },
    "fairseq": Case(
        "fairseq",
        FAIRSEQ,
        "checkpoint2.pt@e2 checkpoint_10_5000.pt@5000 checkpoint10.pt@e10 checkpoint_best.pt+ checkpoint_last.pt*",
        of="checkpoint_best.pt",
        files="checkpoint_best.pt dict.en.txt |  | ",
        notes=(f"checkpoint_best.pt {INSIDE}",),
    ),
    "fairseq: an epoch's end is newer than its updates": Case(
        "fairseq",
        FAIRSEQ,
        "checkpoint2.pt@e2 checkpoint_10_5000.pt@5000 checkpoint10.pt@e10* checkpoint_best.pt+",
        {"checkpoint_last.pt": None},
    ),
    "keras: a metric is no epoch": Case(
        "keras",
        "{model.09-0.34,model.10-0.9,best,epoch05-0.2}.keras",
        "epoch05-0.2.keras@e5 model.09-0.34.keras@e9 model.10-0.9.keras@e10* best.keras+",
        of="best.keras",
        files="best.keras |  | ",
        notes=("best.keras contains optimizer state; saving it again without needs Keras",),
    ),
    "keras: weights alone": Case(
        "keras",
        "unet.weights.h5",
        "unet.weights.h5*",
        of="unet.weights.h5",
        files="unet.weights.h5 |  | ",
        notes=("unet.weights.h5 is weights alone; the code that builds the model is needed",),
    ),
    "tensorflow: 'checkpoint' names the latest": Case(
        "tensorflow",
        TENSORFLOW,
        "ckpt-8@8 ckpt-9@9* ckpt-10@10",
        {"checkpoint": TF_NEWEST},
        of="ckpt-8",
        files="ckpt-8.data-00000-of-00001 ckpt-8.index |  | ",
        notes=("ckpt-8.index may hold the optimizer's variables too; the code that builds the model is needed",),
    ),
    "tensorflow: else the highest number is": Case(
        "tensorflow",
        TENSORFLOW,
        "ckpt-8@8 ckpt-9@9 ckpt-10@10*",
        {"checkpoint": b"\xff\x00model_checkpoint_path: garbage"},
    ),
    "a SavedModel": Case(
        "tensorflow",
        SAVED_MODEL,
        "final*",
        of="final",
        files="saved_model.pb variables/variables.data-00000-of-00001 variables/variables.index |  | ",
        notes=(
            "variables/variables.index may hold the optimizer's variables too; "
            "the code that builds the model is needed",
        ),
    ),
    "SavedModels in numbered folders": Case("tensorflow", "{9,10}/saved_model.pb", "9@9 10@10*"),
    **{
        f"plain {name}": Case(
            "plain",
            f"{name} notes.xyz",
            "final*",
            of="final",
            files=f"{name} |  | notes.xyz",
            notes=(f"{name} may contain optimizer state; stripping it needs torch",)
            if name.endswith((".pt", ".pth"))
            else (),
        )
        for name in ("a.gguf", "a.onnx", "a.pt", "a.h5", "sub/deep/b.pth", "x.bin")
    },
    "nothing like weights": Case("plain", "train.log", ""),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_layouts(tmp_path: Path, case: Case) -> None:
    """The rows are in the order of their numbers, whatever their times; the inference files are those needed."""
    write(tmp_path, case.run, case.contents)
    scanned(tmp_path)
    run = find_run(tmp_path)
    assert (run.layout, rows(Found(run.checkpoints))) == (case.layout, case.rows)
    if case.of:
        files, names = inferred(tmp_path, case.of)
        assert (names, files.notes) == (case.files, case.notes)


HF_RUN = f"checkpoint-5/{HF} checkpoint-5/{STATE}"
INDEX = "checkpoint-5/model.safetensors.index.json"
INCOMPLETE = {
    "no state, though another has one": (
        f"{HF_RUN} checkpoint-9/{HF}",
        {},
        "checkpoint-9",
        "trainer_state.json, which is written last, is missing",
    ),
    "a lost shard": (
        f"{HF_RUN} checkpoint-5/{SHARDS[0]}",
        {INDEX: index_of(*SHARDS)},
        "checkpoint-5",
        "shard model-00002-of-00002.safetensors of the index is missing",
    ),
    "a shard in another folder": (
        f"{HF_RUN} secret.safetensors",
        {INDEX: {"weight_map": {"a": "../secret.safetensors"}}},
        "checkpoint-5",
        "shard ../secret.safetensors of the index is missing",
    ),
    "a lost index": (
        f"{HF_RUN} checkpoint-5/{SHARDS[0]}",
        {},
        "checkpoint-5",
        "the index of model-00001-of-00002.safetensors is missing",
    ),
    **{
        f"index {index}": (HF_RUN, {INDEX: index}, "checkpoint-5", "model.safetensors.index.json cannot be read")
        for index in ("{", "[]", '{"weight_map": 5}', '{"weight_map": {}}')
    },
    "an index of hostile names": (HF_RUN, {INDEX: {"weight_map": {"a": [1]}}}, "checkpoint-5", "shard [1] of the"),
    "a short file": (HF_RUN, {"checkpoint-5/model.safetensors": 5}, "checkpoint-5", "its header says"),
    "an empty file": (
        HF_RUN,
        {"checkpoint-5/model.safetensors": b""},
        "checkpoint-5",
        "model.safetensors is empty",
    ),
    "a file still being written": (
        f"{HF_RUN} checkpoint-5/model.safetensors.tmp",
        {},
        "checkpoint-5",
        "model.safetensors.tmp was still being written",
    ),
    "a staging folder": (f"tmp-checkpoint-7/{HF}", {}, "tmp-checkpoint-7", "staging"),
    "no weights": (HF_RUN, {"checkpoint-5/model.safetensors": None}, "checkpoint-5", "it holds no weights"),
    "DeepSpeed's folder is gone": (
        HF_ZERO3,
        {"checkpoint-5/latest": "global_step6"},
        "checkpoint-5",
        "global_step6, which 'latest' names, is missing",
    ),
    "FSDP's last file": (
        f"checkpoint-5/{FSDP}",
        {"checkpoint-5/pytorch_model_fsdp_0/.metadata": None},
        "checkpoint-5",
        "pytorch_model_fsdp_0/.metadata, which is written last, is missing",
    ),
    "no random states": (
        f"checkpoint-{{5,9}}/{DIFFUSERS} checkpoint-5/random_states_0.pkl",
        {},
        "checkpoint-9",
        "random_states_*.pkl, which is written last, is missing",
    ),
    "only optimizer states": (
        "global_step5/zero_pp_rank_0_mp_rank_00_optim_states.pt",
        {},
        "global_step5",
        "it holds no weights",
    ),
    "a short file of no trainer": ("weights/a.safetensors", {"weights/a.safetensors": 1}, "final", "its header says"),
    "a lost shard of no trainer": (
        "w-00002-of-00002.safetensors",
        {"w.safetensors.index.json": index_of("w-00001-of-00002.safetensors", "w-00002-of-00002.safetensors")},
        "final",
        "shard w-00001-of-00002.safetensors of the index is missing",
    ),
    "a part of a split file": ("q-0000{1,3}-of-00003.gguf", {}, "final", "q-00002-of-00003.gguf is missing"),
    "TensorFlow's index": (TENSORFLOW, {"ckpt-10.index": None}, "ckpt-10", "ckpt-10.index is missing"),
    "a part of a SavedModel": (
        "saved_model.pb variables/variables.{index,data-00000-of-00002}",
        {},
        "final",
        "variables.data-00001-of-00002 is missing",
    ),
    "a rank's part": (
        "mp_rank_00/gpt-step={9,10}.ckpt mp_rank_01/gpt-step=9.ckpt",
        {},
        "gpt-step=10.ckpt",
        "the part of mp_rank_01 is missing",
    ),
    "NeMo's mark": (
        "a-step=5-last.ckpt a-step=5-last-unfinished",
        {},
        "a-step=5-last.ckpt",
        "a-step=5-last-unfinished says that it was still being written",
    ),
}


@pytest.mark.parametrize(("run", "contents", "name", "why"), INCOMPLETE.values(), ids=INCOMPLETE)
def test_incomplete(tmp_path: Path, run: str, contents: dict[str, object], name: str, why: str) -> None:
    """A half-written checkpoint is incomplete, is not the latest, and says why."""
    seen = row(found(write(tmp_path, run, contents)), name)
    assert not seen.complete
    assert not seen.latest
    assert why in seen.note


def test_a_copy_of_the_best_model_is_noted(tmp_path: Path) -> None:
    """A row says what its number does not."""
    assert (
        row(found(write(tmp_path, "best_model.pth config.json")), "best_model.pth").note == "a copy of the best model"
    )


REFUSED = {
    "a lost shard": (f"{HF_RUN} checkpoint-5/{SHARDS[0]}", {INDEX: index_of(*SHARDS)}, SHARDS[1], "another checkpoint"),
    "ZeRO-3 of HF Trainer": (HF_ZERO3, {}, "only DeepSpeed", "run `python zero_to_fp32.py . .` in it first"),
    "ZeRO-3": (f"global_step5/{ZERO3}", {}, "only DeepSpeed", "zero_to_fp32.py . .` in the folder above it first"),
    "ZeRO-3 of Lightning": (f"a-step=5.ckpt/checkpoint/{ZERO3}", {}, "only DeepSpeed", "zero_to_fp32.py . .` in it"),
    "FSDP of HF Trainer": (f"checkpoint-5/{FSDP}", {}, "only weights sharded by FSDP", "accelerate merge-weights"),
    "FSDP": (f"step_5/{FSDP}", {}, "only weights sharded by FSDP", "accelerate merge-weights"),
    "FSDP, the parts of every rank": (
        "pytorch_model_fsdp_rank{0,1}.bin optimizer.bin",
        {},
        "only weights sharded by FSDP",
        "accelerate merge-weights",
    ),
    "FSDP of Lightning": ("a-step=5.ckpt/{__0_0.distcp,.metadata,meta.pt}", {}, "FSDP", "consolidate_checkpoint"),
    "torch's distributed checkpoint": (
        "step_5/{weights,optimizer}/{__0_0.distcp,.metadata} step_5/train_dataloader.pt",
        {},
        "only a distributed checkpoint of torch",
        "format_utils dcp_to_torch",
    ),
    "verl": (
        "global_step_5/{actor/{model,optim}_world_size_1_rank_0.pt,actor/huggingface/config.json,data.pt}",
        {},
        "only weights sharded by FSDP",
        "verl.model_merger",
    ),
    "only the state": (HF_RUN, {"checkpoint-5/model.safetensors": None}, "nothing that can be loaded", "without"),
    "optimizers": ("{optimizer,scheduler}.pt", {}, "nothing that can be loaded", "pack it without --inference-only"),
}


@pytest.mark.parametrize(("run", "contents", "why", "hint"), REFUSED.values(), ids=REFUSED)
def test_inference_is_refused(tmp_path: Path, run: str, contents: dict[str, object], why: str, hint: str) -> None:
    """What cannot be loaded is refused with 3, naming what is missing, or the tool that merges the shards."""
    [only] = found(write(tmp_path, run, contents)).checkpoints
    is_sharded = why.startswith(("only", "FSDP"))  # which is complete to resume from
    assert (only.complete, only.latest) == (is_sharded, is_sharded)
    with pytest.raises(NotFound, match=why) as caught:
        inferred(tmp_path, only.name)
    assert (caught.value.exit_code, hint in (caught.value.hint or "")) == (3, True)


def test_a_marker_is_no_weights(tmp_path: Path) -> None:
    """A pipeline of settings alone is not packed for inference."""
    write(tmp_path, "model_index.json {unet,vae}/config.json")
    with pytest.raises(NotFound, match="nothing that can be loaded"):
        inferred(tmp_path, "final")


def test_gathered_weights_beside_shards_are_enough(tmp_path: Path) -> None:
    """With ZeRO-3's shards merged into one file, inference keeps that."""
    write(tmp_path, f"{HF_ZERO3} checkpoint-5/model.safetensors")
    assert inferred(tmp_path, "checkpoint-5")[1].startswith("config.json model.safetensors | global_step5/")


# HF Trainer's own records


@pytest.mark.parametrize(
    "record",
    [
        {"best_global_step": 3},
        *(
            {"best_model_checkpoint": path}
            for path in ("/root/out/checkpoint-3", "C:\\out\\checkpoint-3\\", "../../checkpoint-3/")
        ),
    ],
    ids=str,
)
def test_best_is_what_the_newest_state_records(tmp_path: Path, record: object) -> None:
    """Of the path on the training's own machine, perhaps Windows', that an older Trainer records, the last name
    counts."""
    write(tmp_path, f"checkpoint-{{3,5}}/{HF}", {f"checkpoint-5/{STATE}": record})
    write(tmp_path, "", {f"checkpoint-3/{STATE}": {"best_global_step": 5}})  # that of an older one does not
    assert rows(found(tmp_path)) == "checkpoint-3@3+ checkpoint-5@5*"


@pytest.mark.parametrize(
    "state",
    [
        *("", "{", "null", "[]", "7", '"text"', "\x00", "[" * 100_000, '{"best_model_checkpoint": 1e999}'),
        *({"best_model_checkpoint": ["checkpoint-5"]}, {"best_model_checkpoint": {}}, {"best_global_step": True}),
        {"best_model_checkpoint": "/"},
        *({"best_global_step": -5}, {"best_global_step": 5.5}, {"best_global_step": {"a": 1}}),
        *({"best_model_checkpoint": "x" * 100_000}, '{"best_global_step": ' + "9" * 5000 + "}"),
    ],
    ids=lambda state: str(state)[:40],
)
def test_hostile_state_records_nothing(tmp_path: Path, state: object) -> None:
    """Whatever a state file holds, the rows stand, and none is the best."""
    seen = found(write(tmp_path, f"checkpoint-5/{HF}", {f"checkpoint-5/{STATE}": state}))
    assert (rows(seen), seen.best_note) == ("checkpoint-5@5*", "none is recorded")


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"best_global_step": 3}, "checkpoint-3"),
        ({"best_model_checkpoint": ".."}, ".."),
        ({"best_model_checkpoint": "../checkpoint-5/.."}, ".."),
        ({"best_model_checkpoint": "/etc/passwd"}, "passwd"),
        ({"best_model_checkpoint": "a\nb"}, "a\nb"),
    ],
)
def test_a_best_that_is_not_there(tmp_path: Path, record: object, name: str) -> None:
    """If the recorded best was deleted, or is no checkpoint of the run, none is the best, and the note says so."""
    seen = found(write(tmp_path, f"checkpoint-5/{HF}", {f"checkpoint-5/{STATE}": record}))
    note = f"{name} is recorded as best and does not exist any more"
    assert (rows(seen), seen.best_note) == ("checkpoint-5@5*", note)


def test_each_row_has_its_own_files(tmp_path: Path) -> None:
    """A checkpoint has what is in its folder, axolotl's merged model what is in its, the final model all else."""
    write(tmp_path, f"{HF_RUN} {{,merged/}}{{model.safetensors,config.json}} runs/events.out.tfevents.1")
    seen = found(tmp_path)
    assert rows(seen) == "checkpoint-5@5* merged final"
    paths = {one.name: {entry.path for entry in one.files} for one in seen.checkpoints}
    assert paths["checkpoint-5"] == {str(file.relative_to(tmp_path)) for file in tmp_path.glob("checkpoint-5/*")}
    assert paths["merged"] == {"merged/config.json", "merged/model.safetensors"}
    assert paths["final"] == {"config.json", "model.safetensors", "runs/events.out.tfevents.1"}
    inner = row(seen, "checkpoint-5")
    assert (inner.base, inner.bytes) == ("checkpoint-5", sum(f.stat().st_size for f in tmp_path.glob("checkpoint-5/*")))


def test_final_is_latest_if_no_numbered_one_is_complete(tmp_path: Path) -> None:
    """A finished model alone is the latest, also in an inner folder, and so it is beside torn checkpoints."""
    inner = found(write(tmp_path, "model/{model.safetensors,config.json}"), "model")
    assert (rows(inner), row(inner, "final").base, rows(found(tmp_path, "none"))) == ("final*", "model", "")
    write(tmp_path / "run", f"{HF_RUN} model.safetensors", {"checkpoint-5/model.safetensors": 1})
    assert rows(found(tmp_path / "run")) == "checkpoint-5@5! final*"


def test_links(tmp_path: Path) -> None:
    """A dangling link is no weights; a link to a checkpoint has its step."""
    write(tmp_path, HF_RUN, {"checkpoint-5/model.safetensors": None})
    os.symlink("nowhere", tmp_path / "checkpoint-5" / "model.safetensors")
    seen = row(found(tmp_path), "checkpoint-5")
    assert seen.note == "model.safetensors: a dangling link"
    assert "special" in {entry.kind for entry in seen.entries}
    write(tmp_path / "pl", "epoch=1-step=100.ckpt")
    os.symlink("epoch=1-step=100.ckpt", tmp_path / "pl" / "last.ckpt")
    assert rows(found(tmp_path / "pl")) == "epoch=1-step=100.ckpt@100 last.ckpt@100*"


# Hostile contents of other layouts


@pytest.mark.parametrize("config", ["{}", "[1]", '{"base_model_name_or_path": 5}', "{"])
def test_hostile_adapter_config(tmp_path: Path, config: str) -> None:
    """An adapter's configuration may hold anything and still be packed."""
    write(tmp_path, f"checkpoint-5/{PEFT}", {"checkpoint-5/adapter_config.json": config})
    assert "adapter_model.safetensors" in inferred(tmp_path, "checkpoint-5")[1].partition("|")[0]


@pytest.mark.parametrize("tag", ["", "global_step7", "../..", "\x00\xff", "x" * 5000])
def test_deepspeed_hostile_tag(tmp_path: Path, tag: str) -> None:
    """A tag that names nothing leaves the highest number the latest."""
    assert latest(found(write(tmp_path, f"global_step{{90,100}}/{ZERO2}", {"latest": tag}))) == "global_step100"


def test_deepspeed_newer_than_latest(tmp_path: Path) -> None:
    """A checkpoint that is newer than the one which ``latest`` names is doubted."""
    seen = found(write(tmp_path, f"global_step{{90,100}}/{ZERO2}", {"latest": "global_step90"}))
    assert [one.note for one in seen.checkpoints] == [
        *("", "newer than the one 'latest' names, so perhaps not finished")
    ]


def test_ai_toolkit_optimizer(tmp_path: Path) -> None:
    """The one file of the optimizer belongs to the newest checkpoint."""
    seen = found(write(tmp_path, AI)).checkpoints
    assert [one.name for one in seen for entry in one.files if entry.path == "optimizer.pt"] == [
        "dog_000000999.safetensors"
    ]


@pytest.mark.parametrize("info", ["{", "[]", '{"step": "x"}', "5", "[" * 50_000])
def test_ai_toolkit_hostile_header(tmp_path: Path, info: str) -> None:
    """A header may hold anything: the file is a row without a step."""
    seen = found(write(tmp_path, "", {"a.safetensors": {"training_info": info}}))
    assert (seen.layout, rows(seen)) == ("ai-toolkit", "a.safetensors*")


# A run's inner folders


SAVED = "{model.safetensors,config.json}"
STATES = "{optimizer.bin,scheduler.bin,random_states_0.pkl}"
BY_NAME: dict[str, tuple[str, str, str]] = {
    "folders": (f"{{epoch_9,epoch_10,best_model}}/{SAVED} train.log", "named", "epoch_9@e9 epoch_10@e10* best_model+"),
    "folders in checkpoints": (f"checkpoints/{{epoch_9,best_model}}/{SAVED}", "named", "epoch_9@e9* best_model+"),
    "folders in model": (f"model/{{step-90,step-100,last}}/{SAVED}", "named", "step-90@90 step-100@100 last*"),
    "accelerate's, and the finished model": (
        f"epoch_{{0,1}}/model.safetensors epoch_{{0,1}}/{STATES} {SAVED}",
        "hf-trainer",
        "epoch_0@e0 epoch_1@e1* final",
    ),
    "files": (
        "{epoch_1,epoch_10,best_model,latest}.pth",
        "named",
        "epoch_1.pth@e1 epoch_10.pth@e10 best_model.pth+ latest.pth*",
    ),
    "an epoch says more than a step": (
        f"checkpoint_a_epoch_{{9_step_1000,10_step_990}}/{SAVED}",
        "named",
        "checkpoint_a_epoch_9_step_1000@1000 checkpoint_a_epoch_10_step_990@990*",
    ),
    "model_0001999": (
        "model_000{1,3}999.pth model_final.pth",
        "named",
        "model_0001999.pth@1999 model_0003999.pth@3999 model_final.pth*",
    ),
    "beside a trainer's own": (
        f"{HF_RUN} best_model/{SAVED} {SAVED}",
        "hf-trainer",
        "best_model+ checkpoint-5@5* final",
    ),
    "any folder, if a trainer is known": (f"{HF_RUN} swa/{SAVED}", "hf-trainer", "swa checkpoint-5@5*"),
    "any folder, if none is": ("exp1/a.pt exp2/b.pt notes/c.txt", "plain", "exp1 exp2"),
    "a file alone": ("best_model.pth", "named", "best_model.pth*+"),
    "one part of a model": ("encoder.pt best_head.pt", "plain", "best_head.pt encoder.pt"),
    "shards are no steps": (
        "{step,epoch}-0000{1,2}-of-00002.gguf",
        "plain",
        "epoch-00001-of-00002.gguf step-00001-of-00002.gguf",
    ),
    "no weights": ("{epoch_1,best_model}/plot.png", "plain", ""),
    "Lightning's own choice of a name": (
        "checkpoints/{best_model,last}.ckpt",
        "lightning",
        "best_model.ckpt+ last.ckpt*",
    ),
    "a torn best": (
        f"epoch_1/{SAVED} best_model/{{model.safetensors.tmp,model.bin}}",
        "named",
        "epoch_1@e1* best_model!",
    ),
}


@pytest.mark.parametrize(("files", "layout", "seen"), BY_NAME.values(), ids=BY_NAME)
def test_checkpoints_by_their_names(tmp_path: Path, files: str, layout: str, seen: str) -> None:
    """``best_model``, ``epoch_10`` and the like are rows though no trainer is known that calls them so, and so are
    folders that hold weights; each can be chosen by its name. The number orders them; what a trainer recorded wins."""
    run = find_run(write(tmp_path, files))
    assert (run.layout, rows(Found(run.checkpoints))) == (layout, seen)
    for one in run.checkpoints:
        assert run.checkpoint(one.name) == one


def test_any_folder_with_weights_names_a_checkpoint(tmp_path: Path) -> None:
    """A folder that holds weights can be chosen, also one deeper in it; a log cannot."""
    write(tmp_path, f"a/deep/x.bin logs/train.log {SAVED}")
    run = find_run(tmp_path)
    assert run.checkpoint("a").base == "a"
    with pytest.raises(NotFound, match="no checkpoint logs"):
        run.checkpoint("logs")
    write(tmp_path / "hf", HF_RUN)
    assert find_run(tmp_path / "hf").checkpoint("5").name == "checkpoint-5"


def test_a_named_folder_is_packed_as_what_is_in_it(tmp_path: Path) -> None:
    """For inference a folder's own contents decide what is needed, and what is to be said of it. What is beside it is
    no part of it, and it is no part of the finished model."""
    files = f"best_model/{PEFT} epoch_1/model.safetensors epoch_1/{STATES} {SAVED}"
    run = find_run(write(tmp_path, files, {"best_model/adapter_config.json": BASE_MODEL}))
    adapter, epoch, final = (run.checkpoint(name) for name in ("best_model", "epoch_1", "final"))
    inference = inference_files(run.tree, adapter)
    assert [adapter.relative(one) for one in inference.keep] == [
        *("README.md", "adapter_config.json", "adapter_model.safetensors")
    ]
    assert [epoch.relative(one) for one in inference_files(run.tree, epoch).keep] == ["model.safetensors"]
    assert {entry.path for entry in final.entries} == {"config.json", "model.safetensors"}


def test_a_folder_called_like_weights_is_no_checkpoint(tmp_path: Path) -> None:
    """Only files hold weights: neither a folder in one with a checkpoint's name, nor such a folder itself."""
    for folder in ("best/w.bin", "last.pt", "epoch_1/model.safetensors"):
        (tmp_path / folder).mkdir(parents=True)
    write(tmp_path, "zz.bin")
    assert rows(Found(find_run(tmp_path).checkpoints)) == "final*"


def test_a_best_that_the_trainer_recorded_wins(tmp_path: Path) -> None:
    """A folder called best_model is the best only if the trainer recorded none: not if that one is there or gone."""
    write(tmp_path, f"checkpoint-{{3,5}}/{HF} best_model/{SAVED}", {f"checkpoint-5/{STATE}": {"best_global_step": 3}})
    write(tmp_path, "", {f"checkpoint-3/{STATE}": {}})
    assert rows(Found(find_run(tmp_path).checkpoints)) == "best_model checkpoint-3@3+ checkpoint-5@5*"
    write(tmp_path, "", {f"checkpoint-5/{STATE}": {"best_global_step": 2}})
    run = find_run(tmp_path)
    assert not any(one.best for one in run.checkpoints)
    with pytest.raises(NotFound, match="checkpoint-2 is recorded as best and does not exist any more"):
        run.checkpoint("best")


def test_checkpoints_in_a_folder_of_that_name(tmp_path: Path) -> None:
    """The folders ``checkpoints`` and ``model`` are looked into, whatever the trainer."""
    put(tmp_path / "checkpoints" / "unet.05.keras")
    put(tmp_path / "model" / "model.safetensors", {})
    put(tmp_path / "model" / "config.json")
    run = find_run(tmp_path)
    assert (run.layout, [one.name for one in run.checkpoints]) == ("keras", ["unet.05.keras", "final"])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("checkpoint_{100,200,best}.pt", "checkpoint_100.pt@100 checkpoint_200.pt@200* checkpoint_best.pt+"),
        ("checkpoint_{1000,2000}.pt best.pt", "checkpoint_1000.pt@1000 checkpoint_2000.pt@2000* best.pt+"),
        ("checkpoint_{1000,2000,final}.pt", "checkpoint_1000.pt@1000 checkpoint_2000.pt@2000 checkpoint_final.pt*"),
        ("epoch_{1,2}.pt features_last.h5", "epoch_1.pt@e1 epoch_2.pt@e2 features_last.h5*"),
        ("model_{best,last}.pt", "model_best.pt+ model_last.pt*"),
    ],
)
def test_a_layout_hides_no_checkpoint(tmp_path: Path, names: str, expected: str) -> None:
    """Names that fit a trainer only in part, as those of a script: the best is not the latest, and each can be
    chosen."""
    run = write(tmp_path / "run", names)
    assert rows(found(run)) == expected
    for file in run.iterdir():
        assert find_run(run).checkpoint(file.name).name == file.name


@pytest.mark.parametrize("step", ["010000", "020000"])
def test_a_link_to_a_checkpoint_is_no_second_one(tmp_path: Path, step: str) -> None:
    """A step names its checkpoint, though a link beside it leads there too."""
    files = "{pretrained_model/{config.json,model.safetensors},training_state/training_step.json}"
    run = write(tmp_path / "run", f"checkpoints/{{010000,020000}}/{files}")
    (run / "checkpoints" / "last").symlink_to(step)
    assert find_run(run).checkpoint(str(int(step))).name == step
    epoch = write(tmp_path / "lightning", "epoch=1-step=100.ckpt epoch=2-step=200.ckpt")
    (epoch / "last.ckpt").symlink_to("epoch=2-step=200.ckpt")
    assert find_run(epoch).checkpoint("200").name == "epoch=2-step=200.ckpt"
