"""Choice: which of several checkpoints is the latest, and which the best. Pure: neither times nor the order matter.

Only equal axes are compared: steps with steps, epochs with epochs. A metric is never an order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from mdl.formatting import listed
from mdl.paths import shown
from mdl.runs.checkpoint import Axis, Checkpoint, Found, parse_count
from mdl.runs.tree import join
from mdl.weights.known_formats import stem_of

UNRECORDED = "none is recorded"
_LATEST = re.compile(r"(^|[-_.=+])latest($|[-_.=+])", re.IGNORECASE)
"""Of several last files the one that is called so is the latest."""
_NAMED = 10
"""How many candidates a message names."""
_AXES: tuple[tuple[Axis, ...], ...] = (("epoch", "step"), ("step",), ("epoch",))
"""The first of these that all candidates have decides. A step that counts the whole training never falls as the epochs
grow, and one that counts within its epoch does: in both cases the epoch comes first (ADR 104)."""
Chosen = tuple[Checkpoint | None, str]
"""The checkpoint; or None, and why nobody can say which it is."""


def common_axes(checkpoints: Sequence[Checkpoint]) -> tuple[Axis, ...]:
    """Return the axes by which some checkpoints are ordered; none if no axis is common to all of them."""
    for axes in _AXES:
        if all(checkpoint.counts.keys() >= set(axes) for checkpoint in checkpoints):
            return axes
    return ()


def are_several_trainings(checkpoints: Iterable[Checkpoint]) -> bool:
    """Tell whether the names of some checkpoints say that they are of several trainings."""
    run_names = set()
    others = set()
    for checkpoint in checkpoints:
        if checkpoint.is_aside:
            continue
        if checkpoint.run_name is not None:
            run_names.add(checkpoint.run_name)
        if checkpoint.is_counted and checkpoint.last is None:
            others.add(checkpoint.others)
    return len(run_names) > 1 or len(others) > 1


def latest_of(checkpoints: Sequence[Checkpoint]) -> Chosen:
    """Return the latest of some checkpoints; None without a reason if there is none at all.

    It is what the trainer recorded as such; else the trainer's own last file; else the one that is furthest on the
    axes that all complete ones have.
    """
    if not checkpoints:
        return None, ""
    whole = [checkpoint for checkpoint in checkpoints if checkpoint.complete]
    if not whole:
        return None, "no complete checkpoint"
    candidates = _greatest(whole, lambda checkpoint: checkpoint.claim)
    first = candidates[0]
    if first.is_recorded:
        return _only(candidates, "several are recorded as the latest")
    if are_several_trainings(whole):
        return _only(whole, "they may be of several trainings")
    if first.last is not None:
        newest = _greatest(
            candidates, lambda checkpoint: (checkpoint.last, _is_called_latest(checkpoint), not checkpoint.is_derived)
        )
        return _only(newest, "several are called the last")
    return _furthest(candidates)


def _is_called_latest(checkpoint: Checkpoint) -> bool:
    return _LATEST.search(stem_of(checkpoint.name)) is not None


def _furthest(checkpoints: Sequence[Checkpoint]) -> Chosen:
    """Return the checkpoint that is furthest on the axes that all have; of equal ones, one that is not called best."""
    axes = common_axes(checkpoints)
    if axes:
        newest = _greatest(
            checkpoints, lambda checkpoint: (checkpoint.counts_on(axes), not checkpoint.says_best, checkpoint.order)
        )
        return _only(newest, f"several have the same {axes[-1]}")
    counted_on = {tuple(checkpoint.counts) for checkpoint in checkpoints}
    if counted_on == {()}:
        return _only(checkpoints, "no name and no record says which")
    if () in counted_on:
        return _only(checkpoints, "only some have a step or an epoch")
    return _only(checkpoints, "steps and epochs do not compare")


def best_of(checkpoints: Sequence[Checkpoint], recorded: str) -> Chosen:
    """Return the best of some checkpoints: the one that the trainer ``recorded`` by its name, else the only one whose
    name says so."""
    called_best = [checkpoint for checkpoint in checkpoints if checkpoint.says_best]
    missing = UNRECORDED
    if recorded:
        called_best = [checkpoint for checkpoint in checkpoints if checkpoint.name == recorded]
        missing = f"{recorded} is recorded as best and does not exist any more"
    if not called_best:
        return None, missing
    whole = [checkpoint for checkpoint in called_best if checkpoint.complete]
    if not whole:
        return None, f"{called_best[-1].name} is not complete"
    return _only(_greatest(whole, lambda checkpoint: checkpoint.place), "several are called best")


def choose(found: Found) -> Found:
    """Return the same checkpoints, one of them marked as the latest and one as the best, or why none is.

    If several have one name, the newest keeps it, and the others are named after their whole path.
    """
    checkpoints = named_apart(found.checkpoints)
    latest, latest_note = latest_of(checkpoints)
    best, best_note = best_of(checkpoints, found.recorded_best)
    marked = tuple(
        replace(checkpoint, latest=checkpoint is latest, best=checkpoint is best) for checkpoint in checkpoints
    )
    return replace(found, checkpoints=marked, latest_note=latest_note, best_note=best_note)


def named_apart(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return the checkpoints under names that differ. Of one name the last keeps it; others are named by their path."""
    named: dict[str, Checkpoint] = {}
    for checkpoint in reversed(checkpoints):
        names = _possible_names(checkpoint)
        name = next(names)
        while name in named:
            name = next(names)
        named[name] = replace(checkpoint, name=name)
    return list(reversed(named.values()))


