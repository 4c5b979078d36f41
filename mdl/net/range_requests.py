"""Conditions: which bytes of a file a request asks for, and whether it has them already (RFC 9110, 13 and 14). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from mdl.values import value_class

_RANGE = re.compile(r"bytes=[ \t]*(?=-?[0-9])([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)
_WEAK = re.compile(r'\bW/(?=")')
"""What marks a weak validator."""


@value_class
class Answer:
    """The status of an answer, and the bytes ``[start, stop)`` of the file that are its body."""

    status: HTTPStatus
    start: int = 0
    stop: int = 0


def answer_to(headers: Mapping[str, str], size: int, etag: str) -> Answer:
    """How to answer a GET or HEAD for a file of ``size`` bytes with this strong ``etag``.

    ``headers`` are the request's, with lower-case names. A Range that is malformed, or names several ranges, is
    ignored, as a server may: then the whole file is the answer.
    """
    if not _matches(headers.get("if-match", "*"), etag):
        return Answer(HTTPStatus.PRECONDITION_FAILED)
    if _matches(_WEAK.sub("", headers.get("if-none-match", "")), etag):
        return Answer(HTTPStatus.NOT_MODIFIED)
    whole = Answer(HTTPStatus.OK, 0, size)
    asked = _RANGE.fullmatch(headers.get("range", ""))
    if asked is None or headers.get("if-range", etag) != etag:
        return whole
    first, last = asked.groups()
    if not first:
        return _part(max(0, size - int(last)), size)
    if not last:
        return _part(int(first), size)
    if int(last) < int(first):
        return whole
    return _part(int(first), min(int(last) + 1, size))


def _part(start: int, stop: int) -> Answer:
    if start >= stop:
        return Answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
    return Answer(HTTPStatus.PARTIAL_CONTENT, start, stop)


def _matches(validators: str, etag: str) -> bool:
    """Return whether a list of validators has this strong one, or is ``*``."""
    listed = [validator.strip() for validator in validators.split(",")]
    return "*" in listed or etag in listed
