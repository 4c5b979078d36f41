"""Small runs of every layout, written as the trainers really write them; nothing here needs torch."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mdl.trainers import inference_files, recognise
from mdl.trainers.layout import InferenceFiles
from mdl.trainers.runs import Checkpoint, Found
from mdl.trainers.tree import Tree

PICKLE = b"PK\x03\x04 not really a pickle"


def safetensors(file: Path, size: int = 16, missing: int = 0, **metadata: str) -> Path:
    """One F32 tensor of ``size`` bytes, the last ``missing`` of them never written."""
    table: dict[str, object] = {"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    if metadata:
        table["__metadata__"] = metadata
    header = json.dumps(table).encode()
    return put(file, len(header).to_bytes(8, "little") + header + b"\1" * (size - missing))


def put(file: Path, content: bytes | str | dict[str, object] = PICKLE) -> Path:
    """A file with its folders; a dict becomes JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict):
        content = json.dumps(content)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def pickles(folder: Path, *names: str) -> Path:
    for name in names:
        put(folder / name)
    return folder


def sharded(folder: Path, shards: int = 2, stem: str = "model") -> None:
    """Weights over several files, and the index that names them."""
    names = [f"{stem}-{n:05}-of-{shards:05}.safetensors" for n in range(1, shards + 1)]
    for name in names:
        safetensors(folder / name)
    table: dict[str, object] = {
        "metadata": {"total_size": 16 * shards},
        "weight_map": dict(zip("abcdefgh", names, strict=False)),
    }
    put(folder / f"{stem}.safetensors.index.json", table)


def hf_checkpoint(run: Path, step: int, *, best: int | None = None, name: str = "", state: bool = True) -> Path:
    """What ``Trainer._save_checkpoint`` leaves, the state last."""
    folder = run / (name or f"checkpoint-{step}")
    safetensors(folder / "model.safetensors")
    put(folder / "config.json", {"model_type": "bert"})
    put(folder / "tokenizer.json", {"version": "1.0"})
    pickles(folder, "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin")
    if state:
        record = {
            "global_step": step,
            "best_global_step": best,
            "best_model_checkpoint": f"/box/out/checkpoint-{best}" if best else None,
            "log_history": [],
        }
        put(folder / "trainer_state.json", record)
    return folder


def hf_model(folder: Path) -> None:
    """The finished model as ``save_model`` writes it."""
    safetensors(folder / "model.safetensors")
    put(folder / "config.json", {"model_type": "bert"})
    put(folder / "tokenizer.json", {"version": "1.0"})
    put(folder / "training_args.bin")


def peft_checkpoint(run: Path, step: int, base_model: str = "org/base") -> Path:
    folder = run / f"checkpoint-{step}"
    adapter(folder, base_model)
    pickles(folder, "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin")
    put(folder / "trainer_state.json", {"global_step": step})
    return folder


