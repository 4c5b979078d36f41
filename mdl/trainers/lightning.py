"""Lightning, and NeMo on top of it: ``epoch=E-step=S.ckpt`` in ``checkpoints`` folders, one for each ``version_K``.

Lightning's last is ``last.ckpt``, NeMo's ``…-last.ckpt``. NeMo writes the finished ``{exp}.nemo``; a file
``…-unfinished`` marks an incomplete save. With model parallelism every rank writes its part into a folder of its own,
``mp_rank_00/``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mdl.trainers.layout import (
    OPTIMIZER_INSIDE,
    RESUME,
    SHARDED,
    Layout,
    Refusal,
    by_step,
    checkpoint,
    parse_count,
    single_checkpoint,
)
from mdl.trainers.runs import Checkpoint, Found
from mdl.trainers.tree import Entry, IsName, Tree, join

_SAVED = ("file", "folder", "escapes")
_CKPT = re.compile(r".+\.ckpt")
_LAST = re.compile(r"last(-v[0-9]+)?\.ckpt")
_MARK = re.compile(r"(.*\b|.*_)(epoch|step)=[0-9]+.*\.ckpt|last(-v[0-9]+)?\.ckpt")
_STEP = re.compile(r"(?:^|[^A-Za-z])step=([0-9]+)")
_NEMO_RANK = re.compile(r"(mp_rank|tp_rank)_.+")
_NEMO_LAST = re.compile(r".+-last(-v[0-9]+)?(\.ckpt)?")
_UNFINISHED = "-unfinished"


def _found(layout: str, versions: list[list[Checkpoint]], is_last: IsName, models: Sequence[Checkpoint] = ()) -> Found:
    """The versions of one training, oldest first: the newest version's last checkpoint is the latest."""
    rows: list[Checkpoint] = []
    groups: list[list[Checkpoint]] = []
    for version in versions:
        lasts = by_step(row for row in version if is_last(row.name))
        others = by_step(row for row in version if not is_last(row.name))
        rows += [*others, *lasts]
        groups = [lasts, others, *groups]
    return Found.of(layout, [*rows, *models], newest=[*groups, models])


def _places(tree: Tree, base: str) -> list[str]:
    """The folders that checkpoints may be in, the oldest version first, the run's own folder last."""
    return [*tree.folders_named(base, "checkpoints"), base]


def _step(entry: Entry) -> int | None:
    """The step in its name, or in the name of the file that it links to."""
    steps = (_STEP.search(path.rpartition("/")[2]) for path in (entry.path, entry.real))
    return next((parse_count(step[1]) for step in steps if step), None)


def _find_lightning(tree: Tree, base: str) -> Found | None:
    """Files, and folders, which hold a sharded checkpoint."""
    versions = []
    for folder in _places(tree, base):
        saved = [entry for entry in tree.children(folder) if entry.kind in _SAVED and _CKPT.fullmatch(entry.name)]
        if any(_MARK.fullmatch(entry.name) for entry in saved):
            versions.append([single_checkpoint(tree, entry, _step(entry)) for entry in saved])
    return _found("lightning", versions, _LAST.fullmatch) if versions else None


@dataclass(frozen=True)
class _NemoFolder:
    """A folder of NeMo's checkpoints: the folders of its ranks, and what was saved under each name, by every rank."""

    path: str
    ranks: list[Entry]
    saves: dict[str, list[Entry]]

    @classmethod
    def look(cls, tree: Tree, path: str) -> _NemoFolder:
        ranks = [child for child in tree.subfolders(path) if _NEMO_RANK.fullmatch(child.name)]
        saves: dict[str, list[Entry]] = defaultdict(list)
        for child in tree.children(path):
            for entry in tree.children(child.path) if child in ranks else [child]:
                is_file = entry.kind in ("file", "escapes") and entry.name.endswith((".ckpt", ".nemo"))
                if is_file or (entry.kind == "folder" and _step(entry) is not None):
                    saves[entry.name].append(entry)
        return cls(path, ranks, saves)

    def is_nemo(self, tree: Tree) -> bool:
        is_marked = any(child.name.endswith(_UNFINISHED) for child in tree.children(self.path))
        is_named = any(name.endswith(".nemo") or _NEMO_LAST.fullmatch(name) for name in self.saves)
        return is_marked or is_named or bool(self.ranks)

    def checkpoint(self, tree: Tree, name: str) -> Checkpoint:
        """Every rank writes its part: if one rank has it, all must."""
        saved, stem, wrong = self.saves[name], name.removesuffix(".nemo").removesuffix(".ckpt"), ""
        have = {entry.path.rpartition("/")[0] for entry in saved}
        missing = [rank.name for rank in self.ranks if rank.path not in have]
        if tree.get(join(self.path, stem + _UNFINISHED)):
            wrong = f"{stem}{_UNFINISHED} says that it was still being written"
        elif missing and len(missing) < len(self.ranks):
            wrong = f"the part of {missing[0]} is missing"
        if len(saved) == 1 and saved[0].kind == "folder":
            return single_checkpoint(tree, saved[0], _step(saved[0]), wrong=wrong)
        entries = [part for entry in saved for part in tree.with_contents(entry)]
        return checkpoint(tree, name, self.path, entries, _step(saved[0]), wrong=wrong)


def _find_nemo(tree: Tree, base: str) -> Found | None:
    folders = [folder for path in _places(tree, base) if (folder := _NemoFolder.look(tree, path)).saves]
    if not any(folder.is_nemo(tree) for folder in folders):
        return None
    models: list[Checkpoint] = []
    versions = []
    for folder in folders:
        rows = [folder.checkpoint(tree, name) for name in folder.saves]
        models += by_step(row for row in rows if row.name.endswith(".nemo"))
        versions.append([row for row in rows if not row.name.endswith(".nemo")])
    return _found("nemo", versions, _NEMO_LAST.fullmatch, models)


_SHARDS = Refusal(
    ("__*.distcp",),
    "only weights sharded by FSDP: nothing in it can be loaded until they are merged",
    "run `python -m lightning.pytorch.utilities.consolidate_checkpoint` on it first",
)
LIGHTNING = Layout(
    ("lightning",),
    _find_lightning,
    keep=("*.ckpt", "checkpoint/mp_rank_*_model_states.pt"),
    drop=(*RESUME, ("*_optim_states.pt", "optimizer state"), ("meta.pt", "the training's progress")),
    notes=(("*.ckpt", OPTIMIZER_INSIDE),),
    refusals=(_SHARDS, *SHARDED),
)
NEMO = Layout(
    ("nemo",),
    _find_nemo,
    keep=("*.nemo", "*.ckpt", "*.yaml", "weights/*", "context/*"),
    drop=(),
    notes=(("*.ckpt", OPTIMIZER_INSIDE),),
    ends_with_model=True,
)
