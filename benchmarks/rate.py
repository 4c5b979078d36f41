"""--limit-rate: the rate that mdl keeps, over every span of ten seconds, and the rate that was asked for.

What is measured is what came to this machine, looked at from outside ten times a second: the blocks of the files
that grow, and what the kernel received for the program that it has not read yet. Not what the server handed to its own
kernel: that runs megabytes ahead of the network. Nor what mdl says of itself. From the first byte to the last,
the start and the end of the transfer not left out.

The claims for mdl: every span of ten seconds is within 5 % of the rate, over all connections and files
together, and the bytes that came are right. --compare does the same to curl, wget and aria2, and claims nothing.
"served / size" above 1: what was asked for twice.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import harness as bench
from arrivals import Arrivals
from nginx import Nginx

_SPAN = 10.0
_MOST_OFF = 0.05
_EVERY = 0.1
_BUFFER = 2**16
"""The least that nginx's kernel may hold of an answer; above 6 MB/s that is what 10 ms take."""
_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class Case:
    """One run: ``rate`` in bytes a second, ``files`` at once of which each is the same part of the whole."""

    tool: str
    rate: int
    connections: int
    files: int = 1


@dataclass(frozen=True)
class Held:
    """What was held: bytes a second over all of it, over the two worst spans, in the fastest second."""

    mean: float
    least: float
    most: float
    burst: float
    code: int
    right: bool
    served: float


def command(case: Case, urls: list[str], target: Path) -> list[str]:
    """One command line, its output in ``target``."""
    rate, count = str(case.rate), str(case.connections)
    out = str(target / "served-0.bin")
    if case.tool == "curl":
        return ["curl", "-sS", "-f", "--limit-rate", rate, "-o", out, urls[0]]
    if case.tool == "wget":
        return ["wget", "-q", f"--limit-rate={rate}", "-O", out, urls[0]]
    if case.tool == "aria2c":
        words = ["aria2c", "-q", "--no-conf", f"-x{count}", f"-s{count}", "-k1M", "--file-allocation=none"]
        words += ["--disk-cache=0", f"--max-overall-download-limit={rate}", "-d", str(target)]
        return [*words, "-o", "served-0.bin", urls[0]]
    flags = ("--to", str(target), "--limit-rate", rate, "--connections", count)
    return bench.mdl("get", *urls, *flags, "--progress", "none", "--quiet")


def hold(case: Case, samples: list[bench.Sample], place: Path, env: dict[str, str]) -> Held:
    """Run it and watch what arrives."""
    target, size = place / "arrives", sum(one.size for one in samples)
    target.mkdir()
    with Nginx(place / "served", buffer=str(max(_BUFFER, case.rate // 100))) as server:
        urls = [server.url(one.path.name) for one in samples]
        arrivals, null = Arrivals(target, server.port), subprocess.DEVNULL
        with subprocess.Popen(command(case, urls, target), env=env, cwd=place, stdin=null, stdout=null) as process:
            while process.poll() is None:
                arrivals.look()
                time.sleep(_EVERY)
        served = server.sent()
    found = {path.name: path for path in target.rglob("served*.bin")}
    right = all(one.path.name in found and bench.sha256_of(found[one.path.name]) == one.sha256 for one in samples)
    bench.remove(target)
    spans = arrivals.rates(_SPAN, size)
    if not spans:
        raise SystemExit(f"FAILED: {case.tool} ended within {_SPAN:.0f} s, exit code {process.returncode}")
    mean, fast = sum(spans) / len(spans), max(arrivals.rates(1.0, size))
    return Held(mean, min(spans), max(spans), fast, process.returncode, right, served / size)


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """mdl with each number of connections, with several files; then the others."""
    if args.short:
        yield Case("mdl", args.rate[len(args.rate) // 2], max(args.connections))
        return
    for rate in args.rate:
        for count in args.connections:
            yield Case("mdl", rate, count)
        yield Case("mdl", rate, max(args.connections), args.files)
    for name in ("curl", "wget", "aria2c") if args.compare else ():
        for rate in args.rate if bench.tool(name) else ():
            yield Case(name, rate, max(args.connections) if name == "aria2c" else 1)


def served_files(place: Path, case: Case, seconds: float) -> list[bench.Sample]:
    """Files of random bytes that take so many seconds together at the rate."""
    (place / "served").mkdir(exist_ok=True)
    size = int(case.rate * seconds / case.files)
    return [bench.random_file(place / "served" / f"served-{number}.bin", size, number) for number in range(case.files)]


def rate_of(text: str) -> int:
    """``20M``: powers of ten, for argparse."""
    number, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 1)
    if not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate such as 500k or 20M")
    return int(number) * unit


def row(case: Case, held: Held) -> tuple[str, ...]:
    parts = [value / case.rate for value in (held.mean, held.least, held.most, held.burst)]
    right = "yes" if held.right else f"NO (exit code {held.code})"
    facts = (f"{case.rate / 1e6:g}", f"{held.mean / 1e6:.2f}", *(f"{part:.3f}" for part in parts), f"{held.served:.3f}")
    return (case.tool, str(case.connections), str(case.files), *facts, right)


def judge(case: Case, held: Held) -> None:
    """Whether mdl kept its word in this case."""
    what = f"{case.rate / 1e6:g} MB/s, connections {case.connections}, files {case.files}"
    parts = [value / case.rate for value in (held.least, held.most)]
    is_within = all(abs(part - 1) <= _MOST_OFF for part in parts)
    bench.claim(f"{what}: any 10 s hold {parts[0]:.3f} to {parts[1]:.3f} of it, within 5 %", is_within)
    bench.claim(f"{what}: the right bytes, exit code {held.code}", held.right and held.code == 0)


def main() -> int:
    parser = bench.flags(__doc__)
    parser.add_argument("--rate", type=rate_of, nargs="+", default=[5 * 10**6, 20 * 10**6, 80 * 10**6])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8], help="mdl's --connections [1 8]")
    parser.add_argument("--files", type=int, default=4, help="at once, in one more run of each rate [4]")
    parser.add_argument("--seconds", type=float, default=15, help="how long each run takes, at least 11 [15]")
    parser.add_argument("--short", action="store_true", help="one run of 12 s: the middle rate, most connections")
    parser.add_argument("--compare", action="store_true", help="also curl, wget and aria2c")
    args = parser.parse_args()
    done: list[tuple[Case, Held]] = []
    with bench.folder(args.dir) as place:
        env = bench.environment(place / "home")
        for case in cases(args):
            samples = served_files(place, case, 12 if args.short else max(args.seconds, 11))
            done.append((case, hold(case, samples, place, env)))
            bench.remove(place / "served")
            print(f"{len(done)}: {case.tool} at {case.rate / 1e6:g} MB/s", file=sys.stderr)
    head = ("case", "connections", "files", "asked MB/s", "held MB/s", "ratio", "least 10 s", "most 10 s")
    rows = [row(case, held) for case, held in done]
    bench.table((*head, "fastest 1 s", "served / size", "right bytes"), rows, "Spans of 10 s, ten begun a second")
    for case, held in done:
        if case.tool == "mdl":
            judge(case, held)
    return bench.verdict()


if __name__ == "__main__":
    raise SystemExit(main())
