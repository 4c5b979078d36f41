"""Layout: how one trainer names what it saves; and Found, what of it a folder holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.natural import natural
from mdl.trainers.sieve import Sieve
from mdl.trainers.tree import Entry, Tree
from mdl.trainers.wholeness import broken

UNRECORDED = "none is recorded"


@dataclass(frozen=True)
class Found:
    """The checkpoints of one run, oldest first; ``best_note`` says why none is the best where none is."""

    layout: str
    checkpoints: tuple[Checkpoint, ...]
    best_note: str = ""

    @classmethod
    def of(
        cls,
        layout: str,
        rows: Sequence[Checkpoint],
        *,
        latest: Checkpoint | None,
        best: Checkpoint | None = None,
        best_note: str = UNRECORDED,
    ) -> Found:
        """``rows`` in their order, with the latest and the best of them marked.

        Of several that have one name the newest keeps it; the others go by their whole path.
        """
        marked: list[Checkpoint] = []
        names: set[str] = set()
        for row in reversed(rows):
            name = next(name for name in _names(row) if name not in names)
            names.add(name)
            marked.append(replace(row, name=name, latest=row is latest, best=row is best))
        return cls(layout, tuple(reversed(marked)), "" if best else best_note)


@dataclass(frozen=True)
class Layout:
    """``find`` answers None where the folder is not of this layout; ``remarks`` is what one should know of a model."""

    names: tuple[str, ...]
    find: Callable[[Tree, str], Found | None]
    sieve: Sieve
    remarks: Callable[[Tree, Checkpoint], tuple[str, ...]] = lambda _tree, _checkpoint: ()


def saved(
    tree: Tree,
    name: str,
    base: str,
    entries: Iterable[Entry],
    step: int | None = None,
    *,
    wrong: str = "",
    note: str = "",
) -> Checkpoint:
    """A checkpoint, held against its own indexes and headers. ``wrong`` is what its trainer's own marks say."""
    entries = tuple(entries)
    wrong = wrong or broken(tree, entries)
    return Checkpoint(name, base, entries, step, complete=not wrong, note=wrong or note)


def ordered(rows: Iterable[Checkpoint]) -> list[Checkpoint]:
    """By step, then by name as people count; those without a step last."""
    return sorted(rows, key=lambda row: (row.step is None, row.step or 0, natural(row.name)))


def newest(*groups: Sequence[Checkpoint]) -> Checkpoint | None:
    """The last complete one of the first group that has any."""
    return next((row for group in groups for row in reversed(group) if row.complete), None)


def join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def whole(tree: Tree, entry: Entry) -> list[Entry]:
    """An entry with all that is below it."""
    return [entry, *tree.below(entry.path)] if entry.kind == "folder" else [entry]


def rest(tree: Tree, base: str, taken: Iterable[str]) -> list[Entry]:
    """All that is in ``base`` but what is below the ``taken`` paths directly in it."""
    others = set(taken)
    return [entry for child in tree.children(base) if child.path not in others for entry in whole(tree, child)]


def _names(row: Checkpoint) -> Iterator[str]:
    """Its name, its path with hyphens, as a name to pick it by has no slash, and that with a number."""
    path = row.base if row.base.rpartition("/")[2] == row.name else join(row.base, row.name)
    yield row.name
    yield path.replace("/", "-")
    yield from (f"{path.replace('/', '-')}-{number}" for number in count(2))
