"""`each` tries every case, and tells which failed."""

from __future__ import annotations

import pytest

from support.cases import each


def test_all_cases_are_tried() -> None:
    """Also those behind one that fails, and those of two decorators with each other; the notes name what failed."""
    tried = []

    @each("number", [1, 2, 3])
    @each(("letter", "is_odd"), [("a", True), ("b", False)], ids=["an odd a", "an even b"])
    def case(number: int, letter: str, is_odd: bool, fixture: str) -> None:
        tried.append((number, letter, fixture))
        assert (number % 2 == 1) is is_odd

    with pytest.raises(BaseExceptionGroup, match="3 of 3 cases") as caught:
        case(fixture="f")
    assert tried == [(number, letter, "f") for number in (1, 2, 3) for letter in "ab"]
    notes = [error.__notes__ for error in caught.value.exceptions]
    assert notes[0] == ["in the case 'an even b'", "in the case 1"]
    assert notes[1] == ["in the case 'an odd a'", "in the case 2"]


@each("number", range(3))
def test_a_case_fails_alone(number: int) -> None:
    """One failure is raised as it is."""
    if number == 1:
        with pytest.raises(ValueError, match="one"):
            each("value", [number])(_refuse)()


def _refuse(value: int) -> None:
    raise ValueError("one")
