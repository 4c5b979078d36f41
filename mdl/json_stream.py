"""JSON stream: a JSON document that is read as it comes, so that a list of any length costs no more memory than one of
its items, beside what is made of them. Pure."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mdl.bounds import ITEM_DECODER

Take = Callable[[Any], None]
"""Is given each item of a list, in order."""

_OF_NUMBER = re.compile("[0-9.eE+-]*")
_BLANKS = re.compile(r"[ \t\n\r]*")


def read_json(blocks: Iterable[bytes | memoryview], lists: Mapping[str, Take], longest: int) -> Any:
    """Return the value that the ``blocks`` of UTF-8 hold.

    If it is a list, its items go to ``lists[""]``; if it is an object, those of the list under a key of ``lists`` go
    there. An empty list stands for them in the result. Nothing else may have more than ``longest`` characters.

    Raises `ValueError` or `RecursionError` if it is not JSON, and what ``blocks`` and ``lists`` raise.
    """
    text = _Text(iter(blocks), longest)
    first = text.next_character()
    if first == "[" and "" in lists:
        value: Any = _read_list(text, lists[""])
    elif first == "{":
        value = _read_object(text, lists)
    else:
        value = text.value()
    if text.next_character():
        raise ValueError("something follows the JSON document")
    return value


def _read_list(text: _Text, take: Take) -> list[Any]:
    text.expect("[")
    if text.next_character() == "]":
        text.expect("]")
        return []
    while True:
        take(text.value())
        if text.expect(",", "]") == "]":
            return []


def _read_object(text: _Text, lists: Mapping[str, Take]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    text.expect("{")
    if text.next_character() == "}":
        text.expect("}")
        return found
    while True:
        if text.next_character() != '"':
            raise ValueError("a key is not a text")
        key = text.value()
        text.expect(":")
        if key in lists and text.next_character() == "[":
            found[key] = _read_list(text, lists[key])
        else:
            found[key] = text.value()
        if text.expect(",", "}") == "}":
            return found


class _Text:
    """The part of the document that was received and not used yet."""

    def __init__(self, blocks: Iterator[bytes | memoryview], longest: int) -> None:
        self._blocks = blocks
        self._longest = longest
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text = ""
        self._at = 0
        self._has_ended = False

    def next_character(self) -> str:
        """Return the next character that is no blank, which stays; '' at the end."""
        while True:
            match = _BLANKS.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._has_ended:
                return ""
            self._receive(1)

    def expect(self, *characters: str) -> str:
        """Pass over the next character and return it. Raises `ValueError` if it is none of these."""
        character = self.next_character()
        if character not in characters:
            raise ValueError(f"{' or '.join(map(repr, characters))} is missing")
        self._at += 1
        return character

    def value(self) -> Any:
        """Return the next value. Raises `ValueError`."""
        self.next_character()
        while True:
            try:
                value, end = ITEM_DECODER.raw_decode(self._text, self._at)
            except ValueError:
                if self._has_ended:
                    raise
                end = len(self._text)
            if end - self._at > self._longest:
                raise ValueError(f"one value has more than {self._longest} characters")
            rest = _OF_NUMBER.match(self._text, end)
            if self._has_ended or (rest and rest.end() < len(self._text)):  # else a number may go on
                self._at = end
                return value
            self._receive(end - self._at)

    def _receive(self, least: int) -> None:
        """Receive at least so many more bytes, or all: what was not enough is doubled, so that a long value is not
        parsed again for each block of it."""
        parts = [self._text[self._at :]]
        count = 0
        while count < max(least, 1) and not self._has_ended:
            block = next(self._blocks, None)
            self._has_ended = block is None
            parts.append(self._decode(bytes(block or b""), self._has_ended))
            count += len(block or b"")
        self._text = "".join(parts)
        self._at = 0
