"""Completeness: whether saved files are whole, as far as their names, sizes, indexes and headers show.

Nothing is unpickled.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from mdl.trainers.safetensors import SUFFIX, why_truncated
from mdl.trainers.tree import Entry, Tree

_WEIGHTS = re.compile(
    r".+\.(safetensors|bin|pt|pth|ckpt|gguf|ggml|onnx|h5|hdf5|keras|msgpack|nemo|tflite|pb|npz|distcp)"
    r"|.+\.data-[0-9]{5}-of-[0-9]{5}",
    re.IGNORECASE,
)
_INDEX = re.compile(r".+\.(safetensors|bin|h5|msgpack)\.index(\.[^.]+)?\.json")
_SHARD = re.compile(r".+-[0-9]{5}-of-[0-9]{5}(\.[^.]+)?\.(safetensors|bin)")
_PART = re.compile(r"(.+)-[0-9]{5}-of-([0-9]{5})(\.gguf)|(.+\.data)-[0-9]{5}-of-([0-9]{5})")
_STAGED = re.compile(r"(.+)\.(tmp|part|partial)", re.IGNORECASE)


def is_weights(name: str) -> bool:
    """Whether a file of this name may hold weights."""
    return _WEIGHTS.fullmatch(name) is not None


def why_incomplete(tree: Tree, entries: Iterable[Entry]) -> str:
    """What shows that files that were saved together are incomplete; "" if nothing does."""
    folders: dict[str, dict[str, Entry]] = defaultdict(dict)
    for entry in entries:
        folder, _, name = entry.path.rpartition("/")
        folders[folder][name] = entry
    return next((why for folder, files in folders.items() for why in _faults(tree, folder, files)), "")


def missing_shard(tree: Tree, index: str) -> str | None:
    """What is wrong with the index at this path: it cannot be read, or names a shard that is missing; else None."""
    shards = tree.json(index).get("weight_map")
    name = index.rpartition("/")[2]
    if not isinstance(shards, dict) or not shards:
        return f"{name} cannot be read"
    folder = index[: -len(name)]
    names = sorted({shard if isinstance(shard, str) else repr(shard) for shard in shards.values()})
    return next(
        (f"shard {shard} of the index is missing" for shard in names if not _is_there(tree, folder + shard)), None
    )


def truncated_safetensors(tree: Tree, entry: Entry) -> str | None:
    """What shows that a safetensors file lacks bytes; None if nothing does, or if it is another kind of file."""
    if not entry.name.endswith(SUFFIX):
        return None
    return why_truncated(entry.stamp.size, lambda count: tree.head(entry.path, count))


def is_index(name: str) -> bool:
    return _INDEX.fullmatch(name) is not None


def _is_there(tree: Tree, path: str) -> bool:
    entry = tree.get(path)
    return entry is not None and entry.kind in ("file", "escapes")


def _faults(tree: Tree, folder: str, entries: dict[str, Entry]) -> Iterator[str]:
    """All that is wrong within one folder."""
    files = {name: entry for name, entry in entries.items() if entry.kind == "file"}
    for name, entry in entries.items():
        staged = _STAGED.fullmatch(name)
        if staged and is_weights(staged[1]):
            yield f"{name} was still being written"
        if is_weights(name) and entry.kind in ("special", "unreadable"):
            yield f"{name}: {entry.why}"
    yield from _missing_parts(tree, files)
    for name, entry in files.items():
        if is_weights(name) and not entry.stamp.size:
            yield f"{name} is empty"
        elif why := truncated_safetensors(tree, entry):
            yield f"{name}: {why}"
    if any(name.endswith(".distcp") for name in files) and ".metadata" not in files:
        yield f"{folder.rpartition('/')[2]}/.metadata, which is written last, is missing"


def _missing_parts(tree: Tree, files: dict[str, Entry]) -> Iterator[str]:
    """Missing shards that an index names, a missing index, missing parts of a split file."""
    indexes = [entry for name, entry in files.items() if is_index(name)]
    yield from (why for entry in indexes if (why := missing_shard(tree, entry.path)))
    shards = [name for name in files if _SHARD.fullmatch(name)]
    if shards and not indexes:
        yield f"the index of {shards[0]} is missing"
    for part in filter(None, map(_PART.fullmatch, files)):
        stem, total, suffix, first = (part[1], part[2], part[3], 1) if part[3] else (part[4], part[5], "", 0)
        wanted = range(first, first + min(int(total), len(files) + 1))
        others = (f"{stem}-{number:05}-of-{total}{suffix}" for number in wanted)
        yield from (f"{other} is missing" for other in others if other not in files)
