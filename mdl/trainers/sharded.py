"""Trainers that save shards in folders: DeepSpeed by itself (``global_stepN/``), and FSDP by accelerate.

DeepSpeed's text file ``latest`` names the newest folder. FSDP writes full weights to ``pytorch_model_fsdp.bin``, or
shards that must be merged before use.
"""

from __future__ import annotations

import re
from dataclasses import replace

from mdl.trainers.inference_filter import RESUME, SHARDED, InferenceFilter, Refusal
from mdl.trainers.layout import Layout, by_step, checkpoint, finished_model, folder_checkpoint
from mdl.trainers.runs import FINAL, Checkpoint, Found
from mdl.trainers.tree import Entry, Tree, join

_TAG = re.compile(r"global_step([0-9]+)")
_TAG_TEXT, _LONGEST_TAG = re.compile(r"[\w.=-]+"), 200
_MODEL_STATES = re.compile(r".*_model_states\.pt")
_STATES = re.compile(r".*_(model|optim)_states\.pt")
_GATHERED = re.compile(r"(model|pytorch_model)\b.*\.(safetensors|bin)")
_FSDP_PART = re.compile(r"pytorch_model_fsdp(_[0-9]+|(_rank[0-9]+)?(_[0-9]+)?\.bin)")
_NUMBER_AT_END = re.compile(r".*?([0-9]+)")


def deepspeed_tag(tree: Tree, folder: str) -> str:
    """The folder that DeepSpeed's file ``latest`` names; "" if there is no such file."""
    tag = tree.head(join(folder, "latest"), _LONGEST_TAG + 1).decode("utf-8", "replace").strip()
    return tag if len(tag) <= _LONGEST_TAG and _TAG_TEXT.fullmatch(tag) else ""


def _find_deepspeed(tree: Tree, base: str) -> Found | None:
    tag = deepspeed_tag(tree, base)
    folders = [one for one in tree.subfolders(base) if _is_deepspeed(tree, one, tag)]
    if not folders:
        return None
    rows = by_step(_deepspeed_checkpoint(tree, folder) for folder in folders)
    tagged = next((row for row in rows if row.name == tag), None)
    if tagged:
        rows = [_doubted(row, tagged) for row in rows]
    final = finished_model(tree, base, _GATHERED.fullmatch, [folder.path for folder in folders])
    newest = [[row for row in rows if row.name == tag], rows]
    return Found.of("deepspeed", [*rows, *final], newest=newest)


def _is_deepspeed(tree: Tree, folder: Entry, tag: str) -> bool:
    is_tagged = folder.name == tag and tree.files_named(folder.path, _STATES.fullmatch)
    return bool(_TAG.fullmatch(folder.name) or is_tagged)


def _deepspeed_checkpoint(tree: Tree, folder: Entry) -> Checkpoint:
    step = _TAG.fullmatch(folder.name)
    has_model = tree.files_named(folder.path, _MODEL_STATES.fullmatch)
    wrong = "" if has_model else "*_model_states.pt is missing"
    return folder_checkpoint(tree, folder, int(step[1]) if step else None, wrong=wrong)


def _doubted(row: Checkpoint, tagged: Checkpoint) -> Checkpoint:
    """``latest`` is written last: a checkpoint newer than the one it names may not be finished."""
    is_newer = row.complete and row.step is not None and tagged.step is not None and row.step > tagged.step
    return replace(row, note="newer than the one 'latest' names, so perhaps not finished") if is_newer else row


def _find_fsdp(tree: Tree, base: str) -> Found | None:
    if _is_fsdp(tree, base):
        rows = [checkpoint(tree, FINAL, base, tree.below(base))]
    else:
        rows = by_step(_fsdp_checkpoint(tree, one) for one in tree.subfolders(base) if _is_fsdp(tree, one.path))
    return Found.of("fsdp", rows) if rows else None


def _is_fsdp(tree: Tree, folder: str) -> bool:
    return any(_FSDP_PART.fullmatch(child.name) for child in tree.children(folder))


def _fsdp_checkpoint(tree: Tree, folder: Entry) -> Checkpoint:
    number = _NUMBER_AT_END.fullmatch(folder.name)
    return folder_checkpoint(tree, folder, int(number[1]) if number else None)


_ZERO3 = Refusal(
    ("zero_pp_rank_*", "bf16_zero_pp_rank_*"),
    "only DeepSpeed's sharded state: nothing in it can be loaded until its shards are merged",
    "run `python zero_to_fp32.py . .` in the folder above it first",
)
DEEPSPEED = Layout(
    ("deepspeed",),
    _find_deepspeed,
    InferenceFilter(
        keep=("mp_rank_*_model_states.pt", "model*.safetensors*", "pytorch_model*.bin*", "config.json", "tokenizer*"),
        drop=(*RESUME, ("*_optim_states.pt", "optimizer state")),
        notes=(("mp_rank_*_model_states.pt", "is a pickle of the model and the training; reading it needs torch"),),
        refusals=(_ZERO3, *SHARDED),
    ),
)
FSDP = Layout(
    ("fsdp",),
    _find_fsdp,
    InferenceFilter(
        keep=(
            *("pytorch_model_fsdp.bin", "pytorch_model_fsdp_[0-9].bin", "model*.safetensors*", "pytorch_model*.bin*"),
            *("config.json", "generation_config.json", "tokenizer*"),
        )
    ),
)
