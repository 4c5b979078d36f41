"""A short hunt of every fuzz target, and all that longer ones found. The long one: python tests/fuzz/run.py --help"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.examples import example
from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS
from fuzz.trial import CORPUS, kept, tried

FOUND = [path for name in TARGETS for path in kept(name)]
_EXAMPLES = 25


def test_every_target_has_seeds() -> None:
    """What is tried and what it begins with are told of the same targets, and nothing in the corpus is of no target."""
    assert SEEDS.keys() == TARGETS.keys()
    assert {path.name for path in CORPUS.iterdir()} <= TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_usual(name: str) -> None:
    """The seeds themselves are read, or refused as mdl refuses."""
    for seed in SEEDS[name]:
        tried(TARGETS[name], seed)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: str(path.relative_to(CORPUS)))
def test_what_was_found(path: Path) -> None:
    """What once broke mdl does not break it again."""
    tried(TARGETS[path.parent.name], path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_hunt(name: str) -> None:
    """Whatever comes, it is read or refused as mdl refuses, in its time, and what must hold holds."""

    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(example(SEEDS[name]) | st.sampled_from(SEEDS[name]))
    def hunt(data: bytes) -> None:
        tried(TARGETS[name], data)

    hunt()
