"""Releases killed with SIGKILL, at random moments and before every call that changes the disk; and a reader all along.

The claims: whatever the moment, 'current' leads to a whole release, the history can be read, and the same command
again ends right and leaves nothing; and of thousands of switches a reader of current/model.bin never sees one.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from runs import claim, machine, table
from scene import environment, folder

from mdl.archive.manifest import NAME, Manifest, ManifestEntry
from mdl.archive.releases import ReleaseDir
from mdl.operations.release import release, rollback

_OWN = {".mdl", "current", "releases", "releases.json"}
_CALLS = (
    "?mkdir,?mkdirat,?fsync,?fdatasync,?rename,?renameat,?renameat2,?link,?linkat,?symlink,?symlinkat,"
    "?unlink,?unlinkat,?rmdir,?chmod,?fchmodat,?ftruncate"
)
_HEAD = ("killed at", "kills", "before the switch", "recovered", "left over", "not in the history")
_CHILD = """\
import pathlib, sys
from mdl.operations.release import release
print("ready", flush=True)
release(*map(pathlib.Path, sys.argv[1:]), keep=1)
"""
_READER = """\
import hashlib, signal, sys
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
path, until_miss, known = sys.argv[1], sys.argv[2] == "1", set(sys.argv[3:])
reads, misses, seen = 0, 0, set()
print("ready", flush=True)
while not stop and not (misses and until_miss):
    reads += 1
    try:
        digest = hashlib.sha256(open(path, "rb").read()).hexdigest()
    except OSError:
        digest = ""
    seen.add(digest)
    misses += digest not in known
