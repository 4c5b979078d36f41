"""``--layout hf-cache`` after the first get: locked, killed, verified, repaired; and what has no place there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.data import MIB, sha256
from support.hubs import Hf, HfError, Hub, Turning, actions, cache_of, main_of, offline, repo_of, scanned
from support.loopback_hub import Generated, Repo
from support.polling import until
from support.shell import Inside, Shell, child, done, settings

WEIGHTS = Generated(2 * MIB, "one")[0 : 2 * MIB]
FILES = {"config.json": b"{}", "unet/model.bin": WEIGHTS}
ONE = Repo("org/tiny", FILES)
TWO = Repo("org/tiny", {"config.json": b'{"a": 2}', "unet/model.bin": WEIGHTS})
LAYOUT = ("--layout", "hf-cache", "--json")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub([ONE]) as hub:
        yield hub


@pytest.fixture
def shell(tmp_path: Path, hub: Hub) -> Shell:
    return Shell(tmp_path, hub.url)


def locked(tmp_path: Path, hub: Hub, mdl: Inside, branch: str) -> Shell:
    """A machine with a catalog that follows a branch, locked, and the model got by the lock."""
    (tmp_path / "catalog.toml").write_text(f'schema = 1\n[models.m]\nsource = "hf:org/tiny@{branch}"\n')
    shell = Shell(tmp_path, hub.url)
    done(mdl(shell, "lock"))
    done(mdl(shell, "get", "m", "--locked", *LAYOUT))
    return shell


def test_a_locked_catalog(tmp_path: Path, hub: Hub, mdl: Inside, hf: Hf) -> None:
    """By the lock the same snapshot comes, and a bare name finds it offline; --frozen asks nobody and keeps it."""
    shell = locked(tmp_path, hub, mdl, "main")
    assert offline(hf, shell) == offline(hf, shell, ONE.commit) == FILES
    asked = len(hub.requests)
    assert set(actions(done(mdl(shell, "get", "m", "--frozen", *LAYOUT))).values()) == {"kept"}
    assert len(hub.requests) == asked


@pytest.mark.parametrize("branch", ["main", "dev"])
def test_a_lock_that_was_upgraded(tmp_path: Path, mdl: Inside, hf: Hf, branch: str) -> None:
    """The branch that the catalog follows is where the lock is, also after an upgrade of the lock."""
    with Hub([Repo("org/tiny", ONE.files, branch=branch)]) as hub:
        shell = locked(tmp_path, hub, mdl, branch)
        assert offline(hf, shell, branch) == FILES
        hub.publish(Repo("org/tiny", TWO.files, branch=branch))
        done(mdl(shell, "lock", "--upgrade", "m"))
        done(mdl(shell, "get", "m", "--locked", *LAYOUT))
        assert offline(hf, shell, branch) == TWO.files


def test_what_is_no_file_of_a_hub_is_refused(shell: Shell, hub: Hub, mdl: Inside) -> None:
    """A model with a file of another server has no place in the cache: 2, and nothing is fetched or made of it."""
    text = f'url = "http://127.0.0.1:9/f.bin"\nsize = 3\nsha256 = "{sha256(b"abc")}"\n'
    catalog = f'schema = 1\n[models.m]\nsource = "hf:org/tiny"\n[[models.m.files]]\npath = "f.bin"\n{text}'
    (shell.home / "catalog.toml").write_text(catalog)
    ran = done(mdl(shell, "get", "m", *LAYOUT), 2)
    assert (ran.document["error"]["item"], hub.sent) == ("f.bin", 0)
    assert [entry.name for entry in cache_of(shell).iterdir()] == [".locks"]


def test_into_has_no_meaning_there(shell: Shell, hub: Hub, mdl: Inside) -> None:
    """--into with --layout hf-cache is a mistake in the call, and nothing is written or asked."""
    assert mdl(shell, "get", "hf:org/tiny", "--into", "x", *LAYOUT).code == 2
    assert not cache_of(shell).exists()
    assert not (shell.home / "x").exists()
    assert hub.requests == []


def test_the_settings_choose_it(shell: Shell, mdl: Inside, hf: Hf) -> None:
    """``[defaults] layout`` means what the flag means, and the flag wins."""
    settings(shell, '[defaults]\nlayout = "hf-cache"\n')
    done(mdl(shell, "get", "hf:org/tiny"))
    assert offline(hf, shell) == FILES
    done(mdl(shell, "get", "hf:org/tiny", "--layout", "plain"))
    assert (shell.models / "org--tiny" / "config.json").read_bytes() == b"{}"


def test_the_settings_choose_it_for_all(shell: Shell, mdl: Inside) -> None:
    """With ``[defaults] layout`` what a get brought is present, and ``path`` says the folder that the get said."""
    (shell.home / "catalog.toml").write_text('schema = 1\n[models.m]\nsource = "hf:org/tiny"\n')
    settings(shell, '[defaults]\nlayout = "hf-cache"\n')
    folder = done(mdl(shell, "get", "m")).out
    assert done(mdl(shell, "list", "--json")).document["models"][0]["status"] == "present"
    assert done(mdl(shell, "path", "m")).out == folder


def test_carried_by_the_hubs_client(shell: Shell, hub: Hub, hf: Hf) -> None:
    """--via hub into the cache: brought by the hub's client, verified by mdl, and found there."""
    ran = done(shell.run("get", "hf:org/tiny", "--via", "hub", *LAYOUT))
    assert [row["verified"] for row in ran.document["models"][0]["files"]] == ["git-sha1", "sha256"]
    agents = {r.headers.get("user-agent", "") for r in hub.requests if r.origin == "cdn"}
    assert agents
    assert all("hf_hub/" in agent for agent in agents)
    assert offline(hf, shell) == FILES


