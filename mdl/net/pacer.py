"""The pacer: how many requests an origin may get now, and when it may be asked again. Pure: the caller has the clock.

Each origin (scheme, host, port) has a limit. A refusal lowers the limit to the number of requests that still run there.
It rises with every request that is served, to one less than it was before the refusals; then by one every few seconds,
and more rarely each time that the origin refuses the additional request (slow start and additive increase, as in
RFC 5681). One refusal among many served requests lowers nothing: it is about its file.

If an origin serves no request any more, all its files wait together and fail together: twelve models on a dead host
cost as much time as one, and other hosts are not held up.

What an origin turned out not to serve (ranges, a second connection for a file) is in its `OriginRecord` until the run
ends, so that it costs once and not once a file.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Literal

from mdl.errors import NetworkError
from mdl.net.policy import RetryPolicy, shortened

_RISE_SECONDS = 5.0
_LONGEST_RISE_SECONDS = 600.0
_LONG_AGO = 20
"""After this many times the seconds that a limit takes to rise, a refusal counts as the first one again."""
_SERVED_FOR_REFUSAL = 8
"""An origin that serves so many requests for each that it refuses is not overloaded."""
_MOST_OVERLOOKED = 2
"""So many refusals in a row lower nothing, if enough requests were served before."""
_DOWN_SECONDS = 30.0
"""Seconds for which an origin that is down is not asked. Then one request finds out."""
_USUAL_FACTOR = 4.0
_LATE_SLACK = 0.25
"""Seconds. A first byte is not late within four times the usual time and these."""
_LATE_SHARE = 0.3
"""Of the time in which one connection brings all bytes before an offset. Who fetches these first takes longer."""
_LATE_AT_MOST = 2.0
"""Seconds. Far away in a large file, a first byte is late after so long."""
_LATE_BEGINNING = 1.0
"""Seconds that the first answer of a file may take that goes on in the middle."""


@dataclass
class OriginRecord:
    """What one origin can. It lives as long as the run.

    ``has_answered``: it has sent a response, or accepted a connection. ``serves_ranges`` and ``serves_parallel`` (more
    than one connection for a file) are None as long as it is not known. ``is_asked``: a second connection has been
    opened to find that out, and the answer is awaited. ``refusals_are_final``: it has refused a plain request on its
    only connection too, so that a refusal has nothing to do with ranges. ``range_troubles``: how many requests for
    the first byte of a file were refused for the moment. ``first_byte``: the shortest time in seconds
    that an answer took. ``silences``: how often it accepted a connection and sent nothing in time, the last time at the
    moment ``silent_at``. Each time it gets twice the time.
    """

    has_answered: bool = False
    serves_ranges: bool | None = None
    serves_parallel: bool | None = None
    is_asked: bool = False
    refusals_are_final: bool = False
    range_troubles: int = 0
    first_byte: float | None = None
    silences: int = 0
    silent_at: float = -math.inf

    @property
    def may_have_two(self) -> bool:
        """Whether a second connection for a file is worth a try, or is known to be served."""
        return self.serves_ranges is not False and self.serves_parallel is not False

    def note_silence(self, began: float, now: float) -> None:
        """A request that ``began`` at that moment brought no answer in time. Those that overlap count once."""
        if began >= self.silent_at:
            self.silences = self.silences + 1
            self.silent_at = now

    def first_byte_limit(self, stall: float, patience: float) -> float:
        """Seconds within which an answer must begin, if ``stall`` is the usual time and ``patience`` the longest."""
        return max(stall, min(patience, stall * 2.0 ** min(self.silences, 20)))

    def note_refused_range(self) -> None:
        """The whole file came where a part was asked for, or after that was refused. An origin that has served ranges
        before still does: it was about that file, or about one of several servers."""
        if self.serves_ranges is None:
            self.serves_ranges = False

    def note_range(self) -> None:
        """A part of a file came that was asked for."""
        self.serves_ranges = True

    def note_contact(self) -> None:
        """It sent a response, or accepted a connection."""
        self.has_answered = True

    def note_final_refusal(self) -> None:
        """It refused a plain request on its only connection too."""
        self.refusals_are_final = True

    def ask_second(self) -> None:
        """A second connection for a file is to tell whether it serves one."""
        self.is_asked = True

    def second_served(self) -> None:
        """It serves several connections for a file."""
        self.serves_parallel = True

    def second_refused(self) -> None:
        """It serves one connection for a file."""
        self.serves_parallel = False

    def end_question(self) -> None:
        """Record that the attempt with a second connection is over, whatever it showed."""
        self.is_asked = False

    def note_answer(self, seconds: float) -> None:
        """A response began after ``seconds``."""
        self.has_answered = True
        self.first_byte = seconds if self.first_byte is None else min(self.first_byte, seconds)

    def is_late_beginning(self, seconds: float, offset_seconds: float) -> bool:
        """Return whether the first answer of a file that goes on in its middle was late: its first byte took
        ``seconds``, and one connection would bring all bytes before it in ``offset_seconds``."""
        return seconds > max(_LATE_BEGINNING, _LATE_SHARE * offset_seconds)

    def judge_second(self, seconds: float, offset_seconds: float) -> Literal["served", "late", "unclear"]:
        """Return what it means that the first byte of a second connection took ``seconds``, or has not come for so
        long.

        One connection would bring all bytes before it in ``offset_seconds``. A cache that fetches the whole file for
        each range takes that long; any other server takes as long as for each answer.
        """
        usual = _USUAL_FACTOR * (self.first_byte or 0.0) + _LATE_SLACK
        if seconds > max(usual, min(_LATE_AT_MOST, _LATE_SHARE * offset_seconds)):
            return "late"
        return "served" if seconds <= _LATE_SHARE * offset_seconds else "unclear"


@dataclass
class _Origin:
    limit: int
    target: int = 1
    """Up to here the limit rises by one with each request that is served."""
    rises_at: float = math.inf
    rise: float = _RISE_SECONDS
    refused_at: float = -math.inf
    has_risen: bool = True
    """Whether the limit has risen since a refusal lowered it."""
    overlooked: float = 0.0
    """How many refusals will lower nothing."""
    failures: int = 0
    failing_since: float = math.inf
    failed_url: str = ""
    is_several: bool = False
    retry_at: float = -math.inf
    charged_at: float = -math.inf
    served_at: float = -math.inf
    down: NetworkError | None = None
    down_until: float = -math.inf


class Pacer:
    """The limits of all origins of one client.

    ``connections`` is the highest limit. An origin is down after it has failed for as long, or as often in a row, as
    the ``policy`` allows, if that concerns more than one file and no request was served in between.
    """

    def __init__(self, connections: int, policy: RetryPolicy = RetryPolicy()) -> None:  # noqa: B008 - frozen
        self._most = max(1, connections)
        self._policy = policy
        self._origins: defaultdict[str, _Origin] = defaultdict(partial(_Origin, self._most))
        self.records: defaultdict[str, OriginRecord] = defaultdict(OriginRecord)

    def record(self, origin: str) -> OriginRecord:
        """Return what this run has found out about an origin."""
        return self.records[origin]

    def has_room(self, origin: str, running: int, now: float) -> bool:
        """Return whether one more request may be sent to ``origin`` while ``running`` requests run there."""
        state = self._origins[origin]
        if now < state.retry_at:
            return False
        if now >= state.rises_at:
            state.limit = state.limit + 1
            state.has_risen = True
            state.rises_at = now + state.rise if state.limit < self._most else math.inf
        return running < state.limit

    def retry_at(self, origin: str) -> float:
        """Return the moment from which the origin may be asked again; in the past if it may be asked now."""
        return self._origins[origin].retry_at

    def down(self, origin: str, now: float) -> NetworkError | None:
        """Return the error of an origin that is down now; None if it is not."""
        state = self._origins[origin]
        if state.down is None:
            return None
        if now >= state.down_until:
            state.down = None
            return None
        return NetworkError(state.down.message, hint=state.down.hint, final=True)

    def is_in_doubt(self, origin: str) -> bool:
        """Return whether the origin failed and has served no request since."""
        return self._origins[origin].failures > 0

    def served_since(self, origin: str, moment: float) -> bool:
        """Return whether the origin has served a request after ``moment``."""
        return self._origins[origin].served_at > moment

    def served(self, origin: str, began: float, now: float) -> None:
        """The origin sent what a request that ``began`` at that moment asked for, or a good part of it."""
        state = self._origins[origin]
        state.served_at = now
        state.failures = 0
        state.down = None
        state.retry_at = -math.inf
        state.failing_since = math.inf
        state.failed_url = ""
        state.is_several = False
        state.overlooked = min(_MOST_OVERLOOKED, state.overlooked + 1 / _SERVED_FOR_REFUSAL)
        if state.limit < state.target and began >= state.refused_at:
            state.limit = state.limit + 1
            state.has_risen = True

    def refused(self, origin: str, others: int, now: float) -> None:
        """The origin refused a request while ``others`` run there: that is the most that it accepts at once.

        A file's next refusal, without progress in between, is about that file, and is not told here.
        """
        state = self._origins[origin]
        if state.overlooked >= 1:
            state.overlooked -= 1
            return
        if state.has_risen:  # else this is more of the same: many requests may be refused at once
            is_again = now - state.refused_at < _LONG_AGO * state.rise
            state.rise = min(_LONGEST_RISE_SECONDS, state.rise * 2) if is_again else _RISE_SECONDS
            state.target = state.limit - 1
            state.has_risen = False
        state.refused_at = now
        state.limit = max(1, min(state.limit, others))
        state.rises_at = now + state.rise

    def failed(self, origin: str, url: str, began: float, now: float, delay: float, error: NetworkError) -> None:
        """A request for ``url`` that ``began`` at that moment failed, and is repeated after at least ``delay`` seconds.

        The more often the origin fails, the longer it is left alone. Failures that overlap in time count once. They do
        not count if the origin has served other requests meanwhile: then only that file is at fault. For the same
        reason the failures of one file alone do not make its origin count as down.
        """
        state = self._origins[origin]
        state.is_several = state.is_several or state.failed_url not in ("", url)
        state.failed_url = url
        if began < state.charged_at or began < state.served_at:
            return
        state.failures += 1
        state.failing_since = min(state.failing_since, began)
        limit = self._policy.limit(has_answered=self.record(origin).has_answered or error.is_silence)
        left = state.failing_since + limit - now
        pause = shortened(self._policy.delay(state.failures, 0.5), now - state.failing_since, limit)
        state.charged_at = now
        state.retry_at = now + max(delay, pause)
        if state.is_several and (left <= 0 or self._policy.is_last(state.failures)):
            state.down = error
            state.down_until = now + _DOWN_SECONDS
            state.retry_at = -math.inf
