"""Many small files packed, unpacked and verified: mdl beside zip, unzip and sha256sum.

The claim: mdl takes at most 1.1 times as long as the best of them. When it packs and unpacks, mdl also makes the
sha256 of every file, and it syncs what it wrote, so the others are told with these steps too; of those rows nothing is
claimed. Nor is it of Python's own zipfile. What was unpacked on the disk is told; the claim is for the same in memory,
as ext4 makes files several times as slowly where others were deleted just now. What is verified was imported before:
mdl compares every file with its receipt.
"""

from __future__ import annotations

import random
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import harness as bench
from pack import STORED

_FOLDERS = 50
_CORES = 2
_PACK, _UNPACK, _VERIFY = "mdl pack (sha256, fsync)", "mdl unpack (sha256, fsync)", "mdl verify"


def write_files(folder: Path, count: int, size: int) -> None:
    """Bytes that do not compress, in some folders."""
    draw = random.Random(1)
    for number in range(count):
        path = folder / f"part{number % _FOLDERS:02}" / f"{number:06}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw.randbytes(size))


def contents(folder: Path) -> list[tuple[str, int]]:
    """Name and size of each of these files, wherever it is in the folder."""
    return sorted((path.name, path.stat().st_size) for path in folder.rglob("*.bin"))


def measure(place: Path, what: str, field: Sequence[bench.Contender], rounds: int, peers: int) -> None:
    """Run the contenders, mdl first, and compare it with the ``peers`` after it; the rest is only told."""
    present = [one for one in field if one.argv[0] in ("sh", field[0].argv[0]) or bench.tool(one.argv[0])]
    runs = bench.alternate(present, rounds, bench.environment(place / "home"), place)
    mine = field[0].name
    rows = [
        (
            name,
            bench.span([one.wall for one in done]),
            f"{statistics.median(bench.ratios(done, runs[mine])):.2f}",
            bench.span([one.cpu for one in done]),
            bench.mib(done),
        )
        for name, done in runs.items()
    ]
    head = ("case", "wall s", "wall / mdl", "CPU s", "RSS MiB")
    bench.table(head, rows, f"{what}; {rounds} alternating rounds")
    bench.compare(what, runs, mine, alike=[one.name for one in field if "sync" in one.name])
    slower = {one.name: 1 / bench.faster(runs, mine, one.name) for one in field[1 : 1 + peers] if one.name in runs}
    for name, times in slower.items():
        bench.claim(f"mdl takes {times:.2f} times as long as {name} (median), at most 1.1", times <= 1.1)
    print()


def packing(place: Path) -> list[bench.Contender]:
    def one(name: str, argv: Sequence[str], out: str) -> bench.Contender:
        return bench.Contender(name, argv, lambda: bench.remove(place / out))

    mdl = bench.mdl("pack", "run", "-o", "mdl.zip", "--progress", "none", "--quiet")
    synced = "zip -q -r -0 z.zip run && sync z.zip && sha256sum z.zip && find run -type f -exec sha256sum {} +"
    return [
        one(_PACK, mdl, "mdl.zip"),
        one("zip -r -0", ["zip", "-q", "-r", "-0", "z.zip", "run"], "z.zip"),
        one("zip -r -1", ["zip", "-q", "-r", "-1", "z.zip", "run"], "z.zip"),
        one("zip -r -0 && sync && sha256sum of all", ["sh", "-c", synced], "z.zip"),
        one("mdl pack --compress store", [*mdl, "--compress", "store"], "mdl.zip"),
        one("python zipfile, stored", [sys.executable, "-c", STORED, "z.zip", "run"], "z.zip"),
    ]


def unpacking(place: Path, archive: Path, packed: Sequence[tuple[str, int]]) -> list[bench.Contender]:
    """Into ``place``; the names and sizes that must come out are those ``packed``."""
    out = place / "out"

    def check() -> str:
        return "" if contents(out) == packed else "other files came out than went in"

    def one(name: str, argv: Sequence[str]) -> bench.Contender:
        return bench.Contender(name, argv, lambda: bench.put_aside(out), check)

    steps = ("unzip -q {} -d out", "find out -type f -exec sync {{}} +", "find out -type f -exec sha256sum {{}} +")
    synced = " && ".join(steps).format(shlex.quote(str(archive)))
    return [
        one(_UNPACK, bench.mdl("unpack", str(archive), "--to", "out", "--progress", "none", "--quiet")),
        one("unzip -q", ["unzip", "-q", str(archive), "-d", "out"]),
        one("unzip -q && sync && sha256sum of all", ["sh", "-c", synced]),
        one("python zipfile", [sys.executable, "-m", "zipfile", "-e", str(archive), "out"]),
    ]


def verifying(place: Path) -> list[bench.Contender]:
    models = place / "models"
    sums = f"find {shlex.quote(str(models / 'many'))} -type f -print0 | xargs -0 -n 100 -P"
    return [
        bench.Contender(_VERIFY, bench.mdl("verify", "many", "--to", str(models), "--progress", "none", "--quiet")),
        bench.Contender(f"openssl, {_CORES} at once", ["sh", "-c", f"{sums} {_CORES} openssl dgst -sha256"]),
        bench.Contender(f"sha256sum, {_CORES} at once", ["sh", "-c", f"{sums} {_CORES} sha256sum"]),
        bench.Contender("sha256sum", ["sh", "-c", f"{sums} 1 sha256sum"]),
    ]


def main() -> int:
    parser = bench.flags(__doc__, size="4K", rounds=3)
    parser.add_argument("--files", type=int, default=20_000, help="that are packed and unpacked [20000]")
    parser.add_argument("--verified", type=int, default=2_000, help="that are verified [2000]")
    parser.add_argument(
        "--larger", type=bench.size_of, default=2**20, help="of those that are verified after that [1M]"
    )
    args = parser.parse_args()
    with bench.folder(args.dir) as place:
        env = bench.environment(place / "home")

        def done(*words: str) -> None:
            subprocess.run(bench.mdl(*words), check=True, cwd=place, env=env, stdout=subprocess.DEVNULL)

        write_files(place / "run/model", args.files, args.size)
        kinds = f"{args.files:,} files of {bench.shown(args.size)}"
        measure(place, f"Packing {kinds}", packing(place), args.rounds, peers=2)
        done("pack", "run", "-o", "run.zip", "--quiet")
        archive, packed = place / "run.zip", contents(place / "run")
        measure(place, f"Unpacking {kinds}", unpacking(place, archive, packed), args.rounds, peers=0)
        if memory := bench.memory(16 * args.rounds * args.files * args.size):
            with bench.folder(memory) as there:
                field = unpacking(there, archive, packed)
                measure(there, f"Unpacking {kinds} in memory", field, args.rounds, peers=1)
        for size in (args.size, args.larger):
            write_files(bench.remade(place / "many"), args.verified, size)
            done("import", "many", "--as", "many", "--move", "--to", str(place / "models"), "--yes", "--quiet")
            what = f"Verifying {args.verified:,} files of {bench.shown(size)}"
            measure(place, what, verifying(place), args.rounds, peers=3)
            bench.remove(place / "models")
    return bench.verdict()


if __name__ == "__main__":
    raise SystemExit(main())
