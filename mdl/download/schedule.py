"""Schedule: who does what next. One lock, one queue, files already begun first.

A worker takes a piece of Work, does it outside the lock, and says how it went. Nothing here touches
the network or the disk.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mdl.download.segments import Download, Segment
from mdl.errors import AuthError, MdlError, NetworkError, NotFound, ProtocolError, StorageError
from mdl.events import Event, Retrying
from mdl.net.hosts import host_of
from mdl.net.retry import Backoff

_LIES = 2
_REFUSALS = 2


@dataclass(frozen=True)
class Work:
    """``begin`` opens a file's partial, ``fetch`` runs a segment, ``rewind`` throws bytes away, ``finish``
    verifies and publishes."""

    kind: Literal["begin", "fetch", "rewind", "finish"]
    download: Download
    segment: Segment | None = None


class Schedule:
    """The downloads of one transfer. ``post`` takes events from any thread."""

    def __init__(
        self, downloads: Sequence[Download], connections: int, backoff: Backoff, post: Callable[[Event], None]
    ) -> None:
        self._waiting = deque(downloads)
        self.active: list[Download] = []
        self._left = len(downloads)
        self._room: dict[str, int] = {}
        self._connections, self._backoff, self._post = connections, backoff, post
        self._changed = threading.Condition(threading.RLock())
        self._closed = False

    def take(self) -> Work | None:
        """The next piece of work; waits for one. None when there will be none any more."""
        with self._changed:
            while not self._closed and self._left:
                now = time.monotonic()
                work = self._next(now)
                if work:
                    return work
                soonest = min((d.retry_at for d in self.active if d.retry_at > now), default=now + 0.25)
                self._changed.wait(max(0.005, min(0.25, soonest - now)))
            return None

    def wait(self, seconds: float) -> bool:
        """Wait a little; True while something is left to do."""
        with self._changed:
            if self._left and not self._closed:
                self._changed.wait(seconds)
            return bool(self._left) and not self._closed

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self, now: float) -> Work | None:
        for download in self.active:
            work = self._next_of(download, now)
            if work:
                return work
        if self._waiting and len(self.active) < self._connections:
            download = self._waiting.popleft()
            download.busy = True
            self.active.append(download)
            return Work("begin", download)
        for download in self.active:
            idle = download.busy or download.rewind_why or not self._has_room(download)
            tail = None if idle else download.split(now)
            if tail:
                download.running.add(tail)
                return Work("fetch", download, tail)
        return None

    def _next_of(self, download: Download, now: float) -> Work | None:
        if download.busy:
            return None
        if download.rewind_why:
            if download.running:
                return None
            download.busy = True
            return Work("rewind", download)
        if download.complete:
            download.busy = True
            return Work("finish", download)
        if now < download.retry_at or not self._has_room(download):
            return None
        segment = download.cut()
        if segment is None:
            return None
        download.running.add(segment)
        return Work("fetch", download, segment)

    def _running_on(self, host: str) -> int:
        return sum(len(one.running) for one in self.active if host_of(one.url) == host)

    def _has_room(self, download: Download) -> bool:
        """Fewer run on its host than that host was seen to take: it turned one away while these went on."""
        host = host_of(download.url)
        return host not in self._room or self._running_on(host) < self._room[host]

    def ready(self, download: Download) -> None:
        """``begin`` or ``rewind`` is done."""
        with self._changed:
            download.busy = False
            self._changed.notify_all()

    def returned(self, download: Download, segment: Segment) -> None:
        """A segment ended in order; what it did not bring is queued again."""
        with self._changed:
            download.give_back(segment)
            self._changed.notify_all()

    def missing(self, download: Download, start: int, stop: int) -> None:
        """These bytes of a running file turned out wrong."""
        with self._changed:
            download.pending.add(start, stop)
            self._changed.notify_all()

    def end(self, download: Download, error: MdlError | None) -> bool:
        """The file is done, or given up; False where it was already."""
        with self._changed:
            if download.ended:
                return False
            download.ended, download.error = True, error
            self.active.remove(download)
            self._left -= 1
            for segment in download.running:
                if segment.abort:
                    segment.abort()
            self._changed.notify_all()
            return True

    def rewind(self, download: Download, why: str) -> None:
        """Have every byte thrown away once nothing runs any more."""
        with self._changed:
            download.rewind_why = download.rewind_why or why
            for segment in download.running:
                if segment.abort:
                    segment.abort()
            self._changed.notify_all()

    def failed(self, download: Download, segment: Segment, error: MdlError) -> bool:
        """A segment ended in trouble: wait and try again, ask another mirror, or give the file up.

        True where this very failure ended the file.
        """
        with self._changed:
            progressed = download.got_further()
            began = segment.at > segment.first
            download.give_back(segment)
            self._changed.notify_all()
            if download.ended or download.rewind_why:
                return False
            final = self._judge(download, segment, error, progressed or began)
            if final is not None:
                self._give_up(download, final)
            return download.ended

    def _judge(self, download: Download, segment: Segment, error: MdlError, answered: bool) -> MdlError | None:
        """None to go on with the same server, else the error that ends it."""
        if isinstance(error, (AuthError, NotFound)) and (segment.asked_url != download.url or error.redirected):
            if download.location in (None, segment.asked_url):
                download.refusals += 1
                download.location = None
            return None if download.refusals <= _REFUSALS else error
        if isinstance(error, ProtocolError):
            download.location = None
            download.lies += 1
            if download.lies > min(_LIES, self._backoff.tries - 1):
                return error
            self._again(download, error, download.lies)
            return None
        if not isinstance(error, NetworkError) or error.final:
            return error
        download.location = None
        others = self._running_on(host_of(download.url))
        if others and not answered:
            self._room[host_of(download.url)] = others
            return None
        now = time.monotonic()
        if now >= download.retry_at:
            download.failures += 1
            if download.failures >= self._backoff.tries:
                return error
            self._again(download, error, download.failures, error.retry_after)
        return None

    def _again(self, download: Download, error: MdlError, failure: int, wish: float | None = None) -> None:
        delay = self._backoff.delay(failure, random.random(), wish)
        download.retry_at = time.monotonic() + delay
        self._post(Retrying(download.model, download.name, why=error.message, attempt=failure, delay=delay))

    def _give_up(self, download: Download, error: MdlError) -> None:
        """This server will not do: the next mirror, or the end."""
        download.others.append(error)
        if not isinstance(error, StorageError) and self._next_mirror(download, error):
            return
        first = download.others[0]
        if len(download.others) > 1:
            tried = "; ".join(one.message for one in download.others[1:])
            first.message += f"; mirrors: {tried}"
        self.end(download, first)

    def _next_mirror(self, download: Download, error: MdlError) -> bool:
        if download.candidate + 1 >= len(download.candidates):
            return False
        download.candidate += 1
        download.location, download.opened = None, False
        download.failures = download.lies = download.refusals = 0
        download.retry_at = 0.0
        why = f"{error.message}; going on with the mirror at {host_of(download.url)}"
        self._post(Retrying(download.model, download.name, why=why, attempt=0, delay=0.0))
        return True
