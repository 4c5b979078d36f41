"""What files of the user's other programs hold is read once and remembered; where that is damaged it heals."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.data import MIB
from support.faults import honest
from support.faulty_server import FaultyServer
from support.hubs import actions, listing
from support.loopback_hub import Generated
from support.shell import Inside, Shell, done, settings

from mdl.engine.local_copies import HashCache
from mdl.engine.store import Store
from mdl.files import RemoteFile, Stamp
from mdl.hashing import Digest, Fingerprint

DATA = Generated(MIB, "right")[0:MIB]
JSON = ("--json", "--retries", "1")
STAMP = Stamp(3, 1, 7)
ONE, TWO = Digest("sha256", "ab" * 32), Digest("sha256", "cd" * 32)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(honest(DATA)) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    """A machine with three files of another program that are as long as the model, and are not it."""
    home = tmp_path / "home"
    (home / "comfy").mkdir(parents=True)
    (home / "catalog.toml").write_text(catalog_of(DATA, one=f"{server.url}/one"))
    shell = Shell(home)
    settings(shell, f'[stores]\nalso = ["{home / "comfy"}"]\n')
    for number in range(3):
        (home / "comfy" / f"{number}.bin").write_bytes(bytes([number]) * MIB)
    return shell


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every candidate that was hashed."""
    hashed = list[Path]()
    really = Store.fingerprint

    def fingerprint(store: Store, path: Path, remote: RemoteFile) -> Fingerprint:
        hashed.append(path)
        return really(store, path, remote)

    monkeypatch.setattr(Store, "fingerprint", fingerprint)
    return hashed


def again(shell: Shell, mdl: Inside) -> dict[str, str]:
    """The model is removed and got once more."""
    (shell.models / "one" / "f.bin").unlink(missing_ok=True)
    return actions(done(mdl(shell, "get", "one", *JSON)))


def test_the_second_run_reads_nothing(shell: Shell, mdl: Inside, read: list[Path]) -> None:
    """What was read and is another file is not read again, neither by a get nor taken for it in a plan."""
    assert "elsewhere" in done(mdl(shell, "get", "-n", "one")).err
    assert again(shell, mdl) == {"one/f.bin": "fetched"}
    assert len(read) == 3
    (shell.models / "one" / "f.bin").unlink()
    assert "elsewhere" not in done(mdl(shell, "get", "-n", "one")).err
    assert again(shell, mdl) == {"one/f.bin": "fetched"}
    assert len(read) == 3


@pytest.mark.parametrize("how", ["written", "replaced"])
def test_a_file_that_became_the_right_one(shell: Shell, mdl: Inside, read: list[Path], how: str) -> None:
    """A file that was touched since is read again, and taken."""
    again(shell, mdl)
    file = shell.home / "comfy" / "1.bin"
    if how == "replaced":
        before = file.stat()
        file.with_name("other").write_bytes(DATA)
        os.utime(file.with_name("other"), ns=(before.st_atime_ns, before.st_mtime_ns))
        file.with_name("other").replace(file)
    else:
        file.write_bytes(DATA)
    assert again(shell, mdl) == {"one/f.bin": "linked"}
    assert len(read) == 4


DAMAGES = [b"", b"00000000 {}\n", b"\xff" * 99]


@pytest.mark.parametrize("damage", DAMAGES, ids=["empty", "torn", "noise"])
def test_damage_heals(shell: Shell, mdl: Inside, read: list[Path], damage: bytes) -> None:
    """Where it is damaged the files are read once more, and then known."""
    again(shell, mdl)
    (shell.models / ".mdl" / "hashes").write_bytes(damage)
    again(shell, mdl)
    assert len(read) == 6
    again(shell, mdl)
    assert len(read) == 6


def test_a_plan_writes_nothing(shell: Shell, mdl: Inside) -> None:
    """A dry run neither hashes nor remembers."""
    before = listing(shell.home)
    done(mdl(shell, "get", "-n", "one", *JSON))
    assert listing(shell.home) == before


def test_another_kind_of_digest_says_nothing(tmp_path: Path) -> None:
    """A sha256 tells nothing of a git-sha1, another stamp nothing of what is there now; the last word counts."""
    hashes = HashCache(tmp_path / "hashes")
    hashes.note(tmp_path / "f", STAMP, TWO)
    hashes.note(tmp_path / "f", STAMP, ONE)
    hashes.save()
    again = HashCache(tmp_path / "hashes")
    assert again.is_other(tmp_path / "f", STAMP, TWO)
    assert not again.is_other(tmp_path / "f", STAMP, ONE)
    assert not again.is_other(tmp_path / "f", STAMP, Digest("git-sha1", "ab" * 20))
    assert not again.is_other(tmp_path / "f", Stamp(3, 2, 7), TWO)


def test_where_it_cannot_be_kept(tmp_path: Path) -> None:
    """A folder that takes no file is no trouble: it is found out again."""
    (tmp_path / "file").touch()
    hashes = HashCache(tmp_path / "file" / "hashes")
    hashes.note(tmp_path / "f", STAMP, ONE)
    hashes.save()
