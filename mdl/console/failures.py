"""Failures: what failed is said once: when it happens, as the error that it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mdl.console.style import Style
from mdl.errors import Problem

if TYPE_CHECKING:  # the module is imported at every start
    from mdl.events import Failed

Clean = Callable[[str], str]
"""Takes secrets out of a text, and escapes what a terminal would obey."""


class Failures:
    """Puts failures into words, and remembers them, so that none is told twice, nor the same hint for each file."""

    def __init__(self, style: Style, clean: Clean) -> None:
        self._style, self._clean = style, clean
        self._told: list[tuple[str, str]] = []
        self._hints: set[str] = set()

    def text(self, event: Failed) -> str:
        """The lines of an error for a file or model that failed."""
        from mdl.describe import item_of

        named = item_of(event)
        item = event.item or named
        self._told += [(_plain(one), event.message) for one in {item, named}]
        hint = None if event.hint in self._hints else event.hint
        self._hints.add(event.hint or "")
        return self.lines(item, event.message, hint)

    def has_told(self, error: Problem) -> bool:
        """The same failure was told already, under whichever name of its item."""
        item, is_url = _plain(error.item or ""), "://" in (error.item or "")
        return any(
            message == error.message and (is_url or item in told or told in item) for told, message in self._told
        )

    def lines(self, item: str | None, message: str, hint: str | None) -> str:
        """``mdl: item: message``, further lines of the message indented, and the hint on a separate line."""
        first, *more = [self._clean(line) for line in message.rstrip("\n").split("\n")]
        named = f"{self._clean(item)}: " if item else ""
        text = self._style.line("mdl:", "error", f" {named}{first}", " " * 5)
        text += "".join(self._style.line("  ", "", line, " " * 4) for line in more)
        if hint:
            text += self._style.line("  hint:", "hint", f" {self._clean(hint)}", " " * 8)
        return text


def _plain(item: str) -> str:
    """``hf:org/name`` as the model is called that it makes: ``org--name``."""
    return item.removeprefix("hf:").replace("/", "--")
