"""One large file over connections that are slow or far away: mdl, which finds their number by itself, against aria2 and
curl.

    slow: nginx gives each connection 10 MiB a second
    far:  a round trip of 40 ms and 64 MiB a second for all connections together (benchmarks/link.py)

The claims: from the fourth second after its start to the last byte mdl gets at least 90 % of the link, or of what
24 connections may bring; and it takes no longer than aria2 with 16 connections that verifies the same file. aria2
without --checksum and curl, which verify nothing, stand beside them.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import harness as bench
from arrivals import Arrivals
from link import Link
from nginx import Nginx

_MOST = 24
"""mdl's usual ceiling; aria2's highest number is 16."""
_TRIP = 0.04
_WARM = 4.0
_LEAST, _LEAST_SHORT = 0.9, 0.6
"""One look on a machine that does other things too tells less than the median of three: with --short far less is
claimed, and still several times what one connection brings."""
_EVERY = 0.05
_MDL, _ARIA, _CURL = "mdl get (sha256, fsync)", "aria2c -x16 --checksum", "curl"
_UNVERIFIED, _PLAIN = "aria2c -x16", "aria2c -x16, its own -k"


@dataclass(frozen=True)
class Case:
    """Where the file is fetched from. ``best`` is the speed that can be reached, in bytes a second."""

    name: str
    url: str
    port: int
    best: int


def contenders(place: Path, sample: bench.Sample, url: str) -> Iterator[bench.Contender]:
    """All that are installed. aria2 splits a file as far as it can (-k1M), unless the name says otherwise."""
    output, final = place / "out.bin", place / "models" / "bench" / sample.path.name

    def one(name: str, argv: list[str], wrote: Path = output, *, once: bool = False) -> bench.Contender:
        def check() -> str:
            size = wrote.stat().st_size if wrote.exists() else -1
            return "" if size == sample.size else f"{size} bytes of {sample.size}"

        written = (place / "models", output, output.with_name("out.bin.aria2"))
        return bench.Contender(name, argv, lambda: bench.remove(*written), check, [sample.path], once)

    yield one(_MDL, bench.mdl_get(place, sample, url), final)
    if bench.tool("aria2c"):
        aria = ["aria2c", "-q", "-x16", "-s16", "--no-conf", "--allow-overwrite=true", "-d", str(place)]
        aria += ["-o", output.name, url]
        yield one(_ARIA, [*aria, "-k1M", f"--checksum=sha-256={sample.sha256}"])
        yield one(_UNVERIFIED, [*aria, "-k1M"])
        yield one(_PLAIN, aria)
    if bench.tool("curl"):
        yield one(_CURL, ["curl", "-sS", "-f", "-o", str(output), url], once=True)


def watch(case: Case, sample: bench.Sample, place: Path, rounds: int, least: float) -> None:
    """The speed of mdl from the fourth second on, the median of the rounds."""
    models = place / "models"
    argv, env = bench.mdl_get(place, sample, case.url), bench.environment(place / "home")
    speeds: list[float] = []
    for _ in range(rounds):
        models.mkdir(exist_ok=True)
        arrivals = Arrivals(models, case.port)
        with subprocess.Popen(argv, env=env, cwd=place, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                arrivals.look()
                time.sleep(_EVERY)
        bench.remove(models)
        if process.returncode:
            raise SystemExit(f"FAILED: mdl ended with exit code {process.returncode}")
        speeds.append(arrivals.speed_after(_WARM, sample.size) / case.best)
    part = f"{bench.span(speeds)} of {bench.shown(case.best)}/s"
    holds = statistics.median(speeds) >= least
    bench.claim(f"{case.name}: from the fourth second on {part}, at least {least}", holds)


def compare(case: Case, sample: bench.Sample, place: Path, rounds: int) -> None:
    """mdl and the others in turn."""
    field = list(contenders(place, sample, case.url))
    runs = bench.alternate(field, rounds, bench.environment(place / "home"), place)
    rows = [
        (
            name,
            bench.span([one.wall for one in done]),
            f"{sample.size / 2**20 / statistics.median(one.wall for one in done):.0f}",
            bench.span(bench.ratios(done, runs[_MDL])),
            bench.span([one.cpu for one in done]),
        )
        for name, done in runs.items()
    ]
    what = f"One file of {bench.shown(sample.size)}, {case.name}"
    bench.table(("case", "wall s", "MiB/s", "wall / mdl", "CPU s"), rows, f"{what}; {rounds} alternating rounds")
    bench.compare(what, runs, _MDL, alike=(_ARIA,))
    if _ARIA in runs:
        faster = bench.faster(runs, _MDL, _ARIA)
        bench.claim(f"{case.name}: mdl is {faster:.2f} times as fast as {_ARIA}, at least 1.00", faster >= 1.0)


def main() -> int:
    parser = bench.flags(__doc__, size="256M", rounds=5)
    parser.add_argument("--short", action="store_true", help="under 30 s: mdl alone, at lower speeds")
    args = parser.parse_args()
    each, capacity, seconds = (4, 32, 7.0) if args.short else (10, 64, 8.0)
    with bench.folder(args.dir) as place, bench.folder(bench.memory(2**31) or args.dir) as served, ExitStack() as stack:
        server = stack.enter_context(Nginx(served))
        link = stack.enter_context(Link(server.port, _TRIP, capacity=capacity * 2**20))
        name = "served.bin"
        slow = Case(f"{each} MiB/s a connection", server.url(name, f"{each}m"), server.port, _MOST * each * 2**20)
        far = Case(f"40 ms, {capacity} MiB/s", link.url(server.url(name)), link.port, capacity * 2**20)
        if not args.short:
            sample = bench.random_file(served / name, args.size)
            for case in (slow, far):
                compare(case, sample, place, args.rounds)
            print()
        rounds, least = (1, _LEAST_SHORT) if args.short else (3, _LEAST)
        for case in (slow, far):
            watch(case, bench.random_file(served / name, int(case.best * seconds)), place, rounds, least)
    return bench.verdict()


if __name__ == "__main__":
    raise SystemExit(main())
