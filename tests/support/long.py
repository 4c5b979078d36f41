"""How much the tests do: what every change has time for, or with MDL_LONG=1 all of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

import pytest

_Item = TypeVar("_Item")

LONG = os.environ.get("MDL_LONG") == "1"
CASES = 3
"""So many of a table are tried in every change."""


def examples(count: int) -> int:
    """How many examples of a property are tried: ``count`` in a long run, else a fifth of them."""
    return count if LONG else max(20, count // 5)


def some(items: Iterable[_Item], step: int) -> list[_Item]:
    """All of these in a long run, else the first one and each ``step``-th after it."""
    return list(items)[:: 1 if LONG else step]


def sampled(tests: Iterable[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The tests for a run of whole folders, and those that it leaves out: of each table of cases it tries a few.

    They are spread over the table, and always the same ones. A row of the fault table is always tried.
    """
    tables: dict[str, list[pytest.Item]] = {}
    for test in tests:
        tables.setdefault(test.nodeid.partition("[")[0], []).append(test)
    kept, left = [], []
    for cases in tables.values():
        chosen = {round(step * (len(cases) - 1) / (CASES - 1)) for step in range(CASES)}
        for number, case in enumerate(cases):
            (kept if number in chosen or _is_a_fault(case) else left).append(case)
    return kept, left


def _is_a_fault(case: pytest.Item) -> bool:
    """Whether this very case, and not just its test, is marked as a row of the fault table."""
    return any(mark.name == "fault" for mark in case.callspec.marks) if hasattr(case, "callspec") else False


def only_long(why: str) -> pytest.MarkDecorator:
    """Leaves a test out of the default suite; ``why`` says what it takes. ``.ci/long`` runs it with MDL_LONG=1."""
    return pytest.mark.skipif(not LONG, reason=f"{why}: asked for with MDL_LONG=1")
