"""Bytes taken from elsewhere on this disk: no edit through one name reaches another program or another model."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.copies import JSON, also, linked, place, second_file_system, twins
from support.data import DATA, sha256
from support.faults import honest
from support.faulty_server import FaultyServer
from support.hf_cache import actions, clones, repo_of
from support.loopback_hub import LoopbackHub, Repo
from support.namespaces import USER, prefix_of
from support.shell import Inside, Run, Shell, done

from mdl.downloader.store import Store

SMALL = b'{"sr": 16000}' * 10
REPO = Repo("org/tiny", {"config.json": SMALL, "model.bin": DATA})


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return twins(tmp_path / "home", server)


@pytest.fixture
def far(shell: Shell) -> Iterator[Path]:
    """The same bytes in a folder on another file system that the settings name."""
    with second_file_system(shell) as folder:
        (folder / "f.bin").write_bytes(DATA)
        also(shell, folders=(folder,))
        yield folder


@pytest.fixture(params=["the user of the tests", "a user without rights"])
def user(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The words before a command that make its user another one."""
    return prefix_of(USER) if request.param.startswith("a user") else ()


@pytest.fixture
def get(mdl: Inside, user: tuple[str, ...]) -> Run:
    """``get(shell, …)`` by that user."""
    return lambda shell, *words: shell.run("get", *words, prefix=user) if user else mdl(shell, "get", *words)


def edit(file: Path, prefix: tuple[str, ...]) -> None:
    """What an editor or a trainer does: the file itself is written to, if the user may."""
    with contextlib.suppress(PermissionError):
        if prefix:
            os.system(f"{' '.join(prefix)} sh -c 'printf xxxx | dd of={file} conv=notrunc 2>/dev/null'")
        else:
            with file.open("r+b") as opened:
                opened.write(b"xxxx")


@pytest.mark.fault(252)
@pytest.mark.parametrize(("gets", "edited", "other"), [("one;two", "two", "one"), ("one two", "one", "two")])
def test_an_edit_does_not_reach_another_model(
    shell: Shell, user: tuple[str, ...], get: Run, gets: str, edited: str, other: str
) -> None:
    """A write into a model's file, by a user who may do that, changes no other model with the same bytes, whether one
    command brought them or two."""
    for words in gets.split(";"):
        ran = done(get(shell, *words.split(), *JSON))
    assert "linked" in actions(ran).values()
    edit(place(shell, edited), user)
    assert place(shell, other).read_bytes() == DATA


@pytest.mark.fault(252)
def test_an_edit_does_not_reach_the_hubs_cache(tmp_path: Path, user: tuple[str, ...], get: Run) -> None:
    """Neither a small file's edit nor a large one's reaches the blob in the hub's cache that it was taken from."""
    with LoopbackHub([REPO]) as hub:
        shell = Shell(tmp_path, hub.url)
        done(get(shell, "hf:org/tiny", "--layout", "hf-cache", *JSON))
        assert linked(get(shell, "hf:org/tiny", *JSON))
    for name in REPO.files:
        edit(shell.models / "org--tiny" / name, user)
    assert {file.read_bytes() for file in (repo_of(shell) / "blobs").iterdir()} == {SMALL, DATA}


@pytest.mark.fault(252)
def test_a_large_file_is_one_file_and_read_only(shell: Shell) -> None:
    """For a user whom modes bind, a large file is hard-linked, neither name may be written to, and the text says so;
    reading stays as it was allowed."""
    if clones(shell.home):
        pytest.skip("bytes are cloned here")
    user = prefix_of(USER)
    done(shell.run("get", "one", prefix=user))
    readable = place(shell).stat().st_mode & 0o444
    ran = done(shell.run("get", "two", prefix=user))
    assert place(shell).samefile(place(shell, "two"))
    assert place(shell).stat().st_mode & 0o777 == readable
    assert "hard-linked, read-only" in ran.err


