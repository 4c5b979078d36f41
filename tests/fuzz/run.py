"""The long run: python tests/fuzz/run.py --seconds 600 [target …]

Hypothesis tries bytes near the seeds and near earlier findings, and makes what it finds smaller. Every finding is
written to tests/corpus/fuzz/, once for each line of mdl that it comes from.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.all_targets import TARGETS
from fuzz.mutation import examples
from fuzz.seeds import SEEDS
from fuzz.trial import keep, kept, name_of, tried

_MEMORY = 2 * 2**30
_ONCE = settings(
    max_examples=500,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    print_blob=False,
    report_multiple_bugs=False,
)


def hunt(name: str, seconds: float) -> tuple[int, int]:
    """Try one target for so long. Returns how often it was called and how many findings there were."""
    near = examples([*SEEDS[name], *(path.read_bytes() for path in kept(name))])
    until, number = time.monotonic() + seconds, random.randrange(2**32)
    executions, found, last = 0, set[str](), b""

    while time.monotonic() < until:
        number += 1

        @seed(number)
        @_ONCE
        @given(near)
        def search(data: bytes) -> None:
            nonlocal executions, last
            executions += 1
            try:
                tried(TARGETS[name], data)
            except Exception as error:
                if name_of(error) not in found:
                    last = data
                    raise

        try:
            with contextlib.redirect_stderr(None):
                search()
        except Exception as error:
            found.add(name_of(error))
            place = keep(name, last)
            print(f"FOUND {name}: {name_of(error)}: {str(error)[:150]!r}: {place}", flush=True)
    return executions, len(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="for each target [600]")
    parser.add_argument("target", nargs="*", choices=[[], *SEEDS], help="all without one")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    total = 0
    for name in args.target or SEEDS:
        executions, findings = hunt(name, args.seconds)
        total += findings
        print(f"{name}: {executions} executions in {args.seconds:g} s, {findings} findings", flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    raise SystemExit(main())
