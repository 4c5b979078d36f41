"""Trainers of Hugging Face, which save folders ``checkpoint-N`` and the finished model beside.

HF Trainer and what is built on it (PEFT, axolotl, LLaMA-Factory) write ``trainer_state.json`` last, so a checkpoint
without it was never finished, unless no checkpoint of the run has one, as in a copy that was stripped of them.
diffusers' example scripts use accelerate's ``save_state``, which writes the random states last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from mdl.trainers.completeness import is_weights, why_incomplete
from mdl.trainers.layout import (
    RESUME,
    Layout,
    by_step,
    checkpoint,
    finished_model,
    is_only_for_resuming,
    parse_count,
    single_checkpoint,
)
from mdl.trainers.runs import UNRECORDED, Checkpoint, Found, newest_complete
from mdl.trainers.sharded import deepspeed_tag
from mdl.trainers.tree import Entry, Tree, join

_NUMBERED = re.compile(
    r"checkpoint-(?P<step>[0-9]+)|checkpoint-(?P<word>best|last)"
    r"|(?P<staging>tmp-checkpoint-(?P<a>[0-9]+).*|checkpoint-(?P<b>[0-9]+)\.tmp)"
)


@dataclass(frozen=True)
class _Folder:
    """A folder ``checkpoint-N``, or with ``best`` or ``last`` as its ``word`` instead of the step."""

    entry: Entry
    step: int | None
    word: str
    why_staging: str

    @property
    def path(self) -> str:
        return self.entry.path


def _numbered_folders(tree: Tree, base: str) -> list[_Folder]:
    found = []
    for folder in tree.subfolders(base):
        name = _NUMBERED.fullmatch(folder.name)
        if name:
            step = name["step"] or name["a"] or name["b"]
            why = "a staging folder, which the trainer renames when it is complete" if name["staging"] else ""
            found.append(_Folder(folder, int(step) if step else None, name["word"] or "", why))
    return found


# HF Trainer

_STATE = "trainer_state.json"
_HF_MODEL = re.compile(r"(model|pytorch_model|adapter_model|tf_model|flax_model)\b.*\.(safetensors|bin|h5|msgpack)")
_ONLY_TRAINER_READS = ("*_model_states.pt", "*zero_pp_rank_*", "pytorch_model_fsdp_*")
_LONGEST_NAME = 255


def _find_hf_run(tree: Tree, base: str) -> Found | None:
    folders = _numbered_folders(tree, base)
    return _hf_found(tree, base, folders) if folders else None


def _find_hf_model(tree: Tree, base: str) -> Found | None:
    """A finished model alone: weights beside their configuration."""
    is_configured = any(tree.is_file(join(base, name)) for name in ("config.json", "adapter_config.json"))
    has_model = tree.files_named(base, _HF_MODEL.fullmatch)
    return _hf_found(tree, base, []) if is_configured and has_model else None


def _hf_found(tree: Tree, base: str, folders: list[_Folder]) -> Found:
    keeps_state = any(tree.is_file(join(one.path, _STATE)) for one in folders)
    rows = by_step(_hf_checkpoint(tree, one, keeps_state) for one in folders)
    finished = _hf_finished(tree, base, folders)
    best_by_name = next((row for row in rows if row.name == "checkpoint-best"), None)
    last_by_name = [row for row in rows if row.name == "checkpoint-last" and row.step is None]
    newest = [last_by_name, [row for row in rows if row is not best_by_name], finished, rows]
    recorded = _recorded_best(tree, newest_complete(*newest), base)
    best = next((row for row in rows if row.name == recorded), None) if recorded else best_by_name
    note = f"{recorded} is recorded as best and is gone" if recorded else UNRECORDED
    folders_of_models = (base, *(row.base for row in rows))
    is_adapter = any(tree.is_file(join(folder, "adapter_config.json")) for folder in folders_of_models)
    layout = "peft" if is_adapter else "hf-trainer"
    return Found.of(layout, [*rows, *finished], newest=newest, best=best, best_note=note)


def _hf_checkpoint(tree: Tree, one: _Folder, keeps_state: bool) -> Checkpoint:
    path, wrong = one.path, one.why_staging
    state, entries = join(path, _STATE), tuple(tree.below(path))
    step = parse_count(tree.json(state).get("global_step")) if one.word else one.step
    if keeps_state and not one.word and not tree.is_file(state):
        wrong = wrong or f"{_STATE}, which is written last, is missing"
    tag = deepspeed_tag(tree, path)
    if tag and not tree.is_folder(join(path, tag)):
        wrong = wrong or f"{tag}, which 'latest' names, is missing"
    names = [entry.path.removeprefix(f"{path}/") for entry in entries if entry.kind in ("file", "escapes")]
    wrong = wrong or why_incomplete(tree, entries) or ("" if any(map(_is_model, names)) else "it holds no weights")
    return Checkpoint(one.entry.name, path, entries, step, complete=not wrong, note=wrong)


def _is_model(name: str) -> bool:
    """Whether these are weights, even if only the trainer itself can read them."""
    is_sharded = any(fnmatchcase(name, glob) for glob in _ONLY_TRAINER_READS)
    return is_weights(name) and (is_sharded or not is_only_for_resuming(name))


def _hf_finished(tree: Tree, base: str, folders: list[_Folder]) -> list[Checkpoint]:
    """axolotl's ``merged`` folder, and the model in the run's own folder."""
    taken = [one.path for one in folders]
    rows, merged = [], join(base, "merged")
    if tree.files_named(merged, _HF_MODEL.fullmatch):
        taken.append(merged)
        rows.append(checkpoint(tree, "merged", merged, tree.below(merged)))
    return [*rows, *finished_model(tree, base, _HF_MODEL.fullmatch, taken)]


def _recorded_best(tree: Tree, latest: Checkpoint | None, base: str) -> str:
    """The name of the best checkpoint in the newest checkpoint's state file, else in the run's own; else ""."""
    folders = [latest.base, base] if latest else [base]
    return next(filter(None, (_best_in(tree.json(join(folder, _STATE))) for folder in folders)), "")


def _best_in(state: dict[str, Any]) -> str:
    step, path = parse_count(state.get("best_global_step")), state.get("best_model_checkpoint")
    if step:
        return f"checkpoint-{step}"
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1] if isinstance(path, str) else ""
    return name if len(name) <= _LONGEST_NAME else ""


def _base_model(tree: Tree, model: Checkpoint) -> tuple[str, ...]:
    """Names the model that an adapter was trained on, without which it cannot be used."""
    config = tree.json(join(model.base, "adapter_config.json"))
    name = config.get("base_model_name_or_path")
    if isinstance(name, str) and name:
        return (f"an adapter: it needs its base model, {name[:_LONGEST_NAME]}",)
    return ("an adapter: it needs its base model, which adapter_config.json does not name",) if config else ()


_LOGS = ("trainer_log.jsonl", "running_log.txt", "*_results.json", "training_*.png", "runs/*")
HF_RUN = Layout(
    ("hf-trainer", "peft"),
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
_RANDOM = re.compile(r"random_states_[0-9]+\.pkl")
_SAVED = re.compile(rf"{_RANDOM.pattern}|{_PIPELINE.pattern}")
_PARTS = ("unet", "unet_ema", "transformer", "controlnet", "prior", "vae", "text_encoder")


def _find_diffusers(tree: Tree, base: str) -> Found | None:
    folders = _numbered_folders(tree, base)
    if any(tree.is_file(join(one.path, _STATE)) for one in folders):
        return None
    final = finished_model(tree, base, _PIPELINE.fullmatch, [one.path for one in folders])
    if not final and not any(_is_diffusers(tree, one.path) for one in folders):
        return None
    keeps_random = any(tree.files_named(one.path, _RANDOM.fullmatch) for one in folders)
    rows = by_step(_diffusers_checkpoint(tree, one, keeps_random) for one in folders)
    best = next((row for row in rows if row.name == "checkpoint-best"), None)
    newest = [[row for row in rows if row is not best], final]
    return Found.of("diffusers", [*rows, *final], newest=newest, best=best)


def _is_diffusers(tree: Tree, folder: str) -> bool:
    has_part = any(tree.is_folder(join(folder, part)) for part in _PARTS)
    return has_part or bool(tree.files_named(folder, _SAVED.fullmatch))


def _diffusers_checkpoint(tree: Tree, one: _Folder, keeps_random: bool) -> Checkpoint:
    """If other checkpoints have random states, one without was cut short."""
    wrong = one.why_staging
    if keeps_random and not tree.files_named(one.path, _RANDOM.fullmatch):
        wrong = wrong or "random_states_*.pkl, which is written last, is missing"
    return single_checkpoint(tree, one.entry, one.step, wrong=wrong)


_FOLDERS = (
    *("unet", "unet_ema", "transformer", "transformer_2", "controlnet", "prior", "decoder", "movq", "vae", "vae_ema"),
    *("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3", "scheduler"),
    *("feature_extractor", "image_encoder", "image_processor", "safety_checker", "adapter"),
)
DIFFUSERS = Layout(
    ("diffusers",),
    _find_diffusers,
    keep=(
        *("pytorch_lora_weights*", "learned_embeds*", "diffusion_pytorch_model*", "model*.safetensors*"),
        *("pytorch_model*.bin*", "model_index.json", "config.json", "README.md", "LICENSE*", "adapter_*"),
        *(f"{folder}/*" for folder in _FOLDERS),
    ),
)
