"""Downloads: where the fetching of one file stands. Pure: the caller has the clock and the bytes.

Who may change what: while ``exclusive`` is set, one worker has the whole Download. Otherwise it is changed under the
lock of the schedule alone (`mdl.downloader.shared_schedule`), and a worker only changes the Segment that it fetches.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from operator import attrgetter
from typing import Literal, Protocol

from mdl.downloader.connection_scaler import ConnectionScaler, Tuning
from mdl.downloader.plan import Item
from mdl.downloader.segment import Segment
from mdl.errors import MdlError
from mdl.files import LocalFile, RemoteFile
from mdl.hashing import Digest, Fingerprint
from mdl.net.allowlist import origin_of
from mdl.net.pacer import OriginRecord
from mdl.net.policy import RequestEnded, State
from mdl.net.ranges import ByteRange, RangeSet
from mdl.urls import expires_at
from mdl.values import small_value_class

_EXPIRES_SOON = 60.0
"""A redirect's target that expires within so many seconds is not used any more."""


class HeldBytes(Protocol):
    """The bytes of a file that are on this disk, as far as its download asks. A partial is one."""

    is_in_order: bool

    @property
    def total(self) -> int:
        """Bytes that are there."""

    def gaps(self, size: int) -> list[ByteRange]:
        """Return the ranges of a file of ``size`` bytes that are missing."""


class NoBytes:
    """The bytes of a file without a partial: none."""

    is_in_order = False
    total = 0

    def gaps(self, size: int) -> list[ByteRange]:
        """Return the range of the whole file."""
        return [ByteRange(0, size)] if size else []


NO_BYTES = NoBytes()


@small_value_class
class FileResult:
    """The end of one file's download: with ``error``, or published with ``digest`` and ``size``. ``remote`` is the
    file as its source described it in the end. ``fetched`` and ``discarded`` are bytes."""

    item: Item
    remote: RemoteFile
    error: MdlError | None
    digest: Digest | None
    size: int | None
    verified: str
    resumed_at: int
    fetched: int
    discarded: int


