"""Throttle: how many bytes a second all connections together may receive, by a daily timetable if there is one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mdl.cancel import CancelToken
from mdl.units import Timetable

_SLACK = 0.25
"""Seconds that may be caught up after a late wake-up. A longer silence of the network is never made up for."""
_QUANTUM = 0.01
_LEAST = 4096


def minute_of_day() -> int:
    """Minutes since midnight, local time."""
    now = time.localtime()
    return now.tm_hour * 60 + now.tm_min


class Throttle:
    """One rate limit for all connections. A thread that has read bytes waits until the rate allows for them."""

    def __init__(
        self,
        timetable: Timetable,
        clock: Callable[[], float] = time.monotonic,
        minute: Callable[[], int] = minute_of_day,
    ) -> None:
        self._timetable, self._clock, self._minute = timetable, clock, minute
        self._lock = threading.Lock()
        self._paid_until = clock()

    @property
    def rate(self) -> float | None:
        """Bytes a second at this time of the day; None if there is no limit."""
        rates = self._timetable.rates
        return rates[0][1] if len(rates) == 1 else self._timetable.rate_at(self._minute())

    def quantum(self, most: int) -> int:
        """How many bytes to read at a time: at most ``most``, fewer if the rate is low."""
        rate = self.rate
        return most if rate is None else min(most, max(_LEAST, int(rate * _QUANTUM)))

    def take(self, count: int, cancel: CancelToken) -> None:
        """Wait until the rate allows for ``count`` more bytes. Raises `Cancelled`."""
        rate = self.rate
        if rate is None:
            return
        with self._lock:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - _SLACK) + count / rate
            wait = self._paid_until - now
        if wait > 0:
            cancel.wait(wait)


NO_LIMIT = Throttle(Timetable(((0, None),)))
