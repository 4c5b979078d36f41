"""Formatting: numbers, times and tables as people read them. Pure."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime

_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")
_NUMBER = r"[\d.,]+( ?([kMGTPE]?B(/s)?|%|s))?|[-?]"
_GAP = "  "


def human_bytes(count: float) -> str:
    """``1.2 GB``, in powers of 1000."""
    if not math.isfinite(count):
        return "?"
    sign, size = "-" if count < 0 else "", abs(count)
    if round(size) < 1000:
        return f"{sign}{round(size)} B"
    unit = ""
    for unit in _UNITS:  # noqa: B007
        size /= 1000
        if round(size, 1) < 1000:
            break
    return f"{sign}{size:.1f} {unit}"


def human_rate(bytes_per_second: float) -> str:
    """``1.2 MB/s``."""
    return f"{human_bytes(bytes_per_second)}/s"


def human_duration(seconds: float | None) -> str:
    """``12 s``, ``4m 05s``, ``2h 03m``, ``5d 04h``; ``?`` if it is not known."""
    if seconds is None or not math.isfinite(seconds):
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
    if is_short and now:
        is_today = when.date() == now.date()
        return when.strftime("%H:%M" if is_today else "%m-%d" if when.year == now.year else "%Y")
    return when.strftime("%m-%d %H:%M" if now and when.year == now.year else "%Y-%m-%d %H:%M")


def local_moment(text: str) -> datetime | None:
    """A time in ISO 8601 as one of this machine's time zone; None if it is none."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        return None


_AGES = ((86400, "day"), (3600, "h"), (60, "min"))


def human_age(seconds: float) -> str:
    """``just now``, ``5 min ago``, ``3 h ago``, ``12 days ago``; ``?`` if it is not known."""
    if not math.isfinite(seconds):
        return "?"
    for size, unit in _AGES:
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''} ago"
    return "just now"


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
    """``text`` in at most ``width`` columns: the front goes, as the end of a name (number, suffix) tells the most."""
    return text if cells(text) <= width else "…" + _front(text[::-1], width - 1)[::-1]


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


def folded(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` columns: broken between words, and in a word that is too long for one."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and cells(lines[-1]) + 1 + cells(word) <= width:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        while cells(word) > width:
            lines[-1] = _front(word, width)
            word = word[len(lines[-1]) :]
            lines.append("")
        lines[-1] = word
    return lines


def pad(text: str, width: int, *, right: bool = False) -> str:
    """``text`` filled up with spaces to ``width`` columns; ``right`` puts it at the right edge."""
    space = " " * (width - cells(text))
    return space + text if right else text + space


def table(rows: Sequence[Sequence[str]], headers: Sequence[str] = ()) -> str:
    """Aligned columns, two or more spaces apart, every line ended.

    A cell never holds two spaces in a row, and an empty one is ``-``: a program can split the lines again.
    """
    count = max((len(row) for row in (*rows, headers)), default=0)
    body = [_plain(row, count) for row in rows]
    grid = [_plain(headers, count), *body] if headers else body
    widths = [max(cells(row[at]) for row in grid) for at in range(count)]
    right = [bool(body) and all(is_number(row[at]) for row in body) for at in range(count)]
    lines = []
    for row in grid if count else ():
        line = (pad(row[at], widths[at], right=right[at]) for at in range(count))
        lines.append(_GAP.join(line).rstrip() + "\n")
    return "".join(lines)


def is_number(text: str) -> bool:
    """``text`` is a number, a size or a rate, and so belongs at the right of its column."""
    return re.fullmatch(_NUMBER, text) is not None


def _plain(row: Sequence[str], count: int) -> list[str]:
    filled = [*row, *[""] * (count - len(row))]
    return [" ".join(cell.split()) or "-" for cell in filled]
