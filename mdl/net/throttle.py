"""The rate limit of all connections together. A command that fetches nothing makes one without the HTTP client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mdl.cancel import CancelToken
from mdl.units import NO_RATE_LIMIT, Timetable

_SLACK = 0.25
"""Seconds of the rate limit that may be caught up after a late wake-up. A longer silence is never made up for."""
_LOOK_SECONDS = 1.0
"""How often a thread that waits for a low rate looks whether the rate has changed."""
_QUANTUM_SECONDS = 0.01
_SMALLEST_QUANTUM = 4096


def minute_of_day() -> int:
    """Minutes since midnight, local time."""
    now = time.localtime()
    return now.tm_hour * 60 + now.tm_min


class Throttle:
    """One rate limit for all connections, by a daily timetable. A thread that has read bytes waits until the rate
    allows for them."""

    def __init__(self, timetable: Timetable, clock: Callable[[], float] = time.monotonic) -> None:
        self._timetable = timetable
        self._clock = clock
        self._lock = threading.Lock()
        self._paid_until = clock()

    def change(self, timetable: Timetable) -> None:
        """Keep to another timetable from now on."""
        with self._lock:
            self._timetable = timetable
            self._paid_until = self._clock()

    @property
    def rate(self) -> float | None:
        """Bytes a second at this time of the day; None if there is no limit."""
        rates = self._timetable.rates
        return rates[0][1] if len(rates) == 1 else self._timetable.rate_at(minute_of_day())

    @property
    def is_full(self) -> bool:
        """Whether the rate allows for no more bytes at this moment."""
        return self.rate is not None and self._paid_until > self._clock()

    def quantum(self, most: int) -> int:
        """Return how many bytes to read at a time: at most ``most``, fewer if the rate is low."""
        rate = self.rate
        return most if rate is None else min(most, max(_SMALLEST_QUANTUM, int(rate * _QUANTUM_SECONDS)))

    def take(self, count: int, cancel: CancelToken) -> None:
        """Wait until the rate allows for ``count`` more bytes. Raises `Cancelled`."""
        rate = self.rate
        if rate is None:
            return
        with self._lock:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - _SLACK) + count / rate
            wait = self._paid_until - now
            timetable = self._timetable
        while wait > 0 and self._timetable is timetable:
            cancel.wait(min(wait, _LOOK_SECONDS))
            wait -= _LOOK_SECONDS


NO_LIMIT = Throttle(NO_RATE_LIMIT)
