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

from mdl.trainers.inference_filter import InferenceFilter
from mdl.trainers.layout import (
    COUNTS_EPOCHS,
    Layout,
    by_step,
    checkpoint,
    folder_checkpoint,
    header_metadata,
    parse_count,
)
from mdl.trainers.runs import Checkpoint, Found
from mdl.trainers.tree import Entry, Tree, join

_KOHYA = re.compile(r"(?P<stem>(?P<run>.+?)(-(?P<epoch>[0-9]{6})|-step(?P<step>[0-9]{8}))?)\.(safetensors|ckpt|pt)")
_KOHYA_UNNAMED = {"epoch", "at"}
"""The names that sd-scripts gives a run without a name, whose finished model is ``last``."""


@dataclass(frozen=True)
class _KohyaFile:
    entry: Entry
    name: re.Match[str]
    metadata: dict[str, str]
    state: str
    """The path of the folder with the training state that may lie beside."""

    @property
    def is_numbered(self) -> bool:
        return bool(self.name["epoch"] or self.name["step"])


def _find_kohya(tree: Tree, base: str) -> Found | None:
    files = [
        _KohyaFile(entry, name, header_metadata(tree, entry), join(base, f"{name['stem']}-state"))
        for entry in tree.files_named(base, _KOHYA.fullmatch)
        if (name := _KOHYA.fullmatch(entry.name))
    ]
    numbered = [file for file in files if file.is_numbered]
    runs = {file.name["run"] for file in numbered}
    runs |= {"last"} if runs & _KOHYA_UNNAMED else set()
    finished = [
        file for file in files if not file.is_numbered and (file.name["run"] in runs or _is_kohya_model(tree, file))
    ]
    if not numbered and not finished:
        return None
    finals = by_step(_kohya_checkpoint(tree, base, file) for file in finished)
    rows = by_step(_kohya_checkpoint(tree, base, file) for file in numbered)
    in_steps = [row for row in rows if row.note != COUNTS_EPOCHS]
    return Found.of("kohya", [*rows, *finals], newest=[finals, in_steps])


def _is_kohya_model(tree: Tree, file: _KohyaFile) -> bool:
    return "ss_steps" in file.metadata or "ss_network_module" in file.metadata or tree.is_folder(file.state)


def _kohya_checkpoint(tree: Tree, base: str, file: _KohyaFile) -> Checkpoint:
    step, note = _kohya_steps(tree, file), ""
    if step is None and file.is_numbered:
        step = int(file.name["epoch"] or file.name["step"])
        note = COUNTS_EPOCHS if file.name["epoch"] else "its number counts steps"
    state = tree.get(file.state)
    entries = [file.entry, *(tree.with_contents(state) if state and state.kind == "folder" else ())]
    return checkpoint(tree, file.entry.name, base, entries, step, note=note)


def _kohya_steps(tree: Tree, file: _KohyaFile) -> int | None:
    """The count of steps in the header, or in the state saved with the file."""
    steps = parse_count(file.metadata.get("ss_steps"))
    return parse_count(tree.json(join(file.state, "train_state.json")).get("current_step")) if steps is None else steps


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
    numbered, finals = by_step(rows[True]), by_step(rows[False])
    return Found.of("ai-toolkit", [*numbered, *finals], newest=[finals])


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
        return folder_checkpoint(tree, main, number)
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


KOHYA = Layout(
    ("kohya",),
    _find_kohya,
    InferenceFilter(
        keep=("*.safetensors", "*.ckpt", "*.pt"),
        drop=(("*-state/*", "training state"), ("sample/*", "samples")),
        notes=(("*.ckpt", "is a pickle; reading it needs torch"),),
    ),
    ends_with_model=True,
)
AI_TOOLKIT = Layout(
    ("ai-toolkit",),
    _find_ai_toolkit,
    InferenceFilter(
        keep=("*.safetensors", "*.pt", "*/*", "config.yaml", "*.json"),
        drop=(
            ("optimizer.pt", "optimizer state"),
            ("learnable_snr.json", "state of the loss's weighting"),
            ("samples/*", "samples"),
        ),
    ),
    ends_with_model=True,
)
