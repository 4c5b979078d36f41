"""How much the tests do: what every change has time for, or with MDL_LONG=1 all of it."""

from __future__ import annotations

import os

LONG = os.environ.get("MDL_LONG") == "1"


def examples(count: int) -> int:
    """How many examples of a property are tried: ``count`` in a long run, else a third of them."""
    return count if LONG else max(25, count // 3)
