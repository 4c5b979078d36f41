"""Layout: how one trainer names what it saves, which of the saved files inference needs, and helpers for both.

Checkpoints are ordered by the numbers in their names, never by time: copies, archives and object stores all set
times anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mdl.errors import NotFound
from mdl.trainers.completeness import is_index, is_weights, missing_shard, read_header, why_incomplete
from mdl.trainers.runs import FINAL, Checkpoint, Found
from mdl.trainers.tree import Entry, IsName, Tree, natural_key

COUNTS_EPOCHS = "its number counts epochs"
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
class InferenceFiles:
    """``keep`` are known to be needed, ``drop`` known not to be, each with its reason; ``unknown`` are kept and
    reported."""

    keep: tuple[Entry, ...]
    drop: tuple[tuple[Entry, str], ...]
    unknown: tuple[Entry, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """How one trainer names what it saves.

    ``find`` looks into a folder and answers None if it is not of this layout. ``ends_with_model``: the trainer writes
    the finished model as one file, the last and latest.

    For inference, globs are matched with names below the checkpoint's base; ``*`` crosses ``/``. A name that matches
    ``drop`` (with its reason) is dropped even if it matches ``keep``. ``notes`` are a glob each, and what to say of a
    kept file that matches it; ``model_notes`` gives what a user should know of the whole model.
    """

    names: tuple[str, ...]
    find: Callable[[Tree, str], Found | None]
    keep: tuple[str, ...]
    drop: tuple[tuple[str, str], ...] = RESUME
    notes: tuple[tuple[str, str], ...] = ()
    refusals: tuple[Refusal, ...] = SHARDED
    model_notes: Callable[[Tree, Checkpoint], tuple[str, ...]] = lambda _tree, _checkpoint: ()
    ends_with_model: bool = False

    def inference_files(self, tree: Tree, checkpoint: Checkpoint) -> InferenceFiles:
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
        left = [*keep, *unknown]
        if not any(entry.kind in ("file", "escapes") and is_weights(entry.name) for entry in left):
            raise self._nothing_to_load(checkpoint, [checkpoint.relative(entry) for entry, _ in drop])
        for entry in left:
            why = missing_shard(tree, entry.path) if is_index(entry.name) else None
            if why:
                hint = "name another checkpoint; 'mdl checkpoints' lists them"
                raise NotFound(why, item=checkpoint.name, hint=hint)
        kept = [checkpoint.relative(entry) for entry in keep if entry.kind != "excluded"]
        notes = [f"{name} {text}" for name in kept for glob, text in self.notes if fnmatchcase(name, glob)]
        notes += self.model_notes(tree, checkpoint)
        return InferenceFiles(tuple(keep), tuple(drop), tuple(unknown), tuple(notes))

    def _nothing_to_load(self, checkpoint: Checkpoint, dropped: list[str]) -> NotFound:
        for refusal in self.refusals:
            if any(_matches_any(name, refusal.globs) for name in dropped):
                return NotFound(refusal.message, item=checkpoint.name, hint=refusal.hint)
        hint = "pack it without --inference-only, or name another checkpoint"
        return NotFound("it holds nothing that can be loaded", item=checkpoint.name, hint=hint)


def is_only_for_resuming(name: str) -> bool:
    """Whether only a resumed training reads the file of this name, below its checkpoint."""
    return _reason(name, RESUME) is not None


def _reason(name: str, globs: Iterable[tuple[str, str]]) -> str | None:
    return next((why for glob, why in globs if fnmatchcase(name, glob)), None)


def _matches_any(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def checkpoint(
    tree: Tree,
    name: str,
    base: str,
    entries: Iterable[Entry],
    step: int | None = None,
    *,
    wrong: str = "",
    note: str = "",
) -> Checkpoint:
    """A checkpoint whose files were checked against their own indexes and headers.

    ``wrong`` says why it is incomplete, if the trainer's own marks show that.
    """
    entries = tuple(entries)
    wrong = wrong or why_incomplete(tree, entries)
    return Checkpoint(name, base, entries, step, complete=not wrong, note=wrong or note)


def single_checkpoint(tree: Tree, entry: Entry, step: int | None = None, *, wrong: str = "") -> Checkpoint:
    """A checkpoint that is one file, or one folder with all that is in it."""
    base = entry.path if entry.kind == "folder" else entry.path.rpartition("/")[0]
    return checkpoint(tree, entry.name, base, tree.below(entry.path), step, wrong=wrong)


def finished_model(tree: Tree, base: str, is_model: IsName, taken: Iterable[str]) -> list[Checkpoint]:
    """The row of the model that lies in ``base`` beside the ``taken`` folders of checkpoints; empty if none does."""
    has_model = tree.files_named(base, is_model)
    return [checkpoint(tree, FINAL, base, tree.all_but(base, taken))] if has_model else []


def by_step(rows: Iterable[Checkpoint]) -> list[Checkpoint]:
    """``rows`` ordered by step, then by name as people count; those without a step last."""
    return sorted(rows, key=lambda row: (row.step is None, row.step or 0, natural_key(row.name)))


_COUNT = re.compile(r"[0-9]{1,18}")


def parse_count(value: object) -> int | None:
    """A whole number of steps, as a number or in digits; None for anything else that a file may hold there."""
    if isinstance(value, str) and _COUNT.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18:
        return value
    return None


def header_metadata(tree: Tree, entry: Entry) -> dict[str, str]:
    """What the trainer wrote into the header of a safetensors file; empty for any other file."""
    if entry.kind != "file" or not entry.name.endswith(".safetensors"):
        return {}
    header = read_header(lambda size: tree.head(entry.path, size))
    return header.metadata if header else {}
