"""How often and how long: backoff with jitter, and the server's own wish. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WISH = 600.0
"""A server that asks for a longer wait than this (seconds) is given up on, in its own words."""

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529})
"""Statuses that may pass by themselves."""


@dataclass(frozen=True)
class Backoff:
    """``tries`` without progress are allowed; waits double from ``first`` to ``cap`` seconds."""

    tries: int = 5
    first: float = 0.5
    cap: float = 30.0

    def delay(self, failure: int, chance: float, wish: float | None = None) -> float:
        """Seconds to wait after the ``failure``-th failure in a row (from 1).

        ``chance`` in [0, 1) spreads clients that failed together: half of the wait is drawn.
        ``wish`` is the server's Retry-After and is never undercut.
        """
        full = min(self.cap, self.first * 2.0 ** min(failure - 1, 30))
        drawn = full * (0.5 + chance / 2)
        return max(drawn, wish) if wish is not None else drawn


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds the server asks to wait: Retry-After as seconds or a date, else an exhausted RateLimit.

    RFC 9110, 10.2.3, and draft-ietf-httpapi-ratelimit-headers-09. None where it asks nothing, or nonsense.
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
    """Seconds until one limit of a RateLimit header opens again; None where something of it is left."""
    found = dict(re.findall(r";\s*([rt])=([0-9]{1,6})\b", limit))
    return float(found["t"]) + 1 if found.get("r", "").lstrip("0") == "" and "r" in found and "t" in found else None
