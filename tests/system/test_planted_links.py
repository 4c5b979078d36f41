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
from support.shell import ExitCode, Shell, machine

from mdl.engine.receipts import file_key
from mdl.errors import Unsafe
from mdl.fs.entries import EntryAt
from mdl.paths import RelPath
from mdl.process import ProcessId

DATA, SMALL = noise(2**21), noise(1000)
KEY = file_key("m", RelPath.parse(NAME))
STATE = ".local/state/mdl"
KNOWN = (0, 2, 7, 9, 11, 12)

FOLDERS = [
    *(".mdl", ".mdl/partials", ".mdl/receipts", ".mdl/receipts/m", ".mdl/locks"),
    *(f".mdl/partials/{KEY}.{whose}" for whose in ("dead", "me")),
    *(f"{STATE}/{name}" for name in ("jobs", "locks")),
]
IN_MODELS = [
    *(f".mdl/partials/{KEY}.dead/{name}" for name in ("data", "journal")),
    *(f".mdl/receipts/m/{KEY}.receipt", ".mdl/locks/m.lock", ".mdl/locks/m.who", f"m/{NAME}"),
]
IN_STATE = [
    *(f"{STATE}/downloads.log{suffix}" for suffix in ("", ".1", ".lock")),
    *(f"{STATE}/locks/prefetch.{suffix}" for suffix in ("lock", "who")),
    *("m.prom", "ready.json"),
]


def case(place: str, *values: str) -> Any:
    return pytest.param(place, *values, id=" ".join((place.replace(KEY, "KEY"), *values)))


def links(files: list[str], *, state: bool) -> list[Any]:
    """A link to a folder for each folder; to a file, and to nothing, for each file."""
    folders = [place for place in FOLDERS if place.startswith(STATE) == state]
    pairs = [*((place, "folder") for place in folders), *((place, to) for place in files for to in ("file", "nothing"))]
    return [case(*pair) for pair in pairs]


class Outside:
    """Another's folder, which has names that mdl uses too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("data", "journal", "downloads.log", f"{KEY}.receipt"):
            (folder / name).write_text(f"precious {name}")
        self.before = self.seen()

    def seen(self) -> dict[str, bytes]:
        return {str(path): b"" if path.is_dir() else path.read_bytes() for path in self.folder.rglob("*")}

    def is_untouched(self) -> bool:
        return self.seen() == self.before

    def planted(self, at: Path, to: str) -> None:
        """Put a link at ``at``."""
        made(at).symlink_to(self.folder / {"folder": ".", "file": "data", "nothing": "new"}[to])


def made(at: Path) -> Path:
    """The place, with this process's or a dead one's name in it, and the folders above it."""
    at = Path(
        str(at).replace(f"{KEY}.dead", f"{KEY}.{dead_owner()}").replace(f"{KEY}.me", f"{KEY}.{ProcessId.current()}")
    )
    at.parent.mkdir(parents=True)
    return at


def without_links(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_symlink():
            path.unlink()


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path / "outside")


def code_of(bench: Bench, url: str) -> int:
    """How the file's download ends, also where it does not begin."""
    try:
        return bench.run(pinned(url, DATA)).code
    except Unsafe as error:
        return error.exit_code


@pytest.mark.fault(177)
@pytest.mark.parametrize(("place", "to"), links(IN_MODELS, state=False))
def test_a_link_in_the_models_folder(bench: Bench, outside: Outside, place: str, to: str) -> None:
    """A link at any name that get writes: what it leads to stays untouched; without it the next run ends right."""
    outside.planted(bench.store.root / place, to)
    with FaultyServer(faults.honest(DATA)) as server:
        code = code_of(bench, f"{server.url}/f")
        assert (outside.is_untouched(), code in KNOWN) == (True, True)
        if code:
            without_links(bench.store.root)
            code = code_of(bench, f"{server.url}/f")
    assert (code, bench.final.read_bytes() == DATA, outside.is_untouched()) == (0, True, True)


