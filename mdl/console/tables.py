"""Tables for a terminal: as wide as it is, in its colours. Imported only when a table is drawn on one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from mdl.console.streams import NonBlockingStream
from mdl.formatting import cells, clip, folded, is_number, pad, shorten, wrap

_LEAST, _LEAST_OF_WIDE, _WIDE = 10, 26, 40
"""A column is cut to no fewer cells than this, and to no fewer than 26 if it was a wide one."""
_ROOM = 12
"""The widest column gets this much before the gaps between all columns become narrower."""
_BOLD, _GREEN, _YELLOW, _RED, _CYAN, _DIM = "1", "32", "33", "31", "36", "2"
_INDENT = "  "
_COLORS = {
    **dict.fromkeys(("present", "ok", "done", "fetched", "kept", "linked"), _GREEN),
    **dict.fromkeys(("partial", "unverified", "changed", "paused", "stalled", "cancelled", "would delete"), _YELLOW),
    **dict.fromkeys(("corrupt", "failed", "dead", "gone"), _RED),
    "running": _CYAN,
    "missing": _DIM,
}
"""The colours of statuses, by their first word or by all of them."""


def drawn_table(
    stream: NonBlockingStream,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    cut: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    below: str = "",
) -> str:
    """A table for the terminal ``stream``.

    With ``cut`` each row stays one line: the columns ``cut`` are cut in this order, and if that is not enough those of
    ``drop`` are left out in that order. The others are never cut. Without it no letter is lost: the widest column goes
    on in the next line. If the table is too wide, the text of the column ``below`` stands under each row instead.
    """
    width = stream.size[0]
    body = [[*row, *[""] * (len(headers) - len(row))] for row in rows]
    widths = {name: max(cells(name), *(cells(row[at]) for row in body), 0) for at, name in enumerate(headers)}
    gap = 2
    under = -1
    if below and sum(widths.values()) + gap * (len(widths) - 1) > width:
        under = headers.index(below)
        del widths[below]
    if cut is not None:
        widths = _fitted(widths, width, gap, cut, drop)
    else:
        widest = max(widths, key=widths.__getitem__, default="")
        left = width - sum(widths.values()) + widths.get(widest, 0)
        gap = 2 if left - 2 * len(widths) >= min(widths.get(widest, 0), 2 * _ROOM) else 1
        widths[widest] = min(widths[widest], max(_ROOM, left - gap * (len(widths) - 1)))
    columns = [at for at, name in enumerate(headers) if name in widths]
    right = {at for at in columns if body and all(is_number(row[at]) for row in body)}

    def line(texts: Sequence[str], code: str = "") -> str:
        shown = []
        for at, text in zip(columns, texts, strict=True):
            padded = pad(text, widths[headers[at]], right=at in right)
            color = code or (_color(text) if headers[at] in ("STATUS", "ACTION") else "")
            if text and color and stream.has_colors:
                padded = padded.replace(text, f"\x1b[{color}m{text}\x1b[0m", 1)
            shown.append(padded)
        return (" " * gap).join(shown).rstrip() + "\n"

    lines = [line([headers[at] for at in columns], _BOLD)]
    for row in body:
        texts = [row[at] for at in columns]
        if cut is not None:
            lines.append(line([_clipped(text, widths[headers[at]]) for at, text in zip(columns, texts, strict=True)]))
        else:
            parts = [folded(text, widths[headers[at]]) for at, text in zip(columns, texts, strict=True)]
            lines += [line(texts) for texts in zip_longest(*parts, fillvalue="")]
        if under >= 0 and row[under] not in ("", "-"):
            lines += [f"{one}\n" for one in wrap(_INDENT + row[under], width - 1, _INDENT)]
    return "".join(lines)


def _fitted(widths: dict[str, int], width: int, gap: int, cut: Sequence[str], drop: Sequence[str]) -> dict[str, int]:
    """The widths of the columns that are left, and fit if they can."""
    found = dict(widths)

    def over() -> int:
        return sum(found.values()) + gap * (len(found) - 1) - width

    for name in cut:
        least = _LEAST_OF_WIDE if found[name] >= _WIDE else min(found[name], _LEAST)
        found[name] = max(least, found[name] - max(0, over()))
    for name in drop:
        if over() > 0:
            del found[name]
    for name in reversed(cut):  # what was left out may have given more room than was needed
        if name in found:
            found[name] = min(widths[name], found[name] + max(0, -over()))
    return found


def _clipped(text: str, width: int) -> str:
    """A text that has room; of a path its end stays, which tells the most."""
    return shorten(text, width) if text.startswith("/") else clip(text, width)


def _color(text: str) -> str:
    return _COLORS.get(text) or _COLORS.get(text.partition(" ")[0], "")
