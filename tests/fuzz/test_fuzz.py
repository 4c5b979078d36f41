"""A short run of every fuzz target, and all earlier findings. The long run: python tests/fuzz/run.py --help"""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.cases import each

from fuzz.all_targets import TARGETS
from fuzz.mutation import examples
from fuzz.seeds import SEEDS
from fuzz.trial import CORPUS, kept, tried

FOUND = [path for name in TARGETS for path in kept(name)]


def test_every_target_has_seeds() -> None:
    """Every target has seeds, and every folder of the corpus belongs to a target."""
    assert TARGETS.keys() <= SEEDS.keys()
    assert {path.name for path in CORPUS.iterdir()} <= SEEDS.keys()


@each("name", TARGETS)
def test_seeds(name: str) -> None:
    """The seeds themselves are read, or refused with an `MdlError`."""
    for seed in SEEDS[name]:
        tried(TARGETS[name], seed)


@each("path", FOUND, ids=lambda path: str(path.relative_to(CORPUS)))
def test_findings(path: Path) -> None:
    """An input that once broke mdl does not break it again."""
    tried(TARGETS[path.parent.name], path.read_bytes())


@each("name", TARGETS)
def test_short_run(name: str) -> None:
    """Any bytes are read or refused with an `MdlError`, in time, and the target's assertions hold."""

    @settings(max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(examples(SEEDS[name]) | st.sampled_from(SEEDS[name]))
    def hunt(data: bytes) -> None:
        tried(TARGETS[name], data)

    hunt()
