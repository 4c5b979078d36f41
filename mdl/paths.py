"""RelPath: a relative path that has been checked. Only a checked path can be joined to a folder.

Names come from catalogs, hubs and archives, and all three are hostile input. There are two rules (ADR 49). The strict
one is for catalogs and archives, which people write for many machines: a name that on any platform would lead
elsewhere, or would be another spelling of another file's name, is refused on every platform. The other one is for names
that a repository has, and for mdl's own records of such files: only what cannot be kept on this system is refused.

Characters that Windows merely refuses to store (``: * ? " < > |``) are let through: it says so and
writes nothing, and many of the hub's datasets have (``2023-07-19T13:48:53/details_harness|arc:challenge.parquet``).
"""

from __future__ import annotations

import glob
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from pathlib import Path

from mdl.bounds import DEEPEST_PATH, LONGEST_FILE_NAME, LONGEST_LOCAL_PATH, LONGEST_PATH, LONGEST_SHOWN_NAME
from mdl.errors import Unsafe
from mdl.values import small_value_class

_RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³"
}
_ESCAPED = re.compile(r"%(2f|5c|00)|^(%2e|\.){1,2}$", re.IGNORECASE)


_JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiners: part of ordinary Persian and Indic prose, never of a safe file name."""


def is_hidden_character(char: str) -> bool:
    """True for control, bidi, zero-width and other characters a terminal shows wrongly or not at all."""
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def is_harmful_in_prose(char: str) -> bool:
    """As `is_hidden_character`, but the joiners that prose needs are let through."""
    return is_hidden_character(char) and char not in _JOINERS


def shown(text: str) -> str:
    """``text`` with every harmful character escaped, safe for a terminal and a log line."""
    if text.isprintable():
        return text
    escaped = ""
    for char in text:
        if is_harmful_in_prose(char):
            char = char.encode("unicode_escape", "surrogatepass").decode("ascii")
        escaped += char
    return escaped


def escape_surrogates(text: str) -> str:
    """``text`` with every lone surrogate escaped, as `shown` does it, so that it can be written as UTF-8. Python reads
    the bytes of a name that is no UTF-8 as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


@lru_cache(maxsize=2**14)
def why_unsafe(segment: str) -> str | None:
    """Why one path segment is refused, or None when it is fine."""
    if segment in ("", ".", ".."):
        return f"a segment {segment!r}"
    if not segment.isprintable() and any(is_hidden_character(char) for char in segment):
        return "a control or invisible character"
    if "\\" in segment:
        return "a backslash"
    if segment[1:2] == ":" and segment[0].isalpha():
        return "a drive"
    if ":$" in segment:
        return "an NTFS stream, which may be another name of a file"
    if "%" in segment and _ESCAPED.search(segment):
        return "an escaped slash, backslash, dot or NUL"
    if segment.startswith("~"):
        return "a segment that starts with '~'"
    if segment[-1] in ". ":
        return "a segment that ends with a dot or a space"
    if segment.split(".")[0].rstrip(" ").lower() in _RESERVED:
        return "a name that Windows reserves"
    if len(segment.encode("utf-8", "surrogatepass")) > LONGEST_FILE_NAME:
        return f"a segment over {LONGEST_FILE_NAME} bytes"
    return None


_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def why_not_kept(path: str) -> str | None:
    """Why a file of a repository cannot be kept under its ``path`` on this system, or None if it can."""
    if path.startswith("/"):
        return "an absolute path"
    if _CONTROLS.search(path):
        return "a control character"
    if _SURROGATES.search(path):
        return "half a character (a lone surrogate)"
    segments = path.split("/")
    for segment in segments:
        if segment in ("", ".", ".."):
            return f"a segment {segment!r}"
        if len(segment.encode()) > LONGEST_FILE_NAME:
            return f"a segment over {LONGEST_FILE_NAME} bytes"
    if segments[0] == ".mdl":
        return "a path inside .mdl, which is mdl's own"
    if len(path.encode()) > LONGEST_LOCAL_PATH:
        return f"a path over {LONGEST_LOCAL_PATH} bytes"
    return None


def _why_not_portable(path: str) -> str | None:
    """Why a path is refused by the strict rule, or None if it is fine."""
    if path.startswith("/"):
        return "an absolute path"
    segments = path.split("/")
    for segment in segments:
        why = why_unsafe(segment)
        if why is not None:
            return why
    if segments[0].lower() == ".mdl":
        return "a path inside .mdl, which is mdl's own"
    if len(segments) > DEEPEST_PATH:
        return f"a path of more than {DEEPEST_PATH} segments"
    if len(path.encode("utf-8", "surrogatepass")) > LONGEST_PATH:
        return f"a path over {LONGEST_PATH} bytes"
    return None


@small_value_class
class RelPath:
    """A path below some folder: ``/``-separated, never absolute, never climbing. What `parse` returns is portable,
    too."""

    text: str

    @classmethod
    def of_repository(cls, text: str) -> RelPath:
        """The path of a file in a repository, or of one that mdl fetched from there: whatever can be kept on this
        system. Raises `Unsafe`, naming what is wrong with it."""
        return cls._checked(text, why_not_kept(text))

    @classmethod
    def parse(cls, text: str) -> RelPath:
        """Check a ``text`` by the strict rule, for what is to be the same on every system. Raises `Unsafe`, naming what
        is wrong with it."""
        return cls._checked(text, _why_not_portable(text))

    @classmethod
    def _checked(cls, text: str, why: str | None) -> RelPath:
        if why is not None:
            raise Unsafe(f"path refused: {why}", item=shown(text)[:200])
        return cls(text)

    @property
    def name(self) -> str:
        return self.text.rsplit("/", 1)[-1]

    @property
    def folded(self) -> str:
        """What a case-insensitive, Unicode-normalising file system makes of it."""
        return folded(self.text)

    def under(self, folder: Path) -> Path:
        return folder.joinpath(*self.text.split("/"))

    def __lt__(self, other: RelPath) -> bool:
        return self.text < other.text

    def __str__(self) -> str:
        return self.text


