"""Layouts: how each trainer names what it saves. One family, asked in turn which of them a folder is of.

Rows go by the number in their names, never by time: storage, archives and copies all set times anew.
"""

from __future__ import annotations

from dataclasses import replace

from mdl.trainers import (
    ai_toolkit,
    coqui,
    deepspeed,
    diffusers,
    fairseq,
    fsdp,
    hf_trainer,
    keras,
    kohya,
    lightning,
    nemo,
    plain,
    tensorflow,
    ultralytics,
)
from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.layout import Found, Layout
from mdl.trainers.sieve import Inference
from mdl.trainers.tree import Tree
from mdl.trainers.wholeness import broken

__all__ = ["LAYOUTS", "Found", "Inference", "Layout", "broken", "inference", "recognise"]

LAYOUTS = (
    diffusers.LAYOUT,
    hf_trainer.RUN,
    nemo.LAYOUT,
    lightning.LAYOUT,
    ultralytics.LAYOUT,
    coqui.LAYOUT,
    fairseq.LAYOUT,
    hf_trainer.MODEL,
    deepspeed.LAYOUT,
    fsdp.LAYOUT,
    ai_toolkit.LAYOUT,
    kohya.LAYOUT,
    tensorflow.LAYOUT,
    keras.LAYOUT,
    plain.LAYOUT,
)
"""The first that knows the folder has it: the more telling its names, the earlier it is asked."""


def recognise(tree: Tree, base: str = "") -> Found:
    """The checkpoints in ``base``, a folder below the run; of layout ``plain`` where no trainer's fits."""
    tried = (layout.find(tree, base) for layout in LAYOUTS)
    found = next(one for one in tried if one is not None)
    return replace(found, checkpoints=tuple(replace(one, layout=found.layout) for one in found.checkpoints))


def inference(tree: Tree, layout: str, checkpoint: Checkpoint) -> Inference:
    """What of the checkpoint inference needs. Raises `NotFound` where nothing that can be loaded would be left."""
    chosen = next(one for one in LAYOUTS if layout in one.names)
    sifted = chosen.sieve.sift(tree, checkpoint)
    return Inference(sifted.keep, sifted.drop, sifted.unknown, (*sifted.notes, *chosen.remarks(tree, checkpoint)))
