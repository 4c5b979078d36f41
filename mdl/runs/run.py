"""Run: a training's folder, the checkpoints in it, and which of them a user means."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import field

from mdl.errors import NotFound, Unsafe
from mdl.formatting import human_bytes, if_known
from mdl.notebook import html_table
from mdl.paths import RelPath, shown
from mdl.runs.checkpoint import CHECKPOINTS_FOLDER, FINAL, MODEL_FOLDER, NO_WEIGHTS, Checkpoint, checked, paths_of
from mdl.runs.choice import UNRECORDED, called, candidates_text, newer_incomplete
from mdl.runs.tree import Tree, folders_above, is_in, join
from mdl.values import value_class

UNRECOGNISED = "no model is recognised in this folder"


@value_class
class BesideModel:
    """What lies beside a run's model and is no part of it: ``checkpoints``, ``runs`` in its folder with the number of
    theirs, and the ``paths`` of both. What is in a folder of these is no part of the model either."""

    checkpoints: tuple[Checkpoint, ...] = ()
    runs: tuple[tuple[str, int], ...] = ()
    paths: frozenset[str] = frozenset()

    @property
    def count(self) -> int:
        """How many checkpoints these are."""
        return len(self.checkpoints) + sum(count for _, count in self.runs)


def _without_links(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The checkpoints, without those that are another one of them by a link, such as ``last`` for ``020000``."""
    by_files: dict[frozenset[str], Checkpoint] = {}
    for checkpoint in checkpoints:
        files = frozenset(entry.real for entry in checkpoint.entries)
        if files not in by_files or all(entry.path == entry.real for entry in checkpoint.entries):
            by_files[files] = checkpoint
    return list(by_files.values())


