"""Candidates that are not what they seem, file systems that refuse, and what is left behind."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.data import MIB, sha256
from support.faults import honest
from support.faulty_server import FaultyServer
from support.hubs import actions, clones
from support.loopback_hub import Generated
from support.shell import Inside, Shell, done, settings

from mdl.engine.store import Store
from mdl.files import RemoteFile
from mdl.fs import staging
from mdl.fs.entries import EntryAt
from mdl.hashing import Fingerprint

DATA = Generated(3 * MIB, "odd")[0 : 3 * MIB]
WRONG = DATA[:-1] + bytes([DATA[-1] ^ 1])
JSON = ("--json", "--retries", "1")
FETCHED, LINKED = {"one/f.bin": "fetched"}, {"one/f.bin": "linked"}


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(honest(DATA)) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    """A machine whose catalog has the models one and two, the same bytes, and names the folder ``also``."""
    home = tmp_path / "home"
    (home / "also").mkdir(parents=True)
    (home / "catalog.toml").write_text(catalog_of(DATA, one=f"{server.url}/one", two=f"{server.url}/two"))
    shell = Shell(home)
    settings(shell, f'[stores]\nlink = "hard"\nalso = ["{home / "also"}"]\n')
    return shell


@pytest.fixture
def elsewhere(shell: Shell) -> Iterator[Path]:
    """A folder on another file system, named in the settings before the one on this."""
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == os.stat(shell.home).st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        settings(shell, f'[stores]\nlink = "hard"\nalso = ["{folder}", "{shell.home / "also"}"]\n')
        yield Path(folder)


def place(shell: Shell, name: str = "one") -> Path:
    return shell.models / name / "f.bin"


def blob(shell: Shell) -> Path:
    """Where the hub's cache would have these bytes."""
    found = shell.home / ".cache" / "huggingface" / "hub" / "models--org--tiny" / "blobs" / sha256(DATA)
    found.parent.mkdir(parents=True, exist_ok=True)
    return found


def side(shell: Shell) -> list[str]:
    """What mdl left where it makes its copies."""
    folder = shell.models / ".mdl" / "side"
    return os.listdir(folder) if folder.exists() else []


def _to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def _to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


@pytest.mark.parametrize("where", ["also", "cache"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, _to_zero, _to_itself, _to_a_pipe])
def test_what_is_no_file(
    shell: Shell, server: FaultyServer, mdl: Inside, make: Callable[[Path], None], where: str
) -> None:
    """A FIFO, a folder, a link to a device, to a FIFO or to itself is passed over, and never waited for."""
    make(shell.home / "also" / "f.bin" if where == "also" else blob(shell))
    assert actions(done(mdl(shell, "get", "one", *JSON))) == FETCHED
    assert (place(shell).read_bytes(), side(shell)) == (DATA, [])


