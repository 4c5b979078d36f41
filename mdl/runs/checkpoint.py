"""Checkpoints: one saved state of a training, as it was found in a run's folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import field, replace
from typing import Literal

from mdl.bounds import OutOfBounds, parse_whole_number, whole_number
from mdl.notebook import Tabular
from mdl.runs.completeness import is_model, why_incomplete
from mdl.runs.tree import Entry, Tree
from mdl.values import value_class
from mdl.weights.known_formats import folder_kind_of, stem_of

CHECKPOINTS_FOLDER = "checkpoints"
MODEL_FOLDER = "model"
"""The folder of a run that holds its finished model, if the run has one."""
FINAL = "final"
"""The name of a row for the finished model that lies beside the checkpoints."""
_CALLED_FINAL = re.compile(r"(^|[-_.=+])final($|[-_.=+])", re.IGNORECASE)
"""What many trainers call the model that they write at the end: ``model_final.pth``, ``final-model.pt``."""
_FINISHED_FORMAT = ".nemo"
"""The suffix of NeMo's finished model; what it goes on from is a ``.ckpt``."""
NO_WEIGHTS = "it holds no weights"
"""The note of what is called like a checkpoint, and is none."""
Axis = Literal["step", "epoch"]


@value_class
class Checkpoint(Tabular):
    """One saved state of a training.

    ``name`` is the name of its folder or file. ``base`` is the folder, below the run, that its members' names are
    relative to. ``entries`` are all that belongs to it, including what cannot be packed. ``step`` and ``epoch`` are the
    trainer's own counts. ``note`` says why it is not complete, or what else a user should know. ``layout`` names the
    trainer that wrote it; if ``ends_with_model``, that trainer's last and latest file is the finished model.

    What tells which is the latest and the best: ``is_recorded``: the trainer's own record names it as the latest.
    ``last``: it is the trainer's last file, and of several the one with the highest number. ``says_best``: its name
    says that it is the best. ``is_derived``: it is the finished model, an average, or something else that is no step of
    the training. ``others`` are counts of something else in its name, such as a seed. ``run_name`` is what the name
    calls the training; None if it does not call it anything. ``place`` counts the folders of one run, the newest has
    the highest; ``order`` tells apart what has the same step.

    ``weights`` matches the names of files that hold weights though their suffix does not tell.
    """

    name: str
    base: str
    entries: tuple[Entry, ...] = field(repr=False)
    step: int | None = None
    complete: bool = True
    latest: bool = False
    best: bool = False
    note: str = ""
    layout: str = ""
    ends_with_model: bool = False
    epoch: int | None = None
    is_recorded: bool = False
    last: int | None = None
    says_best: bool = False
    is_derived: bool = False
    others: tuple[tuple[str, int], ...] = ()
    run_name: str | None = None
    place: int = 0
    order: int = 0
    weights: str = r"(?!)"

    @property
    def state(self) -> str:
        """``complete`` or ``incomplete``, and whether it is the ``latest`` and the ``best`` one."""
        words = ["complete" if self.complete else "incomplete"]
        if self.latest:
            words.append("latest")
        if self.best:
            words.append("best")
        return ", ".join(words)

    @property
    def paths(self) -> set[str]:
        """The paths of all that belongs to it, and of its base."""
        return {self.base, *(entry.path for entry in self.entries)}

    @property
    def files(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind == "file"]

    @property
    def bytes(self) -> int:
        return sum(entry.stamp.size for entry in self.files)

    @property
    def modified_ns(self) -> int:
        """The newest of its files' times, in nanoseconds since 1970; for display, never for ordering."""
        return max((entry.stamp.mtime_ns for entry in self.files), default=0)

    @property
    def counts(self) -> dict[Axis, int]:
        """Its epoch and its step, as far as it has them."""
        counts: dict[Axis, int] = {}
        if self.epoch is not None:
            counts["epoch"] = self.epoch
        if self.step is not None:
            counts["step"] = self.step
        return counts

    @property
    def is_counted(self) -> bool:
        """Whether it has a step or an epoch."""
        return len(self.counts) > 0

    def counts_on(self, axes: Iterable[Axis]) -> list[int]:
        """Its count on each of these axes; 0 on one that it has none on."""
        return [self.counts.get(axis, 0) for axis in axes]

    def has_more_steps_than(self, other: Checkpoint) -> bool:
        """Tell whether its step is known to be a later one than the other's."""
        if self.step is None or other.step is None:
            return False
        return self.step > other.step

    @property
    def is_known(self) -> bool:
        """Whether its name says what it is."""
        return self.is_counted or self.says_best or self.last is not None

    @property
    def is_aside(self) -> bool:
        """Whether it is no step of the training, so that it is the latest only if there is nothing else."""
        if self.is_recorded or self.last is not None:
            return False
        return self.name == FINAL or self.is_derived or (self.says_best and not self.is_counted)

    @property
    def claim(self) -> tuple[bool, int, bool]:
        """What speaks for it to be the latest: the trainer recorded it as such; it lies in the newest folder of the
        run; it is the trainer's own last file. The greatest claim decides, and only equal ones are compared."""
        if self.is_aside:
            return False, -1, False
        return self.is_recorded, self.place, self.last is not None

    @property
    def is_finished(self) -> bool:
        """Whether it says that it is the finished model, which some trainers write as the last of their checkpoints."""
        if self.note == NO_WEIGHTS:
            return False
        if self.name == FINAL or self.is_export:
            return True
        is_end = self.ends_with_model or _CALLED_FINAL.search(stem_of(self.name)) is not None
        return self.latest and self.last is not None and is_end

    @property
    def is_export(self) -> bool:
        """Whether it is in a format that only finished models have. It may be the one that the training began with."""
        return self.name.endswith(_FINISHED_FORMAT)

    def is_weights(self, entry: Entry) -> bool:
        """Tell whether one of its files holds weights, by its name."""
        return entry.is_file and (entry.is_weights or re.fullmatch(self.weights, entry.name) is not None)

    def is_of_model(self, entry: Entry) -> bool:
        """Tell whether one of its files holds the model, and not the training's state alone, by its name."""
        is_of_model = is_model(entry, self.relative(entry)) or re.fullmatch(self.weights, entry.name) is not None
        return entry.is_file and is_of_model

    def relative(self, entry: Entry) -> str:
        """The path of one of its entries below its base."""
        return entry.path.removeprefix(f"{self.base}/")


