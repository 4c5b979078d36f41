"""Staging: whole or not at all, on the disk before it is seen, and the old file until then."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.data import files_below

from mdl.disk import publish
from mdl.disk.process import ProcessId
from mdl.disk.safe_open import open_parent
from mdl.paths import RelPath


class Calls:
    """Has system calls fail, and keeps the order of syncs and renames."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.order: list[str] = []
        self._failing: dict[str, list[int]] = {}
        for name in ("fsync", "replace", "link", "unlink"):
            monkeypatch.setattr(os, name, partial(self._call, name, getattr(os, name)))

    def fail(self, name: str, number: int, times: int = 1000) -> None:
        self._failing[name] = [number] * times

    def _call(self, name: str, real: Callable[..., object], *args: object, **more: object) -> object:
        if name == "fsync":
            assert isinstance(args[0], int)
            self.order.append("sync folder" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else "sync file")
        elif name == "replace":
            self.order.append(name)
        if left := self._failing.get(name):
            number = left.pop()
            raise OSError(number, os.strerror(number))
        return real(*args, **more)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def publish_file(folder: Path, path: str = "final", *, is_new: bool = False) -> os.stat_result | None:
    with open_parent(folder, RelPath.parse(path)) as entry:
        return publish.publish(folder / "staged", entry.as_new() if is_new else entry)


def filled(folder: Path, **files: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


# --- write_file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("durable", "order"), [(True, ["sync file", "replace", "sync folder"]), (False, ["replace"])])
def test_file_is_on_disk_before_it_is_seen(tmp_path: Path, calls: Calls, durable: bool, order: list[str]) -> None:
    """A file is written beside, synced, renamed, and the folder synced after; if it need not be durable it is still
    whole or not there, but mdl does not wait for the disk."""
    publish.write_file(tmp_path / "new" / "x", b"data", durable=durable)
    assert (calls.order, files_below(tmp_path)) == (order, {"new/x": b"data"})


@pytest.mark.parametrize(("call", "number"), [("fsync", errno.EIO), ("replace", errno.EROFS), ("replace", errno.EXDEV)])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, calls: Calls, call: str, number: int) -> None:
    """If a write fails, the old file is still there, and nothing is left beside it."""
    filled(tmp_path, x=b"old")
    calls.fail(call, number)
    with pytest.raises(OSError) as caught:
        publish.write_file(tmp_path / "x", b"new")
    assert (caught.value.errno, files_below(tmp_path)) == (number, {"x": b"old"})


def test_interrupt_leaves_nothing_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a Ctrl-C in the middle leaves no unfinished file behind."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish.write_file(tmp_path / "x", b"new")
    assert os.listdir(tmp_path) == []


def test_mode_is_private_unless_said(tmp_path: Path) -> None:
    """What mdl writes for itself only its user can read."""
    os.umask(mask := os.umask(0))
    publish.write_file(tmp_path / "own", b"")
    publish.write_file(tmp_path / "all", b"", mode=0o644)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("own", "all")]
    assert modes == [0o600, 0o644 & ~mask]


def test_link_beside_is_not_followed(tmp_path: Path) -> None:
    """A link under the final name is replaced, not written through."""
    (filled(tmp_path, precious=b"p") / "x").symlink_to(tmp_path / "precious")
    publish.write_file(tmp_path / "x", b"new")
    assert files_below(tmp_path) == {"precious": b"p", "x": b"new"}
    assert not (tmp_path / "x").is_symlink()


# --- publish -----------------------------------------------------------------------------------------------


def test_publish_replaces_at_once(tmp_path: Path, calls: Calls) -> None:
    """A staged file takes the final name in one step, and the folder is synced after; a hard link of the old file
    elsewhere keeps the old bytes."""
    filled(tmp_path, staged=b"new", final=b"old")
    os.link(tmp_path / "final", tmp_path / "twin")
    publish_file(tmp_path)
    assert calls.order == ["replace", "sync folder"]
    assert files_below(tmp_path) == {"final": b"new", "twin": b"old"}


