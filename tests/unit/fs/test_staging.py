"""Staging: whole or not at all, on the disk before it is seen, and the old file until then."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mdl.fs import staging
from mdl.fs.entries import open_parent
from mdl.paths import RelPath
from mdl.process import ProcessId


class Spy:
    """The order of syncs and renames, and one call that fails where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail: str = "", number: int = 0, at: int = 1) -> None:
        self.calls: list[str] = []
        self._left = at
        for name in ("fsync", "replace"):
            real = getattr(os, name)

            def call(*args: object, name: str = name, real: Callable[..., object] = real, **more: object) -> object:
                self.calls.append(name if name != "fsync" else f"fsync {_what(args[0])}")
                if name == fail:
                    self._left -= 1
                    if self._left == 0:
                        raise OSError(number, os.strerror(number))
                return real(*args, **more)

            monkeypatch.setattr(os, name, call)


def _what(fd: object) -> str:
    assert isinstance(fd, int)
    return "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"


def test_file_is_on_disk_before_it_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written beside, synced, renamed, and the folder synced after: in this order."""
    spy = Spy(monkeypatch)
    staging.write_file(tmp_path / "new" / "x", b"data")
    assert spy.calls == ["fsync file", "replace", "fsync folder"]
    assert (tmp_path / "new" / "x").read_bytes() == b"data"
    assert os.listdir(tmp_path / "new") == ["x"]


def test_what_can_be_found_out_again_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``lasting`` it is still whole or not at all, but nobody waits for the disk."""
    spy = Spy(monkeypatch)
    staging.write_file(tmp_path / "x", b"data", durable=False)
    assert spy.calls == ["replace"]


@pytest.mark.parametrize(("call", "number"), [("fsync", errno.EIO), ("replace", errno.EROFS), ("replace", errno.EXDEV)])
def test_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """Where a write fails, what stood there stands there still, and nothing was left beside it."""
    (tmp_path / "x").write_bytes(b"old")
    Spy(monkeypatch, call, number)
    with pytest.raises(OSError) as caught:
        staging.write_file(tmp_path / "x", b"new")
    assert caught.value.errno == number
    assert (tmp_path / "x").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_interrupt_leaves_nothing_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a Ctrl-C in the middle leaves no unfinished file behind."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        staging.write_file(tmp_path / "x", b"new")
    assert os.listdir(tmp_path) == []


def test_mode_is_private_unless_said(tmp_path: Path) -> None:
    """What mdl writes for itself is nobody else's to read."""
    staging.write_file(tmp_path / "own", b"")
    staging.write_file(tmp_path / "all", b"", mode=0o644)
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "all").stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_publish_replaces_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A staged file takes the final name in one step, and the folder is synced after."""
    (tmp_path / "staged").write_bytes(b"new")
    (tmp_path / "final").write_bytes(b"old")
    spy = Spy(monkeypatch)
    with open_parent(tmp_path, RelPath.parse("final")) as final:
        staging.publish(tmp_path / "staged", final)
    assert spy.calls == ["replace", "fsync folder"]
    assert (tmp_path / "final").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["final"]


def test_publish_leaves_another_link_alone(tmp_path: Path) -> None:
    """A hard link of the old file elsewhere keeps the old bytes."""
    (tmp_path / "final").write_bytes(b"old")
    os.link(tmp_path / "final", tmp_path / "twin")
    (tmp_path / "staged").write_bytes(b"new")
    with open_parent(tmp_path, RelPath.parse("final")) as final:
        staging.publish(tmp_path / "staged", final)
    assert (tmp_path / "twin").read_bytes() == b"old"


def test_publish_across_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a rename cannot cross, a synced copy beside the final name is renamed, and the staged one goes."""
    (tmp_path / "staged").write_bytes(b"new")
    (tmp_path / "far").mkdir()
    spy = Spy(monkeypatch, "replace", errno.EXDEV)
    with open_parent(tmp_path / "far", RelPath.parse("final")) as final:
        staging.publish(tmp_path / "staged", final)
    assert spy.calls == ["replace", "fsync file", "replace", "fsync folder"]
    assert (tmp_path / "far" / "final").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["far"]


def test_publish_across_that_fails_keeps_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the copy cannot be synced, the old file stands, the staged one stays, nothing lies beside."""
    (tmp_path / "staged").write_bytes(b"new")
    (tmp_path / "final").write_bytes(b"old")
    Spy(monkeypatch, "replace", errno.EXDEV)
    Spy(monkeypatch, "fsync", errno.EIO)
    with pytest.raises(OSError), open_parent(tmp_path, RelPath.parse("final")) as final:
        staging.publish(tmp_path / "staged", final)
    assert (tmp_path / "final").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["final", "staged"]


def test_publish_that_fails_keeps_the_staged_file(tmp_path: Path) -> None:
    """Where the final name cannot be had, the bytes that were fetched are kept."""
    (tmp_path / "staged").write_bytes(b"new")
    (tmp_path / "final").mkdir()
    with pytest.raises(OSError), open_parent(tmp_path, RelPath.parse("final")) as final:
        staging.publish(tmp_path / "staged", final)
    assert (tmp_path / "staged").read_bytes() == b"new"


@pytest.mark.parametrize(("number", "told"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_folder_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: bool) -> None:
    """A file system without folder syncs is fine; a disk error is not."""
    Spy(monkeypatch, "fsync", number)
    if told:
        with pytest.raises(OSError):
            staging.sync_folder(tmp_path)
    else:
        staging.sync_folder(tmp_path)


def test_link_beside_is_not_followed(tmp_path: Path) -> None:
    """A link under the final name is replaced, not written through."""
    (tmp_path / "precious").write_bytes(b"p")
    (tmp_path / "x").symlink_to(tmp_path / "precious")
    staging.write_file(tmp_path / "x", b"new")
    assert (tmp_path / "precious").read_bytes() == b"p"
    assert not (tmp_path / "x").is_symlink()


def test_only_one_claims_a_folder(tmp_path: Path) -> None:
    """Of two that want one leftover, one has it and the other is told so."""
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "data").touch()
    assert staging.take_over(tmp_path / "left", tmp_path / "mine")
    assert not staging.take_over(tmp_path / "left", tmp_path / "yours")
    assert (tmp_path / "mine" / "data").exists()


@pytest.mark.fault(264)
def test_what_a_container_left_staged(tmp_path: Path) -> None:
    """What is staged by a process that cannot be seen from here stays, file or folder, until nothing was written for a
    day; then it is swept, for every container is another one."""
    owner = str(ProcessId.current()).rpartition("-")[0] + "-1"
    file, folder = (tmp_path / f".{name}.{owner}.mdl-tmp" for name in ("file", "folder"))
    file.touch()
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "part").touch()
    for path in (file, folder, folder / "below"):
        os.utime(path, (1e9, 1e9))
    staging.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [folder]
    os.utime(folder / "below" / "part", (1e9, 1e9))
    staging.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
