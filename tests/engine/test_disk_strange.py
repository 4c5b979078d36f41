"""File systems unlike others: calls that fail or come back early, mounts inside, long names, coarse times."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import faults
from support.bench import Bench, pinned
from support.body_writes import judge_writes
from support.catalogs import catalog_of
from support.data import DATA as BODY
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Request
from support.jobs import arrived
from support.namespaces import MOUNTS, apart, failing, small_disk
from support.polling import until
from support.shell import done, machine

from mdl.engine.store import Store
from mdl.events import Event

DATA, TINY = noise(4 * MIB), noise(1000, 1)
SIZE = len(DATA)


@pytest.mark.fault(109, 111)
@pytest.mark.parametrize("pipes", ["splice:error=EINTR:when=2+2", "splice:error=EINVAL"], ids=["pipe", "memory"])
def test_interrupted_calls(tmp_path: Path, pipes: str) -> None:
    """Calls that come back with EINTR all the time, and a file system without fallocate, are not even noticed."""
    calls = [f"{call}:error=EINTR:when=2+2" for call in ("pwrite64", "fdatasync", "ftruncate", "recvfrom", "fsync")]
    calls.append(pipes)
    with FaultyServer(faults.honest(BODY)) as server:
        shell = machine(tmp_path, catalog_of(one=server.url + "/f"))
        done(shell.run("get", "one", "-q", prefix=failing(*calls, "fallocate:error=EOPNOTSUPP")))
    assert arrived(shell)


@pytest.mark.fault(121)
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("call", ["write", "fdatasync", "fsync", "ftruncate", "preadv"])
def test_a_handle_that_went_stale(bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """ESTALE in whatever call is 7 in the system's words, without another try; once it works again, so does mdl."""
    real, calls = getattr(os, call), []

    def stale(*what: object) -> object:
        look(*what)
        return real(*what)

    def look(*what: object) -> None:
        calls.append(what)
        if len(calls) > 1:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def verdict(offset: int, count: int) -> int:
        look(offset, count)
        return count

    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        with monkeypatch.context() as patch:
            if call == "write":
                judge_writes(patch, verdict)
            else:
                patch.setattr(os, call, stale)
            run = bench.run(file, stall=2.0)
        assert len(calls) > 1 or call in ("ftruncate", "fsync", "fdatasync"), calls
        if len(calls) > 1:
            assert (run.code, run.error["code"], run.retries) == (7, "LOCALIO", 0), run
            assert os.strerror(errno.ESTALE) in run.error["message"]
        assert bench.run(file).code == 0
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(121)
def test_a_sync_that_takes_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a sync does not come back the bytes go on coming, one sync is under way at a time, none of them is lost."""
    real, under_way, most = os.fdatasync, [0], [0]
    all_sent = threading.Event()

    def slow(fd: int) -> None:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        assert all_sent.wait(20)
        real(fd)
        under_way[0] -= 1

    def handler(request: Request, number: int) -> Answer:
        def body() -> Iterator[bytes]:
            yield DATA[: SIZE // 2]
            until(lambda: most[0] > 0)
            yield DATA[SIZE // 2 :]

        return replace(faults.honest(DATA)(request, number), body=body())

    monkeypatch.setattr(os, "fdatasync", slow)
    with FaultyServer(handler) as server:

        def tell(_: Event) -> None:
            if server.bytes_sent >= SIZE:
                all_sent.set()

        run = bench.run(pinned(server.url + "/f", DATA), tell=tell)
    assert (run.code, most[0], run.retries) == (0, 1, 0)
    assert bench.final.read_bytes() == DATA


class Broken:
    """Stands in for os.close: the descriptors of one file are closed, and then told to have failed."""

    def __init__(self, name: str) -> None:
        self.name, self.real, self.closed = name, os.close, list[int]()

    def __call__(self, fd: int) -> None:
        found = os.readlink(f"/proc/self/fd/{fd}") if fd >= 0 else ""
        if found.endswith(self.name):
            self.closed.append(fd)
            self.real(fd)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.real(fd)


@pytest.mark.fault(107)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_close_that_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where closing the data fails (NFS, quotas) it is 7 or nothing, never a second close of what may be another's."""
    broken = Broken(f"/{bench.final.name}")
    threads: list[object] = []
    monkeypatch.setattr(threading, "excepthook", threads.append)
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        with monkeypatch.context() as patch:
            patch.setattr(os, "close", broken)
            run = bench.run(file)
        assert run.code in (0, 7)
        assert bench.final.read_bytes() == DATA
        assert bench.run(file).row.action == "kept"
    assert (len(broken.closed), threads) == (1, [])


