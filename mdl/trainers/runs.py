"""Run: a training's folder, the checkpoints in it, and which of them a user means.

Checkpoints are ordered by the numbers in their names, never by time: copies, archives and object stores all set
new times.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field, replace
from itertools import count
from pathlib import PurePosixPath

from mdl.errors import NotFound, Unsafe
from mdl.paths import RelPath, shown
from mdl.trainers.completeness import is_model, why_incomplete
from mdl.trainers.named import BEST, named_folders
from mdl.trainers.tree import Entry, Tree, join, natural_key
from mdl.values import value_class
from mdl.weights import is_weights

CHECKPOINTS_FOLDER = "checkpoints"
MODEL_FOLDER = "model"
"""The folder of a run that holds its finished model, if the run has one."""
FINAL = "final"
"""The name of a row for the finished model that lies beside the checkpoints."""
UNRECORDED = "none is recorded"


@value_class
class Checkpoint:
    """One saved state of a training.

    ``name`` is the name of its folder or file. ``base`` is the folder, below the run, that its members' names are
    relative to. ``entries`` are all that belongs to it, including what cannot be packed. ``step`` is the trainer's own
    count, in the trainer's unit. ``note`` says why it is not complete, or what else a user should know. ``layout``
    names the trainer that wrote it; if ``ends_with_model``, that trainer's last and latest file is the finished model.
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
    def is_finished(self) -> bool:
        """Whether it is the finished model, which some trainers write as the last of their checkpoints."""
        return self.name == FINAL or (self.latest and self.ends_with_model)

    def relative(self, entry: Entry) -> str:
        """The path of one of its entries below its base."""
        return entry.path[len(self.base) + 1 :] if self.base else entry.path


def checkpoint(
    tree: Tree,
    name: str,
    base: str,
    entries: Iterable[Entry],
    step: int | None = None,
    *,
    wrong: str = "",
    note: str = "",
) -> Checkpoint:
    """A checkpoint whose files were checked against their own indexes and headers.

    ``wrong`` says why it is incomplete, if the trainer's own marks show that.
    """
    row = Checkpoint(name, base, tuple(entries), step)
    wrong = wrong or why_incomplete(tree, row.entries)
    if not wrong and not any(entry.is_file and is_model(row.relative(entry)) for entry in row.entries):
        wrong = "it holds no weights"
    return replace(row, complete=not wrong, note=wrong or note)


def finished_model(tree: Tree, base: str, model: str, rows: Iterable[Checkpoint]) -> list[Checkpoint]:
    """The row of the model that lies in ``base`` beside the ``rows``; empty if no file there matches ``model``."""
    if not tree.files_named(base, re.compile(model).fullmatch):
        return []
    taken = [path for row in rows for path in (row.base, *(entry.path for entry in row.entries))]
    taken += [folder.path for folder in named_folders(tree, base)]
    return [checkpoint(tree, FINAL, base, tree.all_but(base, taken))]


def step_and_name(row: Checkpoint) -> tuple[object, ...]:
    """A sort key: by step, then by name as people count; rows without a step come last."""
    return row.step is None, row.step or 0, natural_key(PurePosixPath(row.name).stem), row.name


def parse_count(value: object) -> int | None:
    """A whole number of steps, as a number or in digits; None for anything else that a file may hold there."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18:
        return value
    return None


def newest_complete(rows: Sequence[Checkpoint]) -> Checkpoint | None:
    """The last of ``rows`` that is complete."""
    return next((row for row in reversed(rows) if row.complete), None)


@value_class
class Found:
    """The checkpoints that one layout found in a folder, oldest first; ``best_note`` says why none is the best.

    ``layout`` is the name of the layout, if a `Layout` has more than one.
    """

    checkpoints: tuple[Checkpoint, ...]
    best_note: str = ""
    layout: str = ""

    @classmethod
    def of(
        cls,
        rows: Sequence[Checkpoint],
        *,
        by_age: Sequence[Checkpoint] = (),
        best: Checkpoint | None = None,
        best_note: str = UNRECORDED,
        layout: str = "",
    ) -> Found:
        """Mark the latest and the best of ``rows``; the latest is the newest complete one of ``by_age``, else of all.

        If several rows have one name, the newest keeps it and the others are named after their whole path.
        """
        latest = newest_complete([*rows, *by_age])
        marked: list[Checkpoint] = []
        names: set[str] = set()
        for row in reversed(rows):
            name = next(name for name in _possible_names(row) if name not in names)
            names.add(name)
            marked.append(replace(row, name=name, latest=row is latest, best=row is best))
        return cls(tuple(reversed(marked)), "" if best else best_note, layout)

    def merged(self, inner: Found, folder: str) -> Found:
        """These rows and those of ``inner``, found in ``folder``; one row of all is the latest, one the best.

        A finished model that lies beside ``folder`` stays the last row, unless ``folder`` is where the run's model is.
        """
        rows = [one for one in self.checkpoints if one.name != FINAL and one.base != folder]
        finals = [] if folder == MODEL_FOLDER else self._finals_beside(folder)
        if not rows and not finals:
            return inner
        names = {one.name for one in (*rows, *finals)}
        has_latest, has_best = any(one.latest for one in rows), any(one.best for one in rows)
        layout, best_note = (self.layout, self.best_note) if rows else (inner.layout, inner.best_note)
        rows += [
            replace(one, latest=one.latest and not has_latest, best=one.best and not has_best)
            for one in inner.checkpoints
            if one.name not in names
        ]
        rows += [replace(one, latest=one.latest and not any(row.latest for row in rows)) for one in finals]
        return Found(tuple(rows), "" if any(one.best for one in rows) else best_note, layout)

    def _finals_beside(self, folder: str) -> list[Checkpoint]:
        """The finished model in the run's own folder, without what is in ``folder``; empty if there is none."""
        beside = [
            replace(one, entries=tuple(entry for entry in one.entries if not _is_in(entry, folder)))
            for one in self.checkpoints
            if one.name == FINAL and not one.base
        ]
        return [one for one in beside if any("/" not in entry.path and is_model(entry.path) for entry in one.files)]

    def with_folders(self, folders: Found, *, may_overlap: bool) -> Found:
        """These rows after those of ``folders`` that are not among them. What a row has is in no other one, unless they
        ``may_overlap``. If the trainer recorded no best, a folder that is named so is the best."""
        names = {row.name for row in self.checkpoints}
        taken = {row.base for row in self.checkpoints}
        taken |= {entry.path for row in self.checkpoints for entry in row.entries if not may_overlap}
        more = [row for row in folders.checkpoints if row.base not in taken and row.name not in names]
        more = [row for row in more if not taken & {entry.path for entry in row.entries}]
        newest = next((row for row in more if row.latest), None) or newest_complete(more)
        latest = None if any(row.latest for row in self.checkpoints) else newest
        bests = [row for row in more if re.fullmatch(BEST, row.name)]
        best = bests[0] if len(bests) == 1 and self.best_note == UNRECORDED else None
        more = [replace(row, latest=row is latest, best=row is best) for row in more]
        return Found((*more, *self.checkpoints), "" if best else self.best_note, self.layout)


