"""Folders that several users share: what another user made or may write is not believed, its bytes are not used."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support import faults
from support.bench import NAME, Bench, pinned
from support.catalogs import entry_of, unpinned
from support.data import noise
from support.faulty_server import FaultyServer
from support.partials import dead_owner
from support.shell import ExitCode, Shell, machine

from mdl.catalog.model import CatalogFile
from mdl.disk import safe_open
from mdl.disk.own_files import make_private_dir, open_own, read_own
from mdl.downloader.journal import Identity, Journal
from mdl.downloader.receipts import Receipts, file_key
from mdl.errors import MdlError, Unsafe
from mdl.files import Receipt, RemoteFile, Stamp
from mdl.net.ranges import ByteRange
from mdl.paths import RelPath, record_name

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NO SECOND USER: only root can make files of others")
STRANGER, USER = 12345, 12346
DATA, OTHER = noise(2**21), noise(2**21, 1)
HALF = len(DATA) // 2
REMOTE = RemoteFile(RelPath.parse(NAME), "http://127.0.0.1/f", len(DATA), pinned("", DATA).digest)
HANDLER = faults.honest(DATA)


@pytest.fixture
def file(server: FaultyServer) -> CatalogFile:
    return pinned(f"{server.url}/f", DATA)


def give(uid: int, *places: Path) -> None:
    """Have these places, and all that is in them, belong to a user."""
    for place in places:
        for path in (place, *place.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)


def forged(bench: Bench) -> Path:
    """Other bytes under the final name and a receipt that vouches for them as for `DATA`: the receipt's path."""
    bench.final.parent.mkdir(parents=True)
    bench.final.write_bytes(OTHER)
    receipts = Receipts(bench.store.own / "receipts")
    receipts.put(Receipt("m", REMOTE.path, Stamp.of(bench.final.stat()), REMOTE.digest, "sha256", REMOTE.url))
    (place,) = bench.store.own.rglob("*.receipts")
    return place


def planted(bench: Bench) -> Path:
    """The folder of a dead process's partial: its journal claims half of `DATA`, and its bytes are other ones."""
    folder = make_private_dir(bench.store.partials / f"{file_key('m', REMOTE.path)}.{dead_owner()}")
    (folder / "data").write_bytes(OTHER)
    journal = Journal.create(folder / "journal", Identity.of(REMOTE))
    journal.claim([ByteRange(0, HALF)])
    journal.close()
    return folder


def code_of(bench: Bench, file: CatalogFile) -> int:
    """The exit code of the download, also if it does not begin."""
    try:
        return bench.run(file).code
    except MdlError as error:
        return error.exit_code


@pytest.mark.fault(244)
@pytest.mark.parametrize("whose", ["stranger's", "open"])
def test_a_forged_receipt(bench: Bench, server: FaultyServer, file: CatalogFile, whose: str) -> None:
    """A receipt that another user made or may write keeps nothing: the file it vouches for is read, and not taken."""
    place = forged(bench)
    os.chown(place, STRANGER, -1) if whose == "stranger's" else place.chmod(0o666)
    run = bench.run(file)
    assert (run.code, run.error["code"], server.requests) == (7, "OCCUPIED", [])


@pytest.mark.fault(244)
def test_a_folder_of_another_user(bench: Bench, server: FaultyServer, file: CatalogFile) -> None:
    """A `.mdl` that another user made is 11, by name, with whose it is and what to do; nothing is asked for."""
    forged(bench)
    give(STRANGER, bench.store.own)
    with pytest.raises(Unsafe, match=f"user {STRANGER}") as caught:
        bench.run(file)
    assert (server.requests, caught.value.item) == ([], str(bench.store.own))
    assert "--to" in str(caught.value.hint)
    assert bench.store.receipts.get("m", REMOTE.path) is None


@pytest.mark.fault(244)
@pytest.mark.parametrize("depth", ["partials", "receipts", f"receipts/{record_name('m')}", "locks"])
def test_a_folder_in_it_of_another_user(bench: Bench, file: CatalogFile, depth: str) -> None:
    """The same for every folder in `.mdl` that mdl writes to."""
    forged(bench)
    bench.final.unlink()
    os.chown(make_private_dir(bench.store.own / depth), STRANGER, -1)
    assert (code_of(bench, file), bench.final.exists()) == (11, False)


@pytest.mark.fault(244)
@pytest.mark.parametrize("whose", ["", "data", "journal"])
@pytest.mark.parametrize("mode", [0o666, 0o600])
def test_a_planted_partial(bench: Bench, file: CatalogFile, whose: str, mode: int) -> None:
    """Nothing is taken from a partial whose folder, data or journal is another user's, and what is published is no
    file of his: what he writes to his own later changes nothing."""
    folder = planted(bench)
    (folder / "data").chmod(mode)
    give(STRANGER, folder / whose)
    with (folder / "data").open("r+b") as his:
        run = bench.run(file)
        if whose != "journal":
            his.write(OTHER)
    assert (run.code, run.row.resumed_at) == (0, 0)
    assert (bench.final.read_bytes() == DATA, bench.final.stat().st_uid) == (True, 0)


