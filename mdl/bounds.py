"""Bounds: how large each kind of thing from outside may be, and the functions that check it before it is converted.

Whatever comes from a file, a server or another program is bounded here, and nowhere else
(``tests/unit/test_one_bound.py``). What is over its bound is an
`OutOfBounds`, a ``ValueError``: the room that reads it knows which `mdl.errors.MdlError` that is there. Pure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sized
from typing import Any, TypeVar

# Numbers.

LARGEST_NUMBER = 2**63 - 1
"""What a count or a size in bytes can be at most: the largest that file systems and TOML know."""
_MOST_DIGITS = len(str(LARGEST_NUMBER))
_LARGEST_UNSIGNED = 2**64 - 1
"""As file systems number their inodes."""
_MOST_CHARACTERS = len(str(-_LARGEST_UNSIGNED))
LONGEST_NUMBER = 100
"""Characters of a number that are converted at all, in any base. Digits behind the point count."""
LAST_MOMENT = 253_402_300_799
"""The end of the year 9999, in seconds since 1970: no clock and no record has a later time."""

# Texts and names.

LONGEST_TEXT = 2**16
"""Characters of one text: a title, a URL, a pattern, a line of a file that another program goes on writing."""
LONGEST_FILE_NAME = 255
"""Bytes of the name of a file: no file system takes more."""
LONGEST_PATH = 1024
"""Bytes of a path that a catalog, a server or an archive names: what mdl puts before it must fit into the next."""
LONGEST_LOCAL_PATH = 4096
"""Bytes of a path that Linux takes (``PATH_MAX``)."""
DEEPEST_PATH = 64
"""Folders of such a path, one in the other."""
LONGEST_QUOTE = 300
"""Characters of what a server or a program said that a message quotes."""
LONGEST_SHOWN_NAME = 80
"""Characters of a name from outside that a message quotes."""
MOST_LISTED = 20
"""Names or sentences, one for each item from outside, that one message has at most."""

# What is read into memory. A kind of file or answer has the smallest of these into which every honest one fits.

LARGEST_NOTE = 2**16
"""Bytes of a few words: a token, a commit, who holds a lock, a TLS handshake, the last that a program says to
stderr."""
LARGEST_SMALL_FILE = 2**20
"""Bytes of settings, an exit code, a state, what a program answers to a short question."""
LARGEST_ANSWER = 10 * 2**20
"""Decoded bytes of an API's answer, or of a page of a bucket's list. Parsed they take a multiple of it."""
LARGEST_RECORD = 16 * 2**20
"""Bytes of a record: a receipt, digests, certificates, a catalog from the web, what a trainer says of a run. A journal
that is half as long is written anew when its download is resumed. The receipt of a file of a terabyte has 5 MB, most of
which are its prefix digests."""
LARGEST_CHILD_OUTPUT = LARGEST_RECORD
"""Bytes that a program may write to stdout; one that writes more is ended. A document of 50,000 files has 12 MiB."""
LARGEST_RESULT = 32 * 2**20
"""Bytes of an answer that may have files in it: a result of 20 MiB, and room."""
LARGEST_DOCUMENT = 64 * 2**20
"""Bytes of what lists many files or names: a catalog, a lock, a job, the marker of a mirror, the directory of a zip,
the header of a GGUF file. Of a journal, which has a line for each connection and claim (ADR 155). And of what is looked
through or kept of files in memory."""
LARGEST_JSON = 256 * 2**20
"""Bytes of the largest JSON documents: receipts, the history of releases, a manifest of a million members."""
LARGEST_LIST = 512 * 2**20
"""Bytes of a list in JSON that is read item by item, such as the files of a repository."""

# Lists.

MOST_ITEMS = 1_000_000
"""Items of one list, over all of its pages."""
MOST_PAGES = 1000
"""Pages of one list that comes in pages."""
MOST_JOBS = 100_000
"""Jobs of a bucket or of an answer: each costs a request, or a line."""
MOST_UPLOADS = 10_000
"""Unfinished uploads of a bucket, and parts of one upload, as S3 has them: each costs a request."""

_LONGEST_BRIEF = 20

T = TypeVar("T", bound=Sized)


class OutOfBounds(ValueError):
    """Something from outside is larger than anything that is meant seriously."""


def whole_number(value: object, *, least: int = 0, most: int = LARGEST_NUMBER) -> int:
    """``value`` if it is a whole number from ``least`` to ``most``. True, 1.0 and ``"1"`` are not.

    Raises `OutOfBounds`, with words that can be shown whatever the value is.
    """
    if type(value) is int and least <= value <= most:
        return value
    raise OutOfBounds(f"{brief(value)} is not a whole number from {least} to {most}")


def parse_whole_number(text: str, *, least: int = 0, most: int = LARGEST_NUMBER) -> int:
    """Return the whole number in ``text``, of nothing but the digits 0 to 9. Raises `OutOfBounds`."""
    if len(text) <= LONGEST_NUMBER and text.isascii() and text.isdigit():
        digits = text.lstrip("0") or "0"
        if len(digits) <= _MOST_DIGITS:
            return whole_number(int(digits), least=least, most=most)
    raise OutOfBounds(f"{brief(text)} is not a whole number from {least} to {most}")


def finite_number(value: object, *, least: float = 0.0, most: float = LARGEST_NUMBER) -> float:
    """``value`` as a float if it is a number from ``least`` to ``most``. Raises `OutOfBounds`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return float(value)
    raise OutOfBounds(f"{brief(value)} is not a number from {least:g} to {most:g}")


