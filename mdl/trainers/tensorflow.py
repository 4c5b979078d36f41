"""TensorFlow: SavedModel folders; ``ckpt-N.index`` with its ``.data-*``, the newest named in ``checkpoint``."""

from __future__ import annotations

import re

from mdl.trainers.inference_filter import InferenceFilter
from mdl.trainers.layout import Layout, by_step, checkpoint, parse_count
from mdl.trainers.runs import FINAL, Checkpoint, Found
from mdl.trainers.tree import Entry, Tree, join

_PIECE = re.compile(r"(?P<prefix>.+)\.(index|meta|data-[0-9]{5}-of-[0-9]{5})")
_NEWEST = re.compile(r'^model_checkpoint_path:\s*"(?:[^"]*/)?([^"/]+)"', re.MULTILINE)
_NUMBER = re.compile(r".*[-_.](?P<step>[0-9]+)(\.ckpt)?|(?P<bare>[0-9]+)(\.ckpt)?")
_GRAPH = "saved_model.pb"


def find(tree: Tree, base: str) -> Found | None:
    pieces = _pieces(tree, base)
    folders = [folder for folder in tree.subfolders(base) if tree.is_file(join(folder.path, _GRAPH))]
    is_model = tree.is_file(join(base, _GRAPH))
    if not (pieces or folders or is_model):
        return None
    newest_name = _NEWEST.search(tree.text(join(base, "checkpoint")) or "")
    rows = by_step(_checkpoint(tree, base, prefix, kept) for prefix, kept in pieces.items())
    models = by_step(_model(tree, folder.name, folder.path, list(tree.below(folder.path))) for folder in folders)
    if is_model:
        taken = [entry.path for row in rows for entry in row.entries] + [folder.path for folder in folders]
        models.append(_model(tree, FINAL, base, tree.all_but(base, taken)))
    named = [row for row in rows if newest_name and row.name == newest_name[1]]
    return Found.of("tensorflow", [*rows, *models], newest=[named, rows])


def _pieces(tree: Tree, base: str) -> dict[str, list[Entry]]:
    """The files of every checkpoint by their common prefix. An ``.index`` alone may belong to another program."""
    pieces: dict[str, list[Entry]] = {}
    for entry in tree.files_named(base, _PIECE.fullmatch):
        piece = _PIECE.fullmatch(entry.name)
        if piece:
            pieces.setdefault(piece["prefix"], []).append(entry)
    is_run = tree.is_file(join(base, "checkpoint"))
    return {prefix: kept for prefix, kept in pieces.items() if is_run or any(".data-" in one.name for one in kept)}


def _step(name: str) -> int | None:
    number = _NUMBER.fullmatch(name)
    return parse_count(number["step"] or number["bare"]) if number else None


def _checkpoint(tree: Tree, base: str, prefix: str, kept: list[Entry]) -> Checkpoint:
    names = " ".join(entry.name.removeprefix(prefix) for entry in kept)
    lost = next((kind for kind in (".index", ".data-") if kind not in names), None)
    wrong = f"{prefix}{lost} is missing" if lost else ""
    return checkpoint(tree, prefix, base, kept, _step(prefix), wrong=wrong)


def _model(tree: Tree, name: str, base: str, entries: list[Entry]) -> Checkpoint:
    """A SavedModel; one in a numbered folder is a version, as TensorFlow Serving counts them."""
    variables = join(base, "variables")
    has_index = tree.is_file(join(variables, "variables.index"))
    wrong = "variables/variables.index is missing" if tree.is_folder(variables) and not has_index else ""
    return checkpoint(tree, name, base, entries, _step(name), wrong=wrong)


LAYOUT = Layout(
    ("tensorflow",),
    find,
    InferenceFilter(
        keep=(
            *("saved_model.pb", "keras_metadata.pb", "fingerprint.pb", "variables/*", "assets/*", "assets.extra/*"),
            *("*.index", "*.data-*", "*.meta"),
        ),
        drop=(),
        notes=(("*.index", "may hold the optimizer's variables too; the code that builds the model is needed"),),
    ),
)
