"""Lightning, and NeMo on top of it: ``epoch=E-step=S.ckpt`` in ``checkpoints`` folders, one for each ``version_K``.

Lightning's last is ``last.ckpt``, NeMo's ``…-last.ckpt``. NeMo writes the finished ``{exp}.nemo``; a file
``…-unfinished`` marks an incomplete save. With model parallelism every rank writes its part into a folder of its own,
``mp_rank_00/``.
"""

from __future__ import annotations

import re
from collections import defaultdict

from mdl.trainers.completeness import RESUME
from mdl.trainers.layout import Layout
from mdl.trainers.patterns import OPTIMIZER_INSIDE, Pattern, Place
from mdl.trainers.runs import Checkpoint, Found, checkpoint, parse_count, step_and_name
from mdl.trainers.tree import FILES, Entry, IsName, Tree, join

_SAVED = (*FILES, "folder")
_MARK = re.compile(r"(.*\b|.*_)(epoch|step)=[0-9]+.*\.ckpt|last(-v[0-9]+)?\.ckpt")
_STEP = re.compile(r"(.*?[^A-Za-z])?step=(?P<step>[0-9]+).*")
_RANK = re.compile(r"(mp_rank|tp_rank)_.+")
_NEMO_LAST = re.compile(r".+-last(-v[0-9]+)?(\.ckpt)?")
_UNFINISHED = "-unfinished"


def _versions(tree: Tree, base: str) -> list[str]:
    """The folders that checkpoints may be in, the oldest version first, the run's own folder last."""
    return [*tree.folders_named(base, "checkpoints"), base]


def _lightning_places(tree: Tree, base: str, _is_saved: IsName) -> list[Place]:
    def is_marked(entry: Entry) -> bool:
        return entry.kind in _SAVED and _MARK.fullmatch(entry.name) is not None

    return [(folder, folder) for folder in _versions(tree, base) if any(map(is_marked, tree.children(folder)))]


LIGHTNING = Layout(
    "lightning",
    Pattern(
        rf"{_STEP.pattern}\.ckpt|.+\.ckpt",
        best=r"(.*[-_.])?best([-_](model|checkpoint))?\.ckpt",
        last=r"last(-v[0-9]+)?\.ckpt",
        kinds=_SAVED,
        places=_lightning_places,
    ).find,
    keep=("*.ckpt", "checkpoint/mp_rank_*_model_states.pt"),
    drop=(*RESUME, ("*_optim_states.pt", "optimizer state"), ("meta.pt", "the training's progress")),
    notes=(("*.ckpt", OPTIMIZER_INSIDE),),
)


def _find_nemo(tree: Tree, base: str) -> Found | None:
    rows: list[Checkpoint] = []
    models: list[Checkpoint] = []
    is_nemo = False
    for folder in _versions(tree, base):
        ranks = [child for child in tree.subfolders(folder) if _RANK.fullmatch(child.name)]
        saves: dict[str, list[Entry]] = defaultdict(list)
        for above in (folder, *(rank.path for rank in ranks)):
            for entry in tree.children(above):
                is_file = entry.is_file and entry.name.endswith((".ckpt", ".nemo"))
                if is_file or (entry.kind == "folder" and _STEP.fullmatch(entry.name)):
                    saves[entry.name].append(entry)
        if not saves:
            continue
        is_named = any(name.endswith(".nemo") or _NEMO_LAST.fullmatch(name) for name in saves)
        is_marked = any(child.name.endswith(_UNFINISHED) for child in tree.children(folder))
        is_nemo = is_nemo or is_named or is_marked or bool(ranks)
        saved = sorted((_nemo_checkpoint(tree, folder, ranks, parts) for parts in saves.values()), key=step_and_name)
        models += [row for row in saved if row.name.endswith(".nemo")]
        saved = [row for row in saved if not row.name.endswith(".nemo")]
        rows += sorted(saved, key=lambda row: _NEMO_LAST.fullmatch(row.name) is not None)
    return Found.of([*rows, *models], by_age=rows) if is_nemo else None


def _nemo_checkpoint(tree: Tree, folder: str, ranks: list[Entry], parts: list[Entry]) -> Checkpoint:
    """What was saved under one name. Every rank writes its part: if one rank has it, all must."""
    name, wrong = parts[0].name, ""
    stem, step = name.removesuffix(".nemo").removesuffix(".ckpt"), _STEP.fullmatch(name)
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
    return checkpoint(tree, name, base, entries, parse_count(step and step["step"]), wrong=wrong)


NEMO = Layout(
    "nemo",
    _find_nemo,
    keep=("*.nemo", "*.ckpt", "*.yaml", "weights/*", "context/*"),
    drop=(),
    notes=(("*.ckpt", OPTIMIZER_INSIDE),),
    ends_with_model=True,
)
