"""Many small files from one hub: mdl, which verifies and syncs them, beside hf download, aria2, wget and curl.

The hub is nginx with static files in the layout of the hub's URLs, on the loopback or ``--rtt`` milliseconds away.
The claims: three times the files a second of hf, one and a half times those of aria2c -j16, at most 1.2 ms of CPU a
file, and at most 1.1 connections for each that mdl uses at once.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qsl

import harness as bench
from link import Link
from nginx import Nginx

from mdl.demo.hub import Hub, HubAnswer, HubRequest
from mdl.demo.repositories import Repo
from mdl.sources.hub_protocol import etag

_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_REPO = "bench/small"
_MDL, _HF, _ARIA = "mdl get (verified, synced)", "hf download", "aria2c -j16"
_CURL, _WGET = "curl -Z", "wget -i"
_FOLDERS = 20

SERVED = f"""
    etag off;
    add_header ETag $etag always;
    add_header X-Repo-Commit {_COMMIT} always;
    location /api/ {{ return 404 '{{}}'; }}
    location ~ ^/api/models/{_REPO}(/revision/[^/]+)?$ {{ try_files /api/info.json =404; }}
    location ~ ^/api/models/{_REPO}/tree/ {{ add_header Link $next; try_files /api/tree-$page.json =404; }}
"""
_NEXT = re.compile("<[^/]+//[^/]+(/.+)>")


def static_hub(root: Path, count: int, size: int) -> tuple[dict[str, str], str]:
    """Write the files, and what the hub's API answers about them, below ``root``. Returns the git-sha1 of each path,
    and what nginx needs to send the ETags, and the listing in pages."""
    draw = random.Random(1)
    files = {f"part{number % _FOLDERS:03}/{number:05}.bin": draw.randbytes(size) for number in range(count)}
    repo = Repo(_REPO, files, commit=_COMMIT, lfs_threshold=size)
    for path, data in files.items():
        place = root / _REPO / "resolve" / _COMMIT / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    hub = Hub([repo])
    hub.url = "$scheme://$http_host"  # which nginx fills in
    (root / "api").mkdir()
    (root / "api" / "info.json").write_bytes(_body(hub.answer(HubRequest("GET", f"/api/models/{_REPO}", {}))))
    target = f"/api/models/{_REPO}/tree/{_COMMIT}?recursive=true"
    links = ""
    while target:
        cursor = dict(parse_qsl(target.partition("?")[2])).get("cursor", "0")
        page = hub.answer(HubRequest("GET", target, {}))
        (root / "api" / f"tree-{cursor}.json").write_bytes(_body(page))
        link = page.headers.get("Link", "")
        links += f"{cursor} '{link}';"
        following = _NEXT.match(link)
        target = following[1] if following else ""
    rows = "".join(f"/{_REPO}/resolve/{_COMMIT}/{path} '{etag(file)}';" for path, file in repo.stored.items())
    pages = f"map $arg_cursor $page {{ default $arg_cursor; '' 0; }} map $page $next {{ default ''; {links} }}"
    oids = {path: file.digest.hex for path, file in repo.stored.items()}
    return oids, f"map_hash_max_size 262144; map_hash_bucket_size 256; map $uri $etag {{ {rows} }} {pages}"


def _body(answer: HubAnswer) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


def small_catalog(place: Path) -> Path:
    """A catalog in which the hub's repository is the model ``small``."""
    book = place / "catalog.toml"
    book.write_text(f'schema = 1\n[models.small]\ntitle = "small"\nsource = "hf:{_REPO}@{_COMMIT}"\n')
    return book


def models_catalog(place: Path, paths: list[str]) -> Path:
    """A catalog in which each file of the hub's repository is a model; the group ``all`` has all of them."""
    book = place / "catalog.toml"
    models = {f"m{number}": f"hf:{_REPO}@{_COMMIT}/{path}" for number, path in enumerate(paths)}
    rows = [f'[models.{name}]\ntitle = "{name}"\nsource = "{source}"' for name, source in models.items()]
    book.write_text("\n".join(["schema = 1", *rows, "[groups]", f"all = {json.dumps([*models])}", ""]))
    return book


