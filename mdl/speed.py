"""Speed: bytes per second over a sliding window. Pure: the caller supplies the time."""

from __future__ import annotations

from collections import deque

_WINDOW = 8.0


class Speed:
    """The speed of a transfer that began at ``now``. Bytes of an earlier transfer are not counted."""

    def __init__(self, now: float) -> None:
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])

    def observe(self, now: float, done: int) -> float:
        """Take note of ``done`` bytes so far; returns bytes per second over the last 8 seconds."""
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
        then, before = self._samples[0]
        return (done - before) / (now - then) if now > then else 0.0
