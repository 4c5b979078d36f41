"""Peak memory of mdl pack and mdl unpack for a run of 20 GiB with a file of more than 4 GiB: at most 100 MiB.

The run's files are sparse and pack to almost nothing, so one row stores them: there 20 GiB go out, to /dev/null.
What is unpacked is not sparse: the disk needs room for the whole run, and --stored for twice as much.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from nginx import SKIPPED
from runs import Run, claim, machine, run, settle, table
from scene import environment, folder, remove, shown, size_of, skip
from weights import header

_MOST = 100 * 2**20
_SPARE = 2**30
_ZEROS = "2000"
"""mdl refuses more than 200 to 1; a run of zeros packs a thousandfold."""


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


def measure(place: Path, size: int, flags: list[str]) -> Run:
    """Run mdl once. What goes to standard output is thrown away: /dev/null takes it."""
    settle(0)
    quiet = ["--progress", "none", "--quiet"]
    done = run([sys.executable, "-m", "mdl", *flags, *quiet], environment(place / "home"), place)
    if done.code:
        raise SystemExit(f"FAILED: mdl {' '.join(flags)} of {shown(size)}: exit code {done.code}")
    print(f"mdl {' '.join(flags)}: {done.wall:.0f} s", file=sys.stderr)
    return done


def unpacked(place: Path, archive: str, size: int) -> Run:
    """Unpack, and see that all is there."""
    done = measure(place, size, ["unpack", archive, "--to", "out", "--max-ratio", _ZEROS])
    there = sum(path.stat().st_size for path in (place / "out").iterdir() if (place / "run" / path.name).exists())
    if there != size:
        raise SystemExit(f"FAILED: mdl unpack {archive}: {there} bytes of {size}")
    remove(place / "out", place / archive)
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=size_of, default=size_of("20G"), help="bytes of the run [20G]")
    parser.add_argument("--stored", action="store_true", help="also a stored archive on the disk: twice the room")
    parser.add_argument("--dir", type=Path, help="folder on the disk to fill [the system's temporary folder]")
    args = parser.parse_args()
    found: list[tuple[str, Run]] = []
    with folder(args.dir) as place:
        free, needed = shutil.disk_usage(place).free, args.size * (2 if args.stored else 1) + _SPARE
        if free < needed:
            skip(f"{shown(needed)} do not fit into {shown(free)}; give --dir or --size", SKIPPED)
        size = sparse_run(place, args.size)
        largest = max(path.stat().st_size for path in (place / "run").iterdir())
        deflate = ["pack", "run", "--compress", "deflate", "-o", "auto.zip"]
        found.append(("pack --compress deflate to a file", measure(place, size, deflate)))
        found.append(("unpack", unpacked(place, "auto.zip", size)))
        found.append(("pack -o -", measure(place, size, ["pack", "run", "-o", "-"])))
        store = ["pack", "run", "--compress", "store", "-o"]
        found.append(("pack --compress store -o -", measure(place, size, [*store, "-"])))
        if args.stored:
            found.append(("pack --compress store to a file", measure(place, size, [*store, "store.zip"])))
            found.append(("unpack, stored", unpacked(place, "store.zip", size)))
    gib, worst = size / 2**30, max(done.rss for _, done in found)
    rows = [(what, f"{one.rss / 2**20:.1f}", f"{one.wall:.1f}", f"{one.cpu / gib:.2f}") for what, one in found]
    table(("mdl", "peak RSS MiB", "wall s", "CPU s/GiB"), rows)
    print(f"\n{gib:.1f} GiB of zeros, one file of {largest / 2**30:.1f} GiB; one run each; {machine()}")
    return 0 if claim(f"peak RSS {worst / 2**20:.1f} MiB is at most 100 MiB", worst <= _MOST) else 1


if __name__ == "__main__":
    raise SystemExit(main())
