"""Scan: what is in a folder that a user calls a run. One run; or several, which are never taken for one; or weights of
which nobody can say that they are one model."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace

from mdl.formatting import counted, listed
from mdl.paths import shown
from mdl.runs.checkpoint import CHECKPOINTS_FOLDER, FINAL, MODEL_FOLDER, Checkpoint, Found, checked, paths_of
from mdl.runs.choice import are_several_trainings, candidates_text, choose, named_apart
from mdl.runs.completeness import is_model, why_cut_without_suffix
from mdl.runs.known_layouts import LAYOUTS
from mdl.runs.layout import Layout
from mdl.runs.run import UNRECOGNISED, Run
from mdl.runs.trainers.any_trainer import NAMED_LAYOUT, PLAIN, find_folders, find_weights
from mdl.runs.tree import Entry, Tree, folders_above, is_in, join
from mdl.weights.known_formats import folder_kind_of, set_name

_MARKS = re.compile("|".join(layout.marks for layout in LAYOUTS))
_OF_TRAINERS = LAYOUTS[:-1]
"""All layouts but the plain one, which has whatever the others do not know."""
_MOST_RUNS = 10
"""How many runs in one folder a message names."""
SetKey = tuple[str, str]
"""What tells apart sets of weights: their folder, and their name without a suffix and the number of a part."""


def find_in(tree: Tree, name: str) -> Run:
    """The run that a tree is, called ``name``."""
    scan = _Scan(tree)
    own = scan.own_run("")
    if own.checkpoints:
        runs_below = scan.runs_beside(own, "")
        return _one_run(tree, name, _without(tree, own, runs_below), runs_below=runs_below)
    runs = scan.runs_in(tree.subfolders())
    loose = scan.sets_outside(runs)
    if len(runs) == 1 and not loose:
        [(base, found)] = runs.items()
        runs_below = scan.runs_beside(found, base)
        return _one_run(tree, name, _without(tree, found, runs_below), base=base, runs_below=runs_below)
    if not runs and len(loose) <= 1:
        return _one_run(tree, name, _with_layout(find_weights(tree, ""), PLAIN))
    return _several(tree, name, runs, loose)


def _one_run(tree: Tree, name: str, found: Found, *, base: str = "", runs_below: Iterable[tuple[str, int]] = ()) -> Run:
    chosen = choose(found)
    is_told = any(checkpoint.latest for checkpoint in chosen.checkpoints)
    return Run(
        name,
        tree,
        chosen.layout,
        chosen.checkpoints,
        base=base,
        best_note=chosen.best_note,
        runs_below=tuple(runs_below),
        latest_note=chosen.latest_note,
        is_recognised=is_told or not are_several_trainings(chosen.checkpoints),
    )


def recognise_layout(tree: Tree, base: str, layouts: Iterable[Layout]) -> Found:
    """Return what the first of the ``layouts`` that recognises ``base`` finds there; nothing if none does."""
    if not tree.children(base):  # few runs have a folder ``checkpoints`` or ``model``, and sixty layouts would be asked
        return Found(())
    for layout in layouts:
        found = layout.find(tree, base)
        if found is not None:
            return _with_layout(found, layout)
    return Found(())


def _with_layout(found: Found, layout: Layout) -> Found:
    checkpoints = tuple(
        replace(checkpoint, layout=layout.name, ends_with_model=layout.ends_with_model)
        for checkpoint in found.checkpoints
    )
    return replace(found, layout=found.layout or layout.name, checkpoints=checkpoints)


class _Scan:
    """What a tree holds, looked through once: the ``sets`` of weights, each the files that belong together, and the
    folders ``with_weights`` in them, however deep."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.sets: dict[SetKey, list[Entry]] = defaultdict(list)
        self.with_weights: set[str] = set()
        for entry in tree.entries:
            if entry.is_file and (entry.is_weights or _MARKS.fullmatch(entry.name)):
                self.with_weights.update(folders_above(entry.path))
            if _is_model(entry):
                self.sets[entry.folder, set_name(entry.name)].append(entry)

    def own_run(self, base: str) -> Found:
        """Return what is in a folder itself, in its ``checkpoints`` and in its ``model``, as far as a trainer's layout
        fits."""
        checkpoints_folder = join(base, CHECKPOINTS_FOLDER)
        model_folder = join(base, MODEL_FOLDER)
        found = recognise_layout(self.tree, base, _OF_TRAINERS)
        in_checkpoints = recognise_layout(self.tree, checkpoints_folder, _OF_TRAINERS)
        in_model = recognise_layout(self.tree, model_folder, LAYOUTS)
        if not found.checkpoints and (in_checkpoints.checkpoints or in_model.checkpoints):
            found = self._one_set_in(base)
        if in_checkpoints.checkpoints:
            beside = _final_beside(found, base, checkpoints_folder)
            found = _merged(found, in_checkpoints, checkpoints_folder, beside)
        if in_model.checkpoints:
            found = _merged(found, in_model, model_folder, [])
        names = {checkpoint.name for checkpoint in found.checkpoints}
        is_without_model = bool(names) and FINAL not in names
        for folder in (base, checkpoints_folder, model_folder):
            folders = find_folders(self.tree, folder, of_any_name=is_without_model)
            found = self._with_folders(found, folders)
        return found

    def _one_set_in(self, base: str) -> Found:
        """The weights in a folder itself, as one finished model; nothing if they may be several."""
        sets = [key for key in self.sets if key[0] == base]
        if len(sets) != 1:
            return Found(())
        return _with_layout(find_weights(self.tree, base), PLAIN)

    def _with_folders(self, found: Found, folders: Iterable[Checkpoint]) -> Found:
        """These checkpoints after those of ``folders`` that are not among them. What one has is in no other, and a
        folder with several checkpoints of its own is none itself."""
        names = {checkpoint.name for checkpoint in found.checkpoints}
        taken = paths_of(found.checkpoints)
        is_of_trainer = found.layout not in ("", NAMED_LAYOUT.name)
        more = []
        for checkpoint in folders:
            if checkpoint.name in names or not taken.isdisjoint(checkpoint.paths):
                continue
            if checkpoint.is_known:
                more.append(replace(checkpoint, layout=NAMED_LAYOUT.name))
            elif len(recognise_layout(self.tree, checkpoint.base, _OF_TRAINERS).checkpoints) <= 1:
                is_aside = checkpoint.is_derived or is_of_trainer
                more.append(replace(checkpoint, layout=NAMED_LAYOUT.name, is_derived=is_aside))
        return replace(found, checkpoints=(*more, *found.checkpoints), layout=found.layout or NAMED_LAYOUT.name)

    def runs_in(self, folders: Iterable[Entry]) -> dict[str, Found]:
        """What was found in each run that these folders are, or that is below them, by its path."""
        runs: dict[str, Found] = {}
        for folder in folders:
            if folder.path not in self.with_weights:
                continue
            found = self.own_run(folder.path)
            if found.checkpoints:
                runs[folder.path] = found
            else:
                runs |= self.runs_in(self.tree.subfolders(folder.path))
        return runs

    def runs_beside(self, own: Found, base: str) -> list[tuple[str, int]]:
        """The folders in a run that hold checkpoints of their own, and how many: several, or one with a number. None in
        a folder that a format's own marker declares to be one model, which may have parts with any names."""
        if folder_kind_of(self.tree.names(base)):
            return []
        taken = {join(base, CHECKPOINTS_FOLDER), join(base, MODEL_FOLDER)}
        for checkpoint in own.checkpoints:
            if checkpoint.name != FINAL:
                taken.update(_child_of(base, entry.path) for entry in checkpoint.entries)
        runs = self.runs_in(folder for folder in self.tree.subfolders(base) if folder.path not in taken)
        return [
            (path, len(found.checkpoints))
            for path, found in runs.items()
            if len(found.checkpoints) > 1 or found.checkpoints[0].is_counted
        ]

    def sets_outside(self, runs: Collection[str]) -> list[list[Entry]]:
        """The sets of weights that are in none of the runs."""
        return [files for files in self.sets.values() if set(runs).isdisjoint(folders_above(files[0].path))]


