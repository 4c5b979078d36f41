"""Links and pipes planted wherever mdl writes: nothing behind them is written, removed or waited for."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.bench import NAME, Bench, pinned
from support.catalogs import entry_of
from support.data import noise
from support.faulty_server import FaultyServer
from support.partials import dead_owner
from support.releases import files_of, zipped
from support.shell import ExitCode, machine

from mdl.disk.process import ProcessId
from mdl.disk.safe_open import EntryAt
from mdl.downloader.receipts import file_key
from mdl.errors import Unsafe
from mdl.jobs.log import LARGEST
from mdl.paths import RelPath, record_name

DATA, SMALL = noise(2**21), noise(1000)
KEY = file_key("m", RelPath.parse(NAME))
RECORD = record_name("m")
STATE = ".local/state/mdl"
KNOWN = (0, 2, 7, 9, 11, 12)
WORDS = ("prefetch", "m", "--metrics", "m.prom", "--ready-file", "ready.json")

MODELS_FOLDERS = [
    *(".mdl", ".mdl/partials", ".mdl/receipts", f".mdl/receipts/{RECORD}", ".mdl/locks"),
    *(f".mdl/partials/{KEY}.{whose}" for whose in ("dead", "me")),
]
MODELS_FILES = [
    *(f".mdl/partials/{KEY}.dead/{name}" for name in ("data", "journal")),
    *(f".mdl/receipts/{RECORD}/all.receipts", f".mdl/locks/{RECORD}.lock", f".mdl/locks/{RECORD}.who", f"m/{NAME}"),
]
STATE_FOLDERS = [f"{STATE}/{name}" for name in ("jobs", "locks")]
STATE_FILES = [
    *(f"{STATE}/downloads.log{suffix}" for suffix in ("", ".1", ".lock")),
    *(f"{STATE}/locks/prefetch.{suffix}" for suffix in ("lock", "who")),
    *("m.prom", "ready.json"),
]
READ_FILES = [f"{STATE}/jobs/x.job", "mdl.lock", ".config/mdl/config.toml"]
"""Files that the user may write, or another mdl: a link there may be the user's own wish."""
RELEASE_FILES = ["releases.json", *(f".mdl/{record_name('releases')}.{end}" for end in ("lock", "who"))]


def cases(folders: list[str], files: list[str], read: Sequence[str] = ()) -> list[Any]:
    """A link to a folder for each folder; a pipe, and a link to a file and to nothing, for each file."""
    pairs = [(place, "folder") for place in folders]
    pairs += [(place, what) for place in files for what in ("file", "nothing", "pipe")]
    pairs += [(place, "pipe") for place in read]
    return [pytest.param(*pair, id=" ".join(pair).replace(KEY, "KEY")) for pair in pairs]


