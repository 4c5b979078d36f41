"""ai-toolkit: ``{name}_000000500`` files or folders, ``{name}`` when finished; variants of one step belong together."""

from __future__ import annotations

import json
import re
from collections import defaultdict

from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.layout import Found, Layout, join, newest, ordered, saved, whole
from mdl.trainers.natural import count
from mdl.trainers.sieve import Sieve
from mdl.trainers.single_files import metadata
from mdl.trainers.tree import Entry, Tree

_NAME = re.compile(r"(CRITIC_)?(?P<run>.+?)(_LoRA)?(_(?P<step>[0-9]{9}))?(_refiner)?(?P<suffix>\.safetensors|\.pt)?")
_TO_RESUME = ("optimizer.pt", "learnable_snr.json")
_Saves = dict[tuple[str, str], list[Entry]]
"""What was saved by run and step; the step is "" at the end."""


def find(tree: Tree, base: str) -> Found | None:
    saves = _saves(tree, base)
    runs = {run for run, step in saves if step}
    runs |= {run for (run, _), kept in saves.items() if any("training_info" in metadata(tree, entry) for entry in kept)}
    saves = {key: kept for key, kept in saves.items() if key[0] in runs}
    if not saves:
        return None
    newest_step = "" if any(not step for _, step in saves) else max(step for _, step in saves)
    rows: dict[bool, list[Checkpoint]] = {True: [], False: []}
    for (_, step), kept in saves.items():
        besides = ("config.yaml", *(_TO_RESUME if step == newest_step else ()))
        rows[bool(step)].append(_checkpoint(tree, base, kept, step, besides))
    numbered, finals = ordered(rows[True]), ordered(rows[False])
    return Found.of("ai-toolkit", [*numbered, *finals], latest=newest(finals, numbered))


def _saves(tree: Tree, base: str) -> _Saves:
    saves: _Saves = defaultdict(list)
    for entry in tree.children(base):
        name = _NAME.fullmatch(entry.name)
        is_one = name and entry.kind in (("file", "leaves") if name["suffix"] else ("folder",))
        if name and is_one and entry.name not in _TO_RESUME:
            saves[name["run"], name["step"] or ""].append(entry)
    return saves


def _checkpoint(tree: Tree, base: str, kept: list[Entry], step: str, besides: tuple[str, ...]) -> Checkpoint:
    """The file without CRITIC, LoRA or refiner in its name, the shortest, gives the row its name."""
    main = min(kept, key=lambda entry: (len(entry.name), entry.name))
    number = _recorded_step(tree, main) if not step else int(step)
    if main.kind == "folder" and len(kept) == 1:
        return saved(tree, main.name, main.path, tree.below(main.path), number)
    beside = [entry for name in besides if (entry := tree.get(join(base, name)))]
    entries = [part for entry in (*kept, *beside) for part in whole(tree, entry)]
    return saved(tree, main.name, base, entries, number)


def _recorded_step(tree: Tree, entry: Entry) -> int | None:
    """The step that the header's ``training_info`` tells."""
    try:
        info = json.loads(metadata(tree, entry).get("training_info", "null"))
    except (ValueError, RecursionError):
        return None
    return count(info.get("step")) if isinstance(info, dict) else None


LAYOUT = Layout(
    ("ai-toolkit",),
    find,
    Sieve(
        keep=("*.safetensors", "*.pt", "*/*", "config.yaml", "*.json"),
        drop=(
            ("optimizer.pt", "optimizer state"),
            ("learnable_snr.json", "state of the loss's weighting"),
            ("samples/*", "samples"),
        ),
    ),
)
