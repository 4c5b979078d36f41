"""How soon mdl answers, beside importing typer, on which its commands are built, in the same run.

Claimed are multiples of the CPU time of importing typer, for an absolute time is one of the machine; of a help page,
multiples of the help of an app of one command, for Rich draws both; and that no command imports an HTTP client or a hub
library unless it asks somebody.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import harness as bench

_HEAVY = ("httpx", "httpcore", "huggingface_hub", "requests", "aiohttp")
_TYPER = "python -c 'import typer'"
_HELP = "help of a Typer app"
_APP = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
_MODELS = 4000
_CLAIMS = {
    "mdl list": (_TYPER, 2.0),
    "mdl get, all there": (_TYPER, 2.0),
    "mdl --help": (_HELP, 1.8),
    "mdl get --help": (_HELP, 1.8),
}
"""What each is held against, and the most CPU time that it may take, as a multiple of that."""
_ENTRIES = {
    "of a hub": 'source = "hf:org/model-{0}"\ninclude = ["*.safetensors", "config.json"]\n',
    "of files": '[[models.m{0}.files]]\nurl = "https://example.org/{0}/w.bin"\nsize = 9\nsha256 = "{0:064x}"\n',
}


def large_catalog(path: Path, entry: str) -> Path:
    """A catalog of thousands of models."""
    head = '[models.m{0}]\ntitle = "Model {0}"\nlicense = "apache-2.0"\ntags = ["one", "two"]\n'
    path.write_text("schema = 1\n" + "".join((head + entry).format(number) for number in range(_MODELS)))
    return path


def cases(place: Path) -> dict[str, list[str]]:
    """The arguments of Python for each case. ``mdl get`` finds the one file of its model already there."""
    sample = bench.random_file(place / "weights.bin", 2**20)
    there = place / "models" / "bench" / sample.path.name
    there.parent.mkdir(parents=True)
    there.hardlink_to(sample.path)
    found = {
        "python -c pass": ["-c", "pass"],
        _TYPER: ["-c", "import typer"],
        _HELP: ["-c", _APP],
        "mdl --version": ["-m", "mdl", "--version"],
        "mdl --help": ["-m", "mdl", "--help"],
        "mdl get --help": ["-m", "mdl", "get", "--help"],
        "mdl list": ["-m", "mdl", "list"],
        "mdl get, all there": bench.mdl_get(place, sample, "https://example.org/weights.bin")[1:],
    }
    for kind, entry in _ENTRIES.items():
        book = large_catalog(place / f"{kind[3:]}.toml", entry)
        found[f"mdl list, {_MODELS} models {kind}"] = ["-m", "mdl", "list", "--catalog", str(book)]
    return found


def imported(arguments: Sequence[str], env: dict[str, str], place: Path) -> dict[str, int]:
    """Every top-level package a command imports, with its own and its children's microseconds."""
    command = [sys.executable, "-X", "importtime", *arguments]
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
        run = cases(place)
        contenders = [bench.Contender(name, [sys.executable, *words]) for name, words in run.items()]
        runs = bench.alternate(contenders, args.rounds, env, place)
        packages = {name: imported(run[name], env, place) for name in ("mdl --version", *_CLAIMS)}
    times = {name: _ratio(done, runs[_TYPER]) for name, done in runs.items()}
    rows = [
        (
            name,
            bench.span([one.wall * 1000 for one in done], 0),
            bench.span([one.cpu * 1000 for one in done], 0),
            f"{times[name]:.2f}",
            bench.mib(done),
        )
        for name, done in runs.items()
    ]
    head = ("case", "wall ms", "CPU ms", "CPU x typer", "RSS MiB")
    bench.table(head, rows, f"How soon mdl answers; {args.rounds} alternating rounds")
    for name, found in packages.items():
        heavy = [package for package in _HEAVY if package in found]
        dearest = sorted(found, key=lambda package: -found[package])[:5]
        costs = ", ".join(f"{package} {found[package] / 1000:.0f} ms" for package in dearest)
        print(f"{name} imports {len(found)} packages, the dearest: {costs}")
        bench.claim(f"{name} imports none of {', '.join(_HEAVY)} {heavy or ''}".rstrip(), not heavy)
    for name, (base, most) in _CLAIMS.items():
        ratio = _ratio(runs[name], runs[base])
        bench.claim(f"{name} takes at most {most} times the CPU time of {base}: {ratio:.2f}", ratio <= most)
    return bench.verdict()


def _ratio(done: Sequence[bench.Run], base: Sequence[bench.Run]) -> float:
    """The median of the CPU times, each beside that of the same round."""
    return statistics.median(bench.ratios(done, base, lambda run: run.cpu))


if __name__ == "__main__":
    raise SystemExit(main())