@pytest.mark.fault(244)
def test_a_partial_that_was_open_to_all(bench: Bench, file: CatalogFile) -> None:
    """A user's partial in a `.mdl` that everybody could write is begun anew in another file: a user who has the old
    one open cannot write to the new one. The folder is closed."""
    folder = planted(bench)
    for path in (bench.store.own, bench.store.partials, folder, folder / "data", folder / "journal"):
        path.chmod(0o777)
    with (folder / "data").open("r+b") as his:
        run = bench.run(file)
        his.write(OTHER)
    assert (run.code, run.row.resumed_at, bench.final.read_bytes() == DATA) == (0, 0, True)
    assert bench.store.own.stat().st_mode & 0o777 == 0o700


@pytest.mark.fault(244)
@pytest.mark.parametrize("place", ["listings/x.json", "hashes", f"locks/{record_name('m')}.who"])
def test_other_files_of_another_user(tmp_path: Path, place: str) -> None:
    """Every file in `.mdl` that is another user's, or that others may write, is read as if it were absent."""
    path = tmp_path / ".mdl" / place
    make_private_dir(path.parent)
    path.write_bytes(b"{}")
    for mode, owner, seen in ((0o600, 0, b"{}"), (0o620, 0, None), (0o600, STRANGER, None)):
        path.chmod(mode)
        os.chown(path, owner, -1)
        assert read_own(path, 10) == seen


@pytest.mark.fault(244)
def test_a_lock_of_another_user(bench: Bench, file: CatalogFile) -> None:
    """A lock file of another user, who may hold it for ever, in one's own `.mdl` gives way to a new one."""
    lock = make_private_dir(bench.store.locks) / f"{record_name('m')}.lock"
    lock.touch()
    os.chown(lock, STRANGER, -1)
    assert code_of(bench, file) == 0
    assert not lock.exists() or lock.stat().st_uid == 0


@pytest.mark.fault(244)
def test_a_file_put_in_place_of_ours(bench: Bench, file: CatalogFile) -> None:
    """A file that another user put under the final name is read, though size, time and inode are those of the receipt;
    the right bytes are kept, and read at every run."""
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
    """In the hub's cache `.mdl` is one folder deeper; the folder above it may be anybody's, `.mdl` itself may not."""
    own = tmp_path / ".locks" / ".mdl" / "receipts"
    make_private_dir(own)
    give(STRANGER, tmp_path / ".locks")
    with pytest.raises(Unsafe):
        make_private_dir(own)


@pytest.mark.fault(244)
def test_root_in_a_users_folder(bench: Bench, file: CatalogFile) -> None:
    """Root goes on with what the owner of the models folder has there: he can replace the models anyway."""
    (planted(bench) / "data").write_bytes(DATA)
    give(STRANGER, bench.store.root)
    run = bench.run(file)
    assert (run.code, run.row.resumed_at) == (0, HALF)
    give(STRANGER, bench.store.root)
    assert bench.run(file).row.action == "kept"


@contextmanager
def acting_as(uid: int, mask: int = 0o022) -> Iterator[None]:
    """This process, with all its threads, as another user."""
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
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench in a folder that every user can enter and write in, as /tmp."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    yield Bench(folder / "home", monkeypatch)
    shutil.rmtree(folder)


@pytest.mark.fault(244)
@pytest.mark.parametrize("mask", [0o002, 0o000, 0o077])
def test_ones_own_goes_on_with_any_umask(shared: Bench, server: FaultyServer, file: CatalogFile, mask: int) -> None:
    """With any umask a user's own half download goes on and his own receipt is believed, also in a folder of a group;
    the umask decides who may write what is published."""
    shared.store.root.mkdir(parents=True)
    os.chown(shared.store.root, 0, USER + 1)
    shared.store.root.chmod(0o2777)
    assert shared.run(replace(file, path=RelPath.parse("warm"))).code == 0  # what is imported late is root's to read
    shutil.rmtree(shared.store.own)
    shutil.rmtree(shared.store.folder("m"))
    with acting_as(USER, mask):
        half = shared.half(file, server, DATA)
        server.handler = faults.honest(DATA)
        assert (shared.run(file).row.resumed_at, shared.run(file).row.action) == (half, "kept")
    assert shared.final.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.fault(244)
def test_two_users_of_a_groups_folder(shared: Bench, file: CatalogFile) -> None:
    """The second user of a folder whose finished files are shared keeps the right ones, each of them read; what is
    missing he cannot bring, and the message names the other user's `.mdl`."""
    assert shared.run(file).code == 0
    give(STRANGER, shared.store.own, shared.store.folder("m"))
    with acting_as(USER):
        assert (shared.run(file).row.action, shared.store.check("m", REMOTE).receipt) == ("kept", None)
    shared.final.unlink()
    with acting_as(USER):
        run = shared.run(file)
    assert (run.code, ".mdl" in str(run.error)) == (7, True)