@pytest.mark.parametrize("number", [0, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
@pytest.mark.parametrize("taken_by", ["", "file", "link", "folder"])
def test_a_name_that_must_be_free(tmp_path: Path, calls: Calls, taken_by: str, number: int) -> None:
    """With hard links and on file systems that refuse them: a free name is given and nothing is left under the old
    one; whatever has the name stays, also a dangling link, and so does the staged file."""
    final = filled(tmp_path, staged=b"new") / "final"
    make: dict[str, Callable[[], None]] = {"": lambda: None, "file": final.touch, "folder": final.mkdir}
    make.get(taken_by, lambda: final.symlink_to("nowhere"))()
    calls.fail("link", number, 1000 if number else 0)
    if not taken_by:
        publish_file(tmp_path, is_new=True)
        assert (files_below(tmp_path), final.stat().st_nlink) == ({"final": b"new"}, 1)
        return
    with pytest.raises(FileExistsError):
        publish_file(tmp_path, is_new=True)
    assert (tmp_path / "staged").read_bytes() == b"new"
    assert (final.is_symlink(), final.is_dir()) == (taken_by == "link", taken_by == "folder")


def test_a_repeated_request_is_no_conflict(tmp_path: Path) -> None:
    """NFS may repeat a link that succeeded and then report that the name is taken: it is, by this very file."""
    os.link(filled(tmp_path, staged=b"new") / "staged", tmp_path / "final")
    publish_file(tmp_path, is_new=True)
    assert files_below(tmp_path) == {"final": b"new"}


def test_the_old_name_may_be_gone(tmp_path: Path, calls: Calls) -> None:
    """A file that has its final name is published, even if the old name cannot be removed."""
    filled(tmp_path, staged=b"new")
    calls.fail("unlink", errno.ENOENT)
    publish_file(tmp_path, is_new=True)
    assert (tmp_path / "final").read_bytes() == b"new"


@pytest.mark.parametrize("is_new", [False, True])
def test_publish_across_file_systems(tmp_path: Path, calls: Calls, is_new: bool) -> None:
    """If no rename is possible, a synced copy beside the final name is renamed, and the staged file goes. The status of
    the copy is returned."""
    filled(tmp_path, staged=b"new")
    for call in ("link", "replace"):
        calls.fail(call, errno.EXDEV, 1)
    copied = publish_file(tmp_path, "far/final", is_new=is_new)
    assert calls.order == ["replace", "sync file", *([] if is_new else ["replace"]), "sync folder"]
    assert files_below(tmp_path) == {"far/final": b"new"}
    assert copied is not None
    assert copied.st_ino == (tmp_path / "far" / "final").stat().st_ino


@pytest.mark.parametrize("is_new", [False, True])
def test_publish_that_fails_keeps_both(tmp_path: Path, calls: Calls, is_new: bool) -> None:
    """If the copy cannot be synced, or the name is taken, the old file and the staged one stay, and nothing else."""
    filled(tmp_path, staged=b"new", final=b"old")
    for call in ("link", "replace"):
        calls.fail(call, errno.EXDEV, 1)
    calls.fail("fsync", errno.EIO, 0 if is_new else 1)
    with pytest.raises(FileExistsError if is_new else OSError):
        publish_file(tmp_path, is_new=is_new)
    assert files_below(tmp_path) == {"final": b"old", "staged": b"new"}


@pytest.mark.parametrize(("staged", "error"), [({"staged": b"new"}, OSError), ({}, FileNotFoundError)])
def test_what_cannot_be_published(tmp_path: Path, staged: dict[str, bytes], error: type[OSError]) -> None:
    """If a folder has the final name, the fetched bytes are kept; a missing file is the system's own error."""
    filled(tmp_path, **staged)
    if staged:
        (tmp_path / "final").mkdir()
    with pytest.raises(error):
        publish_file(tmp_path, is_new=not staged)
    assert files_below(tmp_path) == staged


# --- folders and leftovers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "is_told"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_folder_that_cannot_be_synced(tmp_path: Path, calls: Calls, number: int, is_told: bool) -> None:
    """A file system without folder syncs is fine; a disk error is not."""
    calls.fail("fsync", number)
    try:
        publish.sync_folder(tmp_path)
    except OSError:
        assert is_told
    else:
        assert not is_told


def test_only_one_claims_a_folder(tmp_path: Path) -> None:
    """Of two processes that want one leftover, one has it and the other is told so."""
    filled(tmp_path / "left", data=b"")
    assert publish.take_over(tmp_path / "left", tmp_path / "mine")
    assert not publish.take_over(tmp_path / "left", tmp_path / "yours")
    assert files_below(tmp_path) == {"mine/data": b""}


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
    publish.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [folder]
    os.utime(folder / "below" / "part", (1e9, 1e9))
    publish.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
