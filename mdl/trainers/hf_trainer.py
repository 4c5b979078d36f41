"""HF Trainer and what is built on it (PEFT, axolotl, LLaMA-Factory): ``checkpoint-N``, the finished model beside.

The trainer writes ``trainer_state.json`` last, so a checkpoint without it was never finished; unless no checkpoint of
the run has one, as in a copy that was stripped of them.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.deepspeed import named_tag
from mdl.trainers.layout import UNRECORDED, Found, Layout, join, newest, ordered, rest, saved
from mdl.trainers.natural import count
from mdl.trainers.numbered import Numbered, holds, numbered_folders
from mdl.trainers.sieve import Sieve
from mdl.trainers.tree import Entry, Tree
from mdl.trainers.weights import RESUME, is_weights, why_resume
from mdl.trainers.wholeness import broken

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
    return _found(tree, base, []) if configured and holds(tree, base, _MODEL.fullmatch) else None


def _found(tree: Tree, base: str, folders: list[Numbered]) -> Found:
    keeps_state = any(tree.is_file(join(one.folder.path, _STATE)) for one in folders)
    rows = ordered(_checkpoint(tree, one, keeps_state) for one in folders)
    finished = _finished(tree, base, folders)
    best_by_name = next((row for row in rows if row.name == "checkpoint-best"), None)
    last_by_name = [row for row in rows if row.name == "checkpoint-last" and row.step is None]
    latest = newest(last_by_name, [row for row in rows if row is not best_by_name], finished, rows)
    recorded = _recorded_best(tree, latest, base)
    best = next((row for row in rows if row.name == recorded), None) if recorded else best_by_name
    note = f"{recorded} is recorded as best and is gone" if recorded else UNRECORDED
    is_adapter = any(
        tree.is_file(join(folder, "adapter_config.json")) for folder in (base, *(row.base for row in rows))
    )
    layout = "peft" if is_adapter else "hf-trainer"
    return Found.of(layout, [*rows, *finished], latest=latest, best=best, best_note=note)


def _checkpoint(tree: Tree, one: Numbered, keeps_state: bool) -> Checkpoint:
    path, wrong = one.folder.path, ""
    state, entries = join(path, _STATE), list(tree.below(path))
    step = one.step
    if one.is_staging:
        wrong = "a staging folder, which the trainer renames when it is whole"
    elif one.word:
        step = _global_step(tree, state)
    elif keeps_state and not tree.is_file(state):
        wrong = f"{_STATE}, which is written last, is missing"
    wrong = wrong or _lost_tag(tree, path) or broken(tree, entries) or _no_weights(path, entries)
    return Checkpoint(one.folder.name, path, tuple(entries), step, complete=not wrong, note=wrong)


def _no_weights(folder: str, entries: list[Entry]) -> str:
    names = [entry.path[len(folder) + 1 :] for entry in entries if entry.kind in ("file", "leaves")]
    held = any(is_weights(name) and (_is_sharded(name) or not why_resume(name)) for name in names)
    return "" if held else "it holds no weights"


def _is_sharded(name: str) -> bool:
    """Weights after all, though only the trainer itself can read them."""
    return any(fnmatchcase(name, glob) for glob in ("*_model_states.pt", "*zero_pp_rank_*", "pytorch_model_fsdp_*"))


def _lost_tag(tree: Tree, folder: str) -> str:
    """DeepSpeed's ``latest`` names the folder of its state."""
    tag = named_tag(tree, folder)
    return f"{tag}, which 'latest' names, is missing" if tag and not tree.is_folder(join(folder, tag)) else ""


def _finished(tree: Tree, base: str, folders: list[Numbered]) -> list[Checkpoint]:
    """axolotl's ``merged`` folder, and the model in the run's own folder."""
    taken = [one.folder.path for one in folders]
    rows, merged = [], join(base, "merged")
    if tree.is_folder(merged) and holds(tree, merged, _MODEL.fullmatch):
        taken.append(merged)
        rows.append(saved(tree, "merged", merged, tree.below(merged)))
    if holds(tree, base, _MODEL.fullmatch):
        rows.append(saved(tree, "final", base, rest(tree, base, taken)))
    return rows


def _recorded_best(tree: Tree, latest: Checkpoint | None, base: str) -> str:
    """The name of the best checkpoint as the newest state file has it, or as the run's own has; else empty."""
    folders = [latest.base] if latest else []
    return next(filter(None, (_best_in(tree.json(join(folder, _STATE))) for folder in [*folders, base])), "")


def _best_in(state: object) -> str:
    if not isinstance(state, dict):
        return ""
    step, path = count(state.get("best_global_step")), state.get("best_model_checkpoint")
    if step:
        return f"checkpoint-{step}"
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1] if isinstance(path, str) else ""
    return name if len(name) <= _LONGEST_NAME else ""


def _global_step(tree: Tree, path: str) -> int | None:
    state = tree.json(path)
    return count(state.get("global_step")) if isinstance(state, dict) else None


def _base_model(tree: Tree, checkpoint: Checkpoint) -> tuple[str, ...]:
    """An adapter is of no use without the model it was trained on."""
    config = tree.json(join(checkpoint.base, "adapter_config.json"))
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if isinstance(name, str) and name:
        return (f"an adapter: it needs its base model, {name[:_LONGEST_NAME]}",)
    return ("an adapter: it needs its base model, which adapter_config.json does not name",) if config else ()


_LOGS = ("trainer_log.jsonl", "running_log.txt", "*_results.json", "training_*.png", "runs/*")
_SIEVE = Sieve(
    keep=(
        *("model*.safetensors", "model*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.bin.index.json"),
        *("tf_model*.h5*", "flax_model*.msgpack*", "adapter_*", "*/adapter_*", "config.json", "generation_config.json"),
        *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model"),
        *("chat_template*", "*processor_config.json", "*.py", "*.yaml", "*.yml", "README.md", "LICENSE*"),
    ),
    drop=(*RESUME, *((glob, "a log") for glob in _LOGS), ("last_run_prepared/*", "prepared data")),
)
_NAMES = ("hf-trainer", "peft")
RUN = Layout(_NAMES, find_run, _SIEVE, _base_model)
MODEL = Layout(_NAMES, find_model, _SIEVE, _base_model)
