"""The engine at work against real sockets: `Bench.run` is one ``mdl get`` in this process.

There are no waits between attempts. A run that goes round in circles is stopped and fails its test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mdl.catalog.model import CatalogFile, Model
from mdl.catalog.resolver import Resolver
from mdl.context import Context
from mdl.downloader import journal
from mdl.downloader.connection_scaler import Tuning
from mdl.downloader.store import Store
from mdl.errors import Cancelled
from mdl.events import Event, Progressed, Retrying, Rewound
from mdl.hashing import Digest
from mdl.net.allowlist import AllowList, OriginToken
from mdl.net.client import HttpClient
from mdl.net.pacer import OriginRecord
from mdl.net.policy import Limits, RetryPolicy
from mdl.net.throttle import NO_LIMIT, Throttle
from mdl.ops.get import GetRequest, get
from mdl.paths import RelPath
from mdl.reports import FileReport, Report
from mdl.sources import SourceContext
from mdl.sources.hub_endpoint import Endpoint
from mdl.sources.hub_origin import HubOrigin
from mdl.values import value_class
from support import faults
from support.data import sha256
from support.faulty_server import FaultyServer, Handler, Request
from support.networks import network_of
from support.polling import until

NAME = "model.bin"
_ROUNDS = 60
ONE_CONNECTION = Tuning(probe_after=math.inf)
"""A file has one connection at a time: when mdl opens more of them by itself depends on how slow the machine is."""
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


KNOWN = pytest.mark.parametrize("known", [True, False])
"""With the file's size and digest, or with its URL alone."""


def pinned(url: str, data: bytes, *, path: str = NAME, mirrors: Sequence[str] = ()) -> CatalogFile:
    """A catalog's file with size and digest."""
    return CatalogFile(RelPath.parse(path), url, tuple(mirrors), len(data), Digest("sha256", sha256(data)))


def loose(url: str, *, path: str = NAME, size: int | None = None) -> CatalogFile:
    """A catalog's file of which only the URL is known, and perhaps the size."""
    return CatalogFile(RelPath.parse(path), url, size=size)


def claimed_in(models: Path) -> int:
    """Bytes that the journals in a models folder claim."""
    records = [journal.load(path) for path in models.glob(".mdl/partials/*/journal")]
    return sum(record.have.total for record in records if record)


@dataclass
class Run:
    """What one run did. ``report`` is None if it was stopped."""

    report: Report | None = None
    events: list[Event] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    """Those of a `Bench.fetch`."""

    @property
    def code(self) -> int:
        return self.report.exit_code if self.report else Cancelled.exit_code

    @property
    def row(self) -> FileReport:
        assert self.report is not None
        return self.report.models[0].files[0]

    @property
    def status(self) -> str:
        assert self.report is not None
        return self.report.models[0].status

    @property
    def error(self) -> dict[str, Any]:
        """The facts of the first failure."""
        assert self.report is not None
        found = [self.report.models[0].error, *(row.error for row in self.report.models[0].files)]
        return next(error.to_dict() for error in found if error)

    @property
    def rewound(self) -> int:
        """Bytes that were reported as discarded."""
        return sum(event.bytes_discarded for event in self.events if isinstance(event, Rewound))

    @property
    def retries(self) -> int:
        return sum(isinstance(event, Retrying) for event in self.events)


