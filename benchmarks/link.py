"""A long link on the loopback: a forwarder in user space that adds a round trip and has a capacity.

    with Nginx(folder) as server, Link(server.port, 0.040, capacity=64 * 2**20) as link:
        get(link.url(server.url("file.bin")))

It is a process of its own, which is ended by its own pid. It models what TCP does on such a link: a new connection
costs a round trip before its first byte is passed on; a connection begins with ten packets in flight, twice as many
after each round trip, up to its window; all connections share the capacity. It models no loss.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import subprocess
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

_FIRST_WINDOW = 10 * 1460
"""RFC 6928."""
_IDLE_SECONDS = 0.25
"""After so long a silence a connection begins with the first window again, as Linux does."""
_BLOCK = 2**16


class Link:
    """A link to ``port`` of 127.0.0.1, ``rtt`` seconds away, with ``capacity`` in bytes a second for all connections
    together (None: no limit) and at most ``window`` bytes in flight on each."""

    def __init__(self, port: int, rtt: float, *, capacity: int | None = None, window: int = 2**20) -> None:
        words = [str(one) for one in (port, rtt, capacity or math.inf, window)]
        self._target, self._argv = port, [sys.executable, str(Path(__file__)), *words]
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._argv, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def url(self, url: str) -> str:
        """The same URL, over this link."""
        return url.replace(f":{self._target}/", f":{self.port}/")


class _Capacity:
    """What passes through the link, one block after the other."""

    def __init__(self, capacity: float) -> None:
        self._capacity, self._free_at = capacity, 0.0

    def send(self, count: int) -> float:
        """The moment at which a block that is sent now has left."""
        self._free_at = max(self._free_at, time.monotonic()) + count / self._capacity
        return self._free_at


class _Path:
    """One connection through the link. ``half`` is the time of one way in seconds."""

    def __init__(self, shared: _Capacity, half: float, window: int) -> None:
        self._shared, self._half, self._most = shared, half, window
        self._window, self._flying, self._used_at = _FIRST_WINDOW, 0, 0.0
        self._room = asyncio.Event()

    async def up(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Requests: delayed, and the first one by the handshake as well."""
        await asyncio.sleep(2 * self._half)
        while data := await source.read(_BLOCK):
            await asyncio.sleep(self._half)
            target.write(data)

    async def down(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Responses: as much in flight as the window allows."""
        arriving: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivering = asyncio.create_task(self._deliver(arriving, target))
        try:
            while data := await source.read(min(_BLOCK, await self._free())):
                self._flying += len(data)
                arriving.put_nowait((self._shared.send(len(data)) + self._half, data))
            arriving.put_nowait((time.monotonic() + self._half, b""))
            await delivering
        finally:
            delivering.cancel()

    async def _free(self) -> int:
        """Bytes that may be sent now; waits for the first."""
        if not self._flying and time.monotonic() - self._used_at > _IDLE_SECONDS:
            self._window = _FIRST_WINDOW
        while self._flying >= self._window:
            self._room.clear()
            await self._room.wait()
        return self._window - self._flying

    async def _deliver(self, arriving: asyncio.Queue[tuple[float, bytes]], target: asyncio.StreamWriter) -> None:
        while True:
            moment, data = await arriving.get()
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            if not data:
                return
            target.write(data)
            await target.drain()
            asyncio.get_running_loop().call_later(self._half, self._acknowledge, len(data))

    def _acknowledge(self, count: int) -> None:
        self._flying, self._used_at = self._flying - count, time.monotonic()
        self._window = min(self._most, self._window + count)
        self._room.set()


async def _first_to_end(*works: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(work) for work in works]
    _, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(target: int, rtt: float, capacity: float, window: int) -> None:
    shared = _Capacity(capacity)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = _Path(shared, rtt / 2, window)
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
            await _first_to_end(path.up(reader, far_writer), path.down(far_reader, writer))
            far_writer.close()
        writer.close()

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=int, help="port of the server on 127.0.0.1")
    parser.add_argument("rtt", type=float, help="seconds of a round trip")
    parser.add_argument("capacity", type=float, help="bytes a second, of all connections together; inf: no limit")
    parser.add_argument("window", type=int, help="bytes in flight at most, on one connection")
    args = parser.parse_args()
    asyncio.run(_serve(args.target, args.rtt, args.capacity, args.window))


if __name__ == "__main__":
    main()
