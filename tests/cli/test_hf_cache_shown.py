"""``--layout hf-cache`` for the commands that only look: list, show, path, config, clean; and what verify says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.data import MIB, sha256
from support.hubs import Hub, cache_of, main_of, repo_of
from support.loopback_hub import Generated, Repo
from support.shell import Inside, Shell, done

WEIGHTS = Generated(2 * MIB, "one")[0 : 2 * MIB]
ONE = Repo("org/tiny", {"config.json": b"{}", "model.bin": WEIGHTS})
LAYOUT = ("--layout", "hf-cache", "--json")
LOOSE = f'[[models.loose.files]]\npath = "f.bin"\nurl = "http://127.0.0.1:9/f.bin"\nsha256 = "{sha256(b"x")}"\n'


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub([ONE]) as hub:
        yield hub


@pytest.fixture
def shell(tmp_path: Path, hub: Hub) -> Shell:
    (tmp_path / "catalog.toml").write_text(f'schema = 1\n[models.m]\nsource = "hf:org/tiny"\n{LOOSE}')
    return Shell(tmp_path, hub.url)


def statuses(shell: Shell, mdl: Inside) -> dict[str, str]:
    return {one["name"]: one["status"] for one in done(mdl(shell, "list", *LAYOUT)).document["models"]}


def pointer(shell: Shell, name: str = "config.json") -> Path:
    return repo_of(shell) / "snapshots" / ONE.commit / name


def test_list_and_show(shell: Shell, mdl: Inside) -> None:
    """What is in the cache is present there and missing elsewhere; what has no place in it is no mistake."""
    done(mdl(shell, "get", "m", *LAYOUT))
    assert statuses(shell, mdl) == {"m": "present", "loose": "missing"}
    shown = done(mdl(shell, "show", "m", *LAYOUT)).document
    assert {row["path"]: row["status"] for row in shown["files"]} == dict.fromkeys(ONE.files, "present")
    assert shown["model"]["path"] == str(pointer(shell).parent)
    assert done(mdl(shell, "list", "--json")).document["models"][0]["status"] == "missing"


def test_a_file_without_its_pointer_is_not_present(shell: Shell, mdl: Inside) -> None:
    """Bytes that no program finds by their name count as missing until a get has put the name right."""
    done(mdl(shell, "get", "m", *LAYOUT))
    pointer(shell).unlink()
    assert statuses(shell, mdl)["m"] == "partial"
    done(mdl(shell, "get", "m", *LAYOUT))
    assert statuses(shell, mdl)["m"] == "present"


def test_config_says_which_cache(shell: Shell, mdl: Inside, tmp_path: Path) -> None:
    """``config`` names the hub's cache as the models folder, and what chose it."""
    rows = done(mdl(shell, "config", *LAYOUT)).document["places"]
    assert [(row["path"], row["why"]) for row in rows if row["what"] == "models"] == [
        (str(cache_of(shell)), "the hub's cache")
    ]
    there = ("--to", str(tmp_path / "there"))
    rows = done(mdl(shell, "config", *there, *LAYOUT)).document["places"]
    assert [row["path"] for row in rows if row["what"] == "models"] == [str(tmp_path / "there")]


def test_clean_leaves_other_snapshots(shell: Shell, hub: Hub, mdl: Inside) -> None:
    """A file that a newer commit lacks may be another snapshot's: pruning a cache is for the hub's own tools."""
    done(mdl(shell, "get", "m", *LAYOUT))
    hub.publish(Repo("org/tiny", {"config.json": b"{}"}))
    done(mdl(shell, "get", "m", *LAYOUT))
    assert done(mdl(shell, "clean", *LAYOUT)).document["items"] == []


@pytest.mark.parametrize("damage", ["gone", "other"])
def test_a_repair_puts_a_pointer_right(shell: Shell, hub: Hub, mdl: Inside, damage: str) -> None:
    """``verify --repair`` gives a file its name in the snapshot again, without a body byte."""
    done(mdl(shell, "get", "m", *LAYOUT))
    sent = hub.sent
    pointer(shell).unlink()
    if damage == "other":
        pointer(shell).write_bytes(b"other")
    done(mdl(shell, "verify", "m", "--repair", *LAYOUT))
    assert (pointer(shell).read_bytes(), hub.sent) == (b"{}", sent)


def test_the_folder_is_the_newest_snapshot(shell: Shell, hub: Hub, mdl: Inside) -> None:
    """Where a file of an older commit is no file of the model any more, ``get`` and ``path`` say the new snapshot."""
    done(mdl(shell, "get", "m", *LAYOUT))
    hub.publish(moved := Repo("org/tiny", {"config.json": b'{"a": 2}'}))
    folder = done(mdl(shell, "get", "m", "--layout", "hf-cache")).out
    assert folder == f"{repo_of(shell) / 'snapshots' / moved.commit}\n"
    assert done(mdl(shell, "path", "m", "--layout", "hf-cache")).out == folder


def test_a_lock_of_an_older_entry(shell: Shell, hub: Hub, mdl: Inside) -> None:
    """With --frozen an entry that follows another branch by now does not have that branch moved to the old commit."""
    done(mdl(shell, "lock", "m"))
    text = (shell.home / "catalog.toml").read_text()
    (shell.home / "catalog.toml").write_text(text.replace("hf:org/tiny", "hf:org/tiny@dev"))
    done(mdl(shell, "get", "m", "--frozen", *LAYOUT))
    assert not (repo_of(shell) / "refs" / "dev").exists()
    assert main_of(shell) == ONE.commit


def test_doctor_looks_at_the_cache(shell: Shell, mdl: Inside) -> None:
    """With the layout of the hub's cache it is the cache whose disk is looked at."""
    cache_of(shell).mkdir(parents=True)
    checks = mdl(shell, "doctor", "--offline", *LAYOUT).document["checks"]
    [found] = [one for one in checks if one["name"] == "models folder"]
    assert str(cache_of(shell)) in found["detail"] + (found["advice"] or "")
