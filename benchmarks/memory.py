"""Peak memory of mdl for a file of 1 GiB and one of 20 GiB: the same, and below 100 MiB.

The served files are sparse; the downloaded ones are not, so the disk needs room for the largest.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from nginx import SKIPPED, Nginx
from runs import Run, claim, machine, run, settle, table
from scene import catalog, environment, folder, mdl_get, remove, shown, size_of, skip, sparse_file

_MOST = 100 * 2**20
_SPARE = 2**30


def measure(place: Path, size: int, connections: list[int]) -> list[tuple[int, Run]]:
    """Download one file of ``size`` once for each number of connections."""
    sample, found = sparse_file(place / f"{size}.bin", size), []
    env = environment(place / "home")
    with Nginx(place) as server:
        book = catalog(place / "catalog.toml", sample, server.url(sample.path.name))
        for count in connections:
            remove(place / "models")
            settle(0)
            done = run(mdl_get(book, place / "models", "--connections", str(count)), env, place)
            file = place / "models" / "bench" / sample.path.name
            if done.code or file.stat().st_size != size:
                raise SystemExit(f"FAILED: mdl get of {shown(size)}: exit code {done.code}")
            found.append((count, done))
    remove(place / "models")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=size_of, nargs="+", default=[2**30, 20 * 2**30], help="sizes [1G 20G]")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8], help="mdl's --connections [1 8]")
    parser.add_argument("--dir", type=Path, help="folder on the disk to fill [the system's temporary folder]")
    args = parser.parse_args()
    rows, worst = [], 0
    with folder(args.dir) as place:
        free = shutil.disk_usage(place).free
        if free < max(args.size) + _SPARE:
            skip(f"{shown(max(args.size))} does not fit into {shown(free)}; give --dir or --size", SKIPPED)
        for size in args.size:
            for count, done in measure(place, size, args.connections):
                worst = max(worst, done.rss)
                wall, cpu = f"{done.wall:.1f}", f"{done.cpu / (size / 2**30):.2f}"
                rows.append((shown(size), str(count), f"{done.rss / 2**20:.1f}", wall, cpu))
    table(("size", "connections", "peak RSS MiB", "wall s", "CPU s/GiB"), rows)
    print(f"\none run each; {machine()}")
    return 0 if claim(f"peak RSS {worst / 2**20:.1f} MiB is below 100 MiB", worst < _MOST) else 1


if __name__ == "__main__":
    raise SystemExit(main())
