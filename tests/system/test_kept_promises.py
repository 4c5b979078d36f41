"""What several operations promise together, in a process that lives on: nothing that is served goes, a stop stops, what
a signal handler raises comes out as it is, and a system that starts no thread is no fault."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.data import MIB, noise
from support.homes import own_home
from support.loopback_hub import LoopbackHub, Repo
from support.polling import until

import mdl
from mdl.archive.releases import ReleaseDir
from mdl.downloader.receipts import Receipts
from mdl.events import Event, Failed, Finished, Verifying
from mdl.files import RemoteFile
from mdl.local import verify as verifying

TINY = Repo("org/tiny", {"config.json": b"{}"})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, which is the current folder, with a run in ``run``."""
    own_home(tmp_path, monkeypatch)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.bin").write_bytes(noise(1000, 1))
    (tmp_path / "catalog.toml").write_text("schema = 1\n")
    return tmp_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub([TINY]) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def archives(count: int) -> list[Path]:
    """Archives of the run, each with another configuration."""
    for number in range(count):
        Path("run/config.json").write_text(str(number))
        mdl.pack("run", f"{number}.zip")
    return [Path(f"{number}.zip") for number in range(count)]


# Releases.


def test_a_history_that_was_moved_away() -> None:
    """Without its history, which mdl advises to move away if it is damaged, a folder keeps its releases: they are those
    that came before."""
    made = [mdl.release(path, "srv", keep=5).version for path in archives(3)]
    Path("srv/releases.json").rename("away.json")
    mdl.release("2.zip", "srv", keep=5)
    assert sorted(path.name for path in Path("srv/releases").iterdir()) == sorted(made)
    assert mdl.releases("srv").current == made[2]


def test_no_rollback_to_an_empty_folder() -> None:
    """A release whose files are gone, with the list of them, is not served again."""
    made = [mdl.release(path, "srv").version for path in archives(2)]
    shutil.rmtree(f"srv/releases/{made[0]}")
    Path(f"srv/releases/{made[0]}").mkdir()
    with pytest.raises(mdl.ProtocolError, match="manifest"):
        mdl.rollback("srv")
    assert mdl.releases("srv").current == made[1]


def test_a_rollback_that_did_not_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    """If mdl is killed after a rollback past several releases was recorded, and before it happened, those in between
    are still the way back."""
    made = [mdl.release(path, "srv").version for path in archives(3)]

    class Killed(BaseException):
        """Stands for a kill: nothing in mdl catches it."""

    def killed(self: ReleaseDir, version: str) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(ReleaseDir, "switch_to", killed)
        mdl.rollback("srv", to=made[0])
    assert mdl.releases("srv").current == made[2]
    assert mdl.rollback("srv").version == made[1]


# Packs.


def test_the_users_own_zip_is_packed() -> None:
    """A zip of the run that is called like mdl's archives, and is none of them, is packed; mdl's own are not."""
    Path("run/model_run_data.zip").write_bytes(b"my data")
    mdl.pack("run", "run/model_run.zip")
    mdl.pack("run", "out.zip")
    with zipfile.ZipFile("out.zip") as packed:
        assert {"model_run_data.zip", "model.bin"} <= set(packed.namelist())
        assert "model_run.zip" not in packed.namelist()


