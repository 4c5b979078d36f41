"""Formatting: numbers, times and tables as people read them. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, TypeGuard, TypeVar

from mdl.bounds import MOST_LISTED as MOST_LISTED
from mdl.units import total_size

Fact = TypeVar("Fact")
_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")
_NUMBER = r"[\d.,]+( ?([kMGTPE]?B(/s)?|%|s))?|[-?]"
_GAP = "  "
_ENDLESS = 10**100
"""No disk has so many bytes, and no clock so many seconds. A comparison takes numbers that a float cannot hold."""
_LEAST = 6
"""Columns of a cut name that its start and its end have at least, if there is room."""


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def json_bytes(value: Any) -> bytes:
    """``value`` as JSON in UTF-8 that every program can read, whatever names of the disk are in it.

    A name that is no UTF-8 is escaped as on a terminal.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return _LONE_SURROGATE.sub(lambda half: rf"\\u{ord(half[0]):04x}", text).encode()


def _is_known(number: float | None) -> TypeGuard[float]:
    """Whether a number of bytes or seconds is known, and one that can be."""
    return number is not None and abs(number) < _ENDLESS


def human_bytes(count: float | None) -> str:
    """``1.2 GB``, in powers of 1000; ``?`` if it is not known."""
    if not _is_known(count):
        return "?"
    if round(abs(count)) < 1000:
        return f"{round(count)} B"
    size = count / 1000
    unit, *larger_units = _UNITS
    while larger_units and round(abs(size), 1) >= 1000:
        size /= 1000
        unit, *larger_units = larger_units
    return f"{size:.1f} {unit}"


def human_rate(bytes_per_second: float) -> str:
    """``1.2 MB/s``."""
    return f"{human_bytes(bytes_per_second)}/s"


def human_duration(seconds: float | None) -> str:
    """``12 s``, ``4m 05s``, ``2h 03m``, ``5d 04h``; ``?`` if it is not known."""
    if not _is_known(seconds):
        return "?"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 48 * 3600:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def local_time(moment: str, now: datetime | None = None, *, is_short: bool = False) -> str:
    """A time in ISO 8601 in local time, whole. With ``now`` without the year, if it is this one; ``is_short`` in five
    columns, as ``ps`` shows it: the hour of today, the day of this year, else the year."""
    when = local_moment(moment)
    if when is None:
        return "?"
    year, day, clock = when.strftime("%Y %m-%d %H:%M").split()
    if now is None or when.year != now.year:
        return year if is_short else f"{year}-{day} {clock}"
    if not is_short:
        return f"{day} {clock}"
    return clock if when.date() == now.date() else day


def local_moment(text: str) -> datetime | None:
    """A time in ISO 8601, in this machine's time zone; None if ``text`` is no time."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        return None


def utc_time(seconds: float | None, timespec: str = "seconds") -> str | None:
    """``2026-11-23T11:40:12Z``, from seconds since 1970; None if they are not known, or no time that a calendar has."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None


def utc_now(timespec: str = "milliseconds") -> str:
    """The time now, as `utc_time` writes it."""
    return datetime.now(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def human_elapsed(seconds: float) -> str:
    """``0.3 s``, ``12 s``, ``4m 05s``: how long something took."""
    return f"{max(0.0, seconds):.1f} s" if seconds < 9.95 else human_duration(seconds)


def listed(words: Sequence[str], separator: str = ", ", *, most: int = MOST_LISTED, noun: str = "") -> str:
    """The first of ``words`` as one text, and how many more there are: ``a, b and 7 more``. There may be one for each
    item that somebody else made. ``noun`` says what they are."""
    text = separator.join(words[:most])
    left = len(words) - most
    if left <= 0:
        return text
    joint = " " if separator == ", " else separator
    return f"{text}{joint}and {left:,} more {noun}".rstrip()


def words_of_code(names: Sequence[str]) -> str:
    """A warning of the files of these ``names``, which can run code when they are loaded."""
    return (
        f"{listed(names, most=3)}: loading this can run code that is in it or that it names; mdl never loads it and "
        f"does not judge it; prefer safetensors, or trust the source"
    )


def words_of_left_out(sizes: Sequence[int | None]) -> str:
    """How many files are left out because they are the same weights in other formats, how large they are as far as all
    their ``sizes`` in bytes are known, and how to fetch them."""
    size = total_size(sizes)
    amount = "" if size is None else f", {human_bytes(size)}"
    if len(sizes) == 1:
        return f"1 file{amount}: another format of the same weights: left out; --all fetches it"
    return f"{len(sizes):,} files{amount}: other formats of the same weights: left out; --all fetches them"


def first_of(lines: Sequence[str], *, most: int = MOST_LISTED) -> list[str]:
    """The first ``lines``, and one that says how many more there are."""
    left = len(lines) - most
    return [*lines[:most], f"and {left:,} more"] if left > 0 else list(lines)


def near_hint(name: str, known: Iterable[str], otherwise: str) -> str:
    """A hint at what of ``known`` is near to ``name``; ``otherwise`` if nothing is."""
    near = get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}?" if near else otherwise


def if_known(fact: Fact | None, words: Callable[[Fact], str]) -> str:
    """A fact in ``words``; '' if it is not known."""
    return "" if fact is None else words(fact)