@pytest.mark.fault(252)
def test_another_programs_file_keeps_its_mode(shell: Shell) -> None:
    """A file of ``[stores] also`` that its program may write to is copied; one that is read-only is linked."""
    if clones(shell.home):
        pytest.skip("bytes are cloned here")
    (file := also(shell)).write_bytes(DATA)
    before, user = file.stat(), prefix_of(USER)
    assert linked(shell.run("get", "one", *JSON, prefix=user))
    assert (file.stat().st_mode, file.stat().st_nlink) == (before.st_mode, 1)
    file.chmod(0o444)
    shutil.rmtree(shell.models)
    assert linked(shell.run("get", "one", *JSON, prefix=user))
    assert (file.stat().st_mode & 0o777, file.stat().st_nlink) == (0o444, 2)


@pytest.mark.fault(253)
def test_a_file_of_another_user_is_never_linked(shell: Shell, mdl: Inside) -> None:
    """Another user's file is copied, whatever the settings say: who owns the inode can write it, and set its times."""
    if os.geteuid() != 0:
        pytest.skip("ONLY ROOT CAN GIVE A FILE TO ANOTHER USER")
    (file := also(shell, 'link = "hard"')).write_bytes(DATA)
    os.chown(file, 12345, 12345)
    assert linked(mdl(shell, "get", "one", *JSON))
    assert (file.stat().st_nlink, place(shell).stat().st_uid) == (1, 0)
    assert place(shell).read_bytes() == DATA


@pytest.mark.parametrize(("rule", "links"), [("hard", 2), ("copy", 1), ("reflink", 1), ("auto", None)])
def test_the_users_choice(shell: Shell, mdl: Inside, rule: str, links: int | None) -> None:
    """``[stores] link`` says how: hard links also as root and also of another program's file; copies; or clones, and
    copies where these cannot be had. The text says which it was."""
    (file := also(shell, f'link = "{rule}"')).write_bytes(DATA)
    ran = done(mdl(shell, "get", "one"))
    assert links is None or file.stat().st_nlink == links
    assert any(words in ran.err for words in ("hard-linked, read-only", "copied from this disk", "cloned"))
    assert not file.samefile(place(shell)) or not file.stat().st_mode & 0o222


