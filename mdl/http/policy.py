"""The retry policy: what follows when a request has ended. Pure: no socket, no clock, no chance of its own.

One rule bounds everything: an answer brings new bytes, at least 64 KiB or all that it was asked for, or it spends
budget and is followed by a wait. Bytes that replace others which were here before are not new. What is spent comes
back once the file itself is 64 KiB further, provided that an eighth of what was received meanwhile was new.
Failures of requests that overlap in time spend once.

So the number of requests for a file is bounded by its size, `RetryPolicy` and the number of its mirrors, whatever
the server answers; ``tests/test_policy.py`` holds that for random servers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from mdl.errors import AuthError, MdlError, NetworkError, NotFound, ProtocolError, StorageError

PROGRESS = 64 * 1024
"""New bytes that count as progress."""

WORTH = 8
"""Of so many bytes received, at least one must be new. Otherwise a file that a server always sends from the start would
be fetched for ever."""

LONGEST_WISH = 600.0
"""A server that asks for a longer wait than this (seconds) is given up on, in its own words."""

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529})
"""Statuses that may pass by themselves."""


@dataclass(frozen=True)
class RetryPolicy:
    """``tries`` without progress are allowed; waits double from ``first`` to ``longest`` seconds. A server may break
    the protocol ``protocol_errors`` times, and refuse ``refused_links`` links that a redirect just gave."""

    tries: int = 5
    first: float = 0.5
    longest: float = 30.0
    protocol_errors: int = 2
    refused_links: int = 2

    def delay(self, failure: int, chance: float, wish: float | None = None) -> float:
        """Seconds to wait after the ``failure``-th failure in a row (from 1).

        ``chance`` in [0, 1) spreads clients that failed together: half of the wait is drawn.
        ``wish`` is the server's Retry-After and is never undercut.
        """
        full = min(self.longest, self.first * 2.0 ** min(failure - 1, 30))
        drawn = full * (0.5 + chance / 2)
        return max(drawn, wish) if wish is not None else drawn


@dataclass(frozen=True)
class State:
    """What one file has spent at the server that is asked for it now, and how far it was when it last had progress.

    ``retry_at`` and ``charged_at`` are moments of the caller's clock: before the first nothing is asked; a request
    that began before the second overlapped with a failure that was counted. ``done`` are bytes of the file that
    were here, ``received`` bytes from the network in all. ``mirrors`` are left to be asked.
    """

    mirrors: int = 0
    network_errors: int = 0
    protocol_errors: int = 0
    refused_links: int = 0
    retry_at: float = -math.inf
    charged_at: float = -math.inf
    done: int = 0
    received: int = 0
    changes: int = 0
    is_clean_retry: bool = False

    @property
    def is_suspicious(self) -> bool:
        """What came before was wrong: a cache on the way may have given it."""
        return self.is_clean_retry or self.protocol_errors > 0


@dataclass(frozen=True)
class Ended:
    """A request ended. It ``began`` then, put ``brought`` bytes into the file of the ``asked`` ones (None: unknown),
    and ended in order or with ``error``. By then ``done`` bytes of the file's ``size`` are here and ``received``
    came from the network. ``by_link``: the host that refused was named by a redirect. ``others`` requests to the
    same origin go on; ``is_serving``: it has served some of them since this one began."""

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

    @property
    def is_passing(self) -> bool:
        """The request failed by trouble that may pass."""
        return isinstance(self.error, NetworkError) and not self.error.final

    @property
    def is_worth(self) -> bool:
        """It brought all that it was asked for, or enough of it, or the last that was missing."""
        is_whole = self.size is not None and self.done >= self.size
        return is_whole or self.asked is None or self.brought >= min(PROGRESS, self.asked)

    @property
    def is_surplus(self) -> bool:
        """The origin turned this request away and goes on serving others."""
        return self.is_passing and self.others > 0 and self.is_serving and not self.brought


@dataclass(frozen=True)
class Changed:
    """The server has another version of the file than the one begun; ``error`` says so."""

    error: ProtocolError


@dataclass(frozen=True)
class Verified:
    """All bytes are here and were hashed; ``error`` is None if they are right. ``is_mixed``: they came in more than
    one answer, so that asking once more from the start may help."""

    error: MdlError | None = None
    is_mixed: bool = False
    received: int = 0


Outcome = Ended | Changed | Verified


@dataclass(frozen=True)
class Again:
    """Ask the same server again after ``delay`` seconds. ``failure`` counts from 1; 0: nothing was charged."""

    delay: float = 0.0
    failure: int = 0
    why: str = ""


@dataclass(frozen=True)
class Rewind:
    """Throw away what is here and ask from the start."""

    why: str


@dataclass(frozen=True)
class NextMirror:
    """Go on with the next mirror; ``rewind`` if what is here must be thrown away first."""

    error: MdlError
    rewind: bool = False


@dataclass(frozen=True)
class GiveUp:
    """The file ends with ``error``."""

    error: MdlError


@dataclass(frozen=True)
class Done:
    """The file is whole and right."""


Decision = Again | Rewind | NextMirror | GiveUp | Done


def decide(
    policy: RetryPolicy, state: State, outcome: Outcome, now: float, chance: float = 0.5
) -> tuple[State, Decision]:
    """What to do after ``outcome``, and what is spent then. ``chance`` in [0, 1) draws the length of a wait."""
    if isinstance(outcome, Verified):
        return _after_hash(state, outcome)
    if isinstance(outcome, Changed):
        return _after_change(state, outcome)
    state = _refilled(state, outcome)
    error = outcome.error
    if error is None:
        if outcome.is_worth:
            return state, Again()
        error = NetworkError(f"the answer ended after {outcome.brought} of {outcome.asked} bytes")
        outcome = replace(outcome, error=error)
    if outcome.is_surplus:
        return state, Again()  # `Pacer` asks this origin for less at once from now on
    if not (outcome.is_passing or isinstance(error, ProtocolError) or _is_refused_link(outcome)):
        return _given_up(state, error)
    if outcome.began < state.charged_at:
        return state, Again(max(0.0, state.retry_at - now))
    return _charged(policy, state, outcome, error, now, chance)


def _is_refused_link(outcome: Ended) -> bool:
    return outcome.by_link and isinstance(outcome.error, (AuthError, NotFound))


def _refilled(state: State, outcome: Ended) -> State:
    """The budget is whole again once the file has come further and that was worth what was received for it."""
    new = outcome.done - state.done
    enough = PROGRESS if outcome.size is None else min(PROGRESS, outcome.size - state.done)
    if new <= 0 or new < enough or new * WORTH < outcome.received - state.received:
        return state
    done, received = outcome.done, outcome.received
    return replace(state, network_errors=0, protocol_errors=0, refused_links=0, done=done, received=received)


def _charged(
    policy: RetryPolicy, state: State, outcome: Ended, error: MdlError, now: float, chance: float
) -> tuple[State, Decision]:
    """One failure more. A link is asked for anew at once the first time, for most links that are refused expired."""
    wish: float | None = None
    if isinstance(error, NetworkError):
        failure, most, wish = state.network_errors + 1, policy.tries - 1, error.retry_after
        state = replace(state, network_errors=failure)
    elif isinstance(error, ProtocolError):
        failure, most = state.protocol_errors + 1, min(policy.protocol_errors, policy.tries - 1)
        state = replace(state, protocol_errors=failure)
    else:
        failure, most = state.refused_links + 1, policy.refused_links
        state = replace(state, refused_links=failure)
    if failure > most:
        return _given_up(state, error)
    is_first_link = _is_refused_link(outcome) and failure == 1
    delay = 0.0 if is_first_link else policy.delay(failure, chance, wish)
    state = replace(state, charged_at=now, retry_at=now + delay)
    return state, Again(delay, 0 if is_first_link else failure, error.message)


def _after_change(state: State, outcome: Changed) -> tuple[State, Decision]:
    """Another version is fetched from its start, once; a second change is the server's error."""
    state = replace(state, changes=state.changes + 1)
    if state.changes > 1:
        return _given_up(state, outcome.error)
    return replace(state, done=0), Rewind(outcome.error.message)


