"""Checkpoints that are one file each, as they lie in a run's folders."""

from __future__ import annotations

from collections.abc import Callable

from mdl.trainers.natural import natural_path
from mdl.trainers.safetensors import Header, read_header
from mdl.trainers.tree import Entry, Tree


def files_named(tree: Tree, folder: str, is_one: Callable[[str], object]) -> list[Entry]:
    """The files directly in ``folder`` that have such a name."""
    return [entry for entry in tree.children(folder) if entry.kind in ("file", "leaves") and is_one(entry.name)]


def folders_named(tree: Tree, base: str, name: str) -> list[str]:
    """Every folder of this name below ``base``, as people count: ``version_2`` before ``version_10``."""
    below = (entry.path for entry in tree.below(base) if entry.kind == "folder" and entry.name == name)
    return sorted(below, key=natural_path)


def metadata(tree: Tree, entry: Entry) -> dict[str, str]:
    """What the trainer wrote into the header of a safetensors file; empty for any other."""
    if entry.kind != "file" or not entry.name.endswith(".safetensors"):
        return {}
    header = read_header(lambda size: tree.head(entry.path, size))
    return header.metadata if isinstance(header, Header) else {}
