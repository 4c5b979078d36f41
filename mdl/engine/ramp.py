"""Ramp: how many connections one file is worth. Pure: the clock is the caller's.

More connections help only while they bring more bytes: a link that throttles each connection gains from
sixteen, a fast local one loses. So a file begins with one, and doubles while the speed grows with them.
"""

from __future__ import annotations

_STEP_SECONDS = 0.2
_AGAIN_SECONDS = 5.0
_GROWTH = 1.2
_FAST_ENOUGH = 100e6
"""Bytes per second of one connection from which on the network is not what one waits for."""


class Ramp:
    """``width`` is the number of connections now; `observe` raises it up to ``limit``."""

    def __init__(self, limit: int, now: float) -> None:
        self.limit = max(1, limit)
        self.width = 1
        self._since, self._bytes, self._best = now, 0, 0.0

    def observe(self, now: float, done: int) -> int:
        """``done`` counts the file's fetched bytes so far; returns the width to use from now on."""
        elapsed = now - self._since
        if elapsed < _STEP_SECONDS:
            return self.width
        rate = (done - self._bytes) / elapsed
        grew = rate > _GROWTH * self._best
        if rate < _FAST_ENOUGH * self.width and (grew or elapsed >= _AGAIN_SECONDS) and self.width < self.limit:
            self.width = min(self.limit, self.width * 2)
            self._best = max(self._best, rate)
            self._since, self._bytes = now, done
        elif grew or elapsed >= _AGAIN_SECONDS:
            self._best = rate
            self._since, self._bytes = now, done
        return self.width
