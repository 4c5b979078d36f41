"""``checkpoint-500`` and its like: folders named by the trainer's count of steps."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from mdl.trainers.tree import Entry, Tree

_NAME = re.compile(
    r"checkpoint-(?P<step>[0-9]+)|checkpoint-(?P<word>best|last)"
    r"|(?P<staging>tmp-checkpoint-(?P<a>[0-9]+).*|checkpoint-(?P<b>[0-9]+)\.tmp)"
)


@dataclass(frozen=True)
class Numbered:
    """A folder with the step in its name; ``word`` is ``best`` or ``last`` where that stands instead."""

    folder: Entry
    step: int | None
    word: str = ""
    is_staging: bool = False


def numbered_folders(tree: Tree, base: str) -> list[Numbered]:
    """Those directly in ``base``, as HF Trainer, accelerate and the scripts like them name them."""
    found = []
    for folder in tree.children(base):
        name = _NAME.fullmatch(folder.name) if folder.kind == "folder" else None
        if name:
            step = name["step"] or name["a"] or name["b"]
            found.append(Numbered(folder, int(step) if step else None, name["word"] or "", bool(name["staging"])))
    return found


def holds(tree: Tree, folder: str, is_one: Callable[[str], object]) -> bool:
    """Whether a file directly in ``folder`` has such a name."""
    return any(entry.kind in ("file", "leaves") and is_one(entry.name) for entry in tree.children(folder))