class Outside:
    """A folder of another program, which has names that mdl uses too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("data", "journal", "downloads.log", "all.receipts"):
            (folder / name).write_text(f"precious {name}")
        self.before = self.seen()

    def seen(self) -> dict[str, bytes]:
        return {str(path): b"" if path.is_dir() else path.read_bytes() for path in self.folder.rglob("*")}

    def is_untouched(self) -> bool:
        return self.seen() == self.before

    def plant(self, at: Path, what: str) -> None:
        """Put a pipe at ``at``, or a link that leads here. This process's or a dead one's name is put into the path."""
        owners = {f"{KEY}.dead": f"{KEY}.{dead_owner()}", f"{KEY}.me": f"{KEY}.{ProcessId.current()}"}
        at = Path(*(owners.get(part, part) for part in at.parts))
        at.parent.mkdir(parents=True, exist_ok=True)
        if what == "pipe":
            os.mkfifo(at)
        else:
            at.symlink_to(self.folder / {"folder": ".", "file": "data", "nothing": "new"}[what])


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path / "outside")


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pipes that were opened in a way that waits for the other end; such an opening fails instead."""
    found: list[str] = []
    real_os, real_io = os.open, io.open

    def is_pipe(path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode)

    def refuse(path: Any) -> None:
        found.append(os.path.basename(path))
        raise OSError(6, "No such device or address", os.fspath(path))

    def low(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if is_pipe(path) and not flags & os.O_NONBLOCK and flags & os.O_ACCMODE != os.O_RDWR:
            refuse(path)
        return real_os(path, flags, *rest, **more)

    def high(path: Any, *rest: Any, **more: Any) -> Any:
        if is_pipe(path):
            refuse(path)
        return real_io(path, *rest, **more)

    monkeypatch.setattr(os, "open", low)
    monkeypatch.setattr(io, "open", high)
    return found


def code_of(bench: Bench, url: str) -> int:
    """How the file's download ends, also if it does not begin."""
    try:
        return bench.run(pinned(url, DATA)).code
    except Unsafe as error:
        return error.exit_code


@pytest.mark.fault(177)
@pytest.mark.parametrize(("place", "what"), cases(MODELS_FOLDERS, MODELS_FILES))
def test_in_the_models_folder(bench: Bench, outside: Outside, waited: list[str], place: str, what: str) -> None:
    """A link or a pipe at any name that get reads or writes: what a link leads to stays untouched, nothing waits for a
    pipe's other end, and the error is a known one. Without the link the next run ends right."""
    outside.plant(bench.store.root / place, what)
    with FaultyServer(faults.honest(DATA)) as server:
        code = code_of(bench, f"{server.url}/f")
        assert (outside.is_untouched(), code in KNOWN, waited) == (True, True, [])
        if what == "pipe":
            return
        if code:
            for path in bench.store.root.rglob("*"):
                if path.is_symlink():
                    path.unlink()
            code = code_of(bench, f"{server.url}/f")
    assert (code, bench.final.read_bytes() == DATA, outside.is_untouched()) == (0, True, True)


@pytest.mark.fault(177)
@pytest.mark.parametrize(("place", "what"), cases(STATE_FOLDERS, STATE_FILES, READ_FILES))
def test_in_the_state_folder(
    exit_code: ExitCode, tmp_path: Path, outside: Outside, waited: list[str], place: str, what: str
) -> None:
    """The same for records, logs, their locks, for files that other programs are to read, and for what the user may
    write. The log is so large that it is rotated; the one model is there already, so that no server is asked."""
    shell = machine(tmp_path / "home", "schema = 1\n" + entry_of("m", "http://files.example/f.bin", SMALL))
    (shell.models / "m").mkdir(parents=True)
    (shell.models / "m" / "f.bin").write_bytes(SMALL)
    outside.plant(shell.home / place, what)
    log = shell.home / STATE / "downloads.log"
    if not os.path.lexists(log) and STATE in place:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        os.truncate(log, LARGEST)
    code = exit_code(shell, *(("jobs",) if place.endswith(".job") else WORDS))
    assert (outside.is_untouched(), code in KNOWN, waited) == (True, True, [])


@pytest.mark.fault(177)
@pytest.mark.parametrize(("place", "what"), cases([".mdl", "current", "releases"], RELEASE_FILES))
def test_where_releases_are(
    exit_code: ExitCode, tmp_path: Path, outside: Outside, waited: list[str], place: str, what: str
) -> None:
    """A link in a folder of releases leads no release, no switch and no sweep anywhere else."""
    outside.plant(tmp_path / "srv" / place, what)
    zipped(tmp_path / "a.zip", files_of("a"))
    code = exit_code(machine(tmp_path), "unpack", "a.zip", "--to", "srv", "--release")
    assert (outside.is_untouched(), code in KNOWN, waited) == (True, True, [])


ROUNDS = 300 if os.environ.get("MDL_LONG") else 12


def swapped(sub: Path, outside: Outside) -> None:
    """Put a link out in the place of a folder, which is moved beside it; or the other way round."""
    if sub.is_symlink():
        sub.unlink()
        sub.with_name("aside").rename(sub)
    else:
        sub.rename(sub.with_name("aside"))
        sub.symlink_to(outside.folder)


@pytest.mark.fault(177)
@pytest.mark.parametrize("data", [SMALL, DATA], ids=["small", "large"])
def test_a_link_put_there_after_the_look(
    bench: Bench, outside: Outside, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """If a folder becomes a link between the check and the rename, the file is in the folder that was checked."""
    sub, real = bench.store.folder("m") / "sub", EntryAt.file_stat

    def check(entry: EntryAt) -> None:
        real(entry)
        if not sub.is_symlink():
            swapped(sub, outside)

    monkeypatch.setattr(EntryAt, "file_stat", check)
    with FaultyServer(faults.honest(data)) as server:
        bench.run(pinned(f"{server.url}/f", data, path="sub/x"))
    assert outside.is_untouched()
    assert (sub.with_name("aside") / "x").read_bytes() == data


@pytest.mark.fault(177)
def test_a_link_that_comes_and_goes(bench: Bench, outside: Outside) -> None:
    """While another thread swaps the folder for a link and back, again and again, nothing is ever made outside."""
    sub, over = bench.store.folder("m") / "sub", threading.Event()
    sub.mkdir(parents=True)

    def swap() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                swapped(sub, outside)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        with FaultyServer(faults.honest(SMALL)) as server:
            for number in range(ROUNDS):
                run = bench.run(pinned(f"{server.url}/f", SMALL, path=f"sub/{number}"))
                assert run.code in KNOWN
    finally:
        over.set()
        thread.join()
    assert outside.is_untouched()


@pytest.mark.fault(182)
def test_modules_in_the_working_folder(tmp_path: Path) -> None:
    """The command mdl takes no part of itself, of Python or of another package from the folder that it is run in."""
    script = shutil.which("mdl", path=str(Path(sys.executable).parent))
    if not script:
        pytest.skip("mdl is not installed as a command here, only as a folder on the path")
    shell = machine(tmp_path)
    for name in ("mdl", "typer", "json", "tomllib", "platformdirs"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(77)")
    done = subprocess.run([script, "list"], env=shell.environ, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
