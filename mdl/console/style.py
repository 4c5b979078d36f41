"""Style: how text looks on one stream: its colours, and how lines that are too long are broken. Elsewhere than on a
terminal text stays as it is."""

from __future__ import annotations

from mdl.console.streams import NonBlockingStream

Line = list[tuple[str, str]]
"""Pieces of text, each with its look: a key of `_CODES`, or nothing."""
_CODES = {"bar": "36", "checking": "35", "total": "32", "rest": "90", "label": "1"}
_CODES |= {"good": "32", "bad": "31", "error": "1;31", "warning": "1;33", "note": "33", "hint": "36"}


class Style:
    """The looks that ``stream`` can show."""

    def __init__(self, stream: NonBlockingStream) -> None:
        self._stream = stream

    def paint(self, line: Line) -> str:
        """The line with its colours, if there are any."""
        painted = ""
        for text, look in line:
            if look and text and self._stream.has_colors:
                text = f"\x1b[{_CODES[look]}m{text}\x1b[0m"
            painted += text
        return painted

    def line(self, head: str, look: str, text: str, indent: str = "  ") -> str:
        """A whole line: ``head`` in its look, then ``text``. A terminal gets it broken between words, with ``indent``
        before what follows."""
        first, *more = self._lines(head + text, indent)
        if first.startswith(head):
            first = self.paint([(head, look), (first[len(head) :], "")])
        return "\n".join([first, *more, ""])

    def _lines(self, text: str, indent: str) -> list[str]:
        if not self._stream.is_terminal:
            return [text]
        from mdl.formatting import wrap

        return wrap(text, self._stream.size[0] - 1, indent)
