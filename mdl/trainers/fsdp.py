"""FSDP by accelerate: full weights in ``pytorch_model_fsdp.bin``, or shards that must be merged before use."""

from __future__ import annotations

import re

from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.layout import Found, Layout, newest, ordered, saved
from mdl.trainers.sieve import Sieve
from mdl.trainers.tree import Entry, Tree

_PART = re.compile(r"pytorch_model_fsdp(_[0-9]+|(_rank[0-9]+)?(_[0-9]+)?\.bin)")
_NUMBER = re.compile(r".*?([0-9]+)")


def find(tree: Tree, base: str) -> Found | None:
    folders = [child for child in tree.children(base) if child.kind == "folder" and _is_ours(tree, child.path)]
    rows = ordered(_checkpoint(tree, folder) for folder in folders)
    if _is_ours(tree, base):
        rows = [saved(tree, "final", base, tree.below(base))]
    return Found.of("fsdp", rows, latest=newest(rows)) if rows else None


def _is_ours(tree: Tree, folder: str) -> bool:
    return any(_PART.fullmatch(child.name) for child in tree.children(folder))


def _checkpoint(tree: Tree, folder: Entry) -> Checkpoint:
    number = _NUMBER.fullmatch(folder.name)
    return saved(tree, folder.name, folder.path, tree.below(folder.path), int(number[1]) if number else None)


_KEEP = ("pytorch_model_fsdp.bin", "pytorch_model_fsdp_[0-9].bin", "model*.safetensors*", "pytorch_model*.bin*")
LAYOUT = Layout(("fsdp",), find, Sieve(keep=(*_KEEP, "config.json", "generation_config.json", "tokenizer*")))
