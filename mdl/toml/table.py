"""Tables of TOML that people write, as checked values, and every mistake in them as one error. Pure.

A table of keys says of each key how its value is read; `Table.read` goes through it, and notes what is wrong with the
file, the line and the key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mdl.bounds import LARGEST_NUMBER, LONGEST_SHOWN_NAME, LONGEST_TEXT, MOST_LISTED
from mdl.errors import MdlError
from mdl.paths import is_harmful_in_prose, shown
from mdl.toml import TomlError, parse_toml

if TYPE_CHECKING:
    from mdl.toml.positions import Key

S = TypeVar("S")
T = TypeVar("T")
_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a table"}

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_]+|x-[\x00-\x7f]*", re.DOTALL)
_MOST_OWN = 10_000
_GUESSES = 500_000
"""Names compared for "did you mean" in one run; a file with countless problems gets no more guesses."""


class Problems:
    """Collects the problems of ``what`` (such as "the catalog"). `check` raises them all at once as ``error``, in the
    order of the files and their lines."""

    def __init__(self, what: str, error: type[MdlError]) -> None:
        self._what = what
        self._error = error
        self._files: list[TomlText] = []
        self._guesses = _GUESSES

    def file(self, path: Path | str, text: str = "", *, is_of_others: bool = False) -> TomlText:
        """The next file; ``is_of_others`` if somebody else wrote it."""
        self._files.append(TomlText(path, text, self, is_of_others=is_of_others))
        return self._files[-1]

    def guess(self, word: str, known: Collection[str]) -> str:
        """The one of ``known`` that ``word`` is probably meant to be, or ''."""
        self._guesses -= len(known)
        if self._guesses < 0 or len(word) > LONGEST_SHOWN_NAME:
            return ""
        folded = {name.casefold(): name for name in known}
        near = get_close_matches(word.casefold(), folded, 1, 0.6)
        return folded[near[0]] if near else ""

    def check(self) -> None:
        """Raises the error if there are any problems. Of those in files of others it has the first, and says how many
        more there are."""
        own: list[str] = []
        others: list[str] = []
        for file in self._files:
            lines = others if file.is_of_others else own
            lines += [words for _, words in sorted(file.problems_by_line, key=itemgetter(0))]
        count = len(own) + len(others)
        if not count:
            return
        lines = [*own[:_MOST_OWN], *others[:MOST_LISTED]]
        left = count - len(lines)
        if count > 1:
            lines.insert(0, f"{count} mistakes in {self._what}:")
        if left:
            lines.append(f"and {left} more")
        raise self._error("\n".join(lines))


class TomlText:
    """A file being read: its text, where its keys are, and what is wrong with it."""

    def __init__(self, path: Path | str, text: str, problems: Problems, *, is_of_others: bool = False) -> None:
        self.is_of_others = is_of_others
        self.text = text
        self.problems = problems
        self.name = shown(str(path))
        self.problems_by_line: list[tuple[int, str]] = []

    @cached_property
    def _lines(self) -> dict[Key, int]:
        from mdl.toml.positions import line_numbers

        return line_numbers(self.text)

    def line(self, where: Key) -> int:
        """The line of ``where``, or of the nearest thing around it."""
        for length in range(len(where), 0, -1):
            if where[:length] in self._lines:
                return self._lines[where[:length]]
        return 1

    def place(self, where: Key) -> str:
        """``catalog.toml:12``"""
        return f"{self.name}:{self.line(where)}"

    def parse(self) -> dict[str, Any] | None:
        """The tables of the text; None if it is not TOML, and why is noted."""
        try:
            return parse_toml(self.text.removeprefix("\ufeff"))
        except TomlError as error:
            for problem in error.problems:
                if problem.key:
                    self.wrong(problem.key, problem.words)
                else:
                    self.broken(problem.words, problem.line, problem.column)
        return None

    def wrong(self, where: Key, words: str) -> None:
        """Note a problem at a key."""
        self.problems_by_line.append((self.line(where), f"{self.place(where)}: {_spelled(where)}: {words}"))

    def broken(self, words: str, line: int = 0, column: int = 0) -> None:
        """Note that the file as a whole, or from a line on, cannot be read."""
        place = f"{self.name}:{line}" if line else self.name
        if column:
            words += f" (column {column})"
        self.problems_by_line.append((line, f"{place}: {shown(words)}"))


def _spelled(where: Key) -> str:
    """A key path as a person would write it: ``models."bert-fa".files[0].url``."""
    spelled = ""
    for part in where:
        if isinstance(part, int):
            spelled += f"[{part}]"
            continue
        name = shown(part[:LONGEST_SHOWN_NAME])
        if not _PLAIN_KEY.fullmatch(part):
            name = f'"{name}"'
        spelled += f".{name}" if spelled else name
    return spelled


def did_you_mean(guess: str) -> str:
    """``"; did you mean …?"``, or nothing for no guess."""
    return f"; did you mean {shown(guess)}?" if guess else ""


def one_line(error: MdlError) -> str:
    """An error's message and hint as one clause of a longer line."""
    return f"{error.message}; {error.hint}" if error.hint else error.message


