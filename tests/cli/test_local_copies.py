"""Bytes that are on this disk are taken from there: cloned, linked or copied, hashed first, and reported as linked.

Candidates that are not what they seem are passed over, and nothing is left behind.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.copies import JSON, NAMES, also, linked, place, second_file_system, twins
from support.data import DATA, MIB, sha256
from support.faults import honest, routes
from support.faulty_server import FaultyServer, reply
from support.hf_cache import Hf, actions, cache_of, clones, listing, repo_of
from support.loopback_hub import LoopbackHub, Repo
from support.partials import dead_owner
from support.shell import Inside, Shell, done, settings

from mdl import crc_json
from mdl.disk import publish
from mdl.disk.safe_open import EntryAt
from mdl.downloader.receipts import RECORD, file_key
from mdl.downloader.store import Store
from mdl.downloader.transfer import Result, Transfer
from mdl.errors import Cancelled
from mdl.files import RemoteFile
from mdl.hashing import Digest, Fingerprint
from mdl.paths import RelPath, record_name

WRONG = DATA[:-1] + bytes([DATA[-1] ^ 1])
REPO = Repo("org/tiny", {"config.json": b'{"a": 1}', "model.bin": DATA})
FETCHED = {"one/f.bin": "fetched"}
HARD = 'link = "hard"'
"""Also as root, who gets copies otherwise."""


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    shell = twins(tmp_path / "home", server)
    also(shell, HARD)
    return shell


@pytest.fixture
def elsewhere(shell: Shell) -> Iterator[Path]:
    """A folder on another file system, named in the settings before the one on this."""
    with second_file_system(shell) as folder:
        also(shell, HARD, folders=(folder,))
        yield folder


def shares(one: Path, other: Path) -> bool:
    """Both names have their bytes on the same blocks, as far as this file system can do that by cloning."""
    return one.read_bytes() == other.read_bytes() and (one.samefile(other) or clones(one.parent))


def side(shell: Shell) -> list[str]:
    """What mdl left where it makes its copies."""
    folder = shell.models / ".mdl" / "side"
    return os.listdir(folder) if folder.exists() else []


def test_a_second_model(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """A file that another model of mdl has is not fetched again: no body byte, one copy on the disk, and a receipt."""
    done(mdl(shell, "get", "one", *JSON))
    sent = server.bytes_sent
    ran = done(mdl(shell, "get", "two", *JSON))
    assert actions(ran) == {"two/f.bin": "linked"}
    assert (server.bytes_sent, ran.document["bytes_fetched"], ran.document["bytes_kept"]) == (sent, 0, len(DATA))
    assert ran.document["models"][0]["files"][0]["verified"] == "sha256"
    assert shares(place(shell), place(shell, "two"))
    assert ran.document["models"][0]["status"] == "present"
    assert actions(done(mdl(shell, "get", "two", "--offline", *JSON))) == {"two/f.bin": "kept"}
    assert done(mdl(shell, "verify", "two", "--json")).document["models"][0]["files"][0]["status"] == "ok"
    ran = done(shell.run("get", "three"))  # as its users run it
    assert ran.out == f"{shell.models / 'three'}\n"
    assert "linked" in ran.err or clones(shell.home)
    assert server.bytes_sent == sent


def test_three_models_in_one_command(
    shell: Shell, server: FaultyServer, mdl: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What several models of one command share is planned and fetched once, a disk with room for one copy is large
    enough, and the events are of the schema."""
    assert done(mdl(shell, "get", "-n", *NAMES, *JSON)).document["bytes_to_fetch"] == len(DATA)
    monkeypatch.setattr(Store, "free_space", lambda _: len(DATA) + MIB)
    ran = done(mdl(shell, "get", *NAMES, "--json", "--progress", "json"))
    assert sorted(actions(ran).values()) == ["fetched", "linked", "linked"]
    assert (server.bytes_sent, ran.document["bytes_fetched"]) == (len(DATA), len(DATA))
    assert all(shares(place(shell), place(shell, name)) for name in NAMES)
    assert ran.events[-1]["event"] == "finished"


