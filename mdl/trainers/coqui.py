"""Coqui TTS: ``checkpoint_S.pth``, ``best_model_S.pth`` and its copy ``best_model.pth``, beside one configuration."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.layout import Found, Layout, join, newest, ordered, saved
from mdl.trainers.sieve import OPTIMIZER_INSIDE, Sieve
from mdl.trainers.single_files import files_named
from mdl.trainers.tree import Entry, Tree

_FILE = re.compile(r"(?P<kind>checkpoint|best_model)_(?P<step>[0-9]+)\.pth|best_model\.pth")
_SAVED = ("checkpoint_*.pth", "best_model*.pth")
_BESIDE = ("config.json", "*speaker*", "*language_ids*", "vocab*")


def find(tree: Tree, base: str) -> Found | None:
    folder = _folder(tree, base)
    if folder is None:
        return None
    besides = [entry for entry in tree.children(folder) if any(fnmatchcase(entry.name, glob) for glob in _BESIDE)]
    rows = [_checkpoint(tree, folder, entry, besides) for entry in files_named(tree, folder, _FILE.fullmatch)]
    checkpoints = [row for row in rows if row.name.startswith("checkpoint_")]
    numbered_bests = ordered(row for row in rows if row.name.startswith("best_model_"))
    copies = [row for row in rows if row.name == "best_model.pth"]
    numbered = sorted([*numbered_bests, *checkpoints], key=lambda row: row.step or 0)
    best = next(iter([*reversed(numbered_bests), *copies]), None)
    return Found.of("coqui", [*numbered, *copies], latest=newest(numbered, copies), best=best)


def _folder(tree: Tree, base: str) -> str | None:
    """The run's own folder, or the only ``{run}-{date}`` in it."""
    if _is_ours(tree, base):
        return base
    inner = [child.path for child in tree.children(base) if child.kind == "folder" and _is_ours(tree, child.path)]
    return inner[0] if len(inner) == 1 else None


def _is_ours(tree: Tree, folder: str) -> bool:
    return tree.is_file(join(folder, "config.json")) and bool(files_named(tree, folder, _FILE.fullmatch))


def _checkpoint(tree: Tree, folder: str, entry: Entry, besides: list[Entry]) -> Checkpoint:
    name = _FILE.fullmatch(entry.name)
    step = name["step"] if name else None
    note = "" if step else "a copy of the best model"
    return saved(tree, entry.name, folder, [*besides, entry], int(step) if step else None, note=note)


_SIEVE = Sieve(keep=(*_SAVED, *_BESIDE), drop=(), notes=tuple((glob, OPTIMIZER_INSIDE) for glob in _SAVED))
LAYOUT = Layout(("coqui",), find, _SIEVE)
