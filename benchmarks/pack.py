"""A run packed into a zip: mdl against zip, 7z and Python's zipfile, deflated and stored; what deflate does to data.

The claims: (a) of a bf16 run mdl makes an archive no larger than zip -6's, at least 8 times as fast as zip -1;
(b) stored, it takes at most 1 / 0.9 of the time of copying the run and then making its CRC and sha256, and less than
zip -0, zipfile and 7z -mx0; (c) isal's level 1, which mdl uses, packs weights no worse than zlib's level 6.

mdl makes the CRC-32 and sha256 of every file and the sha256 of the archive, and syncs it; the others make the CRC-32,
sync nothing and know no sha256. In (b) the checksums after cp are openssl's and cksum's one after the other: both beat
one pass of Python's zlib.crc32 and hashlib. One row runs them side by side, as mdl's two threads do; another lets 7z
do what mdl does, as far as it goes: sync, and the sha256 of the archive. Where cp shares blocks instead of copying
them (btrfs, xfs), it is no measure: choose another --dir.
The archives that take a minute a GiB are made once; their rows say so.
"""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import harness as bench
import weights

_MDL, _MDL_STORED = "mdl pack (sha256, fsync)", "mdl pack --compress store (sha256, fsync)"
_ZIP_0, _ZIP_1, _ZIP_6 = "zip -r -0", "zip -r -1", "zip -r -6"
_PYTHON_STORED, _PYTHON_6 = "python zipfile, stored", "python zipfile, deflate 6"
_SEVEN_0, _SEVEN_1 = "7z -tzip -mx0", "7z -tzip -mx1"
_SAME = "7z -mx0 && sync && openssl sha256"
_CP, _CP_SYNC = "cp -r", "cp -r && sync"
_HASHED, _HASHED_TWICE = "cp -r && openssl sha256 && cksum", "cp -r && (openssl sha256 & cksum)"

STORED = """
import pathlib, sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_STORED) as made:
    for path in sorted(pathlib.Path(sys.argv[2]).rglob("*")):
        made.write(path)
"""


class Field:
    """The contenders for one run, what they write, and how large that is."""

    def __init__(self, place: Path) -> None:
        self.place, self.sizes = place, dict[str, int]()
        self._zip, self._copy = place / "out.zip", place / "copy"
        self._files = sizes_in(place / "run")

    @property
    def gib(self) -> float:
        return sum(self._files.values()) / 2**30

    def deflated(self) -> Iterator[bench.Contender]:
        yield self._mdl(_MDL, "auto")
        yield from self._zips(_ZIP_1, "zip", "-q", "-r", "-1", "out.zip", "run")
        yield from self._zips(_SEVEN_1, "7z", "a", "-bd", "-tzip", "-mx1", "out.zip", "run")
        yield from self._zips(_ZIP_6, "zip", "-q", "-r", "-6", "out.zip", "run", once=True)
        yield from self._zips(_PYTHON_6, sys.executable, "-m", "zipfile", "-c", "out.zip", "run", once=True)

    def stored(self) -> Iterator[bench.Contender]:
        seven = ("7z", "a", "-bd", "-tzip", "-mx0", "out.zip", "run")
        yield self._mdl(_MDL_STORED, "store")
        yield from self._zips(_ZIP_0, "zip", "-q", "-r", "-0", "out.zip", "run")
        yield from self._zips(_PYTHON_STORED, sys.executable, "-c", STORED, "out.zip", "run")
        yield from self._zips(_SEVEN_0, *seven)
        if bench.tool("7z") and bench.tool("openssl"):
            same = f"{' '.join(seven)} && sync out.zip && openssl dgst -sha256 out.zip"
            yield from self._zips(_SAME, "sh", "-c", same)
        each = "find copy -type f -exec"
        yield self._one(_CP, ["cp", "-r", "run", "copy"])
        yield self._one(_CP_SYNC, ["sh", "-c", f"cp -r run copy && {each} sync {{}} +"])
        if bench.tool("openssl") and bench.tool("cksum"):
            sha256, crc = f"{each} openssl dgst -sha256 {{}} +", f"{each} cksum {{}} +"
            yield self._one(_HASHED, ["sh", "-c", f"cp -r run copy && {sha256} && {crc}"])
            yield self._one(_HASHED_TWICE, ["sh", "-c", f"cp -r run copy && {{ {sha256} & {crc} && wait $!; }}"])

    def _mdl(self, name: str, compress: str) -> bench.Contender:
        words = ("pack", "run", "-o", "out.zip", "--compress", compress, "--progress", "none", "--quiet")
        return self._one(name, bench.mdl(*words))

    def _zips(self, name: str, program: str, *arguments: str, once: bool = False) -> Iterator[bench.Contender]:
        """Nothing if the program is not installed."""
        if bench.tool(program):
            yield self._one(name, [program, *arguments], once)

    def _one(self, name: str, argv: list[str], once: bool = False) -> bench.Contender:
        reads = [self.place / "run" / file for file in self._files]
        return bench.Contender(
            name, argv, lambda: bench.remove(self._zip, self._copy), lambda: self._check(name), reads, once
        )

    def _check(self, name: str) -> str:
        if self._zip.exists():
            self.sizes[name] = self._zip.stat().st_size
            with zipfile.ZipFile(self._zip) as made:
                held = {Path(one.filename).name: one.file_size for one in made.infolist() if not one.is_dir()}
        else:
            held = sizes_in(self._copy)
            self.sizes[name] = sum(held.values())
        return missing(self._files, held)