@pytest.mark.parametrize("variable", ["", "HF_HOME", "HF_HUB_CACHE"])
def test_a_blob_of_the_hubs_cache(tmp_path: Path, mdl: Inside, hf: Hf, variable: str) -> None:
    """What the hub's client fetched is taken from its cache, wherever that is, large files and small ones alike."""
    cache = tmp_path / "far" / "hub" if variable else tmp_path / ".cache" / "huggingface" / "hub"
    extra = {"": {}, "HF_HOME": {"HF_HOME": str(tmp_path / "far")}, "HF_HUB_CACHE": {"HF_HUB_CACHE": str(cache)}}
    with LoopbackHub([REPO]) as hub:
        hf("snapshot", repo_id="org/tiny", cache_dir=cache, endpoint=hub.url)
        before, sent = listing(cache / "models--org--tiny" / "snapshots"), hub.sent
        shell = Shell(tmp_path, hub.url, extra[variable])
        settings(shell, f"[stores]\n{HARD}\n")
        ran = done(mdl(shell, "get", "hf:org/tiny", *JSON))
        assert hub.sent == sent
    assert actions(ran) == {"org--tiny/config.json": "linked", "org--tiny/model.bin": "linked"}
    blob = cache / "models--org--tiny" / "blobs" / sha256(DATA)
    assert shares(shell.models / "org--tiny" / "model.bin", blob)
    assert listing(cache / "models--org--tiny" / "snapshots") == before


@pytest.mark.parametrize("by_hf", [True, False])
def test_a_blob_that_the_hub_shares(shell: Shell, server: FaultyServer, mdl: Inside, hf: Hf, by_hf: bool) -> None:
    """A blob that is a link into the hub's shared store stays one; the file it leads to is taken, and linked if its
    owner may have it linked."""
    blob, payload = repo_of(shell) / "blobs" / sha256(DATA), repo_of(shell) / "payload"
    if by_hf:
        with LoopbackHub([REPO]) as hub:
            hf("snapshot", repo_id="org/tiny", cache_dir=cache_of(shell), endpoint=hub.url)
        assert hf("share", cache_dir=cache_of(shell), blob=blob, size=len(DATA))
    else:
        blob.parent.mkdir(parents=True)
        payload.write_bytes(DATA)
        blob.symlink_to("../payload")
    assert linked(mdl(shell, "get", "one", *JSON))
    assert (server.bytes_sent, blob.is_symlink(), place(shell).is_symlink()) == (0, True, False)
    assert place(shell).read_bytes() == blob.read_bytes() == DATA
    assert by_hf or shares(place(shell), payload)


