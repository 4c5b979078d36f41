"""Folders that several users share: what another user made, or may write, is not believed, its bytes are not used."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support import faults
from support.bench import NAME, Bench, pinned
from support.catalogs import entry_of, unpinned
from support.data import noise
from support.faulty_server import Answer, FaultyServer, Request
from support.partials import dead_owner
from support.shell import ExitCode, Shell, machine

from mdl.engine.journal import Identity, Journal
from mdl.engine.receipts import Receipts, file_key
from mdl.errors import MdlError, Unsafe
from mdl.files import Receipt, RemoteFile, Stamp
from mdl.fs import private
from mdl.fs.private import make_private_dir, open_own, read_regular
from mdl.hashing import Digest
from mdl.http.ranges import ByteRange
from mdl.paths import RelPath

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NO SECOND USER: only root can make files of others")
STRANGER, USER = 12345, 12346
DATA, OTHER = noise(2**21), noise(2**21, 1)
KEY = file_key("m", RelPath.parse(NAME))


def given(uid: int, *places: Path) -> None:
    """Have these, and all that is in them, belong to a user."""
    for place in places:
        for path in (place, *place.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)


def forged(bench: Bench, data: bytes) -> Path:
    """A file and the receipt that vouches for it as for `DATA`; where the receipt is."""
    bench.final.parent.mkdir(parents=True)
    bench.final.write_bytes(data)
    digest, stamp = Digest("sha256", pinned("", DATA).digest.hex), Stamp.of(bench.final.stat())  # type: ignore[union-attr]
    Receipts(bench.store.own / "receipts").put(
        Receipt("m", RelPath.parse(NAME), stamp, digest, "sha256", "http://127.0.0.1/f")
    )
    (place,) = bench.store.own.rglob("*.receipt")
    return place


def code_of(bench: Bench, url: str) -> int:
    """How the file's download ends, also where it does not begin."""
    try:
        return bench.run(pinned(url, DATA)).code
    except MdlError as error:
        return error.exit_code


@pytest.mark.fault(244)
@pytest.mark.parametrize("whose", ["stranger's", "open"])
def test_a_forged_receipt(bench: Bench, whose: str) -> None:
    """A receipt that another user made or may write keeps nothing: the file it vouches for is read, and not taken."""
    place = forged(bench, OTHER)
    os.chown(place, STRANGER, -1) if whose == "stranger's" else place.chmod(0o666)
    with FaultyServer(faults.honest(DATA)) as server:
        run = bench.run(pinned(f"{server.url}/f", DATA))
        assert (run.code, run.error["code"], server.requests) == (7, "OCCUPIED", [])


@pytest.mark.fault(244)
def test_a_folder_of_another_user(bench: Bench) -> None:
    """A `.mdl` that another user made is 11, by name, with whose it is and what to do; nothing is asked for."""
    forged(bench, OTHER)
    given(STRANGER, bench.store.own)
    with FaultyServer(faults.honest(DATA)) as server:
        with pytest.raises(Unsafe) as caught:
            bench.run(pinned(f"{server.url}/f", DATA))
        assert server.requests == []
    assert caught.value.item == str(bench.store.own)
    assert f"user {STRANGER}" in caught.value.message
    assert "--to" in str(caught.value.hint)
    assert bench.store.receipts.get("m", RelPath.parse(NAME)) is None


@pytest.mark.fault(244)
@pytest.mark.parametrize("depth", ["partials", "receipts", "receipts/m", "locks"])
def test_a_folder_in_it_of_another_user(bench: Bench, depth: str) -> None:
    """The same for every folder in `.mdl` that mdl writes to."""
    forged(bench, OTHER)
    bench.final.unlink()
    make_private_dir(bench.store.own / depth)
    os.chown(bench.store.own / depth, STRANGER, -1)
    with FaultyServer(faults.honest(DATA)) as server:
        assert (code_of(bench, f"{server.url}/f"), bench.final.exists()) == (11, False)


