"""Examples: a hypothesis strategy of bytes near given seeds."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hypothesis import strategies as st

from fuzz.mutation import mutated


def example(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Any bytes, short or seed-like; what is drawn is hypothesis's own, so that it can be made smaller."""
    near = st.randoms(use_true_random=False).map(lambda draw: _near(draw, seeds))
    return st.one_of(near, near, near, st.binary(max_size=300))


def _near(draw: Random, seeds: Sequence[bytes]) -> bytes:
    return mutated(draw, seeds)
