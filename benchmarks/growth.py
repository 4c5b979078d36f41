"""mdl alone, with ever more files, larger ones and larger catalogs: its time in proportion, its memory the same.

Files: hubs of 100 to 100,000 files of 4 KiB are downloaded, downloaded again (all is there), verified, packed and
unpacked. Sizes: one file of 1 to 100 GB is downloaded and verified, and a run of that size is packed, and unpacked.
Large files that are served, packed or moved are sparse; small files are served from memory. What mdl writes is not
sparse: if it does not fit on the disk, that row is left out, and a line says so. Catalogs: thousands of models, each
one file of the same repository.

The claims: with ten times as many files, ten times the size, or four times as many models, mdl takes at most 1.3 times
the CPU time for each of them; and at most 100 MiB of memory.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import harness as bench
from nginx import Nginx
from small import SERVED, models_catalog, small_catalog, static_hub
from weights import header

_GB = 10**9
_FILES, _SIZES, _MODELS = (100, 1_000, 10_000, 100_000), (1, 10, 100), (1_000, 4_000)
_MOST_MEMORY = 100 * 2**20
_MOST_GROWTH = 1.3
_FIRST_TOLD = {"file": 10_000, "GB": 10, "model": 1_000}
"""Below this many the start of mdl is a good part of the time, and nothing is claimed."""
_SPARE = 2**30
_OF_CATALOGS = {
    "get": "get all",
    "get, all there": "get all",
    "list": "list",
    "verify": "verify all",
    "outdated": "outdated all",
    "lock": "lock",
    "get --locked": "get all --locked",
    "clean": "clean",
    "rm": "rm all --yes",
}
_QUIET = ("--progress", "none", "--quiet")


@dataclass(frozen=True)
class Step:
    """One command on ``amount`` files, GB or models, whichever ``unit`` tells."""

    work: str
    unit: str
    amount: int
    run: bench.Run

    @property
    def cpu(self) -> float:
        """Seconds for one of them."""
        return self.run.cpu / self.amount


class Bench:
    """A place to work in, and the environment in which mdl runs there."""

    def __init__(self, place: Path, unit: str, amount: int) -> None:
        self.place, self.unit, self.amount = place, unit, amount
        self._env = bench.environment(place / "home")

    def mdl(self, work: str, *words: str, program: Sequence[str] = ()) -> Step:
        """Run one command of mdl to its end."""
        bench.settle(0)
        argv = [*program, *bench.mdl(*words, *_QUIET)]
        done = bench.run(argv, self._env, self.place)
        if done.code:
            raise SystemExit(f"FAILED: {work}, {self.amount} {self.unit}: exit code {done.code}\n{' '.join(argv)}")
        print(f"{work}, {self.amount:,} {self.unit}: {done.wall:.1f} s", file=sys.stderr)
        return Step(work, self.unit, self.amount, done)


def many(place: Path, served: Path, count: int, size: int) -> Iterator[Step]:
    """The steps with so many files."""
    here = Bench(place, "file", count)
    oids, maps = static_hub(served, count, size)
    with Nginx(served, SERVED, maps=maps) as server:
        program, book = bench.with_hub(server.url(""), place / "hf"), small_catalog(place)
        get = ("get", "small", "--catalog", str(book), "--to", "models")
        yield here.mdl("get", *get, program=program)
        yield here.mdl("get, all there", *get, program=program)
    yield here.mdl("verify", "verify", "small", "--catalog", str(book), "--to", "models")
    yield here.mdl("pack", "pack", "models/small", "--all", "-o", "small.zip")
    yield here.mdl("unpack", "unpack", "small.zip", "--to", "out")
    there = sum(path.suffix == ".bin" for path in (place / "out").rglob("*"))
    if there != len(oids):
        raise SystemExit(f"FAILED: {there} files of {len(oids)} were unpacked")
    bench.put_aside(*(place / name for name in ("models", "out", "small.zip")))


def catalogs(place: Path, served: Path, count: int, size: int) -> Iterator[Step]:
    """The commands about all models of a catalog."""
    here = Bench(place, "model", count)
    oids, maps = static_hub(served, count, size)
    book = models_catalog(place, list(oids))
    with Nginx(served, SERVED, maps=maps) as server:
        program = bench.with_hub(server.url(""), place / "hf")
        for work, words in _OF_CATALOGS.items():
            yield here.mdl(work, *words.split(), "--catalog", str(book), program=program)


def large(place: Path, served: Path, gigabytes: int) -> Iterator[Step]:
    """The steps with a size."""
    here, size = Bench(place, "GB", gigabytes), gigabytes * _GB
    fits = shutil.disk_usage(place).free > size + _SPARE
    if not fits:
        print(f"SKIPPED: get and unpack of {gigabytes} GB: they do not fit on the disk", file=sys.stderr)
    if fits:
        sample = bench.sparse_file(served / "large.bin", size)
        with Nginx(served) as server:
            url = server.url(sample.path.name)
            book = bench.catalog(place / "large.toml", lambda _: url, {"large": sample})
            yield here.mdl("get", "get", "large", "--catalog", str(book), "--to", "models")
        yield here.mdl("verify", "verify", "large", "--catalog", str(book), "--to", "models")
        bench.remove(place / "models", sample.path)
    else:
        (place / "moved").mkdir()
        (place / "moved" / "large.bin").touch()
        (place / "moved" / "large.bin").open("r+b").truncate(size)
        yield here.mdl("import --move", "import", "moved", "--as", "large", "--move", "--yes", "--to", "models")
        yield here.mdl("verify", "verify", "large", "--to", "models")
        bench.remove(place / "models", place / "moved")
    sparse_run(place / "run", size)
    yield here.mdl("pack --compress store -o -", "pack", "run", "--all", "--compress", "store", "-o", "-")
    yield here.mdl("pack --compress deflate", "pack", "run", "--all", "--compress", "deflate", "-o", "run.zip")
    if fits:
        # Zeros pack a thousandfold.
        yield here.mdl("unpack", "unpack", "run.zip", "--to", "out", "--max-ratio", "2000")
        wrong = [
            one.name
            for one in (place / "run").iterdir()
            if (place / "out" / one.name).stat().st_size != one.stat().st_size
        ]
        if wrong:
            raise SystemExit(f"FAILED: {', '.join(wrong)} came out with another size")
    bench.remove(*(place / name for name in ("run", "out", "run.zip")))


def sparse_run(run: Path, size: int) -> None:
    """A run of about ``size`` bytes in three safetensors files, the last the largest."""
    run.mkdir()
    (run / "config.json").write_text("{}\n")
    for number, part in enumerate((size // 8, size // 8, size - 2 * (size // 8))):
        part -= part % 4
        head, _ = header("F32", 4, f"layers.{number}.{{}}.weight", part)
        with (run / f"part-{number + 1}.safetensors").open("wb") as file:
            file.write(head)
            file.truncate(len(head) + part)


def tell(steps: Sequence[Step], caption: str) -> None:
    """A table of the steps with one unit, and what is claimed of them."""
    unit = steps[0].unit
    plural, name, scale = ("GB", "s", 1) if unit == "GB" else (f"{unit}s", "ms", 1000)
    works = dict.fromkeys(one.work for one in steps)
    found = [[one for one in steps if one.work == work] for work in works]
    rows = [
        (
            one.work,
            f"{one.amount:,}",
            f"{one.run.wall:.2f}",
            f"{one.run.wall / one.amount * scale:.2f}",
            f"{one.cpu * scale:.2f}",
            f"{one.run.rss / 2**20:.0f}",
        )
        for same in found
        for one in same
    ]
    head = (
        "work",
        plural,
        "wall s",
        f"wall {name} a {unit}",
        f"CPU {name} a {unit}",
        "RSS MiB",
    )
    bench.table(head, rows, caption)
    for same in found:
        told = [one for one in same if one.amount >= _FIRST_TOLD[unit]]
        for less, more in pairwise(told):
            growth = more.cpu / less.cpu
            text = f"{more.work}: CPU a {unit} at {more.amount:,} is {growth:.2f} times that at {less.amount:,}"
            bench.claim(f"{text}, at most {_MOST_GROWTH}", growth <= _MOST_GROWTH)
    most = max(steps, key=lambda one: one.run.rss)
    memory = f"{most.work}, {most.amount:,} {plural}, takes the most memory, {most.run.rss / 2**20:.0f} MiB"
    bench.claim(f"{memory}, at most 100", most.run.rss <= _MOST_MEMORY)


def main() -> int:
    parser = bench.flags(__doc__, size="4K")
    parser.add_argument("--files", type=int, nargs="*", default=_FILES, help="[100 1000 10000 100000]")
    parser.add_argument("--gigabytes", type=int, nargs="*", default=_SIZES, help="[1 10 100]")
    parser.add_argument("--models", type=int, nargs="*", default=_MODELS, help="[1000 4000]")
    args = parser.parse_args()
    with bench.folder(args.dir) as place, bench.folder(bench.memory(2**30) or args.dir) as memory:
        found: list[Step] = []
        for count in args.files:
            work = place / f"{count}-files"
            work.mkdir()
            found += many(work, bench.remade(memory / "served"), count, args.size)
        if found:
            tell(found, f"More and more files of {bench.shown(args.size)}; one run each")
        found = []
        for gigabytes in args.gigabytes:
            found += large(bench.remade(place / "large"), bench.remade(place / "served"), gigabytes)
        if found:
            tell(found, "Larger and larger files, sparse; one run each")
        found = []
        for count in args.models:
            found += catalogs(bench.remade(place / "models"), bench.remade(memory / "served"), count, args.size)
        if found:
            tell(
                found,
                f"More and more models, each one file of {bench.shown(args.size)} of one repository; one run each",
            )
    return bench.verdict()


if __name__ == "__main__":
    raise SystemExit(main())
