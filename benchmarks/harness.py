"""What the benchmarks share: files to serve, an environment, commands run in turn and compared, tables and claims.

Every round runs every contender once, in an order drawn anew from a fixed seed: which one follows which moves a result
by a third. A first round does not count; what the contenders wrote is removed between the runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from record import Claim, Comparison, Peer, Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SKIPPED = 77
"""Exit code of a benchmark that could not run here."""
_SEED = 1
_STEP = 2**20
_STARTER = Path(__file__).with_name("starter.py")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_HELD = "import sys, time; file_lock = b'1' * int(sys.argv[1]); time.sleep(float(sys.argv[2]))"
_HOLD_SECONDS = 3.0
"""Longer than a guest waits before it gives free memory back to its host (2 s): to take it again costs a second a GiB,
so which run that befell would decide more than what is measured."""
RECORD = "MDL_BENCHMARK_RECORD"
"""The variable with the path of a file into which a benchmark writes what it found."""
_tables: list[Table] = []
_claims: list[Claim] = []
_comparisons: list[Comparison] = []


# The command line, what is told, and how a benchmark ends.


def flags(doc: str | None, *, size: str = "", rounds: int = 0, touch: float | None = None) -> argparse.ArgumentParser:
    """A parser with ``--dir``, and with ``--size``, ``--rounds`` and ``--touch`` if their default is given."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, help="folder on the disk to measure [the system's temporary folder]")
    if size:
        parser.add_argument("--size", type=size_of, default=size_of(size), help=f"bytes of the file, as 512M [{size}]")
    if rounds:
        parser.add_argument("--rounds", type=int, default=rounds, help=f"[{rounds}]")
    if touch is not None:
        parser.add_argument("--touch", type=float, default=touch, metavar="GIB", help="memory used before each run")
    return parser


def size_of(text: str) -> int:
    """``64M``, ``1G``, ``20G``: powers of two, for argparse."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text.upper())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512M or 4G")
    return int(match[1]) * _UNITS[match[2]]


def shown(size: int) -> str:
    for unit, power in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= power:
            return f"{size / power:g} {unit}"
    return f"{size} bytes"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> None:
    """Print a table, and below it what was measured, and where."""
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    print(f"\n{caption}; {machine()}; load {' '.join(f'{value:.1f}' for value in os.getloadavg())}")
    _tables.append({"head": list(head), "rows": [list(row) for row in rows], "caption": caption})


def claim(text: str, holds: bool) -> bool:
    """Print whether a claim holds, and remember it for `verdict`."""
    print(f"{'holds' if holds else 'FAILS'}: {text}")
    _claims.append({"text": text, "holds": holds})
    return holds


def verdict() -> int:
    """The exit code: 0 if every claim holds. What was found goes to the file that `RECORD` names."""
    _record()
    return 0 if all(one["holds"] for one in _claims) else 1


def skip(why: str) -> NoReturn:
    print(f"SKIPPED: {why}", file=sys.stderr)
    _record(why)
    raise SystemExit(SKIPPED)


def _record(skipped: str = "") -> None:
    found = {"skipped": skipped, "tables": _tables, "claims": _claims, "comparisons": _comparisons}
    if path := os.environ.get(RECORD):
        Path(path).write_text(json.dumps(found))


def machine() -> str:
    """Where this was measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}"
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {system}, Python {platform.python_version()}"


# Files, and where mdl works on them.


@dataclass(frozen=True)
class Sample:
    """A file to serve."""

    path: Path
    size: int
    sha256: str


@contextmanager
def folder(under: Path | None) -> Iterator[Path]:
    """A temporary folder on the disk to measure, removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="mdl-bench-", dir=under))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def memory(size: int) -> Path | None:
    """A folder in memory with room for so many bytes, to serve them from; None if there is none."""
    place = Path("/dev/shm")
    return place if place.is_dir() and shutil.disk_usage(place).free > 2 * size else None


def random_file(path: Path, size: int, seed: int = 1) -> Sample:
    """Bytes that do not compress, the same for the same seed."""
    draw, digest, left = random.Random(seed), hashlib.sha256(), size
    with path.open("wb") as file:
        while left:
            block = draw.randbytes(min(_STEP, left))
            digest.update(block)
            left -= file.write(block)
        os.fsync(file.fileno())
    return Sample(path, size, digest.hexdigest())


def sparse_file(path: Path, size: int) -> Sample:
    """Zeros that take no room on the serving side."""
    path.touch()
    os.truncate(path, size)
    return Sample(path, size, sha256_of(path))


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def growing(under: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The files under a folder in which a program is at work, by name; what goes away meanwhile is passed over."""
    for folder, _, names in os.walk(under):
        for name in names:
            with suppress(OSError):
                yield name, os.lstat(os.path.join(folder, name))


def remade(path: Path) -> Path:
    """An empty folder."""
    remove(path)
    path.mkdir()
    return path


def remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def put_aside(*paths: Path) -> None:
    """What was written is not removed before the end: ext4 is slow to make files where many were deleted just now."""
    for path in filter(Path.exists, paths):
        path.rename(Path(tempfile.mkdtemp(prefix="aside-", dir=path.parent)) / path.name)


