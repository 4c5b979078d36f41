"""Reading: what is reported while files that are on this disk already are hashed."""

from __future__ import annotations

import time
from collections.abc import Callable

from mdl.events import Listener, Progressed, Verifying
from mdl.files import RemoteFile

_TELL_SECONDS = 0.1


def watch_reading(model: str, remote: RemoteFile, on_event: Listener) -> Callable[[int], None]:
    """Tells of the reading of a large file that was there already, ten times at most."""
    size = remote.size or 0
    step = max(size // 10, 2**28)
    reported = 0

    def watch(done: int) -> None:
        nonlocal reported
        if done - reported >= step:
            reported = done
            on_event(Verifying(model, remote.path.text, done=done, total=size))

    return watch


class ReadingProgress:
    """Tells ten times a second how far the reading of all files is: ``done`` of ``total`` bytes, files that are
    ``kept`` among them."""

    def __init__(self, on_event: Listener, kept: int, total: int) -> None:
        self._on_event = on_event
        self._kept = kept
        self.done = kept
        self._total = total
        self._began = self._reported = time.monotonic()

    def look(self, of_file: int) -> None:
        """``of_file`` bytes of the file that is being read are read."""
        now = time.monotonic()
        done = self.done + of_file
        if now - self._reported >= _TELL_SECONDS:
            self._reported = now
            speed = (done - self._kept) / (now - self._began)
            self._on_event(Progressed(bytes_done=done, bytes_total=self._total, bytes_per_second=speed))