@value_class
class Run:
    """A training's folder.

    ``layout`` names the trainer; ``checkpoints`` are ordered by step; ``latest_note`` and ``best_note`` say why none is
    the latest, or the best. ``base`` is the folder below its own that the run is in, if it is the only one there.
    ``runs_below`` are folders with checkpoints of their own, and how many; they are not part of this run.
    ``is_recognised`` is False if the folder holds several runs, or weights of which nobody can say that they are one
    model: then these are candidates, and none is the latest.
    """

    name: str
    tree: Tree = field(repr=False)
    layout: str
    checkpoints: tuple[Checkpoint, ...]
    best_note: str = ""
    runs_below: tuple[tuple[str, int], ...] = ()
    latest_note: str = ""
    is_recognised: bool = True
    base: str = ""

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each checkpoint."""
        rows = []
        for one in self.checkpoints:
            step = if_known(one.step, str)
            rows.append((one.name, step, human_bytes(one.bytes), f"{len(one.files):,}", one.state, one.note))
        return html_table(("Name", "Step", "Size", "Files", "State", "Note"), rows, self.latest_note)

    @property
    def model_base(self) -> str:
        """Where the run's model is, below its folder: ``model`` if a checkpoint with weights lies there; else the run
        itself. A folder of that name may hold source code."""
        model_folder = join(self.base, MODEL_FOLDER)
        for checkpoint in self.checkpoints:
            if self.is_recognised and is_in(checkpoint.base, {model_folder}) and checkpoint.note != NO_WEIGHTS:
                return model_folder
        return ""

    @property
    def model_checkpoints(self) -> tuple[Checkpoint, ...]:
        """The checkpoints where the run's model is: one of them is the model, or none is finished yet."""
        base = self.model_base
        return tuple(checkpoint for checkpoint in self.checkpoints if not base or is_in(checkpoint.base, {base}))

    @property
    def finished_or_only(self) -> Checkpoint | None:
        """The finished model, or the only checkpoint; None if there are only several checkpoints, or none, or if nobody
        can say what the model is. The latest checkpoint is preferred if its name says that it is final: another file
        beside it, such as ``encoder.pt``, is at most a part of it."""
        checkpoints = self.model_checkpoints
        if not self.is_recognised:
            return None
        if len(checkpoints) == 1:
            return checkpoints[0]
        finished = [checkpoint for checkpoint in checkpoints if checkpoint.is_finished]
        named_final = [checkpoint for checkpoint in finished if not checkpoint.is_export]
        if named_final:
            return next((checkpoint for checkpoint in named_final if checkpoint.latest), named_final[-1])
        # An export is the model only where the training goes on: one elsewhere may be of an earlier run, or what this
        # training began with. Of several nobody can say which (ADR 160).
        others = [checkpoint for checkpoint in checkpoints if not checkpoint.is_finished]
        latest = [checkpoint for checkpoint in others if checkpoint.latest]
        folders = {checkpoint.base for checkpoint in latest or others}
        exports = [checkpoint for checkpoint in finished if folders <= {checkpoint.base}]
        return exports[0] if len(exports) == 1 else None

    @property
    def beside_model(self) -> BesideModel:
        """What is no part of the run's model; nothing if all checkpoints of the run are packed together."""
        model = self.finished_or_only
        if model is None and not self.model_base:
            return BesideModel()
        others = self._outside([model] if model else self.model_checkpoints)
        if model and model.name != FINAL:
            # A file alone: what lies beside it, and whose name does not tell, such as encoder/, may be a part of it.
            near = {checkpoint.name for checkpoint in self.model_checkpoints}
            others = [checkpoint for checkpoint in others if checkpoint.is_known or checkpoint.name not in near]
        names = {checkpoint.name for checkpoint in others}
        packed = [checkpoint for checkpoint in self.checkpoints if checkpoint.name not in names]
        above = {folder for checkpoint in packed for folder in folders_above(checkpoint.base)}
        paths = paths_of(others) - above - paths_of(packed)
        for checkpoint in others:
            if checkpoint.base in above:
                # The settings beside this file may be those of the model in a folder below (ADR 160).
                paths -= {entry.path for entry in checkpoint.files if not checkpoint.is_weights(entry)}
        paths.update(path for path, _ in self.runs_below)
        return BesideModel(tuple(others), self.runs_below, frozenset(paths))

    def _outside(self, checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
        """The checkpoints that have more than what is in these."""
        own = paths_of(checkpoints)
        return [
            checkpoint
            for checkpoint in self.checkpoints
            if not own.issuperset(entry.path for entry in checkpoint.entries)
        ]

    @property
    def latest(self) -> Checkpoint | None:
        return next((checkpoint for checkpoint in self.checkpoints if checkpoint.latest), None)

    @property
    def best(self) -> Checkpoint | None:
        return next((checkpoint for checkpoint in self.checkpoints if checkpoint.best), None)

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint called ``name``, with or without its suffix, or of that step or epoch, or the ``latest`` or
        ``best``; else the folder of that name if it holds weights.

        Raises `NotFound` with a list of what there is, `Unsafe` for text that cannot be a name.
        """
        self._check_name(name)
        marked = {"latest": self.latest, "best": self.best}
        chosen = marked.get(name)
        if chosen:
            return chosen
        matching = _without_links(called(self.checkpoints, name))
        if len(matching) == 1:
            return matching[0]
        if not matching and name not in marked:
            chosen = self._folder_of_weights(name)
        if chosen:
            return chosen
        raise NotFound(self._why_not_found(name, matching), item=str(self.tree.root), hint=self._advice())

    def _check_name(self, name: str) -> None:
        try:
            path = RelPath.parse(name)
        except Unsafe as error:
            raise error.but(message=error.message.replace("path", "checkpoint name", 1)) from error
        if "/" in path.text:
            hint = f"give its name, not its path; {self._there_are()}"
            raise Unsafe("checkpoint name refused: a slash", item=shown(name), hint=hint)

    def _folder_of_weights(self, name: str) -> Checkpoint | None:
        """The folder of this name if it holds weights, whatever wrote it."""
        for above in ("", CHECKPOINTS_FOLDER, MODEL_FOLDER):
            path = join(above, name)
            if not self.tree.is_folder(path):
                continue
            entries = self.tree.below(path)
            if any(entry.is_weights for entry in entries):
                return checked(self.tree, Checkpoint(name, path, entries, layout="plain"))
        return None

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
        if not self.is_recognised:
            raise NotFound(self.latest_note, item=str(self.tree.root), hint=self._advice())
        if not self.checkpoints:
            raise NotFound(UNRECOGNISED, item=str(self.tree.root), hint=self._advice())

    def _why_not_found(self, name: str, matching: list[Checkpoint]) -> str:
        if matching:
            return f"several checkpoints are called {name}: {', '.join(checkpoint.name for checkpoint in matching)}"
        if name == "best":
            return f"no best checkpoint: {self.best_note or UNRECORDED}"
        if name == "latest":
            return f"no latest checkpoint: {self.latest_note or UNRECOGNISED}"
        return f"no checkpoint {shown(name)}"

    def _advice(self) -> str:
        """Return what to do if nobody can say what is meant."""
        if self.latest:
            return f"--checkpoint {self.latest.name} is the latest; {self._there_are()}"
        way = self._there_are()
        if self.runs_below and not self.is_recognised:
            first = shown(str(self.tree.root / self.runs_below[0][0]))
            way = f"pack one of them: {shlex.join(['mdl', 'pack', first])}"
        elif self.checkpoints:
            way = f"name one with --checkpoint NAME; {way}"
        return f"{way}; --all packs the folder as it is"

    def _there_are(self) -> str:
        if not self.checkpoints:
            return "this run holds no checkpoint"
        return f"there are: {candidates_text(self.checkpoints, with_numbers=False)}"
