"""Bytes that are on this disk are taken from there: cloned, linked or copied, hashed first, and reported as linked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.data import MIB, sha256
from support.faults import honest, routes
from support.faulty_server import FaultyServer, reply
from support.hubs import Hf, Hub, actions, clones, listing
from support.loopback_hub import Generated, Repo
from support.schemas import events_of
from support.shell import Inside, Shell, done, settings

DATA = Generated(3 * MIB, "elsewhere")[0 : 3 * MIB]
WRONG = DATA[:-1] + bytes([DATA[-1] ^ 1])
REPO = Repo("org/tiny", {"config.json": b'{"a": 1}', "model.bin": DATA})
JSON = ("--json", "--retries", "1")


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(honest(DATA)) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    """A machine whose catalog has the models one, two and three: the same bytes under different URLs."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "catalog.toml").write_text(catalog_of(DATA, **{name: f"{server.url}/{name}" for name in NAMES}))
    shell = Shell(home)
    settings(shell, HARD)
    return shell


NAMES = ("one", "two", "three")
HARD = '[stores]\nlink = "hard"\n'
"""Also as root, who gets copies otherwise."""


def place(shell: Shell, name: str) -> Path:
    return shell.models / name / "f.bin"


def comfy(shell: Shell, data: bytes = DATA) -> Path:
    """A file of another program, in a folder that the user's settings name."""
    folder = shell.home / "comfy"
    settings(shell, HARD + f'also = ["{folder}"]\n')
    file = folder / "checkpoints" / "another name.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    return file


def shares(one: Path, other: Path) -> bool:
    """Both names have their bytes on the same blocks, as far as this file system can do that by cloning."""
    return one.read_bytes() == other.read_bytes() and (one.samefile(other) or clones(one.parent))


