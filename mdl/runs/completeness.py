"""Completeness: whether saved files are whole, as far as their names, indexes and end records show.

Nothing is unpickled.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from mdl.paths import matches
from mdl.runs.tree import Entry, Tree
from mdl.weights.known_formats import is_weights, why_not_whole
from mdl.weights.safetensors import SAFETENSORS, read_header

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
RESUME_GLOBS = tuple(glob for glob, _ in RESUME)


def is_model(name: str) -> bool:
    """Tell whether a file of this name, below its checkpoint, may hold the model, be it only for the trainer itself."""
    if not is_weights(name):
        return False
    return matches(name, _ONLY_TRAINER_READS) or not matches(name, RESUME_GLOBS)


def is_index(name: str) -> bool:
    return _INDEX.fullmatch(name) is not None


def why_incomplete(tree: Tree, entries: Iterable[Entry]) -> str:
    """Return what shows that files that were saved together are incomplete; "" if nothing does."""
    for folder, saved in _by_folder(entries).items():
        fault = next(_faults(tree, folder, saved), "")
        if fault:
            return fault
    return ""


def why_parts_are_missing(tree: Tree, entries: Iterable[Entry]) -> str:
    """Return which shard, index or part of a split file is missing beside these files; "" if none is."""
    for saved in _by_folder(entries).values():
        fault = next(_missing_parts(tree, _files_of(saved)), "")
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


def _files_of(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    return {name: entry for name, entry in entries.items() if entry.kind == "file"}


def _faults(tree: Tree, folder: str, entries: Mapping[str, Entry]) -> Iterator[str]:
    """All that is wrong within one folder. The names, which cost nothing, come first."""
    for name, entry in entries.items():
        staged = _STAGED.fullmatch(name)
        if staged and is_weights(staged[1]):
            yield f"{name} was still being written"
        if entry.kind in ("special", "unreadable") and is_weights(name):
            yield f"{name}: {entry.why}"
    files = _files_of(entries)
    yield from _missing_parts(tree, files)
    for name, entry in files.items():
        if is_weights(name) and not entry.stamp.size:
            yield f"{name} is empty"
        reason = why_cut(tree, entry)
        if reason:
            yield f"{name}: {reason}"
    has_shards = any(name.endswith(".distcp") for name in files)
    if has_shards and ".metadata" not in files:
        yield f"{folder.rpartition('/')[2]}/.metadata, which is written last, is missing"


def _missing_parts(tree: Tree, files: Mapping[str, Entry]) -> Iterator[str]:
    """Missing shards that an index names, a missing index, missing parts of a split file."""
    has_index = False
    for name, entry in files.items():
        if is_index(name):
            has_index = True
            why = missing_shard(tree, entry.path)
            if why:
                yield why
    split_files: dict[tuple[str | None, ...], re.Match[str]] = {}
    for name in files:
        if not has_index and _SHARD.fullmatch(name):
            yield f"the index of {name} is missing"
        part = _PART.fullmatch(name)
        if part:
            split_files[part.groups()] = part
    for part in split_files.values():
        for name in _all_parts(part, len(files)):
            if name not in files:
                yield f"{name} is missing"


def _all_parts(part: re.Match[str], most: int) -> list[str]:
    """The names of all parts of the split file that one is a ``part`` of; no more than one more than ``most``. None if
    it is of no format that tells."""
    stem = part["stem"]
    total = part["total"]
    count = min(int(total), most + 1)
    if part["suffix"]:
        return [f"{stem}-{number:05}-of-{total}.gguf" for number in range(1, count + 1)]
    if stem.endswith(".data"):  # TensorFlow counts its parts from 0
        shards = [f"{stem}-{number:05}-of-{total}" for number in range(count)]
        return [*shards, f"{stem.removesuffix('.data')}.index"]
    return []


def missing_shard(tree: Tree, index: str) -> str:
    """Return what is wrong with the index at this path: it cannot be read, or names a shard that is missing; else
    ""."""
    shards = tree.json(index).get("weight_map")
    folder, slash, name = index.rpartition("/")
    if not isinstance(shards, dict) or not shards:
        return f"{name} cannot be read"
    for shard in sorted(set(map(str, shards.values()))):
        entry = tree.get(folder + slash + shard)
        if entry is None or not entry.is_file:
            return f"shard {shard} of the index is missing"
    return ""


def why_cut(tree: Tree, entry: Entry) -> str | None:
    """Return what shows that a file of weights is not whole; None if nothing does, if it is no such file, or if it
    cannot be read now."""
    if entry.kind != "file" or not is_weights(entry.name):
        return None
    try:
        with tree.opened(entry) as file:
            return why_not_whole(file, entry.stamp.size, entry.name) if file else None
    except OSError:
        return None


def header_metadata(tree: Tree, entry: Entry) -> dict[str, str]:
    """Return what the trainer wrote into the header of a safetensors file; empty for any other file."""
    if not entry.name.endswith(SAFETENSORS):
        return {}
    header = read_header(lambda count: tree.head(entry.path, count))
    return header.metadata if header else {}
