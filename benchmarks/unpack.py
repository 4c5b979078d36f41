"""An archive that mdl packed, unpacked: mdl against unzip, Python's zipfile, 7z and bsdtar, deflated and stored.

The claim: mdl takes no longer than unzip -q, of the deflated archive of a bf16 run and of the stored one. Every
contender holds the CRC-32 against the archive; mdl also holds the sha256 of each file against the manifest, and syncs
all of it before it gives it its name. So unzip followed by a sync is told too, and with sha256; nothing is claimed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from nginx import SKIPPED
from pack import faster, floor, made, rows
from runs import Contender, Run, alternate, claim, machine, table
from scene import common_flags, environment, folder, remove, sha256_of, skip, tool

_MDL, _UNZIP = "mdl unpack (sha256, fsync)", "unzip -q"
_UNZIP_SYNC, _UNZIP_HASHED = "unzip -q && sync", "unzip -q && sync && openssl sha256"
_PYTHON, _SEVEN, _BSDTAR = "python zipfile extractall", "7z x", "bsdtar -xf"


class Scene:
    """One archive, and the run it was made of."""

    def __init__(self, place: Path, compress: str, env: Mapping[str, str]) -> None:
        self.place, self._out = place, place / "out"
        self.archive = place / f"{compress}.zip"
        command = [sys.executable, "-m", "mdl", "pack", "run", "-o", self.archive.name, "--compress", compress]
        quiet = ["--progress", "none", "--quiet"]
        subprocess.run([*command, *quiet], check=True, cwd=place, env=env, stdout=subprocess.DEVNULL)
        self._files = {path.name: path.stat().st_size for path in (place / "run").iterdir()}

    @property
    def gib(self) -> float:
        return sum(self._files.values()) / 2**30

    def contenders(self) -> list[Contender]:
        """All that are installed; mdl and unzip must be."""
        name = self.archive.name
        each = "find out -type f -exec"
        synced = f"unzip -q {name} -d out && {each} sync {{}} +"
        mdl = [sys.executable, "-m", "mdl", "unpack", name, "--to", "out", "--progress", "none", "--quiet"]
        found = [self._one(_MDL, *mdl), self._one(_UNZIP, "unzip", "-q", name, "-d", "out")]
        found.append(self._one(_UNZIP_SYNC, "sh", "-c", synced))
        if tool("openssl"):
            found.append(self._one(_UNZIP_HASHED, "sh", "-c", f"{synced} && {each} openssl dgst -sha256 {{}} +"))
        found.append(self._one(_PYTHON, sys.executable, "-m", "zipfile", "-e", name, "out"))
        if tool("7z"):
            found.append(self._one(_SEVEN, "7z", "x", "-bd", "-y", "-oout", name))
        if tool("bsdtar"):
            found.append(self._one(_BSDTAR, "sh", "-c", f"mkdir out && bsdtar -xf {name} -C out"))
        return found

    def _one(self, name: str, *argv: str) -> Contender:
        return Contender(name, argv, lambda: remove(self._out), self._whole, [self.archive])

    def _whole(self) -> str:
        """What is missing; bytes are compared once, by `right`."""
        wrong = [name for name, size in self._files.items() if self._size(name) != size]
        return f"not there, or of another size: {', '.join(wrong)}" if wrong else ""

    def _size(self, name: str) -> int:
        path = self._out / name
        return path.stat().st_size if path.exists() else -1

    def right(self, env: Mapping[str, str]) -> bool:
        """Unpack once more and compare every byte with the run."""
        argv = self.contenders()[0].argv
        subprocess.run(argv, check=True, cwd=self.place, env=env, stdout=subprocess.DEVNULL)
        same = all(sha256_of(self._out / name) == sha256_of(self.place / "run" / name) for name in self._files)
        remove(self._out)
        return same


def measure(scene: Scene, what: str, rounds: int, env: Mapping[str, str], touch: int) -> bool:
    runs: dict[str, list[Run]] = alternate(scene.contenders(), rounds, env, scene.place, touch)
    table(("case", "wall s", "wall / mdl", "CPU s/GiB", "RSS MiB"), rows(runs, _MDL, scene.gib))
    packed = scene.archive.stat().st_size / 2**20
    print(f"\n{what}: {packed:.1f} MiB, unpacked {scene.gib:.2f} GiB; {rounds} alternating rounds; {machine()}")
    print(floor())
    times = faster(runs, _MDL, _UNZIP)
    holds = claim(f"mdl unpacks {times:.2f} times as fast as {_UNZIP}, at least 1.00", times >= 1)
    for name in (_UNZIP_SYNC, _UNZIP_HASHED):
        if name in runs:
            print(f"mdl unpacks {faster(runs, _MDL, name):.2f} times as fast as {name}; nothing is claimed")
    return claim("what mdl unpacks is the run, byte for byte", scene.right(env)) and holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common_flags(parser, "1G")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("a", "b"), help="a: the deflated archive; b: the stored one")
    parser.add_argument("--touch", type=float, default=2, metavar="GIB", help="memory to use once before each run [2]")
    args = parser.parse_args()
    if not tool("unzip"):
        skip("unzip is not on PATH", SKIPPED)
    holds = []
    with folder(args.dir) as place:
        env = environment(place / "home")
        made(place, args.size)
        for part, compress, what in (("a", "auto", "(a) a bf16 run, deflated"), ("b", "store", "(b) the same, stored")):
            if args.only in (None, part):
                scene = Scene(place, compress, env)
                holds.append(measure(scene, what, args.rounds, env, int(args.touch * 2**30)))
                remove(scene.archive)
                print()
    return 0 if all(holds) else 1


if __name__ == "__main__":
    raise SystemExit(main())
