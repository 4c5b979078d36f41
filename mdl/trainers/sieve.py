"""Sieve: what of a checkpoint inference needs, by an allow-list; what only a resumed training reads stays behind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mdl.errors import NotFound
from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.tree import Entry, Tree
from mdl.trainers.weights import RESUME, is_weights
from mdl.trainers.wholeness import is_index, missing_shard

OPTIMIZER_INSIDE = "contains optimizer state; stripping it needs torch"
_ANOTHER = "pack it without --inference-only, or name another checkpoint"


@dataclass(frozen=True)
class Inference:
    """``keep`` is known to be needed, ``drop`` known not to be, with why; ``unknown`` is kept and told of."""

    keep: tuple[Entry, ...]
    drop: tuple[tuple[Entry, str], ...]
    unknown: tuple[Entry, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """What to say where nothing loadable is left, and a dropped name matches one of ``globs``."""

    globs: tuple[str, ...]
    message: str
    hint: str


SHARDED = (
    Refusal(
        ("global_step*/*", "*zero_pp_rank_*"),
        "only DeepSpeed's sharded state: nothing in it can be loaded until its shards are merged",
        "run `python zero_to_fp32.py . .` in it first",
    ),
    Refusal(
        ("pytorch_model_fsdp_*", "__*.distcp"),
        "only weights sharded by FSDP: nothing in it can be loaded until they are merged",
        "run `accelerate merge-weights pytorch_model_fsdp_0 merged` in it first",
    ),
)


@dataclass(frozen=True)
class Sieve:
    """Globs over names below the checkpoint's base, ``*`` crossing ``/``; ``drop`` is asked before ``keep``.

    ``notes`` go with what is kept: a glob, and what is said of the file.
    """

    keep: tuple[str, ...]
    drop: tuple[tuple[str, str], ...] = RESUME
    notes: tuple[tuple[str, str], ...] = ()
    refusals: tuple[Refusal, ...] = SHARDED

    def sift(self, tree: Tree, checkpoint: Checkpoint) -> Inference:
        """Raises `NotFound` where nothing loadable would be left, or a shard that an index names is missing."""
        start = len(checkpoint.base) + 1 if checkpoint.base else 0
        named = [(entry.path[start:], entry) for entry in checkpoint.entries if entry.kind != "folder"]
        keep, drop, unknown = [], [], []
        for name, entry in named:
            why = next((why for glob, why in self.drop if fnmatchcase(name, glob)), None)
            if why is not None:
                drop.append((entry, why))
            elif _any(name, self.keep):
                keep.append(entry)
            else:
                unknown.append(entry)
        self._refuse_unloadable(checkpoint, [*keep, *unknown], [entry.path[start:] for entry, _ in drop])
        _refuse_missing_shards(tree, checkpoint, [*keep, *unknown])
        kept = [entry.path[start:] for entry in keep if entry.kind != "left-out"]
        notes = [f"{name} {text}" for name in kept for glob, text in self.notes if fnmatchcase(name, glob)]
        return Inference(tuple(keep), tuple(drop), tuple(unknown), tuple(notes))

    def _refuse_unloadable(self, checkpoint: Checkpoint, left: list[Entry], dropped: list[str]) -> None:
        if any(entry.kind in ("file", "leaves") and is_weights(entry.name) for entry in left):
            return
        for refusal in self.refusals:
            if any(_any(name, refusal.globs) for name in dropped):
                raise NotFound(refusal.message, item=checkpoint.name, hint=refusal.hint)
        raise NotFound("it holds nothing that can be loaded", item=checkpoint.name, hint=_ANOTHER)


def _any(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _refuse_missing_shards(tree: Tree, checkpoint: Checkpoint, left: list[Entry]) -> None:
    for entry in left:
        why = missing_shard(tree, entry.path) if is_index(entry.name) else None
        if why:
            raise NotFound(why, item=checkpoint.name, hint="name another checkpoint; 'mdl checkpoints' lists them")
