"""Real file systems that are too small, fill up, have no inodes left, or may not be written (faults, group F)."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import faults
from support.bench import Bench, Run, pinned
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Request
from support.namespaces import MOUNTS, USER, apart, resize, small_disk
from support.partials import dead_owner

from mdl.engine.receipts import file_key
from mdl.errors import NoSpace
from mdl.paths import RelPath

DATA = noise(6 * MIB)
SIZE = len(DATA)


def bench_on(folder: Path, options: str) -> Bench:
    """A bench whose models folder is a file system of its own."""
    bench = Bench(folder, pytest.MonkeyPatch())
    small_disk(bench.store.root, options)
    return bench


def check(run: Run, code: str, words: str) -> None:
    assert (run.code, run.error["code"], run.retries) == (7, code, 0), run
    assert words in run.error["message"], run.error


def too_small(folder: Path) -> None:
    """Two files of which only one has room, one more of unknown length, on 8 MiB."""
    bench = bench_on(folder, "size=8m")
    with FaultyServer(faults.honest(DATA)) as server:
        files = [pinned(f"{server.url}/{name}", DATA, path=name) for name in "ab"]
        with pytest.raises(NoSpace, match=rf"needs {2 * SIZE} bytes and \d+ are free") as caught:
            bench.run(*files)
        assert (caught.value.exit_code, server.requests) == (7, [])
        resize(bench.store.root, "size=16m")
        assert bench.run(*files).code == 0


@pytest.mark.fault(98)
def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    """All files of a plan together are held against the real free space before the first byte."""
    apart(too_small, tmp_path, MOUNTS)


def filling(folder: Path) -> None:
    """Somebody else takes the room in the middle of the body; later there is room again."""
    bench = bench_on(folder, "size=8m")
    hog, right = bench.store.root / "hog", faults.honest(DATA)

    def handler(request: Request, number: int) -> Answer:
        def body() -> Iterator[bytes]:
            yield DATA[: 4 * MIB]
            hog.write_bytes(bytes(5 * MIB // 2))
            yield DATA[4 * MIB :]

        return replace(right(request, number), body=body())

    with FaultyServer(handler) as server:
        file = pinned(server.url + "/f", DATA)
        check(bench.run(file), "SPACE", "No space left on device")
        kept = bench.claimed
        assert (kept >= 3 * MIB, bench.final.exists(), bench.strangers()) == (True, False, ["hog"])
        with pytest.raises(NoSpace):
            bench.run(file)
        hog.unlink()
        server.handler = right
        again = bench.run(file)
    assert (again.code, again.row.resumed_at, again.report and again.report.bytes_fetched) == (0, kept, SIZE - kept)
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(99, 100)
def test_a_disk_that_fills(tmp_path: Path) -> None:
    """A disk that somebody fills on the way is 7; what was written is kept, and with room again it goes on there."""
    apart(filling, tmp_path, MOUNTS)


def too_long(folder: Path) -> None:
    """No file may have more than 4 MiB."""
    bench = Bench(folder, pytest.MonkeyPatch())
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, resource.RLIM_INFINITY))
        check(bench.run(file), "SPACE", "File too large")
        assert bench.strangers() == []
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert bench.run(file).code == 0


@pytest.mark.fault(101)
def test_a_limit_on_files(tmp_path: Path) -> None:
    """A limit on the size of files (ulimit -f, FAT) is 7, and gone with it the download goes on."""
    apart(too_long, tmp_path, MOUNTS)


def inodes(folder: Path) -> None:
    """Room for bytes, none for files: at every number of inodes from none to enough."""
    codes, bench = [], bench_on(folder, "size=32m,nr_inodes=64")
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        for count in range(2, 24):
            resize(bench.store.root, f"nr_inodes={count}")
            run = bench.run(file)
            codes.append(run.code)
            if run.code == 0:
                break
            check(run, "SPACE", "No space left on device")
            assert not bench.final.exists() or bench.final.read_bytes() == DATA
    assert codes[-1] == 0, codes
    assert bench.final.read_bytes() == DATA
    assert len(codes) > 3


@pytest.mark.fault(102)
def test_no_inode_left(tmp_path: Path) -> None:
    """However many inodes are missing it is 7, a file is whole or not there, and a later run ends well."""
    apart(inodes, tmp_path, MOUNTS)


def told_of_inodes(folder: Path) -> None:
    bench = bench_on(folder, "size=32m,nr_inodes=3")
    with FaultyServer(faults.honest(DATA)) as server:
        error = bench.run(pinned(server.url + "/f", DATA)).error
    assert "inode" in f"{error['message']} {error['hint']}", error


@pytest.mark.fault(102)
def test_no_inode_left_is_told(tmp_path: Path) -> None:
    """Where bytes are free and files are not, it is files that are called missing."""
    apart(told_of_inodes, tmp_path, MOUNTS)


def read_only(folder: Path) -> None:
    """A file system that may not be written at all; one with a whole file on it."""
    bench = bench_on(folder, "size=32m")
    with FaultyServer(faults.honest(DATA)) as server:
        here, other = (pinned(f"{server.url}/{name}", DATA, path=name) for name in ("here", "other"))
        assert bench.run(here).code == 0
        resize(bench.store.root, "ro")
        run = bench.run(here, other)
        assert [row.action for row in run.report.models[0].files] == ["kept", "failed"]
        check(run, "LOCALIO", "Read-only file system")
        assert [request.path for request in server.requests] == ["/here"]


@pytest.mark.fault(103)
def test_a_disk_that_may_not_be_written(tmp_path: Path) -> None:
    """What is here needs nothing written: kept. What is not is 7 before a byte of it is asked for."""
    apart(read_only, tmp_path, MOUNTS)


FOLDERS = ("", ".mdl", ".mdl/partials", ".mdl/receipts", ".mdl/receipts/m", "m")


def forbidden(folder: Path) -> None:
    """Each folder of the models folder in turn may not be written or not even be entered."""
    for mode in (0o500, 0o000):
        for name in FOLDERS:
            bench = Bench(folder / f"{mode:o}-{name.replace('/', '-')}", pytest.MonkeyPatch())
            place = bench.store.root / name
            place.mkdir(parents=True)
            place.chmod(mode)
            with FaultyServer(faults.honest(DATA)) as server:
                file = pinned(server.url + "/f", DATA)
                check(bench.run(file), "LOCALIO", "Permission denied")
                place.chmod(0o700)
                assert bench.run(file).code == 0, (name, mode)
            assert bench.final.read_bytes() == DATA


@pytest.mark.fault(104)
def test_folders_that_may_not_be_written(tmp_path: Path) -> None:
    """A folder of the models folder without permission is 7; with permission the same command ends well."""
    apart(forbidden, tmp_path, USER)


def left_forbidden(folder: Path) -> None:
    """A leftover whose data or journal may not be touched."""
    key = file_key("m", RelPath.parse("model.bin"))
    for name in ("data", "journal"):
        bench = Bench(folder / name, pytest.MonkeyPatch())
        with FaultyServer(faults.honest(DATA)) as server:
            file = pinned(server.url + "/f", DATA)
            at = bench.half(file, server, DATA)
            server.handler = faults.honest(DATA)
            [left] = bench.store.partials.iterdir()
            left = left.rename(left.with_name(f"{key}.{dead_owner()}"))
            (left / name).chmod(0o400)
            run = bench.run(file)
            assert (run.code, run.error["code"]) == (7, "LOCALIO"), (name, run)
            [left] = bench.store.partials.iterdir()
            (left / name).chmod(0o600)
            assert bench.run(file).row.resumed_at == at, name


@pytest.mark.fault(104)
def test_a_leftover_that_may_not_be_written(tmp_path: Path) -> None:
    """A leftover without permission is 7 and stays as it is; with permission it is gone on with."""
    apart(left_forbidden, tmp_path, USER)


def named(folder: Path) -> None:
    bench = Bench(folder, pytest.MonkeyPatch())
    (bench.store.own / "partials").mkdir(parents=True)
    (bench.store.own / "partials").chmod(0o500)
    with FaultyServer(faults.honest(DATA)) as server:
        error = bench.run(pinned(server.url + "/f", DATA)).error
    assert str(bench.store.root) in f"{error['message']} {error['hint']} {error['item']}", error


@pytest.mark.fault(103, 104)
def test_the_place_is_named(tmp_path: Path) -> None:
    """What may not be written is told by its path: that is what has to be mended."""
    apart(named, tmp_path, USER)
