"""Downloads killed with SIGKILL at random moments, started again each time, and at last left to end.

The claims for mdl, with 1 and with 8 connections: the right bytes every time, at most 1.05 and 1.10 times of them
served in all, no request from byte 0 once the journal claimed the file's beginning, and nothing beside the final
names but mdl's own .mdl/, without a byte of a partial in it. curl, wget, aria2 and hf, each told to go on, are
treated alike: every life lasts as long as the tool takes to begin, and a random part of what its whole transfer takes.

The README's figures for a large file: python benchmarks/kill.py --size 1G --seconds 16 --downloads 1 --kills 10 \
--life 0.18 --alone
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import harness as bench
from nginx import Nginx, Served, hub_of

from mdl.downloader import journal

_MOST = {1: 1.05, 8: 1.10}
"""What may be served of a file's size, by mdl's connections."""
_PATIENCE = 900
_HEAD = (
    *("case", "connections", "downloads", "kills", "final sha ok", "restarts from zero"),
    *("requests from byte 0", "served / size", "left over"),
)


@dataclass(frozen=True)
class Tool:
    """One contender. It writes ``wrote`` and may write below ``places``; ``kept`` tells how much of the file's
    beginning it has after a kill, ``strays`` what it left in the end."""

    name: str
    connections: int
    command: Callable[[str], list[str]]
    wrote: Path
    places: tuple[Path, ...]
    kept: Callable[[], int]
    strays: Callable[[], list[str]]


@dataclass
class Life:
    """From a start to a kill, or to the end; moments of the epoch. ``kept`` bytes were there when it began."""

    began: float
    kept: int
    killed: bool = False


@dataclass
class Way:
    """One download: its lives, how it ended and what it left."""

    lives: list[Life] = field(default_factory=list)
    code: int = -9
    right: bool = False
    strays: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(life.killed for life in self.lives)


class Campaign:
    """One tool, killed on the way of every download. ``startup`` and ``transfer`` are seconds, once measured."""

    def __init__(self, one: Tool, args: argparse.Namespace, place: Path, sample: bench.Sample, server: Nginx) -> None:
        self.one, self.args, self.place, self.sample, self.server = one, args, place, sample, server
        rate = args.size / args.seconds / one.connections if args.seconds else args.rate
        self.url = server.url(sample.path.name, f"{int(rate / 1024)}k")
        self.env = bench.environment(place / "home")
        self.startup = self.transfer = 0.0

    def run(self) -> list[Way]:
        self._measure()
        return [self._download(random.Random(f"{self.args.seed} {n}")) for n in range(self.args.downloads)]

    def _measure(self) -> None:
        """How long the tool takes to ask, and then to have the file, when it is not disturbed."""
        began = time.time()
        way = self._download(random.Random(0), most=0)
        gets = [one for one in self.server.served() if one.method == "GET" and one.began >= began and one.bytes > 1]
        bodies = [one for one in gets if one.path.endswith(self.sample.path.name)]
        if way.code or not way.right or not bodies:
            raise SystemExit(f"FAILED: {self.one.name} does not work here, exit code {way.code}")
        first = min(one.began for one in bodies)
        self.startup, self.transfer = first - began, max(one.ended for one in bodies) - first

    def _download(self, draw: random.Random, most: int | None = None) -> Way:
        """Start, kill, start again …; after ``most`` kills it is left alone."""
        bench.remove(*self.one.places)
        way, most = Way(), self.args.kills if most is None else most
        while not way.lives or way.lives[-1].killed:
            share = self.startup + draw.uniform(0, self.args.life) * self.transfer
            way.lives.append(Life(time.time(), self.one.kept()))
            way.code = self._live(way.lives[-1], share if way.kills < most else _PATIENCE)
        way.right = way.code == 0 and self.one.wrote.is_file() and bench.sha256_of(self.one.wrote) == self.sample.sha256
        way.strays = self.one.strays()
        return way

    def _live(self, life: Life, seconds: float) -> int:
        null = subprocess.DEVNULL
        process = subprocess.Popen(
            self.one.command(self.url), env=self.env, cwd=self.place, stdin=null, stdout=null, stderr=null
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            life.killed = process.wait() == -9
            return process.returncode


@dataclass(frozen=True)
class Result:
    """A campaign in figures. ``restarts`` are lives that asked from byte 0 although they had the beginning."""

    kills: int
    count: int
    right: int
    restarts: int
    from_zero: int
    ratio: float
    strays: str
    codes: str

    @classmethod
    def of(cls, ways: list[Way], served: list[Served], size: int) -> Result:
        lives = [life for way in ways for life in way.lives]
        gets = [one for one in served if one.method == "GET" and one.began >= lives[0].began]
        starts = [one.began for one in gets if one.first == 0 and one.status in (200, 206) and one.bytes > 1]
        ends = [life.began for life in lives[1:]] + [float("inf")]
        again = [life for life, end in zip(lives, ends, strict=True) if any(life.began <= at < end for at in starts)]
        wrong = sorted({way.code for way in ways if not way.right})
        return cls(
            kills=sum(way.kills for way in ways),
            count=len(ways),
            right=sum(way.right for way in ways),
            restarts=sum(life.kept > 0 for life in again),
            from_zero=len(starts),
            ratio=sum(one.bytes for one in gets) / (size * len(ways)),
            strays=", ".join(sorted({stray for way in ways for stray in way.strays})) or "nothing",
            codes=f", the others with {wrong}" if wrong else "",
        )

    def row(self, one: Tool) -> list[str]:
        facts = (one.connections, self.count, self.kills, f"{self.right}/{self.count}", self.restarts, self.from_zero)
        return [one.name, *map(str, facts), f"{self.ratio:.3f}", self.strays]

    def judge(self, one: Tool) -> None:
        """The demands on mdl, told one by one."""
        name, most, count = f"{one.name}, {one.connections} connections", _MOST[one.connections], self.count
        bench.claim(f"{name}: {self.kills} kills on {count} downloads", self.kills >= count)
        bench.claim(f"{name}: {self.right} of {count} end with 0 and the right bytes{self.codes}", self.right == count)
        bench.claim(f"{name}: {self.restarts} restarts from zero after a checkpoint", self.restarts == 0)
        bench.claim(f"{name}: served / size {self.ratio:.3f} is at most {most:.2f}", self.ratio <= most)
        bench.claim(f"{name}: left beside final names: {self.strays}", self.strays == "nothing")


def mdl(place: Path, sample: bench.Sample, connections: int) -> Tool:
    models, final = place / "models", f"bench/{sample.path.name}"

    def command(url: str) -> list[str]:
        return bench.mdl_get(place, sample, url, "--connections", str(connections))

    def kept() -> int:
        records = [journal.load(path) for path in models.glob(".mdl/partials/*/journal")]
        return max((record.have.front for record in records if record), default=0)

    def strays() -> list[str]:
        own = (".mdl/.gitignore", ".mdl/receipts/", ".mdl/listings/", ".mdl/locks/")
        left = [name for name in _files(models) if name != final and not name.startswith(own)]
        return [re.sub("[0-9a-f]{12,32}", "<hex>", name) for name in left if not name.endswith("/journal")]

    return Tool("mdl get", connections, command, models / final, (models, place / "home"), kept, strays)


def peers(place: Path, sample: bench.Sample) -> list[Tool]:
    """What else goes on with a file."""
    output, hub = place / "out" / "out.bin", place / "hf"

    def single(name: str, connections: int, *words: str) -> Tool:
        def command(url: str) -> list[str]:
            output.parent.mkdir(exist_ok=True)
            return [*words, url]

        def strays() -> list[str]:
            return [one for one in _files(output.parent) if one != output.name]

        return Tool(name, connections, command, output, (output.parent,), lambda: _allocated(output.parent), strays)

    def hf(url: str) -> list[str]:
        here = bench.with_hub(url.partition("/at/")[0], place / "home" / "hf")
        return [*here, bench.tool("hf") or "hf", "download", "bench/file", sample.path.name, "--local-dir", str(hub)]

    def left() -> list[str]:
        return ["its .cache" if one.startswith(".cache/") else one for one in _files(hub) if one != sample.path.name]

    aria = ("aria2c", "-q", "-c", "-x4", "-s4", "--no-conf", "-d", str(output.parent), "-o", output.name)
    return [
        single("curl -C -", 1, "curl", "-sS", "-f", "-C", "-", "-o", str(output)),
        single("wget -c", 1, "wget", "-q", "-c", "-O", str(output)),
        single("aria2c -c -x4", 4, *aria),
        Tool("hf download", 1, hf, hub / sample.path.name, (hub, place / "home"), lambda: _allocated(hub), left),
    ]


def _files(place: Path) -> list[str]:
    return [str(path.relative_to(place)) for path in sorted(place.rglob("*")) if not path.is_dir()]


def _allocated(place: Path) -> int:
    """Bytes on the disk of the largest file below ``place``."""
    return max((path.stat().st_blocks * 512 for path in place.rglob("*") if path.is_file()), default=0)


def contend(one: Tool, args: argparse.Namespace, place: Path, sample: bench.Sample) -> Result:
    """One tool's campaign, with a new server."""
    rate = int(args.size / args.seconds) if args.seconds else args.rate
    with Nginx(place, hub_of(sample, f"{rate // 1024}k")) as server:
        campaign = Campaign(one, args, place, sample, server)
        ways = campaign.run()
        served = server.served()
    took = f"{campaign.startup:.2f} s to begin, {campaign.transfer:.2f} s for the whole"
    print(f"{one.name}, {one.connections} connections: {took}", file=sys.stderr)
    bench.remove(*one.places)
    return Result.of(ways, served, args.size)


