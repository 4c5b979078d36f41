"""Limits: how much a client asks for at once, how long it waits, and how often it asks again. Pure."""

from __future__ import annotations

from mdl.values import value_class


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
        """How many seconds without progress are enough, of a server that has answered or not."""
        return self.patience if has_answered else min(self.patience, self.unanswered)

    def is_last(self, failure: int) -> bool:
        """Whether the ``failure``-th one in a row is that of the last try."""
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
