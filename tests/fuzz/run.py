"""The long run: python tests/fuzz/run.py --seconds 600 [--engine atheris] [target …]

Engines: hypothesis, which shrinks what it finds; atheris (pip install atheris), which is led by coverage; and plain,
mutation alone. Every finding goes into tests/corpus/fuzz/, once for each line of mdl that it comes from.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.seeds import SEEDS
from fuzz.trial import keep, kept, name_of, tried

_MEMORY = 2 * 2**30
_ONCE = 500
"""Examples of one hypothesis run."""
_SKIPPED = 77


class Hunt:
    """One target being tried: how often, and what was found, each kind once."""

    def __init__(self, name: str, target: Callable[[bytes], None], *, quiet: bool = False) -> None:
        self.name, self._target, self._quiet = name, target, quiet
        self.executions, self.found = 0, dict[str, bytes]()

    @property
    def near(self) -> list[bytes]:
        """What to begin with: the seeds, and what was found before."""
        return [*SEEDS[self.name], *(path.read_bytes() for path in kept(self.name))]

    def once(self, data: bytes) -> None:
        """Raises what is broken, unless it was found already."""
        self.executions += 1
        try:
            tried(self._target, data)
        except Exception as error:
            if name_of(error) not in self.found:
                raise

    def note(self, error: Exception, data: bytes) -> None:
        self.found[name_of(error)] = data
        place = keep(self.name, data)
        print(f"FOUND {self.name}: {name_of(error)}: {str(error)[:150]!r}: {place}", flush=True)


def plain(hunt: Hunt, seconds: float) -> None:
    from fuzz.mutation import mutated

    draw, near, until = random.Random(), hunt.near, time.monotonic() + seconds
    while time.monotonic() < until:
        data = mutated(draw, near)
        try:
            hunt.once(data)
        except Exception as error:
            hunt.note(error, data)


def by_hypothesis(hunt: Hunt, seconds: float) -> None:
    from hypothesis import HealthCheck, Phase, given, seed, settings

    from fuzz.examples import example

    calm = settings(
        max_examples=_ONCE,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    until, number = time.monotonic() + seconds, random.randrange(2**32)
    last = b""

    while time.monotonic() < until:
        number += 1

        @seed(number)
        @calm
        @given(example(hunt.near))
        def search(data: bytes) -> None:
            nonlocal last
            try:
                hunt.once(data)
            except Exception:
                last = data
                raise

        try:
            with contextlib.redirect_stderr(None):
                search()
        except Exception as error:
            hunt.note(error, last)


def by_atheris(name: str, seconds: float) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with atheris.instrument_imports(include=["mdl"]):
        from fuzz.targets import TARGETS

    hunt = Hunt(name, TARGETS[name])

    def once(data: bytes) -> None:
        try:
            hunt.once(data)
        except Exception as error:
            hunt.note(error, data)

    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(hunt.near):
            Path(folder, str(number)).write_bytes(seed)
        limits = [f"-max_total_time={int(seconds)}", "-timeout=10", f"-rss_limit_mb={_MEMORY >> 20}", "-max_len=4096"]
        atheris.Setup([sys.argv[0], *limits, "-verbosity=0", "-print_final_stats=1", folder], once)
        atheris.Fuzz()


def _in_own_process(name: str, seconds: float) -> tuple[int, list[str]]:
    """One target under atheris: how often it was tried, and what was found."""
    command = [sys.executable, __file__, "--engine", "atheris", "--seconds", str(seconds), "--child", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    count = re.search(r"number_of_executed_units: (\d+)", said)
    found = re.findall(r"^FOUND .*", said, re.MULTILINE)
    if count is None or done.returncode:
        found.append(f"FOUND {name}: it ended with {done.returncode}: {said[-500:]}")
    return int(count[1]) if count else 0, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="for each target [600]")
    parser.add_argument("--engine", choices=["hypothesis", "atheris", "plain"], default="hypothesis")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("target", nargs="*", choices=[[], *SEEDS], help="all without one")
    args = parser.parse_args()
    names = args.target or list(SEEDS)
    if args.engine == "atheris":
        try:
            import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
        except ImportError:
            print("SKIPPED: atheris is not installed (pip install atheris)", file=sys.stderr)
            return _SKIPPED
        if args.child:
            by_atheris(names[0], args.seconds)
    else:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    total = 0
    for name in names:
        if args.engine == "atheris":
            executions, found = _in_own_process(name, args.seconds)
            print(*found, sep="\n", end="\n" if found else "")
            count = len(found)
        else:
            from fuzz.targets import TARGETS

            hunt = Hunt(name, TARGETS[name])
            (plain if args.engine == "plain" else by_hypothesis)(hunt, args.seconds)
            executions, count = hunt.executions, len(hunt.found)
        total += count
        print(f"{name}: {executions} executions in {args.seconds:g} s, {count} findings", flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    raise SystemExit(main())
