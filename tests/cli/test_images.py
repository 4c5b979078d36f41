"""Models in images: tar, layers and snapshots give a file another inode and the whole second of its time."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.data import files_below, noise
from support.loopback_hub import LoopbackHub, Repo
from support.shell import Inside, Shell, done, machine

from mdl.files import Stamp

SECOND = 10**9
CONFIG, WEIGHTS = b'{"layers": 2}', noise(3_000_000)
THEN = Stamp(100, 7 * SECOND + 123_456_789, 42)
WHOLE = Stamp(100, 7 * SECOND, 42)


@pytest.mark.parametrize(
    ("taken", "now", "fits"),
    [
        pytest.param(THEN, THEN, True, id="untouched"),
        pytest.param(THEN, Stamp(100, 7 * SECOND, 43), True, id="a copy with its second cut"),
        pytest.param(WHOLE, Stamp(100, 7 * SECOND, 43), True, id="a copy of a whole second"),
        pytest.param(THEN, Stamp(100, 7 * SECOND, 42), False, id="the same inode"),
        pytest.param(THEN, Stamp(101, 7 * SECOND, 43), False, id="another size"),
        pytest.param(THEN, Stamp(100, 8 * SECOND, 43), False, id="another second"),
        pytest.param(THEN, Stamp(100, THEN.mtime_ns, 43), False, id="replaced under the old time"),
        pytest.param(THEN, Stamp(100, 7 * SECOND + 1, 43), False, id="a fraction"),
        pytest.param(Stamp(100, -1, 1), Stamp(100, -SECOND, 2), True, id="before 1970"),
    ],
)
def test_what_a_stamp_fits(taken: Stamp, now: Stamp, fits: bool) -> None:
    """Only a copy by an archiver fits as well: another inode, the same size, and the whole second of the time."""
    assert taken.fits(now) is fits


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub([Repo("o/m", {"config.json": CONFIG, "model.safetensors": WEIGHTS}, lfs_threshold=1000)]) as hub:
        yield hub


@pytest.fixture
def shell(tmp_path: Path, hub: LoopbackHub, mdl: Inside) -> Shell:
    """A machine whose models went through tar, as they do on their way into an image."""
    shell = machine(tmp_path, endpoint=hub.url)
    done(mdl(shell, "get", "o/m"))
    archive, former = tmp_path / "layer.tar", tmp_path / "former"
    subprocess.run(["tar", "--format=gnu", "-cf", str(archive), "-C", str(shell.models), "."], check=True)
    shell.models.rename(former)  # it stays, so that no inode is used again
    shell.models.mkdir()
    subprocess.run(["tar", "-xf", str(archive), "-C", str(shell.models)], check=True)
    return shell


def rewrite(path: Path, data: bytes, *, mtime_ns: int | None = None) -> None:
    before = path.stat()
    path.write_bytes(data)
    if mtime_ns is None:
        mtime_ns = before.st_mtime_ns
    os.utime(path, ns=(before.st_atime_ns, mtime_ns))


def test_nothing_is_hashed(shell: Shell, mdl: Inside) -> None:
    """What get, list and show say of the copy is what they say where it was downloaded, without reading it: bytes that
    are not looked at may be anything. verify reads them as always."""
    place = shell.models / "o--m" / "model.safetensors"
    assert place.stat().st_mtime_ns % SECOND == 0
    rewrite(place, bytes(len(WEIGHTS)))
    before = files_below(shell.models)
    for _ in "12":
        files = done(mdl(shell, "get", "o/m", "--offline", "--json")).document["models"][0]["files"]
        assert {(row["action"], row["verified"]) for row in files} <= {("kept", "sha256"), ("kept", "git-sha1")}
    (row,) = done(mdl(shell, "list", "--local", "--json")).document["models"]
    assert row["status"] == "present"
    assert {name for name, data in before.items() if files_below(shell.models).get(name) != data} == set()
    assert mdl(shell, "verify", "hf:o/m").code == 6


@pytest.mark.parametrize("fraction", [1, 500_000_000])
def test_an_edit_in_the_image_is_an_edit(shell: Shell, mdl: Inside, fraction: int) -> None:
    """An edit leaves a fraction: the file is read, and stays."""
    place = shell.models / "o--m" / "config.json"
    rewrite(place, CONFIG.replace(b"2", b"3"), mtime_ns=place.stat().st_mtime_ns + fraction)
    assert mdl(shell, "get", "o/m", "--offline").code == 7
    done(mdl(shell, "get", "o/m", "--offline", "--force"), 8)


def test_a_new_revision_replaces_the_copy(shell: Shell, mdl: Inside, tmp_path: Path) -> None:
    """The copy is mdl's own file: it gives way to a newer revision without --force."""
    newer = {"config.json": CONFIG.replace(b"2", b"3"), "model.safetensors": WEIGHTS[::-1]}
    with LoopbackHub([Repo("o/m", newer, lfs_threshold=1000)]) as hub:
        moved = machine(tmp_path, endpoint=hub.url)
        done(mdl(moved, "get", "o/m"))
    assert (shell.models / "o--m" / "config.json").read_bytes() == newer["config.json"]


def test_a_copy_with_whole_times_is_not_hashed_either(shell: Shell, mdl: Inside, tmp_path: Path) -> None:
    """A copy of the copy: the times have no fraction any more, and the inodes are new again."""
    again = tmp_path / "again"
    shutil.copytree(shell.models, again)
    rewrite(again / "o--m" / "model.safetensors", bytes(len(WEIGHTS)))
    done(mdl(shell, "get", "o/m", "--offline", "--to", str(again)))
