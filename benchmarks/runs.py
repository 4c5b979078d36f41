"""Run commands in turn and compare them: wall, whole-process CPU and peak memory by the kernel's accounting.

Every round runs every contender once, in an order drawn anew from a fixed seed: who follows whom moves a result by
a third. A first round does not count; what they wrote is removed between.
As a script it compares shell commands: python benchmarks/runs.py --rounds 5 'sleep 0.1' 'sleep 0.2'
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SEED = 1
_STEP = 2**20
_HELD = "import sys, time; file_lock = b'1' * int(sys.argv[1]); time.sleep(float(sys.argv[2]))"
_HOLD_SECONDS = 3.0
"""Longer than a guest waits before it gives free memory back to its host (2 s): to take it again costs a second a GiB,
so which run that befell would decide more than what is measured."""


@dataclass(frozen=True)
class Run:
    """One run of a command and everything it waited for; ``rss`` in bytes, ``server`` CPU beside it."""

    wall: float
    user: float
    system: float
    rss: int
    code: int
    server: float = 0.0

    @property
    def cpu(self) -> float:
        return self.user + self.system


@dataclass(frozen=True)
class Contender:
    """``argv`` is run; ``clean`` removes what it wrote, ``check`` tells what is wrong with it, or ''.

    ``reads`` are files that are to be in memory.
    """

    name: str
    argv: Sequence[str]
    clean: Callable[[], None] = lambda: None
    check: Callable[[], str] = lambda: ""
    reads: Sequence[Path] = ()


def run(argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Run:
    """Run one command to its end, its output thrown away unless it fails."""
    began = time.monotonic()
    with subprocess.Popen(
        argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = code = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(wall, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * unit, code)


def settle(touch: int, reads: Sequence[Path] = ()) -> None:
    """Give every contender the same start: nothing of the last one unwritten, what it ``reads`` in memory.

    And ``touch`` bytes of memory were let go just now, after all that was let go before has gone back to the host.
    """
    os.sync()
    if touch:
        subprocess.run([sys.executable, "-c", _HELD, str(touch), str(_HOLD_SECONDS)], check=True)
    for path in reads:
        _warm(path)


def _warm(path: Path) -> None:
    """Read a file through: a quiet machine puts out what was not used for some seconds."""
    with path.open("rb", buffering=0) as file:
        while file.read(_STEP):
            pass


def alternate(
    contenders: Sequence[Contender],
    rounds: int,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    touch: int = 0,
    server_cpu: Callable[[], float] = lambda: 0.0,
) -> dict[str, list[Run]]:
    """Every contender once a round; the first round warms up and is not returned."""
    runs: dict[str, list[Run]] = {one.name: [] for one in contenders}
    draw = random.Random(_SEED)
    for number in range(rounds + 1):
        for one in draw.sample(list(contenders), len(contenders)):
            one.clean()
            settle(touch, one.reads)
            before = server_cpu()
            done = run(one.argv, env, cwd)
            trouble = f"exit code {done.code}" if done.code else one.check()
            one.clean()
            if trouble:
                raise SystemExit(f"FAILED: {one.name}: {trouble}\n{' '.join(one.argv)}")
            if number:
                server = server_cpu() - before
                runs[one.name].append(Run(done.wall, done.user, done.system, done.rss, 0, server))
        print(f"round {number} of {rounds}", file=sys.stderr)
    return runs


def ratios(runs: Sequence[Run], base: Sequence[Run], of: Callable[[Run], float]) -> list[float]:
    """Each run against the run of the same round."""
    return [of(one) / of(other) for one, other in zip(runs, base, strict=True)]


def span(values: Sequence[float], digits: int = 2) -> str:
    """Median (min-max)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")


def machine() -> str:
    """One line that tells where and under what load this was measured."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}"
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {system}, Python {platform.python_version()}; load {load}"


def claim(text: str, holds: bool) -> bool:
    """Print whether a claim holds, and tell."""
    print(f"{'holds' if holds else 'FAILS'}: {text}")
    return holds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--touch", type=float, default=0, metavar="GIB", help="memory to use once before each command")
    parser.add_argument("command", nargs="+", help="shell commands; the first is the one the others are held against")
    args = parser.parse_args()
    contenders = [Contender(command, ["sh", "-c", command]) for command in args.command]
    runs = alternate(contenders, args.rounds, touch=int(args.touch * 2**30))
    base = runs[args.command[0]]
    rows = [
        (
            name,
            span([one.wall for one in done]),
            span(ratios(done, base, lambda one: one.wall)),
            span([one.cpu for one in done]),
            f"{max(one.rss for one in done) / 2**20:.0f}",
        )
        for name, done in runs.items()
    ]
    table(("command", "wall s", "wall / first", "CPU s", "RSS MiB"), rows)
    print(f"\n{args.rounds} rounds; {machine()}")


if __name__ == "__main__":
    main()
