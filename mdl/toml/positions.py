"""Line numbers: where each table and key of a TOML text stands, which tomllib does not tell. Pure.

A light scanner, to be run on text that tomllib has accepted; on other text it may miss keys, but never fails.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Iterator

Key = tuple[str | int, ...]
"""A key's full path; an ``int`` is the index in an array of tables."""

_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]++|\\.)*+"|'[^'\n]*+')"""
_DOTTED = rf"{_PART}(?:[ \t]*+\.[ \t]*+{_PART})*+"
_SPACE = re.compile(r"(?:[ \t\r\n]++|\#[^\n]*+)*+")
_HEADER = re.compile(rf"(\[\[?)[ \t]*+({_DOTTED})[ \t]*+\]")
_PAIR = re.compile(rf"({_DOTTED})[ \t]*+=[ \t]*+")
_PARTS = re.compile(_PART)
_REST = re.compile(r"[^\n]*+")
_VALUE = r"""(?:"[^"\\\n]*+"|'[^'\n]*+'|[^\s"'\[\]{}\#]++)"""
_ONE_LINE = re.compile(rf"{_VALUE}[ \t\r]*+(?:\#[^\n]*+)?(?=\n|\Z)")
_PLAIN = re.compile(rf"([A-Za-z0-9_-]++)[ \t]*+=[ \t]*+{_ONE_LINE.pattern}")
_TOKEN = re.compile(
    r'''
      """(?:[^"\\]++|\\.|"(?!""))*+"{0,5}
    | \'\'\'(?:[^']++|'(?!\'\'))*+'{0,5}
    | "(?:[^"\\\n]++|\\.)*+"?
    | '[^'\n]*+'?
    | \#[^\n]*+
    | (?P<open>[\[{])
    | (?P<close>[\]}])
    | (?P<end>\n)
    | [^"'\#\[\]{}\n]++
    ''',
    re.VERBOSE | re.DOTALL,
)


Span = tuple[Key, int, int]
"""A part of a text: the key that it belongs to (() for none), and where it begins and stops, in characters."""


def line_numbers(text: str) -> dict[Key, int]:
    """The line, counted from 1, of every table header and key in ``text``, by full key path.

    Arrays of tables carry their index: ``("models", "x", "files", 0, "url")``. What stands inside an inline
    table or an array is not listed; its outer key is.
    """
    lines: dict[Key, int] = {}
    line = 1
    counted = 0
    for path, known, at, _ in _walk(text):
        line += text.count("\n", counted, at)
        counted = at
        for depth in range(known + 1, len(path)):  # its parents, unless they are in the text themselves
            lines.setdefault(path[:depth], line)
        lines[path] = line
    return lines


def spans(text: str) -> list[Span]:
    """Every table header and key with where it begins and where its last line ends, sorted."""
    return [(path, start, stop) for path, _, start, stop in _walk(text)]


def unquoted(text: str) -> list[Span]:
    """Where ``text`` is neither in quotes nor a comment, sorted."""
    parts: list[Span] = []
    for token in _TOKEN.finditer(text):
        if token[0][0] not in "\"'#":
            parts.append(((), *token.span()))
    return parts


def _walk(text: str) -> Iterator[tuple[Key, int, int, int]]:
    """Every header and key: its path, how many parts of it are known already, where it begins and ends."""
    last: dict[Key, int] = {}
    table: Key = ()
    at = _end(_SPACE, text, 0)
    while at < len(text):
        start = at
        if plain := _PLAIN.match(text, at):
            at = plain.end()
            yield (*table, plain[1]), len(table), start, at
        elif header := _HEADER.match(text, at):
            table = _table(_names(header[2]), header[1] == "[[", last)
            at = _end(_REST, text, header.end())
            yield table, 0, start, at
        elif pair := _PAIR.match(text, at):
            at = _skip_value(text, pair.end())
            yield (*table, *_names(pair[1])), len(table), start, at
        else:
            at = _end(_REST, text, at)
        at = _end(_SPACE, text, at)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _names(dotted: str) -> list[str]:
    """The parts of a dotted key, unquoted."""
    if dotted.isidentifier():
        return [dotted]
    names = []
    for part in _PARTS.findall(dotted):
        name = part
        if part[0] in "\"'":
            name = part[1:-1]
        if part[0] == '"' and "\\" in part:
            with contextlib.suppress(tomllib.TOMLDecodeError):
                [name] = tomllib.loads(part + "=0")
        names.append(name)
    return names


def _table(names: list[str], is_array: bool, last: dict[Key, int]) -> Key:
    """The full path of a header; ``last`` remembers the newest index of each array of tables."""
    path: Key = ()
    for depth, name in enumerate(names, 1):
        path = (*path, name)
        if is_array and depth == len(names):
            last[path] = last.get(path, -1) + 1
        if path in last:
            path = (*path, last[path])
    return path


def _skip_value(text: str, at: int) -> int:
    """Where the value that begins at ``at`` ends: the end of its last line."""
    simple = _ONE_LINE.match(text, at)
    if simple:
        return simple.end()
    depth = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return at
        at = token.end()
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
        elif token["end"] and depth <= 0:
            return at - 1
    return at
