"""Completeness: whether saved files are whole, as far as their names, indexes and end records show.

Nothing is unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mdl.paths import matches
from mdl.runs.tree import Entry, Tree, join
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
    """Return what shows that files that were saved together are incomplete; "" if nothing does. The names, which cost
    nothing, come first."""
    saved = list(entries)
    return _fault_in_names(saved) or why_parts_are_missing(tree, saved) or _fault_in_contents(tree, saved)


def _fault_in_names(entries: Iterable[Entry]) -> str:
    for entry in entries:
        staged = _STAGED.fullmatch(entry.name)
        if staged and is_weights(staged[1]):
            return f"{entry.name} was still being written"
        if entry.kind in ("special", "unreadable") and is_weights(entry.name):
            return f"{entry.name}: {entry.why}"
    return ""


def _fault_in_contents(tree: Tree, entries: Iterable[Entry]) -> str:
    for entry in entries:
        if entry.kind == "file" and is_weights(entry.name) and not entry.stamp.size:
            return f"{entry.name} is empty"
        reason = why_cut(tree, entry)
        if reason:
            return f"{entry.name}: {reason}"
    return ""


def why_parts_are_missing(tree: Tree, entries: Iterable[Entry]) -> str:
    """Return which shard that an index names, which index, or which part of a split file is missing beside these files;
    "" if none is."""
    saved = [entry for entry in entries if entry.kind == "file"]
    why = missing_shards(tree, saved)
    if why:
        return why
    files = {entry.path: entry for entry in saved}
    indexed = {entry.folder for entry in saved if is_index(entry.name)}
    checked = set()
    for path, entry in files.items():
        if _SHARD.fullmatch(entry.name) and entry.folder not in indexed:
            return f"the index of {entry.name} is missing"
        if entry.name.endswith(".distcp") and join(entry.folder, ".metadata") not in files:
            return f"{entry.folder.rpartition('/')[2]}/.metadata, which is written last, is missing"
        split = _PART.fullmatch(path)
        if split and split.groups() not in checked:
            checked.add(split.groups())
            for part in _all_parts(split, len(files)):
                if part not in files:
                    return f"{part.rpartition('/')[2]} is missing"
    return ""


def _all_parts(split: re.Match[str], most: int) -> list[str]:
    """The paths of all parts of a split file; no more than one more than ``most``. None if it is of no format that
    tells."""
    stem = split["stem"]
    total = split["total"]
    count = min(int(total), most + 1)
    if split["suffix"]:
        return [f"{stem}-{number:05}-of-{total}.gguf" for number in range(1, count + 1)]
    if stem.endswith(".data"):  # TensorFlow counts its parts from 0
        shards = [f"{stem}-{number:05}-of-{total}" for number in range(count)]
        return [*shards, f"{stem.removesuffix('.data')}.index"]
    return []


def missing_shards(tree: Tree, entries: Iterable[Entry]) -> str:
    """Return what is wrong with an index among these files: it cannot be read, or names a shard that is missing; else
    ""."""
    for entry in entries:
        if not is_index(entry.name):
            continue
        shards = tree.json(entry.path).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            return f"{entry.name} cannot be read"
        for shard in sorted(set(map(str, shards.values()))):
            file = tree.get(join(entry.folder, shard))
            if file is None or not file.is_file:
                return f"shard {shard} of the index is missing"
    return ""


def why_cut(tree: Tree, entry: Entry) -> str:
    """Return what shows that a file of weights is not whole; "" if nothing does, if it is no such file, or if it cannot
    be read now."""
    if entry.kind != "file" or not is_weights(entry.name):
        return ""
    try:
        with tree.opened(entry) as file:
            return (file and why_not_whole(file, entry.stamp.size, entry.name)) or ""
    except OSError:
        return ""


def header_metadata(tree: Tree, entry: Entry) -> dict[str, str]:
    """Return what the trainer wrote into the header of a safetensors file; empty for any other file."""
    if not entry.name.endswith(SAFETENSORS):
        return {}
    header = read_header(lambda count: tree.head(entry.path, count))
    return header.metadata if header else {}
