"""mdl lock, and get, verify, list and show under a lock, with a hub and plain servers on loopback."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.catalogs import unpinned
from support.data import sha256, spoil
from support.faults import acting, honest
from support.faulty_server import FaultyServer
from support.locks import lock_of, models_of, only_file
from support.loopback_hub import LoopbackHub, Repo
from support.shell import NOBODY, Ran, Run, Shell, bytes_of, done, machine, started, write_catalog

from mdl.catalog.lock import Lock, LockedModel
from mdl.catalog.lock_file import parse_lock, read_lock, update_lock, write_lock
from mdl.catalog.resolver import Resolver

TINY = Repo("org/tiny", {"config.json": b'{"a": 1}', "model.bin": b"1" * 5000}, lfs_threshold=1000)
MOVED = Repo("org/tiny", {"config.json": b'{"a": 1}', "model.bin": b"2" * 5000, "new.txt": b"n"}, lfs_threshold=1000)
SHUT = Repo("org/shut", {"model.bin": b"s"}, private=True)
CATALOG = """\
# What is written here stays.
schema = 1
[models.tiny]   # follows its branch
title = "Tiny"
source = "hf:org/tiny"
[models.lost]
gone = "it burnt down"
"""
ONE, TWO, LONG = b"on\0" * 100, b"tw\0" * 100, b"longe\0" * 100


Ok = Callable[..., Ran]
REPOS = [TINY, SHUT]


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return machine(tmp_path / "home", CATALOG, hub.url)


@pytest.fixture
def first(tmp_path: Path, server: FaultyServer) -> Shell:
    """A machine whose model one has a file of which only the URL is known."""
    server.handler = honest(ONE)
    return machine(tmp_path / "first", unpinned(f"{server.url}/f.bin"))


def listed(hub: LoopbackHub) -> list[str]:
    """What was asked of the hub's API; its resolve-cache is where a small file's bytes come from."""
    return [one.path for one in hub.requests if one.path.startswith("/api/") and "/resolve-cache/" not in one.path]


def test_a_lock_stands_beside_its_catalog(shell: Shell) -> None:
    """The lock is written where the catalog is, which keeps every byte; a second run leaves the very same file."""
    folder = machine(shell.home / "deep", CATALOG).home
    ran = done(shell.run("lock", "--catalog", "deep/catalog.toml"))
    lock = folder / "mdl.lock"
    assert (ran.out, ran.err) == (f"{lock}\n", f"locked tiny at {TINY.commit[:7]}, 2 files, 5.0 kB\n")
    before, text = lock.stat(), lock.read_bytes()
    document = done(shell.run("lock", "--catalog", "deep/catalog.toml", "--json")).document
    assert (lock.stat().st_ino, lock.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (lock.read_bytes(), (folder / "catalog.toml").read_text()) == (text, CATALOG)
    assert sorted(path.name for path in folder.iterdir()) == ["catalog.toml", "mdl.lock"]
    facts = {"name": "tiny", "locked": True, "files": 2, "without_digest": 0, "tofu": 0, "revisions": [TINY.commit]}
    facts["left_out"] = []
    rest = {"ok": True, "exit_code": 0, "error": None, "path": str(lock), "changes": []}
    assert document == {"schema": "mdl.lock/1", **rest, "models": [facts]}


def test_two_machines_have_the_same_lock_and_bytes(tmp_path: Path, hub: LoopbackHub, ok: Ok) -> None:
    """Two empty homes write the same lock, and get --locked brings both the same files."""
    shells = [machine(tmp_path / name, CATALOG, hub.url) for name in ("a", "b")]
    for shell in shells:
        ok(shell, "lock; get tiny --locked")
    assert lock_of(shells[0]).read_bytes() == lock_of(shells[1]).read_bytes()
    assert bytes_of(shells[0]) == bytes_of(shells[1]) == dict(TINY.files)


def test_a_branch_that_moved(shell: Shell, hub: LoopbackHub, ok: Ok) -> None:
    """--check asks nobody, and stays 0: what moved is for outdated to find, with --exit-code 8. lock and get stay with
    what was locked until --upgrade."""
    ok(shell, "lock")
    hub.publish(MOVED)
    text, asked = lock_of(shell).read_bytes(), len(hub.requests)
    assert ok(shell, "lock --check --json").document["changes"] == []
    assert len(hub.requests) == asked
    ok(shell, "outdated")
    document = ok(shell, "outdated tiny --exit-code --json", 8).document
    assert (document["ok"], document["error"]["code"]) == (False, "LOCK")
    ok(shell, "lock; get tiny; verify tiny")
    assert (bytes_of(shell), lock_of(shell).read_bytes()) == (dict(TINY.files), text)
    rows = {row["name"]: row for row in ok(shell, "list --json").document["models"]}
    assert (rows["tiny"]["status"], rows["tiny"]["files"]) == ("present", 2)
    assert ok(shell, "lock --upgrade tiny; get tiny --locked; lock --check").err == ""
    ok(shell, "outdated tiny --exit-code")
    assert bytes_of(shell)["model.bin"] == MOVED.files["model.bin"]


def test_a_lock_that_does_not_cover(shell: Shell, ok: Ok) -> None:
    """No lock, or one of another entry, is 8 for --check and --locked; what left the catalog leaves the lock."""
    assert "there is no lock" in ok(shell, "lock --check", 8).err
    assert ok(shell, "get tiny --locked --json", 8).document["models"][0]["error"]["code"] == "LOCK"
    assert not lock_of(shell).exists()
    ok(shell, "lock")
    text = lock_of(shell).read_bytes()
    write_catalog(shell, CATALOG.replace('tiny"\n[', 'tiny"\ninclude = ["*.json"]\n['))
    assert "tiny: its entry has changed" in ok(shell, "lock --check", 8).err
    assert "has changed" in ok(shell, "get tiny --locked", 8).err
    assert not (shell.models / "tiny").exists()
    ok(shell, "get tiny")
    assert list(bytes_of(shell)) == ["config.json"]
    write_catalog(shell, CATALOG.replace("models.tiny", "models.small"))
    told = ok(shell, "lock --check", 8).err
    assert told.startswith(
        "small: not locked yet\ntiny: not in the catalog any more\nmdl: mdl.lock: out of date: 2 changes"
    )
    assert lock_of(shell).read_bytes() == text
    assert "took tiny out of the lock: it is not in the catalog any more\n" in ok(shell, "lock").err
    assert list(models_of(shell)) == ["small"]


def test_frozen_asks_the_file_hosts_only(shell: Shell, hub: LoopbackHub, ok: Ok) -> None:
    """--frozen uses the lock though branch and entry moved on, and calls no API; for a model without a block it is 8. A
    repair is checked against the lock as well."""
    ok(shell, "lock")
    hub.publish(MOVED)
    shutil.rmtree(shell.models)
    write_catalog(shell, CATALOG.replace("hf:org/tiny", "hf:org/shut"))
    assert (before := listed(hub))
    ok(shell, "get tiny --frozen")
    ok(shell, "get hf:org/tiny --frozen", 8)
    assert (bytes_of(shell), listed(hub)) == (dict(TINY.files), before)
    spoil(shell.models / "tiny" / "model.bin", b"3" * 5000)
    ok(shell, "verify tiny --frozen --repair")
    assert bytes_of(shell) == dict(TINY.files)


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_offline_with_a_lock_opens_no_socket(shell: Shell, ok: Ok) -> None:
    """show knows a locked model that was never listed here; get, verify and lock --check --offline open no socket."""
    ok(shell, "lock")
    shutil.rmtree(shell.models)
    files = ok(replace(shell, endpoint=NOBODY), "show tiny --json").document["files"]
    assert [(file["size"], file["status"]) for file in files] == [(8, "missing"), (5000, "missing")]
    ok(shell, "get tiny --locked")
    shutil.rmtree(shell.models / ".mdl" / "listings", ignore_errors=True)
    for words in (["get", "tiny", "--locked"], ["verify", "tiny"], ["lock", "--check"]):
        log = shell.home / "calls"
        done(shell.run(*words, "--offline", prefix=("strace", "-f", "-o", str(log), "-e", "trace=socket,connect")))
        assert not re.search(r"socket\(|connect\(", log.read_text()), words


def test_trust_on_first_use(first: Shell, server: FaultyServer, tmp_path: Path, ok: Ok) -> None:
    """A file without a published hash is locked without one, and told; the first get records what came, marked so. From
    then on it is present and verified, and other bytes are refused on any machine with that lock."""
    assert "one: 1 file has no published digest" in ok(first, "lock").err
    assert (only_file(first).digest, only_file(first).size, only_file(first).tofu) == (None, len(ONE), False)
    ok(first, "get one; verify --strict")
    assert (str(only_file(first).digest), only_file(first).tofu) == (f"sha256:{sha256(ONE)}", True)
    assert ok(first, "list --json").document["models"][0]["status"] == "present"
    document = ok(first, "lock --check --json").document
    assert (document["models"][0]["tofu"], document["models"][0]["without_digest"]) == (1, 0)
    second, third = (machine(tmp_path / name, unpinned(f"{server.url}/f.bin")) for name in "bc")
    for other in (second, third):
        shutil.copy(lock_of(first), lock_of(other))
    ok(second, "get one --locked")
    assert bytes_of(second, "one") == {"f.bin": ONE}
    server.handler = honest(TWO, etag='"v2"')
    assert ok(third, "get one --json", 6).document["error"]["code"] == "HASH"
    assert not (third.models / "one" / "f.bin").exists()


@pytest.mark.parametrize("words", ["get tiny", "list", "show tiny", "verify tiny", "lock", "lock --upgrade tiny"])
def test_a_broken_lock(shell: Shell, ok: Ok, words: str) -> None:
    """Every command that uses the lock ends with 12 if it is broken, and names it; the file stays as it was."""
    lock_of(shell).write_text("version = 2\n<<<<<<< HEAD\n")
    (shell.models / "tiny").mkdir(parents=True)
    error = ok(shell, f"{words} --json", 12).document["error"]
    assert (error["code"], error["item"]) == ("STATE", str(lock_of(shell)))
    assert lock_of(shell).read_text() == "version = 2\n<<<<<<< HEAD\n"


def test_what_cannot_be_resolved_hinders_no_other(shell: Shell, ok: Ok) -> None:
    """A repository closed to us (401) is 4, with one that is not there 10; the others are locked; gone ones are not."""
    shut = CATALOG + '[models.shut]\nsource = "hf:org/shut"\n'
    write_catalog(shell, shut)
    document = ok(shell, "lock --json", 4).document
    assert {row["name"]: row["locked"] for row in document["models"]} == {"tiny": True, "shut": False}
    assert (document["error"]["code"], document["changes"]) == (
        "AUTH",
        [f"locked tiny at {TINY.commit[:7]}, 2 files, 5.0 kB"],
    )
    assert document["error"]["item"].startswith("shut: ")
    assert list(models_of(shell)) == ["tiny"]
    write_catalog(shell, shut + '[models.none]\nsource = "hf:org/none"\n')
    ran = ok(shell, "lock", 10)
    assert all(name in ran.err for name in ("shut", "none", "2 models could not be resolved"))


def test_what_came_from_elsewhere_is_not_what_the_lock_trusts(first: Shell, ok: Ok) -> None:
    """After the entry's URL changed, plain get records nothing for the URL that is locked."""
    ok(first, "lock")
    with FaultyServer(honest(TWO)) as other:
        write_catalog(first, unpinned(f"{other.url}/f.bin"))
        ok(first, "get one")
    assert only_file(first).digest is None


