"""How much the tests do: what every change has time for, or with MDL_LONG=1 all of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

import pytest

_Item = TypeVar("_Item")

LONG = os.environ.get("MDL_LONG") == "1"


def examples(count: int) -> int:
    """How many examples of a property are tried: ``count`` in a long run, else a fifth of them."""
    return count if LONG else max(20, count // 5)


def some(items: Iterable[_Item], step: int) -> list[_Item]:
    """All of these in a long run, else the first one and each ``step``-th after it."""
    return list(items)[:: 1 if LONG else step]


def only_long(why: str) -> pytest.MarkDecorator:
    """Leaves a test out of the default suite; ``why`` says what it takes. ``.ci/long`` runs it with MDL_LONG=1."""
    return pytest.mark.skipif(not LONG, reason=f"{why}: asked for with MDL_LONG=1")
