"""Trainers: what a run's folder looks like. Each layout of the table is asked in turn whether a folder is its own.

A new layout is a row in a file of `mdl.runs.trainers`, and its place in `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from mdl.runs.checkpoint import FINAL, Checkpoint, Found
from mdl.runs.choice import choose
from mdl.runs.known_layouts import LAYOUTS
from mdl.runs.layout import Companions, InferenceFiles, Layout, companions
from mdl.runs.run import Run
from mdl.runs.scan import find_in, recognise_layout
from mdl.runs.trainers.any_trainer import NAMED_LAYOUT
from mdl.runs.tree import Tree

__all__ = ["LAYOUTS", "companions_of", "find_run", "inference_files", "recognise", "run_of_listing"]


def find_run(folder: Path) -> Run:
    """Scan a training's folder: which trainer wrote it, and which checkpoints it holds.

    Raises `NotFound` if there is no such folder, `Unsafe` for more than a million entries, `OSError`.
    """
    tree = Tree.scan(folder)
    name = folder.name if folder.name not in ("", "..") else tree.root.name
    return find_in(tree, name or "run")


def run_of_listing(name: str, files: Mapping[str, int], read: Callable[[str], bytes] | None) -> Run:
    """The run that files elsewhere are, from their paths and sizes in bytes; ``read`` brings a small one, and is None
    if none can be read.

    What only the weights themselves, or records that cannot be read, could tell is not known: a checkpoint counts as
    complete then.
    """
    return find_in(Tree.of_listing(files, read), name)


def recognise(tree: Tree, base: str = "") -> Found:
    """The checkpoints in ``base``, a folder below the run; of layout ``plain`` if no trainer's layout fits."""
    return choose(recognise_layout(tree, base, LAYOUTS))


def inference_files(tree: Tree, checkpoint: Checkpoint) -> InferenceFiles:
    """The files of a checkpoint that inference needs. Raises `NotFound` if nothing that can be loaded would be left."""
    checkpoint = _as_its_contents_tell(tree, checkpoint)
    return _layout_of(checkpoint).inference_files(tree, checkpoint)


def companions_of(tree: Tree, checkpoint: Checkpoint) -> Companions:
    """Return what lies beside and above a checkpoint and belongs to it."""
    checkpoint = _as_its_contents_tell(tree, checkpoint)
    return companions(tree, checkpoint, _layout_of(checkpoint))


def _layout_of(checkpoint: Checkpoint) -> Layout:
    return next(layout for layout in LAYOUTS if layout.name == checkpoint.layout)


def _as_its_contents_tell(tree: Tree, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with the layout that it is packed by: of a folder that is known by its name alone, its contents
    tell."""
    if checkpoint.layout not in ("", NAMED_LAYOUT.name) or checkpoint.name == FINAL:
        return checkpoint
    inside = recognise(tree, checkpoint.base).checkpoints
    is_model = len(inside) == 1 and inside[0].base == checkpoint.base and inside[0].name == FINAL
    if not is_model:
        return replace(checkpoint, layout=NAMED_LAYOUT.name)
    return replace(checkpoint, layout=inside[0].layout, weights=inside[0].weights)
