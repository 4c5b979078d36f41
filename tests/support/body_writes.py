"""Calls of the operating system that fail: the writes of a body into a file, and the close of one; and a full disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest

Verdict = Callable[[int, int], int]
"""From the offset and the length of a write: how many bytes are really written. May raise `OSError`."""


def judge_writes(patch: pytest.MonkeyPatch, verdict: Verdict) -> None:
    """Ask before each write into a file at an offset. If the verdict is 0 nothing is
    written, and the call claims that all was."""
    pwrite = os.pwrite

    def written(fd: int, data: bytes | memoryview, offset: int) -> int:
        count = verdict(offset, len(data))
        return pwrite(fd, data[:count], offset) if count else len(data)

    patch.setattr(os, "pwrite", written)


def free_bytes(patch: pytest.MonkeyPatch, count: Callable[[], int]) -> None:
    """Let every file system have so many bytes free."""
    patch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_blocks=2**60, f_bavail=count(), f_frsize=1, f_files=0))


class CloseFails:
    """Stands in for ``os.close``: descriptors of files of these names are closed, and the call fails all the same."""

    def __init__(self, *names: str, code: int = errno.EIO) -> None:
        self.names, self.code, self.real, self.closed = names, code, os.close, list[int]()

    def __call__(self, fd: int) -> None:
        found = os.readlink(f"/proc/self/fd/{fd}") if fd >= 0 else ""
        self.real(fd)
        if found.endswith(tuple(f"/{name}" for name in self.names)):
            self.closed.append(fd)
            raise OSError(self.code, os.strerror(self.code))
