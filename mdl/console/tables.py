"""Tables for a terminal, drawn by Rich. Imported only when a table is drawn on one."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from mdl.console.streams import NonBlockingStream
from mdl.console.terminal import Shortened, terminal_console
from mdl.formatting import cells, is_number, wrap

_GAP = 2
_LEAST = 10
_LEAST_OF_WIDE = 26
_WIDE = 40
"""A column is cut to no fewer cells than this, and to no fewer than 26 if it was a wide one."""
_LEAST_FOLDED = 12
"""A column goes on in the next line in no fewer cells than this."""
_INDENT = "  "
_STYLES = {
    **dict.fromkeys(("present", "ok", "done", "fetched", "kept", "linked"), "green"),
    **dict.fromkeys(("partial", "unverified", "changed", "paused", "stalled", "cancelled", "would delete"), "yellow"),
    **dict.fromkeys(("corrupt", "failed", "dead", "gone"), "red"),
    "running": "cyan",
    "missing": "dim",
}
"""The looks of statuses, by their first word or by all of them."""


def drawn_table(
    stream: NonBlockingStream,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    cut: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    below: str = "",
) -> str:
    """A table for the terminal ``stream``.

    With ``cut`` each row stays one line: the columns ``cut`` are cut, the widest first, and if that is not enough those
    of ``drop`` are left out in that order. The others are never cut. Without it no letter is lost: the widest column
    goes on in the next line. If the table is too wide, the text of the column ``below`` stands under each row instead.
    """
    body = [[*row, *[""] * (len(headers) - len(row))] for row in rows]
    widths = {name: max(cells(name), *(cells(row[at]) for row in body), 0) for at, name in enumerate(headers)}
    least = dict(widths)
    """The fewest cells of each column that is shown."""
    folded = ""
    texts_below: list[str] = []
    if cut is not None:
        for name in cut:
            least[name] = _LEAST_OF_WIDE if widths[name] >= _WIDE else min(widths[name], _LEAST)
        for name in drop:
            if _needed(least) > stream.size[0]:
                del least[name]
    elif below and _needed(widths) > stream.size[0]:
        texts_below = [row[headers.index(below)] for row in body]
        del least[below]
    elif widths:
        folded = max(widths, key=widths.__getitem__)
        least[folded] = min(widths[folded], _LEAST_FOLDED)
    columns = [at for at, name in enumerate(headers) if name in least]
    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for at in columns:
        is_right = bool(body) and all(is_number(row[at]) for row in body)
        is_whole = headers[at] != folded and headers[at] not in (cut or ())
        table.add_column(Text(headers[at]), justify="right" if is_right else "left", no_wrap=is_whole, overflow="fold")
    for row in body:
        table.add_row(*(_cell(headers[at], row[at], is_cut=headers[at] in (cut or ())) for at in columns))
    lines = _lines(stream, table, _needed(least))
    if not texts_below:
        return "".join(lines)
    head, *row_lines = lines
    text = head
    for line, below_it in zip(row_lines, texts_below, strict=True):
        text += line
        if below_it not in ("", "-"):
            text += "".join(f"{part}\n" for part in wrap(_INDENT + below_it, stream.size[0] - 1, _INDENT))
    return text


def _needed(widths: dict[str, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def _lines(stream: NonBlockingStream, table: Table, least: int) -> list[str]:
    """The table as lines, in ``least`` columns if the terminal is narrower: it breaks them itself."""
    file = io.StringIO()
    console = terminal_console(stream, file)
    console.width = max(console.width, least)
    console.print(table)
    return [f"{line.rstrip()}\n" for line in file.getvalue().splitlines()]


def _cell(header: str, text: str, *, is_cut: bool) -> Text | Shortened:
    if is_cut and text.startswith("/"):
        return Shortened(text)  # the end of a path tells the most
    style = _STYLES.get(text) or _STYLES.get(text.partition(" ")[0], "")
    cell = Text(text, style if header in ("STATUS", "ACTION") else "")
    if is_cut:
        cell.no_wrap = True
        cell.overflow = "ellipsis"
    return cell
