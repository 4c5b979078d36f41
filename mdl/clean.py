"""Clean: what mdl has on this disk and nobody needs any more: found first, removed only when asked to.

Never a file that mdl did not publish itself, nor one that was touched since.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mdl import staging
from mdl.download import journal
from mdl.download.partial import is_held
from mdl.download.receipts import readable
from mdl.download.store import Store
from mdl.errors import StateError
from mdl.files import Receipt
from mdl.paths import RelPath

Known = Callable[[str], set[RelPath] | None]
"""The paths of a model's files as its source or lock has them; None where that is not known."""


@dataclass(frozen=True)
class Waste:
    """``kind``: ``partial``, ``superseded``, ``receipt`` or ``leftover``; ``bytes`` on the disk; ``paths`` go together.

    ``kept`` says why it stays all the same.
    """

    kind: str
    paths: tuple[Path, ...]
    bytes: int
    why: str
    kept: str = ""


def find_waste(store: Store, known: Known, wanted_since: float | None) -> list[Waste]:
    """Everything that could go. Partials touched after ``wanted_since`` (seconds of the epoch) stay."""
    return [*_partials(store, wanted_since), *_files(store, known), *_leftovers(store)]


def remove(waste: Waste) -> None:
    """Remove it. What cannot be removed is left for the next time."""
    for path in waste.paths:
        staging.remove(path)


def _partials(store: Store, wanted_since: float | None) -> Iterator[Waste]:
    for folder in _entries(store.partials):
        if is_held(folder):
            continue
        wanted = wanted_since is not None and _touched(folder) >= wanted_since
        kept = "a paused job may want it" if wanted else ""
        yield Waste("partial", (folder,), _size(folder), f"unfinished: {_of_what(folder)}", kept)


def _of_what(partial: Path) -> str:
    """What it was to become, as its journal says."""
    try:
        record = journal.load(partial / "journal")
    except StateError:
        return "of a newer mdl"
    return record.identity.url if record else "nobody knows of what"


def _files(store: Store, known: Known) -> Iterator[Waste]:
    for folder in _entries(store.own / "receipts"):
        paths = known(folder.name)
        for entry in _entries(folder):
            receipt = readable(entry)
            if receipt is None:
                yield Waste(
                    "receipt", (entry,), _size(entry), "unreadable; the file it was for is hashed at the next get"
                )
            elif waste := _of(receipt, entry, store, paths):
                yield waste


def _of(receipt: Receipt, entry: Path, store: Store, known: set[RelPath] | None) -> Waste | None:
    place = store.place_of(receipt)
    if place is None:
        gone = store.is_gone(receipt)
        return Waste("receipt", (entry,), _size(entry), f"{receipt.path} is gone") if gone else None
    if known is not None and receipt.path not in known:
        why = f"no file of {receipt.model} any more"
        return Waste("superseded", (place, entry), receipt.stamp.size, why)
    return None


def _leftovers(store: Store) -> Iterator[Waste]:
    folders = [store.own / "stage", *(path for path in _entries(store.root) if path.is_dir() and path != store.own)]
    for folder in folders:
        for path in staging.leftovers(folder):
            yield Waste("leftover", (path,), _size(path), "left by a process that is gone")
    for folder in _entries(store.own / "side"):
        if not is_held(folder):
            yield Waste("leftover", (folder,), _size(folder), "left by a process that is gone")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _touched(folder: Path) -> float:
    return max((path.lstat().st_mtime for path in (folder, *_entries(folder))), default=0.0)


def _size(path: Path) -> int:
    """Bytes on the disk, of a sparse file only what it holds."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_blocks * 512
    return sum(os.lstat(os.path.join(at, name)).st_blocks * 512 for at, _, names in os.walk(path) for name in names)
