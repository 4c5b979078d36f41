"""Trainers that save a checkpoint in several parts: DeepSpeed by itself, FSDP by accelerate, and TensorFlow.

DeepSpeed writes folders ``global_stepN/`` and the text file ``latest``, which names the newest. FSDP writes full
weights to ``pytorch_model_fsdp.bin``, or shards that must be merged before use. TensorFlow writes ``ckpt-N.index`` with
its ``.data-*``, the newest named in ``checkpoint``, and SavedModel folders.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from mdl.trainers.layout import (
    RESUME,
    SHARDED,
    Layout,
    Refusal,
    by_step,
    checkpoint,
    finished_model,
    parse_count,
    single_checkpoint,
)
from mdl.trainers.runs import FINAL, Checkpoint, Found
from mdl.trainers.tree import Entry, Tree, join

# DeepSpeed

_TAG = re.compile(r"global_step([0-9]+)")
_TAG_TEXT, _LONGEST_TAG = re.compile(r"[\w.=-]+"), 200
_MODEL_STATES = re.compile(r".*_model_states\.pt")
_STATES = re.compile(r".*_(model|optim)_states\.pt")
_GATHERED = re.compile(r"(model|pytorch_model)\b.*\.(safetensors|bin)")


def deepspeed_tag(tree: Tree, folder: str) -> str:
    """The folder that DeepSpeed's file ``latest`` names; "" if there is no such file."""
    tag = tree.head(join(folder, "latest"), _LONGEST_TAG + 1).decode("utf-8", "replace").strip()
    return tag if len(tag) <= _LONGEST_TAG and _TAG_TEXT.fullmatch(tag) else ""


def _find_deepspeed(tree: Tree, base: str) -> Found | None:
    tag = deepspeed_tag(tree, base)
    folders = [
        one
        for one in tree.subfolders(base)
        if _TAG.fullmatch(one.name) or (one.name == tag and tree.files_named(one.path, _STATES.fullmatch))
    ]
    if not folders:
        return None
    rows = by_step(_deepspeed_checkpoint(tree, folder) for folder in folders)
    tagged = [row for row in rows if row.name == tag]
    step = tagged[0].step if tagged else None
    if step is not None:
        newer = "newer than the one 'latest' names, so perhaps not finished"
        rows = [replace(row, note=newer) if row.complete and (row.step or 0) > step else row for row in rows]
    final = finished_model(tree, base, _GATHERED.fullmatch, [folder.path for folder in folders])
    return Found.of("deepspeed", [*rows, *final], newest=[[row for row in rows if row.name == tag], rows])


def _deepspeed_checkpoint(tree: Tree, folder: Entry) -> Checkpoint:
    step = _TAG.fullmatch(folder.name)
    has_model = tree.files_named(folder.path, _MODEL_STATES.fullmatch)
    wrong = "" if has_model else "*_model_states.pt is missing"
    return single_checkpoint(tree, folder, int(step[1]) if step else None, wrong=wrong)


_ZERO3 = Refusal(
    ("zero_pp_rank_*", "bf16_zero_pp_rank_*"),
    "only DeepSpeed's sharded state: nothing in it can be loaded until its shards are merged",
    "run `python zero_to_fp32.py . .` in the folder above it first",
)
DEEPSPEED = Layout(
    ("deepspeed",),
    _find_deepspeed,
    keep=("mp_rank_*_model_states.pt", "model*.safetensors*", "pytorch_model*.bin*", "config.json", "tokenizer*"),
    drop=(*RESUME, ("*_optim_states.pt", "optimizer state")),
    notes=(("mp_rank_*_model_states.pt", "is a pickle of the model and the training; reading it needs torch"),),
    refusals=(_ZERO3, *SHARDED),
)


# FSDP

_FSDP_PART = re.compile(r"pytorch_model_fsdp(_[0-9]+|(_rank[0-9]+)?(_[0-9]+)?\.bin)")
_NUMBER_AT_END = re.compile(r".*?([0-9]+)")


