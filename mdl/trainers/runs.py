"""Run: a training's folder, and which of its checkpoints a user means."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from mdl.errors import NotFound, Unsafe
from mdl.paths import RelPath, shown
from mdl.trainers import Found, recognise
from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.tree import Tree

_MODEL, _CHECKPOINTS = "model", "checkpoints"
_ENDING = ("kohya", "ai-toolkit", "nemo")
"""Trainers that write the finished model as one file, the last and latest."""


@dataclass(frozen=True)
class Run:
    """``layout`` names the trainer; ``checkpoints`` are in the order of their steps; ``best_note`` says why none is
    best."""

    name: str
    tree: Tree = field(repr=False)
    layout: str
    checkpoints: tuple[Checkpoint, ...]
    best_note: str = ""

    @classmethod
    def find(cls, folder: Path) -> Run:
        """Look at a run's folder. Raises `NotFound`, `Unsafe`, `OSError`."""
        tree = Tree.scan(folder)
        name = folder.name if folder.name not in ("", "..") else tree.root.name
        found = _found(tree)
        return cls(name or "run", tree, found.layout, found.checkpoints, found.best_note)

    @property
    def model_base(self) -> str:
        """Where the run's model is, below its folder: ``model`` where there is one, else the run itself."""
        return _MODEL if self.tree.is_folder(_MODEL) else ""

    def checkpoint(self, pick: str) -> Checkpoint:
        """The checkpoint called ``pick``, with or without its suffix, or the ``latest`` or ``best``.

        Raises `NotFound` telling what there is, `Unsafe` for what is no name.
        """
        _refuse_unsafe(pick)
        if pick in ("latest", "best"):
            marked = next((one for one in self.checkpoints if (one.latest if pick == "latest" else one.best)), None)
            if marked:
                return marked
        fitting = [one for one in self.checkpoints if one.name == pick] or [
            one for one in self.checkpoints if PurePosixPath(one.name).stem == pick
        ]
        if len(fitting) == 1:
            return fitting[0]
        raise NotFound(self._why_none(pick, fitting), item=str(self.tree.root), hint=self._there_are())

    def passed_over(self, chosen: Checkpoint) -> tuple[Checkpoint, ...]:
        """The incomplete checkpoints that come after ``chosen``: what it stands in for as the latest or best."""
        after = self.checkpoints[self.checkpoints.index(chosen) + 1 :]
        return tuple(one for one in after if not one.complete)

    def finished(self) -> Checkpoint:
        """The finished model. Raises `NotFound` where there are only checkpoints."""
        *_, last = self.checkpoints or (None,)
        if last and (last.name == "final" or len(self.checkpoints) == 1 or (last.latest and last.layout in _ENDING)):
            return last
        raise NotFound(
            "no finished model in this run, only checkpoints" if self.checkpoints else "there is no model in this run",
            item=str(self.tree.root),
            hint=f"name one with --checkpoint; {self._there_are()}",
        )

    def _why_none(self, pick: str, fitting: list[Checkpoint]) -> str:
        if fitting:
            return f"several checkpoints are called {pick}: {', '.join(one.name for one in fitting)}"
        if pick == "best":
            return f"no best checkpoint: {self.best_note or 'none is recorded'}"
        if pick == "latest":
            return "no complete checkpoint" if self.checkpoints else "no checkpoint"
        return f"no checkpoint {shown(pick)}"

    def _there_are(self) -> str:
        names = [one.name + ("" if one.complete else " (incomplete)") for one in self.checkpoints]
        return f"there are: {', '.join(map(shown, names))}" if names else "this run holds no checkpoint"


def _refuse_unsafe(pick: str) -> None:
    try:
        RelPath.parse(pick)
    except Unsafe as error:
        error.message = error.message.replace("path", "checkpoint name", 1)
        raise
    if "/" in pick:
        raise Unsafe("checkpoint name refused: a slash", item=shown(pick))


def _found(tree: Tree) -> Found:
    """What the run's folder holds, and its ``model`` and ``checkpoints``: the rows of all, one latest, one best."""
    found = recognise(tree)
    for folder in (_CHECKPOINTS, _MODEL):
        if tree.is_folder(folder):
            found = _merged(found, recognise(tree, folder), folder)
    return found


def _merged(outer: Found, inner: Found, folder: str) -> Found:
    if not inner.checkpoints or (folder == _CHECKPOINTS and inner.layout == "plain"):
        return outer
    rows = [one for one in outer.checkpoints if one.name != "final" and one.base != folder]
    if not rows:
        return inner
    has_latest, has_best = any(one.latest for one in rows), any(one.best for one in rows)
    rows += [
        replace(one, latest=one.latest and not has_latest, best=one.best and not has_best)
        for one in inner.checkpoints
        if one.name not in {row.name for row in rows}
    ]
    return Found(outer.layout, tuple(rows), "" if any(one.best for one in rows) else outer.best_note)