def sizes_in(place: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in place.iterdir()}


def missing(files: Mapping[str, int], held: Mapping[str, int]) -> str:
    """What is wrong with what a contender wrote."""
    wrong = [name for name, size in files.items() if held.get(name) != size]
    return f"not in it, or of another size: {', '.join(wrong)}" if wrong else ""


def rows(runs: Mapping[str, Sequence[bench.Run]], base: str, gib: float) -> list[list[str]]:
    """A row for each contender; one that ran only once is compared with the median of ``base``."""
    return [
        [
            name if len(done) == len(runs[base]) else f"{name} (once)",
            bench.span([one.wall for one in done]),
            bench.span(bench.ratios(done, runs[base])),
            bench.span([one.cpu / gib for one in done]),
            bench.mib(done),
        ]
        for name, done in runs.items()
    ]


def report(field: Field, runs: Mapping[str, Sequence[bench.Run]], base: str, what: str) -> None:
    head = ("case", "wall s", "wall / mdl", "CPU s/GiB", "RSS MiB", "written MiB", "of the run")
    sizes = [field.sizes[name] for name in runs]
    sized = [[f"{size / 2**20:.1f}", f"{size / field.gib / 2**30:.1%}"] for size in sizes]
    found = [[*row, *size] for row, size in zip(rows(runs, base, field.gib), sized, strict=True)]
    bench.table(head, found, f"{what}, of {field.gib:.2f} GiB; {len(runs[base])} alternating rounds")
    bench.compare(what, runs, base, alike=(_SAME, _CP_SYNC, _HASHED, _HASHED_TWICE))


def deflated(field: Field, rounds: int, env: Mapping[str, str], touch: int) -> None:
    runs = bench.alternate(list(field.deflated()), rounds, env, field.place, touch)
    report(field, runs, _MDL, "Packing a run in bf16, deflated")
    if _ZIP_1 in runs:
        times = bench.faster(runs, _MDL, _ZIP_1)
        bench.claim(f"mdl packs {times:.1f} times as fast as {_ZIP_1}, at least 8", times >= 8)
    if _ZIP_6 in runs:
        mine, other = field.sizes[_MDL], field.sizes[_ZIP_6]
        bench.claim(f"mdl's archive of {mine:,} bytes is no larger than {_ZIP_6}'s of {other:,}", mine <= other)


def stored(field: Field, rounds: int, env: Mapping[str, str], touch: int) -> None:
    runs = bench.alternate(list(field.stored()), rounds, env, field.place, touch)
    report(field, runs, _MDL_STORED, "Packing a run in bf16, stored")
    for name, least in ((_HASHED, 0.9), (_ZIP_0, 1.0), (_PYTHON_STORED, 1.0), (_SEVEN_0, 1.0)):
        if name in runs:
            times = bench.faster(runs, _MDL_STORED, name)
            bench.claim(f"mdl is {times:.2f} times as fast as {name}, at least {least}", times >= least)
    for name in (_HASHED_TWICE, _SAME):
        if name in runs:
            print(f"mdl is {bench.faster(runs, _MDL_STORED, name):.2f} times as fast as {name}")


def data(size: int) -> None:
    """What is left of each kind of data. The kinds are those of the weights module."""
    try:
        from isal import isal_zlib
    except ImportError:
        print("SKIPPED: (c), there is no isal here", file=sys.stderr)
        return
    found, better = [], []
    for name in (*weights.KINDS, "tokenizer.json", "trainer_state.json", "train.log"):
        block = weights.sample(name, size if name in weights.KINDS else min(size, 4 * 2**20))
        mine, speed = _left(block, lambda block: isal_zlib.compress(block, 1, -15))
        other, slower = _left(block, lambda block: zlib.compress(block, 6, -15))
        found.append((name, f"{mine:.1%}", f"{speed:.0f}", f"{other:.1%}", f"{slower:.0f}"))
        if name in weights.KINDS:
            better.append(mine <= other)
    what = f"What deflate leaves: {bench.shown(size)} of numbers, at most 4 MiB of text, one pass each"
    bench.table(("data", "isal 1", "MB/s", "zlib 6", "MB/s"), found, what)
    bench.claim("isal 1 leaves no more than zlib 6 of any kind of numbers", all(better))


def _left(block: bytes, pack: Callable[[bytes], bytes]) -> tuple[float, float]:
    """What is left of it, and megabytes in a CPU second."""
    began = time.process_time()
    left = len(pack(block)) / len(block)
    return left, len(block) / 1e6 / max(time.process_time() - began, 1e-9)


def made(place: Path, size: int) -> None:
    """The run at ``place``/run, made by a separate process."""
    command = [sys.executable, str(Path(__file__).with_name("weights.py")), str(place / "run"), "--size", str(size)]
    subprocess.run(command, check=True)


def main() -> int:
    parser = bench.flags(__doc__, size="1G", rounds=5, touch=2)
    parser.add_argument("--only", choices=("a", "b", "c"), help="one part of it")
    args = parser.parse_args()
    with bench.folder(args.dir) as place:
        env = bench.environment(place / "home")
        if args.only != "c":
            made(place, args.size)
            for part, measure in (("a", deflated), ("b", stored)):
                if args.only in (None, part):
                    measure(Field(place), args.rounds, env, int(args.touch * 2**30))
                    print()
    if args.only in (None, "c"):
        data(min(args.size, 16 * 2**20))
    return bench.verdict()


if __name__ == "__main__":
    raise SystemExit(main())
