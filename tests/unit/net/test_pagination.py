"""A list that comes in pages ends, whatever the server says."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from support.cases import each

from mdl.errors import ProtocolError
from mdl.net.pagination import paged


def listed(pages: Callable[[int], tuple[list[int], int | None]], asked: list[int] | None = None) -> list[int]:
    def ask(number: int) -> tuple[list[int], int | None]:
        if asked is not None:
            asked.append(number)
        return pages(number)

    return list(paged(0, ask, lambda item: item, "the list", most_pages=50, most_items=200))


def test_a_list_that_ends() -> None:
    """All items in their order; the last page, and a list of nothing, may be empty."""
    assert listed(lambda n: ([n, n + 100], n + 1 if n < 9 else None)) == [
        *itertools.chain.from_iterable((n, n + 100) for n in range(10))
    ]
    assert listed(lambda n: ([n], 1) if n == 0 else ([], None)) == [0]
    assert listed(lambda n: ([], None)) == []


@each(
    ("pages", "most", "words"),
    [
        (lambda n: ([n], n + 1), 50, "more than 50 pages"),
        (lambda n: ([7], n + 1), 2, "has nothing new"),
        (lambda n: ([], n + 1), 1, "has nothing new"),
        (lambda n: ([n], (n + 1) % 3), 3, "in circles"),
        (lambda n: ([n], n), 1, "in circles"),
        (lambda n: (list(range(1000)), n + 1), 1, "more than 200 entries"),
    ],
)
def test_lists_that_do_not_end(pages: Callable[[int], tuple[list[int], int | None]], most: int, words: str) -> None:
    """It is given up after few requests, and in words that say why."""
    asked = list[int]()
    with pytest.raises(ProtocolError, match=words):
        listed(pages, asked)
    assert len(asked) <= most