class Bench:
    """One models folder."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_stopping = False
        self.store = Store(root / "models")
        self.waits: list[float | None] = []
        """What servers asked to wait, before each further attempt."""
        self.allow = ["127.0.0.1"]
        self.tuning = ONE_CONNECTION
        self.serves_parallel: bool | None = None
        for name in _PROXIES:
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)

    def segments(self, length: int) -> None:
        """Have even small files fetched in several segments at once, from servers that are known to serve that."""
        self.tuning = Tuning(least_segment=length)
        self.serves_parallel = True

    def segments_in_turn(self, length: int) -> None:
        """Have even small files fetched in segments of that length, one after the other."""
        self.tuning = replace(self.tuning, least_segment=length)

    @property
    def final(self) -> Path:
        return self.store.folder("m") / NAME

    @property
    def partials(self) -> list[Path]:
        """The unfinished data files that are here."""
        return sorted(self.store.partials.glob("*/data"))

    @property
    def claimed(self) -> int:
        """Bytes that journals claim."""
        return claimed_in(self.store.root)

    def strangers(self) -> list[str]:
        """The files in the models folder beside the final one and those in mdl's own folder."""
        found = [p.relative_to(self.store.root).as_posix() for p in self.store.root.rglob("*") if not p.is_dir()]
        return [name for name in found if not name.startswith(".mdl/") and name != f"m/{NAME}"]

    def http(
        self,
        hosts: AllowList | None = None,
        bearer: OriginToken | None = None,
        *,
        connections: int = 4,
        retries: int = 3,
        stall: float = 10.0,
        slow: float = 60.0,
        throttle: Throttle = NO_LIMIT,
    ) -> HttpClient:
        """A client that waits for nothing between two attempts."""
        client = HttpClient(
            hosts or AllowList.of(self.allow),
            tokens=[bearer],
            limits=Limits(
                connections, connect=min(stall, 5.0), stall=stall, slow=slow, policy=_AtOnce(retries, bench=self)
            ),
            throttle=throttle,
        )
        client.pacer.records.default_factory = partial(OriginRecord, serves_parallel=self.serves_parallel)
        return client

    def run(
        self,
        *files: CatalogFile,
        source: HubOrigin | None = None,
        hub: str = "http://127.0.0.1:9",
        token: str | None = None,
        bearer: OriginToken | None = None,
        hosts: AllowList | None = None,
        stop_at: int | None = None,
        force: bool = False,
        lock_wait: float = 0.0,
        tell: Callable[[Event], None] | None = None,
        **limits: Any,
    ) -> Run:
        """Get the files (or the hub's repository) as the model ``m``; with ``stop_at`` bytes here, interrupt. The
        ``limits`` are those of `http`."""
        run = Run()
        self.is_stopping = circles = False

        def listen(event: Event) -> None:
            nonlocal circles
            run.events.append(event)
            if tell:
                tell(event)
            if stop_at is not None and isinstance(event, Progressed) and event.bytes_done >= stop_at:
                self.is_stopping = True
                raise KeyboardInterrupt
            rounds = sum(isinstance(one, Retrying | Rewound) for one in run.events)
            circles = rounds > _ROUNDS
            if circles:
                raise Cancelled

        endpoint = Endpoint(hub, token)
        with self.http(hosts, bearer or endpoint.origin_token, **limits) as http:
            network = network_of(http)
            resolver = Resolver(SourceContext(endpoint, self.store.listings, network, listen))
            tools = Context(resolver, self.store, network, lock_wait=lock_wait, on_event=listen, tuning=self.tuning)
            model = Model("m", files=files, sources=(source,) if source else ())
            try:
                run.report = get(tools, GetRequest((model,), force))
            except Cancelled:
                if not circles:
                    published = [path for path in self.store.folder("m").rglob("*") if path.is_file()]
                    here = sum(path.stat().st_size for path in published)
                    until(lambda: here + self.claimed >= (stop_at or 0))
        assert not circles, f"it goes round in circles: {run.events[-3:]}"
        return run

    def has(self, data: bytes) -> bool:
        """Whether the final name has these bytes, and nothing is left over."""
        return self.final.read_bytes() == data and not self.partials and not self.strangers()

    @property
    def is_untouched(self) -> bool:
        """Whether nothing is under the final name or beside it."""
        return not self.final.exists() and not self.strangers()

    def fetch(
        self,
        handler: Handler,
        data: bytes,
        *,
        known: bool = True,
        half: bool = False,
        path: str = NAME,
        mirrors: Sequence[str] = (),
        **more: Any,
    ) -> Run:
        """Run once for the file ``data``, which ``handler`` serves, if ``half`` after half of it came from an honest
        server. Its size and digest are ``known``, or only its URL. ``more`` is as for `run`."""
        with FaultyServer(faults.honest(data) if half else handler) as server:
            url = server.url + "/f"
            file = pinned(url, data, path=path, mirrors=mirrors) if known else loose(url, path=path)
            if half:
                self.half(file, server, data)
            before, server.handler = len(server.requests), handler
            run = self.run(file, **more)
            run.requests = server.requests[before:]
        return run

    def half(self, file: CatalogFile, server: Any, data: bytes, **more: Any) -> int:
        """Have half of the file here, interrupted; returns how many bytes that are. The server goes on hanging."""
        at = len(data) // 2
        server.handler = faults.stall_in_body(data, at)
        stopped = self.run(file, stop_at=at, **more)
        assert (stopped.code, self.final.exists()) == (130, False)
        return at


@value_class
class _AtOnce(RetryPolicy):
    """No waits, but for a run that is being interrupted. What servers asked for is kept in `Bench.waits`."""

    bench: Bench | None = None

    def delay(self, failure: int, jitter: float, asked: float | None = None) -> float:
        assert self.bench
        self.bench.waits.append(asked)
        return 60.0 if self.bench.is_stopping else 0.0


def probes(request: Request) -> bool:
    """Whether a file's first byte alone is asked for, to learn its size."""
    return request.header("range") == "bytes=0-0"


def stalled(right: Handler, at: int) -> Handler:
    """The handler's answers, each silent after ``at`` bytes."""
    return faults.ending(faults.cut(right, at), "hang")
