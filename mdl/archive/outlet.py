"""Outlet: the bytes of an archive on their way out, counted and hashed; to a file or a pipe, never sought."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor

_SYNC_EVERY = 64 * 2**20


class Outlet:
    """Writes to ``fd``. With ``sync`` the disk is kept busy meanwhile, so that little is left for the last fsync."""

    def __init__(self, fd: int, *, sync: bool = False) -> None:
        self._fd, self._hasher, self.at = fd, hashlib.sha256(), 0
        self._pool = ThreadPoolExecutor(1, "mdl-sync") if sync else None
        self._syncing: Future[None] | None = None
        self._asked = 0

    @property
    def sha256(self) -> str:
        """The digest of all that was written."""
        return self._hasher.hexdigest()

    def write(self, data: bytes | memoryview) -> None:
        """Raises `OSError`, a `BrokenPipeError` where the reader is gone."""
        view = memoryview(data)
        self._hasher.update(view)
        self.at += len(view)
        while view:
            view = view[os.write(self._fd, view) :]
        if self._pool and self.at - self._asked >= _SYNC_EVERY and (self._syncing is None or self._syncing.done()):
            if self._syncing:
                self._syncing.result()
            self._asked, self._syncing = self.at, self._pool.submit(os.fdatasync, self._fd)

    def close(self) -> None:
        """Wait for the syncing. Raises `OSError` where it failed."""
        if self._pool:
            self._pool.shutdown()
        if self._syncing:
            self._syncing.result()
