"""Meter: how far a long read or write has come, told ten times a second at most."""

from __future__ import annotations

import time
from collections.abc import Callable

from mdl.events import FileProgress, Finished, Listener, Planned, Progressed, Started
from mdl.speed import Speed

_BETWEEN = 0.1


class Meter:
    """Tells of one archive, ``name``, of ``files`` members and ``total`` bytes before packing."""

    def __init__(
        self, tell: Listener, name: str, verb: str, files: int, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell, self._name, self._files, self._total, self._clock = tell, name, files, total, clock
        self._done, self._told_at = 0, clock()
        self._speed = Speed(self._told_at)
        tell(Planned(name, files=files, bytes_total=total, bytes_to_fetch=total, verb=verb))
        tell(Started(name, index=1, count=1, total=total))

    def add(self, count: int, file: str) -> None:
        """``count`` more bytes, of ``file``."""
        self._done += count
        now = self._clock()
        if now - self._told_at >= _BETWEEN:
            self._told_at = now
            self._look(now, file)

    def _look(self, now: float, file: str) -> None:
        rate = self._speed.observe(now, self._done)
        left = (self._total - self._done) / rate if rate > 0 else None
        row = FileProgress(self._name, "", 1, self._done, self._total)
        self._tell(
            Progressed(
                self._name,
                file,
                bytes_done=self._done,
                bytes_total=self._total,
                bytes_per_second=rate,
                eta_seconds=left,
                files=(row,),
            )
        )

    def finish(self, size: int, action: str, verified: str = "") -> None:
        """The archive is whole, or all of it unpacked and held against ``verified``."""
        self._done = self._total
        self._look(self._clock(), "")
        self._tell(Finished(self._name, size=size, action=action, verified=verified))
