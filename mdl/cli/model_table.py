"""The table of models: its columns, which are what 'mdl list' shows, orders by, and lets the user choose."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from mdl.errors import UsageError
from mdl.formatting import human_age, human_bytes, if_known, near_hint
from mdl.paths import shown
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl import Model, ModelStatus

_SHORT = 7
"""Digits of a commit in a table."""
_ORDER = ("present", "unverified", "partial", "missing")


def age_since(moment: float | None) -> str:
    """How long ago a moment was, in seconds since 1970; '' if it is not known."""
    return "" if moment is None else human_age(time.time() - moment)


@value_class
class Row:
    """A model, and what of it is on this disk. If the list ``is_local``, its size is that of what is here."""

    model: Model
    on_disk: ModelStatus
    is_local: bool = False

    @property
    def name(self) -> str:
        """Its name as people write it: a repository of the hub that has no name of its own as ``org/repo``."""
        name = self.model.name
        for source in self.model.sources:
            if name == source.repository:  # so a cache's inventory calls it
                return name.removeprefix("hf:")
        return self.model.label

    @property
    def size(self) -> int | None:
        """The published size, or what is on the disk if there is none; None if neither is known."""
        on_disk = self.on_disk
        if self.is_local or (on_disk.bytes is None and on_disk.bytes_present):
            return on_disk.bytes_present
        return on_disk.bytes

    @property
    def status(self) -> str:
        """In words, with the number of its files if they are not all here."""
        model = self.model
        on_disk = self.on_disk
        if model.gone:
            return "gone"
        if on_disk.brought_by == "other" and not on_disk.rows:
            return "not mdl's"
        if on_disk.status != "partial" or on_disk.files == on_disk.files_present:
            return on_disk.status
        files = "?" if on_disk.files is None else str(on_disk.files)
        return f"partial {on_disk.files_present}/{files}"

    @property
    def texts(self) -> dict[str, str]:
        """The texts of all columns for people."""
        model = self.model
        on_disk = self.on_disk
        return {
            "name": self.name,
            "kind": model.kind,
            "status": self.status,
            "size": if_known(self.size, human_bytes),
            "files": str(on_disk.files_present),
            "since": age_since(on_disk.since),
            "commit": ", ".join(commit[:_SHORT] for commit in on_disk.commits),
            "license": model.license,
            "tags": ", ".join(model.tags),
            "title": model.title,
            "source": model.source_text,
            "folder": str(on_disk.path),
        }

    @property
    def order(self) -> dict[str, Any]:
        """By what rows are ordered in each column: texts from A to Z, the largest and the newest first."""
        return self.texts | {
            "name": self.model.name,
            "status": _ORDER.index(self.on_disk.status),
            "size": -(self.size or 0),
            "files": -self.on_disk.files_present,
            "since": -(self.on_disk.since or 0),
        }


COLUMNS: Final = {
    "name": "what mdl calls it",
    "kind": "model, tts, dataset …",
    "status": "whether it is here",
    "size": "its size; with --local that of what is here",
    "files": "how many files are here",
    "since": "when it came to this disk",
    "commit": "the commits of what is here",
    "license": "its licence",
    "tags": "its tags",
    "title": "its title",
    "source": "where it comes from",
    "folder": "where it is, or would be",
}
"""The columns, each with what it tells."""

LISTED: Final = ("name", "kind", "status", "size", "license", "title")
LOCAL: Final = ("name", "status", "size", "files", "since", "commit", "source", "folder")
MEMBER: Final = ("name", "status", "size", "title")
_CUT = ("title", "folder", "license", "source", "tags")
_DROP = ("kind", "license", "folder", "files", "commit", "since", "source", "title")
"""Columns that give room on a narrow terminal, in this order."""


def column_of(text: str) -> str:
    """The column that ``text`` names. Raises `UsageError`."""
    name = text.strip().lower()
    if name not in COLUMNS:
        hint = f"{near_hint(name, COLUMNS, '')} the columns: {', '.join(COLUMNS)}".strip()
        raise UsageError("no such column", item=shown(text), hint=hint)
    return name


def in_order(rows: list[Row], column: str | None) -> list[Row]:
    """The rows by what is in a column; without one as they are."""
    if column is None:
        return rows
    return sorted(rows, key=lambda row: row.order[column])


def table_of(rows: Iterable[Row], columns: Sequence[str], *, keeps_all: bool = False) -> dict[str, Any]:
    """The arguments of `Console.table`. If it ``keeps_all``, a narrow terminal cuts columns but leaves none out."""
    cells: list[list[str]] = []
    for row in rows:
        texts = row.texts
        cells.append([texts[name] for name in columns])
    dropped = () if keeps_all else _DROP
    return {
        "headers": _heads(columns),
        "rows": cells,
        "cut": _heads(_CUT),
        "drop": _heads(dropped),
    }


def _heads(columns: Iterable[str]) -> list[str]:
    return [name.upper() for name in columns]
