"""What a notebook shows of a value that a cell ends with: a table of what it holds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import PurePath
from typing import Any

from mdl.errors import MdlError
from mdl.formatting import as_written, human_bytes
from mdl.redact import redact_value

_HELD = ("models", "versions", "files", "checks")
"""Fields that hold what a value is about."""


def html_table(headers: Iterable[str], rows: Iterable[Iterable[str]], note: str = "") -> str:
    """A table with a ``note`` below it. No text is taken for HTML."""
    from html import escape  # every command imports this file, and none but a notebook needs the table of entities

    lines = ["<tr>" + "".join(f"<th>{escape(header)}</th>" for header in headers) + "</tr>"]
    for row in rows:
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    below = f"<p>{escape(note)}</p>" if note else ""
    return f"<table>{''.join(lines)}</table>{below}"


class Tabular:
    """A value class of which a notebook shows a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return html_of(self)


def html_of(value: Any) -> str:
    """A table of a value class: a row for each model, version, file or check that it holds, and a column for each field
    of these; else a row for each field of its own. Its error stands below.

    Columns of which every cell is empty are left out, and so are fields that hold values themselves.
    """
    note = error_note(value)
    labels: Mapping[str, str] = getattr(value, "labels", {})
    for name in _HELD:
        held = getattr(value, name, ())
        if isinstance(held, tuple | list) and held:
            rows = [_cells(item, labels) for item in held]
            headers = [header for header in rows[0] if any(row[header] for row in rows)]
            return html_table(headers, ([row[header] for header in headers] for row in rows), note)
    return html_table(("Field", "Value"), [(name, text) for name, text in _cells(value, labels).items() if text], note)


def error_note(value: Any) -> str:
    """The error of a value, about the item that people write; '' if it has none."""
    error: MdlError | None = getattr(value, "error", None)
    if error is None:
        return ""
    return str(error.but(item=error.item and as_written(error.item, getattr(value, "labels", {}))))


def _cells(value: Any, labels: Mapping[str, str]) -> dict[str, str]:
    """The fields of a value as people read them. A model is called as people write it: that is its ``label``, or is in
    ``labels``."""
    cells = {}
    for field in fields(value):
        if field.repr and field.name != "label":
            fact = getattr(value, field.name)
            if field.name in ("name", "model"):
                fact = getattr(value, "label", as_written(fact, labels))
            cells[field.name.replace("_", " ").capitalize()] = redact_value(_text(field.name, fact), ())
    return cells


def _text(name: str, fact: object) -> str:
    match fact:
        case bool():
            return "yes" if fact else ""
        case int() if name.startswith(("size", "bytes")):
            return human_bytes(fact)
        case str() | int() | float() | PurePath() | Exception():
            return str(fact)
        case tuple() | list() if all(isinstance(item, str) for item in fact):
            return ", ".join(fact)
    return ""
