"""Releases killed with SIGKILL, at random moments and before calls that change the disk; and a reader all along."""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mdl.archive.manifest import NAME, Manifest, ManifestEntry
from mdl.archive.releases import ReleaseDir
from mdl.ops.release import release, rollback
from support.call_kills import Ended, killed_at
from support.data import sha256
from support.shell import environ

KILLED = -signal.SIGKILL
_OWN = {".mdl", "current", "releases", "releases.json"}
_CHILD = """\
import pathlib, sys
from mdl.ops.release import release
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
    """What a kill left: which archive is ``served``, what is ``wrong``, and ``again`` after the same command was run
    again; ``strays`` are still there then, ``recorded`` tells whether the history knows of the release."""

    code: int
    served: str
    wrong: str
    again: str
    strays: tuple[str, ...]
    recorded: bool


class Scene:
    """Archives a, b and c, and a folder where those of ``before`` were released; c is the one to be killed."""

    def __init__(self, place: Path, before: str = "ab", size: int = 2**18) -> None:
        self.place, self.env, self.before = place, environ(place), before[-1:]
        draw = random.Random(1)
        shared = {"config.json": b"{}\n"} | {f"text/{number}.txt": draw.randbytes(999) for number in range(3)}
        self.files = {one: shared | {"model.bin": one.encode() + draw.randbytes(size)} for one in "abc"}
        self.versions = {one: self._pack(one) for one in "abc"}
        self.base = place / "base"
        self.base.mkdir()
        for one in before:
            self.release(one, self.base)

    def _pack(self, one: str) -> str:
        lines = [ManifestEntry(name, len(data), sha256(data)) for name, data in self.files[one].items()]
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

    def command(self, folder: Path) -> list[str]:
        """A release of c, in a separate process."""
        return [sys.executable, "-c", _CHILD, str(self.place / "c.zip"), str(folder)]

    def killed_at(self, number: int) -> tuple[Ended, Path]:
        """Kill a release of c before its ``number``-th call that changes the disk (0: never); the folder it went to."""
        place = self.fresh(f"call-{number}")
        log = self.place / f"call-{number}.log"
        return killed_at(number, self.command(place), self.env, self.place, log), place

    def look(self, code: int, folder: Path) -> Found:
        """What is there now, and after the same command again; the folder is removed then."""
        served, wrong = self._served(folder), _told(lambda: self._wrong(folder))
        again = _told(lambda: self._again(folder))
        strays = [re.sub("[0-9a-f]{12}", "<hex>", one.name) for one in folder.iterdir() if one.name not in _OWN]
        known, record = {self.versions["b"], self.versions["c"]}, folder / "releases.json"
        strays += [f"releases/{one.name}" for one in (folder / "releases").iterdir() if one.name not in known]
        recorded = record.exists() and self.versions["c"] in record.read_text()
        shutil.rmtree(folder)
        return Found(code, served, wrong, again, tuple(strays), recorded)

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


def kill_at_random(scene: Scene, kills: int, seed: int) -> list[Found]:
    """Kill at moments drawn over the time that one release takes, until that many kills were in time."""
    draw = random.Random(seed)
    whole = min(_live(scene, f"whole-{number}", 60)[1] for number in range(3))
    lives = (_live(scene, f"life-{number}", draw.uniform(0, 1.1 * whole))[0] for number in range(5 * kills))
    return list(itertools.islice((one for one in lives if one.code == KILLED), kills))


def _live(scene: Scene, name: str, seconds: float) -> tuple[Found, float]:
    place, null = scene.fresh(name), subprocess.DEVNULL
    command = scene.command(place)
    with subprocess.Popen(command, env=scene.env, stdout=subprocess.PIPE, stderr=null, text=True) as child:
        assert child.stdout
        child.stdout.readline()
        began = time.monotonic()
        while child.poll() is None and time.monotonic() - began < seconds:
            pass
        child.kill()
        code, took = child.wait(), time.monotonic() - began
    return scene.look(code, place), took


def kill_at_calls(scene: Scene, step: int) -> list[Found]:
    """Kill before every ``step``-th call that changes the disk, counted over all threads."""
    ended, place = scene.killed_at(0)
    assert ended.code == 0, f"a traced release ended with {ended.code}"
    shutil.rmtree(place)

    def kill(number: int) -> Found:
        ended, place = scene.killed_at(number)
        return scene.look(ended.code, place)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(kill, range(1, ended.calls + 1, step)))
    return [one for one in found if one.code == KILLED]


@contextlib.contextmanager
def reader(path: Path, known: Sequence[bytes], *, until_miss: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A process that opens and reads ``path`` over and over; `counts` ends it."""
    command = [sys.executable, "-c", _READER, str(path), str(int(until_miss)), *map(sha256, known)]
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
