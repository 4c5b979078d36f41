"""Choice: which of several checkpoints is the latest, and which the best. Pure: neither times nor the order matter.

Only equal axes are compared: steps with steps, epochs with epochs. A metric is never an order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from enum import IntEnum
from itertools import count
from typing import Any, Literal

from mdl.formatting import listed
from mdl.paths import shown
from mdl.runs.checkpoint import Checkpoint, Found
from mdl.runs.tree import join
from mdl.weights.known_formats import stem_of

UNRECORDED = "none is recorded"
_NAMED = 10
"""How many candidates a message names."""
Axis = Literal["step", "epoch"]
_AXES: tuple[Axis, ...] = ("step", "epoch")
Chosen = tuple[Checkpoint | None, str]
"""The checkpoint; or None, and why nobody can say which it is."""


class _Claim(IntEnum):
    """What speaks for a checkpoint to be the latest. The strongest claim decides, and only equal ones are compared."""

    ASIDE = 0
    """It is no step of the training, so it is the latest only if there is nothing else."""
    STEP = 1
    LAST = 2
    """It is the trainer's own last file."""
    RECORDED = 3
    """The trainer recorded it as the latest."""

    @classmethod
    def of(cls, row: Checkpoint) -> _Claim:
        if row.is_recorded:
            return cls.RECORDED
        if row.last is not None:
            return cls.LAST
        return cls.ASIDE if row.is_aside else cls.STEP


def latest_of(rows: Sequence[Checkpoint]) -> Chosen:
    """Return the latest of some checkpoints; None without a reason if there is none at all.

    It is what the trainer recorded as such; else the trainer's own last file; else the one with the most steps, or
    epochs, if all that are complete have them.
    """
    whole = _of_newest_place([row for row in rows if row.complete])
    if not whole:
        return None, "no complete checkpoint" if rows else ""
    candidates = _greatest(whole, _Claim.of)
    claim = _Claim.of(candidates[0])
    if claim == _Claim.RECORDED:
        return _only(candidates, "several are recorded as the latest")
    if claim == _Claim.LAST:
        newest = _greatest(candidates, lambda row: (row.last, stem_of(row.name) == "latest"))
        return _only(newest, "several are called the last")
    return _latest_by_count(candidates)


def _latest_by_count(rows: Sequence[Checkpoint]) -> Chosen:
    """Return the checkpoint with the highest count on an axis that all of them have, steps before epochs."""
    trainings = {row.others for row in rows}
    if len(trainings) > 1:
        return _only(rows, "they are of several trainings")
    for axis in _AXES:
        if None not in [row.count(axis) for row in rows]:
            return _only(_greatest(rows, _newest_by(axis)), f"several have the same {axis}")
    are_counted = {row.is_counted for row in rows}
    if are_counted == {True}:
        return _only(rows, "steps and epochs do not compare")
    if are_counted == {False}:
        return _only(rows, "no name and no record tells")
    return _only(rows, "only some have a step or an epoch")


def _newest_by(axis: Axis) -> Callable[[Checkpoint], tuple[object, ...]]:
    """A key that is the greatest for the newest by its step or its epoch; of equal ones, for one not called best."""
    return lambda row: (row.count(axis), row.epoch or 0, not row.says_best, row.order)


def _of_newest_place(rows: list[Checkpoint]) -> list[Checkpoint]:
    """Return those in the newest of a run's folders that has more than the best or an average; all if none has."""
    places = {row.place for row in rows if not row.is_aside}
    return [row for row in rows if row.place == max(places)] if places else rows


def best_of(rows: Sequence[Checkpoint], recorded: str) -> Chosen:
    """Return the best of some checkpoints: the one that the trainer ``recorded`` by its name, else the only one whose
    name says so."""
    if recorded:
        named = [row for row in rows if row.name == recorded]
        if not named:
            return None, f"{recorded} is recorded as best and is gone"
        if not named[-1].complete:
            return None, f"{recorded} is recorded as best and is not complete"
        return named[-1], ""
    called_best = [row for row in rows if row.says_best]
    if not called_best:
        return None, UNRECORDED
    whole = [row for row in called_best if row.complete]
    if not whole:
        return None, f"{called_best[-1].name} is not complete"
    return _only(_greatest(whole, lambda row: row.place), "several are called best")


def choose(found: Found) -> Found:
    """Return the same checkpoints, one of them marked as the latest and one as the best, or why none is.

    If several have one name, the newest keeps it, and the others are named after their whole path.
    """
    rows = _named_apart(found.checkpoints)
    latest, latest_note = latest_of(rows)
    best, best_note = best_of(rows, found.recorded_best)
    marked = tuple(replace(row, latest=row is latest, best=row is best) for row in rows)
    return replace(found, checkpoints=marked, latest_note=latest_note, best_note=best_note)


def _named_apart(rows: Sequence[Checkpoint]) -> list[Checkpoint]:
    named: dict[str, Checkpoint] = {}
    for row in reversed(rows):
        name = next(name for name in _possible_names(row) if name not in named)
        named[name] = replace(row, name=name)
    return list(reversed(named.values()))


def _possible_names(row: Checkpoint) -> Iterator[str]:
    """Its name, its path with hyphens (a user's choice may hold no slash), and that path with a number."""
    is_folder = row.base.rpartition("/")[2] == row.name
    path = row.base if is_folder else join(row.base, row.name)
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


def candidates_text(rows: Sequence[Checkpoint], *, with_numbers: bool = True) -> str:
    """Return the names of some checkpoints, with their numbers if they are wanted: ten, and how many more there are."""
    names = []
    for row in rows:
        details = []
        if with_numbers and row.epoch is not None:
            details.append(f"epoch {row.epoch}")
        if with_numbers and row.step is not None:
            details.append(f"step {row.step}")
        if not details and not row.complete:
            details.append("incomplete")
        names.append(f"{shown(row.name)} ({', '.join(details)})" if details else shown(row.name))
    return listed(names, most=_NAMED)


def _greatest(rows: Sequence[Checkpoint], key: Callable[[Checkpoint], Any]) -> list[Checkpoint]:
    """Return the rows whose key is the greatest."""
    top = max(map(key, rows))
    return [row for row in rows if key(row) == top]


def _only(rows: Sequence[Checkpoint], why: str) -> Chosen:
    """Return the only one of some rows, or of those that are links to one file; else None, and why with the
    candidates."""
    real_files = {tuple(sorted(entry.real for entry in row.files)) for row in rows}
    are_one_file = len(real_files) == 1 and () not in real_files
    if len(rows) > 1 and not are_one_file:
        return None, f"{why}: {candidates_text(rows)}"
    return min(rows, key=lambda row: row.name), ""
