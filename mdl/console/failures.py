"""Failures: what failed is said once, and one reason for which many files of a model failed in one message."""

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
    """Puts failures into words, and remembers them, so that none is told twice, nor the same hint again."""

    def __init__(self, style: Style, clean: Clean) -> None:
        self._style = style
        self._clean = clean
        self._told: list[tuple[str, str]] = []
        self._hints: set[str] = set()
        self._waiting: dict[str, list[Failed]] = {}
        """Of each model the files that failed and were not told yet."""

    def add(self, event: Failed) -> None:
        """Keep the failure of a file until `text_of_files` tells all those of its model."""
        self._waiting.setdefault(event.model, []).append(event)

    @property
    def models_waiting(self) -> list[str]:
        """The models of which files have failed that were not told yet."""
        return list(self._waiting)

    def text_of_files(self, model: str, count: int = 0) -> str:
        """A message for each reason for which files of ``model``, which has ``count`` (0: not known), have failed."""
        from mdl.reports import FailureSummary

        alike: dict[str, list[Failed]] = {}
        for event in self._waiting.pop(model, ()):
            alike.setdefault(event.message, []).append(event)
        texts = []
        for reason, events in alike.items():
            if len(events) == 1:
                texts.append(self.text(events[0]))
                continue
            summary = FailureSummary(model, reason, tuple(event.file for event in events), count)
            for event in events:
                self._remember(event)
            self._told.append((_plain(model), summary.message))
            texts.append(self.lines(model, summary.message, self._new_hint(events[0].hint)))
        return "".join(texts)

    def text(self, event: Failed) -> str:
        """The lines of an error for one file or model that failed."""
        self._remember(event)
        return self.lines(event.item or _named(event), event.message, self._new_hint(event.hint))

    def _remember(self, event: Failed) -> None:
        named = _named(event)
        self._told += [(_plain(item), event.message) for item in {event.item or named, named}]

    def _new_hint(self, hint: str | None) -> str | None:
        """The hint, unless it was given before."""
        is_old = hint in self._hints
        self._hints.add(hint or "")
        return None if is_old else hint

    def has_told(self, error: Problem) -> bool:
        """The same failure was told already, under whichever name of its item."""
        item = _plain(error.item or "")
        is_url = "://" in (error.item or "")
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


def _named(event: Failed) -> str:
    from mdl.describe import item_of

    return item_of(event)


def _plain(item: str) -> str:
    """``hf:org/name`` as the model is called that it makes: ``org--name``."""
    return item.removeprefix("hf:").replace("/", "--")
