"""Retrying short requests while their errors may pass. Files are retried by the engine, with the same policy."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from mdl.cancel import CancelToken
from mdl.errors import MdlError, NetworkError
from mdl.http.allowlist import origin_of
from mdl.http.pacer import Pacer
from mdl.http.policy import Again, RequestEnded, RetryPolicy, State, decide

Answer = TypeVar("Answer")
OnRetry = Callable[[MdlError, int, float], None]


class Retrier:
    """Carries out one retry policy, with the pacer's limits for each origin. For any number of threads."""

    def __init__(self, policy: RetryPolicy, pacer: Pacer, cancel: CancelToken) -> None:
        self._policy = replace(policy, protocol_errors=0)  # an API answer that makes no sense does not get better
        self._pacer, self._cancel = pacer, cancel
        self._lock = threading.Lock()

    def call(self, url: str, request: Callable[[], Answer], on_retry: OnRetry | None = None) -> Answer:
        """The result of ``request``, which asks ``url``. It is called again while it fails with an error that may pass.

        ``on_retry`` receives the error, the number of the failure and the seconds until the next try.
        Raises the last error, the error of an origin that is down, or `Cancelled`.
        """
        state, origin = State(), origin_of(url)
        self._wait_for(origin, 0.0, time.monotonic())
        while True:
            began = time.monotonic()
            try:
                answer = request()
            except MdlError as error:
                state = self._charge(state, url, RequestEnded(began, asked=1, error=error), error, on_retry)
                continue
            with self._lock:
                self._pacer.served(origin, time.monotonic())
            return answer

    def _charge(self, state: State, url: str, ended: RequestEnded, error: MdlError, on_retry: OnRetry | None) -> State:
        """Spend budget and wait. Raises ``error`` if that was the last try."""
        now, origin = time.monotonic(), origin_of(url)
        state, decision = decide(self._policy, state, ended, now, random.random())
        delay = decision.delay if isinstance(decision, Again) else 0.0
        if isinstance(error, NetworkError) and ended.is_temporary:
            with self._lock:
                self._pacer.failed(origin, url, ended.began, now, delay, error)
        if not isinstance(decision, Again):
            raise error
        if on_retry:
            on_retry(error, decision.failure, delay)
        self._wait_for(origin, delay, now)
        return state

    def _wait_for(self, origin: str, delay: float, now: float) -> None:
        """Wait ``delay`` seconds, and until the origin may be asked again. Raises the error of an origin that is
        down."""
        moment = now + delay
        if delay > 0:
            self._cancel.wait(delay)
        while (later := self._retry_at(origin)) > moment:  # other threads may have postponed it meanwhile
            self._cancel.wait(later - moment)
            moment = later
        with self._lock:
            down = self._pacer.down(origin, time.monotonic())
        if down:
            raise down

    def _retry_at(self, origin: str) -> float:
        with self._lock:
            return self._pacer.retry_at(origin)
