"""Keras: ``.keras`` and ``.weights.h5`` files under names that are the user's; a number in one counts epochs."""

from __future__ import annotations

import re

from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.layout import Found, Layout, join, newest, ordered, saved
from mdl.trainers.natural import count
from mdl.trainers.sieve import Sieve
from mdl.trainers.single_files import files_named
from mdl.trainers.tree import Entry, Tree

_FILE = re.compile(r"(?P<stem>.+)\.keras|(?P<weights>.+)\.weights\.h5")
_NUMBERS = re.compile(r"(?<![A-Za-z0-9])[0-9]+(?:\.[0-9]+)?(?![0-9])|(?<=epoch)[0-9]+|(?<=ep)[0-9]+")
_BEST = re.compile(r"(.*[^A-Za-z])?best([^A-Za-z].*)?", re.IGNORECASE)


def find(tree: Tree, base: str) -> Found | None:
    folders = (base, join(base, "checkpoints"))
    folder = next((folder for folder in folders if files_named(tree, folder, _FILE.fullmatch)), None)
    if folder is None:
        return None
    rows = ordered(_checkpoint(tree, folder, entry) for entry in files_named(tree, folder, _FILE.fullmatch))
    numbered = [row for row in rows if row.step is not None]
    bests = [row for row in rows if row.step is None and _BEST.fullmatch(row.name)]
    others = [row for row in rows if row.step is None and row not in bests]
    best = bests[0] if len(bests) == 1 else None
    rows = [*numbered, *bests, *others]
    return Found.of("keras", rows, latest=newest(numbered, others, bests), best=best)


def _checkpoint(tree: Tree, folder: str, entry: Entry) -> Checkpoint:
    step = _epoch(entry.name)
    note = "" if step is None else "its number is taken for the epoch"
    return saved(tree, entry.name, folder, [entry], step, note=note)


def _epoch(name: str) -> int | None:
    """The last whole number in a name; ``0.34`` is a metric, ``resnet50`` a model."""
    match = _FILE.fullmatch(name)
    stem = (match["stem"] or match["weights"]) if match else name
    whole = [number for number in _NUMBERS.findall(stem) if "." not in number]
    return count(whole[-1]) if whole else None


LAYOUT = Layout(
    ("keras",),
    find,
    Sieve(
        keep=("*.keras", "*.h5"),
        drop=(),
        notes=(
            ("*.keras", "contains optimizer state; saving it again without needs Keras"),
            ("*.weights.h5", "is weights alone; the code that builds the model is needed"),
        ),
    ),
)
