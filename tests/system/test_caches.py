"""Caches that fetch the whole file for each range (squid, nginx): what an origin does decides how it is asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from support import faults
from support.bench import Bench, loose, pinned
from support.caches import nginx_cache, squid
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Request
from support.long import LONG
from support.relay import PROXY_VARIABLES

from mdl.downloader.connection_scaler import Tuning

DATA = noise(24 * MIB)
RATE = 12e6
"""Bytes a second of one connection to the origin."""


def paced(request: Request, number: int) -> Answer:
    """The file (or a small one), at `RATE` on each connection."""
    data = b"small" if request.path == "/small" else DATA
    answer, began = faults.honest(data)(request, number), time.monotonic()
    start, stop = request.range(len(data)) or (0, len(data))

    def body() -> Iterator[bytes | float]:
        step = 256 * 1024
        for at in range(start, stop, step):
            yield data[at : min(stop, at + step)]
            yield max(0.0, (at - start) / RATE - (time.monotonic() - began))

    return Answer(answer.status, answer.headers, body(), answer.end)


KINDS = ["squid as a proxy", "squid", "squid that hides", "nginx", "none"]
WAYS = ["fresh", "several", "resumed", "unknown"]
TRIED = [(kind, way) for way in WAYS for kind in KINDS if LONG or way == "fresh" or kind == "squid"]


def before(kind: str, folder: Path, port: int) -> AbstractContextManager[str]:
    """The cache of that kind; a server of its own without one."""
    if kind == "nginx":
        return nginx_cache(folder, port)
    if kind == "none":
        return nullcontext(f"http://127.0.0.1:{port}")
    return squid(folder, port, accelerates="proxy" not in kind, tells="hides" not in kind)


@pytest.mark.parametrize(("kind", "way"), TRIED)
def test_the_origin_sends_little_more_than_the_file(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str, way: str
) -> None:
    """Whatever is between, the origin sends at most three times the file. An origin that serves ranges well gets its
    connections. How quick it is then, benchmarks tell."""
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    bench.tuning, bench.patience = Tuning(), 120.0
    folder = tmp_path / "cache"
    folder.mkdir()
    with FaultyServer(paced) as origin, before(kind, folder, origin.port) as url:
        if kind == "squid as a proxy":
            monkeypatch.setenv("http_proxy", url)
            url = origin.url
        names = ["0", "1", "2"] if way == "several" else ["0"]
        make = loose if way == "unknown" else lambda url, path: pinned(url, DATA, path=path)
        files = [make(f"{url}/{name}", path=f"{name}.bin") for name in names]
        if way == "resumed":
            assert bench.run(files[0], stop_at=len(DATA) // 2, stall=6.0).code == 130
        before_run = origin.bytes_sent
        run = bench.run(*files, stall=6.0, connections=8)
        sent = origin.bytes_sent - before_run
    assert run.code == 0
    assert all((bench.store.folder("m") / f"{name}.bin").read_bytes() == DATA for name in names)
    assert sent <= 3 * len(DATA) * len(names) + MIB
    if kind == "none" and way == "fresh":
        assert max(event.connections for event in run.events if hasattr(event, "connections")) >= 4
