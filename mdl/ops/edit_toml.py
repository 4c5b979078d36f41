"""edit_toml: change one key of a TOML file of the user's, and leave every other line as it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomlkit

from mdl.config.places import make_folder_of
from mdl.disk import publish
from mdl.disk.mutex import folder_lock
from mdl.toml import parse_toml
from mdl.toml.positions import spans


def edit_file(
    path: Path, read: Callable[[], str | None], change: Callable[[str | None], str], *, mode: int = 0o666
) -> None:
    """Change a file of text, which ``read`` reads (None: there is none yet; it is then made with ``mode``). What
    another mdl, or an editor, writes meanwhile is not lost: then the change is made to that. Raises `Busy`, `OSError`,
    and what ``read`` and ``change`` raise."""
    place = Path(os.path.realpath(path))
    make_folder_of(place)
    with folder_lock(place.parent):
        before = read()
        text = _changed(before, change)
        while (now := read()) != before:
            before = now
            text = _changed(before, change)
        mode = mode & ~publish.umask() if before is None else place.stat().st_mode & 0o777
        publish.write_file(place, text.encode(), mode=mode, sweep_first=True)


def _changed(text: str | None, change: Callable[[str | None], str]) -> str:
    """``text`` changed; all lines of the result end as most of them did before, as on Windows or not."""
    if text is None or "\r\n" not in text:
        return change(text)
    changed = change(text.replace("\r\n", "\n"))
    if 2 * text.count("\r\n") > text.count("\n"):
        return changed.replace("\n", "\r\n")
    return changed


def with_key(text: str, table: str, key: str, value: Any) -> str:
    """The TOML ``text`` with this value for a key of a table. Every other line stays, and so do comments. Raises
    `ValueError` for a text that is not TOML, `TypeError` if ``table`` is not a table."""
    parse_toml(text)
    edited = _with_line(text, table, key, value)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        if parse_toml(edited)[table][key] == value:
            return edited
    document = tomlkit.parse(text)  # the table is written in one line, or in several places
    document.setdefault(table, {})[key] = value
    return tomlkit.dumps(document)


def _with_line(text: str, table: str, key: str, value: Any) -> str:
    """The text with another value in the line of the key, or with a line for it: the last one of its table."""
    line = tomlkit.dumps({key: value}).rstrip("\n")
    end = None
    for path, start, stop in spans(text):
        if path == (table, key):
            return text[:start] + _with_value(text[start:stop], table, key, value) + text[stop:]
        if path[0] == table and len(path) <= 2:
            end = stop
    if end is None:
        return f"{text.rstrip()}\n\n[{table}]\n{line}\n".lstrip()
    return f"{text[:end]}\n{line}{text[end:] or chr(10)}"


def _with_value(line: str, table: str, key: str, value: Any) -> str:
    """The line ``key = …`` with another value; a list that begins as the old one keeps the comments in it."""
    document = tomlkit.parse(line)
    holder: Any = document if key in document else document[table]
    old = holder[key]
    if isinstance(old, list) and isinstance(value, list) and value[: len(old)] == old:
        old.extend(value[len(old) :])
    else:
        holder[key] = value
    return tomlkit.dumps(document)


def without_key(text: str, table: str, key: str) -> str:
    """The TOML ``text`` without a key of a table. Raises `ValueError` for a text that is not TOML, `TypeError`
    or `AttributeError` if ``table`` is not a table."""
    parse_toml(text)
    for path, start, stop in spans(text):
        if path == (table, key):
            return without_lines(text, start, stop)
    document = tomlkit.parse(text)  # as for `with_key`
    document.get(table, {}).pop(key, None)
    return tomlkit.dumps(document)


def without_lines(text: str, start: int, stop: int) -> str:
    """The text without the lines from ``start`` to ``stop``, where the last of them ends."""
    return text[:start] + text[stop:].removeprefix("\n")
