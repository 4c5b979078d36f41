"""Problems: TOML that people write, read strictly: a catalog, or ``config.toml``. What is wrong is noted with its file,
line and key, and raised as one error. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from difflib import get_close_matches
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mdl.bounds import LARGEST_NUMBER, LONGEST_TEXT
from mdl.errors import MdlError
from mdl.paths import is_harmful_in_prose, shown
from mdl.toml import NestedTooDeeply, NumbersTooLarge, parse_toml

if TYPE_CHECKING:
    from mdl.toml.positions import Key

T = TypeVar("T")
_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a table"}
_LONGEST_GUESS = 80
_MOST_OWN = 10_000
_MOST_OF_OTHERS = 20
"""How many problems are told of the user's own files, and of those that come from elsewhere."""
_GUESSES = 500_000
"""Names compared for "did you mean" in one run; a file with countless problems gets no more guesses."""


class Problems:
    """Collects the problems of ``what`` (such as "the catalog"). `check` raises them all at once as ``error``, in the
    order of the files and their lines."""

    def __init__(self, what: str, error: type[MdlError], parse: Callable[[str], dict[str, Any]] = parse_toml) -> None:
        """``parse`` reads the TOML of a file."""
        self._what = what
        self._error = error
        self.parse = parse
        self._files: list[TomlText] = []
        self._guesses = _GUESSES

    def file(self, path: Path | str, text: str = "", *, is_of_others: bool = False) -> TomlText:
        """The next file; ``is_of_others`` if somebody else wrote it."""
        self._files.append(TomlText(path, text, self, is_of_others=is_of_others))
        return self._files[-1]

    def guess(self, word: str, known: Collection[str]) -> str:
        """The one of ``known`` that ``word`` is probably meant to be, or ''."""
        self._guesses -= len(known)
        if self._guesses < 0 or len(word) > _LONGEST_GUESS:
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
            lines = [words for _, words in sorted(file.found, key=itemgetter(0))]
            if file.is_of_others:
                others += lines
            else:
                own += lines
        count = len(own) + len(others)
        if not count:
            return
        told = [*own[:_MOST_OWN], *others[:_MOST_OF_OTHERS]]
        if count > 1:
            told.insert(0, f"{count} mistakes in {self._what}:")
        if left := count - len(own[:_MOST_OWN]) - len(others[:_MOST_OF_OTHERS]):
            told.append(f"and {left} more")
        raise self._error("\n".join(told))


