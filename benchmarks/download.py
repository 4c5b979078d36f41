"""One large file from nginx on the loopback: mdl, which verifies and syncs, beside curl, wget, aria2 and hf.

The claims: mdl takes no longer than curl, which does neither, and less CPU than curl and openssl together. With --tls
it takes at most 1.2 of curl's time and 1.35 of its CPU, and less CPU than curl and openssl together.
With --throttle each connection is limited, as many servers do; that is reported, nothing is claimed.
"""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterator
from pathlib import Path

import harness as bench
from nginx import Nginx, hub_of

_CURL, _HASHED, _SYNCED = "curl", "curl && openssl dgst -sha256", "curl && sync"
_FLOOR = "dd conv=fdatasync (no network)"
_MDL, _ARIA, _HF = "mdl get (sha256, fsync)", "aria2c -x16 --checksum", "hf download"
_TLS_WALL, _TLS_CPU = 1.2, 1.35
"""The most that mdl may take under TLS, where each byte is decrypted by everybody and hashed by mdl alone, as ratios to
curl's."""


def contenders(
    place: Path, sample: bench.Sample, url: str, more: list[str], throttled: bool, ca: Path | None
) -> Iterator[bench.Contender]:
    """All that are installed; mdl and curl must be. mdl, curl and hf find in SSL_CERT_FILE whom to trust."""
    output, final, hub = place / "out.bin", place / "models" / "bench" / sample.path.name, place / "hf"
    quoted = shlex.quote(str(output))
    curl = f"curl -sS -f -o {quoted} {shlex.quote(url)}"

    def one(name: str, argv: list[str], wrote: Path = output) -> bench.Contender:
        def check() -> str:
            size = wrote.stat().st_size if wrote.exists() else -1
            return "" if size == sample.size else f"{size} bytes of {sample.size}"

        written = (place / "models", output, output.with_name("out.bin.aria2"), hub)
        return bench.Contender(name, argv, lambda: bench.remove(*written), check, [sample.path])

    yield one(_MDL, bench.mdl_get(place, sample, url, *more), final)
    yield one(_CURL, ["sh", "-c", curl])
    if bench.tool("openssl"):
        yield one(_HASHED, ["sh", "-c", f"{curl} && openssl dgst -sha256 {quoted} | grep -q {sample.sha256}"])
    if not throttled:
        yield one(_SYNCED, ["sh", "-c", f"{curl} && sync {quoted}"])
        yield one(_FLOOR, ["dd", f"if={sample.path}", f"of={output}", "bs=1M", "conv=fdatasync", "status=none"])
    if bench.tool("aria2c"):
        aria = ["aria2c", "-q", "-x16", "-s16", "--no-conf", "--allow-overwrite=true", "-d", str(place)]
        aria += [f"--ca-certificate={ca}"] if ca else []
        yield one(_ARIA, [*aria, "-o", output.name, f"--checksum=sha-256={sample.sha256}", url])
    if bench.tool("wget"):
        yield one("wget", ["wget", "-q", *([f"--ca-certificate={ca}"] if ca else []), "-O", str(output), url])
    if (program := bench.tool("hf")) and not throttled:
        here = bench.with_hub(url.removesuffix(sample.path.name), place / "home" / "hf")
        words = (program, "download", "bench/file", sample.path.name, "--local-dir", str(hub))
        yield one(_HF, [*here, *words], hub / sample.path.name)


def rows(runs: dict[str, list[bench.Run]], gib: float) -> Iterator[tuple[str, ...]]:
    def median(values: list[float]) -> str:
        return f"{statistics.median(values) / gib:.2f}"

    for name, done in runs.items():
        yield (
            name,
            bench.span([one.wall for one in done]),
            bench.span(bench.ratios(done, runs[_CURL])),
            bench.span([one.cpu / gib for one in done]),
            f"{median([one.user for one in done])}+{median([one.system for one in done])}",
            bench.span(bench.ratios(done, runs[_CURL], lambda one: one.cpu)),
            median([one.server for one in done]),
            bench.mib(done),
        )


def judge(runs: dict[str, list[bench.Run]], throttled: bool, tls: bool) -> None:
    def cpu_against(other: str) -> float:
        return statistics.median(bench.ratios(mine, runs[other], lambda one: one.cpu))

    mine, most = runs[_MDL], _TLS_WALL if tls else 1.0
    wall = statistics.median(bench.ratios(mine, runs[_CURL]))
    if not throttled:
        bench.claim(f"wall of mdl / curl, paired median {wall:.2f}, is at most {most:.2f}", wall <= most)
        if tls:
            cpu = cpu_against(_CURL)
            bench.claim(f"CPU of mdl / curl, paired median {cpu:.2f}, is at most {_TLS_CPU:.2f}", cpu <= _TLS_CPU)
        if _HASHED in runs:
            cpu = cpu_against(_HASHED)
            bench.claim(f"CPU of mdl / {_HASHED}, paired median {cpu:.2f}, is below 1.00", cpu < 1.0)
    elif _ARIA in runs:
        slower = statistics.median(bench.ratios(mine, runs[_ARIA]))
        print(f"mdl takes {slower:.2f} of the time of {_ARIA}, {wall:.2f} of curl's (paired medians)")


def main() -> int:
    parser = bench.flags(__doc__, size="1G", rounds=5)
    parser.add_argument("--throttle", default="", metavar="RATE", help="nginx's limit_rate per connection, as 10m")
    parser.add_argument("--tls", action="store_true", help="over TLS, which curl and mdl verify")
    parser.add_argument("--connections", type=int, help="mdl's --connections")
    parser.add_argument(
        "--touch", type=float, metavar="GIB", help="memory to use once before each run [1 more than the file]"
    )
    args = parser.parse_args()
    if not bench.tool("curl"):
        bench.skip("curl is not on PATH")
    with bench.folder(args.dir) as place, bench.folder(bench.memory(args.size) or args.dir) as served:
        sample = bench.random_file(served / "served.bin", args.size)
        more = ["--connections", str(args.connections)] if args.connections else []
        with Nginx(served, hub_of(sample), tls=args.tls) as server:
            url = server.url(sample.path.name, args.throttle)
            trusted = server.ca if args.tls else None
            field = list(contenders(place, sample, url, more, bool(args.throttle), trusted))
            touch = 2**30 + args.size if args.touch is None else int(args.touch * 2**30)
            env = bench.environment(place / "home") | ({"SSL_CERT_FILE": str(trusted)} if trusted else {})
            runs = bench.alternate(field, args.rounds, env, place, touch, server.cpu)
    head = ("case", "wall s", "wall / curl", "CPU s/GiB", "user+sys", "CPU / curl", "nginx CPU s/GiB", "RSS MiB")
    way = (" over TLS" if args.tls else "") + (f", {args.throttle} B/s a connection" if args.throttle else "")
    what = f"One file of {bench.shown(args.size)}{way}"
    bench.table(head, list(rows(runs, args.size / 2**30)), f"{what}, random bytes; {args.rounds} alternating rounds")
    bench.compare(what, runs, _MDL, alike=(_HASHED, _SYNCED, _FLOOR, _ARIA))
    judge(runs, bool(args.throttle), args.tls)
    return bench.verdict()


if __name__ == "__main__":
    raise SystemExit(main())
