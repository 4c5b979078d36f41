"""Companions: files of a run that a checkpoint is loaded with, or that are other forms of it, beside or above it.

A layout's row names them: its configuration of any suffix, wherever between the checkpoint and the run's own folder it
lies. What the checkpoint has itself is not taken from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mdl.junk import is_log
from mdl.paths import matches
from mdl.runs.checkpoint import Checkpoint
from mdl.runs.layout import ADAPTER, Layout
from mdl.runs.tree import Entry, Tree, join
from mdl.values import value_class
from mdl.weights.table import is_weights, stem_of

_SETTINGS = re.compile(r".+\.(json|ya?ml|toml|cfg|ini|txt|names|labels)", re.IGNORECASE)
_EXPORT_FOLDER = re.compile(r".+(_model|\.mlpackage|\.mlmodelc|_saved_model|_openvino_model)")


@value_class
class Companions:
    """``along`` goes into the archive with a checkpoint; ``exports`` are other forms of it, which do not."""

    along: tuple[Entry, ...] = ()
    exports: tuple[Entry, ...] = ()


def companions(tree: Tree, row: Checkpoint, layout: Layout) -> Companions:
    """What lies beside and above a checkpoint and belongs to it."""
    own = {entry.path for entry in row.entries}
    names = [entry.name for entry in row.entries]
    is_adapter = any(name.startswith(ADAPTER) for name in names)
    found: list[Entry] = []
    for pattern in layout.above:
        if any(matches(name, [pattern]) for name in names):
            continue
        nearest = _nearest(tree, row.base, pattern)
        found += [entry for entry in nearest if is_adapter or not entry.name.startswith(ADAPTER)]
    exports: list[Entry] = []
    for entry in _of_the_same_stem(tree, row):
        is_settings = entry.kind == "file" and _SETTINGS.fullmatch(entry.name)
        if is_settings:
            found.append(entry)
        else:
            exports.append(entry)
    along = [entry for entry in found if entry.path not in own and not is_log(entry.name)]
    return Companions(tuple(dict.fromkeys(along)), tuple(dict.fromkeys(exports)))


def _nearest(tree: Tree, base: str, pattern: str) -> list[Entry]:
    """The files that a pattern matches in ``base``, or else in the nearest folder above it. A pattern with a slash
    names one file below such a folder."""
    for folder in _with_folders_above(base):
        if "/" in pattern:
            named = tree.get(join(folder, pattern))
            found = [named] if named else []
        else:
            found = [child for child in tree.children(folder) if matches(child.name, [pattern])]
        files = [entry for entry in found if entry.kind == "file" and not is_weights(entry.name)]
        if files:
            return files
    return []


def _with_folders_above(folder: str) -> Iterator[str]:
    """A folder, and those above it up to the run's own, ""."""
    yield folder
    while folder:
        folder = folder.rpartition("/")[0]
        yield folder


def _of_the_same_stem(tree: Tree, row: Checkpoint) -> Iterator[Entry]:
    """What lies beside the weights of a checkpoint and is called like them, but for the suffix."""
    own = {entry.path for entry in row.entries}
    for weights in row.entries:
        if not row.is_weights(weights):
            continue
        stem = stem_of(weights.name)
        for child in tree.children(weights.path.rpartition("/")[0]):
            if child.path in own:
                continue
            if child.kind == "file" and child.name.startswith(f"{stem}."):
                yield child
            is_form = child.name.startswith((f"{stem}_", f"{stem}.")) and _EXPORT_FOLDER.fullmatch(child.name)
            if child.kind == "folder" and is_form:
                yield child