# A run of several folders


def _without(tree: Tree, found: Found, runs_below: Iterable[tuple[str, int]]) -> Found:
    """The same, the finished model without the runs in its folder."""
    left_out = {path for path, _ in runs_below}
    checkpoints = []
    for checkpoint in found.checkpoints:
        if left_out and checkpoint.name == FINAL:
            entries = tuple(entry for entry in checkpoint.entries if not is_in(entry.path, left_out))
            cut = why_cut_without_suffix(tree, filter(checkpoint.is_weights, entries))
            checkpoint = checked(tree, replace(checkpoint, entries=entries), cut)
        checkpoints.append(checkpoint)
    return replace(found, checkpoints=tuple(checkpoints))


def _final_beside(found: Found, base: str, folder: str) -> list[Checkpoint]:
    """The finished model in ``base`` without what is in ``folder``, if a file of a model is left in ``base`` itself."""
    finals = []
    for checkpoint in found.checkpoints:
        if checkpoint.name == FINAL and checkpoint.base == base:
            entries = tuple(entry for entry in checkpoint.entries if not is_in(entry.path, {folder}))
            beside = replace(checkpoint, entries=entries)
            if any(entry.folder == base and is_model(entry, entry.name) for entry in beside.files):
                finals.append(beside)
    return finals