def adapter(folder: Path, base_model: str = "org/base") -> None:
    safetensors(folder / "adapter_model.safetensors")
    put(folder / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": base_model})
    put(folder / "README.md", "# LoRA")


def zero3_checkpoint(run: Path, step: int) -> Path:
    """DeepSpeed ZeRO-3 below HF Trainer, its weights never gathered."""
    folder = run / f"checkpoint-{step}"
    zero_states(folder / f"global_step{step}", stage=3)
    put(folder / "latest", f"global_step{step}")
    put(folder / "zero_to_fp32.py", "#!/usr/bin/env python")
    put(folder / "config.json", {"model_type": "llama"})
    pickles(folder, "scheduler.pt", "rng_state_0.pth", "training_args.bin")
    put(folder / "trainer_state.json", {"global_step": step})
    return folder


def zero_states(folder: Path, stage: int) -> None:
    for rank in range(2):
        put(folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        if stage == 3:
            put(folder / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
    if stage < 3:
        put(folder / "mp_rank_00_model_states.pt")


def fsdp_shards(folder: Path) -> None:
    """What accelerate leaves of a sharded state dict."""
    for part in ("pytorch_model_fsdp_0", "optimizer_0"):
        pickles(folder / part, "__0_0.distcp", "__1_0.distcp", ".metadata")


def diffusers_checkpoint(run: Path, step: int, *, cut_short: bool = False) -> Path:
    folder = run / f"checkpoint-{step}"
    safetensors(folder / "pytorch_lora_weights.safetensors")
    pickles(folder, "optimizer.bin", "scheduler.bin", "scaler.pt")
    if not cut_short:
        put(folder / "random_states_0.pkl")
    return folder


def pipeline(folder: Path) -> None:
    put(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    for part in ("unet", "vae"):
        put(folder / part / "config.json", {"_class_name": part})
        safetensors(folder / part / "diffusion_pytorch_model.safetensors")
    put(folder / "scheduler" / "scheduler_config.json", {})
    put(folder / "tokenizer" / "vocab.json", {})


def kohya_run(run: Path, name: str = "style") -> None:
    """Every two epochs of 50 steps, a state each, finished after the sixth."""
    for epoch, steps in ((2, 100), (4, 200)):
        safetensors(run / f"{name}-{epoch:06}.safetensors", ss_steps=str(steps), ss_network_module="networks.lora")
        put(run / f"{name}-{epoch:06}-state" / "train_state.json", {"current_epoch": epoch, "current_step": steps})
        put(run / f"{name}-{epoch:06}-state" / "optimizer.bin")
    safetensors(run / f"{name}.safetensors", ss_steps="300", ss_network_module="networks.lora")
    put(run / "sample" / "style_000100.png", b"png")


def ai_toolkit_run(run: Path, name: str = "dog", *, finished: bool = True) -> None:
    for step in (500, 1000, 1500):
        safetensors(run / f"{name}_{step:09}.safetensors", training_info=json.dumps({"step": step, "epoch": 1}))
    if finished:
        safetensors(run / f"{name}.safetensors", training_info=json.dumps({"step": 2000, "epoch": 2}))
    put(run / "optimizer.pt")
    put(run / "learnable_snr.json", {})
    put(run / "config.yaml", "job: extension")
    put(run / "samples" / "1__000000500_0.jpg", b"jpg")


def lightning_run(run: Path) -> None:
    """Two versions; the second has the higher number and the fewer steps."""
    logs = run / "lightning_logs"
    pickles(logs / "version_2" / "checkpoints", "epoch=0-step=900.ckpt", "epoch=1-step=1800.ckpt", "last.ckpt")
    pickles(logs / "version_10" / "checkpoints", "epoch=0-step=90.ckpt", "epoch=1-step=180-val_loss=0.31.ckpt")
    put(logs / "version_10" / "checkpoints" / "last.ckpt")
    put(logs / "version_10" / "hparams.yaml", "lr: 0.1")


def nemo_run(run: Path) -> None:
    checkpoints = run / "2024-07-01_12-00-00" / "checkpoints"
    pickles(checkpoints, "asr--val_wer=0.30-epoch=1-step=100.ckpt", "asr--val_wer=0.20-epoch=2-step=200.ckpt")
    pickles(checkpoints, "asr--val_wer=0.20-epoch=2-step=200-last.ckpt", "asr.nemo")


def ultralytics_run(run: Path, *experiments: str) -> None:
    for name in experiments or ("train",):
        folder = run / "runs" / "detect" / name
        pickles(folder / "weights", "best.pt", "last.pt", "epoch5.pt", "epoch10.pt")
        put(folder / "args.yaml", "task: detect")
        put(folder / "results.csv", "epoch,loss")


def coqui_run(run: Path) -> None:
    pickles(run, "checkpoint_1000.pth", "checkpoint_10000.pth", "best_model_9000.pth", "best_model_800.pth")
    pickles(run, "best_model.pth", "speakers.pth")
    put(run / "config.json", {"model": "vits"})
    put(run / "language_ids.json", {})
    put(run / "trainer_0_log.txt", "log")


def fairseq_run(run: Path) -> None:
    pickles(
        run, "checkpoint2.pt", "checkpoint10.pt", "checkpoint_10_5000.pt", "checkpoint_best.pt", "checkpoint_last.pt"
    )
    put(run / "dict.en.txt", "the 1")


def tensorflow_run(run: Path, newest: str = "ckpt-9") -> None:
    for step in (8, 9, 10):
        pickles(run, f"ckpt-{step}.index", f"ckpt-{step}.data-00000-of-00001")
    put(run / "checkpoint", f'model_checkpoint_path: "/box/{newest}"\nall_model_checkpoint_paths: "/box/ckpt-8"\n')


def saved_model(folder: Path) -> None:
    put(folder / "saved_model.pb")
    pickles(folder / "variables", "variables.index", "variables.data-00000-of-00001")


def seen(run: Path) -> Tree:
    """The run looked at, every file's time set against the order of the names: the last of them is the oldest."""
    run.mkdir(exist_ok=True)
    for age, file in enumerate(sorted(file for file in run.rglob("*") if file.is_file())):
        os.utime(file, (2_000_000_000 - age * 1000,) * 2)
    return Tree.scan(run)


def found(run: Path, base: str = "") -> Found:
    return recognise(seen(run), base)


def names(found: Found) -> list[str]:
    return [row.name for row in found.checkpoints]


def latest(found: Found) -> str | None:
    marked = [row.name for row in found.checkpoints if row.latest]
    assert len(marked) <= 1
    return marked[0] if marked else None


def best(found: Found) -> str | None:
    marked = [row.name for row in found.checkpoints if row.best]
    assert len(marked) <= 1
    return marked[0] if marked else None


def row(found: Found, name: str) -> Checkpoint:
    return next(one for one in found.checkpoints if one.name == name)


def inferred(run: Path, name: str) -> tuple[InferenceFiles, list[str], list[str], list[str]]:
    """What inference needs of a checkpoint, and the names kept, dropped and unknown, below its base."""
    tree = seen(run)
    whole = recognise(tree)
    checkpoint = row(whole, name)
    sifted = inference_files(tree, checkpoint)
    start = len(checkpoint.base) + 1 if checkpoint.base else 0
    kept, unknown = ([entry.path[start:] for entry in part] for part in (sifted.keep, sifted.unknown))
    return sifted, kept, [entry.path[start:] for entry, _ in sifted.drop], unknown
