"""Which cases a run of whole folders tries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from support.cases import each
from support.long import CASES, sampled


def case(number: int, fault: bool = False) -> Any:
    marks = [pytest.mark.fault(1).mark] if fault else []
    return SimpleNamespace(nodeid=f"test_a.py::test_a[{number}]", callspec=SimpleNamespace(marks=marks))


@each("count", range(1, 50))
def test_a_table_is_sampled_from_its_first_to_its_last_case(count: int) -> None:
    """A small table is tried whole; of a large one come the first case, the last one, and some between."""
    table = [case(number) for number in range(count)]
    kept, left = sampled(table)
    assert len(kept) == min(count, CASES)
    assert (kept[0], kept[-1]) == (table[0], table[-1])
    assert sorted(map(id, kept + left)) == sorted(map(id, table))


def test_a_fault_is_always_tried() -> None:
    """A case that is a row of the fault table is never left out, and neither is a test without a table."""
    table = [case(number, fault=number % 2 == 1) for number in range(30)]
    alone = SimpleNamespace(nodeid="test_a.py::test_alone")
    kept, left = sampled([*table, alone])  # type: ignore[list-item]
    assert alone in kept
    assert not any(one.callspec.marks for one in left)  # type: ignore[attr-defined]