@pytest.mark.fault(107)
@pytest.mark.parametrize("call", ["unlink", "rmdir"])
def test_what_cannot_be_removed(bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Where nothing can be removed the download ends well all the same; what is left over hinders no later run."""

    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, broken)
            assert bench.run(file).code == 0
        bench.final.unlink()
        assert bench.run(file).code == 0
    assert bench.final.read_bytes() == DATA
    assert bench.partials == []


@pytest.mark.fault(112)
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EIO, errno.ENOSYS, 0], ids=["ENOLCK", "EIO", "ENOSYS", "lies"])
def test_without_locks(bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A file system whose locks do not work, or keep nobody out, is good enough."""

    def flock(_fd: int, _how: int) -> None:
        if code:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        run = bench.run(file)
    assert run.code == 0
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(112)
def test_without_locks_nothing_is_muttered(tmp_path: Path) -> None:
    """Where locks are not there at all (ENOSYS) stderr holds no Python warning."""
    with FaultyServer(faults.honest(BODY)) as server:
        shell = machine(tmp_path, catalog_of(one=server.url + "/f"))
        ran = done(shell.run("get", "one", "-q", prefix=failing("flock:error=ENOSYS")))
    assert ran.err == ""


@pytest.mark.fault(112)
def test_without_links(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without hard and symbolic links needs neither, large file or small."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    for call in ("link", "symlink"):
        monkeypatch.setattr(os, call, refused)
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
    """Where a rename cannot cross, a synced copy does; without room there nothing is left beside, and nothing lost."""
    apart(mounted, tmp_path, MOUNTS)


@pytest.mark.fault(114)
@pytest.mark.parametrize("code", [errno.EINVAL, errno.EFBIG], ids=["a name", "4 GiB"])
def test_what_the_file_system_cannot_hold(bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A name that a file system refuses (FAT: ``:`` and ``?``), or a length: 7 in its words, and nothing is left."""
    real = os.replace if code == errno.EINVAL else os.ftruncate

    def refused(*what: object, **where: object) -> object:
        if code == errno.EFBIG or "what?" in str(what[1]):
            raise OSError(code, os.strerror(code))
        return real(*what, **where)  # type: ignore[operator]

    monkeypatch.setattr(os, "link", refused)  # so that the name is given by a rename
    monkeypatch.setattr(os, real.__name__, refused)
    with FaultyServer(faults.honest(DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA, path="what?"))
        is_early = code == errno.EFBIG
        assert (run.code, len(server.requests)) == (7, 0 if is_early else 1)
    assert os.strerror(code) in run.error["message"]
    assert bench.strangers() == []


@pytest.mark.fault(114)
def test_coarse_times(bench: Bench) -> None:
    """Times that a file system rounds to two seconds cost a hash, and never a download."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        assert bench.run(file).code == 0
        status = bench.final.stat()
        os.utime(bench.final, ns=(status.st_atime_ns, status.st_mtime_ns // 2_000_000_000 * 2_000_000_000))
        assert [bench.run(file).row.action for _ in "12"] == ["kept", "kept"]
        assert len(server.requests) == 1


@pytest.mark.fault(116)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
@pytest.mark.parametrize("name", ["a" * 255, "\u06a9" * 127 + "x", "/".join(["d" * 250] * 4)], ids=["a", "k", "deep"])
def test_the_longest_names(bench: Bench, data: bytes, name: str) -> None:
    """A name of 255 bytes, a path of 1000: no name of mdl's own on the way is longer."""
    with FaultyServer(faults.honest(data)) as server:
        assert bench.run(pinned(server.url + "/f", data, path=name)).code == 0
    assert (bench.store.folder("m") / name).read_bytes() == data


@pytest.mark.fault(116)
def test_too_deep_a_models_folder(bench: Bench, tmp_path: Path) -> None:
    """Where the whole path is longer than the system takes it is 7, in the system's words."""
    many, rest = divmod(3900 - len(str(tmp_path)), 201)
    bench.store = Store(tmp_path.joinpath(*["d" * 200] * many, "r" * (rest + 1)))
    with FaultyServer(faults.honest(DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA, path="/".join(["e" * 100] * 3)))
    assert (run.code, run.error["message"]) == (7, os.strerror(errno.ENAMETOOLONG))
