"""Choice: which of several checkpoints is the latest, and which the best. Pure: neither times nor the order matter.

Only equal axes are compared: steps with steps, epochs with epochs. A metric is never an order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from mdl.paths import shown
from mdl.runs.checkpoint import Checkpoint, Found
from mdl.runs.tree import join
from mdl.weights.table import stem_of

UNRECORDED = "none is recorded"
_NAMED = 10
"""How many candidates a message names."""


def latest_of(rows: Sequence[Checkpoint]) -> tuple[Checkpoint | None, str]:
    """The latest of some checkpoints, or None and why nobody can say which it is; "" if there is none at all.

    It is what the trainer recorded as such; else the trainer's own last file; else the one with the most steps, or
    epochs, if all that are complete have them.
    """
    whole = [row for row in rows if row.complete]
    if not whole:
        return None, "no complete checkpoint" if rows else ""
    whole = _of_newest_place(whole)
    recorded = [row for row in whole if row.is_recorded]
    if len(recorded) == 1:
        return recorded[0], ""
    lasts = [row for row in whole if row.last is not None]
    if lasts:
        newest = _greatest(lasts, lambda row: (row.last, stem_of(row.name) == "latest"))
        return _only(newest, "several are called the last")
    candidates = [row for row in whole if not row.is_aside] or whole
    if len(candidates) == 1:
        return candidates[0], ""
    if len({row.others for row in candidates}) > 1:
        return _only(candidates, "they are of several trainings")
    for axis in ("step", "epoch"):
        if all(getattr(row, axis) is not None for row in candidates):
            return _only(_greatest(candidates, _newest_by(axis)), f"several have the same {axis}")
    counted = [row for row in candidates if row.is_counted]
    if len(counted) == len(candidates):
        return _only(candidates, "steps and epochs do not compare")
    if counted:
        return _only(candidates, "only some have a step or an epoch")
    return _only(candidates, "no name and no record tells")


def _newest_by(axis: str) -> Callable[[Checkpoint], tuple[object, ...]]:
    """A key that is the greatest for the newest by its step or its epoch; of equal ones, for one not called best."""
    return lambda row: (getattr(row, axis), row.epoch or 0, not row.says_best, row.order)


def _of_newest_place(rows: list[Checkpoint]) -> list[Checkpoint]:
    """Those in the newest of a run's folders that has more than the best or an average; all if none has."""
    places = [row.place for row in rows if not row.is_aside]
    if not places:
        return rows
    return [row for row in rows if row.place == max(places)]


def best_of(rows: Sequence[Checkpoint], recorded: str) -> tuple[Checkpoint | None, str]:
    """The best of some checkpoints: the one that the trainer ``recorded`` by its name, else the only one whose name
    says so; or None, and why."""
    if recorded:
        named = [row for row in rows if row.name == recorded]
        if not named:
            return None, f"{recorded} is recorded as best and is gone"
        if not named[-1].complete:
            return None, f"{recorded} is recorded as best and is not complete"
        return named[-1], ""
    called_best = [row for row in rows if row.says_best]
    whole = [row for row in called_best if row.complete]
    if whole:
        newest = _greatest(whole, lambda row: row.place)
        return _only(newest, "several are called best")
    if called_best:
        return None, f"{called_best[-1].name} is not complete"
    return None, UNRECORDED


def choose(found: Found) -> Found:
    """The same checkpoints, one of them marked as the latest and one as the best, or why none is.

    If several have one name, the newest keeps it, and the others are named after their whole path.
    """
    rows = _named_apart(found.checkpoints)
    latest, latest_note = latest_of(rows)
    best, best_note = best_of(rows, found.recorded_best)
    marked = tuple(replace(row, latest=row is latest, best=row is best) for row in rows)
    return replace(found, checkpoints=marked, latest_note=latest_note, best_note=best_note)


def _named_apart(rows: Sequence[Checkpoint]) -> list[Checkpoint]:
    named: list[Checkpoint] = []
    names: set[str] = set()
    for row in reversed(rows):
        name = next(name for name in _possible_names(row) if name not in names)
        names.add(name)
        named.append(replace(row, name=name))
    return named[::-1]


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
    """The incomplete checkpoints that would be newer than ``chosen``: those that would be the latest if they were
    complete."""
    newer = []
    for row in rows:
        if row.complete or row.is_aside:
            continue
        latest, why = latest_of([chosen, replace(row, complete=True)])
        if latest is None or latest.name != chosen.name or why:
            newer.append(row)
    return tuple(newer)


def candidates_text(rows: Sequence[Checkpoint], *, with_numbers: bool = True) -> str:
    """The names of some checkpoints, with their numbers if they are wanted: ten, and how many more there are."""
    tell = _numbers if with_numbers else _state
    named = ", ".join(shown(row.name) + tell(row) for row in rows[:_NAMED])
    more = len(rows) - _NAMED
    return f"{named} and {more:,} more" if more > 0 else named


def _numbers(row: Checkpoint) -> str:
    """Its numbers in brackets; of one without any, whether it is complete."""
    numbers = []
    if row.epoch is not None:
        numbers.append(f"epoch {row.epoch}")
    if row.step is not None:
        numbers.append(f"step {row.step}")
    return f" ({', '.join(numbers)})" if numbers else _state(row)


def _state(row: Checkpoint) -> str:
    return "" if row.complete else " (incomplete)"


def _greatest(rows: Sequence[Checkpoint], key: Callable[[Checkpoint], Any]) -> list[Checkpoint]:
    """The rows whose key is the greatest."""
    top = max(map(key, rows))
    return [row for row in rows if key(row) == top]


def _only(rows: Sequence[Checkpoint], why: str) -> tuple[Checkpoint | None, str]:
    """The only one of some rows, or of those that are links to one file; else None, and why with the candidates."""
    real_files = {tuple(sorted(entry.real for entry in row.files)) for row in rows}
    are_one = len(real_files) == 1 and () not in real_files
    if len(rows) == 1 or are_one:
        return min(rows, key=lambda row: row.name), ""
    return None, f"{why}: {candidates_text(rows)}"
