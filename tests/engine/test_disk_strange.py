"""File systems unlike others: calls that fail or come back early, mounts inside, long names, coarse times."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import faults
from support.bench import Bench, pinned
from support.body_writes import CloseFails, judge_writes
from support.catalogs import catalog_of
from support.data import DATA as BODY
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Request
from support.jobs import arrived
from support.namespaces import MOUNTS, apart, failing, small_disk
from support.shell import done, machine

from mdl.downloader.store import Store
from mdl.events import Event

DATA, TINY = noise(4 * MIB), noise(1000, 1)
SIZE = len(DATA)


@pytest.mark.fault(109, 111)
def test_interrupted_calls(tmp_path: Path) -> None:
    """Calls that keep returning EINTR, and a file system without fallocate, are not noticed."""
    calls = [f"{call}:error=EINTR:when=2+2" for call in ("pwrite64", "fdatasync", "ftruncate", "recvfrom", "fsync")]
    with FaultyServer(faults.honest(BODY)) as server:
        shell = machine(tmp_path, catalog_of(one=server.url + "/f"))
        done(shell.run("get", "one", "-q", prefix=failing(*calls, "fallocate:error=EOPNOTSUPP")))
    assert arrived(shell)


@pytest.mark.fault(121)
@pytest.mark.parametrize("call", ["write", "fdatasync", "fsync", "ftruncate", "preadv"])
def test_a_handle_that_went_stale(bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """ESTALE in any call is 7 in the system's words, without another try; once it works again, so does mdl."""
    real, calls = getattr(os, call), list[object]()

    def look(*what: object) -> None:
        calls.append(what)
        if len(calls) > 1:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def stale(*what: object) -> object:
        look(*what)
        return real(*what)

    def verdict(offset: int, count: int) -> int:
        look()
        return count

    with monkeypatch.context() as patch:
        if call == "write":
            judge_writes(patch, verdict)
        else:
            patch.setattr(os, call, stale)
        run = bench.fetch(faults.honest(DATA), DATA, stall=2.0)
    assert len(calls) > 1 or call in ("ftruncate", "fsync", "fdatasync"), calls
    if len(calls) > 1:
        assert (run.code, run.error["code"], run.retries) == (7, "LOCALIO", 0), run
        assert os.strerror(errno.ESTALE) in run.error["message"]
    assert bench.fetch(faults.honest(DATA), DATA).code == 0
    assert bench.has(DATA)


@pytest.mark.fault(121)
def test_a_sync_that_takes_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a sync does not come back the bytes go on coming, only one sync is under way, and no byte is lost."""
    real, under_way, most = os.fdatasync, [0], [0]
    half_sent, all_sent = threading.Event(), threading.Event()

    def slow(fd: int) -> None:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        half_sent.set()
        assert all_sent.wait(20)
        real(fd)
        under_way[0] -= 1

    def handler(request: Request, number: int) -> Answer:
        return replace(faults.honest(DATA)(request, number), body=[DATA[: SIZE // 2], half_sent, DATA[SIZE // 2 :]])

    monkeypatch.setattr(os, "fdatasync", slow)
    with FaultyServer(handler) as server:

        def tell(_: Event) -> None:
            if server.bytes_sent >= SIZE:
                all_sent.set()

        run = bench.run(pinned(server.url + "/f", DATA), tell=tell)
    assert (run.code, most[0], run.retries) == (0, 1, 0)
    assert bench.has(DATA)


@pytest.mark.fault(107)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_close_that_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If closing the data fails (NFS, quotas) it is 7 or nothing, never a second close of a descriptor that may be
    another file's."""
    threads: list[object] = []
    monkeypatch.setattr(threading, "excepthook", threads.append)
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", broken := CloseFails(bench.final.name, "data (deleted)"))
        assert bench.fetch(faults.honest(DATA), DATA).code in (0, 7)
    assert bench.final.read_bytes() == DATA
    assert bench.fetch(faults.honest(DATA), DATA).row.action == "kept"
    assert (len(broken.closed), threads) == (1, [])


