"""Lightning, and NeMo on top of it: ``epoch=E-step=S.ckpt`` in ``checkpoints`` folders, one for each ``version_K``.

Lightning's last is ``last.ckpt``, NeMo's ``…-last.ckpt``. NeMo writes the finished ``{exp}.nemo``; a file
``…-unfinished`` marks an incomplete save. With model parallelism every rank writes its part into a folder of its own,
``mp_rank_00/``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from mdl.trainers.inference_filter import OPTIMIZER_INSIDE, RESUME, SHARDED, InferenceFilter, Refusal
from mdl.trainers.layout import Layout, by_step, checkpoint, folder_checkpoint, parse_count
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
_NemoSaves = dict[str, list[Entry]]
"""What was saved under one name, by one or more ranks."""


def _find_lightning(tree: Tree, base: str) -> Found | None:
    folders = [folder for folder in _places(tree, base) if _named(tree, folder, _MARK.fullmatch)]
    versions = [[_checkpoint(tree, entry) for entry in _named(tree, folder, _CKPT.fullmatch)] for folder in folders]
    return _found("lightning", versions, _LAST.fullmatch) if folders else None


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


def _named(tree: Tree, folder: str, is_name: IsName) -> list[Entry]:
    """The files of such a name in ``folder``, and the folders, which hold a sharded checkpoint."""
    return [entry for entry in tree.children(folder) if entry.kind in _SAVED and is_name(entry.name)]


def _checkpoint(tree: Tree, entry: Entry) -> Checkpoint:
    if entry.kind == "folder":
        return folder_checkpoint(tree, entry, _step(entry))
    return checkpoint(tree, entry.name, entry.path.rpartition("/")[0], [entry], _step(entry))


def _find_nemo(tree: Tree, base: str) -> Found | None:
    folders = [(folder, saves) for folder in _places(tree, base) if (saves := _nemo_saves(tree, folder))]
    if not any(_is_nemo(tree, folder, saves) for folder, saves in folders):
        return None
    models: list[Checkpoint] = []
    versions = []
    for folder, saves in folders:
        rows = [_nemo_checkpoint(tree, folder, name, kept) for name, kept in saves.items()]
        models += by_step(row for row in rows if row.name.endswith(".nemo"))
        versions.append([row for row in rows if not row.name.endswith(".nemo")])
    return _found("nemo", versions, _NEMO_LAST.fullmatch, models)


def _nemo_ranks(tree: Tree, folder: str) -> list[Entry]:
    return [child for child in tree.subfolders(folder) if _NEMO_RANK.fullmatch(child.name)]


def _nemo_saves(tree: Tree, folder: str) -> _NemoSaves:
    """What lies in ``folder``, or in the folders of the ranks in it, by name."""
    saves: _NemoSaves = defaultdict(list)
    ranks = _nemo_ranks(tree, folder)
    for child in tree.children(folder):
        for entry in tree.children(child.path) if child in ranks else [child]:
            if _is_nemo_save(entry):
                saves[entry.name].append(entry)
    return saves


def _is_nemo_save(entry: Entry) -> bool:
    if entry.kind == "folder":
        return _step(entry) is not None
    return entry.kind in _SAVED and entry.name.endswith((".ckpt", ".nemo"))


def _is_nemo(tree: Tree, folder: str, saves: _NemoSaves) -> bool:
    is_marked = any(child.name.endswith(_UNFINISHED) for child in tree.children(folder))
    is_named = any(name.endswith(".nemo") or _NEMO_LAST.fullmatch(name) for name in saves)
    return is_marked or is_named or bool(_nemo_ranks(tree, folder))


def _nemo_checkpoint(tree: Tree, folder: str, name: str, kept: list[Entry]) -> Checkpoint:
    stem = name.removesuffix(".nemo").removesuffix(".ckpt")
    wrong = _missing_rank(tree, folder, kept)
    if tree.get(join(folder, stem + _UNFINISHED)):
        wrong = f"{stem}{_UNFINISHED} says that it was still being written"
    if len(kept) == 1 and kept[0].kind == "folder":
        return folder_checkpoint(tree, kept[0], _step(kept[0]), wrong=wrong)
    entries = [part for entry in kept for part in tree.with_contents(entry)]
    return checkpoint(tree, name, folder, entries, _step(kept[0]), wrong=wrong)


def _missing_rank(tree: Tree, folder: str, kept: list[Entry]) -> str:
    """Every rank writes its part: if one rank has it, all must."""
    have = {entry.path.rpartition("/")[0] for entry in kept}
    ranks = _nemo_ranks(tree, folder)
    missing = [rank.name for rank in ranks if rank.path not in have]
    return f"the part of {missing[0]} is missing" if missing and len(missing) < len(ranks) else ""


_SHARDS = Refusal(
    ("__*.distcp",),
    "only weights sharded by FSDP: nothing in it can be loaded until they are merged",
    "run `python -m lightning.pytorch.utilities.consolidate_checkpoint` on it first",
)
LIGHTNING = Layout(
    ("lightning",),
    _find_lightning,
    InferenceFilter(
        keep=("*.ckpt", "checkpoint/mp_rank_*_model_states.pt"),
        drop=(*RESUME, ("*_optim_states.pt", "optimizer state"), ("meta.pt", "the training's progress")),
        notes=(("*.ckpt", OPTIMIZER_INSIDE),),
        refusals=(_SHARDS, *SHARDED),
    ),
)
NEMO = Layout(
    ("nemo",),
    _find_nemo,
    InferenceFilter(
        keep=("*.nemo", "*.ckpt", "*.yaml", "weights/*", "context/*"),
        drop=(),
        notes=(("*.ckpt", OPTIMIZER_INSIDE),),
    ),
    ends_with_model=True,
)
