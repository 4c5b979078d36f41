"""A link to a server on the loopback that is a round trip away: a forwarder in a process of its own.

    with Link(server.port, 0.020) as far:
        get(f"http://127.0.0.1:{far.port}/file.bin")

Every piece that comes is held for half the round trip before it is handed on, in both directions. The first of a
connection is held for a whole one longer, which the three-way handshake would take. Nothing is lost or reordered.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Self

_PIECE = 2**18


class Link:
    """Forwards to ``port``, ``rtt`` seconds away."""

    def __init__(self, port: int, rtt: float) -> None:
        self._command = [sys.executable, str(Path(__file__)), str(port), str(rtt)]
        self.port = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: float, delay: float) -> None:
    """Hand on what comes, each piece ``delay`` seconds after it came; nothing before ``first`` seconds have passed."""
    loop = asyncio.get_running_loop()
    until = loop.time() + first
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)

    async def hand_on() -> None:
        while True:
            due, piece = await queue.get()
            if (left := max(due, until) - loop.time()) > 0:
                await asyncio.sleep(left)
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    handing = asyncio.ensure_future(hand_on())
    try:
        while piece := await reader.read(_PIECE):
            await queue.put((loop.time() + delay, piece))
    finally:
        await queue.put((loop.time() + delay, b""))
        await handing


async def _serve(port: int, rtt: float) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection("127.0.0.1", port)
        ways = (_forward(reader, to, 1.5 * rtt, rtt / 2), _forward(there, writer, 0.0, rtt / 2))
        await asyncio.gather(*ways, return_exceptions=True)
        writer.close()
        to.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