WORDS = ("prefetch", "m", "--metrics", "m.prom", "--ready-file", "ready.json")


def kept(home: Path) -> Shell:
    """A machine whose one model is there already, so that nobody has to be asked."""
    shell = machine(home, "schema = 1\n" + entry_of("m", "http://files.example/f.bin", SMALL))
    (shell.models / "m").mkdir(parents=True)
    (shell.models / "m" / "f.bin").write_bytes(SMALL)
    return shell


@pytest.mark.fault(177)
@pytest.mark.parametrize(("place", "to"), links(IN_STATE, state=True))
def test_a_link_in_the_state_folder(
    exit_code: ExitCode, tmp_path: Path, outside: Outside, monkeypatch: pytest.MonkeyPatch, place: str, to: str
) -> None:
    """The same for records, logs, their rotation and locks, and for the files that others are to read."""
    monkeypatch.setattr("mdl.jobs.log.LARGEST", 100)
    shell = kept(tmp_path / "home")
    outside.planted(tmp_path / "home" / place, to) if "/" in place else (shell.home / place).symlink_to(
        outside.folder / ("data" if to == "file" else "new")
    )
    code = exit_code(shell, *WORDS)
    assert (outside.is_untouched(), code in KNOWN) == (True, True)


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pipes that were opened in a way that waits for somebody; such an opening fails instead."""
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


ROUNDS = 300 if os.environ.get("MDL_LONG") else 12


def swapped(sub: Path, outside: Outside) -> None:
    """A link out where a folder was, which is now beside it; or the other way round."""
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
    """A folder that becomes a link between the check and the rename: the file is where the check was, not outside."""
    sub, real = bench.store.folder("m") / "sub", EntryAt.refuse_special

    def check(entry: EntryAt) -> None:
        real(entry)
        swapped(sub, outside)

    monkeypatch.setattr(EntryAt, "refuse_special", check)
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


@pytest.mark.fault(177)
@pytest.mark.parametrize("place", [case(place) for place in IN_MODELS])
def test_a_pipe_in_the_models_folder(bench: Bench, waited: list[str], place: str) -> None:
    """A FIFO at any name that get reads or writes: nothing waits for its other end, and the error is a known one."""
    os.mkfifo(made(bench.store.root / place))
    with FaultyServer(faults.honest(DATA)) as server:
        run = bench.run(pinned(f"{server.url}/f", DATA))
    assert (waited, run.code in KNOWN) == ([], True)


@pytest.mark.fault(177)
@pytest.mark.parametrize("place", [*IN_STATE, f"{STATE}/jobs/x.job", "mdl.lock", ".config/mdl/config.toml"])
def test_a_pipe_in_other_places(exit_code: ExitCode, tmp_path: Path, waited: list[str], place: str) -> None:
    """The same for the state folder, for files that others are to read, and for what the user may write."""
    shell = kept(tmp_path)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / place)
    code = exit_code(shell, *(("jobs",) if place.endswith(".job") else WORDS))
    assert (waited, code in (*KNOWN, 2)) == ([], True)


@pytest.mark.fault(177)
@pytest.mark.parametrize(
    "name", [".mdl", "current", "releases", "releases.json", ".mdl/releases.lock", ".mdl/releases.who"]
)
def test_a_link_where_releases_are(exit_code: ExitCode, tmp_path: Path, outside: Outside, name: str) -> None:
    """A link in a folder of releases leads no release, no switch and no sweep anywhere else."""
    shell = machine(tmp_path)
    outside.planted(tmp_path / "srv" / name, "folder" if name in (".mdl", "current", "releases") else "file")
    zipped(tmp_path / "a.zip", files_of("a"))
    code = exit_code(shell, "unpack", "a.zip", "--to", "srv", "--release")
    assert (outside.is_untouched(), code in KNOWN) == (True, True)


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
