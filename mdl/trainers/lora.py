"""Trainers of LoRAs that write one file per save, the finished one without a number: kohya sd-scripts and ai-toolkit.

kohya: ``{name}-000005``, ``{name}-step00001000``, ``{name}`` when finished, with ``…-state`` folders beside. The
number in a name counts epochs or steps, which cannot be compared; ``ss_steps`` in the file's header can.

ai-toolkit: ``{name}_000000500`` files or folders, ``{name}`` when finished; variants of one step belong together.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass

from mdl.trainers.layout import (
    COUNTS_EPOCHS,
    Layout,
    by_step,
    checkpoint,
    header_metadata,
    parse_count,
    single_checkpoint,
)
from mdl.trainers.runs import Checkpoint, Found
from mdl.trainers.tree import Entry, Tree, join

_KOHYA = re.compile(r"(?P<stem>(?P<run>.+?)(-(?P<epoch>[0-9]{6})|-step(?P<step>[0-9]{8}))?)\.(safetensors|ckpt|pt)")
_KOHYA_UNNAMED = {"epoch", "at"}
"""The names that sd-scripts gives a run without a name, whose finished model is ``last``."""


@dataclass(frozen=True)
class _KohyaFile:
    """``state`` is the path of the folder with the training state that may lie beside."""

    entry: Entry
    run: str
    epoch: str
    number: str
    metadata: dict[str, str]
    state: str

    @classmethod
    def look(cls, tree: Tree, base: str, entry: Entry, name: re.Match[str]) -> _KohyaFile:
        state, epoch = join(base, f"{name['stem']}-state"), name["epoch"] or ""
        return cls(entry, name["run"], epoch, epoch or name["step"] or "", header_metadata(tree, entry), state)

    def is_finished_model(self, tree: Tree, runs: set[str]) -> bool:
        has_header = "ss_steps" in self.metadata or "ss_network_module" in self.metadata
        return not self.number and (self.run in runs or has_header or tree.is_folder(self.state))

    def checkpoint(self, tree: Tree, base: str) -> Checkpoint:
        """Its count of steps is in the header, or in the state saved with the file."""
        step, note = parse_count(self.metadata.get("ss_steps")), ""
        if step is None:
            step = parse_count(tree.json(join(self.state, "train_state.json")).get("current_step"))
        if step is None and self.number:
            step, note = int(self.number), COUNTS_EPOCHS if self.epoch else "its number counts steps"
        state = tree.get(self.state)
        entries = [self.entry, *(tree.with_contents(state) if state and state.kind == "folder" else ())]
        return checkpoint(tree, self.entry.name, base, entries, step, note=note)


def _find_kohya(tree: Tree, base: str) -> Found | None:
    names = [(entry, _KOHYA.fullmatch(entry.name)) for entry in tree.files_named(base, _KOHYA.fullmatch)]
    files = [_KohyaFile.look(tree, base, entry, name) for entry, name in names if name]
    runs = {file.run for file in files if file.number}
    runs |= {"last"} if runs & _KOHYA_UNNAMED else set()
    rows = by_step(file.checkpoint(tree, base) for file in files if file.number)
    finals = by_step(file.checkpoint(tree, base) for file in files if file.is_finished_model(tree, runs))
    in_steps = [row for row in rows if row.note != COUNTS_EPOCHS]
    return Found.of("kohya", [*rows, *finals], newest=[finals, in_steps]) if rows or finals else None


KOHYA = Layout(
    ("kohya",),
    _find_kohya,
    keep=("*.safetensors", "*.ckpt", "*.pt"),
    drop=(("*-state/*", "training state"), ("sample/*", "samples")),
    notes=(("*.ckpt", "is a pickle; reading it needs torch"),),
    ends_with_model=True,
)


_AI = re.compile(r"(CRITIC_)?(?P<run>.+?)(_LoRA)?(_(?P<step>[0-9]{9}))?(_refiner)?(?P<suffix>\.safetensors|\.pt)?")
_AI_TO_RESUME = ("optimizer.pt", "learnable_snr.json")
_AiSaves = dict[tuple[str, str], list[Entry]]
"""What was saved by run and step; the step is "" at the end."""


def _find_ai_toolkit(tree: Tree, base: str) -> Found | None:
    saves = _ai_saves(tree, base)
    runs = {run for run, step in saves if step}
    runs |= {run for (run, _), kept in saves.items() if any("training_info" in header_metadata(tree, e) for e in kept)}
    saves = {key: kept for key, kept in saves.items() if key[0] in runs}
    if not saves:
        return None
    newest_step = "" if any(not step for _, step in saves) else max(step for _, step in saves)
    rows: dict[bool, list[Checkpoint]] = {True: [], False: []}
    for (_, step), kept in saves.items():
        beside = ("config.yaml", *(_AI_TO_RESUME if step == newest_step else ()))
        rows[bool(step)].append(_ai_checkpoint(tree, base, kept, step, beside))
    finals = by_step(rows[False])
    return Found.of("ai-toolkit", [*by_step(rows[True]), *finals], newest=[finals])


def _ai_saves(tree: Tree, base: str) -> _AiSaves:
    saves: _AiSaves = defaultdict(list)
    for entry in tree.children(base):
        name = _AI.fullmatch(entry.name)
        is_save = name and entry.kind in (("file", "escapes") if name["suffix"] else ("folder",))
        if name and is_save and entry.name not in _AI_TO_RESUME:
            saves[name["run"], name["step"] or ""].append(entry)
    return saves


def _ai_checkpoint(tree: Tree, base: str, kept: list[Entry], step: str, beside: tuple[str, ...]) -> Checkpoint:
    """The row is named after the file without CRITIC, LoRA or refiner in its name, which is the shortest."""
    main = min(kept, key=lambda entry: (len(entry.name), entry.name))
    number = int(step) if step else _ai_recorded_step(tree, main)
    if main.kind == "folder" and len(kept) == 1:
        return single_checkpoint(tree, main, number)
    others = [entry for name in beside if (entry := tree.get(join(base, name)))]
    entries = [part for entry in (*kept, *others) for part in tree.with_contents(entry)]
    return checkpoint(tree, main.name, base, entries, number)


def _ai_recorded_step(tree: Tree, entry: Entry) -> int | None:
    """The step in the header's ``training_info``."""
    try:
        info = json.loads(header_metadata(tree, entry).get("training_info", "null"))
    except (ValueError, RecursionError):
        return None
    return parse_count(info.get("step")) if isinstance(info, dict) else None


AI_TOOLKIT = Layout(
    ("ai-toolkit",),
    _find_ai_toolkit,
    keep=("*.safetensors", "*.pt", "*/*", "config.yaml", "*.json"),
    drop=(
        ("optimizer.pt", "optimizer state"),
        ("learnable_snr.json", "state of the loss's weighting"),
        ("samples/*", "samples"),
    ),
    ends_with_model=True,
)
