"""One large file from nginx on the loopback: mdl, which verifies and syncs, against curl and aria2.

The claims: mdl takes no longer than curl, which does neither, and less CPU than curl and openssl together.
With --throttle each connection is limited, as many servers do; that is reported, nothing is claimed.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
from pathlib import Path

from nginx import SKIPPED, Nginx
from runs import Contender, Run, alternate, claim, machine, ratios, span, table
from scene import (
    Sample,
    catalog,
    common_flags,
    environment,
    folder,
    mdl_get,
    memory,
    random_file,
    remove,
    shown,
    skip,
    tool,
)

_CURL, _HASHED, _SYNCED = "curl", "curl && openssl dgst -sha256", "curl && sync"
_FLOOR = "dd conv=fdatasync (no network)"
_MDL, _ARIA = "mdl get (sha256, fsync)", "aria2c -x16 --checksum"


def contenders(place: Path, sample: Sample, url: str, flags: list[str], throttled: bool) -> list[Contender]:
    """All that are installed; mdl and curl must be."""
    output, models = place / "out.bin", place / "models"
    book = catalog(place / "catalog.toml", sample, url)
    curl = f"curl -sS -f -o {shlex.quote(str(output))} {shlex.quote(url)}"
    quoted = shlex.quote(str(output))

    def whole(path: Path) -> str:
        size = path.stat().st_size if path.exists() else -1
        return "" if size == sample.size else f"{size} bytes of {sample.size}"

    def one(name: str, argv: list[str], wrote: Path, *others: Path) -> Contender:
        def clean() -> None:
            remove(place / "models", output, *others)

        return Contender(name, argv, clean, lambda: whole(wrote), [sample.path])

    found = [one(_MDL, mdl_get(book, models, *flags), models / "bench" / sample.path.name)]
    found.append(one(_CURL, ["sh", "-c", curl], output))
    if tool("openssl"):
        hashed = f"{curl} && openssl dgst -sha256 {quoted} | grep -q {sample.sha256}"
        found.append(one(_HASHED, ["sh", "-c", hashed], output))
    if not throttled:
        found.append(one(_SYNCED, ["sh", "-c", f"{curl} && sync {quoted}"], output))
        copy = ["dd", f"if={sample.path}", f"of={output}", "bs=1M", "conv=fdatasync", "status=none"]
        found.append(one(_FLOOR, copy, output))
    if tool("aria2c"):
        aria = ["aria2c", "-q", "-x16", "-s16", "--no-conf", "--allow-overwrite=true", "-d", str(place)]
        aria += ["-o", output.name, f"--checksum=sha-256={sample.sha256}", url]
        found.append(one(_ARIA, aria, output, place / f"{output.name}.aria2"))
    return found


def rows(runs: dict[str, list[Run]], gib: float) -> list[tuple[str, ...]]:
    base = runs[_CURL]
    return [
        (
            name,
            span([one.wall for one in done]),
            span(ratios(done, base, lambda one: one.wall)),
            span([one.cpu / gib for one in done]),
            f"{_median([one.user / gib for one in done])}+{_median([one.system / gib for one in done])}",
            span(ratios(done, base, lambda one: one.cpu)),
            _median([one.server / gib for one in done]),
            f"{max(one.rss for one in done) / 2**20:.0f}",
        )
        for name, done in runs.items()
    ]


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.2f}"


def claims(runs: dict[str, list[Run]], throttled: bool) -> bool:
    mine = runs[_MDL]
    wall = statistics.median(ratios(mine, runs[_CURL], lambda one: one.wall))
    if throttled:
        if _ARIA in runs:
            slower = statistics.median(ratios(mine, runs[_ARIA], lambda one: one.wall))
            print(f"mdl takes {slower:.2f} of the time of {_ARIA}, {wall:.2f} of curl's (paired medians)")
        return True
    holds = claim(f"wall of mdl / curl, paired median {wall:.2f}, is at most 1.00", wall <= 1.0)
    if _HASHED in runs:
        cpu = statistics.median(ratios(mine, runs[_HASHED], lambda one: one.cpu))
        holds = claim(f"CPU of mdl / {_HASHED}, paired median {cpu:.2f}, is below 1.00", cpu < 1.0) and holds
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common_flags(parser, "1G")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--throttle", default="", metavar="RATE", help="nginx's limit_rate per connection, as 10m")
    parser.add_argument("--connections", type=int, help="mdl's --connections")
    parser.add_argument(
        "--touch", type=float, metavar="GIB", help="memory to use once before each run [1 more than the file]"
    )
    args = parser.parse_args()
    if not tool("curl"):
        skip("curl is not on PATH", SKIPPED)
    with folder(args.dir) as place, folder(memory(args.size) or args.dir) as served:
        sample = random_file(served / "served.bin", args.size)
        flags = ["--connections", str(args.connections)] if args.connections else []
        with Nginx(served) as server:
            url = server.url(sample.path.name, args.throttle)
            field = contenders(place, sample, url, flags, bool(args.throttle))
            touch = 2**30 + args.size if args.touch is None else int(args.touch * 2**30)
            runs = alternate(field, args.rounds, environment(place / "home"), place, touch, server.cpu)
    head = ("case", "wall s", "wall / curl", "CPU s/GiB", "user+sys", "CPU / curl", "nginx CPU s/GiB", "RSS MiB")
    table(head, rows(runs, args.size / 2**30))
    limit = f", {args.throttle} B/s a connection" if args.throttle else ""
    print(f"\n{shown(args.size)} of random bytes{limit}; {args.rounds} alternating rounds; {machine()}")
    return 0 if claims(runs, bool(args.throttle)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