def test_a_link_in_a_folder_of_the_user(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """Links below ``[stores] also`` are not followed, neither to files nor to folders; nor is a dry run misled."""
    far = shell.home / "far"
    far.mkdir()
    (far / "f.bin").write_bytes(DATA)
    (shell.home / "also" / "f.bin").symlink_to(far / "f.bin")
    (shell.home / "also" / "far").symlink_to(far)
    assert done(mdl(shell, "get", "-n", "one", *JSON)).document["bytes_elsewhere"] == 0
    assert actions(done(mdl(shell, "get", "one", *JSON))) == FETCHED
    assert (far / "f.bin").stat().st_nlink == 1


def test_what_may_not_be_read(shell: Shell) -> None:
    """A candidate without the permission to read it is told of in the system's words, and the file is fetched."""
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root can read everything, and setpriv is not here")
    file = shell.home / "also" / "f.bin"
    file.write_bytes(DATA)
    file.chmod(0)
    prefix = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    ran = done(shell.run("get", "one", *JSON, prefix=prefix))
    assert actions(ran) == FETCHED
    assert f"{file} cannot be used: Permission denied" in ran.err


def test_across_file_systems(shell: Shell, server: FaultyServer, mdl: Inside, elsewhere: Path) -> None:
    """From another file system the bytes are copied, hashed as they are here, and count as linked."""
    (elsewhere / "f.bin").write_bytes(DATA)
    assert actions(done(mdl(shell, "get", "one", *JSON))) == LINKED
    assert (server.bytes_sent, place(shell).read_bytes(), side(shell)) == (0, DATA, [])
    assert place(shell).stat().st_dev != (elsewhere / "f.bin").stat().st_dev
    (elsewhere / "f.bin").write_bytes(WRONG)
    shutil.rmtree(shell.models)
    assert actions(done(mdl(shell, "get", "one", *JSON))) == FETCHED
    assert side(shell) == []


@pytest.mark.parametrize("trouble", [errno.EPERM, errno.EXDEV])
def test_links_are_refused(
    shell: Shell, server: FaultyServer, mdl: Inside, monkeypatch: pytest.MonkeyPatch, trouble: int
) -> None:
    """Where hard links cannot be had the bytes are copied: another file with the same bytes."""
    file = shell.home / "also" / "f.bin"
    file.write_bytes(DATA)

    def refused(*_: object, **__: object) -> None:
        raise OSError(trouble, os.strerror(trouble))

    monkeypatch.setattr(os, "link", refused)
    assert actions(done(mdl(shell, "get", "one", *JSON))) == LINKED
    assert (server.bytes_sent, place(shell).read_bytes()) == (0, DATA)
    assert (file.stat().st_nlink, side(shell)) == (1, [])


def test_a_disk_error_while_it_is_read(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate that cannot be read to its end is told of, and what was made of it is removed."""
    (shell.home / "also" / "f.bin").write_bytes(DATA)

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", broken)
        ran = mdl(shell, "get", "one", "--offline", *JSON)
    assert (ran.code, side(shell)) == (8, [])
    assert "cannot be used: Input/output error" in ran.err


def test_no_room_for_a_copy(
    shell: Shell, server: FaultyServer, mdl: Inside, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that the disk has no room for is not begun: 7, with what is short, and nothing is asked for."""
    (elsewhere / "f.bin").write_bytes(DATA)
    monkeypatch.setattr(Store, "free_space", lambda _: len(DATA) - 1)
    ran = mdl(shell, "get", "one", *JSON)
    assert (ran.code, ran.document["error"]["code"]) == (7, "SPACE")
    assert (server.requests, side(shell), place(shell).exists()) == ([], [], False)


def test_no_room_for_a_copy_but_for_a_link(
    shell: Shell, mdl: Inside, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate on this file system needs no room, also where another one came first that does."""
    for folder in (elsewhere, shell.home / "also"):
        (folder / "f.bin").write_bytes(DATA)
    monkeypatch.setattr(Store, "free_space", lambda _: len(DATA) - 1)
    assert actions(done(mdl(shell, "get", "one", *JSON))) == LINKED


def test_no_room_for_a_copy_where_links_are_refused(
    shell: Shell, server: FaultyServer, mdl: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one file system without links a copy needs its room as well."""
    if clones(shell.home):
        pytest.skip("a clone needs no room")
    (shell.home / "also" / "f.bin").write_bytes(DATA)
    monkeypatch.setattr(os, "link", lambda *_: os.unlink(""))
    monkeypatch.setattr(Store, "free_space", lambda _: len(DATA) - 1)
    assert mdl(shell, "get", "one", *JSON).code == 7


def test_changed_while_it_is_hashed(
    shell: Shell, server: FaultyServer, mdl: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is written to after it was hashed and before it has its name is not taken, nor is its new state."""
    file = shell.home / "also" / "f.bin"
    file.write_bytes(DATA)
    really = Store.fingerprint

    def slow(store: Store, path: Path, remote: RemoteFile) -> Fingerprint:
        found = really(store, path, remote)
        _spoil(file)
        return found

    monkeypatch.setattr(Store, "fingerprint", slow)
    assert actions(done(mdl(shell, "get", "one", *JSON))) == (LINKED if clones(shell.home) else FETCHED)
    assert place(shell).read_bytes() == DATA
    assert not place(shell).samefile(file)


def test_changed_before_it_has_its_receipt(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A linked file that is written to between its hash and its receipt is not vouched for by that receipt."""
    file = shell.home / "also" / "f.bin"
    file.write_bytes(DATA)
    really = staging.publish

    def late(staged: Path, entry: EntryAt) -> os.stat_result | None:
        copied = really(staged, entry)
        if entry.name == "f.bin":
            _spoil(file)
        return copied

    with monkeypatch.context() as patch:
        patch.setattr(staging, "publish", late)
        done(mdl(shell, "get", "one", *JSON))
    if not clones(shell.home):
        assert actions(done(mdl(shell, "get", "one", *JSON), 7)) == {"one/f.bin": "failed"}


def _spoil(file: Path) -> None:
    """Another program writes into its own file."""
    with file.open("r+b") as opened:
        opened.write(b"!")
