"""Lightning, and NeMo on top of it."""

from __future__ import annotations

import re

from mdl.runs.completeness import RESUME
from mdl.runs.layout import OPTIMIZER_INSIDE, Layout
from mdl.runs.names import plain_name, what_name_says
from mdl.runs.patterns import Pattern
from mdl.runs.tree import FILES, Entry, IsName, Tree, join, natural_key

# Lightning, and NeMo on top of it: ``epoch=E-step=S.ckpt`` in ``checkpoints`` folders, one for each ``version_K``.
# Lightning's last is ``last.ckpt``, NeMo's ``…-last.ckpt``. NeMo writes the finished ``{exp}.nemo``; a file
# ``…-unfinished`` marks an incomplete save. With model parallelism every rank writes its part into a folder of its own,
# ``mp_rank_00/``.

_LIGHTNING_KINDS = (*FILES, "folder")
_LIGHTNING_MARK = re.compile(r"(.*\b|.*_)(epoch|step)=[0-9]+.*\.ckpt|last(-v[0-9]+)?\.ckpt")
_NEMO_RANK = re.compile(r"(mp_rank|tp_rank)_.+")
_NEMO_LAST = re.compile(r".+-last(-v[0-9]+)?(\.ckpt)?")
_NEMO_UNFINISHED = "-unfinished"
_LIGHTNING_VERSION = re.compile(r"version_[0-9]+")


def _versions(tree: Tree, base: str) -> list[str]:
    """The folders that checkpoints of one run may be in: the versions of its one logger, the oldest first, and the
    run's own folder last."""
    loggers = [base, *(folder.path for folder in tree.subfolders(base))]
    versioned = [logger for logger in loggers if _version_folders(tree, logger)]
    folders = []
    if len(versioned) == 1:
        folders = _version_folders(tree, versioned[0])
    return [*(join(folder, "checkpoints") for folder in folders), *folders, join(base, "checkpoints"), base]


def _version_folders(tree: Tree, logger: str) -> list[str]:
    folders = [folder.path for folder in tree.subfolders(logger) if _LIGHTNING_VERSION.fullmatch(folder.name)]
    return sorted(folders, key=natural_key)


def _lightning_places(tree: Tree, base: str, _is_saved: IsName) -> list[str]:
    def is_marked(entry: Entry) -> bool:
        return entry.kind in _LIGHTNING_KINDS and _LIGHTNING_MARK.fullmatch(plain_name(entry.name)) is not None

    return [folder for folder in _versions(tree, base) if any(map(is_marked, tree.children(folder)))]


def _version_of_name(name: str) -> int:
    """The number that Lightning appends if a file of the same name is there already: ``last-v2.ckpt`` is newer than
    ``last.ckpt``."""
    version = re.search(r"-v([0-9]{1,9})(\.ckpt)?$", name)
    return int(version[1]) if version else 0


LIGHTNING = Layout(
    "lightning",
    Pattern(
        r".+\.ckpt",
        best=r"(.*[-_.=+])?best([-_.=+].*)?\.ckpt",
        last=(r"(last|latest)(-v[0-9]+)?\.ckpt",),
        kinds=_LIGHTNING_KINDS,
        order=_version_of_name,
        places=_lightning_places,
    ).find,
    trainers="PyTorch Lightning",
    keep=("*.ckpt", "checkpoint/mp_rank_*_model_states.pt"),
    drop=(*RESUME, ("*_optim_states.pt", "optimizer state"), ("meta.pt", "the training's progress")),
    notes=(("*.ckpt", OPTIMIZER_INSIDE),),
)


def _is_saved_by_nemo(_tree: Tree, entry: Entry) -> bool:
    if entry.is_file:
        return entry.name.endswith((".ckpt", ".nemo"))
    return what_name_says(entry.name).step is not None


def _nemo_places(tree: Tree, base: str, _is_saved: IsName) -> list[str]:
    folders = _versions(tree, base)
    if any(_is_nemo(tree, folder) for folder in folders):
        return folders
    return []


def _is_nemo(tree: Tree, folder: str) -> bool:
    """Tell whether a name in a folder is one that only NeMo gives."""
    for entry in tree.children(folder):
        if entry.name.endswith((".nemo", _NEMO_UNFINISHED)):
            return True
        if entry.kind == "folder" and _NEMO_RANK.fullmatch(entry.name):
            return True
        if _NEMO_LAST.fullmatch(entry.name) and _is_saved_by_nemo(tree, entry):
            return True
    return False


NEMO = Layout(
    "nemo",
    Pattern(
        r".+",
        last=(_NEMO_LAST.pattern,),
        derived=r".+\.nemo",
        kinds=_LIGHTNING_KINDS,
        unfinished=_NEMO_UNFINISHED,
        pieces_in=_NEMO_RANK.pattern,
        order=_version_of_name,
        places=_nemo_places,
        is_saved=_is_saved_by_nemo,
    ).find,
    trainers="NeMo",
    keep=("*.nemo", "*.ckpt", "*.yaml", "weights/*", "context/*"),
    drop=(),
    notes=(("*.ckpt", OPTIMIZER_INSIDE),),
)
