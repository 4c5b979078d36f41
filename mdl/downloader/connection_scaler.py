"""The connection scaler: how many connections one file uses, found by trying; and the tuning of a transfer. Pure: the
caller has the clock."""

from __future__ import annotations

from collections import deque

from mdl.values import value_class


@value_class
class Tuning:
    """The limits by which a transfer decides. Sizes in bytes, times in seconds, speeds in bytes per second."""

    small: int = 2**20
    """A file up to this size is fetched in one piece and held in memory."""
    least_segment: int = 2**62
    """A segment is at least so long while the speed of a connection is not known: all that is missing."""
    most_request: int = 50 * 10**9
    """Nor is more asked for in one request: some CDNs, that of the Hub among them, send no more in one answer."""
    most_segment: int = 256 * 2**20
    shortest_segment: int = 2**19
    brief_segment: float = 0.5
    long_segment: float = 2.0
    """Once it is known, a segment takes between so many seconds. A shorter one is not worth its round trip; behind a
    longer one the file cannot be hashed."""
    least_tail: int = 2**20
    """A shorter tail of a segment is not split between two connections."""
    slow_tail: float = 0.5
    """Nor is one that will have come by then."""
    probe_after: float = 0.1
    """The speed is measured for so long, at least, before the number of connections changes."""
    probe_over: float = 1.0
    """After so long, additional connections must have shown what they bring."""
    pause: float = 1.0
    longest_pause: float = 60.0
    """The time to the next probe, twice as long after each one that did not bring much."""
    growth: float = 1.25
    """If the speed grows by this factor, more connections are added at once."""
    little_growth: float = 1.08
    """If it grows by less than this one, the additional connections are given up."""
    fast_enough: float = 100e6
    """If one connection is this fast, more connections bring nothing."""


class ConnectionScaler:
    """How many connections one file uses: ``width``, which `observe` keeps between 1 and ``limit``.

    More connections help only while they bring more bytes: a server that limits each connection gains from sixteen, a
    fast local one loses. So a file begins with one. Each step is a probe: two, then twice as many each time. If the
    speed grows clearly, the next step follows at once. If it grows a little, the number stays; if it does not, the
    number goes back. After a pause, another probe finds out whether that has changed. While the user's rate limit is
    reached, no number grows: else files would take the rate from each other with ever more connections.
    """

    def __init__(self, limit: int, tuning: Tuning = Tuning()) -> None:
        self.limit = max(1, limit)
        self.width = 1
        self._tuning = tuning
        self.speed = 0.0
        """Bytes per second of one connection; 0 if that is not known yet."""
        self._samples: deque[tuple[float, int]] = deque()
        self._probe_began: float | None = None
        self._probe_at = 0.0
        self._pause = tuning.pause
        self._narrower = 1
        self._speed_before = -1.0

    @property
    def is_probing(self) -> bool:
        """Whether it is open how many connections of those in use will stay."""
        return self._probe_began is not None

    def observe(self, now: float, done: int, running: int, *, is_limited: bool = False) -> int:
        """Take note that ``done`` bytes of the file were fetched so far, and ``running`` connections are in use;
        ``is_limited`` if the rate limit is reached. Returns the width to use from now on."""
        if not done:
            return self.width
        if not self._samples:
            self._probe_began = now  # the first connection is judged as the others are
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] >= self._tuning.probe_over:
            self._samples.popleft()
        if self._probe_began is not None:
            self._judge(now, now - self._probe_began, is_limited)
        else:
            speed = self._measure(self._tuning.probe_over)
            self.speed = speed / max(running, self.width)
            if running > self.width:  # a probe is compared with the speed without what the last one added
                self._probe_at = max(self._probe_at, now + self._tuning.probe_over)
            if now >= self._probe_at and not is_limited:
                self._widen(now, speed)
        return self.width

    def refused(self, now: float, running: int) -> None:
        """Use no more than ``running`` connections for a while: the server refused one more."""
        self.width = max(1, min(self.width, running))
        self._hold(now)

    def _judge(self, now: float, elapsed: float, is_limited: bool) -> None:
        """Decide after ``elapsed`` seconds of a probe: go on, go back, stay, or wait until more is known."""
        tuning = self._tuning
        is_over = elapsed >= self._tuning.probe_over
        if elapsed < tuning.probe_after:
            return
        speed = self._measure(elapsed / 2 if is_over else elapsed)  # a new connection is slow at first
        if speed > tuning.growth * self._speed_before and not is_limited:
            self.speed = speed / self.width
            self._pause = tuning.pause
            self._widen(now, speed)
        elif is_over:
            self.speed = speed / self.width
            if speed < tuning.little_growth * self._speed_before or is_limited:
                self.width = self._narrower
            self._hold(now)
            if not is_limited:
                self._pause = min(tuning.longest_pause, self._pause * 2)

    def _widen(self, now: float, speed: float) -> None:
        if self.width >= self.limit or speed >= self._tuning.fast_enough * self.width:
            self._hold(now)
            return
        self._narrower = self.width
        self._speed_before = speed
        self._probe_began = now
        self.width = min(self.limit, self.width * 2)

    def second_was_served(self, now: float) -> None:
        """Go on probing with four connections: the second one, which was a question, has its answer."""
        if self.width == 2 and self.is_probing:
            self.width = min(self.limit, 4)
            self._probe_began = now

    def second_was_late(self) -> None:
        """Go back to one connection: the second one is closed."""
        self.width = 1
        self._probe_began = None

    def _hold(self, now: float) -> None:
        self._probe_began = None
        self._probe_at = now + self._pause

    def _measure(self, seconds: float) -> float:
        """Return the bytes per second of the file, over the last ``seconds`` at least, if it is known for so long."""
        now, done = self._samples[-1]
        then, done_then = self._samples[0]
        for moment, done_at in self._samples:
            if now - moment >= seconds:
                then = moment
                done_then = done_at
        if now <= then:
            return 0.0
        return (done - done_then) / (now - then)
