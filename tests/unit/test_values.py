"""What mdl's value classes share with the standard library's frozen dataclasses."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl.reports import ModelReport, Report
from mdl.values import small_value_class, value_class


class Plain:
    """A secret and a cache beside what counts."""

    number: int
    name: str = "a"
    secret: str = field(default="s", repr=False)
    cache: list[int] = field(default_factory=list, compare=False)
    seen: set[int] = field(default_factory=set, init=False, compare=False, repr=False)


class One:
    """A single field."""

    only: tuple[int, ...] = ()


class Nothing:
    """No field."""


class Named:
    """Its own way to be shown and compared."""

    name: str

    def __repr__(self) -> str:
        return "named"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and self.name.lower() == other.name.lower()

    def __hash__(self) -> int:
        return 7


CLASSES = (Plain, One, Nothing, Named)
FIELDS = {
    "Plain": st.tuples(
        st.integers(0, 1), st.sampled_from("ab"), st.sampled_from("st"), st.lists(st.integers(0, 1), max_size=3)
    ),
    "One": st.tuples(st.lists(st.integers(0, 1), max_size=1).map(tuple)),
    "Nothing": st.just(()),
    "Named": st.tuples(st.sampled_from("aAb")),
}
PAIRS = st.sampled_from(CLASSES).flatmap(
    lambda kind: st.tuples(st.just(kind), FIELDS[kind.__name__], FIELDS[kind.__name__])
)


def twin(kind: type) -> type:
    """A class with the same body, so that neither decorator sees what the other did."""
    body = {name: item for name, item in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    return type(kind.__name__, (), {**body, "__qualname__": kind.__qualname__})


REFERENCE: dict[type, Any] = {kind: dataclass(frozen=True)(twin(kind)) for kind in CLASSES}
VALUE: dict[type, Any] = {kind: value_class(twin(kind)) for kind in CLASSES}


@given(PAIRS)
def test_as_a_frozen_dataclass(pair: tuple[type, tuple[Any, ...], tuple[Any, ...]]) -> None:
    """Equality, hash and text are those of ``dataclass(frozen=True)``, whatever the fields hold."""
    kind, first, second = pair
    (one, other), (right, wrong) = ([made[kind](*words) for words in (first, second)] for made in (VALUE, REFERENCE))
    assert (one == other, repr(one)) == (right == wrong, repr(right))
    assert one != other or hash(one) == hash(other)
    assert one != right
    assert "'s'" not in repr(one) or kind is not Plain


@pytest.mark.parametrize("decorator", [value_class, small_value_class])
def test_no_field_is_set_twice(decorator: Any) -> None:
    """A value that is in a set stays there: what its maker gave it can be neither changed nor taken away."""
    one = decorator(twin(Plain))(1, "a")
    held = {one}
    for change in (lambda: setattr(one, "number", 2), lambda: delattr(one, "number"), lambda: setattr(one, "new", 1)):
        with pytest.raises((FrozenInstanceError, AttributeError)):
            change()
    assert one in held
    assert replace(one, number=2).number == 2


def test_the_tools_of_dataclasses_know_it() -> None:
    """``fields``, ``replace``, ``copy`` and patterns; a value whose fields cannot be hashed cannot be either."""
    one = VALUE[Plain](1, cache=[2])
    assert [item.name for item in fields(one)] == ["number", "name", "secret", "cache", "seen"]
    assert replace(one, name="b") == VALUE[Plain](1, "b") != copy.copy(one) == one
    assert VALUE[Plain].__match_args__ == ("number", "name", "secret", "cache")
    with pytest.raises(TypeError, match="unhashable"):
        hash(VALUE[One]([]))


def test_many_items_are_a_number() -> None:
    """A value with very many parts is still one line where a notebook or a debugger shows it."""
    report = Report(tuple(ModelReport(f"m{number}", Path("m"), "present") for number in range(400)))
    assert "models=<400 items>" in repr(report)
    assert len(repr(report)) < 200
    few = Report((ModelReport("one", Path("m"), "present"),))
    assert repr(few).startswith("Report(models=<1 item>, bytes_fetched=0")
    assert "name='one'" in repr(few.models[0])


def test_a_notebook_shows_a_table() -> None:
    """Each model is a row, and no name is taken for HTML."""
    table = Report((ModelReport("<b>", Path("m/<b>"), "present"),))._repr_html_()
    assert "<td>&lt;b&gt;</td><td>present</td><td>0</td><td>0 B</td><td>m/&lt;b&gt;</td>" in table
