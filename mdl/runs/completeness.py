"""Completeness: whether saved files are whole, as far as their names, indexes and end records show.

Nothing is unpickled.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from mdl.paths import matches
from mdl.runs.tree import Entry, Tree
from mdl.weights.safetensors import SAFETENSORS, read_header
from mdl.weights.table import is_weights, why_not_whole

_INDEX = re.compile(r".+\.(safetensors|bin|h5|msgpack)\.index(\.[^.]+)?\.json")
_SHARD = re.compile(r".+-[0-9]{5}-of-[0-9]{5}(\.[^.]+)?\.(safetensors|bin)")
_PART = re.compile(r"(?P<stem>.+)-[0-9]{5}-of-(?P<total>[0-9]{5})(?P<suffix>\.gguf)?")
_STAGED = re.compile(r"(.+)\.(tmp|part|partial)", re.IGNORECASE)
_ONLY_TRAINER_READS = ("*_model_states.pt", "pytorch_model_fsdp_*")
_RESUME = {
    "optimizer state": "optimizer*.pt optimizer*.bin optimizer_[0-9]*/*",
    "scheduler state": "scheduler*.pt scheduler*.bin",
    "gradient scaler state": "scaler*.pt",
    "random number state": "rng_state*.pth random_states_*.pkl",
    "sampler state": "sampler*.bin",
    "state of the script's own objects": "custom_checkpoint_*.pkl",
    "a pickle of the trainer's settings": "training_args.bin",
    "the trainer's own record": "trainer_state.json",
    "DeepSpeed's training state": "global_step*/*",
    "DeepSpeed's sharded training state": "*zero_pp_rank_*",
    "names DeepSpeed's training state": "latest",
    "merges DeepSpeed's training state": "zero_to_fp32.py",
    "weights sharded by FSDP": "pytorch_model_fsdp_[0-9]*/* pytorch_model_fsdp_rank*.bin",
    "a distributed shard": "*.distcp",
    "half-written": "*.tmp",
}
RESUME = tuple((glob, why) for why, globs in _RESUME.items() for glob in globs.split())
"""Globs of the files that only a resumed training reads, each with a short reason; ``*`` crosses ``/``."""
_RESUME_GLOBS = tuple(glob for glob, _ in RESUME)


def is_model(name: str) -> bool:
    """Whether a file of this name, below its checkpoint, may hold the model, be it only for the trainer itself."""
    if not is_weights(name):
        return False
    return matches(name, _ONLY_TRAINER_READS) or not matches(name, _RESUME_GLOBS)


def is_index(name: str) -> bool:
    return _INDEX.fullmatch(name) is not None


def why_incomplete(tree: Tree, entries: Iterable[Entry]) -> str:
    """What shows that files that were saved together are incomplete; "" if nothing does."""
    for folder, files in _by_folder(entries).items():
        fault = next(_faults(tree, folder, files), "")
        if fault:
            return fault
    return ""


def why_parts_are_missing(tree: Tree, entries: Iterable[Entry]) -> str:
    """Which shard, index or part of a split file is missing beside these files; "" if none is."""
    files_alone = (entry for entry in entries if entry.kind == "file")
    for files in _by_folder(files_alone).values():
        fault = next(_missing_parts(tree, files), "")
        if fault:
            return fault
    return ""


def _by_folder(entries: Iterable[Entry]) -> dict[str, dict[str, Entry]]:
    """The entries of each folder by their names."""
    folders: dict[str, dict[str, Entry]] = defaultdict(dict)
    for entry in entries:
        folder, _, name = entry.path.rpartition("/")
        folders[folder][name] = entry
    return folders


def _faults(tree: Tree, folder: str, entries: dict[str, Entry]) -> Iterator[str]:
    """All that is wrong within one folder."""
    files = {name: entry for name, entry in entries.items() if entry.kind == "file"}
    for name, entry in entries.items():
        staged = _STAGED.fullmatch(name)
        if staged and is_weights(staged[1]):
            yield f"{name} was still being written"
        if entry.kind in ("special", "unreadable") and is_weights(name):
            yield f"{name}: {entry.why}"
    yield from _missing_parts(tree, files)
    for name, entry in files.items():
        if not entry.stamp.size and is_weights(name):
            yield f"{name} is empty"
            continue
        reason = why_cut(tree, entry)
        if reason:
            yield f"{name}: {reason}"
    if any(name.endswith(".distcp") for name in files) and ".metadata" not in files:
        yield f"{folder.rpartition('/')[2]}/.metadata, which is written last, is missing"


def _missing_parts(tree: Tree, files: dict[str, Entry]) -> Iterator[str]:
    """Missing shards that an index names, a missing index, missing parts of a split file."""
    indexes = [entry for name, entry in files.items() if is_index(name)]
    for index in indexes:
        why = missing_shard(tree, index.path)
        if why:
            yield why
    numbered = [name for name in files if "-of-" in name]
    shards = [name for name in numbered if _SHARD.fullmatch(name)]
    if shards and not indexes:
        yield f"the index of {shards[0]} is missing"
    split_files = {part.groups(): part for part in map(_PART.fullmatch, numbered) if part}
    for part in split_files.values():
        for name in _all_parts(part, len(files)):
            if name not in files:
                yield f"{name} is missing"


def _all_parts(part: re.Match[str], most: int) -> list[str]:
    """The names of all parts of the split file that one is a ``part`` of; no more than one more than ``most``. None if
    it is of no format that tells."""
    stem = part["stem"]
    total = part["total"]
    suffix = part["suffix"]
    count = min(int(total), most + 1)
    if suffix == ".gguf":
        return [f"{stem}-{number:05}-of-{total}{suffix}" for number in range(1, count + 1)]
    if not stem.endswith(".data"):
        return []
    index = f"{stem.removesuffix('.data')}.index"  # TensorFlow counts its parts from 0
    return [*(f"{stem}-{number:05}-of-{total}" for number in range(count)), index]


def missing_shard(tree: Tree, index: str) -> str | None:
    """What is wrong with the index at this path: it cannot be read, or names a shard that is missing; else None."""
    shards = tree.json(index).get("weight_map")
    folder, slash, name = index.rpartition("/")
    if not isinstance(shards, dict) or not shards:
        return f"{name} cannot be read"
    for shard in sorted({shard if isinstance(shard, str) else repr(shard) for shard in shards.values()}):
        entry = tree.get(folder + slash + shard)
        if entry is None or entry.kind not in ("file", "escapes"):
            return f"shard {shard} of the index is missing"
    return None


def why_cut(tree: Tree, entry: Entry) -> str | None:
    """What shows that a file of weights is not whole; None if nothing does, if it is no such file, or if it cannot be
    read now."""
    if entry.kind != "file" or not is_weights(entry.name):
        return None
    try:
        with tree.opened(entry) as file:
            return why_not_whole(file, entry.stamp.size, entry.name) if file else None
    except OSError:
        return None


def header_metadata(tree: Tree, entry: Entry) -> dict[str, str]:
    """What the trainer wrote into the header of a safetensors file; empty for any other file."""
    if not entry.name.endswith(SAFETENSORS):
        return {}
    header = read_header(lambda count: tree.head(entry.path, count))
    return header.metadata if header else {}
