"""Table: a table of a TOML file as checked values. Pure.

A table of keys says of each key how its value is read; `Table.read` goes through it, and notes what is wrong with the
file, the line and the key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from mdl.bounds import LARGEST_NUMBER, LONGEST_TEXT
from mdl.errors import MdlError
from mdl.paths import is_harmful_in_prose, shown
from mdl.toml.problems import TomlText, did_you_mean, one_line

if TYPE_CHECKING:
    from mdl.toml.positions import Key

S = TypeVar("S")
T = TypeVar("T")
_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a table"}


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
