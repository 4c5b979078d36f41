"""Lightning: ``epoch=E-step=S.ckpt`` and ``last.ckpt`` in ``checkpoints`` folders, one for each ``version_K``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.layout import Found, Layout, newest, ordered, saved
from mdl.trainers.natural import count
from mdl.trainers.sieve import OPTIMIZER_INSIDE, SHARDED, Refusal, Sieve
from mdl.trainers.single_files import folders_named
from mdl.trainers.tree import Entry, Tree
from mdl.trainers.weights import RESUME

_CKPT = re.compile(r".+\.ckpt")
_LAST = re.compile(r"last(-v[0-9]+)?\.ckpt")
_MARK = re.compile(r"(.*\b|.*_)(epoch|step)=[0-9]+.*\.ckpt|last(-v[0-9]+)?\.ckpt")
_STEP = re.compile(r"(?:^|[^A-Za-z])step=([0-9]+)")


def find(tree: Tree, base: str) -> Found | None:
    folders = [folder for folder in places(tree, base) if _named(tree, folder, _MARK.fullmatch)]
    if not folders:
        return None
    versions = [[_checkpoint(tree, entry) for entry in _named(tree, folder, _CKPT.fullmatch)] for folder in folders]
    return versions_found("lightning", versions, lambda name: _LAST.fullmatch(name) is not None)


def versions_found(
    layout: str,
    versions: list[list[Checkpoint]],
    is_last: Callable[[str], bool],
    finished: Sequence[Checkpoint] = (),
) -> Found:
    """Runs of one training, oldest first: the newest one's last checkpoint is the latest."""
    rows: list[Checkpoint] = []
    groups: list[list[Checkpoint]] = []
    for version in versions:
        lasts = ordered(row for row in version if is_last(row.name))
        others = ordered(row for row in version if not is_last(row.name))
        rows += [*others, *lasts]
        groups = [lasts, others, *groups]
    return Found.of(layout, [*rows, *finished], latest=newest(*groups, finished))


def places(tree: Tree, base: str) -> list[str]:
    """Where Lightning's checkpoints may be, the oldest version first, the run's own folder last."""
    return [*folders_named(tree, base, "checkpoints"), base]


def step_of(entry: Entry) -> int | None:
    """The step in its name, or in that of the file it links to."""
    steps = (_STEP.search(path.rpartition("/")[2]) for path in (entry.path, entry.real))
    return next((count(step[1]) for step in steps if step), None)


def _named(tree: Tree, folder: str, is_one: Callable[[str], object]) -> list[Entry]:
    """Those of such a name in ``folder``: files, or folders of a sharded one."""
    children = tree.children(folder)
    return [entry for entry in children if entry.kind in ("file", "folder", "leaves") and is_one(entry.name)]


def _checkpoint(tree: Tree, entry: Entry) -> Checkpoint:
    if entry.kind == "folder":
        return saved(tree, entry.name, entry.path, tree.below(entry.path), step_of(entry))
    return saved(tree, entry.name, entry.path.rpartition("/")[0], [entry], step_of(entry))


_SHARDS = Refusal(
    ("__*.distcp",),
    "only weights sharded by FSDP: nothing in it can be loaded until they are merged",
    "run `python -m lightning.pytorch.utilities.consolidate_checkpoint` on it first",
)
LAYOUT = Layout(
    ("lightning",),
    find,
    Sieve(
        keep=("*.ckpt", "checkpoint/mp_rank_*_model_states.pt"),
        drop=(*RESUME, ("*_optim_states.pt", "optimizer state"), ("meta.pt", "the training's progress")),
        notes=(("*.ckpt", OPTIMIZER_INSIDE),),
        refusals=(_SHARDS, *SHARDED),
    ),
)
