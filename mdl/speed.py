"""Speed: bytes a second over a sliding window. Pure: the clock is the caller's."""

from __future__ import annotations

from collections import deque

_WINDOW = 8.0


class Speed:
    """Counts only bytes from the network since it began, so resumed bytes never look like speed."""

    def __init__(self, now: float) -> None:
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])

    def observe(self, now: float, done: int) -> float:
        """``done`` bytes so far; returns bytes per second over the last 8 seconds."""
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
        then, before = self._samples[0]
        return (done - before) / (now - then) if now > then else 0.0