def test_what_the_lock_gains_meanwhile_is_kept(first: Shell, server: FaultyServer, ok: Ok) -> None:
    """What another command put into the lock while get was at work is still there when it ends."""
    ok(first, "lock")

    def meddle() -> None:
        lock_of(first).write_text(lock_of(first).read_text() + '\n[[model]]\nname = "more"\nfiles = []\nentry = "e"\n')
        server.handler = honest(ONE)

    server.handler = acting(meddle, honest(ONE))
    ok(first, "get one")
    assert only_file(first).tofu
    assert "more" in models_of(first)


@pytest.mark.parametrize("later", [TWO, LONG])
@pytest.mark.parametrize("words", ["get one", "lock; get one"])
def test_an_upgrade_trusts_anew(first: Shell, server: FaultyServer, ok: Ok, words: str, later: bytes) -> None:
    """What changed at its source since it was first fetched is locked as it is now, and get brings that; --check asks
    no source, and so finds nothing."""
    ok(first, words)
    server.handler = honest(later, etag='"v2"')
    if words != "get one":
        ok(first, "lock --check")
    ok(first, "lock --upgrade one; get one")
    assert bytes_of(first, "one") == {"f.bin": later}


@pytest.mark.fault(258)
def test_two_locks_at_once(tmp_path: Path, hub: LoopbackHub, ok: Ok, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another 'mdl lock', or a first use, writes while this one resolves is still there when it ends."""
    shell = machine(tmp_path / "two", f'{CATALOG}[models.other]\nsource = "hf:org/tiny"\n', hub.url)
    really = Resolver.resolve_each

    def slow(*words: Any) -> Any:
        monkeypatch.setattr(Resolver, "resolve_each", really)
        done(shell.run("lock", "other"))
        return really(*words)

    monkeypatch.setattr(Resolver, "resolve_each", slow)
    ok(shell, "lock tiny")
    assert sorted(models_of(shell)) == ["other", "tiny"]


@pytest.mark.fault(258)
def test_first_digests_at_once(tmp_path: Path) -> None:
    """Many that put a model each into one lock at the same time lose none."""
    path, names = tmp_path / "mdl.lock", [f"model{number}" for number in range(24)]

    def put(name: str) -> None:
        update_lock(path, path, lambda now: now.with_model(LockedModel(name, "entry", ())))

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(put, names))
    found = read_lock(path, path)
    assert found
    assert sorted(found.models) == sorted(names)


@pytest.mark.fault(258)
def test_what_is_written_while_a_lock_changes(tmp_path: Path) -> None:
    """A lock that another program writes meanwhile, whatever locks say, is the one that is changed."""
    path = tmp_path / "mdl.lock"

    def change(now: Lock) -> Lock:
        if not now.models:
            write_lock(path, Lock().with_model(LockedModel("theirs", "entry", ())))
        return now.with_model(LockedModel("mine", "entry", ()))

    update_lock(path, path, change)
    assert sorted(parse_lock(path.read_text()).models) == ["mine", "theirs"]


@pytest.mark.fault(258)
def test_two_first_uses_at_once(tmp_path: Path, server: FaultyServer, ok: Ok) -> None:
    """Gets whose files have no published digest, ended at the same time, all leave what came in the lock."""
    server.handler = honest(ONE)
    names = ("one", "two", "three", "four")
    models = [unpinned(f"{server.url}/{name}").replace("models.one", f"models.{name}") for name in names]
    shell = machine(tmp_path / "home", "schema = 1\n" + "".join(text.removeprefix("schema = 1\n") for text in models))
    ok(shell, "lock")
    with ExitStack() as stack:
        running = [stack.enter_context(started(shell, "get", name)) for name in names]
        assert [process.wait() for process in running] == [0] * len(names)
    assert all(models_of(shell)[name].files[0].tofu for name in names)


def test_a_lock_of_models_that_are_not_there(run: Run, shell: Shell) -> None:
    """Each model has a message, their common hint is given once, and no path is printed: no lock was written."""
    entries = "".join(f'[models.m{number}]\nsource = "hf:org/none{number}"\n' for number in range(3))
    write_catalog(shell, f"schema = 1\n{entries}")
    ran = run("lock", 3)
    each, _, joint = ran.err.partition("mdl: 3 models could not be resolved\n")
    assert (each.count("answered 404"), each.count("hint:"), joint.count("hint:")) == (3, 1, 1)
    assert ran.out == ""


def test_near_names_are_near(run: Run, shell: Shell) -> None:
    """A letter that is in a name, or half of one's letters, proposes nothing."""
    assert "did you mean tiny?" in run("show tny", 3).err
    assert "did you mean tiny?" in run("show iny", 3).err
    for name in ("t", "tools"):
        assert "did you mean" not in run(f"show {name}", 3).err
