"""A name taken only where nobody has it: by the kernel, and where that knows no such rename."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mdl import staging, vacant
from mdl.paths import RelPath
from mdl.spots import spot


@pytest.fixture(params=["kernel", "none", "EINVAL"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's own rename, without any, and on a file system that does not know it."""
    if request.param == "none":
        monkeypatch.setattr(vacant, "_call", lambda: None)
    if request.param == "EINVAL":
        monkeypatch.setattr(vacant, "_call", lambda: lambda *_: errno.EINVAL)


@pytest.mark.usefixtures("kernel")
def test_a_free_name_is_given(tmp_path: Path) -> None:
    """Where nothing stands the file gets its name, and nothing is left under the old one."""
    (tmp_path / "staged").write_bytes(b"new")
    with spot(tmp_path, RelPath.parse("a/final")) as found:
        staging.publish(tmp_path / "staged", found.fresh())
    assert (tmp_path / "a" / "final").read_bytes() == b"new"
    assert not (tmp_path / "staged").exists()


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("what", ["file", "link", "folder"])
def test_a_taken_name_is_not(tmp_path: Path, what: str) -> None:
    """Whatever stands there stays, also a dangling link, and the staged file is still there."""
    (tmp_path / "staged").write_bytes(b"new")
    final = tmp_path / "final"
    make: dict[str, Callable[[], None]] = {"file": final.touch, "folder": final.mkdir}
    make.get(what, lambda: final.symlink_to("nowhere"))()
    with spot(tmp_path, RelPath.parse("final")) as found, pytest.raises(FileExistsError):
        staging.publish(tmp_path / "staged", found.fresh())
    assert (tmp_path / "staged").read_bytes() == b"new"
    assert (final.is_symlink(), final.is_dir()) == (what == "link", what == "folder")


def test_other_trouble_is_the_systems(tmp_path: Path) -> None:
    """A file that is not there to be renamed is told by the system's own error."""
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(FileNotFoundError):
            vacant.take(tmp_path / "nothing", fd, "final")
    finally:
        os.close(fd)


def test_a_c_library_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A C library that lacks the call is no trouble: False, and nothing was done."""
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    vacant._call.cache_clear()
    try:
        assert not vacant.take(tmp_path / "staged", 0, "final")
    finally:
        vacant._call.cache_clear()


@pytest.mark.parametrize("taken", [False, True])
def test_on_another_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool) -> None:
    """Where no rename goes a copy does, whose own status is told; it replaces nothing either."""
    monkeypatch.setattr(vacant, "_call", lambda: lambda *_: errno.EXDEV)
    (tmp_path / "staged").write_bytes(b"new")
    (tmp_path / "a").mkdir()
    if taken:
        (tmp_path / "a" / "final").write_bytes(b"mine")
    with spot(tmp_path, RelPath.parse("a/final")) as found:
        if taken:
            with pytest.raises(FileExistsError):
                staging.publish(tmp_path / "staged", found.fresh())
        else:
            copied = staging.publish(tmp_path / "staged", found.fresh())
            assert copied is not None
            assert copied.st_ino == (tmp_path / "a" / "final").stat().st_ino
    assert (tmp_path / "a" / "final").read_bytes() == (b"mine" if taken else b"new")
    assert os.listdir(tmp_path / "a") == ["final"]
