"""Error lines: each failure is said once, and each hint once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mdl.console.style import Style
from mdl.errors import Problem

if TYPE_CHECKING:  # this module is imported at every start
    from mdl.console.state import Remark

Clean = Callable[[str], str]
"""Takes secrets out of a text, and escapes what a terminal would obey."""


class ErrorLines:
    """Makes the lines of errors, and remembers which failures and hints were said."""

    def __init__(self, style: Style, clean: Clean) -> None:
        self._style = style
        self._clean = clean
        self._said: list[tuple[str, str]] = []
        """Items and messages."""
        self._hints: set[str] = set()

    def of_remark(self, remark: Remark) -> str:
        """The lines of a ``failure``. Its hint is left out if it was said before."""
        for failure in remark.failures:
            named = "/".join(part for part in (failure.model, failure.file) if part)
            self._remember(named, failure.message)
            self._remember(failure.item or named, failure.message)
        self._remember(remark.item, remark.text)
        hint = None if remark.hint in self._hints else remark.hint
        self._hints.add(remark.hint or "")
        return self.lines(remark.item, remark.text, hint)

    def has_said(self, error: Problem) -> bool:
        """Whether the same failure was said already, under whichever name of its item."""
        item = _canonical(error.item or "")
        is_url = "://" in (error.item or "")
        for said_item, said_message in self._said:
            if said_message == error.message and (is_url or item in said_item or said_item in item):
                return True
        return False

    def lines(self, item: str | None, message: str, hint: str | None) -> str:
        """``mdl: item: message``, further lines of the message indented, and the hint on a separate line."""
        first, *more = [self._clean(line) for line in message.rstrip("\n").split("\n")]
        named = f"{self._clean(item)}: " if item else ""
        text = self._style.line("mdl:", "error", f" {named}{first}", " " * 5)
        for line in more:
            text += self._style.line("  ", "", line, " " * 4)
        if hint:
            text += self._style.line("  hint:", "hint", f" {self._clean(hint)}", " " * 8)
        return text

    def _remember(self, item: str, message: str) -> None:
        self._said.append((_canonical(item), message))


def _canonical(item: str) -> str:
    """``org--name`` for every spelling of a model: ``hf:org/name``, ``org/name``."""
    return item.removeprefix("hf:").replace("/", "--")
