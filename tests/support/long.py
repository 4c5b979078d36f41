"""How much the tests do: what every change has time for, or with MDL_LONG=1 all of it."""

from __future__ import annotations

import os

import pytest

LONG = os.environ.get("MDL_LONG") == "1"


def examples(count: int) -> int:
    """How many examples of a property are tried: ``count`` in a long run, else a third of them."""
    return count if LONG else max(25, count // 3)


def only_long(why: str) -> pytest.MarkDecorator:
    """Leaves a test out of the default suite; ``why`` says what it takes. ``.ci/long`` runs it with MDL_LONG=1."""
    return pytest.mark.skipif(not LONG, reason=f"{why}: asked for with MDL_LONG=1")