def _after_hash(state: State, outcome: Verified) -> tuple[State, Decision]:
    """Wrong bytes: once more from the start if they came in several answers, then the next mirror, then the end."""
    if outcome.error is None:
        return state, Done()
    if outcome.is_mixed and not state.is_clean_retry:
        return replace(state, is_clean_retry=True, done=0, received=outcome.received), Rewind(outcome.error.message)
    return _given_up(state, outcome.error, rewind=True)


def _given_up(state: State, error: MdlError, *, rewind: bool = False) -> tuple[State, Decision]:
    """This server will not do: the next mirror, or the end. Trouble with the local disk is no server's."""
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


def may_pass(status: int, wish: float | None) -> bool:
    """Whether an answer of this HTTP status is worth another try; ``wish``: seconds it asks to wait, or None."""
    return status in _PASSING and (wish is None or wish <= LONGEST_WISH)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds the server asks to wait: Retry-After as seconds or a date, else an exhausted RateLimit.

    RFC 9110, 10.2.3, and draft-ietf-httpapi-ratelimit-headers-09. None if it asks nothing, or nonsense.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,10}", text):
        return float(text)
    if text:
        try:
            moment = parsedate_to_datetime(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
        except (ValueError, TypeError, OverflowError):
            return None
    waits = [wait for limit in headers.get("ratelimit", "").split(",") if (wait := _exhausted(limit)) is not None]
    return max(waits, default=None)


def _exhausted(limit: str) -> float | None:
    """Seconds until one limit of a RateLimit header opens again; None if something of it is left."""
    found = dict(re.findall(r";\s*([rt])=([0-9]{1,6})\b", limit))
    return float(found["t"]) + 1 if found.get("r", "").lstrip("0") == "" and "r" in found and "t" in found else None
