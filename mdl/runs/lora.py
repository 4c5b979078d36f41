"""Trainers of LoRAs that write one file per save, the finished one without a number: kohya sd-scripts and ai-toolkit.

kohya: ``{name}-000005``, ``{name}-step00001000``, ``{name}`` when finished, with ``…-state`` folders beside. The
number in a name counts epochs or steps; ``ss_steps`` in the file's header counts steps.

ai-toolkit: ``{name}_000000500`` files or folders, ``{name}`` when finished; variants of one step belong together.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from mdl.bounds import parse_json
from mdl.runs.checkpoint import Checkpoint, Found, checkpoint, parse_count
from mdl.runs.completeness import header_metadata
from mdl.runs.layout import Layout
from mdl.runs.tree import Entry, Tree, join, natural_key
from mdl.values import value_class

_KOHYA_UNNAMED = {"epoch", "at"}
"""The names that sd-scripts gives a run without a name, whose finished model is ``last``."""


@value_class
class _Lora:
    """What one of these trainers calls its files.

    Groups of ``saved``: ``run``, ``number``, and ``suffix``, without which it is a folder. ``epoch`` matches a number
    that counts epochs. A file without a number is a finished model if its run has files with one, or if there is one
    of the ``keys`` in its header. ``beside`` belongs to every checkpoint, ``to_resume`` to the newest.
    """

    saved: str
    keys: tuple[str, ...]
    epoch: str = "(?!)"
    beside: tuple[str, ...] = ()
    to_resume: tuple[str, ...] = ()

    def find(self, tree: Tree, base: str) -> Found | None:
        """The checkpoints in ``base``; None if it holds none."""
        saves = self._saves(tree, base)
        runs = self._runs(tree, saves)
        numbers = {number for run, number in saves if run in runs}
        newest = "" if "" in numbers else max(numbers, default="")
        rows: list[Checkpoint] = []
        finals: list[Checkpoint] = []
        for (run, number), kept in saves.items():
            if run not in runs:
                continue
            beside = (*self.beside, *self.to_resume) if number == newest else self.beside
            row = self._checkpoint(tree, base, number, kept, beside)
            if number:
                rows.append(row)
            else:
                finals.append(replace(row, last=0))
        rows.sort(key=lambda row: (row.step or 0, row.epoch or 0, natural_key(row.name)))
        finals.sort(key=lambda row: (row.step or 0, row.name))
        return Found((*rows, *finals)) if rows or finals else None

    def _saves(self, tree: Tree, base: str) -> dict[tuple[str, str], list[Entry]]:
        """The files and folders that may be checkpoints, by their run and number; "" is no number."""
        saves: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for entry in tree.children(base):
            name = re.fullmatch(self.saved, entry.name)
            if name is None or entry.name in self.to_resume:
                continue
            is_kind = entry.is_file if name["suffix"] else entry.kind == "folder"
            if is_kind:
                saves[name["run"], name["number"] or ""].append(entry)
        return saves

    def _runs(self, tree: Tree, saves: Mapping[tuple[str, str], list[Entry]]) -> set[str]:
        """The names that are a run's: that of a file with a number, or with a header of this trainer."""
        runs = {run for run, number in saves if number}
        if runs & _KOHYA_UNNAMED:
            runs.add("last")
        for (run, _), kept in saves.items():
            for entry in kept:
                header = header_metadata(tree, entry)
                if any(key in header for key in self.keys):
                    runs.add(run)
        return runs

    def _checkpoint(self, tree: Tree, base: str, number: str, kept: list[Entry], beside: tuple[str, ...]) -> Checkpoint:
        """The row is named after the file without CRITIC, LoRA or refiner in its name, which is the shortest."""
        main = min(kept, key=lambda entry: (len(entry.name), entry.name))
        if main.kind == "folder" and len(kept) == 1:
            return checkpoint(tree, main.name, main.path, tree.below(main.path), step=parse_count(number))
        step = _recorded_step(tree, main)
        counts_epochs = re.fullmatch(self.epoch, number) is not None
        epoch = parse_count(number) if counts_epochs else None
        if step is None and not counts_epochs:
            step = parse_count(number)
        paths = [*(_state(entry) for entry in kept), *(join(base, name) for name in beside)]
        entries = [*kept, *filter(None, map(tree.get, paths))]
        members = [part for entry in entries for part in tree.with_contents(entry)]
        return checkpoint(tree, main.name, base, members, step=step, epoch=epoch)


def _state(entry: Entry) -> str:
    """The folder with the state of the training that kohya saves beside a file."""
    return re.sub(r"\.[a-z]+$", "", entry.path) + "-state"


def _recorded_step(tree: Tree, entry: Entry) -> int | None:
    """The count of steps in the header, or in the state saved with the file."""
    header = header_metadata(tree, entry)
    try:
        info = parse_json(header.get("training_info", "{}"), allow_nan=True)
    except ValueError:
        info = {}
    told = info if isinstance(info, dict) else {}
    state = tree.json(join(_state(entry), "train_state.json"))
    for count in (header.get("ss_steps"), told.get("step"), state.get("current_step")):
        step = parse_count(count)
        if step is not None:
            return step
    return None


KOHYA = Layout(
    "kohya",
    trainers="kohya sd-scripts and musubi-tuner",
    find=_Lora(
        r"(?P<run>.+?)(-(step)?(?P<number>[0-9]{6}|(?<=step)[0-9]{8}))?(?P<suffix>\.(safetensors|ckpt|pt))",
        keys=("ss_steps", "ss_network_module"),
        epoch="[0-9]{6}",
    ).find,
    keep=("*.safetensors", "*.ckpt", "*.pt"),
    drop=(("*-state/*", "training state"), ("sample/*", "samples")),
    notes=(("*.ckpt", "is a pickle; reading it needs torch"),),
    ends_with_model=True,
)
AI_TOOLKIT = Layout(
    "ai-toolkit",
    trainers="ai-toolkit",
    find=_Lora(
        r"(CRITIC_)?(?P<run>.+?)(_LoRA)?(_(?P<number>[0-9]{9}))?(_refiner)?(?P<suffix>\.safetensors|\.pt)?",
        keys=("training_info",),
        beside=("config.yaml",),
        to_resume=("optimizer.pt", "learnable_snr.json"),
    ).find,
    keep=("*.safetensors", "*.pt", "*/*", "config.yaml", "*.json"),
    drop=(
        ("optimizer.pt", "optimizer state"),
        ("learnable_snr.json", "state of the loss's weighting"),
        ("samples/*", "samples"),
    ),
    ends_with_model=True,
)
