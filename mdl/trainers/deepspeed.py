"""DeepSpeed by itself: ``global_stepN/`` folders, and ``latest``, a text file that names the newest."""

from __future__ import annotations

import re
from dataclasses import replace

from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.layout import Found, Layout, join, newest, ordered, rest, saved
from mdl.trainers.numbered import holds
from mdl.trainers.sieve import SHARDED, Refusal, Sieve
from mdl.trainers.tree import Entry, Tree
from mdl.trainers.weights import RESUME

_TAG = re.compile(r"global_step([0-9]+)")
_NAME, _LONGEST_TAG = re.compile(r"[\w.=-]+"), 200
_MODEL_STATES = re.compile(r".*_model_states\.pt")
_STATES = re.compile(r".*_(model|optim)_states\.pt")
_GATHERED = re.compile(r"(model|pytorch_model)\b.*\.(safetensors|bin)")


def find(tree: Tree, base: str) -> Found | None:
    tag = named_tag(tree, base)
    folders = [child for child in tree.children(base) if child.kind == "folder" and _is_ours(tree, child, tag)]
    if not folders:
        return None
    rows = ordered(_checkpoint(tree, folder) for folder in folders)
    named = [row for row in rows if row.name == tag]
    if named:
        rows = [_doubted(row, named[0]) for row in rows]
    gathered = rest(tree, base, [folder.path for folder in folders])
    final = [saved(tree, "final", base, gathered)] if holds(tree, base, _GATHERED.fullmatch) else []
    return Found.of("deepspeed", [*rows, *final], latest=newest([row for row in rows if row.name == tag], rows, final))


def named_tag(tree: Tree, folder: str) -> str:
    """The folder that ``latest`` names; empty where there is none, or it is no such file."""
    tag = tree.head(join(folder, "latest"), _LONGEST_TAG + 1).decode("utf-8", "replace").strip()
    return tag if len(tag) <= _LONGEST_TAG and _NAME.fullmatch(tag) else ""


def _is_ours(tree: Tree, folder: Entry, tag: str) -> bool:
    return bool(_TAG.fullmatch(folder.name)) or (folder.name == tag and holds(tree, folder.path, _STATES.fullmatch))


def _checkpoint(tree: Tree, folder: Entry) -> Checkpoint:
    tag = _TAG.fullmatch(folder.name)
    wrong = "" if holds(tree, folder.path, _MODEL_STATES.fullmatch) else "*_model_states.pt is missing"
    step = int(tag[1]) if tag else None
    return saved(tree, folder.name, folder.path, tree.below(folder.path), step, wrong=wrong)


def _doubted(row: Checkpoint, named: Checkpoint) -> Checkpoint:
    """``latest`` is written last: what is newer than the one it names may not be finished."""
    is_newer = row.complete and row.step is not None and named.step is not None and row.step > named.step
    return replace(row, note="newer than the one 'latest' names, so perhaps not finished") if is_newer else row


_ZERO3 = Refusal(
    ("zero_pp_rank_*", "bf16_zero_pp_rank_*"),
    "only DeepSpeed's sharded state: nothing in it can be loaded until its shards are merged",
    "run `python zero_to_fp32.py . .` in the folder above it first",
)
LAYOUT = Layout(
    ("deepspeed",),
    find,
    Sieve(
        keep=("mp_rank_*_model_states.pt", "model*.safetensors*", "pytorch_model*.bin*", "config.json", "tokenizer*"),
        drop=(*RESUME, ("*_optim_states.pt", "optimizer state")),
        notes=(("mp_rank_*_model_states.pt", "is a pickle of the model and the training; reading it needs torch"),),
        refusals=(_ZERO3, *SHARDED),
    ),
)
