"""Trainers: what a run's folder looks like. Each layout is asked in turn whether a folder is its own.

A new layout is a row in ``patterns`` or a module of its own, and its line in `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from mdl.trainers import hugging_face, lightning, lora, patterns
from mdl.trainers.layout import InferenceFiles, Layout
from mdl.trainers.runs import CHECKPOINTS_FOLDER, FINAL, MODEL_FOLDER, Checkpoint, Found, Run
from mdl.trainers.tree import Tree

__all__ = ["LAYOUTS", "find_run", "inference_files", "recognise"]

LAYOUTS: tuple[Layout, ...] = (
    hugging_face.DIFFUSERS,
    hugging_face.HF_RUN,
    lightning.NEMO,
    lightning.LIGHTNING,
    patterns.ULTRALYTICS,
    patterns.COQUI,
    patterns.FAIRSEQ,
    hugging_face.HF_MODEL,
    patterns.DEEPSPEED,
    patterns.FSDP,
    lora.AI_TOOLKIT,
    lora.KOHYA,
    patterns.TENSORFLOW,
    patterns.SAVED_MODEL,
    patterns.KERAS,
    patterns.NAMED_LAYOUT,
    patterns.PLAIN,
)
"""The first layout that recognises a folder has it, so those with the most telling names come first."""


def find_run(folder: Path) -> Run:
    """Scan a training's folder: which trainer wrote it, and which checkpoints it holds.

    Raises `NotFound` if there is no such folder, `Unsafe` for more than a million entries, `OSError`.
    """
    tree = Tree.scan(folder)
    found = recognise(tree)
    for inner in (CHECKPOINTS_FOLDER, MODEL_FOLDER):
        inside = recognise(tree, inner) if tree.is_folder(inner) else None
        if inside and inside.checkpoints and (inner == MODEL_FOLDER or inside.layout != "plain"):
            found = found.merged(inside, inner)
    is_plain = found.layout == patterns.PLAIN.name
    of_any_name = is_plain or all(row.name != FINAL for row in found.checkpoints)
    for base in ("", CHECKPOINTS_FOLDER, MODEL_FOLDER):
        folders = patterns.find_folders(tree, base, of_any_name=of_any_name)
        found = found.with_folders(folders, may_overlap=is_plain)
    name = folder.name if folder.name not in ("", "..") else tree.root.name
    return Run(name or "run", tree, found.layout, found.checkpoints, found.best_note, _runs_below(tree, found))


def _runs_below(tree: Tree, found: Found) -> tuple[tuple[str, int], ...]:
    """The folders in a run that hold several checkpoints of their own, and how many."""
    known = {CHECKPOINTS_FOLDER, MODEL_FOLDER, *(row.base for row in found.checkpoints if row.step is not None)}
    others = (one.path for one in tree.subfolders() if one.path not in known)
    inside = {path: next(_found(tree, path, LAYOUTS[:-1]), None) for path in others}  # without plain
    return tuple((path, len(one.checkpoints)) for path, one in inside.items() if one and len(one.checkpoints) > 1)


def recognise(tree: Tree, base: str = "") -> Found:
    """The checkpoints in ``base``, a folder below the run; of layout ``plain`` if no trainer's layout fits."""
    return next(_found(tree, base, LAYOUTS))


def _found(tree: Tree, base: str, layouts: Iterable[Layout]) -> Iterator[Found]:
    """What each of the ``layouts`` that recognise ``base`` finds there."""
    for layout in layouts:
        if found := layout.find(tree, base):
            rows = tuple(
                replace(one, layout=layout.name, ends_with_model=layout.ends_with_model) for one in found.checkpoints
            )
            yield replace(found, layout=found.layout or layout.name, checkpoints=rows)


def inference_files(tree: Tree, checkpoint: Checkpoint) -> InferenceFiles:
    """The files of a checkpoint that inference needs. Raises `NotFound` if nothing that can be loaded would be left."""
    name = _own_layout(tree, checkpoint)
    layout = next(one for one in LAYOUTS if one.name == name)
    return layout.inference_files(tree, checkpoint)


def _own_layout(tree: Tree, row: Checkpoint) -> str:
    """The name of the layout that a checkpoint is packed by: of a folder that is known by its name alone, its contents
    tell."""
    named = patterns.NAMED_LAYOUT.name
    if row.layout not in ("", named) or row.name == FINAL:
        return row.layout
    inside = recognise(tree, row.base).checkpoints
    is_model = len(inside) == 1 and inside[0].base == row.base and inside[0].name == FINAL
    return inside[0].layout if is_model else named