def test_a_folder_that_the_user_names(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """A file of another program, below a folder of ``[stores] also`` and by another name, is planned, taken, and stays.
    A dry run changes nothing and contacts nothing."""
    file = also(shell, HARD).parent / "checkpoints" / "another name.safetensors"
    file.parent.mkdir()
    file.write_bytes(DATA)
    before, status = listing(shell.home), file.stat()
    ran = done(mdl(shell, "get", "-n", "one", *JSON))
    facts = ran.document
    assert (facts["bytes_to_fetch"], facts["bytes_elsewhere"], facts["bytes_total"]) == (0, len(DATA), len(DATA))
    assert actions(ran) == {"one/f.bin": "planned"}
    text = done(mdl(shell, "get", "-n", "one"))
    assert ("; 3.1 MB elsewhere on this disk; " in text.err, "fetch " in text.out) == (True, False)
    assert listing(shell.home) == before
    assert linked(mdl(shell, "get", "one", *JSON))
    assert (server.requests, shares(place(shell), file)) == ([], True)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (status.st_mtime_ns, status.st_ino)


def test_wrong_bytes_of_the_right_size(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """A file of the same size is hashed, not taken, and stays; what was asked for is fetched."""
    (file := also(shell, HARD)).write_bytes(WRONG)
    assert actions(done(mdl(shell, "get", "one", *JSON))) == FETCHED
    assert (server.bytes_sent, place(shell).read_bytes()) == (len(DATA), DATA)
    assert (file.read_bytes(), file.stat().st_nlink) == (WRONG, 1)


@pytest.mark.parametrize("hash_lies", [False, True], ids=["hashed", "control"])
def test_a_rotten_twin(
    shell: Shell, server: FaultyServer, mdl: Inside, monkeypatch: pytest.MonkeyPatch, hash_lies: bool
) -> None:
    """Another model's file whose receipt looks untouched and whose bytes are not is never linked: the hash catches it,
    its path is said, and its own receipt is believed no more. The control: if the hash lies, it is linked."""
    done(mdl(shell, "get", "one", *JSON))
    file = place(shell)
    before = file.stat()
    with file.open("r+b") as opened:
        opened.write(bytes([DATA[0] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert actions(done(mdl(shell, "get", "one", *JSON))) == {"one/f.bin": "kept"}
    if hash_lies:
        lie = Fingerprint(Digest("sha256", sha256(DATA)), len(DATA))
        monkeypatch.setattr(Store, "fingerprint", lambda *_: lie)
        assert linked(mdl(shell, "get", "two", *JSON))
        assert place(shell, "two").read_bytes() == file.read_bytes() != DATA
        return
    ran = done(mdl(shell, "get", "two", *JSON))
    assert (actions(ran), str(file) in ran.err) == ({"two/f.bin": "fetched"}, True)
    assert (server.bytes_sent, place(shell, "two").read_bytes()) == (2 * len(DATA), DATA)
    assert not place(shell, "two").samefile(file)
    assert actions(done(mdl(shell, "get", "one", *JSON))) != {"one/f.bin": "kept"}


@pytest.mark.parametrize(("first", "code"), [(lambda *_: reply(404, b""), 3), (honest(WRONG), 6)])
def test_the_other_ones_own_url(shell: Shell, server: FaultyServer, mdl: Inside, first: Any, code: int) -> None:
    """If the first of several with the same digest fails, the others are fetched from their own URLs."""
    server.handler = routes({"/one": first, "/two": honest(DATA), "/three": honest(DATA)})
    found = actions(done(mdl(shell, "get", *NAMES, *JSON), code))
    assert (found["one/f.bin"], found["two/f.bin"]) == ("failed", "fetched")
    assert place(shell, "two").read_bytes() == place(shell, "three").read_bytes() == DATA
    assert linked(mdl(shell, "get", "one", *JSON))


def test_force_fetches(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """--force takes nothing from this disk."""
    done(mdl(shell, "get", "one", *JSON))
    assert actions(done(mdl(shell, "get", "two", "--force", *JSON))) == {"two/f.bin": "fetched"}
    assert server.bytes_sent == 2 * len(DATA)
    assert not place(shell).samefile(place(shell, "two"))


def test_offline_links(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """What is elsewhere on this disk is had offline too; what is not is 8."""
    done(mdl(shell, "get", "one", *JSON))
    asked = len(server.requests)
    assert linked(mdl(shell, "get", "two", "--offline", *JSON))
    shutil.rmtree(shell.models)
    assert actions(done(mdl(shell, "get", "two", "--offline", *JSON), 8)) == {"two/f.bin": "failed"}
    assert len(server.requests) == asked


@pytest.mark.fault(120)
def test_a_repair_leaves_the_other_name_alone(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """A damaged file with two names is mended under the one that is repaired; the other's bytes are not written to."""
    done(mdl(shell, "get", "one", "two", *JSON))
    if not place(shell).samefile(place(shell, "two")):
        pytest.skip("two clones are two files")
    place(shell).write_bytes(WRONG)
    done(mdl(shell, "verify", "one", "--repair", "--force", "--json"))
    assert (place(shell).read_bytes(), place(shell, "two").read_bytes()) == (DATA, WRONG)
    assert mdl(shell, "verify", "two", "--strict", "--json").code == 6
    assert mdl(shell, "get", "two", *JSON).code == 7
    done(mdl(shell, "verify", "two", "--repair", "--force", "--json"))
    assert place(shell, "two").read_bytes() == DATA


def test_no_partial_is_left(shell: Shell, mdl: Inside) -> None:
    """What was half fetched before it was found elsewhere does not stay on the disk beside the whole."""
    done(mdl(shell, "get", "one", *JSON))
    store = Store(shell.models)
    left = store.partials / f"{file_key('two', RelPath.parse('f.bin'))}.{dead_owner()}"
    left.mkdir()
    (left / "data").write_bytes(DATA[:MIB])
    assert linked(mdl(shell, "get", "two", *JSON))
    assert os.listdir(store.partials) == []


def test_a_receipt_of_a_newer_mdl(shell: Shell, mdl: Inside) -> None:
    """What a newer mdl wrote down of another model is no candidate, and does not hinder this one."""
    receipt = shell.models / ".mdl" / "receipts" / record_name("other") / RECORD
    receipt.parent.mkdir(parents=True)
    receipt.write_bytes(crc_json.dumps({"mdl-receipt": 9}))
    assert actions(done(mdl(shell, "get", "one", *JSON))) == FETCHED


def test_many_empty_files(tmp_path: Path, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files without a byte, which every package of Python has many of, are not waited for one by one."""
    rounds: list[int] = []
    really = Transfer.run

    def counted(transfer: Transfer) -> Result:
        result = really(transfer)
        rounds.append(len(result.files))
        return result

    monkeypatch.setattr(Transfer, "run", counted)
    files = {f"p{number}/__init__.py": b"" for number in range(8)}
    with LoopbackHub([Repo("org/tiny", files)]) as hub:
        done(mdl(Shell(tmp_path, hub.url), "get", "hf:org/tiny", *JSON))
    assert sum(rounds) == len(files)
    assert len(rounds) < 3


def test_two_repositories_of_a_cache_elsewhere(tmp_path: Path, mdl: Inside) -> None:
    """With --layout hf-cache --to DIR, what one repository in DIR has another one there is not sent again."""
    words = ("--layout", "hf-cache", "--to", str(tmp_path / "cache"), *JSON)
    with LoopbackHub([Repo("org/one", {"f.bin": DATA}), Repo("org/two", {"f.bin": DATA})]) as hub:
        shell = Shell(tmp_path, hub.url)
        done(mdl(shell, "get", "hf:org/one", *words))
        assert linked(mdl(shell, "get", "hf:org/two", *words))
        assert hub.sent == len(DATA)


LOOKS = ["downloader.store.Store.fingerprint", "downloader.store.Store.path_of", "downloader.receipt_record.receipt_of"]


@pytest.mark.parametrize("where", LOOKS)
def test_stopped_while_it_looks(
    shell: Shell, server: FaultyServer, mdl: Inside, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A signal while candidates are looked for or hashed ends the get with 143; nothing is fetched or left half."""

    def interrupted(*_: object) -> None:
        raise Cancelled("terminated", terminated=True)

    done(mdl(shell, "get", "one", *JSON))
    sent = server.bytes_sent
    monkeypatch.setattr(f"mdl.{where}", interrupted)
    assert mdl(shell, "get", "two", *JSON).code == 143
    assert (server.bytes_sent, place(shell, "two").exists(), side(shell)) == (sent, False, [])


# Candidates that are not what they seem.


def _to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


ODD = {
    "FIFO": os.mkfifo,
    "folder": os.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "circle": lambda path: path.symlink_to(path.name),
    "link to a FIFO": _to_a_pipe,
}


@pytest.mark.parametrize("where", ["also", "cache"])
@pytest.mark.parametrize("make", ODD.values(), ids=list(ODD))
def test_what_is_no_file(shell: Shell, mdl: Inside, make: Callable[[Path], None], where: str) -> None:
    """A FIFO, a folder, a link to a device, to a FIFO or to itself is passed over, and never waited for."""
    path = also(shell, HARD) if where == "also" else repo_of(shell) / "blobs" / sha256(DATA)
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    assert actions(done(mdl(shell, "get", "one", *JSON))) == FETCHED
    assert (place(shell).read_bytes(), side(shell)) == (DATA, [])


def test_a_link_in_a_folder_of_the_user(shell: Shell, mdl: Inside) -> None:
    """Links below ``[stores] also`` are not followed, neither to files nor to folders; nor is a dry run misled."""
    far, file = shell.home / "far", also(shell, HARD)
    far.mkdir()
    (far / "f.bin").write_bytes(DATA)
    file.symlink_to(far / "f.bin")
    file.with_name("far").symlink_to(far)
    assert done(mdl(shell, "get", "-n", "one", *JSON)).document["bytes_elsewhere"] == 0
    assert actions(done(mdl(shell, "get", "one", *JSON))) == FETCHED
    assert (far / "f.bin").stat().st_nlink == 1


def test_what_may_not_be_read(shell: Shell) -> None:
    """A candidate without the permission to read it is told of in the system's words, and the file is fetched."""
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root can read everything, and setpriv is not here")
    (file := also(shell, HARD)).write_bytes(DATA)
    file.chmod(0)
    prefix = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    ran = done(shell.run("get", "one", *JSON, prefix=prefix))
    assert actions(ran) == FETCHED
    assert f"{file} cannot be used: Permission denied" in ran.err


def test_across_file_systems(
    shell: Shell, server: FaultyServer, mdl: Inside, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another file system the bytes are copied if there is room, hashed as they are here, and count as linked."""
    (elsewhere / "f.bin").write_bytes(DATA)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "free_space", lambda _: len(DATA) - 1)
        assert mdl(shell, "get", "one", *JSON).document["error"]["code"] == "SPACE"
    assert (server.requests, side(shell), place(shell).exists()) == ([], [], False)
    assert linked(mdl(shell, "get", "one", *JSON))
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
    """If hard links cannot be had the bytes are copied, which needs its room: another file with the same bytes."""
    (file := also(shell, HARD)).write_bytes(DATA)

    def refused(*_: object, **__: object) -> None:
        raise OSError(trouble, os.strerror(trouble))

    monkeypatch.setattr(os, "link", refused)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "free_space", lambda _: len(DATA) - 1)
        assert mdl(shell, "get", "one", *JSON).code == (0 if clones(shell.home) else 7)
    assert linked(mdl(shell, "get", "one", *JSON)) or clones(shell.home)
    assert (server.bytes_sent, place(shell).read_bytes()) == (0, DATA)
    assert (file.stat().st_nlink, side(shell)) == (1, [])


def test_no_room_for_a_copy_but_for_a_link(
    shell: Shell, mdl: Inside, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate on this file system needs no room, also if another one came first that does."""
    for file in (elsewhere / "f.bin", shell.home / "also" / "f.bin"):
        file.write_bytes(DATA)
    monkeypatch.setattr(Store, "free_space", lambda _: len(DATA) - 1)
    assert linked(mdl(shell, "get", "one", *JSON))


def test_a_disk_error_while_it_is_read(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate that cannot be read to its end is told of, and what was made of it is removed."""
    also(shell, HARD).write_bytes(DATA)

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", broken)
        ran = mdl(shell, "get", "one", "--offline", *JSON)
    assert (ran.code, side(shell)) == (8, [])
    assert "cannot be used: Input/output error" in ran.err


def test_a_full_disk_is_not_the_fault_of_the_source(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this disk does not take is told as that, not as a fault of the file whose bytes were to be copied."""
    file = also(shell, 'link = "copy"')
    file.write_bytes(DATA)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "copy_file_range", full)
        patch.setattr(os, "pwrite", full)
        ran = mdl(shell, "get", "one", "--offline", *JSON)
    assert (ran.code, side(shell)) == (8, [])
    assert f"its bytes are in {file}, but they cannot be stored: No space left on device" in ran.err
    assert "cannot be used" not in ran.err


def _spoil(file: Path) -> None:
    """Another program writes into its own file."""
    with file.open("r+b") as opened:
        opened.write(b"!")


def test_changed_while_it_is_hashed(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is written to after it was hashed and before it has its name is not taken, nor is its new state."""
    (file := also(shell, HARD)).write_bytes(DATA)
    really = Store.fingerprint

    def slow(store: Store, path: Path, remote: RemoteFile) -> Fingerprint:
        found = really(store, path, remote)
        _spoil(file)
        return found

    monkeypatch.setattr(Store, "fingerprint", slow)
    ran = done(mdl(shell, "get", "one", *JSON))
    assert linked(ran) if clones(shell.home) else actions(ran) == FETCHED
    assert place(shell).read_bytes() == DATA
    assert not place(shell).samefile(file)


def test_changed_before_it_has_its_receipt(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A linked file that is written to between its hash and its receipt is not vouched for by that receipt."""
    (file := also(shell, HARD)).write_bytes(DATA)
    really = publish.give_name

    def late(staged: Path, entry: EntryAt) -> os.stat_result | None:
        copied = really(staged, entry)
        if entry.name == "f.bin":
            _spoil(file)
        return copied

    with monkeypatch.context() as patch:
        patch.setattr(publish, "give_name", late)
        done(mdl(shell, "get", "one", *JSON))
    if not clones(shell.home):
        assert actions(done(mdl(shell, "get", "one", *JSON), 7)) == {"one/f.bin": "failed"}