def test_resumed_after_a_kill(tmp_path: Path, mdl: Inside, hf: Hf) -> None:
    """Killed on the way, nothing of it shows to the hub's client; the next run goes on with what was there."""
    large = Generated(8 * MIB, "large")
    with Hub([Repo("org/tiny", {"model.bin": large})], bytes_per_second=4 * MIB) as hub:
        shell = Shell(tmp_path, hub.url)
        process = child(tmp_path, "get", "hf:org/tiny", *LAYOUT, HF_ENDPOINT=hub.url)
        partials = cache_of(shell) / ".locks" / ".mdl" / "partials"
        until(lambda: any(path.read_bytes().count(b"\n") > 2 for path in partials.glob("*/journal")))
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert scanned(hf, shell) == {}
        with pytest.raises(HfError, match="LocalEntryNotFound"):
            offline(hf, shell)
        hub.bytes_per_second = None
        ran = done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
        here = ran.document["models"][0]["files"][0]["resumed_at"]
        assert here > 0
        assert ran.document["bytes_fetched"] == len(large) - here
    assert {name: sha256(data) for name, data in offline(hf, shell).items()} == {
        "model.bin": sha256(large[0 : 8 * MIB])
    }


def test_nothing_half_is_where_hf_looks(shell: Shell, mdl: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any rename, nothing is left in refs or snapshots that hf would take for one of its own."""
    seen, renamed = list[str](), list[str]()
    really = os.replace

    def replace(source: str, target: str, **more: int) -> None:
        seen.extend(path.name for path in repo_of(shell).rglob("*") if path.name.endswith(".mdl-tmp"))
        really(source, target, **more)
        renamed.append(Path(target).name)

    monkeypatch.setattr(os, "replace", replace)
    done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    assert {"main", "config.json", "model.bin", sha256(WEIGHTS)} <= set(renamed)
    assert seen == []


def test_verify_and_repair(shell: Shell, hub: Hub, mdl: Inside, hf: Hf) -> None:
    """A flipped byte is 6; --repair mends the blob, and the hub's client reads right bytes and finds nothing wrong."""
    done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    blob = repo_of(shell) / "blobs" / sha256(WEIGHTS)
    blob.write_bytes(b"X" + WEIGHTS[1:])
    assert mdl(shell, "verify", "hf:org/tiny", *LAYOUT).code == 6
    done(mdl(shell, "verify", "hf:org/tiny", "--repair", *LAYOUT))
    assert offline(hf, shell) == FILES
    assert hf("verify", endpoint=hub.url, repo_id="org/tiny", cache_dir=cache_of(shell)) == [2, 0, [], []]


def test_verify_of_all_that_is_there(shell: Shell, mdl: Inside) -> None:
    """Without a name every model that mdl brought into the cache is read, also one that no catalog knows."""
    done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    ran = done(mdl(shell, "verify", *LAYOUT))
    assert {row["status"] for model in ran.document["models"] for row in model["files"]} == {"ok"}


def test_verify_of_a_pointer_that_is_gone(shell: Shell, mdl: Inside) -> None:
    """A file that is not in the snapshot, or is another one there, is not ok: programs read it by that name."""
    done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    pointer = repo_of(shell) / "snapshots" / ONE.commit / "config.json"
    pointer.unlink()
    assert mdl(shell, "verify", "hf:org/tiny", *LAYOUT).code == 3
    pointer.write_bytes(b"other")
    assert mdl(shell, "verify", "hf:org/tiny", *LAYOUT).code == 6


def test_a_pointer_that_is_gone_comes_back(shell: Shell, hub: Hub, mdl: Inside, hf: Hf) -> None:
    """A get puts a pointer right that is gone or leads elsewhere, without a body byte."""
    done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    snapshot, sent = repo_of(shell) / "snapshots" / ONE.commit, hub.sent
    (snapshot / "config.json").unlink()
    (snapshot / "unet" / "model.bin").unlink()
    (snapshot / "unet" / "model.bin").write_bytes(b"other")
    done(mdl(shell, "get", "hf:org/tiny", *LAYOUT))
    assert (offline(hf, shell), hub.sent) == (FILES, sent)


def test_a_repair_that_makes_it_whole(tmp_path: Path, mdl: Inside) -> None:
    """Where verify --repair brings the last file that was missing, the branch is there as after a get."""
    bad = Turning(WEIGHTS)
    repo = Repo("org/tiny", {"config.json": b"{}", "model.bin": bad})
    assert repo.stored["model.bin"].sha256
    bad.turn()
    with Hub([repo]) as hub:
        shell = Shell(tmp_path, hub.url)
        done(mdl(shell, "get", "hf:org/tiny", *LAYOUT), 6)
        bad.turn()
        done(mdl(shell, "verify", "hf:org/tiny", "--repair", *LAYOUT))
    assert main_of(shell) == repo.commit