def main() -> int:
    parser = bench.flags(__doc__, size="32M")
    parser.add_argument("--downloads", type=int, default=20)
    parser.add_argument("--kills", type=int, default=6, help="a download's at most [6]")
    parser.add_argument("--life", type=float, default=0.75, help="the longest, as a part of the whole transfer [0.75]")
    parser.add_argument(
        "--rate", type=bench.size_of, default=bench.size_of("25M"), help="bytes a second of one connection [25M]"
    )
    parser.add_argument("--seconds", type=float, help="instead: what the whole takes by all connections together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--connections", type=int, nargs="*", default=sorted(_MOST), choices=sorted(_MOST))
    parser.add_argument("--alone", action="store_true", help="only mdl")
    args = parser.parse_args()
    rows: list[list[str]] = []
    with bench.folder(args.dir) as place:
        sample = bench.random_file(place / "served.bin", args.size)
        mine = [(one, contend(one, args, place, sample)) for one in (mdl(place, sample, n) for n in args.connections)]
        rows += [result.row(one) for one, result in mine]
        for one in () if args.alone else peers(place, sample):
            is_here = bench.tool(one.name.split()[0])
            skipped = [one.name, "SKIPPED: not on PATH", *[""] * (len(_HEAD) - 2)]
            rows.append(contend(one, args, place, sample).row(one) if is_here else skipped)
    pace = f"{bench.shown(args.rate)}/s a connection" if not args.seconds else f"{args.seconds:g} s undisturbed"
    downloads = f"{args.downloads} downloads of {bench.shown(args.size)}"
    bench.table(_HEAD, rows, f"{downloads}, {pace}, at most {args.kills} kills each, seed {args.seed}")
    for one, result in mine:
        result.judge(one)
    return bench.verdict()


if __name__ == "__main__":
    raise SystemExit(main())
