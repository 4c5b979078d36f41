"""Lists that come in pages: one bound for all of them, and an end when a page brings nothing new."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

from mdl.bounds import MOST_ITEMS, MOST_PAGES
from mdl.errors import ProtocolError

Question = TypeVar("Question", bound=Hashable)
Item = TypeVar("Item")


def paged(
    first: Question,
    ask: Callable[[Question], tuple[Sequence[Item], Question | None]],
    key: Callable[[Item], Hashable],
    what: str,
    *,
    most_pages: int = MOST_PAGES,
    most_items: int = MOST_ITEMS,
    noun: str = "entries",
    may_be_empty: bool = False,
) -> Iterator[Item]:
    """Yield the items of all pages. ``ask`` gives the items of one page, and the question for the next one, or None
    after the last. ``key`` tells two items apart, and ``what`` names the list, as in "the bucket's list of uploads";
    ``noun`` is what its items are. A page without any item may name a next one if it ``may_be_empty``: a bucket that
    keeps old versions has such pages.

    Raises `ProtocolError` if a page is asked for twice, or brings nothing new and names a next one, and for more than
    ``most_pages`` or ``most_items``; what ``ask`` raises.
    """
    asked = set[Hashable]()
    seen = set[Hashable]()
    count = 0
    question: Question | None = first
    while question is not None:
        if question in asked:
            raise ProtocolError(f"{what} goes round in circles")
        if len(asked) >= most_pages:
            raise ProtocolError(f"{what} has more than {most_pages:,} pages")
        asked.add(question)
        items, question = ask(question)
        count += len(items)
        if count > most_items:
            raise ProtocolError(f"{what} has more than {most_items:,} {noun}", hint=_LARGE)
        known = len(seen)
        seen.update(map(key, items))
        brings_nothing = len(seen) == known and not (may_be_empty and not items)
        if brings_nothing and question is not None:
            raise ProtocolError(f"{what} does not end: one of its pages has nothing new")
        yield from items


_LARGE = "mdl cannot read a list of this size; name what you want by its own address"
