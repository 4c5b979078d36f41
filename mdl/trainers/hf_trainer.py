"""HF Trainer and what is built on it (PEFT, axolotl, LLaMA-Factory): ``checkpoint-N``, the finished model beside.

The trainer writes ``trainer_state.json`` last, so a checkpoint without it was never finished, unless no checkpoint of
the run has one, as in a copy that was stripped of them.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

from mdl.trainers.completeness import is_weights, why_incomplete
from mdl.trainers.inference_filter import RESUME, InferenceFilter, is_only_for_resuming
from mdl.trainers.layout import (
    Layout,
    NumberedFolder,
    by_step,
    checkpoint,
    finished_model,
    numbered_folders,
    parse_count,
)
from mdl.trainers.runs import UNRECORDED, Checkpoint, Found, newest_complete
from mdl.trainers.sharded import deepspeed_tag
from mdl.trainers.tree import Entry, Tree, join

_STATE = "trainer_state.json"
_MODEL = re.compile(r"(model|pytorch_model|adapter_model|tf_model|flax_model)\b.*\.(safetensors|bin|h5|msgpack)")
_LONGEST_NAME = 255
_CONFIGS = ("config.json", "adapter_config.json")


def find_run(tree: Tree, base: str) -> Found | None:
    """A run with checkpoints."""
    folders = numbered_folders(tree, base)
    return _found(tree, base, folders) if folders else None


def find_model(tree: Tree, base: str) -> Found | None:
    """A finished model alone: weights beside their configuration."""
    configured = any(tree.is_file(join(base, name)) for name in _CONFIGS)
    return _found(tree, base, []) if configured and _has_model(tree, base) else None


def _has_model(tree: Tree, folder: str) -> bool:
    return bool(tree.files_named(folder, _MODEL.fullmatch))


def _found(tree: Tree, base: str, folders: list[NumberedFolder]) -> Found:
    keeps_state = any(tree.is_file(join(one.path, _STATE)) for one in folders)
    rows = by_step(_checkpoint(tree, one, keeps_state) for one in folders)
    finished = _finished(tree, base, folders)
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


def _checkpoint(tree: Tree, one: NumberedFolder, keeps_state: bool) -> Checkpoint:
    path, wrong = one.path, one.why_staging
    state, entries = join(path, _STATE), list(tree.below(path))
    step = parse_count(tree.json(state).get("global_step")) if one.word else one.step
    if keeps_state and not one.word and not tree.is_file(state):
        wrong = wrong or f"{_STATE}, which is written last, is missing"
    wrong = wrong or _why_no_tag(tree, path) or why_incomplete(tree, entries) or _why_no_weights(path, entries)
    return Checkpoint(one.entry.name, path, tuple(entries), step, complete=not wrong, note=wrong)


def _why_no_weights(folder: str, entries: list[Entry]) -> str:
    names = [entry.path.removeprefix(f"{folder}/") for entry in entries if entry.kind in ("file", "escapes")]
    has_weights = any(is_weights(name) and (_is_sharded(name) or not is_only_for_resuming(name)) for name in names)
    return "" if has_weights else "it holds no weights"


def _is_sharded(name: str) -> bool:
    """Whether these are weights, though only the trainer itself can read them."""
    return any(fnmatchcase(name, glob) for glob in ("*_model_states.pt", "*zero_pp_rank_*", "pytorch_model_fsdp_*"))


def _why_no_tag(tree: Tree, folder: str) -> str:
    """DeepSpeed's ``latest`` names the folder of its state, which must be there."""
    tag = deepspeed_tag(tree, folder)
    return f"{tag}, which 'latest' names, is missing" if tag and not tree.is_folder(join(folder, tag)) else ""


def _finished(tree: Tree, base: str, folders: list[NumberedFolder]) -> list[Checkpoint]:
    """axolotl's ``merged`` folder, and the model in the run's own folder."""
    taken = [one.path for one in folders]
    rows, merged = [], join(base, "merged")
    if tree.is_folder(merged) and _has_model(tree, merged):
        taken.append(merged)
        rows.append(checkpoint(tree, "merged", merged, tree.below(merged)))
    return [*rows, *finished_model(tree, base, _MODEL.fullmatch, taken)]


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
_INFERENCE = InferenceFilter(
    keep=(
        *("model*.safetensors", "model*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.bin.index.json"),
        *("tf_model*.h5*", "flax_model*.msgpack*", "adapter_*", "*/adapter_*", "config.json", "generation_config.json"),
        *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model"),
        *("chat_template*", "*processor_config.json", "*.py", "*.yaml", "*.yml", "README.md", "LICENSE*"),
    ),
    drop=(*RESUME, *((glob, "a log") for glob in _LOGS), ("last_run_prepared/*", "prepared data")),
)
_NAMES = ("hf-trainer", "peft")
RUN = Layout(_NAMES, find_run, _INFERENCE, _base_model)
MODEL = Layout(_NAMES, find_model, _INFERENCE, _base_model)
