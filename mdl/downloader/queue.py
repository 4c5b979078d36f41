"""The queue of work: which worker does what next. One lock, and files already begun come first.

A worker takes a piece of Work, does it outside the lock, and reports how it ended. `mdl.net.policy` decides what
follows, and `mdl.net.pacer` how many requests an origin gets at once; their decisions are carried out here. A file
that must wait leaves its connection to one that can go on. Nothing here touches the network or the disk.
"""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mdl.downloader.download import Download, FileResult, Segment
from mdl.downloader.plan import too_large
from mdl.errors import AuthError, MdlError, NetworkError, NotFound, ProtocolError
from mdl.events import Event, Retrying, Rewound
from mdl.net.allowlist import host_of
from mdl.net.origin_record import OriginRecord
from mdl.net.pacer import Pacer
from mdl.net.policy import (
    PROGRESS,
    Again,
    AskPlainly,
    Decision,
    GiveUp,
    NextMirror,
    Outcome,
    RequestEnded,
    RetryPolicy,
    Rewind,
    decide,
)
from mdl.reports import no_space
from mdl.values import value_class

MOST_BEGUN = 64
"""At most so many files are begun at a time, those that wait included, or as many as there are connections."""


@value_class
class Work:
    """``begin`` opens a file's partial, ``fetch`` fetches a segment, ``rewind`` discards bytes, ``finish`` verifies and
    publishes, ``close`` closes a file that failed."""

    kind: Literal["begin", "fetch", "rewind", "finish", "close"]
    download: Download
    segment: Segment | None = None


@dataclass
class Progress:
    """Bytes of several files: their sizes, what of them is on this disk, and what came from the network."""

    size: int = 0
    done: int = 0
    fetched: int = 0

    def add(self, download: Download) -> None:
        self.size += download.remote.size or 0
        self.done += download.done
        self.fetched += download.fetched


