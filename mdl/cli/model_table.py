"""The table of models: its columns, which are what 'mdl list' shows, orders by, and lets the user choose."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from mdl.errors import UsageError
from mdl.formatting import human_age, human_bytes, utc_time
from mdl.paths import shown
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl import Model, ModelStatus

_SHORT = 7
"""Digits of a commit in a table."""
_ORDER = ("present", "unverified", "partial", "missing")


@value_class
class Row:
    """One model, and what of it is on this disk. If the list ``is_local``, its size is that of what is here."""

    model: Model
    found: ModelStatus
    is_local: bool = False

    @property
    def name(self) -> str:
        """As people write it: a repository of the hub that has no name of its own as ``org/repo``."""
        name = self.model.name
        for source in self.model.sources:
            if name == source.repository:  # so a cache's inventory calls it
                return name.removeprefix("hf:")
        return self.model.label

    @property
    def size(self) -> int | None:
        """The published size, or what is on the disk if there is none; None if neither is known."""
        found = self.found
        if self.is_local or (found.bytes is None and found.bytes_present):
            return found.bytes_present
        return found.bytes

    @property
    def status(self) -> str:
        """In words, with the number of its files if they are not all here."""
        model = self.model
        found = self.found
        if model.gone:
            return "gone"
        if found.brought_by == "other" and not found.rows:
            return "not mdl's"
        if found.status == "partial" and found.files != found.files_present:
            return f"partial {found.files_present}/{'?' if found.files is None else found.files}"
        return found.status


@value_class
class Column:
    """One column. ``text`` is for people, ``exact`` for a program, ``key`` is what the rows are ordered by; without
    the last two it is the text."""

    about: str
    text: Callable[[Row], str]
    exact: Callable[[Row], str] | None = None
    key: Callable[[Row], Any] | None = None


COLUMNS: Final = {
    "name": Column(
        "what mdl calls it", lambda row: row.name, lambda row: row.model.name, key=lambda row: row.model.name
    ),
    "kind": Column("model, tts, dataset …", lambda row: row.model.kind),
    "status": Column(
        "whether it is here",
        lambda row: row.status,
        lambda row: "gone" if row.model.gone else row.found.status,
        lambda row: _ORDER.index(row.found.status),
    ),
    "size": Column(
        "its size; with --local that of what is here",
        lambda row: human_bytes(row.size),
        lambda row: "" if row.size is None else str(row.size),
        lambda row: -(row.size or 0),
    ),
    "files": Column(
        "how many files are here", lambda row: str(row.found.files_present), key=lambda row: -row.found.files_present
    ),
    "since": Column(
        "when it came to this disk",
        lambda row: "" if row.found.since is None else human_age(time.time() - row.found.since),
        lambda row: utc_time(row.found.since) or "",
        lambda row: -(row.found.since or 0),
    ),
    "commit": Column(
        "the commits of what is here",
        lambda row: ", ".join(commit[:_SHORT] for commit in row.found.commits),
        lambda row: ",".join(row.found.commits),
    ),
    "license": Column("its licence", lambda row: row.model.license),
    "tags": Column("its tags", lambda row: ", ".join(row.model.tags), lambda row: ",".join(row.model.tags)),
    "title": Column("its title", lambda row: row.model.title),
    "source": Column("where it comes from", lambda row: row.model.source_text),
    "folder": Column("where it is, or would be", lambda row: str(row.found.path)),
}
"""Every column by its name."""

LISTED: Final = ("name", "kind", "status", "size", "license", "title")
LOCAL: Final = ("name", "status", "size", "files", "since", "commit", "source", "folder")
MEMBER: Final = ("name", "status", "size", "title")
_CUT = ("title", "folder", "license", "source", "tags")
_DROP = ("kind", "license", "folder", "files", "commit", "since", "source", "title")
"""Which columns give room on a narrow terminal, in this order."""


def column_of(text: str) -> str:
    """The column that ``text`` names. Raises `UsageError`."""
    name = text.strip().lower()
    if name not in COLUMNS:
        near = get_close_matches(name, COLUMNS, 1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UsageError("no such column", item=shown(text), hint=f"{meant}the columns: {', '.join(COLUMNS)}")
    return name


def in_order(rows: list[Row], column: str | None) -> list[Row]:
    """The rows by what is in a column: texts from A to Z, the largest and the newest first. Without one as they are."""
    return sorted(rows, key=COLUMNS[column].key or COLUMNS[column].text) if column else rows


def table_of(rows: Iterable[Row], columns: Sequence[str], *, keeps_all: bool = False) -> dict[str, Any]:
    """The arguments of `Console.table`. If it ``keeps_all``, a narrow terminal cuts columns but leaves none out."""
    return {
        "headers": [name.upper() for name in columns],
        "rows": [[COLUMNS[name].text(row) or "-" for name in columns] for row in rows],
        "cut": [name.upper() for name in _CUT if name in columns],
        "drop": [name.upper() for name in _DROP if name in columns and not keeps_all],
    }


def exact_rows(rows: Iterable[Row], columns: Sequence[str]) -> list[list[str]]:
    """The same for a program: bytes, UTC times, whole commits; what is not known is empty."""
    return [[(COLUMNS[name].exact or COLUMNS[name].text)(row) for name in columns] for row in rows]
