"""A download killed with SIGKILL at random moments all along the way, then run to its end.

The claims for mdl: the right bytes, at most 1.10 times of them served in all, and no request from byte 0
once bytes had been saved. --compare does the same to curl, wget, aria2 and hf, each told to go on.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nginx import SKIPPED, Nginx, Served
from runs import claim, machine, table
from scene import (
    Sample,
    catalog,
    common_flags,
    environment,
    folder,
    mdl_get,
    random_file,
    remove,
    sha256_of,
    shown,
    skip,
    tool,
)

_SAVED = 16 * 2**20
"""Once a killed life was sent this much, something of it must have been kept."""
_COMMIT = "0" * 39 + "1"


@dataclass(frozen=True)
class Killed:
    """One tool's way through. ``wrote`` is where its file ends up, ``startup`` the seconds before it asks."""

    name: str
    connections: int
    command: Callable[[str], list[str]]
    wrote: Path
    startup: float = 0.0


@dataclass(frozen=True)
class Way:
    """How it went. ``kills`` are moments of the epoch."""

    kills: list[float]
    seconds: float
    code: int
    right: bool


def go(one: Killed, url: str, sample: Sample, args: argparse.Namespace, env: dict[str, str], place: Path) -> Way:
    """Start, kill, start again …; each life gets its share of the seconds, and a random part more or less."""
    draw = random.Random(args.seed)
    kills: list[float] = []
    began, code = time.monotonic(), -9
    null = subprocess.DEVNULL
    while True:
        process = subprocess.Popen(one.command(url), env=env, cwd=place, stdin=null, stdout=null, stderr=null)
        share = args.seconds / (args.kills + 1) * draw.uniform(0.2, 1.8)
        try:
            code = process.wait(share + one.startup if len(kills) < args.kills else 900)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills.append(time.time())
            continue
        break
    seconds = time.monotonic() - began
    right = code == 0 and one.wrote.exists() and sha256_of(one.wrote) == sample.sha256
    return Way(kills, seconds, code, right)


def from_the_start(served: list[Served], kills: list[float]) -> int:
    """GETs from byte 0 in a life after one that had been sent enough to keep some."""
    gets = [one for one in served if one.method == "GET" and one.status in (200, 206)]
    for moment in kills:
        if sum(one.bytes for one in gets if one.began < moment) >= _SAVED:
            return sum(one.first == 0 for one in gets if one.began >= moment)
    return 0


def field(place: Path, sample: Sample, args: argparse.Namespace) -> list[Killed]:
    """mdl, and with --compare whatever else is installed."""
    book, models, output = place / "catalog.toml", place / "models", place / "out.bin"

    def mdl(url: str) -> list[str]:
        return mdl_get(catalog(book, sample, url), models, "--connections", str(args.connections))

    def hf(_: str) -> list[str]:
        return [tool("hf") or "hf", "download", "bench/file", sample.path.name, "--local-dir", str(place / "hf")]

    found = [Killed("mdl get", args.connections, mdl, models / "bench" / sample.path.name, args.startup)]
    if not args.compare:
        return found
    out = str(output)
    aria = ["aria2c", "-q", "-c", "-x4", "-s4", "--no-conf", "-d", str(place), "-o", output.name]
    others = [
        Killed("curl -C -", 1, lambda url: ["curl", "-sS", "-f", "-C", "-", "-o", out, url], output),
        Killed("wget -c", 1, lambda url: ["wget", "-q", "-c", "-O", out, url], output),
        Killed("aria2c -c -x4", 4, lambda url: [*aria, url], output),
        Killed("hf download", 1, hf, place / "hf" / sample.path.name, 2 * args.startup),
    ]
    return found + [one for one in others if tool(one.name.split()[0])]


def hub(sample: Sample, rate: int) -> str:
    """What hf asks for, served from the same file."""
    facts = json.dumps({"id": "bench/file", "sha": _COMMIT, "siblings": [{"rfilename": sample.path.name}]})
    return f"""
        location /api/models/bench/file {{ default_type application/json; return 200 '{facts}'; }}
        location /bench/file/resolve/ {{
            rewrite ^.*/([^/]+)$ /$1 break; limit_rate {rate}k; etag off;
            add_header ETag '"{sample.sha256}"'; add_header X-Repo-Commit {_COMMIT};
        }}"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common_flags(parser, "1G")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=16, help="how long the bytes take at the limited rate [16]")
    parser.add_argument("--startup", type=float, default=0.5, help="seconds mdl takes to start, not counted [0.5]")
    parser.add_argument("--connections", type=int, default=8, help="mdl's; all together get the same rate [8]")
    parser.add_argument("--compare", action="store_true", help="also curl, wget, aria2c and hf")
    args = parser.parse_args()
    rows, mine = [], None
    with folder(args.dir) as place:
        sample = random_file(place / "served.bin", args.size)
        total = args.size / args.seconds / 1024
        for one in field(place, sample, args):
            with Nginx(place, hub(sample, int(total))) as server:
                env = {**environment(place / "home"), "HF_ENDPOINT": server.url("").rstrip("/")}
                env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
                url = server.url(sample.path.name, f"{int(total / one.connections)}k")
                way = go(one, url, sample, args, env, place)
                served = server.served()
            again = from_the_start(served, way.kills)
            ratio = sum(row.bytes for row in served if row.method == "GET") / args.size
            mine = mine or (way, ratio, again)
            right = "yes" if way.right else f"NO (exit code {way.code})"
            facts = (len(way.kills), f"{way.seconds:.1f}", right, f"{ratio:.3f}", again, len(served))
            rows.append((one.name, str(one.connections), *map(str, facts)))
            remove(place / "models", place / "out.bin", place / "out.bin.aria2", place / "hf", place / "home")
    assert mine is not None
    head = ("case", "connections", "kills", "seconds", "right bytes", "served / size", "from byte 0 again", "requests")
    table(head, rows)
    print(f"\n{shown(args.size)}, {total / 1024:.0f} MiB/s in all, seed {args.seed}; {machine()}")
    way, ratio, again = mine
    holds = [
        claim(f"mdl was killed {len(way.kills)} times of {args.kills} and ends with the right bytes", way.right),
        claim(f"served / size {ratio:.3f} is at most 1.10", ratio <= 1.10),
        claim(f"{again} requests from byte 0 once bytes had been saved", again == 0),
    ]
    if len(way.kills) < args.kills:
        skip(f"only {len(way.kills)} kills before the end; give it more --seconds", SKIPPED)
    return 0 if all(holds) else 1


if __name__ == "__main__":
    raise SystemExit(main())
