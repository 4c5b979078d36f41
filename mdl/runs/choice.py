"""Choice: which of several checkpoints is the latest, and which the best. Pure: neither times nor the order matter.

Only equal axes are compared: steps with steps, epochs with epochs. A metric is never an order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from mdl.formatting import listed
from mdl.paths import shown
from mdl.runs.checkpoint import Axis, Checkpoint, Found, parse_count
from mdl.runs.tree import join
from mdl.weights.known_formats import stem_of

UNRECORDED = "none is recorded"
_NAMED = 10
"""How many candidates a message names."""
_AXES: tuple[tuple[Axis, ...], ...] = (("epoch", "step"), ("step",), ("epoch",))
"""The first of these that all candidates have decides. A step that counts the whole training never falls as the epochs
grow, and one that counts within its epoch does: in both cases the epoch comes first (ADR 104)."""
Chosen = tuple[Checkpoint | None, str]
"""The checkpoint; or None, and why nobody can say which it is."""


def common_axes(rows: Sequence[Checkpoint]) -> tuple[Axis, ...]:
    """Return the axes by which some checkpoints are ordered; none if no axis is common to all of them."""
    for axes in _AXES:
        if all(row.counts.keys() >= set(axes) for row in rows):
            return axes
    return ()


def latest_of(rows: Sequence[Checkpoint]) -> Chosen:
    """Return the latest of some checkpoints; None without a reason if there is none at all.

    It is what the trainer recorded as such; else the trainer's own last file; else the one that is furthest on the
    axes that all complete ones have.
    """
    if not rows:
        return None, ""
    whole = [row for row in rows if row.complete]
    if not whole:
        return None, "no complete checkpoint"
    candidates = _greatest(whole, lambda row: row.claim)
    first = candidates[0]
    if first.is_recorded:
        return _only(candidates, "several are recorded as the latest")
    if first.last is not None:
        newest = _greatest(candidates, lambda row: (row.last, stem_of(row.name) == "latest"))
        return _only(newest, "several are called the last")
    return _furthest(candidates)


def _furthest(rows: Sequence[Checkpoint]) -> Chosen:
    """Return the checkpoint that is furthest on the axes that all have; of equal ones, one that is not called best."""
    trainings = {row.others for row in rows}
    if len(trainings) > 1:
        return _only(rows, "they are of several trainings")
    axes = common_axes(rows)
    if axes:
        newest = _greatest(rows, lambda row: (row.counts_on(axes), not row.says_best, row.order))
        return _only(newest, f"several have the same {axes[-1]}")
    counted = [row for row in rows if row.is_counted]
    if not counted:
        return _only(rows, "no name and no record tells")
    if len(counted) < len(rows):
        return _only(rows, "only some have a step or an epoch")
    return _only(rows, "steps and epochs do not compare")


def best_of(rows: Sequence[Checkpoint], recorded: str) -> Chosen:
    """Return the best of some checkpoints: the one that the trainer ``recorded`` by its name, else the only one whose
    name says so."""
    called_best = [row for row in rows if row.says_best]
    missing = UNRECORDED
    if recorded:
        called_best = [row for row in rows if row.name == recorded]
        missing = f"{recorded} is recorded as best and is gone"
    if not called_best:
        return None, missing
    whole = [row for row in called_best if row.complete]
    if not whole:
        return None, f"{called_best[-1].name} is not complete"
    return _only(_greatest(whole, lambda row: row.place), "several are called best")


def choose(found: Found) -> Found:
    """Return the same checkpoints, one of them marked as the latest and one as the best, or why none is.

    If several have one name, the newest keeps it, and the others are named after their whole path.
    """
    rows = named_apart(found.checkpoints)
    latest, latest_note = latest_of(rows)
    best, best_note = best_of(rows, found.recorded_best)
    marked = tuple(replace(row, latest=row is latest, best=row is best) for row in rows)
    return replace(found, checkpoints=marked, latest_note=latest_note, best_note=best_note)


def named_apart(rows: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return the rows under names that differ. Of one name the last row keeps it; others are named after their path."""
    named: dict[str, Checkpoint] = {}
    for row in reversed(rows):
        names = _possible_names(row)
        name = next(names)
        while name in named:
            name = next(names)
        named[name] = replace(row, name=name)
    return list(reversed(named.values()))


def _possible_names(row: Checkpoint) -> Iterator[str]:
    """Its name, its path with hyphens (a user's choice may hold no slash), and that path with a number."""
    path = row.base
    if row.base.rpartition("/")[2] != row.name:
        path = join(row.base, row.name)
    long_name = path.replace("/", "-")
    yield row.name
    yield long_name
    for number in count(2):
        yield f"{long_name}-{number}"


def newer_incomplete(rows: Sequence[Checkpoint], chosen: Checkpoint) -> tuple[Checkpoint, ...]:
    """Return the incomplete checkpoints that would be newer than ``chosen``: those that would be the latest if they
    were complete."""
    newer = []
    for row in rows:
        if row.complete or row.is_aside:
            continue
        latest, _ = latest_of([chosen, replace(row, complete=True)])
        if latest is None or latest.name != chosen.name:
            newer.append(row)
    return tuple(newer)


def called(rows: Sequence[Checkpoint], name: str) -> list[Checkpoint]:
    """Return the checkpoints that ``name`` may mean: those that it fits best; none if it fits none."""
    matching = [row for row in rows if _fit(row, name)]
    return _greatest(matching, lambda row: _fit(row, name))


def _fit(row: Checkpoint, name: str) -> int:
    """Return how well what a user or a record calls a checkpoint fits one; 0 if it does not. A name fits better than a
    number, a step better than an epoch, and a step of the training better than an average or a copy of the best."""
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
    if row.epoch == number:
        return 1 + is_plain
    return 0


def candidates_text(rows: Sequence[Checkpoint], *, with_numbers: bool = True) -> str:
    """Return the names of some checkpoints, with their numbers if they are wanted: ten, and how many more there are."""
    names = []
    for row in rows:
        details = []
        if with_numbers:
            details = [f"{axis} {count}" for axis, count in row.counts.items()]
        if not details and not row.complete:
            details = ["incomplete"]
        name = shown(row.name)
        if details:
            name = f"{name} ({', '.join(details)})"
        names.append(name)
    return listed(names, most=_NAMED)


def _greatest(rows: Sequence[Checkpoint], key: Callable[[Checkpoint], Any]) -> list[Checkpoint]:
    """Return the rows whose key is the greatest; none of none."""
    top = max(map(key, rows), default=None)
    return [row for row in rows if key(row) == top]


def _only(rows: Sequence[Checkpoint], why: str) -> Chosen:
    """Return the only one of some rows, or of those that are links to one file; else None, and why with the
    candidates."""
    real_files = {tuple(sorted(entry.real for entry in row.files)) for row in rows}
    are_one_file = len(real_files) == 1 and () not in real_files
    if len(rows) > 1 and not are_one_file:
        return None, f"{why}: {candidates_text(rows)}"
    return min(rows, key=lambda row: row.name), ""