def contenders(place: Path, oids: dict[str, str], url: str, more: list[str]) -> Iterator[bench.Contender]:
    """All that are installed; mdl must be."""
    models, out = place / "models", place / "out"
    book, hub = small_catalog(place), bench.with_hub(url, place / "hf")

    def one(name: str, argv: list[str], wrote: Path, *, once: bool = False) -> bench.Contender:
        def check() -> str:
            wrong = [path for path, oid in oids.items() if not _is_right(wrote / path, oid)]
            return f"{len(wrong)} files are wrong or missing, {wrong[0]} is one" if wrong else ""

        return bench.Contender(name, argv, lambda: bench.put_aside(models, out, place / "hf"), check, once=once)

    words = ("get", "small", "--catalog", str(book), "--to", str(models), "--progress", "none", "--quiet")
    yield one(_MDL, [*hub, *bench.mdl(*words, *more)], models / "small")
    if hf := bench.tool("hf"):
        yield one(_HF, [*hub, hf, "download", _REPO, "--revision", _COMMIT, "--local-dir", str(out)], out)
    urls = {path: f"{url}/{_REPO}/resolve/{_COMMIT}/{path}" for path in oids}
    if aria := bench.tool("aria2c"):
        rows = "".join(f"{found}\n  out={path}\n" for path, found in urls.items())
        (place / "aria.txt").write_text(rows)
        yield one(_ARIA, [aria, "-q", "-j16", "--no-conf", "-d", str(out), "-i", str(place / "aria.txt")], out)
    if curl := bench.tool("curl"):
        rows = "".join(f'url="{found}"\noutput="{out / path}"\n' for path, found in urls.items())
        (place / "curl.txt").write_text(rows)
        flags = ["-sS", "-f", "-Z", "--parallel-max", "16", "--create-dirs"]
        yield one(_CURL, [curl, *flags, "-K", str(place / "curl.txt")], out)
    if wget := bench.tool("wget"):
        (place / "wget.txt").write_text("\n".join(urls.values()))
        flags = ["-q", "-x", "-nH", "--cut-dirs=4", "-P", str(out), "-i", str(place / "wget.txt")]
        yield one(_WGET, [wget, *flags], out, once=True)


def _is_right(path: Path, oid: str) -> bool:
    data = path.read_bytes() if path.exists() else b""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == oid


def judge(runs: dict[str, list[bench.Run]], count: int, at_once: int, opened: float) -> None:
    cpu = statistics.median(one.cpu for one in runs[_MDL]) / count * 1000
    if len(runs) > 1:
        bench.claim(f"CPU of mdl, {cpu:.2f} ms a file (median), is at most 1.2", cpu <= 1.2)
    for name, factor in ((_HF, 3.0), (_ARIA, 1.5)):
        if name in runs:
            times = bench.faster(runs, _MDL, name)
            bench.claim(f"mdl is {times:.2f} times as fast as {name} (median), at least {factor}", times >= factor)
    per = opened / at_once
    bench.claim(f"{opened:.0f} connections for {at_once} at once, {per:.2f} each, is at most 1.1", per <= 1.1)


def main() -> int:
    parser = bench.flags(__doc__, size="8K", rounds=3)
    parser.add_argument("--files", type=int, default=2000, help="[2000]")
    parser.add_argument("--rtt", type=float, default=0.0, metavar="MS", help="round trip to the hub [0]")
    parser.add_argument("--connections", type=int, help="mdl's --connections")
    parser.add_argument("--only", action="store_true", help="mdl alone, and of the claims that on connections")
    args = parser.parse_args()
    with bench.folder(args.dir) as place, bench.folder(bench.memory(2**28) or args.dir) as served, ExitStack() as stack:
        oids, maps = static_hub(served, args.files, args.size)
        server = stack.enter_context(Nginx(served, SERVED, maps=maps))
        port = stack.enter_context(Link(server.port, args.rtt / 1000)).port if args.rtt else server.port
        more = ["--connections", str(args.connections)] if args.connections else []
        field = list(contenders(place, oids, f"http://127.0.0.1:{port}", more))
        field = field[:1] if args.only else field
        runs = bench.alternate(field, args.rounds, bench.environment(place / "home"), place)
        before = len(server.served())
        bench.alternate(field[:1], 0, bench.environment(place / "home"), place)
        connections = {one.connection for one in server.served()[before:]}
    rows = [
        (
            name,
            bench.span([args.files / one.wall for one in done], 0),
            bench.span([one.wall for one in done]),
            bench.span([one.cpu / args.files * 1000 for one in done]),
            bench.mib(done),
        )
        for name, done in runs.items()
    ]
    what = f"{args.files:,} files of {bench.shown(args.size)}" + (f", {args.rtt:g} ms away" if args.rtt else "")
    head = ("case", "files/s", "wall s", "CPU ms a file", "RSS MiB")
    bench.table(head, rows, f"{what}; {args.rounds} alternating rounds")
    bench.compare(what, runs, _MDL)
    judge(runs, args.files, args.connections or 24, len(connections))
    return bench.verdict()


if __name__ == "__main__":
    raise SystemExit(main())
