"""kohya sd-scripts: ``{name}-000005``, ``{name}-step00001000``, ``{name}`` when finished; ``…-state`` folders beside.

The number in a name counts epochs or steps, which cannot be compared; ``ss_steps`` in the file's header can.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.layout import Found, Layout, join, newest, ordered, saved
from mdl.trainers.natural import count
from mdl.trainers.sieve import Sieve
from mdl.trainers.single_files import files_named, metadata
from mdl.trainers.tree import Entry, Tree

_FILE = re.compile(r"(?P<stem>(?P<run>.+?)(-(?P<epoch>[0-9]{6})|-step(?P<step>[0-9]{8}))?)\.(safetensors|ckpt|pt)")
_UNNAMED = {"epoch", "at"}
"""What sd-scripts calls a run without a name, whose finished model is ``last``."""


@dataclass(frozen=True)
class _File:
    entry: Entry
    name: re.Match[str]
    facts: dict[str, str]

    @property
    def is_numbered(self) -> bool:
        return bool(self.name["epoch"] or self.name["step"])


def find(tree: Tree, base: str) -> Found | None:
    files = [
        _File(entry, name, metadata(tree, entry))
        for entry in files_named(tree, base, _FILE.fullmatch)
        if (name := _FILE.fullmatch(entry.name))
    ]
    runs = {file.name["run"] for file in files if file.is_numbered}
    runs |= {"last"} if runs & _UNNAMED else set()
    numbered = [file for file in files if file.is_numbered]
    finished = [
        file for file in files if not file.is_numbered and (file.name["run"] in runs or _is_ours(tree, base, file))
    ]
    if not numbered and not finished:
        return None
    finals = ordered(_checkpoint(tree, base, file) for file in finished)
    rows = ordered(_checkpoint(tree, base, file) for file in numbered)
    in_steps = [row for row in rows if row.note != _EPOCHS]
    return Found.of("kohya", [*rows, *finals], latest=newest(finals, in_steps, rows))


def _is_ours(tree: Tree, base: str, file: _File) -> bool:
    return "ss_steps" in file.facts or "ss_network_module" in file.facts or tree.is_folder(_state_of(base, file))


def _state_of(base: str, file: _File) -> str:
    return join(base, f"{file.name['stem']}-state")


_EPOCHS = "its number counts epochs"


def _checkpoint(tree: Tree, base: str, file: _File) -> Checkpoint:
    state = _state_of(base, file)
    step, note = _steps(tree, file, state), ""
    if step is None and file.name["epoch"]:
        step, note = int(file.name["epoch"]), _EPOCHS
    elif step is None and file.name["step"]:
        step, note = int(file.name["step"]), "its number counts steps"
    kept = [file.entry]
    if tree.is_folder(state):
        kept += [entry for entry in [tree.get(state), *tree.below(state)] if entry]
    return saved(tree, file.entry.name, base, kept, step, note=note)


def _steps(tree: Tree, file: _File, state: str) -> int | None:
    """The steps that the header counts, or the state saved with it."""
    steps = count(file.facts.get("ss_steps"))
    train = tree.json(join(state, "train_state.json")) if steps is None else None
    return count(train.get("current_step")) if isinstance(train, dict) else steps


LAYOUT = Layout(
    ("kohya",),
    find,
    Sieve(
        keep=("*.safetensors", "*.ckpt", "*.pt"),
        drop=(("*-state/*", "training state"), ("sample/*", "samples")),
        notes=(("*.ckpt", "is a pickle; reading it needs torch"),),
    ),
)
