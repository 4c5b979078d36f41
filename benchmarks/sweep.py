"""Every command killed with SIGKILL before each single call that changes the disk: fsync, rename, unlink and the like.

The claims, for each call: right after the kill no final name has wrong bytes, and every catalog, lock, record, receipt
and archive is whole; the same command again ends with 0 and with exactly the files of an undisturbed run,
nothing beside them but what is in mdl's own folders; and it is never sent again what a journal had claimed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import harness as bench
from stage import DAMAGED, ONE, PACE, SIZE, SLOW, Stage
from support.call_kills import Ended, Nudge, killed_at, tracing_works
from support.loopback_hub import Generated, Repo
from support.polling import until
from support.release_kills import Scene


@dataclass(frozen=True)
class Command:
    """``words`` are killed and run again, after ``prepare``; the re-run of what was done already ends with ``done``.

    With a ``nudge``, which is answered with ``code``, it is killed after that. ``resumes``: what a journal claims is
    not sent again. ``long``: not in the short run, as another one goes the same way.
    """

    name: str
    words: tuple[str, ...]
    prepare: Callable[[Stage], object] = lambda _stage: None
    done: int = 0
    nudge: signal.Signals | None = None
    code: int = 0
    resumes: bool = True
    long: bool = False


def _damage(stage: Stage) -> None:
    stage.hub.bytes_per_second = None
    stage.must("get", "long")
    stage.hub.bytes_per_second = PACE
    (stage.place / "models/long/config.json").unlink()
    model = stage.place / "models/long/model.bin"
    times = model.stat()
    with model.open("rb+") as file:
        file.seek(DAMAGED)
        file.write(b"damaged")
    os.utime(model, ns=(times.st_atime_ns, times.st_mtime_ns))  # a failing disk changes no times


def _slow(stage: Stage) -> None:
    stage.hub.bytes_per_second = SLOW


def _begin(stage: Stage) -> None:
    """A job on its way in the background: the small file is there, the large one is coming."""
    _slow(stage)
    stage.job = stage.must("get", "one", "--detach")
    small = stage.place / "models/one/config.json"
    until(lambda: small.exists() and stage.needed < SIZE)


def _paused(stage: Stage) -> None:
    _begin(stage)
    stage.must("jobs", "pause", stage.job)
    stage.hub.bytes_per_second = PACE


def _trained(stage: Stage) -> None:
    model = stage.place / "runs/tts/model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}\n")
    (model / "model.bin").write_bytes(bytes(range(256)) * 2**13)


def _service(stage: Stage) -> None:
    shutil.copytree(stage.scene.base, stage.place / "service", symlinks=True)
    shutil.copy(stage.scene.place / "c.zip", stage.place)


def _of_another(stage: Stage) -> None:
    """A folder of another program: a large file, and a small one."""
    (stage.place / "mine/sub").mkdir(parents=True)
    (stage.place / "mine/model.bin").write_bytes(bytes(range(256)) * 2**13)
    (stage.place / "mine/sub/config.json").write_text("{}\n")


def _moved(stage: Stage) -> None:
    """A model that is locked and here, whose branch has one file more by now."""
    stage.hub.bytes_per_second = None
    stage.must("lock", "one")
    stage.must("get", "one")
    stage.hub.bytes_per_second = PACE
    stage.hub.publish(Repo(ONE.id, {**ONE.files, "more.bin": Generated(SIZE, "more")}))


def _bundled(stage: Stage) -> None:
    """A bundle of a model that is not here, and not locked."""
    stage.hub.bytes_per_second = None
    stage.must("get", "one")
    stage.must("bundle", "export", "one", "-o", "in.tar")
    stage.must("rm", "one", "--yes")
    stage.hub.bytes_per_second = PACE


_CACHE = ("--layout", "hf-cache", "--to", "cache")
COMMANDS = (
    Command("get", ("get", "one")),
    Command("get, locked", ("get", "one", "--locked"), lambda stage: stage.must("lock", "one"), long=True),
    Command("get, first use", ("get", "direct"), lambda stage: stage.must("lock", "direct")),
    Command("get, hub cache", ("get", "one", *_CACHE)),
    Command("get, linked", ("get", "twin"), lambda stage: stage.must("get", "one")),
    Command("get, being paused", ("get", "one"), _slow, nudge=signal.SIGUSR1, code=75),
    Command("get, being cancelled", ("get", "one"), _slow, nudge=signal.SIGTERM, code=143, long=True),
    Command("verify --repair", ("verify", "long", "--repair"), _damage, resumes=False),
    Command("prefetch", ("prefetch", "both", "--metrics", "metrics.prom", "--ready-file", "ready.ready")),
    Command("jobs pause", ("jobs", "pause", "{job}"), _begin, long=True),
    Command("jobs cancel", ("jobs", "cancel", "{job}"), _begin, long=True),
    Command("jobs cancel, paused", ("jobs", "cancel", "{job}"), _paused, long=True),
    Command("jobs resume", ("jobs", "resume", "{job}"), _paused, 2),
    Command("jobs clean", ("jobs", "clean", "--older-than", "0s"), lambda stage: stage.must("get", "one"), long=True),
    Command("add", ("add", "new", "hf:bench/one", "--tag", "x"), done=2),
    Command("remove", ("remove", "twin"), done=3, long=True),
    Command("lock", ("lock", "one", "long")),
    Command("lock --upgrade", ("lock", "--upgrade", "one"), lambda stage: stage.must("lock", "one"), long=True),
    Command("update", ("update", "one"), _moved, resumes=False),
    Command("import", ("import", "mine"), _of_another),
    Command("import --move", ("import", "mine", "--move"), _of_another),
    Command("rm", ("rm", "one", "twin", "--yes"), lambda stage: stage.must("get", "both"), 3),
    Command(
        "rm, hub cache",
        ("rm", "hf:bench/one", "--yes", *_CACHE),
        lambda stage: stage.must("get", "one", *_CACHE),
        3,
    ),
    Command("pack", ("pack", "runs/tts", "-o", "out.zip"), _trained),
    Command(
        "unpack",
        ("unpack", "c.zip", "--to", "unpacked"),
        lambda stage: shutil.copy(stage.scene.place / "c.zip", stage.place),
        7,
    ),
    Command("unpack --release", ("unpack", "c.zip", "--to", "service", "--release", "--keep", "1"), _service),
    Command("rollback", ("rollback", "service"), _service, 3),
    Command("bundle export", ("bundle", "export", "one", "-o", "out.tar"), lambda stage: stage.must("get", "one")),
    Command(
        "bundle export, in parts",
        ("bundle", "export", "one", "-o", "out.tar", "--split", "1Mi"),
        lambda stage: stage.must("get", "one"),
    ),
    Command("bundle import", ("bundle", "import", "in.tar"), _bundled),
)


@dataclass(frozen=True)
class Undisturbed:
    """What a command leaves when it is not killed, how many calls it makes, and what it is sent."""

    names: dict[str, str]
    calls: int
    sent: int


@dataclass(frozen=True)
class Found:
    """One kill: the call, what is wrong then or after the command was run again, what is left in mdl's own folders."""

    number: int
    point: str = ""
    wrong: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Sweep:
    """All commands below one folder."""

    def __init__(self, place: Path) -> None:
        self._place = place
        (place / "scene").mkdir()
        self._scene = Scene(place / "scene")

    @contextlib.contextmanager
    def _stage(self, command: Command, name: str) -> Iterator[Stage]:
        place = self._place / re.sub("[^a-z]+", "-", command.name) / name
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            over = {"dead", "paused", "cancelled"} if command.nudge else {"dead"}
            stage = Stage(place, self._scene, over, stack)
            command.prepare(stage)
            yield stage

    def _killed(self, stage: Stage, command: Command, number: int) -> Ended:
        nudge = Nudge(command.nudge, lambda: stage.needed < SIZE) if command.nudge else None
        words, output = stage.command(command.words), stage.place / "out.log"
        return killed_at(number, words, stage.env, stage.place, output, nudge)

    def undisturbed(self, command: Command) -> Undisturbed:
        with self._stage(command, "whole") as stage:
            before = len(stage.hub.requests)
            ended = self._killed(stage, command, 0)
            said, wrong = (stage.place / "out.log").read_text()[-500:], stage.wrong()
            assert ended.code == command.code, f"{command.name} ends with {ended.code} by itself: {said}"
            assert not wrong, f"{command.name}: {wrong}"
            if command.nudge:
                stage.hub.bytes_per_second = PACE
                stage.must(*command.words)
            return Undisturbed(stage.names(), ended.calls, stage.sent(before))

    def kill(self, command: Command, number: int, whole: Undisturbed) -> Found:
        """Kill it before its ``number``-th call, look, run it again, look."""
        with self._stage(command, str(number)) as stage:
            before = stage.wrong()
            ended = self._killed(stage, command, number)
            if not ended.point:
                return Found(number)
            wrong = [f"after the kill: {one}" for one in stage.wrong() if one not in before]
            was, asked = stage.names(), len(stage.hub.requests)
            most = stage.needed if command.resumes else whole.sent
            stage.hub.bytes_per_second = PACE
            again = stage.run(command.words)
            is_done = all(was.get(name) == mark for name, mark in whole.names.items())
            if again.returncode and not (again.returncode == command.done and is_done):
                wrong.append(f"the same command again ends with {again.returncode}: {again.stderr.strip()[-300:]}")
            wrong += [*stage.wrong(), *_compared(whole.names, stage.names())]
            if (sent := stage.sent(asked)) > most:
                ranges = [one.headers.get("range") for one in stage.hub.requests[asked:] if one.origin == "cdn"]
                wrong.append(f"{sent} bytes were sent again, {most} were needed: asked for {ranges}")
            point, *short = [_short(text, stage.place) for text in (ended.point, *wrong)]
            return Found(number, point, tuple(short), tuple(stage.left()))

    def run(self, commands: Sequence[Command], at_once: int, *, short: bool) -> dict[str, list[Found]]:
        """Every point of every command until it ends by itself; ``short``: one point in 40, another one each time."""
        with ThreadPoolExecutor(at_once) as pool:
            wholes = dict(zip(commands, pool.map(self.undisturbed, commands), strict=True))
            points = [(one, number) for one, whole in wholes.items() for number in range(1, whole.calls + 1)]
            if short:
                points = [
                    (one, 1 + int(whole.calls * (share + part) / _parts(whole.calls)))
                    for share, (one, whole) in zip(itertools.cycle(_SHARES), wholes.items(), strict=False)
                    for part in range(_parts(whole.calls))
                ]
            kills = []
            for kill in pool.map(lambda point: self.kill(point[0], point[1], wholes[point[0]]), points):
                kills.append(kill)
                if len(kills) % 20 == 0:
                    print(f"{len(kills)} of some {len(points)} points", file=sys.stderr)
        found = {one.name: [kill for (of, _), kill in zip(points, kills, strict=True) if of is one] for one in commands}
        for one in () if short else commands:
            while (more := found[one.name]) and more[-1].point:
                more.append(self.kill(one, more[-1].number + 1, wholes[one]))
        return found


