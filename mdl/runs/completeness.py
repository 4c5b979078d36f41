"""Completeness: whether saved files are whole, as far as their names, indexes and end records show.

Nothing is unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from itertools import chain

from mdl.paths import matches
from mdl.runs.tree import Entry, Tree, join
from mdl.weights.known_formats import CHECKPOINT, is_weights, kind_of

_INDEX = re.compile(r".+\.(safetensors|bin|h5|msgpack)\.index(\.[^.]+)?\.json")
_SHARD = re.compile(r".+-[0-9]{5}-of-(?!00001)[0-9]{5}(\.[^.]+)?\.(safetensors|bin)")
"""A part of several, whose tensors only the index tells."""
_PART = re.compile(r"(?P<stem>.+)-[0-9]{5}-of-(?P<total>[0-9]{5})(?P<suffix>\.gguf)?")
_RANKED = re.compile(r"(?P<stem>.+_world_size_(?P<total>[0-9]{1,5})_rank_)[0-9]+\.pt")
"""What each of so many processes writes."""
_STAGED = re.compile(r"(.+)\.(tmp|part|partial)", re.IGNORECASE)
_ONLY_TRAINER_READS = ("*_model_states.pt", "pytorch_model_fsdp_*")
_DISTRIBUTED_OPTIMIZER = ("optim*/*", "*/optim*/*")
RESUME = (
    ("optimizer*.pt", "optimizer state"),
    ("optimizer*.bin", "optimizer state"),
    ("optim.pt", "optimizer state"),
    ("optim/*", "optimizer state"),
    ("optimizer/*", "optimizer state"),
    ("optimizer*.safetensors*", "optimizer state"),
    ("optimizer*.pdopt", "optimizer state"),
    ("master_weights*.safetensors*", "optimizer state"),
    ("optimizer_[0-9]*/*", "optimizer state"),
    ("scheduler*.pt", "scheduler state"),
    ("scheduler*.bin", "scheduler state"),
    ("scheduler*.pdparams", "scheduler state"),
    ("scaler*.pt", "gradient scaler state"),
    ("rng_state*.pth", "random number state"),
    ("random_states_*.pkl", "random number state"),
    ("sampler*.bin", "sampler state"),
    ("*dataloader*.pt", "the state of the data"),
    ("dl_state_dict*.bin", "the state of the data"),
    ("custom_checkpoint_*.pkl", "state of the script's own objects"),
    ("training_args.bin", "a pickle of the trainer's settings"),
    ("trainer_state.json", "the trainer's own record"),
    ("train/rank[0-9]*.pt", "the trainer's own record"),
    ("trainer/rank_[0-9]*.pt", "the trainer's own record"),
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
RESUME_GLOBS = tuple(glob for glob, _ in RESUME)


def is_model(entry: Entry, name: str) -> bool:
    """Tell whether a file, of this ``name`` below its checkpoint, may hold the model, be it only for the trainer
    itself."""
    return entry.is_weights and not _is_of_training(name)


def _is_of_training(name: str) -> bool:
    """Tell whether weights of this name are those of an optimizer, or another state of the training."""
    if name.endswith(".distcp"):
        return matches(name, _DISTRIBUTED_OPTIMIZER)
    return matches(name, RESUME_GLOBS) and not matches(name, _ONLY_TRAINER_READS)


def why_incomplete(tree: Tree, entries: Iterable[Entry]) -> str:
    """Return what shows that files that were saved together are incomplete; "" if nothing does. The names, which cost
    nothing, come first."""
    saved = list(entries)
    faults = chain(_faults_in_names(saved), _missing_parts(tree, saved), _faults_in_contents(tree, saved))
    return next(faults, "")


def why_cut_without_suffix(tree: Tree, entries: Iterable[Entry]) -> str:
    """Return why one of these files of weights is cut, of those whose suffix does not tell their format; "" if none
    is."""
    for entry in entries:
        if kind_of(entry.name) is None:
            lacks = tree.contents_as(entry, CHECKPOINT).lacks
            if lacks:
                return f"{entry.name}: {lacks}"
    return ""


def why_parts_are_missing(tree: Tree, entries: Iterable[Entry]) -> str:
    """Return which shard that an index names, which index, or which part of a split file is missing beside these files;
    "" if none is."""
    return next(_missing_parts(tree, entries), "")


def is_index(entry: Entry) -> bool:
    """Tell whether a file is the index of a model in several shards."""
    return _INDEX.fullmatch(entry.name) is not None


def without_other_formats(tree: Tree, entries: Iterable[Entry]) -> list[Entry]:
    """The entries without the index of a format that is not here: none of its shards is, and other weights are beside
    it, as in a download of one format of several."""
    files = list(entries)
    with_weights = {entry.folder for entry in files if entry.is_weights}
    kept = []
    for entry in files:
        if is_index(entry) and entry.folder in with_weights:
            shards = tree.json(entry.path).get("weight_map")
            names = map(str, shards.values()) if isinstance(shards, dict) else ()
            if not any(tree.is_file(join(entry.folder, name)) for name in names):
                continue
        kept.append(entry)
    return kept


def missing_shards(tree: Tree, entries: Iterable[Entry]) -> str:
    """Return what is wrong with an index among these files: it cannot be read, or names a shard that is missing; else
    ""."""
    return next(_faults_of_indexes(tree, entries), "")


# Each of these finds all faults of one sort, the first of which is told


def _faults_in_names(entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        staged = _STAGED.fullmatch(entry.name)
        if staged and is_weights(staged[1]):
            yield f"{entry.name} was still being written"
        if entry.is_weights and entry.kind in ("special", "unreadable"):
            yield f"{entry.name}: {entry.why}"


def _missing_parts(tree: Tree, entries: Iterable[Entry]) -> Iterator[str]:
    files = {entry.path: entry for entry in entries if entry.kind == "file"}
    yield from _faults_of_indexes(tree, files.values())
    indexed = {entry.folder for entry in files.values() if _INDEX.fullmatch(entry.name)}
    for entry in files.values():
        if _SHARD.fullmatch(entry.name) and entry.folder not in indexed:
            yield f"the index of {entry.name} is missing"
        if entry.name.endswith(".distcp") and join(entry.folder, ".metadata") not in files:
            yield f"{entry.folder.rpartition('/')[2]}/.metadata, which is written last, is missing"
    yield from _missing_of_split_files(files)


def _missing_of_split_files(files: Collection[str]) -> Iterator[str]:
    """Each part that is missing of the split files of which others are among these paths."""
    split_files: dict[tuple[str, ...], None] = {}
    for path in files:
        part = _PART.fullmatch(path)
        if part:
            split_files[part.groups("")] = None
        ranked = _RANKED.fullmatch(path)
        if ranked:
            split_files[(ranked["stem"], ranked["total"], ".pt")] = None
    for stem, total, suffix in split_files:
        for path in _parts_of(stem, total, suffix, most=len(files) + 1):
            if path not in files:
                yield f"{path.rpartition('/')[2]} is missing"


def _parts_of(stem: str, total: str, suffix: str, *, most: int) -> list[str]:
    """The paths of all parts of a split file, ``most`` if it claims more. None if it is of no format that tells."""
    count = min(int(total), most)
    if suffix == ".pt":
        return [f"{stem}{rank}.pt" for rank in range(count)]
    if suffix:
        return [f"{stem}-{number:05}-of-{total}{suffix}" for number in range(1, count + 1)]
    if stem.endswith(".data"):  # TensorFlow counts its parts from 0
        shards = [f"{stem}-{number:05}-of-{total}" for number in range(count)]
        return [*shards, f"{stem.removesuffix('.data')}.index"]
    return []


def _faults_of_indexes(tree: Tree, entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        if not _INDEX.fullmatch(entry.name) or not tree.can_be_read:
            continue
        shards = tree.json(entry.path).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            yield f"{entry.name} cannot be read"
            continue
        for shard in sorted(set(map(str, shards.values()))):
            file = tree.get(join(entry.folder, shard))
            if file is None or not file.is_file:
                yield f"shard {shard} of the index is missing"


def _faults_in_contents(tree: Tree, entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        if entry.is_weights_file and not entry.stamp.size:
            yield f"{entry.name} is empty"
        lacks = tree.contents(entry).lacks
        if lacks:
            yield f"{entry.name}: {lacks}"