class Download:
    """One file on its way. ``index`` counts from 1; ``via_hub`` if the hub's own client fetches it.

    There may be 100,000 of them, of which few are fetched at a time. So what has not changed yet is of the class, what
    is needed on the way is made when it is first asked for, and of one that has ended only the `result` stays.
    """

    held: HeldBytes = NO_BYTES
    """Its bytes that are here. Those of its partial once that is open; a small file has none."""
    location: str | None = None
    """Where the URL redirected to, while that may be asked directly."""
    first_response_seen = False
    has_probed = False
    """Its second connection was to tell whether the origin serves one."""
    single_stream = False
    """It comes in one answer, from its start."""
    range_was_refused = False
    """For good: if the whole file is served instead, its server does not serve ranges."""
    exclusive = False
    ended = False
    identified: Item | None = None
    """The decision on it that was made when the head of its first answer told what it is, if nobody was asked
    before."""
    length_discovered = False
    """The size was unknown, and the end of the stream told it."""
    rewind_why = ""
    resumed_at = 0
    discarded = 0
    error: MdlError | None = None
    mirror_errors: tuple[MdlError, ...] = ()
    fingerprint: Fingerprint | None = None
    verified = "none"
    _fetched = 0

    def __init__(
        self, item: Item, index: int, connections: int, *, via_hub: bool = False, tuning: Tuning = Tuning()
    ) -> None:
        self.item = item
        self.index = index
        self._connections = connections
        self._tuning = tuning
        self.remote: RemoteFile = item.remote
        self.via_hub = via_hub and item.remote.hub is not None

    @cached_property
    def _urls(self) -> tuple[str, ...]:
        remote = self.remote
        if remote.digest is None or self.via_hub:
            return (remote.url,)
        return remote.places or (remote.url, *remote.mirrors)

    @cached_property
    def _origins(self) -> tuple[str, ...]:
        return tuple(map(origin_of, self._urls))

    @cached_property
    def attempts(self) -> State:
        """The tries and waits that were spent on it so far."""
        return State(mirrors=len(self._urls) - 1)

    @cached_property
    def scaler(self) -> ConnectionScaler:
        """The number of connections that it uses."""
        return ConnectionScaler(self._connections, self._tuning)

    @cached_property
    def pending(self) -> RangeSet:
        """The bytes of which no segment was made yet."""
        return RangeSet()

    @cached_property
    def running(self) -> set[Segment]:
        """The segments that are being fetched."""
        return set()

    @property
    def fetched(self) -> int:
        """Bytes that came from the network."""
        return self._fetched + sum(segment.received for segment in self.running)

    @property
    def size(self) -> int:
        """Its size in bytes; 0 as long as that is not known."""
        return self.remote.size or 0

    @property
    def model(self) -> str:
        return self.item.wanted.model

    @property
    def name(self) -> str:
        return self.remote.path.text

    @property
    def url(self) -> str:
        """The stable URL of the server that is asked now."""
        return self._urls[-1 - self.attempts.mirrors]

    @property
    def origin(self) -> str:
        """The origin of `url`."""
        return self._origins[-1 - self.attempts.mirrors]

    def address(self, now: float) -> str:
        """Return the URL to ask ``now``, in seconds since 1970: where `url` redirected to, unless the query of that
        tells that it expires within a minute, else `url`."""
        if not self.location or expires_at(self.location) - now < _EXPIRES_SOON:
            return self.url
        return self.location

    @property
    def heeds_validators(self) -> bool:
        """Whether another ETag means another version of the file. Several machines behind one name may each send their
        own, and so may several mirrors in one object store: then the digest decides. Without a digest the file comes in
        one answer, which needs no validator."""
        if self.remote.digest is None:
            return not self.attempts.is_plain
        return not (self.attempts.changes or self.remote.places)

    @property
    def is_unasked(self) -> bool:
        """Whether the answer to its first request is to say what file it is."""
        return self.remote.is_unasked and not self.via_hub

    @property
    def seen(self) -> LocalFile | None:
        """The only file under its final name that it may replace; None if it may replace any."""
        return (self.identified or self.item).seen

    @property
    def small(self) -> bool:
        """Whether it is fetched in one piece and held in memory."""
        return self._fits_in_memory and not self.is_unasked

    @property
    def _fits_in_memory(self) -> bool:
        """Whether it is small enough to be held in memory, and no partial of it is open."""
        size = self.remote.size
        return size is not None and size <= self._tuning.small and self.held is NO_BYTES

    @property
    def needs_one_answer(self) -> bool:
        """Whether all of it is asked for in one request, beside which no other runs."""
        if self.single_stream or self.via_hub or self.remote.size is None:
            return True
        return self._fits_in_memory or self.is_unasked

    @property
    def is_busy(self) -> bool:
        """Whether no worker can do anything more for it until one of those at work on it is done."""
        if self.exclusive or not self.running:
            return self.exclusive
        return self.needs_one_answer or self.is_settled

    @property
    def is_settled(self) -> bool:
        """Whether what its requests bring is of no use any more: it has ended, fails, or begins anew."""
        return self.ended or self.error is not None or self.rewind_why != ""

    @property
    def exclusive_work(self) -> Literal["close", "rewind", "finish"] | None:
        """The work for which a worker has the file for itself, while no segment of it is being fetched; None if there
        is none."""
        if self.error:
            return "close"
        if self.rewind_why:
            return "rewind"
        if self.is_complete:
            return "finish"
        return None

    @property
    def done(self) -> int:
        """Bytes of the file that are on this disk."""
        if self.ended and not self.error:
            return self.size
        return self.held.total

    def is_wanted(self, segment: Segment) -> bool:
        """Return whether the bytes of a segment are still needed, so that the end of its request counts."""
        return not (segment.is_unwanted or self.is_settled)

    @property
    def is_complete(self) -> bool:
        """Whether every byte was written, so that it can be verified."""
        if self.held is NO_BYTES or self.running or self.pending.total:
            return False
        if self.length_discovered:
            return True
        return self.remote.size is not None and self.held.total >= self.remote.size

    # Which segment is fetched next.

    def whole(self) -> Segment:
        """Return the segment that asks for the whole file, without a range."""
        return Segment(self.remote.size, 0, is_whole=True)

    def next_segment(self, record: OriginRecord) -> Segment | None:
        """Return the next segment to fetch of a file that is not busy; None if no further one may run now. ``record``
        says what its origin can."""
        if self.needs_one_answer:
            return self.whole()
        if len(self.running) >= self._width(record):
            return None
        if self.running and record.serves_parallel is None:
            return self._probe_segment(record)
        is_first = not self.running
        is_in_part = 0 < self.pending.total < self.size
        if is_first and is_in_part and record.serves_ranges is False:
            self.single_stream = True
            return self.whole()
        length = min(self._segment_length(record), self._tuning.most_request)
        self._shorten_running(length)
        gap = next(iter(self.pending), None)
        if gap is None:
            return None
        stop = min(gap.stop, gap.start + length)
        self.pending.remove(gap.start, stop)
        return Segment(stop, gap.start, is_whole=stop - gap.start == self.size)

    def _shorten_running(self, length: int) -> None:
        """Leave to other connections what goes far beyond ``length`` bytes of each, once the speed is known."""
        if not self.scaler.speed:
            return
        for segment in self.running:
            if segment.left > 2 * length:
                rest = segment.cut(segment.at + length)
                if rest:
                    self.pending.add(rest.start, rest.stop)

    def _width(self, record: OriginRecord) -> int:
        """Return how many connections it may use now. Nobody opens a third one before a second has been served."""
        if not self.first_response_seen or not record.may_have_two:
            return 1
        if record.serves_parallel:
            return self.scaler.width
        if self.has_probed:
            return max(1, len(self.running))
        return min(2, self.scaler.width)

    def _probe_segment(self, record: OriginRecord) -> Segment | None:
        """Return what a second connection is to bring, while it is open whether the origin serves one; None if nobody
        is to be asked now. It begins far away: a cache that fetches all bytes before it first is found out by that."""
        first = next(iter(self.running))
        if record.is_asked or not first.is_answered:
            return None
        speed = self.scaler.speed
        if speed and first.first and record.is_late_beginning(first.seconds_to_answer(0.0), first.first / speed):
            record.second_refused()
            return None
        segment = self._far_away(first)
        if segment is None:
            return None
        record.ask_second()
        self.has_probed = True
        segment.probe_parallel(segment.at / speed if speed else math.inf)
        return segment

    def _far_away(self, first: Segment) -> Segment | None:
        """Return the last gap as a segment, or else the second half of the ``first`` segment, or what is behind the
        longest segment if that is more; None if the first one is short."""
        gaps = list(self.pending)
        if gaps:
            last = gaps[-1]
            start = max(last.start, last.stop - self._tuning.most_request)
            self.pending.remove(start, last.stop)
            return Segment(last.stop, start)
        if first.left < 2 * self._tuning.least_tail:
            return None
        middle = first.at + min(self._tuning.most_segment, first.left // 2)
        return _cut_off(first, middle)

    def _segment_length(self, record: OriginRecord) -> int:
        """Return the length of the next segment in bytes: shorter towards the end, so that all connections end
        together."""
        tuning = self._tuning
        speed = self.scaler.speed
        if not speed:
            return max(tuning.least_segment, self.size // 4)
        if self._width(record) == 1:
            return self.size
        length = speed * tuning.brief_segment
        if not self.scaler.is_probing:
            fair = self.pending.total / (2 * self.scaler.width)
            length = max(length, min(fair, speed * tuning.long_segment))
        return min(tuning.most_segment, max(tuning.shortest_segment, int(length)))

    def split(self, now: float, record: OriginRecord) -> Segment | None:
        """Return half of the tail of the slowest segment, if that would take long, and much longer than all that is
        left would take at the speed of the whole file; else None: then the link is the limit, and bytes on their way
        would come twice."""
        if self.single_stream or not record.serves_parallel:
            return None
        if not 0 < len(self.running) < self._width(record):
            return None
        slowest = max(self.running, key=lambda segment: self._seconds_left(segment, now))
        seconds = self._seconds_left(slowest, now)
        if slowest.left < self._tuning.least_tail or seconds < self._tuning.slow_tail:
            return None
        speed = self.scaler.speed * self.scaler.width
        left = sum(segment.left for segment in self.running)
        if speed and seconds < 2 * left / speed:
            return None
        return _cut_off(slowest, slowest.at + slowest.left // 2)

    def _seconds_left(self, segment: Segment, now: float) -> float:
        """Return how long a segment will take at its own speed, or, if it has just begun, at that of the others."""
        elapsed = now - segment.began
        if elapsed >= self._tuning.slow_tail:
            came = segment.at - segment.first
            return segment.left * elapsed / max(came, 1)
        if not self.scaler.speed:
            return 0.0
        return segment.left / self.scaler.speed

    def stop_superfluous(self) -> None:
        """Go on with one connection alone if several were found to bring no more than one."""
        if self.scaler.width > 1 or self.scaler.is_probing:
            return
        in_order = sorted(self.running, key=attrgetter("at"))
        for segment in in_order[1:]:
            segment.give_up()

    # What the schedule does with its segments.

    def start(self, segment: Segment, now: float) -> None:
        """Note that the segment is about to be asked of the current server."""
        segment.start(now, self.origin, self.attempts.mirrors)
        self.running.add(segment)

    def stop(self, segment: Segment) -> None:
        """Note that nothing more is fetched of the segment."""
        if segment in self.running:
            self.running.remove(segment)
            self._fetched += segment.received

    def abort(self) -> None:
        """End all its requests."""
        for segment in self.running:
            segment.end_request()

    def requeue(self, segment: Segment) -> None:
        """Have what a request did not bring of its segment fetched by another one."""
        if self.single_stream or segment.left <= 0:
            return
        stop = segment.at + segment.left
        for other in self.running:
            if other.can_extend_to(segment.at, stop):
                other.extend(stop)
                return
        self.pending.add(segment.at, stop)

    def is_current(self, segment: Segment) -> bool:
        """Return whether the segment is asked of the current server, not of one that was given up since."""
        return segment.mirrors == self.attempts.mirrors

    def ended_request(
        self, segment: Segment, others: int, is_serving: bool, record: OriginRecord, error: MdlError | None
    ) -> RequestEnded:
        """Return how the request for ``segment`` ended, while ``others`` went on at the same origin, which
        ``is_serving`` them. ``record`` says what the origin can."""
        first = segment.first
        if self.single_stream:
            first = max(first, self.attempts.done)
        was_redirected = segment.asked_url not in ("", self.url)
        return RequestEnded(
            began=segment.began,
            brought=max(0, segment.at - first),
            asked=None if segment.stop is None else segment.stop - segment.first,
            done=self.held.total,
            size=self.remote.size,
            received=self.fetched,
            error=error,
            by_link=was_redirected or (error is not None and error.redirected),
            others=others,
            is_serving=is_serving,
            is_ranged=segment.asked_range is not None,
            serves_ranges=record.serves_ranges is True,
            is_hopeless=record.refusals_are_final,
            has_answered=record.has_answered,
        )

    def attempted(self, attempts: State) -> None:
        """Note what was spent on it so far, as the policy counts that."""
        self.attempts = attempts

    def use_one_answer(self) -> None:
        """Have it come in one answer, from its start."""
        self.single_stream = True

    def ask_without_range(self, *, is_for_good: bool) -> None:
        """Have it asked for without a range. ``is_for_good``: if it comes, its server has no ranges."""
        self.single_stream = True
        self.range_was_refused = is_for_good

    def switch_server(self, error: MdlError) -> None:
        """Go on with another server, of which nothing is known, after this ``error``."""
        self.mirror_errors = (*self.mirror_errors, error)
        self.location = None
        self.first_response_seen = False
        self.range_was_refused = False
        may_come_in_parts = self.held is not NO_BYTES and not self.held.is_in_order
        if self.single_stream and may_come_in_parts and not self.running and self.remote.size is not None:
            self.single_stream = False
            self.pending = self._missing_beside(self.held)

    def leave_link(self, segment: Segment) -> None:
        """Ask the stable URL again, if a segment failed where that redirected to."""
        if self.location == segment.asked_url:
            self.location = None

    # Who works on it.

    def reserve(self) -> None:
        """Leave it to one worker alone."""
        self.exclusive = True

    def release(self) -> None:
        """Let any worker go on with it."""
        self.exclusive = False

    def lose(self, count: int) -> None:
        """Count bytes of it that were discarded."""
        self.discarded += count

    def discard(self, why: str) -> None:
        """Have every byte discarded, for this reason, once no segment is being fetched."""
        self.rewind_why = why
        self.abort()

    def fail(self, error: MdlError) -> None:
        """Have it fail with ``error``, unless it has failed or ended before."""
        if self.error is None and not self.ended:
            self.error = error
        self.abort()

    def end(self) -> None:
        """Note that it was published, or closed after it failed."""
        self.ended = True

    # What a worker finds out while it has the file for itself, or under the lock of the schedule.

    def opened(self, held: HeldBytes) -> None:
        """Take the open partial: the bytes that it lacks are to be fetched, in one answer if it is written in order."""
        self.held = held
        self.resumed_at = held.total
        if held.is_in_order:
            self.use_one_answer()
        self.pending = self._missing_beside(held)

    def _missing_beside(self, held: HeldBytes) -> RangeSet:
        """Return the bytes of the file that are not ``held``; none if it comes in one answer."""
        if self.single_stream or self.remote.size is None:
            return RangeSet()
        return RangeSet(held.gaps(self.remote.size))

    def dropped(self) -> None:
        """Let go of the partial, which is gone."""
        self.held = NO_BYTES
        self.pending = RangeSet()

    def begin_anew(self) -> None:
        """Start over: no byte of it is here any more, and nothing counts that answers told of it."""
        if self.length_discovered:  # the size was only how far the stream came
            self.remote = replace(self.remote, size=None)
        self.first_response_seen = False
        self.length_discovered = False
        self.location = None
        self.rewind_why = ""
        self.pending = self._missing_beside(NO_BYTES)

    def identify(self, item: Item) -> None:
        """Take the decision to fetch it that was made when the head of its first answer told what it is."""
        self.identified = item
        self.remote = item.remote

    def answered(self, location: str | None, *, is_single: bool) -> None:
        """Record an answer that contains bytes of the file, and the ``location`` to which it was redirected, if any.
        ``is_single``: its headers do not allow another answer to continue it."""
        if location:
            self.location = location
        if is_single and not self.first_response_seen:
            self.single_stream = True
        self.first_response_seen = True

    def expect_whole(self, segment: Segment) -> None:
        """Have the answer for a segment bring the whole file."""
        self.pending = RangeSet()
        segment.expect_whole(self.remote.size)

    def is_another(self, size: int | None, validator: str | None) -> None:
        """Expect the version that its server has now, of this ``size`` in bytes, which is fetched from its start."""
        self.remote = replace(self.remote, size=size, validator=validator)

    def ended_at(self, size: int) -> None:
        """Take the ``size`` in bytes that the end of the stream told."""
        self.remote = replace(self.remote, size=size)
        self.length_discovered = True

    def failed(self, error: MdlError) -> None:
        """Note that it ends with this ``error``, which says all that is known."""
        self.error = error

    def published(self, fingerprint: Fingerprint, verified: str) -> None:
        """Note that it has its final name; ``verified`` is as in a receipt."""
        self.fingerprint = fingerprint
        self.verified = verified

    def result(self, lost: MdlError | None = None) -> FileResult:
        """Return how it ended; ``lost`` is the error of one that did not."""
        error = self.error if self.ended else lost
        digest = None
        size = None
        if self.fingerprint and not error:
            digest = self.remote.digest or self.fingerprint.digest
            size = self.fingerprint.size
        return FileResult(
            self.item,
            self.remote,
            error,
            digest,
            size,
            self.verified,
            self.resumed_at,
            self.fetched,
            self.discarded,
        )


def _cut_off(segment: Segment, start: int) -> Segment | None:
    """Return what lies behind ``start`` as a segment of its own, if anything does."""
    rest = segment.cut(start)
    return Segment(rest.stop, rest.start) if rest else None
