"""Mistakes: everything that is wrong with the catalogs of one run, each with its file, line and key, raised as one."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from mdl.catalog.lines import Key, line_numbers
from mdl.errors import CatalogError, MdlError
from mdl.paths import shown

_LONGEST_GUESS = 80
_GUESSES = 500_000
"""Names compared for "did you mean" in one run; a catalog with countless mistakes gets no more guesses."""


class Mistakes:
    """Collects mistakes. `check` raises them all at once, in the order of the files and their lines."""

    def __init__(self) -> None:
        self._found: list[tuple[int, int, str]] = []
        self._guesses = _GUESSES
        self._files = 0

    def file(self, path: Path, text: str = "") -> CatalogText:
        """The next catalog file."""
        self._files += 1
        return CatalogText(path, text, self, self._files)

    def add(self, file: int, line: int, words: str) -> None:
        self._found.append((file, line, words))

    def guess(self, word: str, known: Collection[str]) -> str:
        """The one of ``known`` that ``word`` is probably meant to be, or ''."""
        self._guesses -= len(known)
        if self._guesses < 0 or len(word) > _LONGEST_GUESS:
            return ""
        folded = {name.casefold(): name for name in known}
        near = get_close_matches(word.casefold(), folded, 1, 0.6)
        return folded[near[0]] if near else ""

    def check(self) -> None:
        """Raises `CatalogError` if there are any mistakes."""
        lines = [words for _, _, words in sorted(self._found, key=lambda found: found[:2])]
        if lines:
            head = [f"{len(lines)} mistakes in the catalog:"] if len(lines) > 1 else []
            raise CatalogError("\n".join([*head, *lines]))


class CatalogText:
    """One catalog file being read: where its keys stand, and how its mistakes are told."""

    def __init__(self, path: Path, text: str, mistakes: Mistakes, number: int) -> None:
        self.text = text
        self._name = shown(str(path))
        self.mistakes = mistakes
        self._number = number

    @cached_property
    def _lines(self) -> dict[Key, int]:
        return line_numbers(self.text)

    def line(self, where: Key) -> int:
        """The line of ``where``, or of the nearest thing around it."""
        for length in range(len(where), 0, -1):
            if found := self._lines.get(where[:length]):
                return found
        return 1

    def place(self, where: Key) -> str:
        """``catalog.toml:12``"""
        return f"{self._name}:{self.line(where)}"

    def wrong(self, where: Key, words: str) -> None:
        """Note a mistake at a key."""
        self.mistakes.add(self._number, self.line(where), f"{self.place(where)}: {spelled(where)}: {words}")

    def broken(self, words: str, line: int = 0) -> None:
        """Note that the file as a whole, or from a line on, cannot be read."""
        at = f":{line}" if line else ""
        self.mistakes.add(self._number, line, f"{self._name}{at}: {words}")


def spelled(where: Key) -> str:
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


def words_of(error: MdlError) -> str:
    """An error's message and hint as one clause of a longer line."""
    return f"{error.message}; {error.hint}" if error.hint else error.message
