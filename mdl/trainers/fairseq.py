"""fairseq: ``checkpoint{epoch}.pt``, ``checkpoint_{epoch}_{update}.pt``, ``checkpoint_best.pt``, ``…_last.pt``."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from math import inf

from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.layout import Found, Layout, join, newest, saved
from mdl.trainers.sieve import OPTIMIZER_INSIDE, Sieve
from mdl.trainers.single_files import files_named
from mdl.trainers.tree import Entry, Tree

_FILE = re.compile(
    r"checkpoint(?P<end>[0-9]+)\.pt|checkpoint_(?P<epoch>[0-9]+)_(?P<update>[0-9]+)\.pt|checkpoint_(best|last)\.pt"
)


def find(tree: Tree, base: str) -> Found | None:
    folders = (base, join(base, "checkpoints"))
    folder = next((folder for folder in folders if files_named(tree, folder, _FILE.fullmatch)), None)
    if folder is None:
        return None
    words = [entry for entry in tree.children(folder) if fnmatchcase(entry.name, "dict.*.txt")]
    rows = {entry.name: _checkpoint(tree, folder, entry, words) for entry in files_named(tree, folder, _FILE.fullmatch)}
    best, last = rows.pop("checkpoint_best.pt", None), rows.pop("checkpoint_last.pt", None)
    numbered = sorted(rows.values(), key=_age)
    lasts, bests = list(filter(None, (last,))), list(filter(None, (best,)))
    return Found.of("fairseq", [*numbered, *bests, *lasts], latest=newest(lasts, numbered, bests), best=best)


def _age(row: Checkpoint) -> tuple[int, float]:
    """An epoch's own checkpoint comes after all updates in it."""
    name = _FILE.fullmatch(row.name)
    if name and name["end"]:
        return int(name["end"]), inf
    return (int(name["epoch"]), int(name["update"])) if name else (0, 0)


def _checkpoint(tree: Tree, folder: str, entry: Entry, words: list[Entry]) -> Checkpoint:
    name = _FILE.fullmatch(entry.name)
    number = (name["update"] or name["end"]) if name else None
    note = "its number counts epochs" if name and name["end"] else ""
    return saved(tree, entry.name, folder, [entry, *words], int(number) if number else None, note=note)


_SIEVE = Sieve(keep=("*.pt", "dict.*.txt"), drop=(), notes=(("*.pt", OPTIMIZER_INSIDE),))
LAYOUT = Layout(("fairseq",), find, _SIEVE)