def parse_number(text: str, *, least: float = 0.0, most: float = LARGEST_NUMBER) -> float:
    """Return the number in ``text``, as JSON writes numbers. Raises `OutOfBounds`."""
    if len(text) <= LONGEST_NUMBER and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", text):
        return finite_number(float(text), least=least, most=most)
    raise OutOfBounds(f"{brief(text)} is not a number from {least:g} to {most:g}")


def at_most(things: T, most: int, what: str) -> T:
    """``things`` (a text, bytes, a list) if there are at most ``most``, before any of them is looked at.

    Raises `OutOfBounds`, with ``what`` in plural: "characters", "bytes", "files".
    """
    if len(things) > most:
        raise OutOfBounds(f"more than {most:,} {what}")
    return things


def parse_json(data: str | bytes, *, most: int = LARGEST_JSON, allow_nan: bool = False) -> Any:
    """Return a JSON document of at most ``most`` bytes (or characters).

    A whole number of over 64 bits becomes a float, so that it is no size or count. With ``allow_nan`` NaN, Infinity and
    numbers like 1e999 are floats, as Python and trainers write them; without it they are refused. Raises ``ValueError``
    for what is no JSON, has a number of over 100 characters, or is nested too deeply.
    """
    at_most(data, most, "bytes of JSON")
    try:
        if allow_nan:
            return json.loads(data, parse_int=parse_integer, parse_float=_float)
        return json.loads(data, parse_int=parse_integer, parse_float=_finite, parse_constant=_refuse_constant)
    except RecursionError:
        raise OutOfBounds("nested too deeply") from None


def parse_integer(text: str) -> int | float:
    """Return the whole number in ``text``, of digits after perhaps a minus; as a float if it has over 64 bits, so that
    it is no size and no count. Raises `OutOfBounds` for over 100 characters."""
    if len(text) <= _MOST_CHARACTERS:
        number = int(text)
        if abs(number) <= _LARGEST_UNSIGNED:
            return number
    return _float(text)


def _float(text: str) -> float:
    if len(text) > LONGEST_NUMBER:
        raise OutOfBounds(f"a number of {len(text):,} characters ({brief(text)})")
    return float(text)


def _finite(text: str) -> float:
    number = _float(text)
    if not math.isfinite(number):
        raise OutOfBounds(f"the number {brief(text)} is too large")
    return number


def _refuse_constant(name: str) -> float:
    raise OutOfBounds(f"{name} is not a number")


def brief(value: object) -> str:
    """``value`` in a few harmless characters, for a message; a number that is too long to be written is not."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if abs(value) <= 10**LONGEST_NUMBER else f"a number of over {LONGEST_NUMBER} digits"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return ascii(value if len(value) <= _LONGEST_BRIEF else value[:_LONGEST_BRIEF] + "...")
    return "a list" if isinstance(value, list) else "a table"


ITEM_DECODER = json.JSONDecoder(parse_int=parse_integer, parse_float=_finite, parse_constant=_refuse_constant)
"""Of the items of a list that is read as it comes; as `parse_json`."""