_SHARES = (0.9, 0.5, 0.7, 0.3)


def _parts(calls: int) -> int:
    """How many points of a command are in the short run."""
    return min(calls, 1 + calls // 40)


def _compared(whole: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    """How a folder differs from that of an undisturbed run."""
    for name in sorted(whole.keys() | now.keys()):
        if name not in whole:
            yield f"left over: {name}"
        elif whole[name] != now.get(name, "nothing"):
            yield f"{name}: {now.get(name, 'nothing')} instead of {whole[name]}"


def _short(text: str, place: Path) -> str:
    """Without what differs from run to run."""
    text = re.sub("[0-9a-f]{12}-[0-9]+-[0-9]+", "<owner>", text.replace(f"{place}/", "").replace(str(place), "."))
    return re.sub(r"\b[0-9a-f]{12,64}\b", "<hex>", text)


def tell(found: dict[str, list[Found]]) -> None:
    """A row for each command, then each failure with its points."""
    rows = []
    for name, kills in found.items():
        killed = [one for one in kills if one.point]
        left = Counter(re.sub(".*/.mdl/|home/.*/mdl/", "", one) for kill in killed for one in kill.left)
        bad = [one for one in killed if one.wrong]
        shown = ", ".join(f"{count} x {what}" for what, count in sorted(left.items())) or "nothing"
        rows.append([name, *map(str, (len(killed), len(killed) - len(bad), len(bad))), shown])
    head = ("command", "points", "recovered", "failed", "left in mdl's own folders")
    bench.table(head, rows, "Killed before a call that changes the disk")
    for name, kills in found.items():
        by_trouble: dict[str, list[Found]] = {}
        for kill in kills:
            for why in kill.wrong:
                by_trouble.setdefault(why, []).append(kill)
        for why, where in by_trouble.items():
            print(f"FAILED: {name}: {why}")
            print(*(f"    killed before call {one.number}: {one.point}" for one in where), sep="\n")


def main() -> int:
    parser = bench.flags(__doc__)
    parser.add_argument("--short", action="store_true", help="some 20 points, spread over most commands")
    parser.add_argument("--at-once", type=int, default=2, help="kills going on at the same time [2]")
    parser.add_argument("command", nargs="*", help=f"only these: {'; '.join(one.name for one in COMMANDS)}")
    args = parser.parse_args()
    commands = [one for one in COMMANDS if one.name in args.command or not (args.command or (args.short and one.long))]
    with bench.folder(args.dir) as place:
        if not tracing_works(place):
            bench.skip("nothing can be traced and killed at a call here")
        found = Sweep(place).run(commands, args.at_once, short=args.short)
    tell(found)
    kills = [one for many in found.values() for one in many if one.point]
    bad = sum(bool(one.wrong) for one in kills)
    bench.claim(f"{len(kills)} kills, {len(kills) - bad} recovered, {bad} did not", bool(kills) and not bad)
    return bench.verdict()


if __name__ == "__main__":
    raise SystemExit(main())
