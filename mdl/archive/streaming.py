"""What goes on while an archive is read or written: hashing and syncing in other threads, progress, cancellation."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import Future

from mdl.cancel import CancelToken
from mdl.disk import publish, sync
from mdl.disk.pool import Pool
from mdl.events import FileProgress, Finished, Listener, Planned, Progressed, Started
from mdl.units import Speed

BETWEEN = 0.1
"""Seconds between two progress events, at least."""
_BATCH = 256
_SYNC_EVERY = 64 * 2**20
"""How many files are synced together, and after how many bytes a sync begins."""
_SMALL = 2**20


class BackgroundHash:
    """A SHA-256 that a thread of ``pool`` makes, one block behind, while the caller writes and reads on."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._hasher = hashlib.sha256()
        self._running = Future[None]()
        self._running.set_result(None)

    def update(self, block: bytes | memoryview) -> None:
        """Hash ``block``, whose bytes must not change before the next call."""
        self.wait()
        self._running = self._pool.submit(self._hasher.update, block)

    def wait(self) -> None:
        """Wait until the last block is hashed. Its bytes may change from then on."""
        self._running.result()

    def hexdigest(self) -> str:
        self.wait()
        return self._hasher.hexdigest()


class BackgroundSync:
    """Syncs files to the disk while more is being written: large ones on the way, small ones in batches.

    Leaving the context waits until all is synced, and raises the `OSError` of a sync that failed.
    """

    def __init__(self, threads: int) -> None:
        self._pool = Pool(threads, "mdl-sync")
        self._threads = threads
        may_be_open = os.sysconf("SC_OPEN_MAX")  # -1: any number
        self._most = min(_BATCH, may_be_open // 4) if may_be_open > 0 else _BATCH
        self._small: list[int] = []
        self._large: list[int] = []
        self._running: list[Future[None]] = []
        self._unsynced = 0

    def wrote(self, fd: int, count: int) -> None:
        """``count`` more bytes were written to ``fd``. Raises the `OSError` of an earlier sync."""
        self._unsynced += count
        if self._unsynced >= _SYNC_EVERY:
            self._large.append(os.dup(fd))
            self._start()

    def close(self, fd: int, size: int) -> None:
        """Sync a file of ``size`` bytes and close it, later. Raises the `OSError` of an earlier sync."""
        (self._small if size <= _SMALL else self._large).append(fd)
        if len(self._small) + len(self._large) >= self._most:
            self._start()

    def _start(self) -> None:
        """Begin to sync what was written, once the batch before is on the disk."""
        self._wait()
        publish.start_syncing(self._small)  # what is on the disk of a large file would leave the memory
        files = self._small + self._large
        self._small = []
        self._large = []
        self._unsynced = 0
        self._running = [self._pool.submit(_sync_and_close, files[n :: self._threads]) for n in range(self._threads)]

    def _wait(self) -> None:
        running = self._running
        self._running = []
        for task in running:
            task.result()

    def __enter__(self) -> BackgroundSync:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._start()
                self._wait()
        finally:
            self._pool.shutdown()
            _close(self._small + self._large)


def _sync_and_close(files: list[int]) -> None:
    try:
        for fd in files:
            sync(fd)
    finally:
        _close(files)


def _close(files: list[int]) -> None:
    for fd in files:
        os.close(fd)


class Progress:
    """Reports how far the work on one archive is, at most ten times a second, and ends it when it is cancelled.

    The archive is called ``name`` and has ``files`` members and ``total`` bytes, uncompressed.
    """

    def __init__(
        self, on_event: Listener, name: str, verb: str, files: int, total: int, cancel: CancelToken | None = None
    ) -> None:
        self._on_event = on_event
        self._name = name
        self._total = total
        self._cancel = cancel
        self._done = 0
        self._told_at = time.monotonic()
        self._files = files
        self._files_done = 0
        self._file = ""
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
        if now - self._told_at >= BETWEEN:
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
                files=(row,),
                files_done=self._files_done,
            )
        )

    def finish(self, size: int, action: str, verified: str = "") -> None:
        """All is done; ``verified`` names what the bytes were compared with."""
        self._done = self._total
        self._files_done = self._files
        self._tell(time.monotonic(), "")
        self._on_event(Finished(self._name, size=size, action=action, verified=verified))
