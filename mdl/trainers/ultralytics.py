"""Ultralytics: ``weights/{best,last,epochN}.pt`` in every experiment's folder, its settings and results beside."""

from __future__ import annotations

import re

from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.layout import Found, Layout, join, newest, ordered, saved
from mdl.trainers.sieve import Sieve
from mdl.trainers.single_files import files_named, folders_named
from mdl.trainers.tree import Entry, Tree

_FILE = re.compile(r"best\.pt|last\.pt|epoch(?P<epoch>[0-9]+)\.pt")
_BESIDE = ("args.yaml", "results.csv")


def find(tree: Tree, base: str) -> Found | None:
    """The newest experiment is the one with the highest number: ``train``, ``train2``, ``train10``."""
    folders = [folder for folder in folders_named(tree, base, "weights") if files_named(tree, folder, _FILE.fullmatch)]
    experiments = [(folder.rpartition("/")[0], folder) for folder in folders]
    if {"best.pt", "last.pt"} <= {entry.name for entry in files_named(tree, base, _FILE.fullmatch)}:
        experiments = [(base, base)]
    if not experiments:
        return None
    rows: list[Checkpoint] = []
    groups: list[list[Checkpoint]] = []
    best = None
    for experiment, folder in experiments:
        saves = {
            entry.name: _checkpoint(tree, experiment, entry) for entry in files_named(tree, folder, _FILE.fullmatch)
        }
        best, last = saves.pop("best.pt", None), saves.pop("last.pt", None)
        epochs = ordered(saves.values())
        rows += [*epochs, *filter(None, (best, last))]
        groups = [list(filter(None, (last,))), epochs, list(filter(None, (best,))), *groups]
    return Found.of("ultralytics", rows, latest=newest(*groups), best=best)


def _checkpoint(tree: Tree, experiment: str, entry: Entry) -> Checkpoint:
    """Its names begin in the experiment's folder, as Ultralytics itself expects them."""
    name = _FILE.fullmatch(entry.name)
    epoch = name["epoch"] if name else None
    beside = [found for one in _BESIDE if (found := tree.get(join(experiment, one)))]
    note = "its number counts epochs" if epoch else ""
    return saved(tree, entry.name, experiment, [*beside, entry], int(epoch) if epoch else None, note=note)


LAYOUT = Layout(
    ("ultralytics",),
    find,
    Sieve(
        keep=("*.pt", *_BESIDE),
        drop=(),
        notes=(("*.pt", "contains optimizer state unless the training came to its end; stripping it needs torch"),),
    ),
)
