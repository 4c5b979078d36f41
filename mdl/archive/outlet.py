"""Outlet: the bytes of an archive on their way out, to a file or a pipe, never sought."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor

from mdl.errors import storage_error

_SYNC_EVERY = 64 * 2**20
_WHEN_FULL = "free some space, or pack to another disk with -o; nothing was left behind"


class Outlet:
    """Writes to ``fd``, called ``name``, and counts. With ``sync`` the disk is kept busy meanwhile, so that little is
    left for the last fsync; with ``digest`` the whole is hashed on the way, beside the writing."""

    def __init__(self, fd: int, name: str, *, sync: bool = False, digest: bool = False) -> None:
        self._fd, self._name, self.at = fd, name, 0
        self._hasher = hashlib.sha256() if digest else None
        self._pool = ThreadPoolExecutor(2, "mdl-out") if sync or digest else None
        self._sync, self._syncing = sync, Future[None]()
        self._syncing.set_result(None)
        self._asked = 0

    @property
    def sha256(self) -> str | None:
        """The digest of all that was written, where it was asked for."""
        return self._hasher.hexdigest() if self._hasher else None

    def write(self, data: bytes | memoryview) -> None:
        """Raises `StorageError`, a `BrokenPipeError` where the reader is gone."""
        view = memoryview(data)
        self.at += len(view)
        hashing = self._pool.submit(self._hasher.update, view) if self._pool and self._hasher else None
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise storage_error(error, self._name, _WHEN_FULL) from error
        finally:
            if hashing:
                hashing.result()
        if self._pool and self._sync and self.at - self._asked >= _SYNC_EVERY and self._syncing.done():
            self._syncing.result()
            self._asked, self._syncing = self.at, self._pool.submit(os.fdatasync, self._fd)

    def close(self) -> None:
        """Wait for the syncing. Raises `StorageError` where it failed."""
        if self._pool:
            self._pool.shutdown()
        try:
            self._syncing.result()
        except OSError as error:
            raise storage_error(error, self._name, _WHEN_FULL) from error