def is_at_or_below(path: str, folder: str) -> bool:
    """Whether a path is ``folder`` itself or lies in it, by whole segments; "" is the folder of all."""
    above = folder.rstrip("/")
    return not above or f"{path.rstrip('/')}/".startswith(f"{above}/")


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path matches one of the patterns of ``--include`` or ``--exclude``, as in ``hf download``: ``*``
    matches ``/`` too, case matters, and a trailing ``/`` means everything in that folder. A pattern also means the
    file or folder of that very name: names have brackets too."""
    return _regex_of(tuple(patterns)).match(path) is not None


def matching(paths: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """Those of many paths that `matches` one of the patterns."""
    return set(filter(_regex_of(tuple(patterns)).match, paths))


@lru_cache(maxsize=2**10)
def _regex_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    alternatives = []
    for pattern in patterns:
        below = "*" if pattern.endswith("/") else ""
        alternatives.append(translate(pattern + below))
        if "[" in pattern:
            alternatives.append(translate(glob.escape(pattern) + below))
    return re.compile("|".join(alternatives) or "(?!)")


def folded(text: str) -> str:
    """The same for two texts that differ only by case or by Unicode form."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def clashing(paths: Sequence[RelPath], key: Callable[[str], str] = str) -> dict[int, RelPath]:
    """The places in ``paths`` of those that cannot lie beside an earlier one, each with that one: both are one file, or
    one is a folder of the other. ``key`` is the same for two names that a file system does not tell apart."""
    spelt = sorted((key(path.text).replace("/", _BELOW), place) for place, path in enumerate(paths))
    clashes: dict[int, RelPath] = {}
    kept_name = None
    kept_place = 0
    for name, place in spelt:
        # the sort puts a file right before what is below it, and the earlier place first among equals
        if kept_name is not None and f"{name}{_BELOW}".startswith(f"{kept_name}{_BELOW}"):
            clashes[place] = paths[kept_place]
            continue
        kept_name = name
        kept_place = place
    return clashes


def refuse_twins(paths: Iterable[RelPath]) -> None:
    """Refuse two paths that are one on some file system, or a file that is another's folder.

    Raises `Unsafe` naming both.
    """
    files = list(paths)
    for place, first in clashing(files, folded).items():
        raise twin_error(first, files[place])


def twin_error(first: RelPath, second: RelPath) -> Unsafe:
    """The error of two paths that clash on some file system."""
    item = shown(second.text)
    if first.folded == second.folded:
        return Unsafe(f"two files would be one: {shown(first.text)} and {item}", item=item)
    return Unsafe(f"{shown(first.text)} is a file and the folder of {item}", item=item)


def refuse_twin_folders(files: Iterable[RelPath], folders: Iterable[RelPath] = ()) -> None:
    """Refuse two folders that are one on some file system, and a file that is also a folder.

    ``folders`` are those that are named themselves, beside those that files are in. Raises `Unsafe`.
    """
    for (one, text), (other, other_text) in pairwise(_sorted(files, folders)):
        if not one.endswith(_BELOW) and other.startswith(one + _BELOW):
            raise Unsafe("a folder and a file at once", item=shown(text))
        if text.rpartition("/")[0] == other_text.rpartition("/")[0]:
            continue
        segments = text.split("/")
        others = other_text.split("/")
        folds = zip(one.split(_BELOW)[:-1], other.split(_BELOW)[:-1], strict=False)
        for depth, (fold, other_fold) in enumerate(folds):
            if fold != other_fold:
                break
            if segments[depth] != others[depth]:
                first, second = ("/".join(names[: depth + 1]) for names in (segments, others))
                raise Unsafe(f"two folders would be one: {shown(first)} and {shown(second)}", item=shown(second))


_BELOW = "\0"
"""Stands for the slash, and before every character that a checked path may hold."""


def _sorted(files: Iterable[RelPath], folders: Iterable[RelPath] = ()) -> list[tuple[str, str]]:
    """The folded names beside the given ones. A name stands right before what is below it, and all that is in one
    folder stands together: so whatever clashes, two neighbours clash, and no list of all folders is needed, of which
    a hostile archive has many times more than it has names. A folder's own name ends with the mark."""
    named = [(path.folded.replace("/", _BELOW), path.text) for path in files]
    named += [(path.folded.replace("/", _BELOW) + _BELOW, f"{path.text}/") for path in folders]
    return sorted(named, key=itemgetter(0))


def record_name(name: str) -> str:
    """How mdl names its own records of a model, or of whatever has this ``name``: 32 hex digits, as some disks take
    names of 143 bytes or fewer. Which one a record is of stands inside (ADR 52)."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def names_for_a_hint(names: Iterable[str], most: int = 10) -> str:
    """Names that somebody else chose, as a hint may list them: escaped, cut, and at most so many; one that is more than
    a plain name is quoted, so that it is no sentence of mdl's."""
    listed = [_named(name) for name in names]
    left = len(listed) - most
    if left <= 0:
        return ", ".join(listed)
    return f"{', '.join(listed[:most])} and {left:,} more"


def _named(name: str) -> str:
    text = shown(name)
    if len(text) > LONGEST_SHOWN_NAME:
        text = f"{text[:LONGEST_SHOWN_NAME]}…"
    if re.fullmatch(r"[\w./+@:-]+", text):
        return text
    return f"'{text}'"