def _is_in(entry: Entry, folder: str) -> bool:
    return entry.path == folder or entry.path.startswith(f"{folder}/")


def _possible_names(row: Checkpoint) -> Iterator[str]:
    """Its name, its path with hyphens (a user's choice may hold no slash), and that path with a number."""
    path = row.base if row.base.rpartition("/")[2] == row.name else join(row.base, row.name)
    yield row.name
    yield path.replace("/", "-")
    yield from (f"{path.replace('/', '-')}-{number}" for number in count(2))


@value_class
class Run:
    """``layout`` names the trainer; ``checkpoints`` are ordered by step; ``best_note`` says why none is the best.
    ``runs_below`` are folders with several checkpoints of their own, and how many; they are not part of this run."""

    name: str
    tree: Tree = field(repr=False)
    layout: str
    checkpoints: tuple[Checkpoint, ...]
    best_note: str = ""
    runs_below: tuple[tuple[str, int], ...] = ()

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
    def latest(self) -> Checkpoint | None:
        return next((one for one in self.checkpoints if one.latest), None)

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint called ``name``, with or without its suffix, or of that step, or the ``latest`` or ``best``;
        else the folder of that name if it holds weights.

        Raises `NotFound` with a list of what there is, `Unsafe` for text that cannot be a name.
        """
        try:
            if "/" in RelPath.parse(name).text:
                hint = f"give its name, not its path; {self._there_are()}"
                raise Unsafe("checkpoint name refused: a slash", item=shown(name), hint=hint)
        except Unsafe as error:
            error.message = error.message.replace("path", "checkpoint name", 1)
            raise
        if name in ("latest", "best"):
            marked = next((one for one in self.checkpoints if (one.latest if name == "latest" else one.best)), None)
            if marked:
                return marked
        matching = [one for one in self.checkpoints if one.name == name] or [
            one for one in self.checkpoints if PurePosixPath(one.name).stem == name
        ]
        if not matching and parse_count(name) is not None:
            matching = [one for one in self.checkpoints if one.step == parse_count(name)]
        if not matching and name not in ("latest", "best"):
            matching = self._folder_of_weights(name)
        if len(matching) == 1:
            return matching[0]
        raise NotFound(self._why_not_found(name, matching), item=str(self.tree.root), hint=self._there_are())

    def incomplete_after(self, chosen: Checkpoint) -> tuple[Checkpoint, ...]:
        """The incomplete checkpoints that are newer than ``chosen``."""
        after = self.checkpoints[self.checkpoints.index(chosen) + 1 :]
        return tuple(one for one in after if not one.complete)

    def finished(self) -> Checkpoint:
        """The finished model. Raises `NotFound` if there are only checkpoints."""
        *_, last = self.checkpoints or (None,)
        if last and (last.is_finished or len(self.checkpoints) == 1):
            return last
        raise NotFound(
            "no finished model in this run, only checkpoints" if self.checkpoints else "there is no model in this run",
            item=str(self.tree.root),
            hint=f"{self._advice()}; {self._there_are()}",
        )

    def _folder_of_weights(self, name: str) -> list[Checkpoint]:
        """The folder of this name if it holds weights, whatever wrote it."""
        for path in (join(above, name) for above in ("", CHECKPOINTS_FOLDER, MODEL_FOLDER)):
            if self.tree.is_folder(path) and any(is_weights(entry.name) for entry in self.tree.below(path)):
                return [replace(checkpoint(self.tree, name, path, self.tree.below(path)), layout="plain")]
        return []

    def _why_not_found(self, name: str, matching: list[Checkpoint]) -> str:
        if matching:
            return f"several checkpoints are called {name}: {', '.join(one.name for one in matching)}"
        if name == "best":
            return f"no best checkpoint: {self.best_note or UNRECORDED}"
        if name == "latest":
            return "no complete checkpoint" if self.checkpoints else "no checkpoint"
        return f"no checkpoint {shown(name)}"

    def _advice(self) -> str:
        return f"--checkpoint {self.latest.name} is the latest" if self.latest else "name one with --checkpoint"

    def _there_are(self) -> str:
        names = [one.name + ("" if one.complete else " (incomplete)") for one in self.checkpoints]
        return f"there are: {', '.join(map(shown, names))}" if names else "this run holds no checkpoint"
