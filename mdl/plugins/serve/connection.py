"""Connections: uvicorn's own, with what serving large files needs: sendfile, and no patience with the slow.

Bytes go from the file to the socket inside the kernel. A client has to send the whole head of a request in time, and to
take the bytes of an answer in time. Otherwise its connection ends, so that nobody can hold many without using them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections import defaultdict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mdl.files import Stamp

KEY = "mdl.connection"
"""Under which ASGI's scope has the connection."""
HEAD_SECONDS = 20.0
"""How long a client may take until a request, or the next one, has begun."""
STALL_SECONDS = 60.0
"""In which time a client has to take ``_LEAST`` bytes of its answer."""
_LEAST = 2**16
_STEP = 2**21
_LAST_STEP = 2**16
"""The most bytes of a file that are sent before other clients have their turn; and how many at the end are sent only
after one more look at the file."""

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class _Length:
    """Stands for bytes that h11 counts, and which go another way."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count


class Clients:
    """The connections of one server, at most ``most`` of them, and of one address at most half of these. If there are
    more, the one goes that has asked for nothing for longest. For use in the server's thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = max(1, most // 2)
        self._of: defaultdict[str, set[Connection]] = defaultdict(set)
        self._idle: defaultdict[str, dict[Connection, None]] = defaultdict(dict)
        self._count = 0

    def add(self, connection: Connection) -> bool:
        """Count a connection; False if there are too many, all of which are being answered."""
        address = connection.address
        crowd = address if len(self._of[address]) >= self._share else None
        if crowd is None and self._count >= self._most:
            crowd = max(self._idle, key=lambda one: len(self._idle[one]), default=address)
        idle = next(iter(self._idle[crowd]), None) if crowd is not None else None
        if idle is not None:
            self.remove(idle)
            idle.abort()
        self._of[address].add(connection)
        self._count += 1
        self.set_idle(connection)
        return crowd is None or idle is not None

    def set_idle(self, connection: Connection) -> None:
        """It has to ask for something."""
        if connection in self._of[connection.address]:
            self._idle[connection.address][connection] = None

    def set_busy(self, connection: Connection) -> None:
        """It is being answered."""
        self._idle[connection.address].pop(connection, None)

    def remove(self, connection: Connection) -> None:
        """It is gone."""
        address = connection.address
        if connection in self._of[address]:
            self._of[address].discard(connection)
            self._count -= 1
        self.set_busy(connection)
        if not self._of[address]:
            del self._of[address]
        if not self._idle[address]:
            del self._idle[address]


class Connection(H11Protocol):
    """One connection of a client. ``is_beyond`` if there are too many: then only who has the token is answered."""

    def __init__(self, *args: Any, clients: Clients, **words: Any) -> None:
        super().__init__(*args, **words)
        self._clients = clients
        self.address = ""
        self.is_beyond = False
        self.gone: asyncio.Future[None] = self.loop.create_future()
        """Done once the client has gone."""
        self.stall_seconds: float | None = None
        """In which time it has to take ``_LEAST`` bytes of its answer, if not in the usual one."""
        self.app = self._with_connection(self.app)
        self._deadline: asyncio.TimerHandle | None = None
        self._sending: asyncio.Future[None] | None = None
        self._unsent = self._untaken = 0
        self._is_answering = False

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

    async def send_file(self, file: int, stamp: Stamp, start: int, stop: int, on_bytes: Callable[[int], None]) -> None:
        """Send the bytes ``[start, stop)`` of an open file, as the body of an answer whose head was sent. ``on_bytes``
        is told how many went, step by step.

        Raises ``OSError`` if the client has gone, or if the file has not, or no longer, this ``stamp``.
        """
        self.conn.send_with_data_passthrough(h11.Data(data=_Length(stop - start)))  # type: ignore[arg-type]
        await self.flow.drain()
        if self.is_closing:
            raise ConnectionResetError("the client has gone")
        self._unsent = stop - start
        # asyncio watches the socket itself for what the client says: so it is a second descriptor that is written to.
        socket = os.dup(self.transport.get_extra_info("socket").fileno())
        sending = self._sending = self.loop.create_future()

        def step() -> None:
            if sending.done():
                return
            try:
                if Stamp.of(os.fstat(file)) != stamp:
                    raise OSError("the file was changed while it was sent")
                left = self._unsent - _LAST_STEP if self._unsent > _LAST_STEP else self._unsent
                sent = os.sendfile(socket, file, stop - self._unsent, min(left, _STEP))
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                sending.set_exception(error)
                return
            on_bytes(sent)
            self._unsent -= sent
            if not self._unsent:
                sending.set_result(None)

        try:
            self._watch(STALL_SECONDS)
            self.loop.add_writer(socket, step)
            await sending
        finally:
            self.loop.remove_writer(socket)
            os.close(socket)
            self._sending = None
            self._unsent = 0
            self._unwatch()

    # How long a client may take.

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self.is_beyond = not self._clients.add(self)
        transport.set_write_buffer_limits(0)  # so that writing is paused until the last byte has gone to the kernel
        self._watch(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        self._clients.remove(self)
        if not self.gone.done():
            self.gone.set_result(None)
        if self._sending is not None and not self._sending.done():
            self._sending.set_exception(ConnectionResetError("the client has gone"))
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._head_came()

    def on_response_complete(self) -> None:
        before = self.cycle
        self._is_answering = False
        self.stall_seconds = None
        super().on_response_complete()
        if self.cycle is before:  # no other request had come already
            self._clients.set_idle(self)
            self._watch(STALL_SECONDS if self.flow.write_paused else HEAD_SECONDS)
        else:
            self._head_came()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch(self._patience)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_answering:
            self._unwatch()
        else:
            self._watch(HEAD_SECONDS)

    def _head_came(self) -> None:
        self._is_answering = True
        self._clients.set_busy(self)
        if not self.flow.write_paused:
            self._unwatch()

    def _watch(self, seconds: float) -> None:
        """Look after so many seconds if the client has done anything."""
        self._unwatch()
        self._untaken = self._still_untaken()
        self._deadline = self.loop.call_later(seconds, self._look)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _look(self) -> None:
        if self._still_untaken() > self._untaken - _LEAST:
            self.abort()
        else:
            self._watch(self._patience)

    @property
    def _patience(self) -> float:
        return STALL_SECONDS if self.stall_seconds is None else self.stall_seconds

    def _still_untaken(self) -> int:
        """How many bytes of its answer the client has still to take: in the file, in this process, in the kernel."""
        in_kernel = bytearray(4)
        with contextlib.suppress(OSError, ValueError):
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, in_kernel)
        return self._unsent + self.transport.get_write_buffer_size() + int(struct.unpack("i", in_kernel)[0])