@pytest.mark.parametrize("call", [mdl.unpack, mdl.release, mdl.verify_archive])
def test_a_stop_before_nothing_but_empty_files(call: Callable[..., object]) -> None:
    """A token that is set stops also what has no byte to write."""
    with zipfile.ZipFile("empty.zip", "w") as archive:
        for number in range(10):
            archive.writestr(f"{number}.txt", "")
    stop = mdl.CancelToken()
    stop.set()
    with pytest.raises(mdl.Cancelled):
        call("empty.zip", *(["out"] if call is not mdl.verify_archive else []), cancel=stop)


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system starts no thread, what threads would do is done by the caller."""
    [archive] = archives(1)
    Path("run/large.bin").write_bytes(noise(3 * MIB, 2))

    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    packed = mdl.pack("run", "1.zip")
    mdl.verify_archive("1.zip")
    mdl.unpack(archive, "out")
    assert mdl.release("1.zip", "srv").version
    assert packed.files == 3


# Stops, and disks that take no note.


def test_a_time_out_while_mdl_waits_for_a_lock(hub: LoopbackHub, home: Path) -> None:
    """A signal handler's ``TimeoutError`` is an ``OSError``, and no trouble of the disk: it ends the call that waits
    for another process's lock, and the work is not done without that lock."""
    holder = (
        "import sys; from pathlib import Path; from mdl.disk.mutex import file_lock, folder_lock\n"
        "with file_lock(Path('m/.mdl/locks'), 'org--tiny', 0, print), folder_lock(Path('.')):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"held\n"

    def over(*_: object) -> None:
        raise TimeoutError("my time is over")

    before = signal.signal(signal.SIGALRM, over)
    client = mdl.Client(home="m", catalog="catalog.toml")
    calls: list[Callable[[], object]] = [lambda: client.download("hf:org/tiny"), lambda: client.add("x", "hf:o/x")]
    try:
        for call in calls:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(TimeoutError, match="my time is over"):
                call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        process.communicate()
    assert Path("catalog.toml").read_text() == "schema = 1\n"
    assert not Path("m/org--tiny").exists()


def test_verify_stops_reading_when_its_listener_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a listener raises ends the reading too, also while the caller keeps the exception: files that were not begun
    are not read."""
    client, files = mdl.Client(home="m", catalog="catalog.toml"), 12
    for number in range(files):
        Path(f"run/{number}.bin").write_bytes(noise(2 * MIB, number))
    client.import_folder("run", name="m", how="copy")
    read, heard = list[str](), list[Event]()
    gate, right = threading.Event(), verifying.check_file

    def counted(name: str, remote: RemoteFile, *more: Any) -> Any:
        read.append(remote.path.text)
        assert remote.path.text == "0.bin" or gate.wait(60)  # the first one is asked for next
        return right(name, remote, *more)

    def raising(event: Event) -> None:
        if isinstance(event, Verifying) and heard:
            raise ValueError("mine")
        heard.append(event)

    monkeypatch.setattr(verifying, "check_file", counted)
    with pytest.raises(ValueError, match="mine") as kept:
        client.verify("m", on_event=raising)
    gate.set()
    until(lambda: not [one for one in threading.enumerate() if one.name.startswith("mdl-call")])
    assert kept.value
    assert len(read) < files


def test_verify_on_a_disk_that_takes_no_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged file is told of also where its receipt cannot be written, as on a disk that is read-only."""
    client = mdl.Client(home="m", catalog="catalog.toml")
    client.import_folder("run", name="m", how="copy")
    path = Path("m/m/model.bin")
    facts = path.stat()
    path.write_bytes(bytes(1000))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    def refused(self: Receipts, *_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Receipts, "distrust", refused)
    report = client.verify("m")
    assert [file.status for _, file in report.files] == ["corrupt"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_a_catalog_keep_their_ends(end: str) -> None:
    """The lines of an edited catalog end as most of them did, as on Windows or not."""
    text = 'schema = 1\n# one\n# two\n\n[models.a]\nsource = "hf:o/a"\n'.replace("\n", end)
    Path("catalog.toml").write_bytes(text.replace(f"# one{end}", "# one\r\n").encode())
    client = mdl.Client(catalog="catalog.toml")
    client.add("b", "hf:o/b")
    client.remove("b")
    assert Path("catalog.toml").read_bytes().decode() == text


@pytest.mark.parametrize("how", ["models folder", "model", "one file"])
def test_what_is_moved_away_during_a_download_is_not_reported_as_here(
    monkeypatch: pytest.MonkeyPatch, home: Path, how: str
) -> None:
    """Another program moves what has come while the rest is fetched: that has failed with 7 and is told, and the next
    call brings it."""
    files = {f"{number}.json": f"[{number}]".encode() for number in range(60)}
    moved, told = list[str](), set[str]()
    place = {"models folder": "m", "model": "m/org--many", "one file": ""}[how]

    def move(event: Event) -> None:
        if isinstance(event, Finished) and not moved:
            moved.append(event.file)
            os.rename(place or f"m/org--many/{event.file}", "elsewhere")
        elif isinstance(event, Failed):
            told.add(event.file)

    with LoopbackHub([Repo("org/many", files)]) as many:
        monkeypatch.setenv("HF_ENDPOINT", many.url)
        client = mdl.Client(home="m", catalog="catalog.toml", connections=2)
        with pytest.raises(mdl.StorageError, match=r"moved or removed it|of 60 failed"):
            client.get("hf:org/many", on_event=move)
        here = {path.name for path in Path("m/org--many").glob("*.json")}
        assert moved[0] not in here
        assert told == files.keys() - here
        client.get("hf:org/many")
    assert {path.name for path in Path("m/org--many").glob("*.json")} == files.keys()