def catalog(path: Path, url_of: Callable[[Sample], str], models: Mapping[str, Sample]) -> Path:
    """A catalog of models that have one file each, with its size and sha256."""
    rows = ["schema = 1"]
    for name, one in models.items():
        rows.append(f'[models.{name}]\ntitle = "{name}"\n[[models.{name}.files]]\npath = "{one.path.name}"')
        rows.append(f'url = "{url_of(one)}"\nsize = {one.size}\nsha256 = "{one.sha256}"')
    names = ", ".join(f'"{name}"' for name in models)
    path.write_text("\n".join((*rows, "[groups]", f"nightly = [{names}]", "")))
    return path


def mdl(*words: str) -> list[str]:
    return [sys.executable, "-m", "mdl", *words]


def mdl_get(place: Path, sample: Sample, url: str, *more: str) -> list[str]:
    """The command that downloads, verifies and publishes ``url`` as ``place``/models/bench/NAME."""
    book = catalog(place / "catalog.toml", lambda _: url, {"bench": sample})
    words = ("get", "bench", "--catalog", str(book), "--to", str(place / "models"))
    return mdl(*words, "--progress", "none", "--quiet", *more)


def with_hub(url: str, home: Path) -> list[str]:
    """The command before a command, for which the hub is at ``url``. hf comes over HTTP alone, and tells its makers
    nothing."""
    names = ("DISABLE_XET", "DISABLE_TELEMETRY", "DISABLE_PROGRESS_BARS")
    return ["env", f"HF_ENDPOINT={url.rstrip('/')}", f"HF_HOME={home}", *(f"HF_HUB_{name}=1" for name in names)]


def environment(home: Path) -> dict[str, str]:
    """This environment without proxies, tokens and settings, and with a home of its own. Bytecode is written, as in an
    installation: without it a start takes twice as long."""
    names = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV")
    env = {name: os.environ[name] for name in names if name in os.environ}
    home.mkdir(parents=True, exist_ok=True)
    return {**env, "HOME": str(home), "NO_PROXY": "127.0.0.1"}


def tool(name: str) -> str | None:
    """A program on PATH, or beside this Python."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


# Runs: wall, whole-process CPU and peak memory by the kernel's accounting.


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

    ``reads`` are files that are to be in memory. A contender that runs ``once`` takes minutes.
    """

    name: str
    argv: Sequence[str]
    clean: Callable[[], None] = lambda: None
    check: Callable[[], str] = lambda: ""
    reads: Sequence[Path] = ()
    once: bool = False


def run(argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Run:
    """Run one command to its end, its output thrown away."""
    words = [sys.executable, "-I", "-S", str(_STARTER), *argv]
    told = subprocess.check_output(words, env=env, cwd=cwd, stdin=subprocess.DEVNULL, text=True)
    wall, user, system, rss, code = told.split()
    return Run(float(wall), float(user), float(system), int(rss), int(code))


def settle(touch: int, reads: Sequence[Path] = ()) -> None:
    """Give every contender the same start: nothing of the last one unwritten, what it ``reads`` in memory.

    And ``touch`` bytes of memory were let go just now, after all that was let go before has gone back to the host.
    """
    os.sync()
    if touch:
        subprocess.run([sys.executable, "-c", _HELD, str(touch), str(_HOLD_SECONDS)], check=True)
    for path in reads:  # read through: a quiet machine puts out what was not used for some seconds
        with path.open("rb", buffering=0) as file:
            while file.read(_STEP):
                pass


def alternate(
    contenders: Sequence[Contender],
    rounds: int,
    env: Mapping[str, str],
    cwd: Path,
    touch: int = 0,
    server_cpu: Callable[[], float] = lambda: 0.0,
) -> dict[str, list[Run]]:
    """Every contender once a round; the first round warms up and is not returned. Some run only once, after that."""
    runs: dict[str, list[Run]] = {one.name: [] for one in contenders}
    often, draw = [one for one in contenders if not one.once], random.Random(_SEED)
    orders = [draw.sample(often, len(often)) for _ in range(rounds + 1)]
    for number, order in enumerate([*orders, [one for one in contenders if one.once]]):
        for one in order:
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
        if number <= rounds:
            print(f"round {number} of {rounds}", file=sys.stderr)
    return runs


def ratios(runs: Sequence[Run], base: Sequence[Run], of: Callable[[Run], float] = lambda one: one.wall) -> list[float]:
    """Each run against the run of the same round; if ``base`` has another number of runs, against its median."""
    if len(runs) == len(base):
        return [of(one) / of(other) for one, other in zip(runs, base, strict=True)]
    return [of(one) / statistics.median(map(of, base)) for one in runs]


def faster(runs: Mapping[str, Sequence[Run]], mine: str, other: str) -> float:
    """How many times as fast ``mine`` is, the median of the rounds."""
    return statistics.median(ratios(runs[other], runs[mine]))


def compare(work: str, runs: Mapping[str, Sequence[Run]], mine: str, alike: Collection[str] = ()) -> None:
    """Remember how ``mine`` did beside all the others, of which ``alike`` hash or sync what they wrote, as mdl does."""
    peers: list[Peer] = [
        {
            "name": name,
            "seconds": statistics.median(one.wall for one in done),
            "times": faster(runs, mine, name),
            "alike": name in alike,
        }
        for name, done in runs.items()
        if name != mine
    ]
    _comparisons.append({"work": work, "seconds": statistics.median(one.wall for one in runs[mine]), "peers": peers})


def span(values: Sequence[float], digits: int = 2) -> str:
    """Median (min-max), or the one value."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def mib(runs: Sequence[Run]) -> str:
    """The peak memory of all of them, in MiB."""
    return f"{max(one.rss for one in runs) / 2**20:.0f}"
