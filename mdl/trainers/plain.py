"""A folder of weights that no trainer's layout fits: one checkpoint, all that is in it."""

from __future__ import annotations

from mdl.trainers.layout import Found, Layout, newest, saved
from mdl.trainers.sieve import Sieve
from mdl.trainers.tree import Tree
from mdl.trainers.weights import is_weights


def find(tree: Tree, base: str) -> Found:
    entries = list(tree.below(base))
    has_weights = any(entry.kind in ("file", "leaves") and is_weights(entry.name) for entry in entries)
    rows = [saved(tree, "final", base, entries)] if has_weights else []
    return Found.of("plain", rows, latest=newest(rows))


_WEIGHTS = (
    "safetensors",
    "bin",
    "pt",
    "pth",
    "ckpt",
    "gguf",
    "onnx",
    "h5",
    "keras",
    "msgpack",
    "nemo",
    "tflite",
    "pb",
    "npz",
)
_MAYBE = "may contain optimizer state; stripping it needs torch"
LAYOUT = Layout(
    ("plain",),
    find,
    Sieve(
        keep=(*(f"*.{suffix}" for suffix in _WEIGHTS), "*.json", "*.txt", "*.model", "*.yaml", "*.yml", "*.md", "*.py"),
        notes=tuple((f"*.{suffix}", _MAYBE) for suffix in ("pt", "pth", "ckpt")),
    ),
)
