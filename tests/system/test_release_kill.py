"""Releases when something goes wrong: killed, read all along, damaged, two at once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support import release_kills as bench
from support.call_kills import tracing_works
from support.namespaces import failing
from support.partials import dead_owner
from support.releases import Site, files_of, zipped
from support.schemas import document_of
from support.shell import Inside, Shell

from mdl.archive.manifest import NAME
from mdl.archive.releases import ReleaseDir
from mdl.disk import publish
from mdl.disk.mutex import file_lock
from mdl.errors import NoSpace, NotFound, Occupied, ProtocolError, StateError, StorageError, Unsafe
from mdl.events import silence

LONG = os.environ.get("MDL_LONG") == "1"
pytestmark = [pytest.mark.timeout(1200)] if LONG else []
KILLS, SWITCHES, SEED = (300, 5000, 1) if LONG else (2, 40, 20)
STEP = 1 if LONG else 12
"""Every sixth call; every one with MDL_LONG=1."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return bench.Scene(tmp_path_factory.mktemp("scene"))


def test_killed_at_random(scene: Any) -> None:
    """SIGKILL at any moment: a whole release is served, and the same command again ends right."""
    found = bench.kill_at_random(scene, KILLS, SEED)
    print(f"{len(found)} kills at random moments, {sum(one.served == 'b' for one in found)} before the switch")
    assert [why for one in found for why in (one.wrong, one.again) if why] == []
    assert len(found) == KILLS


def test_killed_at_calls(scene: Any, tmp_path: Path) -> None:
    """SIGKILL before calls that change the disk, of a third and of a very first release: a whole release is served. The
    same command again ends right, leaves no stray file and no release beyond --keep, and releases.json knows of what is
    served."""
    if not tracing_works(tmp_path):
        pytest.skip("NOTHING CAN BE TRACED HERE: no release was killed call by call")
    found = [one for each in (scene, bench.Scene(tmp_path, "")) for one in bench.kill_at_calls(each, STEP)]
    print(f"{len(found)} kills at calls, {sum(one.served != 'c' for one in found)} before the switch")
    assert [why for one in found for why in (one.wrong, one.again) if why] == []
    assert {one.served for one in found} == {"", "b", "c"}
    assert sorted({stray for one in found for stray in one.strays}) == []
    assert [one.recorded for one in found if not one.recorded] == []
    assert len(found) >= 60 // STEP


def test_killed_while_it_removes(scene: Any) -> None:
    """A release that was half removed when it was killed can be released again."""
    folder = scene.fresh("removes")
    command = (*failing("unlinkat:signal=KILL:when=2"), *scene.command(folder))
    assert subprocess.run(command, env=scene.env, capture_output=True, check=False).returncode == bench.KILLED
    scene.release("a", folder)
    assert ReleaseDir(folder).active() == scene.versions["a"]


def test_killed_before_the_record_of_a_release_again(site: Site) -> None:
    """a, b, then a again, killed between switch and record: it was no rollback, and the way back is to b."""
    first = site.release("a")
    site.release("b")
    publish.switch_link(site.folder / "current", f"releases/{first.version}")
    site.release("a")
    assert [one["why"] for one in site.record["switches"]] == ["release"] * 3
    site.back()
    assert site.served == "b"


