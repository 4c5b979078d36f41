"""What goes on while an archive is read or written: hashing and syncing in other threads, progress, cancellation."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from mdl.cancel import CancelToken
from mdl.events import FileProgress, Finished, Listener, Planned, Progressed, Started
from mdl.units import Speed

_BETWEEN = 0.1
"""Seconds between two progress events, at least."""
_SYNC_EVERY = 64 * 2**20
_MOST_WAITING = 32


class BackgroundHash:
    """A SHA-256 that a thread of ``pool`` makes, one block behind, while the caller writes and reads on."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool, self._hasher = pool, hashlib.sha256()
        self._running = Future[None]()
        self._running.set_result(None)

    def update(self, block: bytes | memoryview) -> None:
        """Hash ``block``, whose bytes must not change before the next call."""
        self._running.result()
        self._running = self._pool.submit(self._hasher.update, block)

    def hexdigest(self) -> str:
        self._running.result()
        return self._hasher.hexdigest()


class BackgroundSync:
    """Syncs files to the disk while more is being written: large ones on the way, small ones several at once.

    Leaving the context waits until all is synced, and raises the `OSError` of a sync that failed.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "mdl-sync")
        self._room = threading.BoundedSemaphore(_MOST_WAITING)
        self._unsynced = 0
        self._error: OSError | None = None

    def wrote(self, fd: int, count: int) -> None:
        """``count`` more bytes were written to ``fd``. Raises the `OSError` of an earlier sync."""
        self._unsynced += count
        if self._unsynced >= _SYNC_EVERY:
            self._unsynced = 0
            self.close(os.dup(fd))

    def close(self, fd: int) -> None:
        """Sync a file and close it. Raises the `OSError` of an earlier sync."""
        if self._error:
            os.close(fd)
            raise self._error
        self._room.acquire()
        self._pool.submit(self._sync_and_close, fd)

    def _sync_and_close(self, fd: int) -> None:
        try:
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            self._error = error
        finally:
            self._room.release()

    def __enter__(self) -> BackgroundSync:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.shutdown()
        if self._error and kind is None:
            raise self._error


class Progress:
    """Reports how far the work on one archive is, at most ten times a second, and ends it when it is cancelled.

    The archive is called ``name`` and has ``files`` members and ``total`` bytes, uncompressed.
    """

    def __init__(
        self, on_event: Listener, name: str, verb: str, files: int, total: int, cancel: CancelToken | None = None
    ) -> None:
        self._on_event, self._name, self._total, self._cancel = on_event, name, total, cancel
        self._done, self._told_at = 0, time.monotonic()
        self._files, self._files_done, self._file = files, 0, ""
        self._speed = Speed(self._told_at)
        on_event(Planned(name, files=files, bytes_total=total, bytes_to_fetch=total, verb=verb))
        on_event(Started(name, index=1, count=1, total=total))

    def add(self, count: int, file: str) -> None:
        """``count`` more bytes of ``file`` are done; the file before it is. Raises `Cancelled` if the work was
        cancelled."""
        if self._cancel:
            self._cancel.check()
        if file != self._file:
            self._files_done += bool(self._file)
            self._file = file
        self._done += count
        now = time.monotonic()
        if now - self._told_at >= _BETWEEN:
            self._tell(now, file)

    def _tell(self, now: float, file: str) -> None:
        self._told_at = now
        rate = self._speed.observe(now, self._done)
        row = FileProgress(self._name, "", 1, self._done, self._total)
        self._on_event(
            Progressed(
                self._name,
                file,
                bytes_done=self._done,
                bytes_total=self._total,
                bytes_per_second=rate,
                eta_seconds=(self._total - self._done) / rate if rate > 0 else None,
                files=(row,),
                files_done=self._files_done,
            )
        )

    def finish(self, size: int, action: str, verified: str = "") -> None:
        """All is done; ``verified`` names what the bytes were compared with."""
        self._done, self._files_done = self._total, self._files
        self._tell(time.monotonic(), "")
        self._on_event(Finished(self._name, size=size, action=action, verified=verified))
