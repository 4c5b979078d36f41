"""Patience: ask again while trouble may pass. For short requests; bodies have their own way."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from mdl.cancel import Cancel
from mdl.errors import NetworkError
from mdl.net.retry import Backoff

Answer = TypeVar("Answer")


def patiently(
    call: Callable[[], Answer],
    backoff: Backoff,
    cancel: Cancel,
    on_wait: Callable[[NetworkError, int, float], None] | None = None,
) -> Answer:
    """The answer of ``call``, tried again with backoff while it raises a `NetworkError` that is not final.

    ``on_wait`` is told the error, the number of the failure and the seconds until the next try.
    Raises the last error, or `Cancelled`.
    """
    failure = 0
    while True:
        try:
            return call()
        except NetworkError as error:
            failure += 1
            if error.final or failure >= backoff.tries:
                raise
            delay = backoff.delay(failure, random.random(), error.retry_after)
            if on_wait:
                on_wait(error, failure, delay)
            cancel.wait(delay)
