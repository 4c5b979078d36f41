"""Choice: which of several checkpoints is the latest, and which the best. Pure: neither times nor the order matter.

Only equal axes are compared: steps with steps, epochs with epochs. A metric is never an order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

from mdl.paths import shown
from mdl.trainers.checkpoint import Checkpoint, Found
from mdl.trainers.tree import join
from mdl.weights import stem_of

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
    newest_place = max((row.place for row in whole if not row.is_aside), default=None)
    if newest_place is not None:
        whole = [row for row in whole if row.place == newest_place]
    recorded = [row for row in whole if row.is_recorded]
    if len(recorded) == 1:
        return recorded[0], ""
    lasts = [row for row in whole if row.last is not None]
    if lasts:
        newest = _greatest([(row.last or 0, stem_of(row.name) == "latest") for row in lasts], lasts)
        return _only(newest, "several are called the last")
    candidates = [row for row in whole if not row.is_aside] or whole
    if len(candidates) == 1:
        return candidates[0], ""
    if len({row.others for row in candidates}) > 1:
        return _only(candidates, "they are of several trainings")
    if all(row.step is not None for row in candidates):
        newest = _greatest(
            [(row.step or 0, row.epoch or 0, not row.says_best, row.order) for row in candidates], candidates
        )
        return _only(newest, "several have the same step")
    if all(row.epoch is not None for row in candidates):
        newest = _greatest([(row.epoch or 0, row.order, not row.says_best) for row in candidates], candidates)
        return _only(newest, "several have the same epoch")
    if all(row.is_counted for row in candidates):
        return _only(candidates, "steps and epochs do not compare")
    if any(row.is_counted for row in candidates):
        return _only(candidates, "only some have a step or an epoch")
    return _only(candidates, "no name and no record tells")


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
    bests = [row for row in rows if row.says_best and row.complete]
    newest_place = max((row.place for row in bests), default=0)
    bests = [row for row in bests if row.place == newest_place]
    if len(bests) == 1:
        return bests[0], ""
    if bests:
        return _only(bests, "several are called best")
    torn = [row.name for row in rows if row.says_best]
    return None, f"{torn[-1]} is not complete" if torn else UNRECORDED


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
    path = row.base if row.base.rpartition("/")[2] == row.name else join(row.base, row.name)
    yield row.name
    yield path.replace("/", "-")
    yield from (f"{path.replace('/', '-')}-{number}" for number in count(2))


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
    named = [shown(row.name) + (_numbers(row) if with_numbers else _state(row)) for row in rows[:_NAMED]]
    more = len(rows) - _NAMED
    return ", ".join(named) + (f" and {more:,} more" if more > 0 else "")


def _numbers(row: Checkpoint) -> str:
    numbers = [f"{axis} {number}" for axis, number in (("epoch", row.epoch), ("step", row.step)) if number is not None]
    return f" ({', '.join(numbers)})" if numbers else _state(row)


def _state(row: Checkpoint) -> str:
    return "" if row.complete else " (incomplete)"


def _greatest(keys: Sequence[tuple[object, ...]], rows: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The rows whose key is the greatest."""
    top = max(keys)
    return [row for key, row in zip(keys, rows, strict=True) if key == top]


def _only(rows: Sequence[Checkpoint], why: str) -> tuple[Checkpoint | None, str]:
    """The only one of some rows, or of those that are links to one file; else None, and why with the candidates."""
    real_files = {tuple(sorted(entry.real for entry in row.files)) for row in rows}
    if len(rows) == 1 or (len(real_files) == 1 and () not in real_files):
        return min(rows, key=lambda row: row.name), ""
    return None, f"{why}: {candidates_text(rows)}"
