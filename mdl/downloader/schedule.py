"""The schedule: which worker does what next, and what follows when that has ended.

Pure: no socket, no disk, no thread. Whoever calls it has the clock, and lets in one thread at a time
(`mdl.downloader.shared_schedule`). `mdl.net.policy` decides what follows from a failure, and `mdl.net.pacer` how many
requests an origin gets at once; their decisions are carried out here. Files already begun come first, and a file that
must wait leaves its connection to one that can go on. ``tests/unit/downloader/test_schedule.py`` and
``tests/unit/downloader/test_connections.py`` let worlds of all kinds play against it in invented time: for any outcomes
the requests and the seconds are bounded.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mdl.downloader.download import Download, FileResult
from mdl.downloader.plan import too_large
from mdl.downloader.segment import Segment
from mdl.errors import AuthError, MdlError, NetworkError, NotFound
from mdl.events import Event, Retrying, Rewound
from mdl.net.allowlist import host_of
from mdl.net.pacer import OriginRecord, Pacer
from mdl.net.policy import (
    PROGRESS,
    Again,
    AskPlainly,
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
_LONGEST_WAIT = 0.25
_SHORTEST_WAIT = 0.005
"""Seconds until a worker without work looks again."""


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
        self.size += download.size
        self.done += download.done
        self.fetched += download.fetched


class Schedule:
    """The downloads of one transfer, of which ``begun`` may be open at a time, over so many ``connections``.

    `next` hands out work; whoever did it says how it went by `request_ended`, `ready`, `fetched`, `abandon` or `end`.
    ``tell`` gets the events; ``draw`` returns a number in [0, 1), by which waits differ.
    """

    def __init__(
        self,
        downloads: Sequence[Download],
        connections: int,
        policy: RetryPolicy,
        pacer: Pacer,
        tell: Callable[[Event], None],
        draw: Callable[[], float],
        begun: int = MOST_BEGUN,
    ) -> None:
        self._waiting = deque(downloads)
        self._active: list[Download] = []
        self._publishing: list[Download] = []
        """Files whose bytes have all come, and that wait to be published together. No worker takes time for them."""
        self._connections = connections
        self._policy = policy
        self._pacer = pacer
        self._tell = tell
        self._draw = draw
        self._most_begun = begun
        self._requests: defaultdict[str, set[Segment]] = defaultdict(set)
        """What is being fetched of each origin."""
        self._lacking: set[tuple[str, str]] = set()
        """Models and the origins that lack a file of them: that is told once for each."""
        self._bytes_waiting = sum(download.size for download in downloads)
        self._ended = Progress()
        self._results: list[FileResult] = []

    # What there is to do.

    @property
    def is_over(self) -> bool:
        """Whether every file has ended."""
        return not (self._waiting or self._active or self._publishing)

    @property
    def active(self) -> list[Download]:
        """The files that were begun, and whose bytes are still to come or to be verified."""
        return list(self._active)

    def next(self, now: float) -> Work | None:
        """Return the next piece of work; None if there is none at this moment.

        Files already begun come first. But while it is in doubt whether an origin works at all, files that failed there
        let its other files try first, so that one broken file does not speak for all.
        """
        healthy: list[Download] = []
        suspect: list[Download] = []
        for download in self._active:
            if download.is_busy:
                continue
            if self._is_in_doubt(download):
                suspect.append(download)
            else:
                healthy.append(download)
        work = self._work_on_first(healthy, now)
        if work is None:
            work = self._begin_next(now)
        if work is None:
            work = self._work_on_first(suspect, now)
        if work is None:
            work = self._split_tail([*healthy, *suspect], now)
        return work

    def seconds_to_next_look(self, now: float) -> float:
        """Return for how many seconds there may be no work, if nothing ends meanwhile."""
        wait = _LONGEST_WAIT
        for download in self._active:
            left = download.attempts.retry_at - now
            if left > 0:
                wait = min(wait, left)
        return max(_SHORTEST_WAIT, wait)

    def progress(self) -> Progress:
        """Return how far all files have come. It takes no longer if many have ended or wait."""
        progress = replace(self._ended, size=self._ended.size + self._bytes_waiting)
        for download in (*self._active, *self._publishing):
            progress.add(download)
        return progress

    def check_room(self, most: float, free: int | None) -> None:
        """Check the plan again after a file turned out to have more bytes than were planned. Raises `Unsafe` if all
        files together have more than ``most`` bytes now, `NoSpace` if what is left of them is more than the ``free``
        bytes of the disk."""
        progress = self.progress()
        if progress.size > most:
            raise too_large(f"it has {progress.size:,} bytes in all", most)
        error = no_space(progress.size - progress.done, 0, free)
        if error:
            raise error

    def results(self, lost: MdlError) -> tuple[FileResult, ...]:
        """Return how every file ended; ``lost`` is the error of those that did not."""
        unfinished = [download.result(lost) for download in (*self._active, *self._publishing, *self._waiting)]
        return (*self._results, *unfinished)

    def _is_in_doubt(self, download: Download) -> bool:
        return download.attempts.network_errors > 0 and self._pacer.is_in_doubt(download.origin)

    def _work_on_first(self, downloads: Sequence[Download], now: float) -> Work | None:
        """Work on the first of these files on which any can be done."""
        for download in downloads:
            work = self._work_on(download, now)
            if work:
                return work
        return None

    def _work_on(self, download: Download, now: float) -> Work | None:
        kind = download.exclusive_work
        if kind:
            return _exclusive(kind, download)
        if now < download.attempts.retry_at or self._is_lost(download, now):
            return None
        if not self._has_room(download, now):
            return None
        segment = download.next_segment(self.record(download))
        return self._fetch(download, segment, now) if segment else None

    def _begin_next(self, now: float) -> Work | None:
        """Begin the first waiting file whose origin may be asked, unless enough files have been begun."""
        if len(self._active) + len(self._publishing) >= self._most_begun:
            return None
        if len(self._active) >= self._connections and self._count_working(now) >= self._connections:
            return None
        full: set[str] = set()
        for download in self._waiting:
            if download.origin in full:
                continue
            if self._is_lost(download, now) or self._has_room(download, now):
                return self._begin(download, now)
            full.add(download.origin)
        return None

    def _count_working(self, now: float) -> int:
        """Return how many of the files that were begun take a worker's time now."""
        return sum(not self._is_idle(download, now) for download in self._active)

    def _is_idle(self, download: Download, now: float) -> bool:
        """Return whether a file that was begun takes no worker's time now: it waits."""
        if download.exclusive or download.running:
            return False
        return download.attempts.retry_at > now or self._is_in_doubt(download)

    def _begin(self, download: Download, now: float) -> Work:
        self._waiting.remove(download)
        self._bytes_waiting -= download.size
        self._active.append(download)
        if download.error:
            return _exclusive("close", download)
        if download.small or download.is_unasked:  # it is begun when its first bytes come
            return self._fetch(download, download.whole(), now)
        return _exclusive("begin", download)

    def _split_tail(self, downloads: Sequence[Download], now: float) -> Work | None:
        """Have a worker without work fetch half of what a slow connection has left."""
        for download in downloads:
            if now >= download.attempts.retry_at and self._has_room(download, now):
                tail = download.split(now, self.record(download))
                if tail:
                    return self._fetch(download, tail, now)
        return None

    def _fetch(self, download: Download, segment: Segment, now: float) -> Work:
        download.start(segment, now)
        self._requests[segment.origin].add(segment)
        return Work("fetch", download, segment)

    def _has_room(self, download: Download, now: float) -> bool:
        """Return whether one more request may be sent to the origin of a file. The last attempt of a file is made with
        nothing beside it."""
        running = len(self._requests[download.origin])
        if running and download.attempts.is_plain:
            return False
        return self._pacer.has_room(download.origin, running, now)

    def _is_lost(self, download: Download, now: float) -> bool:
        """Return whether the file fails because its origin, and those of its mirrors, are down."""
        down = self._pacer.down(download.origin, now)
        while down and not download.running:
            self._carry_out(download, RequestEnded(now, error=down), now)
            if download.error:
                return True
            down = self._pacer.down(download.origin, now)
        return False

    # What is found out while a file is fetched.

    def record(self, download: Download) -> OriginRecord:
        """Return what this run has found out about the origin of a file."""
        return self._pacer.record(download.origin)

    def scale(self, now: float, *, is_limited: bool) -> None:
        """Let every file use as many connections as its speed justifies, and no more of them while the rate limit is
        reached."""
        for download in self._active:
            download.scaler.observe(now, download.fetched, len(download.running), is_limited=is_limited)
            for segment in tuple(download.running):
                if segment.is_probe:
                    self._judge_probe(download, segment, now)
            download.stop_superfluous()

    def note_caching_proxy(self, segment: Segment) -> None:
        """Open no second connection to the origin: what is on the way is known to fetch the whole file for each
        range."""
        record = self._pacer.record(segment.origin)
        if record.serves_parallel is None:
            record.second_refused()

    def first_byte_came(self, download: Download, segment: Segment, now: float) -> None:
        """Note that the body of an answer begins. (A cache may send headers long before.)"""
        segment.begin_answer(now)
        self._pacer.record(segment.origin).note_answer(segment.seconds_to_answer(now))
        if segment.is_probe:
            self._judge_probe(download, segment, now)

    def _judge_probe(self, download: Download, segment: Segment, now: float) -> None:
        """Decide about the first second connection of an origin, by the time that its first byte took or takes."""
        record = self._pacer.record(segment.origin)
        answer = record.judge_second(segment.seconds_to_answer(now), segment.offset_seconds)
        if answer == "late":
            record.second_refused()
            download.scaler.second_was_late()
            segment.give_up()
            return
        if not segment.is_answered:
            return
        if answer == "served":
            record.second_served()
            download.scaler.second_was_served(now)
        segment.end_question()
        record.end_question()

    def accept_whole(self, download: Download, *, is_range_ignored: bool) -> bool:
        """Return whether an answer that holds the whole file may be taken as it is. Where a range was asked for, it is
        taken if nothing else of the file is being fetched; from then on nothing else is."""
        if is_range_ignored or download.range_was_refused:
            self.record(download).note_refused_range()
        if not is_range_ignored:
            return True
        if len(download.running) > 1:
            return False
        download.use_one_answer()
        return True

    def decide(self, download: Download, outcome: Outcome, now: float) -> None:
        """Carry out what follows from an outcome: the server has another version of the file, or the bytes were
        verified."""
        if not download.is_settled:
            self._carry_out(download, outcome, now)

    def discarded(self, download: Download, count: int, why: str, start: int | None = None) -> None:
        """Report that so many bytes of a file were discarded."""
        download.lose(count)
        self._tell(Rewound(download.model, download.name, bytes_discarded=count, why=why, start=start))

    # How a piece of work ended.

    def ready(self, download: Download) -> None:
        """Note that ``begin`` or ``rewind`` is done, or that ``finish`` found more to be fetched."""
        download.release()

    def fetched(self, download: Download, segment: Segment, now: float) -> None:
        """Note that all bytes of a file came in one piece. It leaves its connection to another file until it is
        published."""
        self._forget_request(download, segment)
        self._pacer.served(segment.origin, segment.began, now)
        self._active.remove(download)
        self._publishing.append(download)

    def request_ended(self, download: Download, segment: Segment, now: float, error: MdlError | None = None) -> None:
        """Note that the request for a segment ended, in order or by ``error``; what it did not bring is queued
        again."""
        self._forget_request(download, segment)
        others = self._requests[segment.origin]
        are_served = any(other.at > other.first for other in others)
        is_serving = are_served or self._pacer.served_since(segment.origin, segment.began)
        record = self._pacer.record(segment.origin)
        ended = download.ended_request(segment, len(others), is_serving, record, error)
        download.requeue(segment)
        self._release(download)
        self._note_of_origin(download, segment, ended, record)
        if not download.is_wanted(segment) or not download.is_current(segment):
            return
        if error:
            download.leave_link(segment)
        self._follow(download, ended, now)

    def _note_of_origin(self, download: Download, segment: Segment, ended: RequestEnded, record: OriginRecord) -> None:
        """Note what the end of a request tells about its origin."""
        if segment.is_probe:
            record.end_question()
        if ended.brought:
            if segment.asked_range:
                record.note_range()
            return
        if download.running and ended.failure in ("lie", "refusal"):
            record.second_refused()
        was_plain = segment.is_whole and download.attempts.is_plain and not ended.others
        if was_plain and isinstance(ended.error, AuthError):
            record.note_final_refusal()

    def _follow(self, download: Download, ended: RequestEnded, now: float) -> None:
        """Carry out what follows from the end of a request, and note how its origin serves."""
        origin = download.origin
        url = download.url
        self._carry_out(download, ended, now)
        if ended.brought >= PROGRESS or (ended.error is None and ended.made_progress):
            self._pacer.served(origin, ended.began, now)
        elif download.attempts.is_first_refusal(ended):  # as the policy has just noted
            self._pacer.refused(origin, ended.others, now)
            download.scaler.refused(now, len(download.running))
        elif isinstance(ended.error, NetworkError) and not ended.error.final and not ended.others:
            delay = download.attempts.retry_at - now
            self._pacer.failed(origin, url, ended.began, now, delay, ended.error)

    def abandon(self, work: Work, error: MdlError) -> None:
        """Have a file fail of which a worker could not do its work, for a reason that another attempt would not fix."""
        if work.segment:
            self._forget_request(work.download, work.segment)
        self._release(work.download)
        work.download.fail(error)

    def end(self, download: Download) -> None:
        """Note that the file was published, or closed after it failed."""
        if download.ended:
            return
        self._release(download)
        self._active.remove(download)
        download.end()
        self._ended.add(download)
        self._results.append(download.result())

    def _release(self, download: Download) -> None:
        """Let any worker go on with the file, also if it was about to be published."""
        if download in self._publishing:
            self._publishing.remove(download)
            self._active.append(download)
        download.release()

    def _forget_request(self, download: Download, segment: Segment) -> None:
        """Note that nothing is fetched of the segment any more."""
        download.stop(segment)
        self._requests[segment.origin].discard(segment)

    def _carry_out(self, download: Download, outcome: Outcome, now: float) -> None:
        """Ask the policy what follows, and carry it out."""
        origin = download.origin
        attempts, decision = decide(self._policy, download.attempts, outcome, now, self._draw())
        download.attempted(attempts)
        match decision:
            case Again():
                if decision.why:
                    self._tell(Retrying.of(decision, download.model, download.name))
            case Rewind():
                if download.attempts.is_plain:
                    download.use_one_answer()
                download.discard(decision.why)
            case AskPlainly():
                download.ask_without_range(is_for_good=decision.is_for_good)
                self._say(download, f"{decision.why}; asking for the complete file on one connection")
            case NextMirror():
                download.switch_server(decision.error)
                self._tell_of_switch(download, origin, decision.error)
                if decision.rewind:
                    download.discard(decision.error.message)
            case GiveUp():
                download.fail(_with_mirrors(decision.error, download.mirror_errors))

    def _tell_of_switch(self, download: Download, origin: str, error: MdlError) -> None:
        """Say that another server is asked. That an origin lacks files of a model is said once."""
        if isinstance(error, NotFound):
            lacking = (download.model, origin)
            if lacking in self._lacking:
                return
            self._lacking.add(lacking)
        self._say(download, f"{error.message}; going on with {host_of(download.url)}")

    def _say(self, download: Download, why: str) -> None:
        self._tell(Retrying(download.model, download.name, why))


def _exclusive(kind: Literal["begin", "rewind", "finish", "close"], download: Download) -> Work:
    """Return work for which a worker has the file for itself."""
    download.reserve()
    return Work(kind, download)


def _with_mirrors(error: MdlError, others: Sequence[MdlError]) -> MdlError:
    """Return the first server's error, with what the mirrors answered."""
    if not others:
        return error
    tried = "; ".join(other.message for other in (*others[1:], error))
    first = others[0]
    return first.but(message=f"{first.message}; mirrors: {tried}")