class WorkQueue:
    """The downloads of one transfer, of which ``begun`` may be open at a time. ``post`` accepts events from any
    thread."""

    def __init__(
        self,
        downloads: Sequence[Download],
        connections: int,
        policy: RetryPolicy,
        pacer: Pacer,
        post: Callable[[Event], None],
        begun: int = MOST_BEGUN,
    ) -> None:
        self._waiting = deque(downloads)
        self.active: list[Download] = []
        self._left = len(downloads)
        self._connections = connections
        self._policy = policy
        self._pacer = pacer
        self._post = post
        self._most_begun = begun
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._over = threading.Condition(lock)
        self._closed = False
        self._publishing: set[Download] = set()
        self._requests: defaultdict[str, set[Segment]] = defaultdict(set)
        """What is being fetched of each origin."""
        self._lacking: set[tuple[str, str]] = set()
        """Models and the origins that lack a file of them: that is told once for each."""
        self._bytes_waiting = sum(one.remote.size or 0 for one in downloads)
        self._ended = Progress()
        self._results: list[FileResult] = []

    def take(self) -> Work | None:
        """The next piece of work; waits for one. None if there will be no more."""
        with self._changed:
            while not self._closed and self._left:
                now = time.monotonic()
                work = self._next(now)
                if work:
                    self._changed.notify()  # there may be more, for one of those that wait
                    return work
                soonest = min((d.attempts.retry_at for d in self.active if d.attempts.retry_at > now), default=now + 1)
                self._changed.wait(max(0.005, min(0.25, soonest - now)))
            return None

    def progress(self) -> Progress:
        """How far all files have come. It takes no longer if many have ended or wait."""
        with self._changed:
            found = replace(self._ended, size=self._ended.size + self._bytes_waiting)
            for download in (*self.active, *self._publishing):
                found.add(download)
            return found

    def check_room(self, most: int | None, free: int | None) -> None:
        """A file turned out to have more bytes than were planned. Raises `Unsafe` if all files together have more than
        ``most`` bytes now, `NoSpace` if what is left of them is more than the ``free`` bytes of the disk."""
        progress = self.progress()
        if most is not None and progress.size > most:
            raise too_large(f"it has {progress.size:,} bytes in all", most)
        if error := no_space(progress.size - progress.done, 0, free):
            raise error

    def results(self, lost: MdlError) -> tuple[FileResult, ...]:
        """How every file ended; ``lost`` is the error of those that did not."""
        with self._changed:
            others = (*self.active, *self._publishing, *self._waiting)
            return (*self._results, *(download.result(lost) for download in others))

    def wait(self, seconds: float) -> bool:
        """Wait up to ``seconds``; returns whether work is left."""
        with self._changed:
            if self._left and not self._closed:
                self._over.wait(seconds)
            return bool(self._left) and not self._closed

    def scale(self, *, is_limited: bool) -> None:
        """Let every file use as many connections as its speed justifies, and no more of them while the rate limit is
        reached; wake the workers if that is more."""
        with self._changed:
            now = time.monotonic()
            before = sum(one.scaler.width for one in self.active)
            for one in self.active:
                one.scaler.observe(now, one.fetched, len(one.running), is_limited=is_limited)
                for segment in tuple(one.running):
                    if segment.is_second:
                        self._judge_second(one, segment, now)
                if one.scaler.width == 1 and not one.scaler.is_probing and len(one.running) > 1:
                    first = min(one.running, key=lambda segment: segment.at)
                    for segment in one.running - {first}:  # together they bring no more than one
                        self._close_request(segment)
            if sum(one.scaler.width for one in self.active) > before:
                self._changed.notify_all()

    def fetches_whole(self, segment: Segment) -> None:
        """What is on the way to the origin is known to fetch the whole file for each range: no second connection is
        opened."""
        with self._changed:
            record = self._pacer.record(segment.origin)
            if record.serves_parallel is None:
                record.serves_parallel = False

    def first_byte_came(self, download: Download, segment: Segment) -> bool:
        """The body of an answer begins. (A cache may send headers long before.) Returns whether it is wanted."""
        with self._changed:
            now = time.monotonic()
            record = self._pacer.record(segment.origin)
            segment.answered = now
            record.note_answer(segment.seconds_to_answer(now))
            if segment.is_second:
                self._judge_second(download, segment, now)
            return not segment.is_unwanted

    def _judge_second(self, download: Download, segment: Segment, now: float) -> None:
        """Decide about the first second connection of an origin, by the time that its first byte took or takes."""
        record = self._pacer.record(segment.origin)
        answer = record.judge_second(segment.seconds_to_answer(now), segment.offset_seconds)
        if answer == "late":
            record.serves_parallel = False
            download.scaler.second_was_late()
            self._close_request(segment)
        elif segment.is_answered:
            if answer == "served":
                record.serves_parallel = True
                download.scaler.second_was_served(now)
            segment.is_second = False
            record.is_asked = False
            self._changed.notify_all()

    def _close_request(self, segment: Segment) -> None:
        """End a request that is not wanted any more."""
        segment.is_unwanted = True
        if segment.abort:
            segment.abort()

    def record(self, download: Download) -> OriginRecord:
        """What this run has found out about the origin of a file."""
        return self._pacer.record(download.origin)

    def takes_whole(self, download: Download, segment: Segment) -> bool:
        """Whether an answer that holds the whole file, where a range was asked for, may be taken as it is: nothing else
        of the file is being fetched. From then on nothing else is."""
        with self._changed:
            if len(download.running) > 1:
                return False
            download.single_stream = True
            return True

    def close(self) -> None:
        """Hand out no more work."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._over.notify_all()

    def _next(self, now: float) -> Work | None:
        """Files already begun come first. But while it is in doubt whether an origin works at all, files that failed
        there let its other files try first, so that one broken file does not speak for all."""
        free = [download for download in self.active if not download.is_busy]
        doubtful = [download for download in free if self._is_in_doubt(download)]
        sure = [download for download in free if download not in doubtful]
        idle = sum(not one.running and (one.attempts.retry_at > now or one in doubtful) for one in free)
        return (
            self._first_of(sure, now)
            or self._begin(now, len(self.active) - idle)
            or self._first_of(doubtful, now)
            or self._split(free, now)
        )

    def _is_in_doubt(self, download: Download) -> bool:
        return download.attempts.network_errors > 0 and self._pacer.is_in_doubt(download.origin)

    def _first_of(self, downloads: Sequence[Download], now: float) -> Work | None:
        for download in downloads:
            kind = self._exclusive_work(download)
            if kind and not download.running:
                download.exclusive = True
                return Work(kind, download)
            if kind or now < download.attempts.retry_at or self._is_lost(download, now):
                continue
            if download.attempts.is_plain and self._requests[download.origin]:
                continue  # the last attempt is made with nothing beside it
            if not self._has_room(download, now):
                continue
            segment = download.next_segment(self._pacer.record(download.origin))
            if segment:
                return self._fetch(download, segment)
        return None

    def _exclusive_work(self, download: Download) -> Literal["close", "rewind", "finish"] | None:
        """What can only be done while no segment of the file is being fetched."""
        if download.error:
            return "close"
        if download.rewind_why:
            return "rewind"
        return "finish" if download.complete else None

    def _begin(self, now: float, begun: int) -> Work | None:
        """Begin the first waiting file whose origin may be asked; ``begun`` files have work for a worker already."""
        if begun >= self._connections or len(self.active) + len(self._publishing) >= self._most_begun:
            return None
        full: set[str] = set()
        for download in self._waiting:
            if download.origin in full:
                continue
            if self._is_lost(download, now) or self._has_room(download, now):
                self._waiting.remove(download)
                self._bytes_waiting -= download.remote.size or 0
                download.prepare()
                self.active.append(download)
                record = self._pacer.record(download.origin)
                comes_at_once = download.small or download.is_unasked
                if comes_at_once and not download.error and (segment := download.next_segment(record)):
                    return self._fetch(download, segment)
                download.exclusive = True
                return Work("close" if download.error else "begin", download)
            full.add(download.origin)
        return None

    def _split(self, downloads: Sequence[Download], now: float) -> Work | None:
        for download in downloads:
            is_free = not (self._exclusive_work(download) or now < download.attempts.retry_at)
            is_free = is_free and self._has_room(download, now)
            tail = download.split(now, self._pacer.record(download.origin)) if is_free else None
            if tail:
                return self._fetch(download, tail)
        return None

    def _fetch(self, download: Download, segment: Segment) -> Work:
        download.start(segment)
        self._requests[segment.origin].add(segment)
        return Work("fetch", download, segment)

    def _has_room(self, download: Download, now: float) -> bool:
        return self._pacer.has_room(download.origin, len(self._requests[download.origin]), now)

    def _is_lost(self, download: Download, now: float) -> bool:
        """Whether the file fails because its origin, and those of its mirrors, are down."""
        while not (download.running or download.error) and (down := self._pacer.down(download.origin, now)):
            self._decide(download, RequestEnded(now, error=down), now)
        return download.error is not None

    def fetched(self, work: Work) -> None:
        """All bytes of a small file came. It leaves its connection to another file until it is published."""
        with self._changed:
            if work.segment:
                self._forget_request(work.download, work.segment)
                self._pacer.served(work.segment.origin, work.segment.began, time.monotonic())
            self.active.remove(work.download)
            self._publishing.add(work.download)
            self._changed.notify()  # this worker may be about to publish

    def ready(self, download: Download) -> None:
        """``begin`` or ``rewind`` is done, or ``finish`` found that more has to be fetched."""
        with self._changed:
            download.exclusive = False
            self._changed.notify()

    def discarded(self, download: Download, count: int, why: str, start: int | None = None) -> None:
        """Bytes of a file were discarded: report it, unless there were none."""
        if count:
            with self._changed:
                download.discarded += count
            self._post(Rewound(download.model, download.name, bytes_discarded=count, why=why, start=start))

    def add_missing(self, download: Download, start: int, stop: int) -> None:
        """These bytes of a running file turned out to be wrong."""
        with self._changed:
            download.pending.add(start, stop)
            self._changed.notify()

    def request_ended(self, download: Download, segment: Segment, error: MdlError | None = None) -> None:
        """The request for a segment ended, normally or by ``error``; what it did not bring is queued again."""
        with self._changed:
            self._forget_request(download, segment)
            others = self._requests[segment.origin]
            is_serving = any(one.at > one.first for one in others)
            is_serving = is_serving or self._pacer.served_since(segment.origin, segment.began)
            record = self._pacer.record(segment.origin)
            ended = download.ended_request(segment, len(others), is_serving, record, error)
            download.requeue(segment)
            self._note_of_origin(download, segment, ended, record)
            if segment.is_unwanted:
                self._take_back(download)
                self._changed.notify()
                return
            if error and download.location == segment.asked_url:
                download.location = None
            self._take_back(download)
            self._changed.notify()
            if download.is_current(segment) and not (download.ended or download.error or download.rewind_why):
                origin = download.origin
                url = download.url
                now = time.monotonic()
                decision = self._decide(download, ended, now)
                if ended.brought >= PROGRESS or (error is None and ended.made_progress):
                    self._pacer.served(origin, ended.began, now)
                elif download.attempts.is_first_refusal(ended):  # as `decide` has just noted
                    self._pacer.refused(origin, len(others), now)
                    download.scaler.refused(now, len(download.running))
                elif ended.is_temporary and not others and isinstance(error, NetworkError):
                    delay = decision.delay if isinstance(decision, Again) else 0.0
                    self._pacer.failed(origin, url, ended.began, now, delay, error)

    def _note_of_origin(self, download: Download, segment: Segment, ended: RequestEnded, record: OriginRecord) -> None:
        """What the end of a request tells about its origin."""
        if segment.is_second:
            record.is_asked = False
        if segment.asked_range and ended.brought:
            record.serves_ranges = True
        was_refused = isinstance(ended.error, ProtocolError) or ended.is_final_refusal
        if was_refused and not ended.brought and download.running:
            record.serves_parallel = False
        if isinstance(ended.error, AuthError) and segment.is_whole and download.attempts.is_plain and not ended.others:
            record.refusals_are_final = True

    def decide(self, download: Download, outcome: Outcome) -> None:
        """Carry out what follows from an outcome: the server has another version of the file, or the bytes were
        verified."""
        with self._changed:
            if not (download.ended or download.error or download.rewind_why):
                self._decide(download, outcome, time.monotonic())
                self._changed.notify()

    def rewind(self, download: Download, why: str) -> None:
        """Have every byte discarded once no segment is being fetched."""
        with self._changed:
            download.rewind_why = download.rewind_why or why
            self._abort(download)

    def abandon(self, work: Work, error: MdlError) -> None:
        """A worker failed for a reason that another attempt would not fix."""
        with self._changed:
            self._take_back(work.download)
            if work.segment:
                self._forget_request(work.download, work.segment)
            else:
                work.download.exclusive = False
            self.fail(work.download, error)

    def fail(self, download: Download, error: MdlError) -> None:
        """The file fails with ``error``; a worker closes it once no segment is being fetched."""
        with self._changed:
            if not download.ended:
                download.error = download.error or error
            self._abort(download)

    def end(self, download: Download) -> None:
        """The file was published, or closed after it failed."""
        with self._changed:
            if not download.ended:
                self._take_back(download)
                download.ended = True
                self.active.remove(download)
                self._ended.add(download)
                self._left -= 1
                self._results.append(download.result())
            self._changed.notify()
            if not self._left:
                self._changed.notify_all()
                self._over.notify_all()

    def _forget_request(self, download: Download, segment: Segment) -> None:
        """Note that nothing is fetched of the segment any more."""
        download.running.discard(segment)
        self._requests[segment.origin].discard(segment)

    def _take_back(self, download: Download) -> None:
        """Count a file that was `fetched` as active again: it failed, or is about to end."""
        if download in self._publishing:
            self._publishing.remove(download)
            self.active.append(download)

    def _abort(self, download: Download) -> None:
        for segment in download.running:
            if segment.abort:
                segment.abort()
        self._changed.notify()

    def _decide(self, download: Download, outcome: Outcome, now: float) -> Decision:
        """Ask the policy what follows, and carry it out."""
        asked = download.model, download.origin
        download.attempts, decision = decide(self._policy, download.attempts, outcome, now, random.random())
        if isinstance(decision, Again) and decision.why:
            self._post(Retrying.of(decision, download.model, download.name))
        elif isinstance(decision, Rewind):
            download.single_stream = download.single_stream or download.attempts.is_plain
            self.rewind(download, decision.why)
        elif isinstance(decision, AskPlainly):
            download.single_stream = True
            download.range_was_refused = decision.is_for_good
            self._tell(download, f"{decision.why}; asking for the whole file on one connection")
        elif isinstance(decision, NextMirror):
            error = decision.error
            download.mirror_errors = (*download.mirror_errors, error)
            download.switch_server()
            if not isinstance(error, NotFound) or asked not in self._lacking:
                self._tell(download, f"{error.message}; going on with {host_of(download.url)}")
            if isinstance(error, NotFound):
                self._lacking.add(asked)
            if decision.rewind:
                self.rewind(download, error.message)
        elif isinstance(decision, GiveUp):
            self.fail(download, _with_mirrors(decision.error, download.mirror_errors))
        return decision

    def _tell(self, download: Download, why: str) -> None:
        self._post(Retrying(download.model, download.name, why))


def _with_mirrors(error: MdlError, others: Sequence[MdlError]) -> MdlError:
    """The first server's error, with what the mirrors answered."""
    if not others:
        return error
    tried = "; ".join(one.message for one in (*others[1:], error))
    first = others[0]
    return first.but(message=f"{first.message}; mirrors: {tried}")
