"""mdl mv: models go to another models folder, on the same file system or another, with all that mdl knows of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.catalogs import entry_of
from support.copies import second_file_system
from support.data import DATA, MIB, noise
from support.faults import honest
from support.faults.bodies import short_body
from support.faulty_server import FaultyServer
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Shell, done, files_below, machine

from mdl.disk.mutex import file_lock
from mdl.downloader.store import Store

BIG = noise(2 * MIB, 1)
FILES = {"config.json": b'{"a": 1}\n', "model.bin": BIG, "sub/vocab.txt": b"v"}
REPOS = [Repo("org/tiny", FILES, lfs_threshold=1000), Repo("org/same", {"again.bin": BIG}, lfs_threshold=1000)]
CATALOG = 'schema = 1\n[models.tiny]\nsource = "hf:org/tiny"\n[models.same]\nsource = "hf:org/same"\n'


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return machine(tmp_path / "home", CATALOG, hub.url)


@pytest.fixture(params=["one file system", "two file systems"])
def new(request: pytest.FixtureRequest, shell: Shell) -> Iterator[Path]:
    """The other models folder."""
    if request.param == "one file system":
        yield shell.home / "new"
    else:
        with second_file_system(shell) as folder:
            yield folder / "new"


TINY = {f"tiny/{path}": content for path, content in FILES.items()}


def test_everything_moves(mdl: Inside, shell: Shell, hub: LoopbackHub, new: Path) -> None:
    """Files, receipts and the kept listing are in the new folder, and nothing is left in the old one; get, verify and
    outdated know it there without a request for a file. A second mv has nothing to do."""
    done(mdl(shell, "get", "tiny", "org/same"))
    ran = done(mdl(shell, "mv", "tiny", "org/same", "--to", str(new)))
    assert ran.out == f"{new / 'tiny'}\n{new / 'org--same'}\n"
    assert files_below(new) == TINY | {"org--same/again.bin": BIG}
    assert files_below(shell.models) == {}
    assert Store(shell.models).receipts.models() == []
    at = ["--to", str(new)]
    sent = hub.sent
    [kept] = done(mdl(shell, "get", "tiny", *at, "--offline", "--json")).document["models"]
    assert {file["action"] for file in kept["files"]} == {"kept"}
    assert hub.sent == sent
    assert done(mdl(shell, "verify", "--strict", *at, "--json")).document["ok"]
    [row] = done(mdl(shell, "list", "tiny", *at, "--json")).document["models"]
    assert (row["status"], row["files_present"], len(row["commits"])) == ("present", 3, 1)
    [again] = done(mdl(shell, "mv", "tiny", "--to", str(new), "--json")).document["models"]
    assert (again["files"], again["path"]) == (0, str(new / "tiny"))
    assert done(mdl(shell, "mv", "org--same", "--to", str(new))).out == f"{new / 'org--same'}\n"


def test_edited_and_foreign_files(mdl: Inside, shell: Shell, new: Path) -> None:
    """An edited file moves as it is, and is still known as edited; what mdl did not write stays and is named."""
    done(mdl(shell, "get", "tiny"))
    (shell.models / "tiny/config.json").write_bytes(b"edited")
    (shell.models / "tiny/notes.txt").write_bytes(b"mine")
    ran = done(mdl(shell, "mv", "tiny", "--to", str(new)))
    assert "notes.txt stays: not mdl's" in ran.err
    assert files_below(new) == TINY | {"tiny/config.json": b"edited"}
    assert files_below(shell.models) == {"tiny/notes.txt": b"mine"}
    files = done(mdl(shell, "verify", "tiny", "--to", str(new), "--json")).document["models"][0]["files"]
    assert {file["path"]: file["status"] for file in files} == {
        "config.json": "changed",
        "model.bin": "ok",
        "sub/vocab.txt": "ok",
    }


def test_a_damaged_file_stays(mdl: Inside, shell: Shell) -> None:
    """Across file systems every copy is compared with its digest: 6, and the old folder is as it was."""
    done(mdl(shell, "get", "tiny"))
    file = shell.models / "tiny/model.bin"
    before = file.stat()
    file.write_bytes(BIG[:-1] + b"\0")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with second_file_system(shell) as other:
        ran = done(mdl(shell, "mv", "tiny", "--to", str(other / "new")), 6)
        assert "tiny/model.bin: it is damaged" in ran.err
        assert ran.out == ""
        assert len(files_below(shell.models)) == 3


def test_what_cannot_be_moved(mdl: Inside, shell: Shell) -> None:
    """3 for what is not here, though the others move; 7 if other bytes are there, and nothing moves; 2 for the hub's
    cache, the same folder, and a folder inside the model."""
    new = shell.home / "new"
    assert done(mdl(shell, "mv", "tiny", "--to", str(new)), 3).out == ""
    done(mdl(shell, "mv", "nosuch", "--to", str(new)), 3)
    done(mdl(shell, "get", "tiny", "same"))
    ran = done(mdl(shell, "mv", "same", "nosuch", "--to", str(new)), 3)
    assert ran.out == f"{new / 'same'}\n"
    (new / "tiny").mkdir()
    (new / "tiny/model.bin").write_bytes(b"other")
    ran = done(mdl(shell, "mv", "tiny", "--to", str(new), "--json"), 7)
    assert ran.document["error"]["code"] == "OCCUPIED"
    assert files_below(shell.models) == TINY
    done(mdl(shell, "mv", "tiny", "--to", str(new), "--layout", "hf-cache"), 2)
    done(mdl(shell, "mv", "tiny", "--to", str(shell.models)), 2)
    done(mdl(shell, "mv", "tiny", "--to", str(shell.models / "tiny/inside")), 2)


def test_the_room_is_checked_first(mdl: Inside, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """7 before the first byte, but only what must be copied needs room."""
    done(mdl(shell, "get", "tiny"))
    monkeypatch.setattr(Store, "free_space", lambda _store: 1000)
    with second_file_system(shell) as other:
        ran = done(mdl(shell, "mv", "tiny", "--to", str(other / "new"), "--json"), 7)
        assert ran.document["error"]["code"] == "SPACE"
        assert files_below(other) == {}
    assert files_below(shell.models) == TINY
    done(mdl(shell, "mv", "tiny", "--to", str(shell.home / "new")))


def test_the_new_disk_has_the_bytes(mdl: Inside, shell: Shell) -> None:
    """Bytes that another model on the new disk has are linked read-only, as get does it."""
    write = '[stores]\nlink = "hard"\n'
    place = shell.home / ".config/mdl/config.toml"
    place.parent.mkdir(parents=True)
    place.write_text(write)
    with second_file_system(shell) as other:
        done(mdl(shell, "get", "same", "tiny"))
        done(mdl(shell, "mv", "same", "tiny", "--to", str(other)))
        first = (other / "same/again.bin").stat()
        second = (other / "tiny/model.bin").stat()
        assert (first.st_ino, stat.S_IMODE(first.st_mode) & 0o222) == (second.st_ino, 0)
        assert done(mdl(shell, "verify", "--strict", "--to", str(other), "--json")).document["ok"]


def test_it_waits_for_another_mdl(mdl: Inside, shell: Shell) -> None:
    """9 if another process holds the model for longer than it waits."""
    done(mdl(shell, "get", "tiny"))
    with file_lock(shell.models / ".mdl" / "locks", "tiny", 0.0, lambda _holder: None):
        ran = done(mdl(shell, "mv", "tiny", "--to", str(shell.home / "new"), "--lock-wait", "0"), 9)
    assert ran.out == ""
    assert files_below(shell.models) == TINY


def test_an_unfinished_download_goes_on_there(mdl: Inside, tmp_path: Path, server: FaultyServer) -> None:
    """A partial moves too; get goes on with it in the new folder. A model of which nothing else is here is here."""
    shell = machine(tmp_path / "home", "schema = 1\n" + entry_of("one", f"{server.url}/f", DATA))
    with second_file_system(shell) as other:
        for new in (shell.home / "new", other / "new"):
            server.handler = short_body(DATA, len(DATA) // 2)
            done(mdl(shell, "get", "one", "--retries", "1"), 5)
            ran = done(mdl(shell, "mv", "one", "--to", str(new), "--json"))
            assert ran.document["models"][0]["unfinished"] > 0
            assert not list((shell.models / ".mdl/partials").iterdir())
            server.handler = honest(DATA)
            [model] = done(mdl(shell, "get", "one", "--to", str(new), "--json")).document["models"]
            assert 0 < model["files"][0]["resumed_at"] <= len(DATA) // 2
            assert (new / "one/f.bin").read_bytes() == DATA