def test_no_room_for_the_history(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room for the history is noticed before anything is switched."""
    site.release("a")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(NoSpace, match="No space"):
        patch.setattr(publish, "stage", full)
        site.release("b")
    assert (site.served, site.release("b").changed, site.served) == ("a", True, "b")


@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_a_folder_that_cannot_be_written(site: Site, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A release into a folder that may not be written is 7, and the folder is named; nothing is switched."""
    site.release("a")
    site.release("b")
    zipped(site.folder.parent / "c.zip", files_of("c"))
    real = getattr(os, call)

    def refuse(path: object, *args: Any, **more: Any) -> object:
        is_writing = call == "mkdir" or (args and args[0] & os.O_CREAT)
        if is_writing and str(path).startswith(str(site.folder)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(StorageError, match="Permission denied") as caught:
            site.release(site.folder.parent / "c.zip")
    assert (caught.value.exit_code, caught.value.item, site.served) == (7, str(site.folder), "b")


@pytest.mark.parametrize("then", ["rollback", "release"])
def test_killed_before_the_switch_of_a_rollback(site: Site, monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    """A rollback that was killed between its record and its switch did not happen: the way back is what it was."""
    for letter in "abc":
        site.release(letter, keep=9)
    with monkeypatch.context() as patch:
        patch.setattr(ReleaseDir, "switch_to", lambda *_: None)
        site.back()
    assert (site.served, site.record["active"] == ReleaseDir(site.folder).active()) == ("c", False)
    if then == "release":
        assert not site.release("c", keep=9).changed
        assert (site.record["active"], site.record["withdrawn"]) == (ReleaseDir(site.folder).active(), [])
    for letter in "ba":
        site.back()
        assert site.served == letter


def test_killed_before_the_switch_and_given_up(site: Site) -> None:
    """A release that was published, not switched to, and never asked for again goes as --keep says."""
    site.release("a")
    shutil.copytree(site.release("b").path, site.folder / "releases" / "model-000000000000")
    for letter in "cd":
        site.release(letter, keep=2)
    assert site.letters == "cd"


def test_a_rollback_sweeps(site: Site) -> None:
    """What a killed rollback left staged is gone after the next rollback."""
    for letter in "abc":
        site.release(letter)
    left = site.folder / f".current.{dead_owner()}.mdl-tmp"
    left.symlink_to("releases/x")
    site.back()
    assert not left.is_symlink()


def test_a_reader_never_misses(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of switches, to and fro: every open of current/model.bin gives one of the two versions, whole."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    reads, misses, seen = bench.read_on(scene, SWITCHES)
    print(f"{SWITCHES} switches, {reads} reads, {misses} misses")
    assert (misses, seen) == (0, 2)


def test_a_reader_misses_the_old_way(scene: Any) -> None:
    """The control: with unlink and symlink the same reader misses."""
    reads, misses, _ = bench.read_on_the_old_way(scene)
    print(f"unlink and symlink: {misses} misses in {reads} reads")
    assert misses > 0


def test_a_damaged_file_is_never_linked(site: Site) -> None:
    """Of an old file whose bytes rotted no link is made; the new release has the right bytes. Served again, the old
    release is 6, and the file is named."""
    old = site.release("a").path / "config.json"
    old.chmod(0o644)
    old.write_bytes(files_of("a")["config.json"].replace(b"2", b"7"))
    done = site.release("b")
    assert (done.linked, (done.path / "config.json").read_bytes()) == (0, files_of("b")["config.json"])
    with pytest.raises(ProtocolError) as caught:
        site.release("a")
    assert (caught.value.exit_code, site.served, "config.json" in str(caught.value.item)) == (6, "b", True)


@pytest.mark.parametrize("size", [0, None], ids=["cut", "missing"])
def test_no_rollback_to_a_release_that_lacks_bytes(site: Site, size: int | None) -> None:
    """A rollback to a release with a file that is cut or missing is 6, the file is named, and nothing is switched."""
    old = site.release("a").path / "text" / "vocab.txt"
    site.release("b")
    old.unlink() if size is None else os.truncate(old, size)
    with pytest.raises(ProtocolError) as caught:
        site.back()
    assert (caught.value.exit_code, site.served) == (6, "b")
    assert "text/vocab.txt" in str(caught.value.item)


_GOOD = {"schema": "mdl.releases/1", "releases": [], "served": [], "withdrawn": [], "switches": []}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\xff",
        b"[]",
        b"[" * 100_000,
        json.dumps(_GOOD | {"schema": "mdl.releases/2"}).encode(),
        json.dumps(_GOOD | {"releases": None}).encode(),
        json.dumps(_GOOD | {"releases": [1]}).encode(),
        json.dumps(_GOOD | {"served": ["../.."]}).encode(),
        json.dumps(_GOOD | {"switches": [1]}).encode(),
    ],
    ids=["empty", "bytes", "list", "deep", "future", "null", "number", "climbing", "switch"],
)
def test_a_history_that_cannot_be_read(site: Site, data: bytes) -> None:
    """An unreadable history is 12 with the file's name, for release and rollback; nothing is switched or removed."""
    site.release("a")
    site.release("b")
    (site.folder / "releases.json").write_bytes(data)
    for attempt in (lambda: site.release("c"), site.back):
        with pytest.raises(StateError) as caught:
            attempt()
        assert (caught.value.exit_code, caught.value.item) == (12, str(site.folder / "releases.json"))
    assert (site.served, site.letters) == ("b", "ab")


def test_a_real_folder_named_current(site: Site) -> None:
    """A real folder in the link's place is 7, and stays as it is."""
    (site.folder / "current").mkdir(parents=True)
    (site.folder / "current" / "mine").write_text("x")
    with pytest.raises(Occupied) as caught:
        site.release("a")
    assert (caught.value.exit_code, (site.folder / "current" / "mine").read_text()) == (7, "x")


def test_a_release_deleted_by_hand(site: Site) -> None:
    """The active one deleted: the same archive brings it back. The previous deleted: rollback is 3, nothing changes.
    --keep does not count one that is gone: three complete releases are kept."""
    first = site.release("a").path
    shutil.rmtree(first)
    assert (site.release("a").path, site.served) == (first, "a")
    site.release("b")
    shutil.rmtree(first)
    with pytest.raises(NotFound):
        site.back()
    third = site.release("c", keep=9)
    assert (third.changed, site.served) == (True, "c")
    site.release("d", keep=9)
    shutil.rmtree(third.path)
    assert (site.release("e", keep=3).removed, site.letters) == ((), "bde")


def test_two_deployers_at_once(site: Site, tmp_path: Path) -> None:
    """Two at once with different archives: both served in turn, both in the history, the link at the last of them."""
    shell, words = Shell(tmp_path), ("--to", "srv", "--release", "--json")
    archives = [str(zipped(shell.home / f"{one}.zip", files_of(one))) for one in "ab"]
    both = [
        subprocess.Popen(shell.command("unpack", one, *words), env=shell.environ, cwd=shell.home, stdout=-1, stderr=-3)
        for one in archives
    ]
    documents = [document_of(one.communicate()[0]) for one in both]
    assert [one.returncode for one in both] == [0, 0]
    record = site.record
    assert set(record["releases"]) == {one["release"]["version"] for one in documents}
    assert os.readlink(site.folder / "current") == f"releases/{record['active']}"
    assert (site.letters, record["previous"] in record["releases"]) == ("ab", True)


@pytest.mark.parametrize("words", ["rollback srv", "unpack a.zip --to srv --release"])
def test_no_wait_for_the_lock(site: Site, mdl: Inside, tmp_path: Path, words: str) -> None:
    """--lock-wait 0 while another call is at work: 9, which names it, and nothing is switched."""
    site.release("a")
    site.release("b")
    with file_lock(site.folder / ".mdl", "releases", 0, silence):
        ran = mdl(Shell(tmp_path), *words.split(), "--lock-wait", "0", "--json")
    assert (ran.code, ran.document["error"]["code"], site.served) == (9, "BUSY", "b")
    assert f"another call of this process ({os.getpid()}, since " in ran.err


def test_where_no_hard_link_can_be_made(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without hard links, or files of another user (protected_hardlinks), only cost space."""
    site.release("a")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert (site.release("b").linked, site.served) == (0, "b")


def test_an_executable_stays_one(site: Site, tmp_path: Path) -> None:
    """A file that is executable now and was not before is executable in the new release."""
    site.release("a")
    with zipfile.ZipFile(zipped(tmp_path / "x.zip", files_of("b"), manifest=False), "a") as archive:
        archive.getinfo("config.json").external_attr = 0o100755 << 16
        archive.getinfo("config.json").create_system = 3
        archive.writestr("more", b"")
    assert os.access(site.release(tmp_path / "x.zip").path / "config.json", os.X_OK)


def test_a_folder_named_as_the_manifest(site: Site, tmp_path: Path) -> None:
    """A zip with a folder of the manifest's name is refused: its release could never be checked."""
    archive = zipped(tmp_path / "x.zip", files_of("a") | {f"{NAME}/x": b"1"}, manifest=False)
    with pytest.raises(Unsafe, match="reserved"):
        site.release(archive)
