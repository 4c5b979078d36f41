"""Line numbers: where each table and key of a TOML text stands."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import each

from mdl.toml.positions import Key, line_numbers

TEXT = '''\
# a comment with [brackets] = and "quotes
schema = 1

[models."bert-fa"]        # after a header
title = "a # no comment"  # a comment
tags = [
    "x = 1",   # [y]
    "[z]",
]
note = """
key = "not a key"
[nor.a.table] \\""" still inside
"""
'literal key' = 'C:\\'
"quoted \\u00e9" = 2
inline = { a = 1, b = "}" }
dotted . key = 3
when = 1979-05-27 07:32:00

[[models.z.files]]
url = "u"
[[models.z.files]]
    url = \'\'\'
[x]
\'\'\'
path = "p"
[models.z.files.extra]
k = """a""""
last = [[1, 2], [3]]
[groups]
g = ["a"]'''

EXPECTED: dict[Key, int] = {
    ("schema",): 2,
    ("models",): 4,
    ("models", "bert-fa"): 4,
    ("models", "bert-fa", "title"): 5,
    ("models", "bert-fa", "tags"): 6,
    ("models", "bert-fa", "note"): 10,
    ("models", "bert-fa", "literal key"): 14,
    ("models", "bert-fa", "quoted é"): 15,
    ("models", "bert-fa", "inline"): 16,
    ("models", "bert-fa", "dotted"): 17,
    ("models", "bert-fa", "dotted", "key"): 17,
    ("models", "bert-fa", "when"): 18,
    ("models", "z"): 20,
    ("models", "z", "files"): 20,
    ("models", "z", "files", 0): 20,
    ("models", "z", "files", 0, "url"): 21,
    ("models", "z", "files", 1): 22,
    ("models", "z", "files", 1, "url"): 23,
    ("models", "z", "files", 1, "path"): 26,
    ("models", "z", "files", 1, "extra"): 27,
    ("models", "z", "files", 1, "extra", "k"): 28,
    ("models", "z", "files", 1, "extra", "last"): 29,
    ("groups",): 30,
    ("groups", "g"): 31,
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_key_has_its_line(newline: str) -> None:
    """Headers and keys of every form are found at their line, and nothing inside a value is."""
    text = TEXT.replace("\n", newline)
    tomllib.loads(text)
    assert line_numbers(text) == EXPECTED
    assert line_numbers("") == line_numbers(f"{newline}{newline}# x = 1{newline}") == {}


@each("text", ['a = """', "[", "[[a]", "= 1", 'a = [ "', "a", '"', "]\n[b]\nc=1", "a = '''x\n"])
def test_broken_text_does_not_fail(text: str) -> None:
    """On text that is no TOML the scanner ends, and what it says are lines of the text."""
    assert all(1 <= line <= text.count("\n") + 1 for line in line_numbers(text).values())


def _leaves(value: Any, path: Key = ()) -> set[Key]:
    """Every table, array of tables and key of parsed TOML."""
    if isinstance(value, dict):
        return {path} | {leaf for key, item in value.items() for leaf in _leaves(item, (*path, key))}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {path} | {leaf for index, item in enumerate(value) for leaf in _leaves(item, (*path, index))}
    return {path}


_NAMES = st.sampled_from(["a", "b", "-1", '"a b"', "'c.d'", '"\\t"', '"x\\"y"', "é".join(['"', '"'])])
_TEXTS = ('[\n"]", # ]\n"["\n]', '"""m\nx = 1\n"""', "'''\n[t]\n'''", '""""q"""')
_VALUES = st.sampled_from(["1", '"s"', "'l'", '"#"', '"\\""', "[1, 2]", *_TEXTS])
_PAIRS = st.tuples(st.lists(_NAMES, min_size=1, max_size=2).map(".".join), _VALUES).map(" = ".join)
_HEADERS = st.lists(_NAMES, min_size=1, max_size=3).map(".".join)
_LINES = _PAIRS | _HEADERS.map(lambda name: f"[{name}]") | _HEADERS.map(lambda name: f"[[{name}]] # c")


@given(st.lists(_LINES, max_size=8))
def test_scanner_agrees_with_tomllib(lines: list[str]) -> None:
    """For whatever tomllib accepts, exactly its keys are found."""
    text = "\n".join(lines)
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(line_numbers(text)) == _leaves(parsed) - {()}
