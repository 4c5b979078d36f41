"""A name is taken only if it is free: atomically by a hard link, after a check on file systems without links."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mdl.fs import staging
from mdl.fs.entries import open_parent
from mdl.paths import RelPath


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, number: int, times: int = 2**31) -> None:
    """Have a system call fail, as often as that."""
    real, left = getattr(os, call), [times]

    def refused(*words: object, **more: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            return real(*words, **more)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refused)


@pytest.fixture(params=["links", "EPERM", "EOPNOTSUPP", "EMLINK"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system with hard links, and on several that refuse one."""
    if request.param != "links":
        refuse(monkeypatch, "link", getattr(errno, request.param))


@pytest.mark.usefixtures("links")
def test_a_free_name_is_given(tmp_path: Path) -> None:
    """If nothing is there the file gets its name, and nothing is left under the old one."""
    (tmp_path / "staged").write_bytes(b"new")
    with open_parent(tmp_path, RelPath.parse("a/final")) as entry:
        staging.publish(tmp_path / "staged", entry.as_new())
    assert (tmp_path / "a" / "final").read_bytes() == b"new"
    assert (tmp_path / "a" / "final").stat().st_nlink == 1
    assert not (tmp_path / "staged").exists()


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("what", ["file", "link", "folder"])
def test_a_taken_name_is_not(tmp_path: Path, what: str) -> None:
    """Whatever is there stays, also a dangling link, and the staged file is still there."""
    (tmp_path / "staged").write_bytes(b"new")
    final = tmp_path / "final"
    make: dict[str, Callable[[], None]] = {"file": final.touch, "folder": final.mkdir}
    make.get(what, lambda: final.symlink_to("nowhere"))()
    with open_parent(tmp_path, RelPath.parse("final")) as entry, pytest.raises(FileExistsError):
        staging.publish(tmp_path / "staged", entry.as_new())
    assert (tmp_path / "staged").read_bytes() == b"new"
    assert (final.is_symlink(), final.is_dir()) == (what == "link", what == "folder")


def test_a_repeated_request_is_no_conflict(tmp_path: Path) -> None:
    """NFS may repeat a link that succeeded and then report that the name is taken: it is, by this very file."""
    (tmp_path / "staged").write_bytes(b"new")
    os.link(tmp_path / "staged", tmp_path / "final")
    with open_parent(tmp_path, RelPath.parse("final")) as entry:
        staging.publish(tmp_path / "staged", entry.as_new())
    assert os.listdir(tmp_path) == ["final"]


def test_the_old_name_may_be_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has its final name is published, even if the old name cannot be removed."""
    (tmp_path / "staged").write_bytes(b"new")
    refuse(monkeypatch, "unlink", errno.ENOENT)
    with open_parent(tmp_path, RelPath.parse("final")) as entry:
        staging.publish(tmp_path / "staged", entry.as_new())
    assert (tmp_path / "final").read_bytes() == b"new"


def test_other_trouble_is_the_systems(tmp_path: Path) -> None:
    """A file that does not exist is reported by the system's own error."""
    with open_parent(tmp_path, RelPath.parse("final")) as entry, pytest.raises(FileNotFoundError):
        staging.publish(tmp_path / "nothing", entry.as_new())


@pytest.mark.parametrize("taken", [False, True])
def test_on_another_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool) -> None:
    """If no rename is possible a copy is published, whose own status is returned; it replaces nothing either."""
    refuse(monkeypatch, "link", errno.EXDEV, 1)
    refuse(monkeypatch, "replace", errno.EXDEV, 1)
    (tmp_path / "staged").write_bytes(b"new")
    (tmp_path / "a").mkdir()
    if taken:
        (tmp_path / "a" / "final").write_bytes(b"mine")
    with open_parent(tmp_path, RelPath.parse("a/final")) as entry:
        if taken:
            with pytest.raises(FileExistsError):
                staging.publish(tmp_path / "staged", entry.as_new())
        else:
            copied = staging.publish(tmp_path / "staged", entry.as_new())
            assert copied is not None
            assert copied.st_ino == (tmp_path / "a" / "final").stat().st_ino
    assert (tmp_path / "a" / "final").read_bytes() == (b"mine" if taken else b"new")
    assert os.listdir(tmp_path / "a") == ["final"]
