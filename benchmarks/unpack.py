"""An archive that mdl packed, unpacked: mdl against unzip, Python's zipfile, 7z and bsdtar, deflated and stored.

The claim: mdl takes no longer than unzip -q, of the deflated archive of a bf16 run and of the stored one. Every
contender checks the CRC-32 of the archive; mdl also checks the sha256 of each file in the manifest, and syncs all of it
before it gives it its name. So unzip followed by a sync is told too, and with sha256; nothing is claimed of them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import harness as bench
from pack import made, missing, rows, sizes_in

_MDL, _UNZIP = "mdl unpack (sha256, fsync)", "unzip -q"
_UNZIP_SYNC, _UNZIP_HASHED = "unzip -q && sync", "unzip -q && sync && openssl sha256"


def contenders(place: Path, archive: Path, files: Mapping[str, int]) -> Iterator[bench.Contender]:
    """All that are installed; mdl and unzip must be."""
    out, name = place / "out", archive.name

    def one(title: str, *argv: str) -> bench.Contender:
        return bench.Contender(title, argv, lambda: bench.remove(out), lambda: missing(files, sizes_in(out)), [archive])

    each = "find out -type f -exec"
    synced = f"unzip -q {name} -d out && {each} sync {{}} +"
    yield one(_MDL, *bench.mdl("unpack", name, "--to", "out", "--progress", "none", "--quiet"))
    yield one(_UNZIP, "unzip", "-q", name, "-d", "out")
    yield one(_UNZIP_SYNC, "sh", "-c", synced)
    if bench.tool("openssl"):
        yield one(_UNZIP_HASHED, "sh", "-c", f"{synced} && {each} openssl dgst -sha256 {{}} +")
    yield one("python zipfile extractall", sys.executable, "-m", "zipfile", "-e", name, "out")
    if bench.tool("7z"):
        yield one("7z x", "7z", "x", "-bd", "-y", "-oout", name)
    if bench.tool("bsdtar"):
        yield one("bsdtar -xf", "sh", "-c", f"mkdir out && bsdtar -xf {name} -C out")


def measure(place: Path, compress: str, what: str, rounds: int, touch: int) -> None:
    env, archive, files = bench.environment(place / "home"), place / f"{compress}.zip", sizes_in(place / "run")
    pack = bench.mdl("pack", "run", "-o", archive.name, "--compress", compress, "--progress", "none", "--quiet")
    subprocess.run(pack, check=True, cwd=place, env=env, stdout=subprocess.DEVNULL)
    field = list(contenders(place, archive, files))
    runs, gib = bench.alternate(field, rounds, env, place, touch), sum(files.values()) / 2**30
    sizes = f"{archive.stat().st_size / 2**20:.1f} MiB, {gib:.2f} GiB unpacked"
    head = ("case", "wall s", "wall / mdl", "CPU s/GiB", "RSS MiB")
    bench.table(head, rows(runs, _MDL, gib), f"{what}: {sizes}; {rounds} alternating rounds")
    bench.compare(what, runs, _MDL, alike=(_UNZIP_SYNC, _UNZIP_HASHED))
    times = bench.faster(runs, _MDL, _UNZIP)
    bench.claim(f"mdl unpacks {times:.2f} times as fast as {_UNZIP}, at least 1.00", times >= 1)
    for name in (_UNZIP_SYNC, _UNZIP_HASHED):
        if name in runs:
            print(f"mdl unpacks {bench.faster(runs, _MDL, name):.2f} times as fast as {name}")
    subprocess.run(field[0].argv, check=True, cwd=place, env=env, stdout=subprocess.DEVNULL)
    right = [bench.sha256_of(place / "out" / name) == bench.sha256_of(place / "run" / name) for name in files]
    bench.claim("what mdl unpacks is the run, byte for byte", all(right))
    bench.remove(place / "out", archive)
    print()


def main() -> int:
    parser = bench.flags(__doc__, size="1G", rounds=5, touch=2)
    parser.add_argument("--only", choices=("a", "b"), help="a: the deflated archive; b: the stored one")
    args = parser.parse_args()
    if not bench.tool("unzip"):
        bench.skip("unzip is not on PATH")
    with bench.folder(args.dir) as place:
        made(place, args.size)
        for part, compress, what in (
            ("a", "auto", "Unpacking a run in bf16, deflated"),
            ("b", "store", "Unpacking a run in bf16, stored"),
        ):
            if args.only in (None, part):
                measure(place, compress, what, args.rounds, int(args.touch * 2**30))
    return bench.verdict()


if __name__ == "__main__":
    raise SystemExit(main())