def test_nothing_is_taken(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """With ``link = "none"`` everything is fetched, each model's bytes for themselves, and the plan says so."""
    (file := also(shell, 'link = "none"')).write_bytes(DATA)
    assert done(mdl(shell, "get", "-n", "one", "two", *JSON)).document["bytes_to_fetch"] == 2 * len(DATA)
    assert set(actions(done(mdl(shell, "get", "one", "two", *JSON))).values()) == {"fetched"}
    assert (file.stat().st_nlink, server.bytes_sent) == (1, 2 * len(DATA))


@pytest.mark.fault(254)
@pytest.mark.parametrize(
    ("line", "hint"), [('link = "hrad"', "hard"), ("link = 3", "hard"), ('lnk = "hard"', "link")], ids=str
)
def test_a_misspelt_choice(shell: Shell, mdl: Inside, line: str, hint: str) -> None:
    """A value or key that is not known is 2, with what is near or what there is."""
    also(shell, line)
    ran = mdl(shell, "get", "one", *JSON)
    assert ran.code == 2
    assert hint in ran.document["error"]["message"]


@pytest.mark.fault(255)
def test_a_read_only_file_gives_way(shell: Shell, server: FaultyServer) -> None:
    """mdl replaces and repairs its own read-only file, and never writes into an inode that another name has."""
    user = prefix_of(USER)
    also(shell, 'link = "hard"')
    done(shell.run("get", "one", "two", *JSON, prefix=user))
    assert place(shell).samefile(place(shell, "two"))
    place(shell).chmod(0o644)
    edit(place(shell), ())
    damaged = place(shell, "two").read_bytes()
    place(shell).chmod(0o444)
    done(shell.run("verify", "one", "--repair", "--force", "--json", prefix=user))
    assert (place(shell).read_bytes(), place(shell, "two").read_bytes()) == (DATA, damaged)
    place(shell, "two").chmod(0o444)
    other = DATA[::-1]
    server.handler = honest(other)
    (shell.home / "catalog.toml").write_text(catalog_of(other, one=f"{server.url}/one"))
    place(shell).chmod(0o444)
    done(shell.run("get", "one", *JSON, prefix=user))
    assert (place(shell).read_bytes(), place(shell, "two").read_bytes()) == (other, damaged)


@pytest.mark.fault(256)
@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("words", [("-n",), ()], ids=["dry run", "get"])
def test_copies_count(
    shell: Shell, server: FaultyServer, mdl: Inside, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Bytes that must come from another file system need room: 7 before the first byte, also in a dry run."""
    monkeypatch.setattr(Store, "free_space", lambda _: len(DATA) - 1)
    ran = mdl(shell, "get", *words, "one", *JSON)
    assert (ran.code, ran.document["error"]["code"]) == (7, "SPACE")
    assert ran.document["error"]["hint"]
    assert not (shell.models / ".mdl" / "side").exists()
    assert (server.requests, place(shell).exists()) == ([], False)


@pytest.mark.fault(256)
@pytest.mark.usefixtures("far")
def test_a_plan_says_what_is_copied(shell: Shell, mdl: Inside) -> None:
    """What is on another file system is not "already here": the plan says that it is elsewhere, and copied."""
    ran = done(mdl(shell, "get", "-n", "one"))
    assert ("already here" in ran.err, "3.1 MB to copy" in ran.err) == (False, True)
    assert ran.out.splitlines()[-1].startswith("copy ")
    assert done(mdl(shell, "get", "-n", "one", *JSON)).document["bytes_to_copy"] == len(DATA)
    assert "copied from this disk" in done(mdl(shell, "get", "one")).err


@pytest.mark.fault(256)
def test_copies_for_a_second_model_count(
    shell: Shell, server: FaultyServer, mdl: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the second model of a command gets a copy of what the first one fetches, the plan needs room for both."""
    also(shell, 'link = "copy"')
    monkeypatch.setattr(Store, "free_space", lambda _: 2 * len(DATA) - 1)
    ran = mdl(shell, "get", "one", "two", *JSON)
    assert (ran.code, ran.document["error"]["code"]) == (7, "SPACE")
    assert server.bytes_sent == 0
    also(shell, 'link = "hard"')
    done(mdl(shell, "get", "one", "two", *JSON))


@pytest.mark.fault(257)
@pytest.mark.parametrize("first", ["plain", "hf-cache"])
def test_the_layouts_know_each_other(tmp_path: Path, mdl: Inside, first: str) -> None:
    """What is here in one layout is not fetched again for the other, and each is whole then."""
    second = "hf-cache" if first == "plain" else "plain"
    with LoopbackHub([REPO]) as hub:
        shell = Shell(tmp_path, hub.url)
        done(mdl(shell, "get", "hf:org/tiny", "--layout", first, *JSON))
        sent = hub.sent
        assert linked(mdl(shell, "get", "hf:org/tiny", "--layout", second, *JSON))
        assert hub.sent == sent
        done(mdl(shell, "verify", "--layout", second, "--json"))
    blobs = [file.read_bytes() for file in (repo_of(shell) / "blobs").iterdir()]
    assert sorted(blobs) == sorted([DATA, SMALL])


@pytest.mark.fault(257)
def test_a_folder_of_its_own_knows_the_models_folder(shell: Shell, server: FaultyServer, mdl: Inside) -> None:
    """With --to and --into, what the usual models folder has is taken from there."""
    done(mdl(shell, "get", "one", *JSON))
    sent = server.bytes_sent
    assert linked(mdl(shell, "get", "one", "--to", str(shell.home / "other"), *JSON))
    assert linked(mdl(shell, "get", "two", "--into", str(shell.home / "into"), *JSON))
    assert (server.bytes_sent, sha256((shell.home / "into" / "f.bin").read_bytes())) == (sent, sha256(DATA))