class Table:
    """A table of a file: its keys as checked values, None or empty if a key is absent or wrong."""

    def __init__(self, data: dict[str, Any], where: Key, text: TomlText) -> None:
        self.data = data
        self.where = where
        self.file = text
        self._misspelt: set[str] = set()

    def wrong(self, words: str, *key: str | int) -> None:
        """Note a problem in this table or at a key of it."""
        self.file.wrong((*self.where, *key), words)

    def read(self, keys: Mapping[str, Callable[[Table, str], Any]]) -> dict[str, Any]:
        """Read every one of ``keys`` with its function, which gets the table and the key. Any other key is noted."""
        self.allow(*keys)
        return {key: read_value(self, key) for key, read_value in keys.items()}

    def allow(self, *known: str) -> None:
        """Note every key that is neither ``known`` nor the user's own (``x-…``)."""
        for key in self.data:
            if key in known or key.startswith("x-"):
                continue
            guess = self.file.problems.guess(key, known)
            self._misspelt.add(guess)
            self.wrong("unknown key" + did_you_mean(guess), key)

    def lacks(self, *keys: str) -> bool:
        """Whether all of ``keys`` are absent or empty, and none was merely misspelt (which `allow` has noted)."""
        return not any(self.data.get(key) or key in self._misspelt for key in keys)

    # The kinds of values.

    def string(self, key: str, default: str = "") -> str:
        """A line of text that is not blank and holds no control character."""
        value = self.data.get(key)
        if value is None:
            return default
        return self._checked_text(value, key) or default

    def prose(self, key: str) -> str:
        """As `string`, but it may be blank."""
        value = self.data.get(key)
        if isinstance(value, str) and not value.strip():
            return ""
        return self.string(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts of a list."""
        return tuple(text for _, text in self.strings(key))

    def strings(self, key: str) -> Iterator[tuple[Key, str]]:
        """The texts of a list, each with its key (``("tags", 0)``)."""
        for index, item in enumerate(self._of_kind(list, "a list of texts", key) or ()):
            text = self._checked_text(item, key, index)
            if text:
                yield (key, index), text

    def one_or_many(self, key: str) -> Iterator[tuple[Key, str]]:
        """As `strings`, but a single text may stand without a list."""
        if isinstance(self.data.get(key), str):
            text = self.string(key)
            if text:
                yield (key,), text
        else:
            yield from self.strings(key)

    def parsed(self, key: str, parse: Callable[[str], T]) -> T | None:
        """``parse`` of a text; None if it is absent or refused."""
        text = self.string(key)
        return self.attempt(parse, text, key) if text else None

    def parsed_list(self, key: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        """``parse`` of each text of a list, without those that it refuses."""
        values = []
        for where, text in self.strings(key):
            value = self.attempt(parse, text, *where)
            if value is not None:
                values.append(value)
        return tuple(values)

    def choice(self, key: str, known: tuple[str, ...], default: str) -> str:
        """A text that must be among the ``known`` ones."""
        value = self.string(key, default)
        if value not in known:
            guess = self.file.problems.guess(value, known)
            self.wrong(f"must be one of {', '.join(known)}{did_you_mean(guess)}", key)
        return value

    def size(self, key: str) -> int | None:
        """A count of bytes."""
        value = self._of_kind(int, "a whole number of bytes", key)
        if value is None or 0 <= value <= LARGEST_NUMBER:
            return value
        self.wrong("is not a possible number of bytes", key)
        return None

    def switch(self, key: str) -> bool | None:
        """True or false."""
        return self._of_kind(bool, "true or false", key)

    def tables(self, key: str) -> Iterator[Table]:
        """The tables of an array of tables."""
        for index, item in enumerate(self._of_kind(list, f"a list of tables ([[…{key}]])", key) or ()):
            if isinstance(item, dict):
                yield Table(item, (*self.where, key, index), self.file)
            else:
                self.wrong(f"must be a table, not {_kind(item)}", key, index)

    def named_tables(self) -> Iterator[tuple[str, Table]]:
        """The tables in this one, by their names. Anything else is noted, unless it is the user's own (``x-…``)."""
        for name, value in self.data.items():
            if isinstance(value, dict):
                yield name, self.table(name)
            elif not name.startswith("x-"):
                self.wrong(f"must be a table, not {_kind(value)}", name)

    def table(self, key: str) -> Table:
        """A table in this one; an empty one if it is absent or wrong."""
        return Table(self._of_kind(dict, "a table", key) or {}, (*self.where, key), self.file)

    def attempt(self, parse: Callable[[S], T], value: S, *key: str | int) -> T | None:
        """``parse(value)``, or None and a problem at ``key`` when it refuses."""
        try:
            return parse(value)
        except MdlError as error:
            self.wrong(one_line(error), *key)
            return None

    def _of_kind(self, kind: type[T], words: str, key: str) -> T | None:
        """The value under ``key`` if it is of this ``kind``, or None and a problem."""
        value = self.data.get(key)
        if value is None or type(value) is kind:
            return value
        self.wrong(f"must be {words}, not {_kind(value)}", key)
        return None

    def _checked_text(self, value: object, *key: str | int) -> str:
        """``value`` if it is a proper text, else a problem and ''."""
        if not isinstance(value, str):
            self.wrong(f"must be text, not {_kind(value)}", *key)
            return ""
        if not value.strip():
            self.wrong("is empty", *key)
            return ""
        if len(value) > LONGEST_TEXT:
            self.wrong(f"is over {LONGEST_TEXT} characters long", *key)
            return ""
        if value.isprintable():
            return value
        for character in value:
            if is_harmful_in_prose(character):
                self.wrong(f"holds a control or invisible character ({shown(character)})", *key)
                return ""
        return value


def _kind(value: object) -> str:
    """The kind of a TOML value, in words."""
    return _KINDS.get(type(value), "a date or time")