print(reads, misses, len(seen & known))
"""


@dataclass(frozen=True)
class Found:
    """What a kill left: what is ``wrong`` there, and ``again`` once the same command was run again; ``strays`` are
    still there then, ``recorded`` tells whether the history knows of the release."""

    killed: bool
    served: str
    wrong: str
    again: str
    strays: tuple[str, ...]
    recorded: bool


class Scene:
    """Archives a, b and c, and a folder where those of ``before`` were released; c is the one to be killed."""

    def __init__(self, place: Path, before: str = "ab", size: int = 2**18) -> None:
        self.place, self.env, self.before = place, environment(place / "home"), before[-1:]
        draw = random.Random(1)
        shared = {"config.json": b"{}\n"} | {f"text/{number}.txt": draw.randbytes(999) for number in range(3)}
        self.files = {one: shared | {"model.bin": one.encode() + draw.randbytes(size)} for one in "abc"}
        self.versions = {one: self._pack(one) for one in "abc"}
        self.base = place / "base"
        self.base.mkdir()
        for one in before:
            self.release(one, self.base)

    def _pack(self, one: str) -> str:
        lines = [ManifestEntry(name, len(data), _sha256(data)) for name, data in self.files[one].items()]
        manifest = Manifest(tuple(lines), step=ord(one))
        with zipfile.ZipFile(self.place / f"{one}.zip", "w") as archive:
            for name, data in self.files[one].items():
                archive.writestr(name, data)
            archive.writestr(NAME, manifest.to_json())
        return manifest.version

    def release(self, one: str, folder: Path) -> None:
        release(self.place / f"{one}.zip", folder, keep=1)

    def fresh(self, name: str) -> Path:
        return Path(shutil.copytree(self.base, self.place / name, symlinks=True))

    def child(self, folder: Path, *prefix: str) -> subprocess.Popen[str]:
        """A release of c, in a process of its own."""
        command = [*prefix, sys.executable, "-c", _CHILD, str(self.place / "c.zip"), str(folder)]
        return subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def look(self, code: int, folder: Path) -> Found:
        """What is there now, and after the same command again; the folder is removed then."""
        served, wrong = self._served(folder), _told(lambda: self._wrong(folder))
        again = _told(lambda: self._again(folder))
        strays = [re.sub("[0-9a-f]{12}", "<hex>", one.name) for one in folder.iterdir() if one.name not in _OWN]
        known, record = {self.versions["b"], self.versions["c"]}, folder / "releases.json"
        strays += [f"releases/{one.name}" for one in (folder / "releases").iterdir() if one.name not in known]
        recorded = record.exists() and self.versions["c"] in record.read_text()
        shutil.rmtree(folder)
        return Found(code == -signal.SIGKILL, served, wrong, again, tuple(strays), recorded)

    def _served(self, folder: Path) -> str:
        return {version: one for one, version in self.versions.items()}.get(ReleaseDir(folder).active(), "")

    def _wrong(self, folder: Path) -> str:
        served, place = self._served(folder), folder / "current"
        with contextlib.suppress(FileNotFoundError):
            json.loads((folder / "releases.json").read_bytes())
        if not (self.before or place.is_symlink()):
            return ""
        if served not in (self.before, "c"):
            return f"current leads to {ReleaseDir(folder).active()!r}"
        files = {str(one.relative_to(place)): one.read_bytes() for one in place.rglob("*") if one.is_file()}
        files.pop(NAME, None)
        return "" if files == self.files[served] else f"{served} is not whole: {sorted(files)}"

    def _again(self, folder: Path) -> str:
        self.release("c", folder)
        history, staged = ReleaseDir(folder).history(), list(folder.rglob("*.mdl-tmp"))
        if (history.active, history.previous) != (self.versions["c"], self.versions.get(self.before, "")):
            return f"the history says {history.active} after {history.previous}"
        return f"staged names are left: {staged}" if staged else self._wrong(folder)


def _told(look: Callable[[], str]) -> str:
    """What ``look`` finds wrong; whatever it raises is wrong too."""
    try:
        return look()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def kill_at_random(scene: Scene, kills: int, seed: int) -> list[Found]:
    """Kill at moments drawn over the time that one release takes, until that many kills were in time."""
    draw = random.Random(seed)
    whole = min(_live(scene, f"whole-{number}", 60)[1] for number in range(3))
    lives = (_live(scene, f"life-{number}", draw.uniform(0, 1.1 * whole))[0] for number in range(5 * kills))
    return list(itertools.islice((one for one in lives if one.killed), kills))


def _live(scene: Scene, name: str, seconds: float) -> tuple[Found, float]:
    place = scene.fresh(name)
    with scene.child(place) as child:
        assert child.stdout
        child.stdout.readline()
        began = time.monotonic()
        while child.poll() is None and time.monotonic() - began < seconds:
            pass
        child.kill()
        code, took = child.wait(), time.monotonic() - began
    return scene.look(code, place), took


def strace_works(place: Path) -> bool:
    """Whether a process can be traced here, and killed at a call."""
    if not shutil.which("strace"):
        return False
    command = ["strace", "-f", "-o", "try", "-e", "inject=fsync:signal=KILL:when=1", sys.executable, "-c"]
    command.append("import os; os.fsync(os.open('.', os.O_RDONLY))")
    return subprocess.run(command, cwd=place, capture_output=True, check=False).returncode == -signal.SIGKILL


def traced(scene: Scene, name: str, *flags: str) -> tuple[int, Path]:
    """A release of c under strace: its exit code, its folder; the log lies beside it."""
    place = scene.fresh(name)
    with scene.child(place, "strace", "-f", "-o", f"{place}.log", "-e", f"trace={_CALLS}", *flags) as child:
        child.communicate(timeout=60)
    return child.returncode, place


def killed_at(scene: Scene, call: str, number: int) -> tuple[int, Path]:
    """Kill a release of c before its ``number``-th ``call``."""
    return traced(scene, f"{call}-{number}", "-e", f"inject={call}:signal=KILL:when={number}")


def kill_at_calls(scene: Scene, step: int = 1) -> list[Found]:
    """Kill before every ``step``-th call that changes the disk; strace counts each thread and each call for itself."""
    code, place = traced(scene, "whole")
    assert code == 0, f"a release under strace ended with {code}"
    calls = Counter(re.findall(r"^(\d+) +([a-z0-9]+)\(", Path(f"{place}.log").read_text(), re.MULTILINE))
    most = {name: max(count for (_, one), count in calls.items() if one == name) for _, name in calls}
    points = [(name, number) for name, count in most.items() for number in range(1, count + 1)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda point: scene.look(*killed_at(scene, *point)), points[step // 2 :: step]))
    return [one for one in found if one.killed]


@contextlib.contextmanager
def reader(path: Path, known: Sequence[bytes], *, until_miss: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A process that opens and reads ``path`` over and over; `counts` ends it."""
    command = [sys.executable, "-c", _READER, str(path), str(int(until_miss)), *map(_sha256, known)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            yield process
        finally:
            process.terminate()


def counts(process: subprocess.Popen[str]) -> list[int]:
    """Reads, misses, and how many versions were seen."""
    process.terminate()
    return [int(word) for word in process.communicate(timeout=30)[0].split()]


def read_on(scene: Scene, switches: int) -> list[int]:
    """Release and roll back in turn under a reader."""
    place = scene.fresh("read")
    rollback(place)
    known = [scene.files[one]["model.bin"] for one in "ab"]
    with reader(place / "current" / "model.bin", known) as process:
        for number in range(switches):
            rollback(place) if number % 2 else scene.release("b", place)
        return counts(process)


def read_on_the_old_way(scene: Scene, seconds: float = 30) -> list[int]:
    """The control: unlink and link anew, until the reader misses one."""
    place = scene.fresh("control")
    known, link = [scene.files[one]["model.bin"] for one in "ab"], place / "current"
    with reader(link / "model.bin", known, until_miss=True) as process:
        until, turn = time.monotonic() + seconds, itertools.cycle("ab")
        while process.poll() is None and time.monotonic() < until:
            link.unlink()
            link.symlink_to(f"releases/{scene.versions[next(turn)]}")
        return counts(process)


def _row(name: str, kills: list[Found]) -> list[str]:
    left = Counter(itertools.chain.from_iterable(one.strays for one in kills))
    shown = ", ".join(f"{count} x {what}" for what, count in sorted(left.items())) or "nothing"
    before, recovered = sum(one.served != "c" for one in kills), sum(not (one.wrong or one.again) for one in kills)
    return [name, *map(str, (len(kills), before, recovered, shown, sum(not one.recorded for one in kills)))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="at random moments; those at calls come on top [300]")
    parser.add_argument("--switches", type=int, default=5000, help="under the reader [5000]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="folder on the disk to use [the system's temporary folder]")
    args = parser.parse_args()
    with folder(args.dir) as place, folder(args.dir) as other:
        scene, first = Scene(place), Scene(other, "")
        found = {"random moments": kill_at_random(scene, args.kills, args.seed)}
        if strace_works(place):
            found |= {"every call": kill_at_calls(scene), "every call of the first release": kill_at_calls(first)}
        else:
            print("SKIPPED: strace cannot trace here; only random moments", file=sys.stderr)
        reads, misses, seen = read_on(scene, args.switches)
        old = read_on_the_old_way(scene)
    table(_HEAD, [_row(name, kills) for name, kills in found.items()])
    print(f"\n{args.switches} switches: {reads} reads, {misses} misses; unlink and link: {old[1]} in {old[0]} reads")
    print(f"seed {args.seed}; {machine()}")
    every = [one for kills in found.values() for one in kills]
    print(*sorted({why for one in every for why in (one.wrong, one.again) if why}), sep="\n")
    holds = [
        claim("every kill left a whole release in service", not any(one.wrong for one in every)),
        claim("the same command again ended right every time", not any(one.again for one in every)),
        claim(
            "and left nothing over, with the history complete", all(one.recorded and not one.strays for one in every)
        ),
        claim(f"at least {args.kills} kills", len(found["random moments"]) == args.kills),
        claim(f"{misses} misses, both versions seen; the old way misses", misses == 0 and seen == 2 and old[1] > 0),
    ]
    return 0 if all(holds) else 1


if __name__ == "__main__":
    raise SystemExit(main())
