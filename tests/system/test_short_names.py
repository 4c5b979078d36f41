"""A file system that takes names of 143 bytes, as eCryptfs does: mdl's own names fit, and a final name that does not
is the trouble of that file alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.data import files_below, noise
from support.limited_mounts import limited_mount
from support.loopback_hub import LoopbackHub, Repo
from support.partials import dead_owner
from support.shell import Inside, Shell, done, machine, with_environ

from mdl.files import Receipt, Stamp
from mdl.hashing import Digest
from mdl.paths import RelPath

LONGEST = 143
FULL = Receipt("m", RelPath("f.bin"), Stamp(1, 2, 3), Digest("sha256", "ab" * 32), "sha256", "https://h/f.bin")
WEIGHTS = noise(20_000_000)
FITS = "w" * 131 + ".safetensors"
TOO_LONG = "x" * 139 + ".json"
MODEL = "m" * 120
CATALOG = f'schema = 1\n[models.{MODEL}]\nsource = "hf:org/repo"\nexclude = ["x*"]\n'


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with limited_mount(tmp_path, f"names={LONGEST}") as mount:
        yield mount


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    files = {"a" * 143: b"one", FITS: WEIGHTS, TOO_LONG: b"{}", "d" * 140 + "/f.json": b"{1}"}
    with LoopbackHub([Repo("org/repo", files, lfs_threshold=0)]) as hub:
        yield hub


def own_names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def shell_on(disk: Path, tmp_path: Path, hub: LoopbackHub) -> Shell:
    shell = machine(tmp_path / "home", CATALOG, hub.url)
    return with_environ(shell, MDL_HOME=str(disk / "models"), XDG_STATE_HOME=str(disk / "state"))


@pytest.mark.parametrize("words", [(), ("--layout", "hf-cache"), ("--detach",)], ids=["plain", "cache", "detached"])
def test_every_name_that_fits_is_taken(
    disk: Path, tmp_path: Path, hub: LoopbackHub, mdl: Inside, words: tuple[str, ...]
) -> None:
    """A model and files whose names nearly fill what the disk takes come, are found again, and go."""
    shell = shell_on(disk, tmp_path, hub)
    if "hf-cache" in words:
        shell = with_environ(shell, HF_HUB_CACHE=str(disk / "hub"))
    ran = done(shell.run("get", MODEL, *words))
    if "--detach" in words:
        done(shell.run("jobs", "watch", ran.out.strip()))
    words = words if "--layout" in words else ()
    again = done(mdl(shell, "get", MODEL, "--json", *words)).document
    assert {row["action"] for row in again["models"][0]["files"]} == {"kept"}
    done(mdl(shell, "verify", MODEL, "--strict", *words))
    done(mdl(shell, "rm", MODEL, "--yes", *words))


def test_its_own_names_are_short(disk: Path, tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> None:
    """No name below .mdl or in the state is longer than 63 bytes, and none repeats the name of a model or a file."""
    shell = shell_on(disk, tmp_path, hub)
    done(mdl(shell, "get", MODEL))
    names = own_names(disk / "models" / ".mdl") | own_names(disk / "state")
    assert max(len(os.fsencode(name)) for name in names) < 64
    assert not [name for name in names if "mmmm" in name or "wwww" in name]


@pytest.mark.parametrize("words", [(), ("--dry-run",)], ids=["get", "plan"])
def test_a_name_that_is_too_long(
    disk: Path, tmp_path: Path, hub: LoopbackHub, mdl: Inside, words: tuple[str, ...]
) -> None:
    """That file alone is 7: its row says how many bytes this disk takes, and the others are fetched."""
    shell = shell_on(disk, tmp_path, hub)
    ran = mdl(shell, "get", "org/repo", "--json", *words)
    assert ran.code == 7
    rows = {row["path"]: row for row in ran.document["models"][0]["files"]}
    failed = [path for path, row in rows.items() if row["error"]]
    assert failed == [TOO_LONG]
    told = rows[TOO_LONG]["error"]["message"]
    assert f"names of up to {LONGEST} bytes" in told
    assert f"has {len(TOO_LONG)}" in told
    if not words:
        assert files_below(disk / "models" / "org--repo").keys() == rows.keys() - {TOO_LONG}
    assert not list(disk.rglob("*.mdl-tmp"))


def test_one_that_is_too_long_is_just_missing(disk: Path, tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> None:
    """What cannot be there is told as missing, and stops no command that only looks."""
    shell = shell_on(disk, tmp_path, hub)
    assert mdl(shell, "get", "org/repo").code == 7
    done(mdl(shell, "list", "--local"))
    assert mdl(shell, "verify", "hf:org/repo").code in (0, 3)
    done(mdl(shell, "get", "org/repo", TOO_LONG, "-o", "short.json"))


def test_what_a_killed_one_left_is_swept(tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> None:
    """Staged files of a process that was killed go with the next download."""
    shell = machine(tmp_path, CATALOG, hub.url)
    stage = shell.models / ".mdl" / "stage"
    stage.mkdir(parents=True)
    name = "0a1b2c3d4e"
    (stage / f".{name}.{dead_owner()}.mdl-tmp").write_bytes(b"half")
    done(mdl(shell, "get", MODEL))
    assert list(stage.iterdir()) == []
