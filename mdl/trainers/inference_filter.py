"""Inference filter: which files of a checkpoint inference needs, and which only a resumed training reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mdl.errors import NotFound
from mdl.trainers.completeness import is_index, is_weights, missing_shard
from mdl.trainers.runs import Checkpoint
from mdl.trainers.tree import Entry, Tree

OPTIMIZER_INSIDE = "contains optimizer state; stripping it needs torch"
RESUME: tuple[tuple[str, str], ...] = (
    ("optimizer*.pt", "optimizer state"),
    ("optimizer*.bin", "optimizer state"),
    ("optimizer_[0-9]*/*", "optimizer state"),
    ("scheduler*.pt", "scheduler state"),
    ("scheduler*.bin", "scheduler state"),
    ("scaler*.pt", "gradient scaler state"),
    ("rng_state*.pth", "random number state"),
    ("random_states_*.pkl", "random number state"),
    ("sampler*.bin", "sampler state"),
    ("custom_checkpoint_*.pkl", "state of the script's own objects"),
    ("training_args.bin", "a pickle of the trainer's settings"),
    ("trainer_state.json", "the trainer's own record"),
    ("global_step*/*", "DeepSpeed's training state"),
    ("*zero_pp_rank_*", "DeepSpeed's sharded training state"),
    ("latest", "names DeepSpeed's training state"),
    ("zero_to_fp32.py", "merges DeepSpeed's training state"),
    ("pytorch_model_fsdp_[0-9]*/*", "weights sharded by FSDP"),
    ("pytorch_model_fsdp_rank*.bin", "weights sharded by FSDP"),
    ("*.distcp", "a distributed shard"),
    ("*.tmp", "half-written"),
)
"""Globs of the files that only a resumed training reads, each with a short reason; ``*`` crosses ``/``."""


@dataclass(frozen=True)
class InferenceFiles:
    """``keep`` are known to be needed, ``drop`` known not to be, each with its reason; ``unknown`` are kept and
    reported."""

    keep: tuple[Entry, ...]
    drop: tuple[tuple[Entry, str], ...]
    unknown: tuple[Entry, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """What to say if nothing that can be loaded is left, and a dropped name matches one of ``globs``."""

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
class InferenceFilter:
    """Globs that are matched with names below the checkpoint's base; ``*`` crosses ``/``.

    A name that matches ``drop`` is dropped even if it matches ``keep``. ``notes`` are a glob each, and what to say of
    a kept file that matches it.
    """

    keep: tuple[str, ...]
    drop: tuple[tuple[str, str], ...] = RESUME
    notes: tuple[tuple[str, str], ...] = ()
    refusals: tuple[Refusal, ...] = SHARDED

    def apply(self, tree: Tree, checkpoint: Checkpoint) -> InferenceFiles:
        """Split the checkpoint's files.

        Raises `NotFound` if nothing that can be loaded would be left, or if a shard that an index names is missing.
        """
        keep, drop, unknown = [], [], []
        for entry in (one for one in checkpoint.entries if one.kind != "folder"):
            name = checkpoint.relative(entry)
            why = _reason(name, self.drop)
            if why is not None:
                drop.append((entry, why))
            elif _matches_any(name, self.keep):
                keep.append(entry)
            else:
                unknown.append(entry)
        self._refuse_unloadable(checkpoint, [*keep, *unknown], [checkpoint.relative(entry) for entry, _ in drop])
        _refuse_missing_shards(tree, checkpoint, [*keep, *unknown])
        kept = [checkpoint.relative(entry) for entry in keep if entry.kind != "excluded"]
        notes = [f"{name} {text}" for name in kept for glob, text in self.notes if fnmatchcase(name, glob)]
        return InferenceFiles(tuple(keep), tuple(drop), tuple(unknown), tuple(notes))

    def _refuse_unloadable(self, checkpoint: Checkpoint, left: list[Entry], dropped: list[str]) -> None:
        if any(entry.kind in ("file", "escapes") and is_weights(entry.name) for entry in left):
            return
        for refusal in self.refusals:
            if any(_matches_any(name, refusal.globs) for name in dropped):
                raise NotFound(refusal.message, item=checkpoint.name, hint=refusal.hint)
        hint = "pack it without --inference-only, or name another checkpoint"
        raise NotFound("it holds nothing that can be loaded", item=checkpoint.name, hint=hint)


def is_only_for_resuming(name: str) -> bool:
    """Whether only a resumed training reads the file of this name, below its checkpoint."""
    return _reason(name, RESUME) is not None


def _reason(name: str, globs: Iterable[tuple[str, str]]) -> str | None:
    return next((why for glob, why in globs if fnmatchcase(name, glob)), None)


def _matches_any(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _refuse_missing_shards(tree: Tree, checkpoint: Checkpoint, left: list[Entry]) -> None:
    for entry in left:
        why = missing_shard(tree, entry.path) if is_index(entry.name) else None
        if why:
            raise NotFound(why, item=checkpoint.name, hint="name another checkpoint; 'mdl checkpoints' lists them")
