"""What arrives on this machine, looked at from outside.

It is neither what a server handed to its own kernel, which runs megabytes ahead of the network, nor what a program says
of itself.
"""

from __future__ import annotations

import time
from pathlib import Path

import harness as bench


class Arrivals:
    """How much arrived in the files under ``place``, and from the server's port, since this began."""

    def __init__(self, place: Path, port: int) -> None:
        self._place, self._port = place, port
        self._blocks: dict[int, int] = {}
        self.began = time.monotonic()
        self.seen: list[tuple[float, int]] = []

    def look(self) -> None:
        """Files are told apart by inode: one that is renamed to its final name meanwhile is counted once."""
        for name, facts in bench.growing(self._place):
            if name == "data" or name.startswith("served"):
                size = facts.st_blocks * 512
                self._blocks[facts.st_ino] = max(size, self._blocks.get(facts.st_ino, 0))
        self.seen.append((time.monotonic(), sum(self._blocks.values()) + unread(self._port)))

    def speed_after(self, seconds: float, size: int) -> float:
        """Bytes a second from so many seconds after the beginning to the last of ``size`` bytes."""
        last = next((one for one in self.seen if one[1] >= size), self.seen[-1])
        then = next(one for one in self.seen if one[0] >= self.began + seconds or one is last)
        return (last[1] - then[1]) / (last[0] - then[0]) if last[0] > then[0] else 0.0

    def rates(self, span: float, size: int) -> list[float]:
        """Bytes a second of every span of so many seconds between the first byte and the last."""
        first = next((at for at, (_, count) in enumerate(self.seen) if count), len(self.seen))
        last = next((at for at, (_, count) in enumerate(self.seen) if count >= size), len(self.seen) - 1)
        seen, end = self.seen[max(first - 1, 0) : last + 1], 0
        found: list[float] = []
        for began, before in seen:
            while end < len(seen) and seen[end][0] - began < span:
                end += 1
            if end == len(seen):
                break
            found.append((seen[end][1] - before) / (seen[end][0] - began))
        return found


def unread(port: int) -> int:
    """What this machine received from ``port`` and no program has read yet; 0 if the system does not tell."""
    try:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return 0
    rows = [line.split() for line in lines]
    return sum(int(row[4].partition(":")[2], 16) for row in rows if row[2].endswith(f":{port:04X}"))