def planted(bench: Bench, *, claimed: int) -> Path:
    """A partial of a dead process, all of which is somebody else's bytes; its folder."""
    folder = make_private_dir(bench.store.partials / f"{KEY}.{dead_owner()}")
    (folder / "data").write_bytes(OTHER)
    journal = Journal.create(folder / "journal", Identity.of(remote(len(DATA))))
    journal.claim([ByteRange(0, claimed)])
    journal.close()
    return folder


def remote(size: int | None) -> RemoteFile:
    return RemoteFile(RelPath.parse(NAME), "http://127.0.0.1/f", size, pinned("", DATA).digest)


@pytest.mark.fault(244)
@pytest.mark.parametrize("whose", ["", "data", "journal"])
@pytest.mark.parametrize("mode", [0o666, 0o600])
def test_a_planted_partial(bench: Bench, whose: str, mode: int) -> None:
    """Of a partial in which a folder, its data or its journal is another user's nothing is taken, and the file that is
    published is no file of his: what he writes to his own later changes nothing."""
    folder = planted(bench, claimed=len(DATA) // 2)
    (folder / "data").chmod(mode)
    given(STRANGER, folder / whose)
    with (folder / "data").open("r+b") as his, FaultyServer(faults.honest(DATA)) as server:
        run = bench.run(pinned(f"{server.url}/f", DATA))
        if whose != "journal":
            his.write(OTHER)
    assert (run.code, run.row.resumed_at) == (0, 0)
    assert bench.final.read_bytes() == DATA
    assert bench.final.stat().st_uid == 0


@pytest.mark.fault(244)
def test_a_partial_that_was_open_to_all(bench: Bench) -> None:
    """A partial of one's own in a `.mdl` that was made open to everybody is begun anew in another file: who has the old
    one open cannot write to the new one. The folder is closed."""
    folder = planted(bench, claimed=len(DATA) // 2)
    for path in (bench.store.own, bench.store.partials, folder, folder / "data", folder / "journal"):
        path.chmod(0o777)
    with (folder / "data").open("r+b") as his, FaultyServer(faults.honest(DATA)) as server:
        run = bench.run(pinned(f"{server.url}/f", DATA))
        his.write(OTHER)
        his.flush()
    assert (run.code, run.row.resumed_at, bench.final.read_bytes() == DATA) == (0, 0, True)
    assert bench.store.own.stat().st_mode & 0o777 == 0o700


@pytest.mark.fault(244)
@pytest.mark.parametrize("place", ["listings/x.json", "hashes", "locks/m.who"])
def test_other_files_of_another_user(tmp_path: Path, place: str) -> None:
    """Every file in `.mdl` is read through the one door: another user's, or one that others may write, is absent."""
    path = tmp_path / ".mdl" / place
    make_private_dir(path.parent)
    path.write_bytes(b"{}")
    path.chmod(0o600)
    assert read_regular(path, 10) == b"{}"
    path.chmod(0o620)
    assert read_regular(path, 10) is None
    path.chmod(0o600)
    os.chown(path, STRANGER, -1)
    assert read_regular(path, 10) is None


@pytest.mark.fault(244)
def test_a_lock_of_another_user(bench: Bench) -> None:
    """A lock file in one's own `.mdl` that another user made, who may hold it for ever, gives way to a new one."""
    lock = make_private_dir(bench.store.locks) / "m.lock"
    lock.touch()
    os.chown(lock, STRANGER, -1)
    with FaultyServer(faults.honest(DATA)) as server:
        assert code_of(bench, f"{server.url}/f") == 0
    assert not lock.exists() or lock.stat().st_uid == 0


@pytest.mark.fault(244)
def test_a_file_put_in_place_of_ours(bench: Bench) -> None:
    """A file that another user put under the final name is read, though size, time and inode are those of the receipt;
    the right bytes are kept, and read at every run."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(f"{server.url}/f", DATA)
        assert bench.run(file).code == 0
        before = bench.final.stat()
        os.chown(bench.final, STRANGER, -1)
        assert (bench.run(file).row.action, bench.run(file).code) == ("kept", 0)
        with bench.final.open("r+b") as his:
            his.write(OTHER[:100])
        os.utime(bench.final, ns=(before.st_atime_ns, before.st_mtime_ns))
        run = bench.run(file)
    assert (run.code, run.error["code"]) == (7, "OCCUPIED")


@pytest.mark.fault(244)
def test_a_planted_place_in_the_hubs_cache(tmp_path: Path) -> None:
    """In the hub's cache `.mdl` is one folder deeper, in one that anybody may have made: who owns that is not asked."""
    own = tmp_path / ".locks" / ".mdl"
    make_private_dir(own / "receipts")
    given(STRANGER, tmp_path / ".locks")
    with pytest.raises(Unsafe):
        make_private_dir(own / "receipts")


@pytest.mark.fault(244)
def test_root_in_a_users_folder(bench: Bench) -> None:
    """Root goes on with what the owner of the models folder has there: he can replace the models anyway."""
    folder = planted(bench, claimed=len(DATA) // 2)
    (folder / "data").write_bytes(DATA)
    given(STRANGER, bench.store.root)
    with FaultyServer(faults.honest(DATA)) as server:
        run = bench.run(pinned(f"{server.url}/f", DATA))
        assert (run.code, run.row.resumed_at) == (0, len(DATA) // 2)
        given(STRANGER, bench.store.root)
        assert bench.run(pinned(f"{server.url}/f", DATA)).row.action == "kept"


As = Callable[[int], AbstractContextManager[None]]


@contextmanager
def acting_as(uid: int, mask: int = 0o022) -> Iterator[None]:
    """This process as another user; threads too."""
    before = os.umask(mask)
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.umask(before)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user can enter and write in, as /tmp."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.fault(244)
@pytest.mark.parametrize("mask", [0o002, 0o000, 0o077])
def test_ones_own_goes_on_with_any_umask(shared: Path, monkeypatch: pytest.MonkeyPatch, mask: int) -> None:
    """Whatever the umask, a user's own half download is gone on with and his own receipt believed, also in a folder of
    a group; what is published may be written by whom the umask lets."""
    bench = Bench(shared / "home", monkeypatch)
    bench.store.root.mkdir(parents=True)
    os.chown(bench.store.root, 0, USER + 1)
    bench.store.root.chmod(0o2777)
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(f"{server.url}/f", DATA)
        assert bench.run(replace(file, path=RelPath.parse("warm"))).code == 0  # what is imported late is root's to read
        shutil.rmtree(bench.store.own)
        shutil.rmtree(bench.store.folder("m"))
        with acting_as(USER, mask):
            half = bench.half(file, server, DATA)
            server.handler = faults.honest(DATA)
            assert (bench.run(file).row.resumed_at, bench.run(file).row.action) == (half, "kept")
    assert bench.final.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.fault(244)
def test_two_users_of_a_groups_folder(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second user of a folder whose finished files are shared has the right ones kept, each read; what is missing
    he is told he cannot bring, with the `.mdl` that is another's."""
    bench = Bench(shared / "home", monkeypatch)
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(f"{server.url}/f", DATA)
        assert bench.run(file).code == 0
        given(STRANGER, bench.store.own, bench.store.folder("m"))
        with acting_as(USER):
            assert (bench.run(file).row.action, bench.store.check("m", remote(len(DATA))).receipt) == ("kept", None)
        bench.final.unlink()
        with acting_as(USER):
            run = bench.run(file)
    assert (run.code, ".mdl" in str(run.error)) == (7, True)


@pytest.mark.fault(244)
def test_a_file_system_that_shows_another_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that shows every file as somebody else's and open to all (SMB, FAT, a squashed NFS) a user's own
    is told by what a file that he makes there looks like."""
    real = os.fstat
    make_private_dir(tmp_path / ".mdl")
    (tmp_path / ".mdl" / "hashes").write_bytes(b"{}")

    def shown(fd: int) -> os.stat_result:
        status = list(real(fd))
        status[0], status[4] = status[0] | 0o777, STRANGER
        return os.stat_result(status)

    monkeypatch.setattr(private.os, "fstat", shown)
    make_private_dir(tmp_path / ".mdl" / "receipts")
    os.close(open_own(tmp_path / ".mdl" / "hashes", os.O_RDONLY))
    assert sorted(os.listdir(tmp_path)) == [".mdl"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return machine(tmp_path / "home")


@pytest.mark.fault(245)
@pytest.mark.parametrize("as_link", [False, True])
@pytest.mark.parametrize("words", ["get m", "get m --locked", "list", "lock"])
def test_a_lock_of_a_stranger_beside_the_catalog(
    shell: Shell, exit_code: ExitCode, capsys: pytest.CaptureFixture[str], words: str, as_link: bool
) -> None:
    """Another user's `mdl.lock` beside one's own catalog, or his link to one, is 11 with whose it is, and nothing is
    asked for; that of the catalog's owner is gone by."""
    with FaultyServer(faults.honest(DATA)) as server:
        (shell.home / "catalog.toml").write_text("schema = 1\n" + entry_of("m", f"{server.url}/f.bin", DATA))
        assert exit_code(shell, "lock") == 0
        lock = shell.home / "mdl.lock"
        if as_link:
            (shell.home / "far").mkdir()
            lock.rename(shell.home / "far" / "mdl.lock")
            lock.symlink_to(shell.home / "far" / "mdl.lock")
        os.chown(lock, STRANGER, -1, follow_symlinks=False)
        assert (exit_code(shell, *words.split()), server.requests) == (11, [])
        assert f"user {STRANGER}" in capsys.readouterr().err
        os.chown(shell.home / "catalog.toml", STRANGER, -1)
        assert exit_code(shell, *words.split()) == 0


@pytest.mark.fault(245)
def test_a_lock_that_everybody_may_write(shell: Shell, exit_code: ExitCode, capsys: pytest.CaptureFixture[str]) -> None:
    """A lock of one's own that others may write is told of, as such a catalog is."""
    (shell.home / "catalog.toml").write_text(unpinned("http://127.0.0.1:9/f"))
    (shell.home / "mdl.lock").write_text("version = 1\n")
    (shell.home / "mdl.lock").chmod(0o666)
    assert exit_code(shell, "list") == 0
    assert "mdl.lock: everybody may write it" in capsys.readouterr().err


@pytest.mark.fault(248)
@pytest.mark.parametrize("whose", [STRANGER, 0])
@pytest.mark.parametrize("size", [1000, len(DATA)])
def test_a_models_folder_that_is_a_link(bench: Bench, tmp_path: Path, whose: int, size: int) -> None:
    """A link in place of a model's folder is followed if it is the user's own or root's; another's is 11, also if it
    comes after the look."""
    (tmp_path / "far").mkdir()
    bench.store.root.mkdir()
    link = bench.store.folder("m")
    link.symlink_to(tmp_path / "far")
    os.chown(link, whose, -1, follow_symlinks=False)
    with FaultyServer(faults.honest(DATA[:size])) as server:
        file = pinned(f"{server.url}/f", DATA[:size])
        run = bench.run(file)
        assert run.code == (11 if whose else 0)
        if whose:
            link.unlink()

            def swapping(request: Request, number: int) -> Answer:
                if not link.is_symlink():
                    link.symlink_to(tmp_path / "far")
                    os.chown(link, whose, -1, follow_symlinks=False)
                return faults.honest(DATA[:size])(request, number)

            server.handler = swapping
            assert bench.run(file).code == 11
    assert (os.listdir(tmp_path / "far") == []) == bool(whose)