def _merged(outer: Found, inner: Found, folder: str, finals: list[Checkpoint]) -> Found:
    """The checkpoints of a folder, those of a ``folder`` in it, and the finished model, if there is one. The outer
    trainer recorded the best if it saved more than a finished model."""
    checkpoints = [
        checkpoint for checkpoint in outer.checkpoints if checkpoint.name != FINAL and checkpoint.base != folder
    ]
    recorded_by = outer if checkpoints else inner
    names = {checkpoint.name for checkpoint in (*checkpoints, *finals)}
    inside = [checkpoint for checkpoint in inner.checkpoints if checkpoint.name not in names]
    return replace(recorded_by, checkpoints=(*checkpoints, *inside, *finals))


# Several runs


def _several(tree: Tree, name: str, runs: dict[str, Found], loose: list[list[Entry]]) -> Run:
    """A folder with several runs, or with weights that no layout fits: its checkpoints are what a user may choose."""
    common = _common_folder([*runs, *(files[0].path for files in loose)])
    candidates = {_child_of(common, files[0].path): files for files in loose}
    for path in runs:
        candidates[_child_of(common, path)] = []
    large = _large(runs)
    for path, _ in large:
        candidates.pop(_child_of(common, path), None)
    checkpoints = named_apart([_candidate(tree, path, files) for path, files in sorted(candidates.items())])
    layouts = {found.layout for found in runs.values()}
    layout = PLAIN.name
    if len(layouts) == 1 and not loose:
        layout = layouts.pop()
    note = f"{UNRECOGNISED}; it holds {candidates_text(checkpoints)}"
    if runs:
        note = _several_note([*large, *((path, 1) for path in sorted(candidates))])
    return Run(name, tree, layout, tuple(checkpoints), note, tuple(large), note, is_recognised=False)


def _several_note(counts: Iterable[tuple[str, int]]) -> str:
    """Return that a folder holds several runs, each with the number of its checkpoints."""
    runs = [f"{shown(path)} ({counted(count, 'checkpoint')})" for path, count in counts]
    return f"this folder holds several runs: {listed(runs, most=_MOST_RUNS)}"


def _candidate(tree: Tree, path: str, files: list[Entry]) -> Checkpoint:
    """What a user may mean by ``path``: all of a folder, or the ``files`` of the set of which one is called so."""
    folder, _, name = path.rpartition("/")
    if tree.is_folder(path):
        return checked(tree, Checkpoint(name, path, tree.below(path), layout=NAMED_LAYOUT.name))
    return checked(tree, Checkpoint(name, folder, tuple(files), layout=PLAIN.name))


def _large(runs: dict[str, Found]) -> list[tuple[str, int]]:
    """The paths of the runs of more than one checkpoint, with the number of these."""
    return [(path, len(found.checkpoints)) for path, found in runs.items() if len(found.checkpoints) > 1]


def _common_folder(paths: list[str]) -> str:
    """The deepest folder that all paths are in."""
    folders = [f"/{path}".rpartition("/")[0] or "/" for path in paths]
    return os.path.commonpath(folders).removeprefix("/")


def _child_of(folder: str, path: str) -> str:
    """The entry directly in ``folder`` that ``path`` is, or is in."""
    below = path.removeprefix(f"{folder}/")
    return join(folder, below.partition("/")[0])


# Sets of weights


def _is_model(entry: Entry) -> bool:
    """Tell whether it is a file of weights that is not the training's alone, in whichever folder a checkpoint
    begins."""
    if not entry.is_weights_file:
        return False
    parts = entry.path.split("/")
    return all(is_model(entry, "/".join(parts[start:])) for start in range(len(parts)))
