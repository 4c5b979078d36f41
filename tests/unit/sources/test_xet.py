"""The way over Xet beneath the engine: what it costs, what hf_xet's process may do, and what it does not notice."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.data import MIB
from support.faulty_server import Answer, Request, reply
from support.xet_store import NAME, XetServer, XetStore, flipped, xet_hub

import mdl
from mdl.cancel import CancelToken
from mdl.events import Event, Noticed
from mdl.http.allowlist import AllowList, OriginToken, origin_of
from mdl.http.body import Throttle
from mdl.http.client import HttpClient
from mdl.sources.xet import Xet
from mdl.units import Timetable

FIRST = {"Range": f"bytes=0-{4 * MIB - 1}"}
HUBS = "hf_of_the_hub_alone"


class Meter(Throttle):
    """A limit that limits nothing, and counts."""

    def __init__(self) -> None:
        super().__init__(Timetable(((0, None),)))
        self.bytes = 0

    def take(self, count: int, cancel: CancelToken) -> None:
        self.bytes += count


class Way:
    """A client with a way over Xet, and what it says and does."""

    def __init__(self, hub: Any, storage: XetServer) -> None:
        self.hub, self.storage, self.meter = hub, storage, Meter()
        self.events: list[Event] = []
        token = OriginToken(origin_of(hub.url), HUBS)
        self.http = HttpClient(AllowList.of(["127.0.0.1"]), tokens=[token], throttle=self.meter)
        self.secrets: list[str] = []
        self.xet = Xet(self.http, hub.url, self.events.append, self.secrets.append)

    def read(self, headers: dict[str, str]) -> bytes:
        with self.http.open("GET", f"{self.hub.url}/demo/tiny/resolve/main/{NAME}", headers) as opened:
            assert opened.url.startswith("xet://")
            return b"".join(map(bytes, self.http.body(opened)))

    @property
    def tokens_asked(self) -> int:
        return sum("xet-read-token" in one.path for one in self.hub.requests)


@contextmanager
def way_to(
    store: XetStore,
    change: Callable[[Request, Answer], Answer] | None = None,
    read_token: Callable[[Any], Any] = lambda right: right,
) -> Iterator[Way]:
    """A way over Xet that has nothing to say."""
    with xet_hub(store, change, read_token) as (hub, storage):
        way = Way(hub, storage)
        with way.http, way.xet:
            yield way
        assert way.events == []


@pytest.mark.parametrize("span", [(0, 1), (5 * MIB - 1, 5 * MIB + 1), (3, 20 * MIB), (24 * MIB - 7, 24 * MIB)])
def test_any_range(xet_store: XetStore, span: tuple[int, int]) -> None:
    """Any range has its own bytes, also one that begins in the middle of a chunk, or is put together in pieces."""
    start, stop = span
    with way_to(xet_store) as way:
        assert way.read({"Range": f"bytes={start}-{stop - 1}"}) == (xet_store.folder / NAME).read_bytes()[start:stop]


def test_the_rate_limit_counts_once(xet_store: XetStore) -> None:
    """What counts against --limit-rate are the bytes on the wire, and not once more those that hf_xet makes of them."""
    with way_to(xet_store) as way:
        size = len(way.read(FIRST))
        assert size <= way.meter.bytes < 1.2 * size


def test_wrong_bytes_pass(xet_store: XetStore) -> None:
    """The control for the engine's verification: hf_xet gives wrong bytes without an error."""
    with way_to(xet_store, lambda _request, answer: flipped(answer, 5000)) as way:
        found = way.read(FIRST)
    right = (xet_store.folder / NAME).read_bytes()[: 4 * MIB]
    assert [one != other for one, other in zip(found, right, strict=True)].count(True) == 1


def test_a_clock_that_is_wrong(xet_store: XetStore) -> None:
    """A token that seems to have expired long ago is used for a minute at least: not each range asks for one."""
    with way_to(xet_store, None, lambda right: right | {"exp": 1}) as way:
        way.read(FIRST)
        way.read(FIRST)
        assert way.tokens_asked == 1
        assert len(way.secrets) == 1


def _sockets(pid: int | str) -> set[str]:
    """The inodes of the sockets of a process that have an internet address."""
    held = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            held.add(str(entry.readlink()).removeprefix("socket:[").rstrip("]"))
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()]
    return held & {row[9] for row in rows[1:] if len(row) > 9}


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="there is no /proc here")
def test_what_the_process_of_hf_xet_may_do(
    xet_store: XetStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has no connection to any host, which mdl itself has, and none of mdl's secrets. It sends nothing but what is
    needed to read. This process's own variables do not change."""
    monkeypatch.setenv("HF_TOKEN", HUBS)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@127.0.0.1:9")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before, seen = dict(os.environ), list[tuple[set[str], set[str], bytes]]()

    def look(request: Request, answer: Answer) -> Answer:
        for child in Path("/proc/self/task").glob("*/children"):
            for pid in child.read_text().split():
                if str(tmp_path).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    seen.append((_sockets(pid), _sockets("self"), Path(f"/proc/{pid}/environ").read_bytes()))
        return answer

    with way_to(xet_store, look) as way:
        way.read(FIRST)
        methods = {one.method for one in way.storage.requests}
    assert seen
    assert all(own and not theirs for theirs, own, _ in seen)
    assert not [environ for *_, environ in seen if HUBS.encode() in environ or b"secret" in environ]
    assert all(b"HF_XET_TELEMETRY_ENABLED=0" in environ for *_, environ in seen)
    assert methods == {"GET"}
    assert dict(os.environ) == before
    assert not list(tmp_path.iterdir())


def test_events_in_the_caller_s_thread(xet_store: XetStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What Xet has to say is said in the thread that called the operation, and only once."""
    heard: list[tuple[int, Event]] = []
    with xet_hub(xet_store, lambda _request, _answer: reply(403)) as (hub, _):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        tell = lambda event: heard.append((threading.get_ident(), event))  # noqa: E731
        mdl.get("hf:demo/tiny", home=tmp_path, via="xet", on_event=tell)
    assert {thread for thread, _ in heard} == {threading.get_ident()}
    assert ["come over HTTP" in event.message for _, event in heard if isinstance(event, Noticed)] == [True]
