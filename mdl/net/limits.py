"""Limits: how much a client asks for at once, how long it waits, and how often it asks again. Pure."""

from __future__ import annotations

from mdl.net.policy import RetryPolicy
from mdl.values import value_class


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
