"""Layout: how one trainer names what it saves, and the functions that layouts are written with.

Checkpoints are ordered by the numbers in their names, never by time: copies, archives and object stores all set
times anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mdl.trainers.completeness import why_incomplete
from mdl.trainers.inference_filter import InferenceFilter
from mdl.trainers.runs import FINAL, Checkpoint, Found
from mdl.trainers.safetensors import Header, read_header
from mdl.trainers.tree import Entry, IsName, Tree, natural_key

COUNTS_EPOCHS = "its number counts epochs"


@dataclass(frozen=True)
class Layout:
    """How one trainer names what it saves.

    ``find`` looks into a folder and answers None if it is not of this layout. ``notes`` gives what a user should know
    of a model. ``ends_with_model``: the trainer writes the finished model as one file, the last and latest.
    """

    names: tuple[str, ...]
    find: Callable[[Tree, str], Found | None]
    inference: InferenceFilter
    notes: Callable[[Tree, Checkpoint], tuple[str, ...]] = lambda _tree, _checkpoint: ()
    ends_with_model: bool = False


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


def folder_checkpoint(tree: Tree, folder: Entry, step: int | None = None, *, wrong: str = "") -> Checkpoint:
    """A checkpoint that is a folder with all that is in it."""
    return checkpoint(tree, folder.name, folder.path, tree.below(folder.path), step, wrong=wrong)


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
    return header.metadata if isinstance(header, Header) else {}


_NUMBERED = re.compile(
    r"checkpoint-(?P<step>[0-9]+)|checkpoint-(?P<word>best|last)"
    r"|(?P<staging>tmp-checkpoint-(?P<a>[0-9]+).*|checkpoint-(?P<b>[0-9]+)\.tmp)"
)


@dataclass(frozen=True)
class NumberedFolder:
    """A folder ``checkpoint-N``, or with ``best`` or ``last`` as its ``word`` instead of the step."""

    entry: Entry
    step: int | None
    word: str = ""
    is_staging: bool = False

    @property
    def path(self) -> str:
        return self.entry.path

    @property
    def why_staging(self) -> str:
        return "a staging folder, which the trainer renames when it is complete" if self.is_staging else ""


def numbered_folders(tree: Tree, base: str) -> list[NumberedFolder]:
    """The folders directly in ``base`` that HF Trainer, accelerate and scripts like theirs name ``checkpoint-N``."""
    found = []
    for folder in tree.subfolders(base):
        name = _NUMBERED.fullmatch(folder.name)
        if name:
            step = name["step"] or name["a"] or name["b"]
            found.append(NumberedFolder(folder, int(step) if step else None, name["word"] or "", bool(name["staging"])))
    return found
