"""Table: one TOML table being read strictly. What is wrong is noted, and reading goes on."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from mdl.catalog.lines import Key
from mdl.catalog.mistakes import CatalogText, did_you_mean, words_of
from mdl.errors import MdlError
from mdl.paths import is_harmful_in_prose, shown

T = TypeVar("T")
_LONGEST_TEXT = 2**16
_LARGEST = 2**63 - 1


class Table:
    """A table of a catalog: its keys as checked values, None or empty where a key is absent or wrong."""

    def __init__(self, data: dict[str, Any], where: Key, text: CatalogText) -> None:
        self.data = data
        self.where = where
        self.file = text
        self._misspelt: set[str] = set()

    def wrong(self, words: str, *key: str | int) -> None:
        """Note a mistake in this table or at a key of it."""
        self.file.wrong((*self.where, *key), words)

    def allow(self, *known: str) -> None:
        """Note every key that is neither ``known`` nor the user's own (``x-…``)."""
        for key in self.data:
            if key not in known and not key.startswith("x-"):
                guess = self.file.mistakes.guess(key, known)
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
        value = self.data.get(key, [])
        if not isinstance(value, list):
            self.wrong(f"must be a list of texts, not {_kind(value)}", key)
            return
        for index, item in enumerate(value):
            text = self._string(item, key, index)
            if text:
                yield (key, index), text

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(text for _, text in self.strings(key))

    def one_or_many(self, key: str) -> Iterator[tuple[Key, str]]:
        """As `strings`, but a single text may stand without a list."""
        if not isinstance(self.data.get(key), str):
            yield from self.strings(key)
        elif text := self.string(key):
            yield (key,), text

    def size(self, key: str) -> int | None:
        """A count of bytes."""
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self.wrong(f"must be a whole number of bytes, not {_kind(value)}", key)
        elif not 0 <= value <= _LARGEST:
            self.wrong("is not a possible number of bytes", key)
        else:
            return value
        return None

    def tables(self, key: str) -> Iterator[Table]:
        """The tables of an array of tables."""
        value = self.data.get(key, [])
        if not isinstance(value, list):
            self.wrong(f"must be a list of tables ([[…{key}]]), not {_kind(value)}", key)
            return
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield Table(item, (*self.where, key, index), self.file)
            else:
                self.wrong(f"must be a table, not {_kind(item)}", key, index)

    def table(self, key: str) -> Table:
        """A table in this one; an empty one where it is absent or wrong."""
        value = self.data.get(key, {})
        if not isinstance(value, dict):
            self.wrong(f"must be a table, not {_kind(value)}", key)
            value = {}
        return Table(value, (*self.where, key), self.file)

    def attempt(self, parse: Callable[[str], T], text: str, *key: str | int) -> T | None:
        """``parse(text)``, or None and a mistake at ``key`` when it refuses."""
        try:
            return parse(text)
        except MdlError as error:
            self.wrong(words_of(error), *key)
            return None

    def _string(self, value: object, *key: str | int) -> str:
        """``value`` if it is a proper text, else a mistake and ''."""
        if not isinstance(value, str):
            self.wrong(f"must be text, not {_kind(value)}", *key)
        elif not value.strip():
            self.wrong("is empty", *key)
        elif len(value) > _LONGEST_TEXT:
            self.wrong(f"is over {_LONGEST_TEXT} characters long", *key)
        elif not value.isprintable() and (harmful := next(filter(is_harmful_in_prose, value), None)):
            self.wrong(f"holds a control or invisible character ({shown(harmful)})", *key)
        else:
            return value
        return ""


def _kind(value: object) -> str:
    """What a TOML value is, in words."""
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "text"),
        (list, "a list"),
        (dict, "a table"),
        ((datetime.date, datetime.time), "a date or time"),
    )
    return next(words for kind, words in kinds if isinstance(value, kind))