def counted(count: int, noun: str) -> str:
    """``1 file``, ``2,000 files``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def elsewhere(count: int, to_copy: int) -> str:
    """``400.1 MB elsewhere on this disk (2.0 MB of it to copy)``."""
    if count == to_copy:
        return f"{human_bytes(count)} to copy from elsewhere on this disk"
    copied = f" ({human_bytes(to_copy)} of it to copy)" if to_copy else ""
    return f"{human_bytes(count)} elsewhere on this disk{copied}"


def human_age(seconds: float) -> str:
    """``just now``, ``5 min ago``, ``3 h ago``, ``12 days ago``; ``?`` if it is not known."""
    if not _is_known(seconds):
        return "?"
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    if seconds < 86400:
        return f"{int(seconds // 3600)} h ago"
    return f"{counted(int(seconds // 86400), 'day')} ago"


def cells(text: str) -> int:
    """How many columns of a terminal ``text`` takes."""
    if text.isascii():
        return len(text)
    return sum(_cell(char) for char in text)


def _cell(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shorten(text: str, width: int) -> str:
    """``text`` in at most ``width`` columns: the middle goes, as the start and the end of a name tell the most."""
    return text if cells(text) <= width else _cut(text, width, (width - 1) // 3)


def shorten_all(names: Sequence[str], width: int) -> list[str]:
    """`shorten` for names that stand below one another: what they differ in stays visible."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(shorten(name, width), []).append(name)
    texts = []
    for name in names:
        text = shorten(name, width)
        if text != name and len(alike[text]) > 1:
            text = _shorten_within(name, width, alike[text])
        texts.append(text)
    return texts


def _shorten_within(name: str, width: int, group: Sequence[str]) -> str:
    """``name``, cut where it is the same as the others of its group."""
    same = _same(group)
    reversed_rests = [other[same:][::-1] for other in group]
    end = min(_same(reversed_rests), len(name) - same)
    front = cells(name[: len(name) - end])
    back = cells(name[same:])
    if front < width - _LEAST:
        return _cut(name, width, front)
    if back < width - _LEAST or width <= _LEAST:
        return _cut(name, width, max(0, width - 1 - back))
    start = min(_LEAST, width - _LEAST)
    return _front(name, start) + "…" + clip(name[same:], width - 1 - start)


def _same(texts: Sequence[str]) -> int:
    """How many characters all of them begin with."""
    first = min(texts)
    last = max(texts)
    for at, char in enumerate(first):
        if char != last[at : at + 1]:
            return at
    return len(first)


def _cut(text: str, width: int, front: int) -> str:
    """``text`` without its middle, in ``width`` columns, of which ``front`` are its start."""
    start = _front(text, front)
    return start + "…" + _front(text[::-1], width - 1 - cells(start))[::-1]


def clip(text: str, width: int) -> str:
    """``text`` in at most ``width`` columns: the end goes, as a sentence is read from its start."""
    return text if cells(text) <= width else _front(text, width - 1) + "…"


def _front(text: str, width: int) -> str:
    used = 0
    for at, char in enumerate(text):
        used += _cell(char)
        if used > width:
            return text[:at]
    return text


def wrap(text: str, width: int, indent: str = "") -> list[str]:
    """``text`` as lines of at most ``width`` columns, broken between words; all but the first begin with ``indent``. A
    word that is longer than a line stays whole."""
    line, *words = text.split(" ")
    lines = list[str]()
    for word in words:
        is_after_a_break = bool(lines) and line == indent
        longer = line + word if is_after_a_break else f"{line} {word}"  # after a break, further spaces are dropped
        if cells(longer) > width and line.strip() and cells(indent + word) <= width:
            lines.append(line.rstrip())
            line = indent + word
        else:
            line = longer
    return [*lines, line]


def pad(text: str, width: int, *, right: bool = False) -> str:
    """``text`` filled up with spaces to ``width`` columns; ``right`` puts it at the right edge."""
    space = " " * (width - cells(text))
    return space + text if right else text + space


def table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    """Aligned columns, two or more spaces apart, every line ended.

    A cell never holds two spaces in a row, and an empty one is ``-``: a program can split the lines again.
    """
    columns = []
    for header, *texts in zip(headers, *rows, strict=True):
        column = [" ".join(text.split()) or "-" for text in (header, *texts)]
        is_right = all(map(is_number, column[1:]))
        width = max(map(cells, column))
        columns.append([pad(text, width, right=is_right) for text in column])
    return "".join(f"{_GAP.join(line).rstrip()}\n" for line in zip(*columns, strict=True))


def is_number(text: str) -> bool:
    """``text`` is a number, a size or a rate, and so belongs at the right of its column."""
    return re.fullmatch(_NUMBER, text) is not None


def sum_line(digest: str, path: str) -> str:
    """A line of ``sha256sum``, with its end. As that program does, a backslash before the digest says that those in the
    path are doubled."""
    if "\\" in path:
        path = path.replace("\\", "\\\\")
        return f"\\{digest}  {path}\n"
    return f"{digest}  {path}\n"


def spelled(model: str, repo: str) -> str:
    """The name of a model as people read it: a repository of the hub as ``org/name``, any other as it is called."""
    path = repo.removeprefix("hf:")
    is_named_after_it = repo.startswith("hf:") and model == path.replace("/", "--")
    return path if is_named_after_it else model


def as_written(item: str, labels: Mapping[str, str]) -> str:
    """An item, such as a model or a file of one, with the model's name as people write it, which is in ``labels``."""
    name, slash, path = item.partition("/")
    return f"{labels.get(name, name)}{slash}{path}"
