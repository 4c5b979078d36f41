"""Peak memory of mdl, whatever the size: below 100 MiB for get, at most 100 MiB for pack and unpack.

Files of 1 GiB and 20 GiB are downloaded; with --pack a run of 20 GiB with a file of more than 4 GiB is packed and
unpacked. What is served or packed is sparse; what comes out is not, so the disk needs room for the largest. The run
packs to almost nothing, so one row stores it: there 20 GiB go out, to /dev/null.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import harness as bench
from nginx import Nginx
from weights import header

_MOST = 100 * 2**20
_SPARE = 2**30


def measured(place: Path, name: str, argv: list[str]) -> bench.Run:
    bench.settle(0)
    done = bench.run(argv, bench.environment(place / "home"), place)
    if done.code:
        raise SystemExit(f"FAILED: {name}: exit code {done.code}")
    print(f"{name}: {done.wall:.0f} s", file=sys.stderr)
    return done


def downloads(place: Path, size: int, connections: list[int]) -> Iterator[tuple[str, float, bench.Run]]:
    """One file of ``size``, once for each number of connections."""
    sample = bench.sparse_file(place / f"{size}.bin", size)
    with Nginx(place) as server:
        for count in connections:
            bench.remove(place / "models")
            name = f"get of {bench.shown(size)}, {count} connections"
            argv = bench.mdl_get(place, sample, server.url(sample.path.name), "--connections", str(count))
            done = measured(place, name, argv)
            if (place / "models" / "bench" / sample.path.name).stat().st_size != size:
                raise SystemExit(f"FAILED: {name}: not all is there")
            yield name, size / 2**30, done
    bench.remove(place / "models")


def sparse_run(place: Path, size: int) -> int:
    """A run at ``place``/run of about ``size`` bytes in three safetensors files, the last the largest; its bytes."""
    (place / "run").mkdir()
    (place / "run" / "config.json").write_text("{}\n")
    for number, part in enumerate((size // 8, size // 8, size - 2 * (size // 8))):
        part -= part % 4
        head, _ = header("F32", 4, f"layers.{number}.{{}}.weight", part)
        with (place / "run" / f"part-{number + 1}.safetensors").open("wb") as file:
            file.write(head)
            file.truncate(len(head) + part)
    return sum(path.stat().st_size for path in (place / "run").iterdir())


def packs(place: Path, size: int, stored: bool) -> Iterator[tuple[str, float, bench.Run]]:
    """A sparse run packed in several ways, and unpacked."""
    size = sparse_run(place, size)

    def mdl_run(name: str, *words: str) -> tuple[str, float, bench.Run]:
        return name, size / 2**30, measured(place, name, bench.mdl(*words, "--progress", "none", "--quiet"))

    def unpacked(name: str, archive: str) -> tuple[str, float, bench.Run]:
        found = mdl_run(name, "unpack", archive, "--to", "out", "--max-ratio", "2000")  # zeros pack a thousandfold
        there = sum((place / "out" / path.name).stat().st_size for path in (place / "run").iterdir())
        if there != size:
            raise SystemExit(f"FAILED: {name}: {there} bytes of {size}")
        bench.remove(place / "out", place / archive)
        return found

    yield mdl_run("pack --compress deflate to a file", "pack", "run", "--compress", "deflate", "-o", "auto.zip")
    yield unpacked("unpack", "auto.zip")
    yield mdl_run("pack -o -", "pack", "run", "-o", "-")
    yield mdl_run("pack --compress store -o -", "pack", "run", "--compress", "store", "-o", "-")
    if stored:
        yield mdl_run("pack --compress store to a file", "pack", "run", "--compress", "store", "-o", "store.zip")
        yield unpacked("unpack, stored", "store.zip")


def main() -> int:
    parser = bench.flags(__doc__)
    parser.add_argument("--size", type=bench.size_of, nargs="+", default=[2**30, 20 * 2**30], help="sizes [1G 20G]")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8], help="mdl's --connections [1 8]")
    parser.add_argument("--pack", action="store_true", help="pack and unpack instead, a run of the largest size")
    parser.add_argument("--stored", action="store_true", help="with --pack: also a stored archive, in twice the room")
    args = parser.parse_args()
    found: list[tuple[str, float, bench.Run]] = []
    with bench.folder(args.dir) as place:
        free, needed = shutil.disk_usage(place).free, max(args.size) * (1 + args.stored) + _SPARE
        if free < needed:
            bench.skip(f"{bench.shown(needed)} do not fit into {bench.shown(free)}; give --dir or --size")
        if args.pack:
            found += packs(place, max(args.size), args.stored)
        else:
            for size in args.size:
                found += downloads(place, size, args.connections)
    rows = [(name, f"{one.rss / 2**20:.1f}", f"{one.wall:.1f}", f"{one.cpu / gib:.2f}") for name, gib, one in found]
    bench.table(("mdl", "peak RSS MiB", "wall s", "CPU s/GiB"), rows)
    print(f"\none run each; {bench.machine()}")
    worst = max(one.rss for _, _, one in found)
    bench.claim(f"peak RSS {worst / 2**20:.1f} MiB is below 100 MiB", worst < _MOST)
    return bench.verdict()


if __name__ == "__main__":
    raise SystemExit(main())