@pytest.mark.fault(244)
def test_a_file_system_that_shows_another_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file system shows every file as another user's and open to all (SMB, FAT, a squashed NFS), a user's own is
    recognised by what a file that he makes there looks like."""
    real = os.fstat
    make_private_dir(tmp_path / ".mdl")
    (tmp_path / ".mdl" / "hashes").write_bytes(b"{}")

    def shown(fd: int) -> os.stat_result:
        status = list(real(fd))
        status[0], status[4] = status[0] | 0o777, STRANGER
        return os.stat_result(status)

    monkeypatch.setattr(safe_open.os, "fstat", shown)
    make_private_dir(tmp_path / ".mdl" / "receipts")
    os.close(open_own(tmp_path / ".mdl" / "hashes", os.O_RDONLY))
    assert os.listdir(tmp_path) == [".mdl"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return machine(tmp_path / "home")


@pytest.mark.fault(245)
@pytest.mark.parametrize("as_link", [False, True])
@pytest.mark.parametrize("words", ["get m", "get m --locked", "list", "lock"])
def test_a_lock_of_a_stranger_beside_the_catalog(
    server: FaultyServer,
    shell: Shell,
    exit_code: ExitCode,
    capsys: pytest.CaptureFixture[str],
    words: str,
    as_link: bool,
) -> None:
    """Another user's `mdl.lock` beside one's own catalog, or his link to one, is 11 with whose it is, and nothing is
    asked for; the lock of the catalog's owner is used."""
    (shell.home / "catalog.toml").write_text("schema = 1\n" + entry_of("m", f"{server.url}/f.bin", DATA))
    assert exit_code(shell, "lock") == 0
    lock, far = shell.home / "mdl.lock", shell.home / "far.lock"
    if as_link:
        lock.rename(far)
        lock.symlink_to(far)
    os.chown(lock, STRANGER, -1, follow_symlinks=False)
    assert (exit_code(shell, *words.split()), server.requests) == (11, [])
    assert f"user {STRANGER}" in capsys.readouterr().err
    os.chown(shell.home / "catalog.toml", STRANGER, -1)
    assert exit_code(shell, *words.split()) == 0


@pytest.mark.fault(245)
def test_a_lock_that_everybody_may_write(shell: Shell, exit_code: ExitCode, capsys: pytest.CaptureFixture[str]) -> None:
    """A user's lock that others may write is warned of, as such a catalog is."""
    (shell.home / "catalog.toml").write_text(unpinned("http://127.0.0.1:9/f"))
    (shell.home / "mdl.lock").write_text("version = 2\n")
    (shell.home / "mdl.lock").chmod(0o666)
    assert exit_code(shell, "list") == 0
    assert "mdl.lock: everybody may write it" in capsys.readouterr().err


@pytest.mark.fault(248)
@pytest.mark.parametrize("whose", [STRANGER, 0])
@pytest.mark.parametrize("size", [1000, len(DATA)])
def test_a_models_folder_that_is_a_link(
    bench: Bench, server: FaultyServer, tmp_path: Path, whose: int, size: int
) -> None:
    """A link in place of a model's folder is followed if it is the user's own or root's; another's is 11, also if it
    is put there after mdl looked."""
    far, link, right = tmp_path / "far", bench.store.folder("m"), faults.honest(DATA[:size])

    def plant() -> None:
        if not link.is_symlink():
            link.symlink_to(far)
            os.chown(link, whose, -1, follow_symlinks=False)

    far.mkdir()
    bench.store.root.mkdir()
    plant()
    file = pinned(f"{server.url}/f", DATA[:size])
    server.handler = right
    assert bench.run(file).code == (11 if whose else 0)
    if whose:
        link.unlink()
        server.handler = faults.acting(plant, right)
        assert bench.run(file).code == 11
    assert (os.listdir(far) == []) == bool(whose)


@pytest.mark.fault(248)
def test_a_link_exchanged_while_it_is_looked_at(
    bench: Bench, file: CatalogFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's own link that becomes another user's between the look at its owner and the reading of it is 11."""
    far, link, really = tmp_path / "far", bench.store.folder("m"), os.readlink

    def exchanging(path: Path, **more: int) -> str:
        if Path(path) == link and not far.exists():
            far.mkdir()
            link.unlink()
            link.symlink_to(far)
            os.chown(link, STRANGER, -1, follow_symlinks=False)
        return really(path, **more)

    (tmp_path / "near").mkdir()
    bench.store.root.mkdir()
    link.symlink_to(tmp_path / "near")
    monkeypatch.setattr(os, "readlink", exchanging)
    assert bench.run(file).code == 11
    assert os.listdir(far) == []
