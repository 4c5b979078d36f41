"""Work: what takes more than the bytes of a file: lists of runs, the facts of one, checkpoints, the status, zips.

A few are done at a time, so that files are answered as ever whatever is asked for; who asks for more is told to come
back. An answer is made once for all who wait for it, and is good for a time in proportion to what it cost. Work whose
clients have all left is given up (docs/adr/0056).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mdl.formatting import json_bytes
from mdl.plugins.serve.connection import KEY, Connection
from mdl.plugins.serve.responses import Handler, Refusal

AT_ONCE = 2
"""How many are done at a time: each may take a core."""
KEPT_SECONDS = 1.0
SHARE = 5.0
OLDEST_SECONDS = 60.0
"""How long an answer is good: so many seconds, and so many times as long as it took to make it. An older one is given
while a new one is made, if it is not older than that."""
_MOST_KEPT = 256
_COME_BACK = {"Retry-After": "2"}


class GivenUpError(Exception):
    """Nobody waits for this work any more."""


Check = Callable[[], None]
"""Raises `GivenUpError` once nobody waits any more. Work that takes long calls it between its steps."""
Make = Callable[[Check], Any]


@dataclass
class _Making:
    """One piece of work that is being done, and how many clients wait for it."""

    result: asyncio.Task[Any]
    stop: threading.Event
    waiting: int = 0


@dataclass
class _Answer:
    """What was answered last, when that was, and until when it is good."""

    body: bytes
    made_at: float
    good_until: float


@dataclass
class Work:
    """The work of one server. All but what it makes is called in the server's own thread."""

    _making: dict[str, _Making] = field(default_factory=dict)
    _answers: dict[str, _Answer] = field(default_factory=dict)
    _running: int = 0

    def told(self, make: Callable[..., Any], headers: Mapping[str, str] | None = None) -> Handler:
        """A handler that answers with what ``make`` returns, as JSON. It is called in a thread, with a `Check` and the
        variable parts of the path by their names."""

        async def answer(request: Request) -> Response:
            connection: Connection = request.scope[KEY]
            words = request.path_params
            body = await self.answer(request.scope["path"], lambda check: make(check, **words), connection)
            return Response(body, headers=headers, media_type="application/json")

        return answer

    async def answer(self, key: str, make: Make, connection: Connection) -> bytes:
        """What ``make`` returns, as JSON: as it is now, or was a moment ago. Raises `Refusal` if too much is being done
        already, and what ``make`` raises."""
        last = self._answers.get(key)
        now = time.monotonic()
        if last is not None:
            is_being_made = key in self._making and now - last.made_at < OLDEST_SECONDS
            if now < last.good_until or is_being_made:
                return last.body

        def made(check: Check) -> _Answer:
            began = time.monotonic()
            body = json_bytes(make(check))
            ended = time.monotonic()
            return _Answer(body, ended, ended + max(KEPT_SECONDS, SHARE * (ended - began)))

        found: _Answer = await self.do(key, made, connection)
        self._keep(key, found)
        return found.body

    async def do(self, key: str, make: Make, connection: Connection) -> Any:
        """What ``make`` returns, which is called once for all who ask for the same ``key`` meanwhile. Raises as
        `answer`, and `Refusal` if the client has gone."""
        making = self._making.get(key)
        if making is None or making.stop.is_set():
            if self._running >= AT_ONCE:
                raise Refusal(503, "", "the server is at work on other lists and runs already", _COME_BACK)
            making = self._making[key] = self._begin(key, make)
        making.waiting += 1
        try:
            await asyncio.wait({making.result, connection.gone}, return_when=asyncio.FIRST_COMPLETED)
            if not making.result.done():
                raise Refusal(503, "", "the client has gone")
            return making.result.result()
        finally:
            making.waiting -= 1
            if not making.waiting:
                making.stop.set()

    def _begin(self, key: str, make: Make) -> _Making:
        stop = threading.Event()

        def check() -> None:
            if stop.is_set():
                raise GivenUpError

        async def run() -> Any:
            try:
                return await run_in_threadpool(make, check)
            finally:
                self._running -= 1
                if self._making.get(key) is making:
                    del self._making[key]

        self._running += 1
        making = _Making(asyncio.get_running_loop().create_task(run()), stop)
        making.result.add_done_callback(lambda task: task.cancelled() or task.exception())  # somebody has looked at it
        return making

    def _keep(self, key: str, answer: _Answer) -> None:
        self._answers.pop(key, None)
        self._answers[key] = answer
        while len(self._answers) > _MOST_KEPT:
            self._answers.pop(next(iter(self._answers)), None)