def failing_with(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.fault(107)
@pytest.mark.parametrize("call", ["unlink", "rmdir"])
def test_what_cannot_be_removed(bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """If nothing can be removed the download ends well all the same; what is left over hinders no later run."""
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing_with(errno.EIO))
        assert bench.fetch(faults.honest(DATA), DATA).code == 0
    bench.final.unlink()
    assert bench.fetch(faults.honest(DATA), DATA).code == 0
    assert bench.has(DATA)


@pytest.mark.fault(112)
@pytest.mark.parametrize(
    "flock",
    [*map(failing_with, (errno.ENOLCK, errno.EIO, errno.ENOSYS)), lambda fd, how: None],
    ids=["ENOLCK", "EIO", "ENOSYS", "lies"],
)
def test_without_locks(bench: Bench, monkeypatch: pytest.MonkeyPatch, flock: Callable[..., None]) -> None:
    """A file system whose locks do not work, or keep no process out, is good enough."""
    monkeypatch.setattr(fcntl, "flock", flock)
    assert bench.fetch(faults.honest(DATA), DATA).code == 0
    assert bench.has(DATA)


@pytest.mark.fault(112)
def test_without_locks_there_is_no_warning(tmp_path: Path) -> None:
    """If there are no locks at all (ENOSYS) stderr has no Python warning."""
    with FaultyServer(faults.honest(BODY)) as server:
        shell = machine(tmp_path, catalog_of(one=server.url + "/f"))
        ran = done(shell.run("get", "one", "-q", prefix=failing("flock:error=ENOSYS")))
    assert ran.err == ""


@pytest.mark.fault(112)
def test_without_links(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without hard and symbolic links needs neither, large file or small."""
    for call in ("link", "symlink"):
        monkeypatch.setattr(os, call, failing_with(errno.EPERM))
    with FaultyServer(faults.routes({"/f": faults.honest(DATA), "/t": faults.honest(TINY)})) as server:
        run = bench.run(pinned(server.url + "/f", DATA), pinned(server.url + "/t", TINY, path="tiny"))
    assert run.code == 0


def mounted(folder: Path) -> None:
    """A model's folder is another disk: once with room for its file, once without."""
    bench = Bench(folder, pytest.MonkeyPatch())
    small_disk(bench.final.parent, "size=16m")
    with FaultyServer(faults.honest(DATA)) as server:
        assert bench.run(pinned(server.url + "/f", DATA)).code == 0
        assert bench.final.read_bytes() == DATA
        assert os.stat(bench.final).st_dev != os.stat(bench.store.own).st_dev
        small_disk(bench.store.root / "m" / "sub", "size=2m")
        file = pinned(server.url + "/f", DATA, path="sub/f")
        run = bench.run(file)
        assert (run.code, run.error["code"]) == (7, "SPACE"), run
        assert os.listdir(bench.store.root / "m" / "sub") == []
        before = len(server.requests)
        assert bench.run(file).code == 7
        assert len(server.requests) == before, "what was fetched is kept, and not asked for again"


@pytest.mark.fault(113)
def test_a_disk_inside_the_models_folder(tmp_path: Path) -> None:
    """If a rename cannot cross, a synced copy does; without room there nothing is left over, and nothing lost."""
    apart(mounted, tmp_path, MOUNTS)


@pytest.mark.fault(114)
@pytest.mark.parametrize("code", [errno.EINVAL, errno.EFBIG], ids=["a name", "4 GiB"])
def test_what_the_file_system_cannot_hold(bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A name that a file system refuses (FAT: ``:`` and ``?``), or a length: 7 in its words, and nothing is left."""
    is_name = code == errno.EINVAL
    real = os.replace if is_name else os.ftruncate

    def refused(*what: object, **where: object) -> object:
        if not is_name or "what?" in str(what[1]):
            raise OSError(code, os.strerror(code))
        return real(*what, **where)  # type: ignore[operator]

    monkeypatch.setattr(os, "link", refused)  # so that the name is given by a rename
    monkeypatch.setattr(os, real.__name__, refused)
    run = bench.fetch(faults.honest(DATA), DATA, path="what?")
    assert (run.code, len(run.requests)) == (7, 1 if is_name else 0)
    assert os.strerror(code) in run.error["message"]
    assert bench.strangers() == []


@pytest.mark.fault(114)
def test_coarse_times(bench: Bench) -> None:
    """Times that a file system rounds to two seconds cost a hash, and never a download."""
    assert bench.fetch(faults.honest(DATA), DATA).code == 0
    status = bench.final.stat()
    os.utime(bench.final, ns=(status.st_atime_ns, status.st_mtime_ns // 2_000_000_000 * 2_000_000_000))
    for _ in "12":
        run = bench.fetch(faults.honest(DATA), DATA)
        assert (run.row.action, run.requests) == ("kept", [])


@pytest.mark.fault(116)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
@pytest.mark.parametrize("name", ["a" * 255, "\u06a9" * 127 + "x", "/".join(["d" * 250] * 4)], ids=["a", "k", "deep"])
def test_the_longest_names(bench: Bench, data: bytes, name: str) -> None:
    """A name of 255 bytes, a path of 1000: no name of mdl's own on the way is longer."""
    assert bench.fetch(faults.honest(data), data, path=name).code == 0
    assert (bench.store.folder("m") / name).read_bytes() == data


@pytest.mark.fault(116)
def test_too_deep_a_models_folder(bench: Bench, tmp_path: Path) -> None:
    """If the whole path is longer than the system takes it is 7, in the system's words."""
    many, rest = divmod(3900 - len(str(tmp_path)), 201)
    bench.store = Store(tmp_path.joinpath(*["d" * 200] * many, "r" * (rest + 1)))
    run = bench.fetch(faults.honest(DATA), DATA, path="/".join(["e" * 100] * 3))
    assert (run.code, run.error["message"]) == (7, os.strerror(errno.ENAMETOOLONG))
