"""Special files: what mdl publishes replaces regular files only; a pipe is never waited for, and no file is endless."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import honest
from faulty import FaultyServer
from jobbing import DATA, Inside, catalog_of, machine, mdl
from shell import Shell

from mdl import staging

__all__ = ["mdl"]
Captured = pytest.CaptureFixture[str]
Made = Callable[[Path], object]


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _device(path: Path) -> None:
    """A null device of the test's own."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError as error:
        pytest.skip(f"NO DEVICE CAN BE MADE HERE: {error}")


def _link_to_device(path: Path) -> None:
    _device(path.with_name("device"))
    path.symlink_to("device")


KINDS: dict[str, Made] = {
    "device": _device,
    "link to a device": _link_to_device,
    "pipe": os.mkfifo,
    "socket": _socket,
    "folder": Path.mkdir,
}


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(honest(DATA)) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return machine(tmp_path / "home", catalog_of(one=server.url))


@pytest.mark.fault(320)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", ["prefetch --metrics out", "prefetch --ready-file out", "get one --ready-file out"])
def test_no_special_file_is_replaced(
    shell: Shell, server: FaultyServer, mdl: Inside, capfd: Captured, words: str, kind: str
) -> None:
    """A device, pipe, socket, folder or link to a device in place of an output: 2 before anything is asked, and it
    stays what it is."""
    out = shell.home / "out"
    KINDS[kind](out)
    before = out.lstat()
    assert mdl(shell, *words.split()) == 2
    assert (server.requests, out.lstat().st_mode, out.lstat().st_ino) == ([], before.st_mode, before.st_ino)
    assert str(out.name) in capfd.readouterr().err
    assert sorted(entry.name for entry in shell.home.iterdir() if "mdl-tmp" in entry.name) == []


@pytest.mark.fault(320)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("door", ["write_file", "StagedFile", "link", "withdraw"])
def test_the_door_itself_refuses(tmp_path: Path, door: str, kind: str) -> None:
    """Whatever would be put in place of a special file, or remove it, the one publishing door refuses; nothing is left
    staged."""
    out, file = tmp_path / "out", tmp_path / "file"
    file.write_bytes(b"bytes")
    KINDS[kind](out)
    before, names = out.lstat(), sorted(os.listdir(tmp_path))
    with pytest.raises(FileExistsError):
        if door == "write_file":
            staging.write_file(out, b"bytes")
        elif door == "link":
            staging.link(file, out)
        elif door == "withdraw":
            staging.withdraw(out)
        else:
            with staging.StagedFile(out) as staged:
                staged.publish()
    assert (out.lstat().st_mode, out.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert sorted(os.listdir(tmp_path)) == names


@pytest.mark.fault(320)
@pytest.mark.parametrize("target", ["file", "nothing"])
def test_a_link_is_not_followed_and_stays(shell: Shell, server: FaultyServer, mdl: Inside, target: str) -> None:
    """A link in place of an output is refused too, whatever it leads to: /dev/stdout is one, and /dev is shared."""
    (shell.home / "file").write_bytes(b"of somebody")
    (shell.home / "out").symlink_to(target)
    for words in (("--metrics", "out"), ("--ready-file", "out")):
        assert mdl(shell, "prefetch", *words) == 2
    assert (server.requests, os.readlink(shell.home / "out")) == ([], target)
    assert (shell.home / "file").read_bytes() == b"of somebody"
    assert not (shell.home / "nothing").exists()
