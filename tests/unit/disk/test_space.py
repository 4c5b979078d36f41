"""How much room a file system has, as far as it tells."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from mdl.disk import DiskSpace, disk_space, free_space


def says(patch: pytest.MonkeyPatch, **facts: int) -> None:
    """Let every file system say this of its room."""
    usual = {"f_blocks": 100, "f_bavail": 10, "f_frsize": 4096, "f_files": 50, "f_favail": 5}
    patch.setattr(os, "statvfs", lambda _path: SimpleNamespace(**usual | facts))


def test_what_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Bytes and files; a folder that is not there yet has the room of the one above it."""
    says(monkeypatch)
    assert disk_space(tmp_path / "not" / "there") == DiskSpace(40960, 5)


@pytest.mark.parametrize("facts", [{"f_blocks": 0, "f_bavail": 0}, {"f_blocks": 0, "f_bavail": 0, "f_frsize": 0}])
def test_no_blocks_at_all_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, facts: dict[str, int]) -> None:
    """As a FUSE mount without statfs says it; 0 of many blocks is a full disk."""
    says(monkeypatch, **facts)
    assert free_space(tmp_path) is None
    says(monkeypatch, f_bavail=0)
    assert free_space(tmp_path) == 0


def test_files_that_are_not_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file system that does not count inodes has 0 of 0."""
    says(monkeypatch, f_files=0, f_favail=0)
    assert disk_space(tmp_path).free_files is None


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EIO, errno.EACCES])
def test_a_disk_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int) -> None:
    """Whatever the error is, nothing is known."""

    def refuses(_path: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "statvfs", refuses)
    assert disk_space(tmp_path) == DiskSpace(None, None)
