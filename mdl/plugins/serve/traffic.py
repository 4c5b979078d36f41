"""Traffic: what was asked and answered: a JSON line of the request log each, and counters for Prometheus."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mdl.bounds import LONGEST_QUOTE
from mdl.formatting import utc_now
from mdl.jobs import prometheus
from mdl.jobs.log import Log
from mdl.paths import shown
from mdl.plugins.serve.connection import App, Scope
from mdl.redact import Secrets, redact

COUNT = "mdl.count"
"""Under which ASGI's scope has what counts the bytes that go past it, from file to socket."""
WARN_AT = 30
"""So many wrong tokens from one address are worth a warning."""
_MOST_ADDRESSES = 1000


@dataclass
class Traffic:
    """The counters of one server, and its log if it keeps one. ``trouble`` is told why no line can be written."""

    log: Log | None = None
    secrets: Secrets = field(default_factory=Secrets)
    trouble: Callable[[OSError], None] = lambda _error: None
    requests: Counter[int] = field(default_factory=Counter)
    bytes_sent: int = 0
    files_open: int = 0
    running: int = 0
    wrong_tokens: int = 0
    _wrong_by_address: dict[str, int] = field(default_factory=dict)
    _is_log_broken: bool = False

    def observed(self, app: App) -> App:
        """The same application, with every request counted and logged."""

        async def run(scope: Scope, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            began = time.monotonic()
            status = 500
            sent = 0

            def count(number: int) -> None:
                nonlocal sent
                sent += number
                self.bytes_sent += number

            async def noted(message: Any) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = int(message["status"])
                elif scope["method"] != "HEAD":
                    count(len(message.get("body", b"")))
                await send(message)

            scope[COUNT] = count
            self.running += 1
            try:
                await app(scope, receive, noted)
            finally:
                self.running -= 1
                self.requests[status] += 1
                self._note(scope, status, sent, time.monotonic() - began)

        return run

    def _note(self, scope: Scope, status: int, sent: int, seconds: float) -> None:
        if self.log is None:
            return
        agents = (value for name, value in scope["headers"] if name == b"user-agent")
        known = tuple(self.secrets)
        facts = {
            "time": utc_now(),
            "client": scope["client"][0] if scope["client"] else None,
            "method": scope["method"],
            "path": _clean(scope["path"], known),
            "status": status,
            "bytes": sent,
            "seconds": round(seconds, 4),
            "agent": _clean(next(agents, b"").decode("latin-1"), known),
        }
        try:
            self.log.append(json.dumps(facts))
            self._is_log_broken = False
        except OSError as error:
            if not self._is_log_broken:
                self.trouble(error)
            self._is_log_broken = True

    def count_wrong_token(self, address: str) -> bool:
        """Note that a wrong token came from an address. Returns whether it is time to warn of it, which it is once."""
        self.wrong_tokens += 1
        counts = self._wrong_by_address
        counts[address] = counts.get(address, 0) + 1
        if len(counts) > _MOST_ADDRESSES:
            del counts[min(counts, key=lambda one: counts[one])]
        return counts.get(address) == WARN_AT

    def metrics(self) -> str:
        """The counters, as Prometheus reads them."""
        statuses = {prometheus.labels(status=str(one)): count for one, count in sorted(self.requests.items())}
        return prometheus.exposition(
            [
                prometheus.Counter("mdl_serve_requests_total", "Requests that were answered.", statuses),
                prometheus.Counter("mdl_serve_sent_bytes_total", "Bytes of bodies.", {"": self.bytes_sent}),
                prometheus.Counter(
                    "mdl_serve_wrong_tokens_total", "Requests with a wrong token.", {"": self.wrong_tokens}
                ),
                prometheus.Gauge("mdl_serve_files_open", "Files that are being sent.", {"": self.files_open}),
                prometheus.Gauge("mdl_serve_requests_running", "Requests that are being answered.", {"": self.running}),
            ]
        )


def _clean(text: str, secrets: Iterable[str]) -> str:
    """A text of a client as it may stand in a log."""
    return redact(shown(text[:LONGEST_QUOTE]), secrets)
