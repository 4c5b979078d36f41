"""Help text: a page as a terminal shows it. Nothing breaks inside a word or an example."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence

from mdl.cli.pages import OPTIONS, Page, Row
from mdl.console.streams import NonBlockingStream

_WIDEST, _NARROWEST = 100, 40
_COLUMN = 24
"""The widest column of usages; a wider usage has a line of its own."""
_WHOLE = re.compile(r"\[default: [^]]*\]|(?<!\w)'[^']*'")
"""What is not broken into two lines although it has spaces."""
_BOLD, _CYAN = "1", "36"


def help_text(page: Page, *, color: bool = True) -> str:
    """The page for the terminal that stdout is, or for whatever else it is."""
    stream = NonBlockingStream(sys.stdout, os.environ, color=color)
    return text_of(page, stream.size[0], is_colored=stream.has_colors)


def text_of(page: Page, width: int, *, is_colored: bool = False) -> str:
    """The page in ``width`` columns. That of ``mdl`` itself is longer than a small terminal, which shows its end:
    there the usage stands below the commands, with the examples."""
    layout = _Layout(max(_NARROWEST, min(width, _WIDEST)), is_colored)
    usage = layout.usage(page.usage)
    about = "\n\n".join(layout.wrapped(text) for text in page.about) + "\n"
    column = _column(row for title, rows in page.panels.items() if title != OPTIONS for row in rows)
    blocks = [layout.block(title, rows, column if title != OPTIONS else 0) for title, rows in page.panels.items()]
    blocks = [about, *blocks, usage] if page.learn_more else [usage, about, *blocks]
    blocks += [layout.examples(page.examples)] if page.examples else []
    blocks += [layout.block("Learn more", page.learn_more)] if page.learn_more else []
    return "\n".join(filter(None, blocks))


def _column(rows: Iterable[Row]) -> int:
    """Where what a row says begins, if it is to be one column for all ``rows``; a wider usage has its own line."""
    return 4 + max((len(row.usage) for row in rows if len(row.usage) <= _COLUMN), default=_COLUMN)


class _Layout:
    """How a text is broken into lines, and what of it is bold or coloured."""

    def __init__(self, width: int, is_colored: bool) -> None:
        self._width, self._is_colored = width, is_colored

    def wrapped(self, text: str, indent: str = "", first: str | None = None) -> str:
        """``text`` in lines of at most the width, broken between words."""
        lines = textwrap.fill(
            _WHOLE.sub(lambda found: found[0].replace(" ", "\0"), text),
            self._width,
            initial_indent=indent if first is None else first,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return lines.replace("\0", " ")

    def usage(self, usage: str) -> str:
        """The line that says how a command is called."""
        if not usage:
            return ""
        head = "Usage: "
        text = self.wrapped(usage, " " * len(head), head)
        return f"{self._painted(head.rstrip(), _BOLD)} {text[len(head) :]}\n"

    def block(self, title: str, rows: Sequence[Row], column: int = 0) -> str:
        """A heading, and below it a line or more for each row."""
        column = column or _column(rows)
        lines = [self._painted(f"{title}:", _BOLD)]
        for row in rows:
            left, about = f"  {self._painted(row.usage, _CYAN)}", self.wrapped(row.about, " " * column)
            if not row.about:
                lines.append(left)
            elif len(row.usage) + 4 > column:
                lines += [left, about]
            else:
                lines.append(left + about[len(row.usage) + 2 :])
        return "\n".join(lines) + "\n"

    def examples(self, rows: Sequence[Row]) -> str:
        """The examples, one a line. What they do stands in one column if all of it fits."""
        column = max(len(row.usage) for row in rows)
        is_aligned = column + max(len(row.about) for row in rows) + 6 <= self._width
        lines = [self._painted("Examples:", _BOLD)]
        for row in rows:
            gap = " " * (column - len(row.usage) if is_aligned else 0)
            lines.append(f"  {self._painted(row.usage, _CYAN)}{gap}  # {row.about}")
        return "\n".join(lines) + "\n"

    def _painted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._is_colored else text
