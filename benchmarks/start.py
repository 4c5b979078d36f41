"""How soon mdl answers: beside Python itself and beside importing typer, on which its commands are built.

The claim: neither 'mdl --version' nor 'mdl list' imports an HTTP client or a hub library.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import harness as bench

_HEAVY = ("httpx", "httpcore", "huggingface_hub", "requests", "aiohttp")
_CASES = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import typer'": ["-c", "import typer"],
    "mdl --version": ["-m", "mdl", "--version"],
    "mdl list": ["-m", "mdl", "list"],
}


def imported(case: str, env: dict[str, str], place: Path) -> dict[str, int]:
    """Every top-level package a command imports, with its own and its children's microseconds."""
    command = [sys.executable, "-X", "importtime", *_CASES[case]]
    done = subprocess.run(command, env=env, cwd=place, capture_output=True, text=True, check=True)
    found: dict[str, int] = {}
    for line in done.stderr.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        if line.startswith("import time:") and own.strip().isdigit():
            name = rest.partition("|")[2].strip().split(".")[0]
            found[name] = found.get(name, 0) + int(own)
    return found


def main() -> int:
    args = bench.flags(__doc__, rounds=15).parse_args()
    with bench.folder(args.dir) as place:
        env = bench.environment(place / "home")
        del env["PYTHONDONTWRITEBYTECODE"]
        runs = bench.alternate(
            [bench.Contender(name, [sys.executable, *words]) for name, words in _CASES.items()], args.rounds, env, place
        )
        packages = {name: imported(name, env, place) for name in ("mdl --version", "mdl list")}
    base = statistics.median(one.wall for one in runs["python -c pass"])
    rows = [
        (
            name,
            bench.span([one.wall * 1000 for one in done], 0),
            f"{(statistics.median(one.wall for one in done) - base) * 1000:.0f}",
            bench.span([one.cpu * 1000 for one in done], 0),
            bench.mib(done),
        )
        for name, done in runs.items()
    ]
    bench.table(("case", "wall ms", "above Python", "CPU ms", "RSS MiB"), rows)
    print(f"\n{args.rounds} alternating rounds; {bench.machine()}")
    for name, found in packages.items():
        heavy = [package for package in _HEAVY if package in found]
        dearest = sorted(found, key=lambda package: -found[package])[:5]
        costs = ", ".join(f"{package} {found[package] / 1000:.0f} ms" for package in dearest)
        print(f"{name} imports {len(found)} packages, the dearest: {costs}")
        bench.claim(f"{name} imports none of {', '.join(_HEAVY)} {heavy or ''}".rstrip(), not heavy)
    return bench.verdict()


if __name__ == "__main__":
    raise SystemExit(main())
