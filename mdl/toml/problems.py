"""Problems: what is wrong with TOML that people write, each with its file, line and key, raised as one error. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdl.bounds import LONGEST_SHOWN_NAME, MOST_LISTED
from mdl.errors import MdlError
from mdl.paths import shown
from mdl.toml import TomlError, parse_toml

if TYPE_CHECKING:
    from mdl.toml.positions import Key

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
