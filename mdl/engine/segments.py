"""Segments of one file, and Download: where the fetching of one file stands. No I/O here.

Which worker may change what: ``busy`` gives one worker the whole Download; otherwise `Schedule` changes it under its
lock, and a worker only the Segment that it runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mdl.engine.follower import Follower
from mdl.engine.partial import Partial
from mdl.engine.plan import Item
from mdl.engine.ramp import Ramp
from mdl.errors import MdlError
from mdl.files import RemoteFile
from mdl.hashing import Fingerprint
from mdl.http.hosts import origin_of
from mdl.http.policy import Ended, State
from mdl.http.ranges import ByteRange, RangeSet
from mdl.redact import Secrets, redact_error

SMALL = 1024 * 1024
"""Files up to this size are fetched in one piece and held in memory."""

_LEAST, _MOST = 16 * 2**20, 256 * 2**20
_WORTH_SPLITTING = 4 * 2**20
_SLOW_TAIL_SECONDS = 2.0


def segment_length(size: int, connections: int) -> int:
    """Bytes of one segment: some four for each connection, neither tiny nor so large that a tail is slow."""
    return max(_LEAST, min(_MOST, size // (4 * connections)))


@dataclass(eq=False)
class Segment:
    """A range being fetched: written up to ``at``; ``stop`` may come nearer when another takes its tail. ``origin`` and
    ``mirrors`` (how many were left) say which server it is asked of."""

    stop: int | None
    at: int
    began: float = field(default_factory=time.monotonic)
    first: int = 0
    asked_url: str = ""
    origin: str = ""
    mirrors: int = 0
    abort: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.first = self.at

    @property
    def asked(self) -> ByteRange | None:
        return ByteRange(self.at, self.stop) if self.stop is not None and self.stop > self.at else None

    @property
    def left(self) -> int:
        return 0 if self.stop is None else self.stop - self.at

    def seconds_left(self, now: float) -> float:
        """How long it will take at the speed it had so far."""
        done = self.at - self.first
        return self.left * (now - self.began) / done if done else 0.0


class Download:
    """One file on its way. ``index`` counts from 1; ``carried`` ones come by the hub's own client."""

    def __init__(self, item: Item, index: int, connections: int, *, carried: bool = False) -> None:
        self.item, self.index = item, index
        self.remote: RemoteFile = item.remote
        self.carried = carried and item.remote.hub is not None
        mirrors = item.remote.mirrors if item.remote.digest and not self.carried else ()
        self._urls = (item.remote.url, *mirrors)
        self._origins = tuple(map(origin_of, self._urls))
        self.attempts = State(mirrors=len(mirrors))
        self.ramp = Ramp(connections, time.monotonic())
        self.partial: Partial | None = None
        self.follower: Follower | None = None
        self.expected: tuple[str, ...] = ()
        self.pending = RangeSet()
        self.running: set[Segment] = set()
        self.location: str | None = None
        self.answered_by = self.content_type = ""
        self.opened = self.single = self.busy = self.ended = self.streamed = False
        self.rewind_why = ""
        self.answers = 0
        self.resumed_at = self.fetched = self.discarded = 0
        self.error: MdlError | None = None
        self.others: list[MdlError] = []
        self.fingerprint: Fingerprint | None = None
        self.verified = "none"
        self._counting = threading.Lock()

    @property
    def model(self) -> str:
        return self.item.wanted.model

    @property
    def name(self) -> str:
        return self.remote.path.text

    @property
    def url(self) -> str:
        """The stable URL that is asked now."""
        return self._urls[-1 - self.attempts.mirrors]

    @property
    def origin(self) -> str:
        """The origin of `url`, which is asked for no more than it takes."""
        return self._origins[-1 - self.attempts.mirrors]

    @property
    def small(self) -> bool:
        fits = self.remote.size is not None and self.remote.size <= SMALL
        return fits and not self.expected and self.partial is None

    @property
    def done(self) -> int:
        """Bytes of the file that are here."""
        if self.ended and not self.error:
            return self.remote.size or 0
        return self.partial.total if self.partial else 0

    @property
    def complete(self) -> bool:
        """Every byte was written; what is left is to verify."""
        if self.partial is None or self.running or self.pending.total:
            return False
        return self.streamed or (self.remote.size is not None and self.partial.total >= self.remote.size)

    def cut(self) -> Segment | None:
        """The next segment to fetch, or None while none may run."""
        if self.small or self.carried or self.single or self.remote.size is None:
            return None if self.running else Segment(self.remote.size, 0)
        room = self.ramp.width if self.opened else 1
        if len(self.running) >= room:
            return None
        for gap in self.pending:
            stop = min(gap.stop, gap.start + segment_length(self.remote.size, self.ramp.width))
            self.pending.remove(gap.start, stop)
            return Segment(stop, gap.start)
        return None

    def split(self, now: float) -> Segment | None:
        """Half of the slowest tail, where waiting for it would take long."""
        if self.single or not self.opened or not self.running or len(self.running) >= self.ramp.width:
            return None
        slowest = max(self.running, key=lambda segment: segment.left)
        if slowest.left < _WORTH_SPLITTING or slowest.seconds_left(now) < _SLOW_TAIL_SECONDS:
            return None
        middle = slowest.at + slowest.left // 2
        tail = Segment(slowest.stop, middle)
        slowest.stop = middle
        return tail

    def give_back(self, segment: Segment) -> None:
        """What a segment did not bring is missing again."""
        segment.abort = None
        self.running.discard(segment)
        if not self.single and segment.stop is not None:
            self.pending.add(segment.at, segment.stop)

    def start(self, segment: Segment) -> None:
        """The segment is asked of the server of now."""
        segment.origin, segment.mirrors = self.origin, self.attempts.mirrors
        self.running.add(segment)

    def is_of_now(self, segment: Segment) -> bool:
        """The segment is asked of the server that is asked now, not of one that was given up on since."""
        return segment.mirrors == self.attempts.mirrors

    def ended_request(self, segment: Segment, others: int, is_serving: bool, error: MdlError | None) -> Ended:
        """How the request for ``segment`` ended, while ``others`` went on at the same origin, which ``is_serving``
        them."""
        first = max(segment.first, self.attempts.done) if self.single else segment.first
        return Ended(
            began=segment.began,
            brought=max(0, segment.at - first),
            asked=None if segment.stop is None else segment.stop - segment.first,
            done=self.partial.total if self.partial else 0,
            size=self.remote.size,
            received=self.fetched,
            error=error,
            by_link=error is not None
            and bool(segment.asked_url)
            and (segment.asked_url != self.url or error.redirected),
            others=others,
            is_serving=is_serving,
        )

    def clean(self, error: MdlError) -> None:
        """Take out of an error what stands behind the paths of the URLs that were asked: a server may repeat it."""
        secrets = Secrets()
        for url in (self.url, self.location, self.answered_by):
            secrets.add_query(url or "")
        redact_error(error, secrets)

    def go_on_elsewhere(self) -> None:
        """Another server is asked from now on: nothing is known of it."""
        self.location, self.opened = None, False
        if self.single and self.partial and self.remote.size is not None and not self.running:
            self.single, self.pending = False, RangeSet(self.partial.gaps(self.remote.size))

    def progressed(self, count: int) -> None:
        """Bytes came in."""
        with self._counting:
            self.fetched += count
