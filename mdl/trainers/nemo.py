"""NeMo: Lightning's names, ``…-last.ckpt``, the finished ``{exp}.nemo``; ``…-unfinished`` marks a torn one.

With model parallelism every rank writes its part into a folder of its own, ``mp_rank_00/``.
"""

from __future__ import annotations

import re
from collections import defaultdict

from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.layout import Found, Layout, join, ordered, saved, whole
from mdl.trainers.lightning import places, step_of, versions_found
from mdl.trainers.sieve import OPTIMIZER_INSIDE, Sieve
from mdl.trainers.tree import Entry, Tree

_RANK = re.compile(r"(mp_rank|tp_rank)_.+")
_LAST = re.compile(r".+-last(-v[0-9]+)?(\.ckpt)?")
_UNFINISHED = "-unfinished"
_Parts = dict[str, list[Entry]]
"""What was saved under one name, by however many ranks."""


def find(tree: Tree, base: str) -> Found | None:
    folders = [(folder, _parts(tree, folder)) for folder in places(tree, base)]
    folders = [(folder, parts) for folder, parts in folders if parts]
    if not any(_is_ours(tree, folder, parts) for folder, parts in folders):
        return None
    finished: list[Checkpoint] = []
    versions = []
    for folder, parts in folders:
        rows = [_checkpoint(tree, folder, name, kept) for name, kept in parts.items()]
        finished += ordered(row for row in rows if row.name.endswith(".nemo"))
        versions.append([row for row in rows if not row.name.endswith(".nemo")])
    return versions_found("nemo", versions, lambda name: _LAST.fullmatch(name) is not None, finished)


def _parts(tree: Tree, folder: str) -> _Parts:
    """What lies in ``folder``, or in the folders of the ranks in it, by name."""
    parts: _Parts = defaultdict(list)
    for child in tree.children(folder):
        is_rank = child.kind == "folder" and _RANK.fullmatch(child.name)
        for entry in tree.children(child.path) if is_rank else [child]:
            if _is_save(entry):
                parts[entry.name].append(entry)
    return parts


def _is_save(entry: Entry) -> bool:
    if entry.kind == "folder":
        return step_of(entry) is not None
    return entry.kind in ("file", "leaves") and entry.name.endswith((".ckpt", ".nemo"))


def _is_ours(tree: Tree, folder: str, parts: _Parts) -> bool:
    children = tree.children(folder)
    marked = any(child.name.endswith(_UNFINISHED) or _RANK.fullmatch(child.name) for child in children)
    return marked or any(name.endswith(".nemo") or _LAST.fullmatch(name) for name in parts)


def _checkpoint(tree: Tree, folder: str, name: str, kept: list[Entry]) -> Checkpoint:
    stem = name.removesuffix(".nemo").removesuffix(".ckpt")
    wrong = _lost_rank(tree, folder, name, kept)
    if tree.get(join(folder, stem + _UNFINISHED)):
        wrong = f"{stem}{_UNFINISHED} says that it was still being written"
    if len(kept) == 1 and kept[0].kind == "folder":
        return saved(tree, name, kept[0].path, tree.below(kept[0].path), step_of(kept[0]), wrong=wrong)
    entries = [part for entry in kept for part in whole(tree, entry)]
    return saved(tree, name, folder, entries, step_of(kept[0]), wrong=wrong)


def _lost_rank(tree: Tree, folder: str, name: str, kept: list[Entry]) -> str:
    """Every rank writes its part, so what one has all have."""
    ranks = [child.path for child in tree.children(folder) if child.kind == "folder" and _RANK.fullmatch(child.name)]
    have = {entry.path.rpartition("/")[0] for entry in kept}
    lost = [rank for rank in ranks if rank not in have]
    return f"the part of {lost[0].rpartition('/')[2]} is missing" if lost and have & set(ranks) else ""


LAYOUT = Layout(
    ("nemo",),
    find,
    Sieve(
        keep=("*.nemo", "*.ckpt", "*.yaml", "weights/*", "context/*"),
        drop=(),
        notes=(("*.ckpt", OPTIMIZER_INSIDE),),
    ),
)