def paths_of(checkpoints: Iterable[Checkpoint]) -> set[str]:
    """The paths of all that belongs to some checkpoints, and of their bases."""
    return set().union(*(checkpoint.paths for checkpoint in checkpoints))


def checked(tree: Tree, checkpoint: Checkpoint, wrong: str = "") -> Checkpoint:
    """The checkpoint, as complete or not as its files' own indexes and end records show. ``wrong`` says why it is
    incomplete, if the trainer's own marks show that."""
    wrong = wrong or why_incomplete(tree, checkpoint.entries)
    if not wrong and not _holds_weights(tree, checkpoint):
        wrong = NO_WEIGHTS
    return replace(checkpoint, complete=not wrong, note=wrong)


def _holds_weights(tree: Tree, checkpoint: Checkpoint) -> bool:
    """Tell whether a file is a model's by its name, or a folder is one by its format's marker."""
    folders = set()
    for entry in checkpoint.entries:
        if checkpoint.is_of_model(entry):
            return True
        if entry.is_file:
            folders.add(entry.folder)
    return any(folder_kind_of(tree.names(folder)) for folder in folders)


def parse_count(value: object) -> int | None:
    """A whole number of steps, as a number or in digits; None for anything else that a file may hold there."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return parse_whole_number(value) if isinstance(value, str) else whole_number(value)
    except OutOfBounds:
        return None


@value_class
class Found:
    """The checkpoints that were found in a folder, oldest first. ``recorded_best`` is the name that the trainer
    recorded as the best. ``layout`` is the name of the layout, if a `Layout` has more than one.

    ``latest_note`` and ``best_note`` say why none is marked as such, once that was decided.
    """

    checkpoints: tuple[Checkpoint, ...]
    recorded_best: str = ""
    layout: str = ""
    latest_note: str = ""
    best_note: str = ""