def _find_fsdp(tree: Tree, base: str) -> Found | None:
    def is_fsdp(folder: str) -> bool:
        return any(_FSDP_PART.fullmatch(child.name) for child in tree.children(folder))

    if is_fsdp(base):
        return Found.of("fsdp", [checkpoint(tree, FINAL, base, tree.below(base))])
    rows = []
    for folder in tree.subfolders(base):
        if is_fsdp(folder.path):
            number = _NUMBER_AT_END.fullmatch(folder.name)
            rows.append(single_checkpoint(tree, folder, int(number[1]) if number else None))
    return Found.of("fsdp", by_step(rows)) if rows else None


FSDP = Layout(
    ("fsdp",),
    _find_fsdp,
    keep=(
        *("pytorch_model_fsdp.bin", "pytorch_model_fsdp_[0-9].bin", "model*.safetensors*", "pytorch_model*.bin*"),
        *("config.json", "generation_config.json", "tokenizer*"),
    ),
)


# TensorFlow

_PIECE = re.compile(r".+\.(index|meta|data-[0-9]{5}-of-[0-9]{5})")
_NEWEST = re.compile(r'^model_checkpoint_path:\s*"(?:[^"]*/)?([^"/]+)"', re.MULTILINE)
_NUMBER = re.compile(r".*[-_.](?P<step>[0-9]+)(\.ckpt)?|(?P<bare>[0-9]+)(\.ckpt)?")
_GRAPH = "saved_model.pb"


def _find_tensorflow(tree: Tree, base: str) -> Found | None:
    pieces = _pieces(tree, base)
    folders = [folder for folder in tree.subfolders(base) if tree.is_file(join(folder.path, _GRAPH))]
    is_model = tree.is_file(join(base, _GRAPH))
    if not (pieces or folders or is_model):
        return None
    rows = by_step(_pieces_checkpoint(tree, base, prefix, kept) for prefix, kept in pieces.items())
    models = by_step(_saved_model(tree, folder.name, folder.path, tree.below(folder.path)) for folder in folders)
    if is_model:
        taken = [entry.path for row in rows for entry in row.entries] + [folder.path for folder in folders]
        models.append(_saved_model(tree, FINAL, base, tree.all_but(base, taken)))
    newest = _NEWEST.search(tree.text(join(base, "checkpoint")) or "")
    named = [row for row in rows if newest and row.name == newest[1]]
    return Found.of("tensorflow", [*rows, *models], newest=[named, rows])


def _pieces(tree: Tree, base: str) -> dict[str, list[Entry]]:
    """The files of every checkpoint by their common prefix. An ``.index`` alone may belong to another program."""
    pieces: dict[str, list[Entry]] = defaultdict(list)
    for entry in tree.files_named(base, _PIECE.fullmatch):
        pieces[entry.name.rpartition(".")[0]].append(entry)
    is_run = tree.is_file(join(base, "checkpoint"))
    return {prefix: kept for prefix, kept in pieces.items() if is_run or any(".data-" in one.name for one in kept)}


def _number(name: str) -> int | None:
    number = _NUMBER.fullmatch(name)
    return parse_count(number["step"] or number["bare"]) if number else None


def _pieces_checkpoint(tree: Tree, base: str, prefix: str, kept: list[Entry]) -> Checkpoint:
    names = " ".join(entry.name.removeprefix(prefix) for entry in kept)
    lost = next((kind for kind in (".index", ".data-") if kind not in names), None)
    return checkpoint(tree, prefix, base, kept, _number(prefix), wrong=f"{prefix}{lost} is missing" if lost else "")


def _saved_model(tree: Tree, name: str, base: str, entries: Iterable[Entry]) -> Checkpoint:
    """A SavedModel; one in a numbered folder is a version, as TensorFlow Serving counts them."""
    variables = join(base, "variables")
    has_index = tree.is_file(join(variables, "variables.index"))
    wrong = "variables/variables.index is missing" if tree.is_folder(variables) and not has_index else ""
    return checkpoint(tree, name, base, entries, _number(name), wrong=wrong)


TENSORFLOW = Layout(
    ("tensorflow",),
    _find_tensorflow,
    keep=(
        *("saved_model.pb", "keras_metadata.pb", "fingerprint.pb", "variables/*", "assets/*", "assets.extra/*"),
        *("*.index", "*.data-*", "*.meta"),
    ),
    drop=(),
    notes=(("*.index", "may hold the optimizer's variables too; the code that builds the model is needed"),),
)
