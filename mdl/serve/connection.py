"""Connections: uvicorn's own, with what serving large files needs: sendfile, and no patience with the slow.

Bytes go from the file to the socket inside the kernel. A client has to send the whole head of a request in time, and to
take bytes in time; else its connection ends, so that nobody can hold many of them for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, BinaryIO

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

KEY = "mdl.connection"
"""Under which ASGI's scope has the connection."""
HEAD_SECONDS = 20.0
"""How long a client may take until a request, or the next one, has begun."""
STALL_SECONDS = 60.0
"""How long a client may take for one window of bytes."""
_WINDOW = 2**21

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class _Length:
    """Stands for bytes that h11 counts, and which go another way."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count


class Connection(H11Protocol):
    """One connection of a client."""

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self.app = self._with_connection(self.app)
        self._deadline: asyncio.TimerHandle | None = None

    def _with_connection(self, app: Any) -> App:
        async def run(scope: Scope, receive: Any, send: Any) -> None:
            scope[KEY] = self
            await app(scope, receive, send)

        return run

    @property
    def is_closing(self) -> bool:
        """Whether the client has gone."""
        return self.transport.is_closing()

    def abort(self) -> None:
        """End the connection in the middle of an answer, so that the client does not take it for whole."""
        self.transport.abort()

    async def send_file(self, file: BinaryIO, start: int, count: int, on_bytes: Callable[[int], None]) -> None:
        """Send ``count`` bytes of a file from ``start`` on, as the body of an answer whose head was sent. ``on_bytes``
        is told how many went, step by step. If the file became shorter the connection ends.

        Raises ``OSError`` if the client has gone, ``TimeoutError`` if it takes next to nothing for a minute.
        """
        sent = 0
        while sent < count:
            if self.is_closing:
                raise ConnectionResetError("the client has gone")
            if not sent:
                self.conn.send_with_data_passthrough(h11.Data(data=_Length(count)))  # type: ignore[arg-type]
            window = min(count - sent, _WINDOW)
            async with asyncio.timeout(STALL_SECONDS):
                step = await self.loop.sendfile(self.transport, file, start + sent, window)
            on_bytes(step)
            sent += step
            if step < window:
                raise OSError("the file became shorter while it was sent")

    # How long a client may take.

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._head_came()

    def on_response_complete(self) -> None:
        before = self.cycle
        super().on_response_complete()
        if self.cycle is before:  # no other request had come already
            self._wait_for_head()

    def _wait_for_head(self) -> None:
        self._head_came()
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.abort)

    def _head_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
