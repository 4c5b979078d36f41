"""mdl update: the lock is resolved anew and what changed is fetched, with a hub on loopback."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from support.data import MIB, noise
from support.faults import honest
from support.faulty_server import FaultyServer
from support.hf_cache import listing
from support.locks import lock_of, models_of
from support.loopback_hub import LoopbackHub, Repo
from support.polling import until
from support.shell import Inside, Run, Shell, bytes_of, done, machine, started, write_catalog

TINY = Repo("org/tiny", {"config.json": b"{}", "model.bin": b"1" * 5000, "old.txt": b"o"}, lfs_threshold=9)
MOVED = replace(TINY, files={"config.json": b"{}", "model.bin": b"2" * 5000, "new.txt": b"n"}, commit="")
BIG = replace(TINY, files={"config.json": b"{}", "model.bin": noise(8 * MIB, 1)}, commit="")
CATALOG = 'schema = 1\n[models.tiny]\nsource = "hf:org/tiny"\n[groups]\nnightly = ["tiny"]\n'
PINNED = CATALOG.replace('tiny"\n[', f'tiny"\nrevision = "{TINY.commit}"\n[', 1)
OLD, NEW = TINY.commit[:7], MOVED.commit[:7]
REPOS = [TINY]


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub) -> Shell:
    return machine(tmp_path / "home", CATALOG, hub.url)


def commits(shell: Shell) -> set[str]:
    """The commits that the lock has of tiny."""
    return {one.revision for one in models_of(shell)["tiny"].files}


@pytest.mark.parametrize("name", ["tiny", "nightly"])
def test_under_a_lock(shell: Shell, hub: LoopbackHub, ok: Run, name: str) -> None:
    """The lock is at the new commit, only what changed is fetched, and one line says from where to where. It is a job
    as get is; a second update changes nothing, and get --locked is content."""
    ok(shell, "lock; get tiny")
    hub.publish(MOVED)
    before = hub.sent
    ran = ok(shell, f"update {name}")
    assert (ran.out, hub.sent - before) == (f"{shell.models / 'tiny'}\n", 5001)
    assert f"tiny: {OLD} → {NEW}, 2 of 3 files, 5.0 kB\n" in ran.err
    assert (commits(shell), bytes_of(shell)["model.bin"]) == ({MOVED.commit}, MOVED.files["model.bin"])
    text, before = lock_of(shell).read_bytes(), hub.sent
    assert f"tiny: up to date at {NEW}\n" in ok(shell, f"update {name}; get tiny --locked; update {name}").err
    assert (lock_of(shell).read_bytes(), hub.sent) == (text, before)
    assert [job["command"] for job in ok(shell, "jobs --json").document["jobs"]].count("update") == 3
    assert "old.txt" in ok(shell, "clean").out


def test_without_a_lock(shell: Shell, hub: LoopbackHub, ok: Run) -> None:
    """Without a lock it is get with the newest commit, and makes none; the document has the commits. What both commits
    have is of the new one from then on."""
    ok(shell, "get tiny")
    hub.publish(MOVED)
    [move] = ok(shell, "update tiny --json").document["moves"]
    facts = {"name": "tiny", "files": 3, "files_changed": 2, "bytes": 5001, "pinned": False}
    assert move == facts | {"before": [TINY.commit], "after": [MOVED.commit]}
    assert not lock_of(shell).exists()
    assert ok(shell, "outdated --json").document["models"][0]["state"] == "current"
    shown = ok(shell, "show tiny --json").document
    assert (shown["model"]["commits"], shown["files"][0]["role"]) == ([MOVED.commit], "config")


def test_what_no_catalog_has(shell: Shell, hub: LoopbackHub, ok: Run) -> None:
    """A model that was fetched by its reference is updated by its folder's name, and called as people write it; a lock
    is not touched by that."""
    ok(shell, "lock; get hf:org/tiny")
    text = lock_of(shell).read_bytes()
    hub.publish(MOVED)
    assert f"org/tiny: {OLD} → {NEW}, " in ok(shell, "update org--tiny").err
    assert bytes_of(shell, "org--tiny")["model.bin"] == MOVED.files["model.bin"]
    assert lock_of(shell).read_bytes() == text


def test_a_pinned_model_stays(shell: Shell, hub: LoopbackHub, ok: Run) -> None:
    """A commit in the catalog stays, and the line says where to change it."""
    write_catalog(shell, PINNED)
    ok(shell, "lock; get tiny")
    hub.publish(MOVED)
    assert f"tiny: pinned to {OLD}; to move it, change 'revision' in " in (told := ok(shell, "update tiny").err)
    assert "catalog.toml" in told
    assert (commits(shell), bytes_of(shell)["model.bin"]) == ({TINY.commit}, TINY.files["model.bin"])


def test_a_dry_run_writes_nothing(shell: Shell, hub: LoopbackHub, ok: Run) -> None:
    """-n shows what would be fetched past the lock; lock, listings and files stay as they are."""
    ok(shell, "lock; get tiny")
    hub.publish(MOVED)
    before, text = listing(shell.models), lock_of(shell).read_bytes()
    document = ok(shell, "update -n tiny --json").document
    assert (document["bytes_to_fetch"], document["job"]) == (5001, None)
    assert (listing(shell.models), lock_of(shell).read_bytes()) == (before, text)


def test_what_makes_no_sense(shell: Shell, hub: LoopbackHub, ok: Run, mdl: Inside) -> None:
    """--locked and --frozen are 2, by flag or variable; offline is 8; an unknown name 3; a model of which nobody knows
    where it came from 3. Nothing is asked and nothing is written."""
    ok(shell, "lock; get tiny")
    text, before = lock_of(shell).read_bytes(), len(hub.requests)
    done(mdl(shell, "update", "tiny", "--locked"), 2)
    for name in ("MDL_LOCKED", "MDL_FROZEN"):
        told = done(mdl(replace(shell, extra={name: "1"}), "update", "tiny"), 2).err
        assert "goes past the lock" in told
    done(mdl(shell, "update", "tiny", "--offline"), 8)
    done(mdl(shell, "update", "tinny"), 3)
    assert (lock_of(shell).read_bytes(), len(hub.requests)) == (text, before)


def test_one_of_two_cannot_be_resolved(shell: Shell, hub: LoopbackHub, ok: Run, mdl: Inside) -> None:
    """A model whose repository is gone is reported with its reason; the other is updated, and the lock keeps the old
    block of the first."""
    hub.publish(Repo("org/lost", {"a.bin": b"a"}))
    write_catalog(shell, CATALOG + '[models.lost]\nsource = "hf:org/lost"\n')
    ok(shell, "lock; get tiny lost")
    hub.publish(MOVED)
    hub.publish(Repo("org/lost", {"a.bin": b"b"}, private=True))
    document = done(mdl(shell, "update", "tiny", "lost", "--json"), 4).document
    assert {one["name"]: one["error"] and one["error"]["code"] for one in document["models"]} == {
        "tiny": None,
        "lost": "AUTH",
    }
    assert [move["name"] for move in document["moves"]] == ["tiny"]
    assert (commits(shell), len(models_of(shell)["lost"].files)) == ({MOVED.commit}, 1)


def test_killed_between_lock_and_files(shell: Shell, hub: LoopbackHub, ok: Run) -> None:
    """An update that is killed after it wrote the lock leaves the old file whole; the next get brings the new one."""
    ok(shell, "lock; get tiny")
    hub.publish(BIG)
    hub.bytes_per_second = 100_000.0
    with started(shell, "update", "tiny") as process:
        until(lambda: commits(shell) == {BIG.commit})
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert bytes_of(shell)["model.bin"] == TINY.files["model.bin"]
    hub.bytes_per_second = None
    ok(shell, "get tiny --locked; verify tiny")
    assert bytes_of(shell)["model.bin"] == BIG.files["model.bin"]


def test_a_url_without_a_digest(tmp_path: Path, server: FaultyServer, ok: Run) -> None:
    """A file whose digest was trusted on first use is fetched again if its ETag is another, and locked anew."""
    shell = machine(tmp_path / "home", f'schema = 1\n[models.one]\nsource = "{server.url}/f.bin"\n')
    server.handler = honest(b"on\0" * 100, etag='"1"')
    ok(shell, "lock; get one")
    server.handler = honest(b"tw\0" * 100, etag='"2"')
    assert "one: 1 of 1 file, 300 B\n" in ok(shell, "update one").err
    assert bytes_of(shell, "one")["f.bin"] == b"tw\0" * 100
    ok(shell, "get one --locked; verify one")
