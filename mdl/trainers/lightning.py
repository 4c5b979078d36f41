"""Lightning, and NeMo on top of it: ``epoch=E-step=S.ckpt`` in ``checkpoints`` folders, one for each ``version_K``.

Lightning's last is ``last.ckpt``, NeMo's ``…-last.ckpt``. NeMo writes the finished ``{exp}.nemo``; a file
``…-unfinished`` marks an incomplete save. With model parallelism every rank writes its part into a folder of its own,
``mp_rank_00/``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace

from mdl.trainers.axes import plain_name, what_name_says
from mdl.trainers.checkpoint import Checkpoint, Found, checkpoint
from mdl.trainers.completeness import RESUME
from mdl.trainers.layout import OPTIMIZER_INSIDE, Layout
from mdl.trainers.patterns import Pattern, Place
from mdl.trainers.tree import FILES, Entry, IsName, Tree, join, natural_key
from mdl.weights import stem_of

_SAVED = (*FILES, "folder")
_MARK = re.compile(r"(.*\b|.*_)(epoch|step)=[0-9]+.*\.ckpt|last(-v[0-9]+)?\.ckpt")
_RANK = re.compile(r"(mp_rank|tp_rank)_.+")
_NEMO_LAST = re.compile(r".+-last(-v[0-9]+)?(\.ckpt)?")
_UNFINISHED = "-unfinished"
_VERSION = re.compile(r"version_[0-9]+")


def _versions(tree: Tree, base: str) -> list[str]:
    """The folders that checkpoints of one run may be in: the versions of its one logger, the oldest first, and the
    run's own folder last."""
    loggers = [base, *(folder.path for folder in tree.subfolders(base))]
    versioned = [logger for logger in loggers if _version_folders(tree, logger)]
    folders = _version_folders(tree, versioned[0]) if len(versioned) == 1 else []
    return [*(join(folder, "checkpoints") for folder in folders), *folders, join(base, "checkpoints"), base]


def _version_folders(tree: Tree, logger: str) -> list[str]:
    folders = [folder.path for folder in tree.subfolders(logger) if _VERSION.fullmatch(folder.name)]
    return sorted(folders, key=natural_key)


def _lightning_places(tree: Tree, base: str, _is_saved: IsName) -> list[Place]:
    def is_marked(entry: Entry) -> bool:
        return entry.kind in _SAVED and _MARK.fullmatch(plain_name(entry.name)) is not None

    return [(folder, folder) for folder in _versions(tree, base) if any(map(is_marked, tree.children(folder)))]


def _version_of_name(name: str) -> int:
    """The number that Lightning appends if a file of the same name is there already: ``last-v2.ckpt`` is newer than
    ``last.ckpt``."""
    version = re.search(r"-v([0-9]{1,9})(\.ckpt)?$", name)
    return int(version[1]) if version else 0


LIGHTNING = Layout(
    "lightning",
    Pattern(
        r".+\.ckpt",
        best=r"(.*[-_.])?best([-_](model|checkpoint))?\.ckpt",
        last=(r"last(-v[0-9]+)?\.ckpt",),
        kinds=_SAVED,
        order=_version_of_name,
        places=_lightning_places,
    ).find,
    trainers="PyTorch Lightning",
    keep=("*.ckpt", "checkpoint/mp_rank_*_model_states.pt"),
    drop=(*RESUME, ("*_optim_states.pt", "optimizer state"), ("meta.pt", "the training's progress")),
    notes=(("*.ckpt", OPTIMIZER_INSIDE),),
)


def _find_nemo(tree: Tree, base: str) -> Found | None:
    rows: list[Checkpoint] = []
    is_nemo = False
    for place, folder in enumerate(_versions(tree, base)):
        ranks = [child for child in tree.subfolders(folder) if _RANK.fullmatch(child.name)]
        saves: dict[str, list[Entry]] = defaultdict(list)
        for above in (folder, *(rank.path for rank in ranks)):
            for entry in tree.children(above):
                is_file = entry.is_file and entry.name.endswith((".ckpt", ".nemo"))
                if is_file or (entry.kind == "folder" and what_name_says(entry.name).step is not None):
                    saves[entry.name].append(entry)
        if not saves:
            continue
        is_named = any(name.endswith(".nemo") or _NEMO_LAST.fullmatch(name) for name in saves)
        is_marked = any(child.name.endswith(_UNFINISHED) for child in tree.children(folder))
        is_nemo = is_nemo or is_named or is_marked or bool(ranks)
        saved = [_nemo_checkpoint(tree, folder, ranks, parts) for parts in saves.values()]
        rows += [replace(row, place=place) for row in saved]
    rows.sort(key=lambda row: (row.is_derived, row.place, row.last is not None, row.step or 0, natural_key(row.name)))
    return Found(tuple(rows)) if is_nemo else None


def _nemo_checkpoint(tree: Tree, folder: str, ranks: list[Entry], parts: list[Entry]) -> Checkpoint:
    """What was saved under one name. Every rank writes its part: if one rank has it, all must."""
    name, wrong = parts[0].name, ""
    stem = name.removesuffix(".nemo").removesuffix(".ckpt")
    says = what_name_says(stem_of(name))
    have = {entry.path.rpartition("/")[0] for entry in parts}
    missing = [rank.name for rank in ranks if rank.path not in have]
    if tree.get(join(folder, stem + _UNFINISHED)):
        wrong = f"{stem}{_UNFINISHED} says that it was still being written"
    elif missing and len(missing) < len(ranks):
        wrong = f"the part of {missing[0]} is missing"
    if len(parts) == 1 and parts[0].kind == "folder":
        base, entries = parts[0].path, list(tree.below(parts[0].path))
    else:
        base, entries = folder, [part for entry in parts for part in tree.with_contents(entry)]
    row = checkpoint(tree, name, base, entries, step=says.step, epoch=says.epoch, wrong=wrong)
    last = _version_of_name(name) if _NEMO_LAST.fullmatch(name) else None
    return replace(row, last=last, is_derived=name.endswith(".nemo"))


NEMO = Layout(
    "nemo",
    _find_nemo,
    trainers="NeMo",
    keep=("*.nemo", "*.ckpt", "*.yaml", "weights/*", "context/*"),
    drop=(),
    notes=(("*.ckpt", OPTIMIZER_INSIDE),),
    ends_with_model=True,
)
