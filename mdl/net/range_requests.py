"""Conditions: which bytes of a file a request asks for, and whether it has them already (RFC 9110, 13 and 14). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from mdl.values import value_class

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


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
    if (wanted := headers.get("if-match")) is not None and not _matches(wanted, etag, is_strong=True):
        return Answer(HTTPStatus.PRECONDITION_FAILED)
    if _matches(headers.get("if-none-match"), etag):
        return Answer(HTTPStatus.NOT_MODIFIED)
    whole = Answer(HTTPStatus.OK, 0, size)
    asked = _RANGE.fullmatch(headers.get("range", ""))
    if asked is None or headers.get("if-range", etag) != etag:
        return whole
    first, last = (int(text) if text else None for text in asked.groups())
    if first is None:
        return whole if last is None else _part(size - min(last, size), size)
    if last is not None and last < first:
        return whole
    return _part(first, size if last is None else min(last + 1, size))


def _part(start: int, stop: int) -> Answer:
    if start >= stop:
        return Answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
    return Answer(HTTPStatus.PARTIAL_CONTENT, start, stop)


def _matches(header: str | None, etag: str, *, is_strong: bool = False) -> bool:
    """Whether a list of validators has this one; a weak one counts unless the comparison ``is_strong``."""
    if header is None:
        return False
    named = [one.strip() for one in header.split(",")]
    return "*" in named or etag in (named if is_strong else [one.removeprefix("W/") for one in named])
