"""Patterns: trainers that write one file per checkpoint, and whose names tell all there is to know. A table.

A row says which names are checkpoints, which number in a name is the step, which file is the best one, and what
lies beside. A trainer that needs more than this has a module of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf

from mdl.trainers.completeness import is_weights
from mdl.trainers.layout import COUNTS_EPOCHS, OPTIMIZER_INSIDE, Layout, by_step, checkpoint, parse_count
from mdl.trainers.runs import FINAL, Checkpoint, Found
from mdl.trainers.tree import IsName, Tree, join

Place = tuple[str, str]
"""A folder that holds checkpoints, and the folder that the names of their members begin in."""


def _here_or_in_checkpoints(tree: Tree, base: str, is_name: IsName) -> list[Place]:
    folders = (base, join(base, "checkpoints"))
    return next(([(folder, folder)] for folder in folders if tree.files_named(folder, is_name)), [])


def _here_or_in_only_run(tree: Tree, base: str, is_name: IsName) -> list[Place]:
    """Coqui: the folder itself, or the only ``{run}-{date}`` in it; a configuration lies beside the checkpoints."""

    def is_run(folder: str) -> bool:
        return tree.is_file(join(folder, "config.json")) and bool(tree.files_named(folder, is_name))

    if is_run(base):
        return [(base, base)]
    inner = [child.path for child in tree.subfolders(base) if is_run(child.path)]
    return [(inner[0], inner[0])] if len(inner) == 1 else []


def _experiments(tree: Tree, base: str, is_name: IsName) -> list[Place]:
    """Ultralytics: every ``weights`` folder below, the experiment with the highest number last (``train10``)."""
    if {"best.pt", "last.pt"} <= {entry.name for entry in tree.files_named(base, is_name)}:
        return [(base, base)]
    folders = [folder for folder in tree.folders_named(base, "weights") if tree.files_named(folder, is_name)]
    return [(folder, folder.rpartition("/")[0]) for folder in folders]


def _last_group(name: re.Match[str]) -> int | None:
    return int(name[name.lastindex]) if name.lastindex else None


@dataclass(frozen=True)
class Pattern:
    """One trainer. ``file`` matches the name of a checkpoint in full; ``step`` reads the number in that name.

    Rows with a step come first, in ``order``; then the best and the other rows without one. The latest is the last
    complete row with a step, or, if ``unnumbered_is_latest``, a row without a step that is not the best. ``beside``
    are globs of files that belong to every checkpoint. ``note`` gives what a user should know of a row. ``keep`` and
    ``notes`` are those of a `Layout`.
    """

    name: str
    file: re.Pattern[str]
    keep: tuple[str, ...]
    is_best: Callable[[Checkpoint], object]
    places: Callable[[Tree, str, IsName], list[Place]] = _here_or_in_checkpoints
    step: Callable[[re.Match[str]], int | None] = _last_group
    order: Callable[[list[Checkpoint]], list[Checkpoint]] = by_step
    note: Callable[[re.Match[str], int | None], str] = lambda _name, _step: ""
    beside: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    unnumbered_is_latest: bool = False

    @property
    def layout(self) -> Layout:
        return Layout((self.name,), self._find, self.keep, drop=(), notes=self.notes)

    def _find(self, tree: Tree, base: str) -> Found | None:
        rows: list[Checkpoint] = []
        groups: list[list[Checkpoint]] = []
        best = None
        places = self.places(tree, base, self.file.fullmatch)
        for folder, place in places:
            saved = by_step(self._checkpoints(tree, folder, place))
            numbered = self.order([row for row in saved if row.step is not None])
            bests = [row for row in saved if row.step is None and self.is_best(row)]
            others = [row for row in saved if row.step is None and not self.is_best(row)]
            rows += [*numbered, *bests, *others]
            by_age = [others, numbered] if self.unnumbered_is_latest else [numbered, others]
            groups = [*by_age, bests, *groups]
            best = next((row for row in reversed(numbered) if self.is_best(row)), bests[0] if len(bests) == 1 else None)
        return Found.of(self.name, rows, newest=groups, best=best) if places else None

    def _checkpoints(self, tree: Tree, folder: str, base: str) -> Iterator[Checkpoint]:
        beside = [one for one in tree.children(base) if any(fnmatchcase(one.name, glob) for glob in self.beside)]
        for entry in tree.files_named(folder, self.file.fullmatch):
            name = self.file.fullmatch(entry.name)
            assert name
            step = self.step(name)
            yield checkpoint(tree, entry.name, base, [*beside, entry], step, note=self.note(name, step))


def _epochs_after_their_updates(rows: list[Checkpoint]) -> list[Checkpoint]:
    """fairseq: the checkpoint of a whole epoch comes after those of all updates in it."""

    def age(row: Checkpoint) -> tuple[int, float]:
        epoch, *update = [int(number) for number in re.findall("[0-9]+", row.name)]
        return epoch, update[0] if update else inf

    return sorted(rows, key=age)


_KERAS_NUMBERS = re.compile(r"(?<![A-Za-z0-9])[0-9]+(?:\.[0-9]+)?(?![0-9])|(?<=epoch)[0-9]+|(?<=ep)[0-9]+")
_KERAS_BEST = re.compile(r"(.*[^A-Za-z])?best([^A-Za-z].*)?", re.IGNORECASE)


def _keras_epoch(name: re.Match[str]) -> int | None:
    """The last whole number in a name that the user chose; ``0.34`` is a metric, ``resnet50`` a model."""
    whole = [number for number in _KERAS_NUMBERS.findall(name["stem"] or name["weights"]) if "." not in number]
    return parse_count(whole[-1]) if whole else None


COQUI = Pattern(
    "coqui",
    re.compile(r"(?:checkpoint(?=_)|best_model)(?:_([0-9]+))?\.pth"),
    keep=("checkpoint_*.pth", "best_model*.pth", "config.json", "*speaker*", "*language_ids*", "vocab*"),
    is_best=lambda row: row.name.startswith("best_model"),
    places=_here_or_in_only_run,
    note=lambda _name, step: "a copy of the best model" if step is None else "",
    beside=("config.json", "*speaker*", "*language_ids*", "vocab*"),
    notes=(("checkpoint_*.pth", OPTIMIZER_INSIDE), ("best_model*.pth", OPTIMIZER_INSIDE)),
).layout

FAIRSEQ = Pattern(
    "fairseq",
    re.compile(r"checkpoint([0-9]+)\.pt|checkpoint_([0-9]+)_([0-9]+)\.pt|checkpoint_(?:best|last)\.pt"),
    keep=("*.pt", "dict.*.txt"),
    is_best=lambda row: row.name == "checkpoint_best.pt",
    order=_epochs_after_their_updates,
    note=lambda name, _step: COUNTS_EPOCHS if name[1] else "",
    beside=("dict.*.txt",),
    notes=(("*.pt", OPTIMIZER_INSIDE),),
    unnumbered_is_latest=True,
).layout

ULTRALYTICS = Pattern(
    "ultralytics",
    re.compile(r"best\.pt|last\.pt|epoch([0-9]+)\.pt"),
    keep=("*.pt", "args.yaml", "results.csv"),
    is_best=lambda row: row.name == "best.pt",
    places=_experiments,
    note=lambda _name, step: "" if step is None else COUNTS_EPOCHS,
    beside=("args.yaml", "results.csv"),
    notes=(("*.pt", "contains optimizer state unless the training came to its end; stripping it needs torch"),),
    unnumbered_is_latest=True,
).layout

KERAS = Pattern(
    "keras",
    re.compile(r"(?P<stem>.+)\.keras|(?P<weights>.+)\.weights\.h5"),
    keep=("*.keras", "*.h5"),
    is_best=lambda row: row.step is None and _KERAS_BEST.fullmatch(row.name),
    step=_keras_epoch,
    note=lambda _name, step: "" if step is None else "its number is taken for the epoch",
    notes=(
        ("*.keras", "contains optimizer state; saving it again without needs Keras"),
        ("*.weights.h5", "is weights alone; the code that builds the model is needed"),
    ),
).layout


def _find_weights(tree: Tree, base: str) -> Found:
    entries = list(tree.below(base))
    has_weights = any(entry.kind in ("file", "escapes") and is_weights(entry.name) for entry in entries)
    rows = [checkpoint(tree, FINAL, base, entries)] if has_weights else []
    return Found.of("plain", rows)


PLAIN = Layout(
    ("plain",),
    _find_weights,
    keep=(
        *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.onnx", "*.h5", "*.keras", "*.msgpack"),
        *("*.nemo", "*.tflite", "*.pb", "*.npz"),
        *("*.json", "*.txt", "*.model", "*.yaml", "*.yml", "*.md", "*.py"),
    ),
    notes=tuple(
        (glob, "may contain optimizer state; stripping it needs torch") for glob in ("*.pt", "*.pth", "*.ckpt")
    ),
)
"""A folder of weights whose names fit no trainer: one checkpoint, all that is in it."""