class TomlText:
    """One file being read: where its keys stand, and how its problems are told."""

    def __init__(self, path: Path | str, text: str, problems: Problems, *, is_of_others: bool = False) -> None:
        self.is_of_others = is_of_others
        self.text = text
        self.problems = problems
        self.name = shown(str(path))
        self.found: list[tuple[int, str]] = []
        """What is wrong with it, each with its line."""

    @cached_property
    def _lines(self) -> dict[Key, int]:
        from mdl.toml.positions import line_numbers

        return line_numbers(self.text)

    def line(self, where: Key) -> int:
        """The line of ``where``, or of the nearest thing around it."""
        for length in range(len(where), 0, -1):
            if found := self._lines.get(where[:length]):
                return found
        return 1

    def place(self, where: Key) -> str:
        """``catalog.toml:12``"""
        return f"{self.name}:{self.line(where)}"

    def parse(self) -> dict[str, Any] | None:
        """What the text says; None if it is not TOML, and why is noted."""
        source = self.text.removeprefix("\ufeff")
        try:
            return self.problems.parse(source)
        except NumbersTooLarge as error:
            for number in error.numbers:
                self.wrong(number.key, number.words)
        except NestedTooDeeply as error:
            self.broken(str(error))
        except ValueError as error:
            words = str(error)
            at = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", words)
            line = int(at[1]) if at and at[1] else source.count("\n") + 1
            column = f" (column {at[2]})" if at and at[2] else ""
            self.broken(f"not TOML: {shown(words[: at.start() if at else 200])}{column}", line)
        return None

    def wrong(self, where: Key, words: str) -> None:
        """Note a problem at a key."""
        self.found.append((self.line(where), f"{self.place(where)}: {_spelled(where)}: {words}"))

    def broken(self, words: str, line: int = 0) -> None:
        """Note that the file as a whole, or from a line on, cannot be read."""
        at = f":{line}" if line else ""
        self.found.append((line, f"{self.name}{at}: {words}"))


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

    def allow(self, *known: str) -> None:
        """Note every key that is neither ``known`` nor the user's own (``x-…``)."""
        for key in self.data:
            if key not in known and not key.startswith("x-"):
                guess = self.file.problems.guess(key, known)
                self._misspelt.add(guess)
                self.wrong("unknown key" + did_you_mean(guess), key)

    def lacks(self, *keys: str) -> bool:
        """Whether all of ``keys`` are absent or empty, and none was merely misspelt (which `allow` has noted)."""
        return not any(self.data.get(key) or key in self._misspelt for key in keys)

    def string(self, key: str, default: str = "") -> str:
        """A line of text that is not blank and holds no control character."""
        value = self.data.get(key)
        return default if value is None else self._string(value, key) or default

    def prose(self, key: str) -> str:
        """As `string`, but it may be blank."""
        value = self.data.get(key)
        return "" if isinstance(value, str) and not value.strip() else self.string(key)

    def strings(self, key: str) -> Iterator[tuple[Key, str]]:
        """The texts of a list, each with its key (``("tags", 0)``)."""
        for index, item in enumerate(self._of_kind(list, "a list of texts", key) or ()):
            text = self._string(item, key, index)
            if text:
                yield (key, index), text

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(text for _, text in self.strings(key)) if key in self.data else ()

    def one_or_many(self, key: str) -> Iterator[tuple[Key, str]]:
        """As `strings`, but a single text may stand without a list."""
        if not isinstance(self.data.get(key), str):
            yield from self.strings(key)
        elif text := self.string(key):
            yield (key,), text

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
            if isinstance(value, dict) or not name.startswith("x-"):
                table = self.table(name)
                if table.data is value:
                    yield name, table

    def table(self, key: str) -> Table:
        """A table in this one; an empty one if it is absent or wrong."""
        value = self._of_kind(dict, "a table", key)
        return Table({} if value is None else value, (*self.where, key), self.file)

    def attempt(self, parse: Callable[[str], T], text: str, *key: str | int) -> T | None:
        """``parse(text)``, or None and a problem at ``key`` when it refuses."""
        try:
            return parse(text)
        except MdlError as error:
            self.wrong(one_line(error), *key)
            return None

    def _of_kind(self, kind: type[T], words: str, key: str) -> T | None:
        """The value under ``key`` if it is of this ``kind``, or None and a problem."""
        value = self.data.get(key)
        if value is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
            return value
        self.wrong(f"must be {words}, not {_kind(value)}", key)
        return None

    def _string(self, value: object, *key: str | int) -> str:
        """``value`` if it is a proper text, else a problem and ''."""
        if not isinstance(value, str):
            self.wrong(f"must be text, not {_kind(value)}", *key)
        elif not value.strip():
            self.wrong("is empty", *key)
        elif len(value) > LONGEST_TEXT:
            self.wrong(f"is over {LONGEST_TEXT} characters long", *key)
        elif not value.isprintable() and (harmful := next(filter(is_harmful_in_prose, value), None)):
            self.wrong(f"holds a control or invisible character ({shown(harmful)})", *key)
        else:
            return value
        return ""


def _spelled(where: Key) -> str:
    """A key path as a person would write it: ``models."bert-fa".files[0].url``."""
    text = ""
    for part in where:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_]+", part) or (part.startswith("x-") and part.isascii())
            name = shown(part[:_LONGEST_GUESS])
            text += ("." if text else "") + (name if plain else f'"{name}"')
    return text


def did_you_mean(guess: str) -> str:
    """``"; did you mean …?"``, or nothing for no guess."""
    return f"; did you mean {shown(guess)}?" if guess else ""


def one_line(error: MdlError) -> str:
    """An error's message and hint as one clause of a longer line."""
    return f"{error.message}; {error.hint}" if error.hint else error.message


def _kind(value: object) -> str:
    """What a TOML value is, in words."""
    return _KINDS.get(type(value), "a date or time")
