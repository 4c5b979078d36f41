"""Run: a training's folder, the checkpoints in it, and which of them a user means."""

from __future__ import annotations

from dataclasses import field, replace

from mdl.errors import NotFound, Unsafe
from mdl.formatting import counted, listed
from mdl.paths import RelPath, shown
from mdl.runs.checkpoint import CHECKPOINTS_FOLDER, MODEL_FOLDER, Checkpoint, checkpoint, parse_count
from mdl.runs.choice import UNRECORDED, candidates_text, newer_incomplete
from mdl.runs.tree import Tree, join
from mdl.values import value_class
from mdl.weights.known_formats import is_weights, stem_of

_MOST_RUNS = 10
"""How many runs in one folder a message names."""


@value_class
class Run:
    """A training's folder.

    ``layout`` names the trainer; ``checkpoints`` are ordered by step; ``latest_note`` and ``best_note`` say why none is
    the latest, or the best. ``runs_below`` are folders with several checkpoints of their own, and how many; they are
    not part of this run. ``is_recognised`` is False if the folder holds several runs, or weights of which nobody can
    say that they are one model: then its rows are candidates, and none is the latest.
    """

    name: str
    tree: Tree = field(repr=False)
    layout: str
    checkpoints: tuple[Checkpoint, ...]
    best_note: str = ""
    runs_below: tuple[tuple[str, int], ...] = ()
    latest_note: str = ""
    is_recognised: bool = True

    @property
    def model_base(self) -> str:
        """Where the run's model is, below its folder: ``model`` if there is such a folder, else the run itself."""
        return MODEL_FOLDER if self.tree.is_folder(MODEL_FOLDER) else ""

    @property
    def model_beside_checkpoints(self) -> Checkpoint | None:
        """The finished model in the run's own folder, if other checkpoints lie beside it."""
        if self.model_base or len(self.checkpoints) < 2:
            return None
        last = self.checkpoints[-1]
        return last if last.is_finished and not last.base else None

    @property
    def finished_or_only(self) -> Checkpoint | None:
        """The finished model, or the only checkpoint; None if there are only several checkpoints, or none."""
        if not self.checkpoints:
            return None
        last = self.checkpoints[-1]
        return last if last.is_finished or len(self.checkpoints) == 1 else None

    def checkpoints_outside(self, model: Checkpoint) -> list[Checkpoint]:
        """The checkpoints that have more than what is in a finished model."""
        own = {entry.path for entry in model.entries}
        return [row for row in self.checkpoints if not own.issuperset(entry.path for entry in row.entries)]

    @property
    def latest(self) -> Checkpoint | None:
        return next((row for row in self.checkpoints if row.latest), None)

    @property
    def best(self) -> Checkpoint | None:
        return next((row for row in self.checkpoints if row.best), None)

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint called ``name``, with or without its suffix, or of that step or epoch, or the ``latest`` or
        ``best``; else the folder of that name if it holds weights.

        Raises `NotFound` with a list of what there is, `Unsafe` for text that cannot be a name.
        """
        self._check_name(name)
        marked = {"latest": self.latest, "best": self.best}.get(name)
        if marked:
            return marked
        matching = self._called(name)
        if len(matching) == 1:
            return matching[0]
        raise NotFound(self._why_not_found(name, matching), item=str(self.tree.root), hint=self._advice())

    def _check_name(self, name: str) -> None:
        try:
            if "/" in RelPath.parse(name).text:
                hint = f"give its name, not its path; {self._there_are()}"
                raise Unsafe("checkpoint name refused: a slash", item=shown(name), hint=hint)
        except Unsafe as error:
            raise error.but(message=error.message.replace("path", "checkpoint name", 1)) from error

    def _called(self, name: str) -> list[Checkpoint]:
        """The checkpoints that ``name`` may mean: those that it fits best."""
        fits = [_fit(row, name) for row in self.checkpoints]
        best = max(fits, default=0)
        if best:
            return [row for row, fit in zip(self.checkpoints, fits, strict=True) if fit == best]
        if name in ("latest", "best"):
            return []
        return self._folder_of_weights(name)

    def incomplete_after(self, chosen: Checkpoint) -> tuple[Checkpoint, ...]:
        """The incomplete checkpoints that are newer than ``chosen``."""
        return newer_incomplete(self.checkpoints, chosen)

    def finished(self) -> Checkpoint:
        """The finished model. Raises `NotFound` if there are only checkpoints, or if none is recognised."""
        self.check_recognised()
        model = self.finished_or_only
        if model:
            return model
        raise NotFound("no finished model in this run, only checkpoints", item=str(self.tree.root), hint=self._advice())

    def check_recognised(self) -> None:
        """Raises `NotFound` with the candidates if nobody can say what the model of this folder is."""
        if self.is_recognised and self.checkpoints:
            return
        raise NotFound(self._why_unrecognised(), item=str(self.tree.root), hint=self._advice())

    def _why_unrecognised(self) -> str:
        if self.runs_below:
            return f"this folder holds several runs: {self._runs()}"
        if self.checkpoints:
            return f"no model is recognised in this folder; it holds {candidates_text(self.checkpoints)}"
        return "no model is recognised in this folder"

    def _runs(self) -> str:
        """The runs in this folder with the number of their checkpoints."""
        runs = list(self.runs_below)
        if not self.is_recognised:
            runs += [(row.base, 1) for row in self.checkpoints]
        named = [f"{shown(path)} ({counted(number, 'checkpoint')})" for path, number in runs]
        return listed(named, most=_MOST_RUNS)

    def _folder_of_weights(self, name: str) -> list[Checkpoint]:
        """The folder of this name if it holds weights, whatever wrote it."""
        for above in ("", CHECKPOINTS_FOLDER, MODEL_FOLDER):
            path = join(above, name)
            if not self.tree.is_folder(path):
                continue
            entries = self.tree.below(path)
            if any(is_weights(entry.name) for entry in entries):
                return [replace(checkpoint(self.tree, name, path, entries), layout="plain")]
        return []

    def _why_not_found(self, name: str, matching: list[Checkpoint]) -> str:
        if matching:
            return f"several checkpoints are called {name}: {', '.join(row.name for row in matching)}"
        if name in ("latest", "best") and not self.is_recognised:
            return self._why_unrecognised()
        if name == "best":
            return f"no best checkpoint: {self.best_note or UNRECORDED}"
        if name == "latest":
            return f"no latest checkpoint: {self.latest_note}" if self.latest_note else "no checkpoint"
        return f"no checkpoint {shown(name)}"

    def _advice(self) -> str:
        """Return what to do if nobody can say what is meant."""
        all_of_it = "--all packs the folder as it is"
        if self.runs_below and not self.is_recognised:
            first = shown(str(self.tree.root / self.runs_below[0][0]))
            return f"pack one of them: mdl pack {first}; {all_of_it}"
        if not self.checkpoints:
            return f"{self._there_are()}; {all_of_it}"
        if not self.is_recognised:
            return f"name one with --checkpoint NAME; {self._there_are()}; {all_of_it}"
        way = f"--checkpoint {self.latest.name} is the latest" if self.latest else "name one with --checkpoint NAME"
        return f"{way}; {self._there_are()}"

    def _there_are(self) -> str:
        rows = self.checkpoints
        return f"there are: {candidates_text(rows, with_numbers=False)}" if rows else "this run holds no checkpoint"


def _fit(row: Checkpoint, name: str) -> int:
    """Return how well what a user calls a checkpoint fits one; 0 if it does not. A name fits better than a number, a
    step better than an epoch, and a step of the training better than an average or a copy of the best."""
    if row.name == name:
        return 6
    if stem_of(row.name) == name:
        return 5
    number = parse_count(name)
    if number is None:
        return 0
    is_plain = not row.is_derived and not row.says_best
    if row.step == number:
        return 3 + is_plain
    return 1 + is_plain if row.epoch == number else 0
