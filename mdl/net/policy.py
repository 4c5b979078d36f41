"""The retry policy: what to do when a request has ended. Pure: no socket, no clock, no random numbers of its own.

One rule bounds everything. A response brings new bytes, at least 64 KiB or all that was requested, or it spends
patience and is followed by a wait. Bytes that replace others which were here before are not new. Patience is time: the
seconds since anything moved. It is restored once the file itself is 64 KiB further, if at least an eighth of the bytes
received meanwhile was new. Failures of requests that overlap in time count once. Answers that break the protocol have a
small count of their own: asking again does not make a lie true. A refusal by an origin that serves others spends
nothing, but only the file's first one since it made progress.

Ranges and parallel connections are a wish of mdl's own. So a final refusal of a request for a range, or of one beside
others, is followed by one plain request for the whole file, with nothing else at work on it.

So the number of requests for a file, and of seconds without progress, is bounded by its size, `RetryPolicy` and the
number of its mirrors, whatever the server does. ``tests/unit/downloader/test_schedule.py`` checks that with random
servers.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from mdl.errors import AuthError, MdlError, NetworkError, NotFound, ProtocolError, StorageError
from mdl.values import value_class

PROGRESS = 64 * 1024
"""New bytes that count as progress."""

MAX_OVERHEAD = 8
"""How many bytes may be received for one that is new. Without this limit a file that a server always sends from the
start would be fetched for ever."""

LONGEST_RETRY_AFTER = 600.0
"""Seconds. If a server asks for a longer wait, mdl gives up and quotes the server."""

STATUSES_OF_A_RANGE = 3
"""So many temporary refusals in a row of a server that has served no range yet may be about the range."""


@value_class
class RetryPolicy:
    """For how many seconds requests are tried without progress, and how long to wait in between.

    ``patience`` is for a server that has answered in this run, ``unanswered`` for one that never did. There are at most
    ``tries`` in all; None: any number. The waits double from ``first`` to ``longest`` seconds. A server may break the
    protocol ``protocol_errors`` times, and refuse ``refused_links`` URLs that a redirect just named.
    """

    tries: int | None = None
    patience: float = 300.0
    unanswered: float = 15.0
    first: float = 0.5
    longest: float = 30.0
    protocol_errors: int = 2
    refused_links: int = 2

    def limit(self, *, has_answered: bool) -> float:
        """Return how many seconds without progress are enough, of a server that has answered or not."""
        return self.patience if has_answered else min(self.patience, self.unanswered)

    def is_last(self, failure: int) -> bool:
        """Return whether the ``failure``-th one in a row is that of the last try."""
        return self.tries is not None and failure >= self.tries

    def delay(self, failure: int, jitter: float, asked: float | None = None) -> float:
        """Seconds to wait after the ``failure``-th failure in a row (from 1).

        ``jitter`` in [0, 1) spreads clients that failed together over the second half of the wait. ``asked`` is the
        server's Retry-After in seconds; the wait is never shorter.
        """
        full = min(self.longest, self.first * 2.0 ** min(failure - 1, 30))
        drawn = full * (0.5 + jitter / 2)
        return max(drawn, asked) if asked is not None else drawn


@value_class
class Limits:
    """The limits of an `mdl.net.client.HttpClient`, passed down as one value. The rate is not among them: it may change
    while the client works, and is in a `Throttle`."""

    connections: int = 24
    """Requests at once, at most."""
    connect: float = 10.0
    """Seconds until a connection must be there."""
    stall: float = 30.0
    """Seconds of silence after which a connection is given up."""
    slow: float = 60.0
    """Seconds in which a body must bring 1 kB a second."""
    policy: RetryPolicy = RetryPolicy()


def shortened(delay: float, idle: float, patience: float) -> float:
    """Return a wait that does not go beyond the end of the patience, if nothing has moved for ``idle`` seconds."""
    left = patience - idle
    return min(delay, left) if left > 0 else delay


@value_class
class State:
    """What one file has spent at its current server, and how far it was when it last made progress.

    ``idle_since`` is when something moved for the last time; infinite if nothing was asked yet. It, ``retry_at``,
    ``charged_at`` and ``refused_at`` are moments of the caller's clock: no request is sent before ``retry_at``; one
    that began before ``charged_at`` overlapped with a failure that was counted, and one that began before
    ``refused_at`` with the first refusal since the last progress (`is_first_refusal`). ``done``: bytes of the file that
    were here. ``received``: bytes from the network in all. ``mirrors``: how many are left to try.
    """

    mirrors: int = 0
    network_errors: int = 0
    protocol_errors: int = 0
    refused_links: int = 0
    idle_since: float = math.inf
    retry_at: float = -math.inf
    charged_at: float = -math.inf
    refused_at: float = math.inf
    done: int = 0
    received: int = 0
    changes: int = 0
    is_clean_retry: bool = False
    is_plain: bool = False
    """The whole file is asked for without a range, and nothing beside it."""

    @property
    def is_suspicious(self) -> bool:
        """Whether earlier bytes were wrong. A cache on the way may have sent them."""
        return self.is_clean_retry or self.protocol_errors > 0

    def is_first_refusal(self, outcome: RequestEnded) -> bool:
        """Return whether that refusal may be about the origin: it accepts no more requests. A file that is refused
        again, without progress in between, is at fault itself."""
        return outcome.is_refused and outcome.began < self.refused_at


Failure = Literal["none", "trouble", "lie", "link", "refusal", "final"]
"""How a request failed: not at all; by trouble of the network or the server, which may pass; by an answer that breaks
the protocol; because a URL that a redirect just named was refused, which may have expired; by a refusal for good that
may be about the range, or about one connection too many; or for good."""


@value_class
class RequestEnded:
    """A request ended, in order or with ``error``.

    It ``began`` at that moment, and of the ``asked`` bytes (None: unknown) it put ``brought`` into the file. Now
    ``done`` bytes of the file's ``size`` are here, and ``received`` bytes came from the network. ``by_link``: the host
    that refused was named by a redirect. ``others``: how many requests to the same origin still run; ``is_serving``:
    the origin has served some of them since this one began. ``is_ranged``: a part of the file was asked for;
    ``serves_ranges``: the origin has served ranges in this run. ``is_hopeless``: the origin has refused plain requests
    too, so that its refusals have nothing to do with ranges. ``has_answered``: the origin has answered in this run.
    """

    began: float
    brought: int = 0
    asked: int | None = None
    done: int = 0
    size: int | None = None
    received: int = 0
    error: MdlError | None = None
    by_link: bool = False
    others: int = 0
    is_serving: bool = False
    is_ranged: bool = False
    serves_ranges: bool = False
    is_hopeless: bool = False
    has_answered: bool = True

    @property
    def failure(self) -> Failure:
        """What the error means for the next request."""
        match self.error:
            case None:
                return "none"
            case ProtocolError():
                return "lie"
            case NetworkError(final=False):
                return "trouble"
            case AuthError() | NotFound() if self.by_link:
                return "link"
            case _ if self.is_hopeless:
                return "final"
            case NotFound():
                return "refusal" if self.is_ranged else "final"
            case AuthError() | NetworkError(is_answer=True):
                return "refusal"
        return "final"

    @property
    def made_progress(self) -> bool:
        """Whether it brought all that was requested, or enough of it, or the last missing bytes."""
        is_whole = self.size is not None and self.done >= self.size
        return is_whole or self.asked is None or self.brought >= min(PROGRESS, self.asked)

    @property
    def is_refused(self) -> bool:
        """Whether it brought nothing while other requests to the same origin run."""
        return self.failure in ("trouble", "refusal") and self.others > 0 and not self.brought

    @property
    def may_be_the_range(self) -> bool:
        """Whether a plain request for the whole file may be served where this one was not."""
        match self.failure:
            case "lie":
                return self.is_ranged
            case "trouble":
                is_answer = isinstance(self.error, NetworkError) and self.error.is_answer
                return is_answer and self.is_ranged and not self.serves_ranges
            case "refusal" | "link":
                return self.is_ranged or self.others > 0
        return False


@value_class
class VersionChanged:
    """The server has another version of the file than the one begun; ``error`` says so. ``is_same_size``: only its
    validator differs. Several servers of one name may each have their own."""

    error: ProtocolError
    is_same_size: bool = False


@value_class
class Verified:
    """All bytes are here and were hashed. ``error`` is None if they are right. ``may_help``: one more download from the
    start may help, as they came in more than one response, or were cut."""

    error: MdlError | None = None
    may_help: bool = False
    received: int = 0


Outcome = RequestEnded | VersionChanged | Verified


@value_class
class Again:
    """Ask the same server again after ``delay`` seconds. ``failure`` counts from 1 to ``most`` (0: no limit); 0 if
    nothing was spent. ``why`` is '' if there is nothing to tell. Nothing has moved for ``idle`` seconds; after
    ``patience`` seconds of that it is enough."""

    delay: float = 0.0
    failure: int = 0
    why: str = ""
    most: int = 0
    idle: float = 0.0
    patience: float = 0.0


@value_class
class Rewind:
    """Discard what is here and download from the start."""

    why: str


@value_class
class AskPlainly:
    """Ask for the whole file without a range, once nothing else is asked of its server. ``is_for_good``: if that is
    served, the server does not serve ranges; else it may have been in trouble for a while."""

    why: str
    is_for_good: bool = True


@value_class
class NextMirror:
    """Continue with the next mirror. ``rewind``: discard what is here first."""

    error: MdlError
    rewind: bool = False


@value_class
class GiveUp:
    """The file has failed with ``error``."""

    error: MdlError


@value_class
class Done:
    """The file is complete and verified."""


Decision = Again | Rewind | AskPlainly | NextMirror | GiveUp | Done


def decide(
    policy: RetryPolicy, state: State, outcome: Outcome, now: float, jitter: float = 0.5
) -> tuple[State, Decision]:
    """Return what to do after ``outcome``, and the state after that. ``jitter`` in [0, 1) varies the length of a
    wait."""
    if isinstance(outcome, Verified):
        return _after_verification(state, outcome)
    if isinstance(outcome, VersionChanged):
        return _after_change(state, outcome)
    return _after_request(policy, state, outcome, now, jitter)


def _after_verification(state: State, outcome: Verified) -> tuple[State, Decision]:
    """All bytes are here. Wrong ones are downloaded from the start once more, if that may help."""
    if outcome.error is None:
        return state, Done()
    if outcome.may_help and not state.is_clean_retry:
        state = replace(state, is_clean_retry=True, done=0, received=outcome.received)
        return state, Rewind(outcome.error.message)
    return _given_up(state, outcome.error, rewind=True)


def _after_change(state: State, outcome: VersionChanged) -> tuple[State, Decision]:
    """The server has another version: it is downloaded from its start, once; then in one answer, once."""
    is_first = state.changes == 0
    state = replace(state, changes=state.changes + 1)
    if is_first:
        return replace(state, done=0), Rewind(outcome.error.message)
    if outcome.is_same_size and not state.is_plain:
        return replace(state, done=0, is_plain=True), Rewind(outcome.error.message)
    return _given_up(state, outcome.error)


def _after_request(
    policy: RetryPolicy, state: State, outcome: RequestEnded, now: float, jitter: float
) -> tuple[State, Decision]:
    """A request ended, in order or with an error."""
    state = _refilled(state, outcome, now)
    error = outcome.error
    if error is None:
        if outcome.made_progress:
            return state, Again()
        error = NetworkError(f"the answer ended after {outcome.brought} of {outcome.asked} bytes")
        outcome = replace(outcome, error=error)
    if state.is_first_refusal(outcome):  # from now on `Pacer` allows fewer requests to this origin at once
        state = replace(state, refused_at=min(state.refused_at, now))
        is_asked_alone_next = outcome.failure == "refusal" and not outcome.is_ranged
        if outcome.is_serving and not is_asked_alone_next:
            return _free(state, error, now)
    if outcome.failure in ("refusal", "final"):
        return _ended(state, outcome, error, now)
    if isinstance(error, ProtocolError):
        is_about_the_range = outcome.is_ranged and not outcome.serves_ranges and not state.is_plain
        if error.final or is_about_the_range:
            return _ended(state, outcome, error, now)
    if outcome.began < state.charged_at:  # it overlapped with a failure that was counted
        return state, Again(max(0.0, state.retry_at - now))
    if isinstance(error, NetworkError):
        return _after_trouble(policy, state, outcome, error, now, jitter)
    if isinstance(error, ProtocolError):
        return _after_lie(policy, state, outcome, error, now, jitter)
    return _after_refused_link(policy, state, outcome, error, now, jitter)


def _free(state: State, error: MdlError, now: float) -> tuple[State, Decision]:
    """Return a refusal that spends no budget. It is followed by a wait only if the server asks for one."""
    if not isinstance(error, NetworkError) or not error.retry_after:
        return state, Again()
    delay = error.retry_after
    return replace(state, retry_at=max(state.retry_at, now + delay)), Again(delay, why=error.message)


def _refilled(state: State, outcome: RequestEnded, now: float) -> State:
    """Return the state with the budget restored, if the file has made enough progress for the bytes received."""
    new = outcome.done - state.done
    enough = PROGRESS
    if outcome.size is not None:
        enough = max(1, min(PROGRESS, outcome.size - state.done))
    if new < enough or new * MAX_OVERHEAD < outcome.received - state.received:
        return state
    return replace(
        state,
        network_errors=0,
        protocol_errors=0,
        refused_links=0,
        idle_since=now,
        refused_at=math.inf,
        done=outcome.done,
        received=outcome.received,
    )


def _after_trouble(
    policy: RetryPolicy, state: State, outcome: RequestEnded, error: NetworkError, now: float, jitter: float
) -> tuple[State, Decision]:
    """One more failure of the network or the server, which time may mend. The last try is made when the patience is
    over, and not before the moment that the server asks for."""
    failure = state.network_errors + 1
    idle_since = min(state.idle_since, outcome.began)
    state = replace(state, network_errors=failure, idle_since=idle_since)
    patience = policy.limit(has_answered=outcome.has_answered or error.is_silence)
    is_over = now >= idle_since + patience or policy.is_last(failure)
    may_be_the_range = failure >= STATUSES_OF_A_RANGE and outcome.may_be_the_range and not state.is_plain
    if is_over or may_be_the_range:
        return _ended(state, outcome, error, now)
    delay = policy.delay(failure, jitter, error.retry_after)
    if error.retry_after is None:
        delay = shortened(delay, now - idle_since, patience)
    state = replace(state, charged_at=now, retry_at=now + delay)
    most = 0 if policy.tries is None else policy.tries - 1
    return state, Again(delay, failure, error.message, most, now - idle_since, patience)


def _after_lie(
    policy: RetryPolicy, state: State, outcome: RequestEnded, error: ProtocolError, now: float, jitter: float
) -> tuple[State, Decision]:
    """One more answer that breaks the protocol."""
    failure = state.protocol_errors + 1
    state = replace(state, protocol_errors=failure)
    if failure > policy.protocol_errors or policy.is_last(failure):
        return _ended(state, outcome, error, now)
    return _waiting(policy, state, error, failure, policy.protocol_errors, now, jitter)


def _after_refused_link(
    policy: RetryPolicy, state: State, outcome: RequestEnded, error: MdlError, now: float, jitter: float
) -> tuple[State, Decision]:
    """One more link that is refused. The first time a new one is requested at once: most have expired."""
    failure = state.refused_links + 1
    state = replace(state, refused_links=failure)
    if failure == 1:
        return replace(state, charged_at=now, retry_at=now), Again()
    if failure > policy.refused_links:
        return _ended(state, outcome, error, now)
    return _waiting(policy, state, error, failure, policy.refused_links, now, jitter)


def _waiting(
    policy: RetryPolicy, state: State, error: MdlError, failure: int, most: int, now: float, jitter: float
) -> tuple[State, Decision]:
    """Ask again after a wait; this is the ``failure``-th one of ``most`` in a row."""
    delay = policy.delay(failure, jitter)
    state = replace(state, charged_at=now, retry_at=now + delay)
    return state, Again(delay, failure, error.message, most)


def _ended(state: State, outcome: RequestEnded, error: MdlError, now: float) -> tuple[State, Decision]:
    """Nothing more is to be had by asking as before."""
    if outcome.may_be_the_range and not state.is_plain:
        is_for_good = not isinstance(error, NetworkError) or error.final
        return replace(state, is_plain=True, charged_at=now), AskPlainly(error.message, is_for_good)
    return _given_up(state, error)


def _given_up(state: State, error: MdlError, *, rewind: bool = False) -> tuple[State, Decision]:
    """Give this server up for the next mirror, or give up at all. No mirror helps if the local disk fails."""
    if isinstance(error, StorageError) or not state.mirrors:
        return state, GiveUp(error)
    fresh = State(
        state.mirrors - 1,
        done=0 if rewind else state.done,
        received=state.received,
        changes=state.changes,
        is_clean_retry=state.is_clean_retry,
    )
    return fresh, NextMirror(error, rewind)
