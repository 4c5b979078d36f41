"""Messages: how lines on stderr look, and those of errors, of which each failure is said once, and each hint once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mdl.console.streams import NonBlockingStream
from mdl.errors import Problem

if TYPE_CHECKING:  # this module is imported at every start
    from mdl.console.remarks import Remark

Clean = Callable[[str], str]
"""Takes secrets out of a text, and escapes what a terminal would obey."""
_CODES = {
    "started": "36",
    "good": "32",
    "bad": "31",
    "note": "33",
    "summary": "1",
    "hint": "36",
    "error": "1;31",
    "warning": "1;33",
    "debug": "90",
}
"""The colour of the head of a line, by its look."""


class Messages:
    """Makes lines for ``stream``: coloured and broken between words on a terminal, plain elsewhere. It remembers which
    failures and hints were said."""

    def __init__(self, stream: NonBlockingStream, clean: Clean) -> None:
        self._stream = stream
        self._clean = clean
        self._said: dict[str, set[str]] = {}
        """Items, by message."""
        self._hints: set[str] = set()

    def line(self, head: str, look: str, text: str, indent: str = "  ") -> str:
        """A whole line: ``head`` in its look, if it has one, then ``text``. A terminal gets it broken between words,
        with ``indent`` before what follows."""
        lines = [head + text]
        if self._stream.is_terminal:
            from mdl.formatting import wrap

            lines = wrap(head + text, self._stream.size[0] - 1, indent)
        if look and self._stream.has_colors and lines[0].startswith(head):
            lines[0] = f"\x1b[{_CODES[look]}m{head}\x1b[0m{lines[0][len(head) :]}"
        return "\n".join(lines) + "\n"

    def failure(self, remark: Remark) -> str:
        """The lines of a ``failure``. Its hint is left out if it was said before."""
        for failure in remark.failures:
            named = "/".join(part for part in (failure.model, failure.file) if part)
            self._remember(named, failure.message)
            self._remember(failure.item or named, failure.message)
        self._remember(remark.item, remark.text)
        hint = None if remark.hint in self._hints else remark.hint
        self._hints.add(remark.hint or "")
        return self.error(remark.item, remark.text, hint)

    def has_said(self, error: Problem) -> bool:
        """Whether the same failure was said already, under whichever name of its item."""
        named = error.item or ""
        item = _canonical(named)
        said_items = self._said.get(error.message, set())
        if "://" in named or item in said_items:
            return bool(said_items)
        return any(item in said_item or said_item in item for said_item in said_items)

    def error(self, item: str | None, message: str, hint: str | None) -> str:
        """``mdl: item: message``, further lines of the message indented, and the hint on a separate line."""
        first, *more = [self._clean(line) for line in message.rstrip("\n").split("\n")]
        named = f"{self._clean(item)}: " if item else ""
        text = self.line("mdl:", "error", f" {named}{first}", " " * 5)
        for line in more:
            text += self.line("  ", "", line, " " * 4)
        if hint:
            text += self.line("  hint:", "hint", f" {self._clean(hint)}", " " * 8)
        return text

    def _remember(self, item: str, message: str) -> None:
        self._said.setdefault(message, set()).add(_canonical(item))


def _canonical(item: str) -> str:
    """``org--name`` for every spelling of a model: ``hf:org/name``, ``org/name``."""
    return item.removeprefix("hf:").replace("/", "--")