def test_a_second_model(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """A file that another model of mdl has is not fetched again: no body byte, one copy on the disk, and a receipt."""
    done(mdl(shell, "get", "one", *JSON))
    sent = server.bytes_sent
    ran = done(mdl(shell, "get", "two", *JSON))
    assert actions(ran) == {"two/f.bin": "linked"}
    assert (server.bytes_sent, ran.document["bytes_fetched"], ran.document["bytes_kept"]) == (sent, 0, len(DATA))
    assert ran.document["models"][0]["files"][0]["verified"] == "sha256"
    assert shares(place(shell, "one"), place(shell, "two"))
    assert ran.document["models"][0]["status"] == "present"
    assert actions(done(mdl(shell, "get", "two", "--offline", *JSON))) == {"two/f.bin": "kept"}
    assert done(mdl(shell, "verify", "two", "--json")).document["models"][0]["files"][0]["status"] == "ok"


def test_three_models_in_one_command(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """Models of one command that share a file: it is fetched once, and its events are of the schema."""
    ran = done(mdl(shell, "get", *NAMES, "--json", "--progress", "json"))
    assert sorted(actions(ran).values()) == ["fetched", "linked", "linked"]
    assert (server.bytes_sent, ran.document["bytes_fetched"]) == (len(DATA), len(DATA))
    assert all(shares(place(shell, "one"), place(shell, name)) for name in NAMES)
    assert events_of(ran.err)[-1]["event"] == "finished"


def test_by_a_real_process(shell: Shell, server: FaultyServer) -> None:
    """The same as its users run it: the folder on stdout, and what was linked on stderr."""
    assert shell.run("get", "one").code == 0
    ran = shell.run("get", "two")
    assert (ran.code, ran.out) == (0, f"{shell.models / 'two'}\n")
    assert "linked" in ran.err or clones(shell.home)
    assert server.bytes_sent == len(DATA)


@pytest.mark.parametrize("variable", ["", "HF_HOME", "HF_HUB_CACHE"])
def test_a_blob_of_the_hubs_cache(tmp_path: Path, mdl: Inside, hf: Hf, variable: str) -> None:
    """What the hub's client fetched is taken from its cache, wherever that is, large files and small ones alike."""
    cache = tmp_path / "far" / "hub" if variable else tmp_path / ".cache" / "huggingface" / "hub"
    extra = {"": {}, "HF_HOME": {"HF_HOME": str(tmp_path / "far")}, "HF_HUB_CACHE": {"HF_HUB_CACHE": str(cache)}}
    with Hub([REPO]) as hub:
        hf("snapshot", repo_id="org/tiny", cache_dir=cache, endpoint=hub.url)
        before, sent = listing(cache / "models--org--tiny" / "snapshots"), hub.sent
        shell = Shell(tmp_path, hub.url, extra[variable])
        settings(shell, HARD)
        ran = done(mdl(shell, "get", "hf:org/tiny", *JSON))
        assert hub.sent == sent
    assert actions(ran) == {"org--tiny/config.json": "linked", "org--tiny/model.bin": "linked"}
    blob = cache / "models--org--tiny" / "blobs" / sha256(DATA)
    assert shares(shell.models / "org--tiny" / "model.bin", blob)
    assert listing(cache / "models--org--tiny" / "snapshots") == before


def test_a_blob_that_the_hub_shares(tmp_path: Path, shell: Shell, server: FaultyServer, mdl: Inside, hf: Hf) -> None:
    """A blob that is a link into the hub's shared store is taken as any other, and the store stays as it was."""
    cache = shell.home / ".cache" / "huggingface" / "hub"
    with Hub([REPO]) as hub:
        hf("snapshot", repo_id="org/tiny", cache_dir=cache, endpoint=hub.url)
    blob = cache / "models--org--tiny" / "blobs" / sha256(DATA)
    assert hf("share", cache_dir=cache, blob=blob, size=len(DATA))
    assert actions(done(mdl(shell, "get", "one", *JSON))) == {"one/f.bin": "linked"}
    assert server.bytes_sent == 0
    assert blob.is_symlink()
    assert place(shell, "one").read_bytes() == blob.read_bytes() == DATA
    assert not place(shell, "one").is_symlink()


def test_a_blob_that_the_hub_shares_is_not_copied(shell: Shell, mdl: Inside) -> None:
    """Where a blob is a link into the shared store, the file it leads to is hard-linked rather than copied."""
    blobs = shell.home / ".cache" / "huggingface" / "hub" / "models--org--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs.parents[1] / "payload").write_bytes(DATA)
    (blobs / sha256(DATA)).symlink_to("../../payload")
    assert actions(done(mdl(shell, "get", "one", *JSON))) == {"one/f.bin": "linked"}
    assert shares(place(shell, "one"), blobs.parents[1] / "payload")


def test_a_folder_that_the_user_names(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """A file of another program, below a folder of ``[stores] also`` and by another name, is taken and stays."""
    file = comfy(shell)
    before = file.stat()
    assert actions(done(mdl(shell, "get", "one", *JSON))) == {"one/f.bin": "linked"}
    assert server.bytes_sent == 0
    assert shares(place(shell, "one"), file)
    after = file.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_wrong_bytes_of_the_right_size(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """A file of the same size is hashed, not taken, and stays; what was asked for is fetched."""
    file = comfy(shell, WRONG)
    assert actions(done(mdl(shell, "get", "one", *JSON))) == {"one/f.bin": "fetched"}
    assert (server.bytes_sent, place(shell, "one").read_bytes()) == (len(DATA), DATA)
    assert (file.read_bytes(), file.stat().st_nlink) == (WRONG, 1)


def rotten(shell: Shell, mdl: Inside) -> Path:
    """The model one, a bit of it flipped in a way that its receipt cannot tell."""
    done(mdl(shell, "get", "one", *JSON))
    file = place(shell, "one")
    before = file.stat()
    with file.open("r+b") as opened:
        opened.write(bytes([DATA[0] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert actions(done(mdl(shell, "get", "one", *JSON))) == {"one/f.bin": "kept"}
    return file


def test_a_rotten_twin_is_never_linked(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """Another model's file whose receipt looks untouched and whose bytes are not: the hash catches it."""
    file = rotten(shell, mdl)
    assert actions(done(mdl(shell, "get", "two", *JSON))) == {"two/f.bin": "fetched"}
    assert (server.bytes_sent, place(shell, "two").read_bytes()) == (2 * len(DATA), DATA)
    assert not place(shell, "two").samefile(file)


def test_it_is_the_hash_that_catches_it(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: where the hash is made to lie, the rotten file is linked; nothing else would have stopped it."""
    from mdl.engine.store import Store
    from mdl.hashing import Digest, Fingerprint

    file = rotten(shell, mdl)
    lie = Fingerprint(Digest("sha256", sha256(DATA)), len(DATA))
    monkeypatch.setattr(Store, "fingerprint", lambda *_: lie)
    assert actions(done(mdl(shell, "get", "two", *JSON))) == {"two/f.bin": "linked"}
    assert place(shell, "two").read_bytes() == file.read_bytes() != DATA


def test_a_rotten_twin_is_told_of(shell: Shell, mdl: Inside) -> None:
    """That another model's file turned out damaged is said, by its path, and its own receipt is believed no more."""
    file = rotten(shell, mdl)
    assert str(file) in done(mdl(shell, "get", "two", *JSON)).err
    assert actions(done(mdl(shell, "get", "one", *JSON))) != {"one/f.bin": "kept"}


@pytest.mark.parametrize("first", ["absent", "false"])
def test_the_other_ones_own_url(shell: Shell, server: FaultyServer, mdl: Inside, first: str) -> None:
    """Where the first of several with the same digest fails, the others are fetched from their own URLs."""
    bad = (lambda *_: reply(404, b"")) if first == "absent" else honest(WRONG)
    server.handler = routes({"/one": bad, "/two": honest(DATA), "/three": honest(DATA)})
    ran = done(mdl(shell, "get", *NAMES, *JSON), 3 if first == "absent" else 6)
    found = actions(ran)
    assert (found["one/f.bin"], found["two/f.bin"]) == ("failed", "fetched")
    assert place(shell, "two").read_bytes() == place(shell, "three").read_bytes() == DATA
    assert actions(done(mdl(shell, "get", "one", *JSON))) == {"one/f.bin": "linked"}


def test_force_fetches(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """--force takes nothing from this disk."""
    done(mdl(shell, "get", "one", *JSON))
    assert actions(done(mdl(shell, "get", "two", "--force", *JSON))) == {"two/f.bin": "fetched"}
    assert server.bytes_sent == 2 * len(DATA)
    assert not place(shell, "one").samefile(place(shell, "two"))


def test_offline_links(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """What is elsewhere on this disk is had offline too; what is not is 8."""
    done(mdl(shell, "get", "one", *JSON))
    asked = len(server.requests)
    assert actions(done(mdl(shell, "get", "two", "--offline", *JSON))) == {"two/f.bin": "linked"}
    shutil.rmtree(shell.models)
    assert actions(done(mdl(shell, "get", "two", "--offline", *JSON), 8)) == {"two/f.bin": "failed"}
    assert len(server.requests) == asked


def test_a_dry_run_takes_nothing(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """The plan tells how many bytes are elsewhere and that none is to be fetched; the disk stays as it is."""
    comfy(shell)
    before = listing(shell.home)
    ran = done(mdl(shell, "get", "-n", "one", *JSON))
    facts = ran.document
    assert (facts["bytes_to_fetch"], facts["bytes_elsewhere"], facts["bytes_total"]) == (0, len(DATA), len(DATA))
    assert actions(ran) == {"one/f.bin": "planned"}
    assert "elsewhere on this disk: 3.1 MB" in done(mdl(shell, "get", "-n", "one")).err
    assert (listing(shell.home), server.requests) == (before, [])


def test_a_dry_run_says_which_file(shell: Shell, mdl: Inside) -> None:
    """The table of a plan does not say that a file is fetched which would be linked."""
    comfy(shell)
    assert "fetch " not in done(mdl(shell, "get", "-n", "one")).out


def test_a_plan_counts_each_digest_once(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """What two models share is fetched once, so it is planned once, and a disk with room for one is large enough."""
    assert done(mdl(shell, "get", "-n", *NAMES, *JSON)).document["bytes_to_fetch"] == len(DATA)
    monkeypatch.setattr("mdl.engine.store.Store.free_space", lambda _: len(DATA) + MIB)
    done(mdl(shell, "get", *NAMES, *JSON))