def _possible_names(checkpoint: Checkpoint) -> Iterator[str]:
    """Its name, its path with hyphens (a user's choice may hold no slash), and that path with a number."""
    path = checkpoint.base
    if checkpoint.base.rpartition("/")[2] != checkpoint.name:
        path = join(checkpoint.base, checkpoint.name)
    long_name = path.replace("/", "-")
    yield checkpoint.name
    yield long_name
    for number in count(2):
        yield f"{long_name}-{number}"


def newer_incomplete(checkpoints: Sequence[Checkpoint], chosen: Checkpoint) -> tuple[Checkpoint, ...]:
    """Return the incomplete checkpoints that would be newer than ``chosen``: those that would be the latest if they
    were complete."""
    newer = []
    for checkpoint in checkpoints:
        if checkpoint.complete or checkpoint.is_aside:
            continue
        latest, _ = latest_of([chosen, replace(checkpoint, complete=True)])
        if latest is None or latest.name != chosen.name:
            newer.append(checkpoint)
    return tuple(newer)


def called(checkpoints: Sequence[Checkpoint], name: str) -> list[Checkpoint]:
    """Return the checkpoints that ``name`` may mean: those that it fits best; none if it fits none."""
    matching = [checkpoint for checkpoint in checkpoints if _fit(checkpoint, name)]
    return _greatest(matching, lambda checkpoint: _fit(checkpoint, name))


def _fit(checkpoint: Checkpoint, name: str) -> int:
    """Return how well what a user or a record calls a checkpoint fits one; 0 if it does not. A name fits better than a
    number, a step better than an epoch, and a step of the training better than an average or a copy of the best."""
    if checkpoint.name == name:
        return 6
    if stem_of(checkpoint.name) == name:
        return 5
    number = parse_count(name)
    if number is None:
        return 0
    is_plain = not checkpoint.is_derived and not checkpoint.says_best
    if checkpoint.step == number:
        return 3 + is_plain
    if checkpoint.epoch == number:
        return 1 + is_plain
    return 0


def candidates_text(checkpoints: Sequence[Checkpoint], *, with_numbers: bool = True) -> str:
    """Return the names of some checkpoints, with their numbers if they are wanted: ten, and how many more there are."""
    names = []
    for checkpoint in checkpoints:
        details = []
        if with_numbers:
            details = [f"{axis} {count}" for axis, count in checkpoint.counts.items()]
        if not details and not checkpoint.complete:
            details = ["incomplete"]
        name = shown(checkpoint.name)
        if details:
            name = f"{name} ({', '.join(details)})"
        names.append(name)
    return listed(names, most=_NAMED)


def _greatest(checkpoints: Sequence[Checkpoint], key: Callable[[Checkpoint], Any]) -> list[Checkpoint]:
    """Return the checkpoints whose key is the greatest; none of none."""
    top = max(map(key, checkpoints), default=None)
    return [checkpoint for checkpoint in checkpoints if key(checkpoint) == top]


def _only(checkpoints: Sequence[Checkpoint], why: str) -> Chosen:
    """Return the only one of some checkpoints, or of links to one file; else None, and why with the
    candidates."""
    real_files = {tuple(sorted(entry.real for entry in checkpoint.files)) for checkpoint in checkpoints}
    are_one_file = len(real_files) == 1 and () not in real_files
    if len(checkpoints) > 1 and not are_one_file:
        return None, f"{why}: {candidates_text(checkpoints)}"
    return min(checkpoints, key=lambda checkpoint: checkpoint.name), ""
