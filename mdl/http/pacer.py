"""Pacer: how many requests an origin takes now, and when it may be asked again. Pure: the clock is the caller's.

Each origin (scheme, host, port) has a limit. A refusal lowers it to the number of requests that go on there; it
rises by one every few seconds, and more rarely each time that the origin refuses the additional request (additive
increase, after RFC 5681). If an origin serves nobody any more, all files of it wait together and fail together:
twelve models of a dead host cost as much time as one, and other hosts are not kept waiting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mdl.errors import NetworkError
from mdl.http.policy import RetryPolicy

_RISE_SECONDS = 5.0
_LONGEST_RISE_SECONDS = 600.0
_LONG_AGO = 20
"""After so many times the seconds that a limit took to rise, a refusal counts as the first one again."""
_DOWN_SECONDS = 30.0
"""An origin that was given up on is not asked for so long; then one request finds out."""


@dataclass
class _Origin:
    limit: int
    rises_at: float = math.inf
    rise: float = _RISE_SECONDS
    refused_at: float = -math.inf
    failures: int = 0
    failed_url: str = ""
    is_several: bool = False
    retry_at: float = -math.inf
    charged_at: float = -math.inf
    served_at: float = -math.inf
    down: NetworkError | None = None
    down_until: float = -math.inf


class Pacer:
    """All origins of one client. ``connections`` is the most that any of them is asked at once. An origin counts as
    down after as many failures in a row as the ``policy`` has tries, of more than one file and with nobody served."""

    def __init__(self, connections: int, policy: RetryPolicy = RetryPolicy()) -> None:  # noqa: B008 - frozen
        self._most, self._policy = max(1, connections), policy
        self._origins: dict[str, _Origin] = {}

    def has_room(self, origin: str, running: int, now: float) -> bool:
        """Whether one request more may be sent to ``origin`` while ``running`` ones go on there."""
        found = self._origins.get(origin)
        if found is None:
            return True
        if now < found.retry_at:
            return False
        if now >= found.rises_at:
            found.limit += 1
            found.rises_at = now + found.rise if found.limit < self._most else math.inf
        return running < found.limit

    def retry_at(self, origin: str) -> float:
        """The moment from which on the origin may be asked again; in the past if it may be asked now."""
        found = self._origins.get(origin)
        return found.retry_at if found else -math.inf

    def down(self, origin: str, now: float) -> NetworkError | None:
        """Why the origin is given up on for now, or None."""
        found = self._origins.get(origin)
        if found is None or found.down is None:
            return None
        if now >= found.down_until:
            found.down, found.failures = None, self._policy.tries - 1
            return None
        return NetworkError(found.down.message, hint=found.down.hint, final=True)

    def is_in_doubt(self, origin: str) -> bool:
        """The origin failed, and has served nobody since."""
        found = self._origins.get(origin)
        return found is not None and found.failures > 0

    def served_since(self, origin: str, moment: float) -> bool:
        """Whether the origin has served anybody after ``moment``."""
        found = self._origins.get(origin)
        return found is not None and found.served_at > moment

    def served(self, origin: str, now: float) -> None:
        """The origin gave what it was asked for, or a good part of it."""
        found = self._of(origin)
        found.served_at, found.failures, found.down, found.retry_at = now, 0, None, -math.inf
        found.failed_url, found.is_several = "", False

    def refused(self, origin: str, others: int, now: float) -> None:
        """The origin turned a request away while ``others`` go on: it takes no more than these at once."""
        found = self._of(origin)
        is_again = now - found.refused_at < _LONG_AGO * found.rise
        found.rise = min(_LONGEST_RISE_SECONDS, found.rise * 2) if is_again else _RISE_SECONDS
        found.refused_at = now
        found.limit = max(1, min(found.limit, others))
        found.rises_at = now + found.rise

    def failed(self, origin: str, url: str, began: float, now: float, delay: float, error: NetworkError) -> None:
        """A request for ``url`` that ``began`` then failed, and is to be repeated after ``delay`` seconds at the least.

        The more often the origin fails, the longer it is left alone. All failures that overlap count once. They do
        not count at all if the origin has served others meanwhile: then it is the file's own trouble. One file alone
        does not speak for its origin.
        """
        found = self._of(origin)
        found.is_several = found.is_several or found.failed_url not in ("", url)
        found.failed_url = url
        if began < found.charged_at or began < found.served_at:
            return
        found.failures += 1
        patience = self._policy.delay(found.failures, 0.5)
        found.charged_at, found.retry_at = now, now + max(delay, patience)
        if found.failures >= self._policy.tries and found.is_several:
            found.down, found.down_until, found.retry_at = error, now + _DOWN_SECONDS, -math.inf

    def _of(self, origin: str) -> _Origin:
        return self._origins.setdefault(origin, _Origin(self._most))
