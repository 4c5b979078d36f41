"""Scan: what is in a folder that a user calls a run. One run; or several, which are never taken for one; or weights of
which nobody can say that they are one model."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace

from mdl.runs.checkpoint import CHECKPOINTS_FOLDER, FINAL, MODEL_FOLDER, Checkpoint, Found, checkpoint, paths_of
from mdl.runs.choice import choose
from mdl.runs.completeness import is_model
from mdl.runs.known_layouts import LAYOUTS, NAMED_LAYOUT, PLAIN, find_folders, find_weights
from mdl.runs.layout import Layout
from mdl.runs.run import Run
from mdl.runs.tree import Entry, Tree, folders_above, join
from mdl.values import value_class
from mdl.weights.known_formats import TENSORFLOW_SHARD, is_weights, stem_of

_SHARD = re.compile(r"(.+)-[0-9]{5}-of-[0-9]{5}.*")
_RANK = re.compile(r"rank_?[0-9]+")
"""The number of a process that writes its own part of the model."""
_OF_LAYOUTS = re.compile(
    r"(g|do)_[0-9]{8}|model|model\..+\.best|snapshot\.(ep|iter)\.[0-9]+|network-snapshot-[0-9]+\.pkl|.+\.zip"
    r"|manifest\.ocdbt|_CHECKPOINT_METADATA|MLmodel|model_index\.json|config\.cfg"
)
"""Names that have no suffix of weights, by which a layout of the table knows a model."""
_OF_TRAINERS = LAYOUTS[:-1]
"""All layouts but the plain one, which has whatever the others do not know."""
SEVERAL_RUNS = "this folder holds several runs"
UNRECOGNISED = "no model is recognised in this folder"


@value_class
class _RunBelow:
    """A run in a folder below, and what was found in it."""

    path: str
    found: Found


def find_in(tree: Tree, name: str) -> Run:
    """The run that a tree is, called ``name``."""
    own = _own_run(tree, "")
    if own.checkpoints:
        return _one_run(tree, name, own, _beside(tree, own))
    runs = _runs_in_all(tree, tree.subfolders())
    loose = _weights_outside(tree, runs)
    sets = {_set_of(entry) for entry in loose}
    if len(runs) == 1 and not sets:
        return _one_run(tree, name, runs[0].found)
    if not runs and len(sets) <= 1:
        return _one_run(tree, name, _with_layout(find_weights(tree, ""), PLAIN))
    return _several(tree, name, runs, loose)


def _weights_outside(tree: Tree, runs: list[_RunBelow]) -> list[Entry]:
    """The files of models that are in none of the runs."""
    inside: set[str] = set()
    for run in runs:
        inside.update(entry.path for entry in tree.below(run.path))
    return [entry for entry in tree.entries if entry.path not in inside and _is_model(entry)]


def _one_run(tree: Tree, name: str, found: Found, runs_below: tuple[tuple[str, int], ...] = ()) -> Run:
    chosen = choose(found)
    layout = chosen.layout or PLAIN.name
    return Run(name, tree, layout, chosen.checkpoints, chosen.best_note, runs_below, chosen.latest_note)


def recognise_layout(tree: Tree, base: str, layouts: Iterable[Layout]) -> Found:
    """Return what the first of the ``layouts`` that recognises ``base`` finds there; nothing if none does."""
    for layout in layouts:
        found = layout.find(tree, base)
        if found is not None:
            return _with_layout(found, layout)
    return Found(())


def _with_layout(found: Found, layout: Layout) -> Found:
    rows = tuple(replace(row, layout=layout.name, ends_with_model=layout.ends_with_model) for row in found.checkpoints)
    return replace(found, layout=found.layout or layout.name, checkpoints=rows)


# One run


def _own_run(tree: Tree, base: str) -> Found:
    """Return what is in a folder itself, in its ``checkpoints`` and in its ``model``, as far as a trainer's layout
    fits."""
    checkpoints_folder = join(base, CHECKPOINTS_FOLDER)
    model_folder = join(base, MODEL_FOLDER)
    found = recognise_layout(tree, base, _OF_TRAINERS)
    for folder, layouts in ((checkpoints_folder, _OF_TRAINERS), (model_folder, LAYOUTS)):
        inside = recognise_layout(tree, folder, layouts)
        if inside.checkpoints:
            outer = found if found.checkpoints else _weights_directly_in(tree, base)
            found = _merged(outer, inside, base, folder)
    has_model = any(row.name == FINAL for row in found.checkpoints)
    of_any_name = bool(found.checkpoints) and not has_model
    for folder in (base, checkpoints_folder, model_folder):
        folders = find_folders(tree, folder, of_any_name=of_any_name)
        found = _with_folders(found, [row for row in folders if row.is_known or not _is_run(tree, row.base)])
    return found


def _is_run(tree: Tree, base: str) -> bool:
    """Tell whether a folder holds several checkpoints of its own, so that it is none itself."""
    return len(recognise_layout(tree, base, _OF_TRAINERS).checkpoints) > 1


def _weights_directly_in(tree: Tree, base: str) -> Found:
    """The weights in a folder itself, as one finished model; nothing if they may be several."""
    sets = {_set_of(child) for child in tree.children(base) if _is_model(child)}
    return _with_layout(find_weights(tree, base), PLAIN) if len(sets) == 1 else Found(())


def _merged(outer: Found, inner: Found, base: str, folder: str) -> Found:
    """The rows of ``base`` and those of ``inner``, found in ``folder``.

    A finished model that lies beside ``folder`` stays the last row, unless ``folder`` is where the run's model is.
    """
    rows = [row for row in outer.checkpoints if row.name != FINAL and row.base != folder]
    finals: list[Checkpoint] = []
    if folder != join(base, MODEL_FOLDER):
        for row in outer.checkpoints:
            if row.name == FINAL and row.base == base:
                finals += _without(row, folder)
    if not rows and not finals:
        return inner
    names = {row.name for row in (*rows, *finals)}
    inside = [row for row in inner.checkpoints if row.name not in names]
    recorded_by = outer if rows else inner
    return Found((*rows, *inside, *finals), recorded_by.recorded_best, recorded_by.layout)


def _without(final: Checkpoint, folder: str) -> list[Checkpoint]:
    """The finished model without what is in ``folder``; nothing if no file of a model is left directly in its own
    folder."""
    entries = tuple(entry for entry in final.entries if not _is_in(entry, folder))
    beside = replace(final, entries=entries)
    for entry in beside.files:
        if "/" not in beside.relative(entry) and is_model(entry.name):
            return [beside]
    return []


def _with_folders(found: Found, folders: Iterable[Checkpoint]) -> Found:
    """These rows after those of ``folders`` that are not among them. What a row has is in no other one."""
    names = {row.name for row in found.checkpoints}
    taken = paths_of(found.checkpoints)
    is_of_trainer = found.layout not in ("", NAMED_LAYOUT.name)
    more = []
    for row in folders:
        if row.name not in names and taken.isdisjoint(row.paths):
            is_aside = row.is_derived or (is_of_trainer and not row.is_known)
            more.append(replace(row, is_derived=is_aside, layout=NAMED_LAYOUT.name))
    if not more:
        return found
    return replace(found, checkpoints=(*more, *found.checkpoints), layout=found.layout or NAMED_LAYOUT.name)


def _beside(tree: Tree, own: Found) -> tuple[tuple[str, int], ...]:
    """The folders in a run that hold several checkpoints of their own, and how many."""
    taken = {CHECKPOINTS_FOLDER, MODEL_FOLDER}
    for row in own.checkpoints:
        taken.add(row.base)
        if row.name != FINAL:
            taken.update(entry.path.partition("/")[0] for entry in row.entries)
    others = [folder for folder in tree.subfolders() if folder.path not in taken]
    return _counted(_runs_in_all(tree, others))


# Several runs


def _runs_in_all(tree: Tree, folders: Iterable[Entry]) -> list[_RunBelow]:
    """The runs in these folders."""
    with_weights = _folders_with_weights(tree)
    runs: list[_RunBelow] = []
    for folder in folders:
        runs += _runs_in(tree, folder.path, with_weights)
    return runs


def _runs_in(tree: Tree, path: str, with_weights: frozenset[str]) -> list[_RunBelow]:
    """The runs in a folder: itself, or those below it."""
    if path not in with_weights:
        return []
    found = _own_run(tree, path)
    if found.checkpoints:
        return [_RunBelow(path, found)]
    runs: list[_RunBelow] = []
    for folder in tree.subfolders(path):
        runs += _runs_in(tree, folder.path, with_weights)
    return runs


def _several(tree: Tree, name: str, runs: list[_RunBelow], loose: list[Entry]) -> Run:
    """A folder with several runs, or with weights that no layout fits: the rows are what a user may choose from."""
    large = [run for run in runs if len(run.found.checkpoints) > 1]
    small = [run.path for run in runs if len(run.found.checkpoints) <= 1]
    sets: dict[tuple[str, str], str] = {}
    for entry in loose:
        sets.setdefault(_set_of(entry), entry.path)
    common = _common_folder([*(run.path for run in runs), *(entry.path for entry in loose)])
    chosen = {_child_of(common, path) for path in (*sets.values(), *small)}
    chosen -= {_child_of(common, run.path) for run in large}
    found = choose(Found(tuple(_candidate(tree, path) for path in sorted(chosen))))
    unmarked = tuple(replace(row, latest=False, best=False) for row in found.checkpoints)
    layouts = {run.found.layout for run in runs}
    layout = PLAIN.name
    if len(layouts) == 1 and not loose:
        layout = layouts.pop()
    note = SEVERAL_RUNS if runs else UNRECOGNISED
    return Run(name, tree, layout, unmarked, note, _counted(large), note, is_recognised=False)


def _candidate(tree: Tree, path: str) -> Checkpoint:
    """A folder, or a file with the other files of its set, that a user may mean."""
    own = tree.get(path)
    assert own is not None
    folder, _, name = path.rpartition("/")
    if own.kind == "folder":
        return replace(checkpoint(tree, name, path, tree.below(path)), layout=NAMED_LAYOUT.name)
    own_set = _set_of(own)
    parts = [entry for entry in tree.children(folder) if _is_model(entry) and _set_of(entry) == own_set]
    return replace(checkpoint(tree, name, folder, parts), layout=PLAIN.name)


def _counted(runs: Iterable[_RunBelow]) -> tuple[tuple[str, int], ...]:
    """The runs of more than one checkpoint, by their paths, with the number of these."""
    counts = [(run.path, len(run.found.checkpoints)) for run in runs]
    return tuple((path, count) for path, count in counts if count > 1)


def _common_folder(paths: list[str]) -> str:
    """The deepest folder that all paths are in."""
    folders = [f"/{path}".rpartition("/")[0] or "/" for path in paths]
    return os.path.commonpath(folders).removeprefix("/")


def _child_of(folder: str, path: str) -> str:
    """The entry directly in ``folder`` that ``path`` is, or is in."""
    below = path[len(folder) + 1 :] if folder else path
    return join(folder, below.partition("/")[0])


def _folders_with_weights(tree: Tree) -> frozenset[str]:
    """Every folder with weights in it, however deep."""
    folders: set[str] = set()
    for entry in tree.entries:
        if entry.is_file and _may_be_model(entry.name):
            folders.update(folders_above(entry.path))
    return frozenset(folders)


def _may_be_model(name: str) -> bool:
    """Tell whether a file may be a model's, by its name; the names that only their trainer's layout knows are among
    them."""
    return is_weights(name) or _OF_LAYOUTS.fullmatch(name) is not None


def _is_model(entry: Entry) -> bool:
    """Tell whether it is a file of weights that is not the training's alone, in whichever folder a checkpoint
    begins."""
    if entry.kind != "file" or not is_weights(entry.name):
        return False
    parts = entry.path.split("/")
    return all(is_model("/".join(parts[start:])) for start in range(len(parts)))


def _set_of(entry: Entry) -> tuple[str, str]:
    """Return what tells apart sets of weights: the folder, and the name without its suffix and the number of a part."""
    folder = entry.path.rpartition("/")[0]
    if entry.name.endswith(".distcp"):
        return folder, ""
    shard = _SHARD.fullmatch(entry.name) or TENSORFLOW_SHARD.fullmatch(entry.name)
    return folder, _RANK.sub("rank", shard[1] if shard else stem_of(entry.name))


def _is_in(entry: Entry, folder: str) -> bool:
    return entry.path == folder or entry.path.startswith(f"{folder}/")
