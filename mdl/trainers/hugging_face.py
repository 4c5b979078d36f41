"""Trainers of Hugging Face, which save folders ``checkpoint-N`` and the finished model beside.

HF Trainer and what is built on it (PEFT, axolotl, LLaMA-Factory) write ``trainer_state.json`` last, so a checkpoint
without it was never finished, unless no checkpoint of the run has one, as in a copy that was stripped of them.
diffusers' example scripts use accelerate's ``save_state``, which writes the random states last.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fnmatch import fnmatchcase

from mdl.trainers.completeness import RESUME
from mdl.trainers.layout import Layout
from mdl.trainers.patterns import DEEPSPEED_LATEST
from mdl.trainers.runs import (
    UNRECORDED,
    Checkpoint,
    Found,
    checkpoint,
    finished_model,
    newest_complete,
    parse_count,
    step_and_name,
)
from mdl.trainers.tree import Tree, join

_NUMBERED = re.compile(
    r"checkpoint-((?P<step>[0-9]+)|best|last)|(?P<staging>tmp-checkpoint-([0-9]+).*|checkpoint-([0-9]+)\.tmp)"
)
_STATE = "trainer_state.json"
_LONGEST_NAME = 255


def _numbered(tree: Tree, base: str, written_last: str) -> list[Checkpoint]:
    """The folders ``checkpoint-N``, in order, and ``checkpoint-best`` and ``checkpoint-last``.

    ``written_last`` is a glob of the files that the trainer writes last into those with a number.
    """

    def is_marked(folder: str) -> bool:
        return any(fnmatchcase(child.name, written_last) for child in tree.children(folder) if child.is_file)

    named = [(folder, name) for folder in tree.subfolders(base) if (name := _NUMBERED.fullmatch(folder.name))]
    are_marked = any(is_marked(folder.path) for folder, _ in named)
    rows = []
    for folder, name in named:
        step, wrong = parse_count(next(filter(None, (name["step"], name[4], name[5])), None)), ""
        tag = re.match(DEEPSPEED_LATEST, tree.text(join(folder.path, "latest")))
        if name["staging"]:
            wrong = "a staging folder, which the trainer renames when it is complete"
        elif are_marked and name["step"] and not is_marked(folder.path):
            wrong = f"{written_last}, which is written last, is missing"
        elif tag and not tree.is_folder(join(folder.path, tag[1])):
            wrong = f"{tag[1]}, which 'latest' names, is missing"
        if not name["staging"] and not name["step"]:
            step = parse_count(tree.json(join(folder.path, _STATE)).get("global_step"))
        rows.append(checkpoint(tree, folder.name, folder.path, tree.below(folder.path), step, wrong=wrong))
    return sorted(rows, key=step_and_name)


# HF Trainer

_HF_MODEL = re.compile(r"(model|pytorch_model|adapter_model|tf_model|flax_model)\b.*\.(safetensors|bin|h5|msgpack)")


def _find_hf_run(tree: Tree, base: str) -> Found | None:
    rows = _numbered(tree, base, _STATE)
    return _hf_found(tree, base, rows) if rows else None


def _find_hf_model(tree: Tree, base: str) -> Found | None:
    """A finished model alone: weights beside their configuration."""
    is_configured = any(tree.is_file(join(base, name)) for name in ("config.json", "adapter_config.json"))
    return _hf_found(tree, base, []) if is_configured and tree.files_named(base, _HF_MODEL.fullmatch) else None


def _hf_found(tree: Tree, base: str, rows: list[Checkpoint]) -> Found:
    """These checkpoints; axolotl's ``merged`` folder; and the model in the run's own folder."""
    merged = join(base, "merged")
    finished = [checkpoint(tree, "merged", merged, tree.below(merged))]
    finished = finished if tree.files_named(merged, _HF_MODEL.fullmatch) else []
    finished += finished_model(tree, base, _HF_MODEL.pattern, [*rows, *finished])
    last = [row for row in rows if row.name == "checkpoint-last" and row.step is None]
    by_age = [*rows, *finished, *(row for row in rows if row.name != "checkpoint-best"), *last]
    recorded = _recorded_best(tree, newest_complete(by_age), base)
    best = next((row for row in rows if row.name == (recorded or "checkpoint-best")), None)
    note = f"{recorded} is recorded as best and is gone" if recorded else UNRECORDED
    folders = (base, *(row.base for row in rows))
    is_adapter = any(tree.is_file(join(folder, "adapter_config.json")) for folder in folders)
    layout = "peft" if is_adapter else ""
    return Found.of([*rows, *finished], by_age=by_age, best=best, best_note=note, layout=layout)


def _recorded_best(tree: Tree, latest: Checkpoint | None, base: str) -> str:
    """The name of the best checkpoint in the newest checkpoint's state file, else in the run's own; else ""."""
    for folder in (latest.base, base) if latest else (base,):
        state = tree.json(join(folder, _STATE))
        step, path = parse_count(state.get("best_global_step")), state.get("best_model_checkpoint")
        name = re.split(r"[/\\]", path.rstrip("/\\"))[-1] if isinstance(path, str) else ""
        if step or 0 < len(name) <= _LONGEST_NAME:
            return f"checkpoint-{step}" if step else name
    return ""


def _base_model(tree: Tree, model: Checkpoint) -> tuple[str, ...]:
    """Names the model that an adapter was trained on, without which it cannot be used."""
    config = tree.json(join(model.base, "adapter_config.json"))
    name = config.get("base_model_name_or_path")
    if isinstance(name, str) and name:
        return (f"an adapter: it needs its base model, {name[:_LONGEST_NAME]}",)
    return ("an adapter: it needs its base model, which adapter_config.json does not name",) if config else ()


_LOGS = ("trainer_log.jsonl", "running_log.txt", "*_results.json", "training_*.png", "runs/*")
HF_RUN = Layout(
    "hf-trainer",
    _find_hf_run,
    keep=(
        *("model*.safetensors", "model*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.bin.index.json"),
        *("tf_model*.h5*", "flax_model*.msgpack*", "adapter_*", "*/adapter_*", "config.json", "generation_config.json"),
        *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model"),
        *("chat_template*", "*processor_config.json", "*.py", "*.yaml", "*.yml", "README.md", "LICENSE*"),
    ),
    drop=(*RESUME, *((glob, "a log") for glob in _LOGS), ("last_run_prepared/*", "prepared data")),
    model_notes=_base_model,
)
HF_MODEL = replace(HF_RUN, find=_find_hf_model)


# diffusers

_PIPELINE = re.compile(
    r"model_index\.json|(pytorch_lora_weights|diffusion_pytorch_model|learned_embeds).*\.(safetensors|bin)"
)
_PARTS = ("unet", "unet_ema", "transformer", "controlnet", "prior", "vae", "text_encoder")
_RANDOM_STATES = "random_states_*.pkl"


def _find_diffusers(tree: Tree, base: str) -> Found | None:
    rows = _numbered(tree, base, _RANDOM_STATES)
    final = finished_model(tree, base, _PIPELINE.pattern, rows)
    is_hf = any(tree.is_file(join(row.base, _STATE)) for row in rows)
    if is_hf or not (final or any(_is_diffusers(tree, row.base) for row in rows)):
        return None
    best = next((row for row in rows if row.name == "checkpoint-best"), None)
    by_age = [*final, *(row for row in rows if row is not best)]
    return Found.of([*rows, *final], by_age=by_age, best=best)


def _is_diffusers(tree: Tree, folder: str) -> bool:
    files = tree.files_named(folder, lambda name: fnmatchcase(name, _RANDOM_STATES) or _PIPELINE.fullmatch(name))
    return bool(files) or any(tree.is_folder(join(folder, part)) for part in _PARTS)


DIFFUSERS = Layout(
    "diffusers",
    _find_diffusers,
    keep=(
        *("pytorch_lora_weights*", "learned_embeds*", "diffusion_pytorch_model*", "model*.safetensors*"),
        *("pytorch_model*.bin*", "model_index.json", "config.json", "README.md", "LICENSE*", "adapter_*"),
        *("unet/*", "unet_ema/*", "transformer/*", "transformer_2/*", "controlnet/*", "prior/*", "decoder/*"),
        *("movq/*", "vae/*", "vae_ema/*", "text_encoder/*", "text_encoder_2/*", "text_encoder_3/*", "tokenizer/*"),
        *("tokenizer_2/*", "tokenizer_3/*", "scheduler/*", "feature_extractor/*", "image_encoder/*"),
        *("image_processor/*", "safety_checker/*", "adapter/*"),
    ),
)
