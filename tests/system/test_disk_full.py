"""Real file systems that are too small, fill up, have no inodes left, or may not be written (faults, group F).

Every scene runs in a separate process with private mounts or as another user.
"""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support import faults
from support.bench import Bench, Run, pinned
from support.data import MIB, noise
from support.faulty_server import FaultyServer
from support.namespaces import MOUNTS, USER, apart, resize, small_disk
from support.partials import dead_owner
from support.shell import machine, settings

from mdl.downloader.receipts import file_key
from mdl.errors import NoSpace
from mdl.paths import RelPath, record_name

DATA = noise(6 * MIB)
SIZE = len(DATA)


def bench_on(folder: Path, options: str) -> Bench:
    """A bench whose models folder is a separate file system."""
    bench = Bench(folder, pytest.MonkeyPatch())
    small_disk(bench.store.root, options)
    return bench


def check(run: Run, code: str, words: str) -> None:
    assert (run.code, run.error["code"], run.retries) == (7, code, 0), run
    assert words in run.error["message"], run.error


def too_small(folder: Path) -> None:
    """All files of a plan together must fit into the real free space before the first byte: two of 6 MiB on 8 MiB."""
    bench = bench_on(folder, "size=8m")
    with FaultyServer(faults.honest(DATA)) as server:
        files = [pinned(f"{server.url}/{name}", DATA, path=name) for name in "ab"]
        with pytest.raises(NoSpace, match=r"needs 12.6 MB and \S+ MB are free") as caught:
            bench.run(*files)
        assert (caught.value.exit_code, server.requests) == (7, [])
        resize(bench.store.root, "size=16m")
        assert bench.run(*files).code == 0


def filling(folder: Path) -> None:
    """A disk that another program fills in the middle of the body is 7; what was written is kept, and with room again
    it goes on there."""
    bench = bench_on(folder, "size=8m")
    hog = bench.store.root / "hog"
    with FaultyServer(faults.acting_at(lambda: hog.write_bytes(bytes(5 * MIB // 2)), DATA, 4 * MIB)) as server:
        file = pinned(server.url + "/f", DATA)
        check(bench.run(file), "SPACE", "No space left on device")
        kept = bench.claimed
        assert (kept >= 3 * MIB, bench.final.exists(), bench.strangers()) == (True, False, ["hog"])
        with pytest.raises(NoSpace):
            bench.run(file)
        hog.unlink()
        server.handler = faults.honest(DATA)
        again = bench.run(file)
    assert (again.code, again.row.resumed_at, again.report and again.report.bytes_fetched) == (0, kept, SIZE - kept)
    assert bench.final.read_bytes() == DATA


def full_of_settings(folder: Path) -> None:
    """Settings, catalog or lock on a full disk: 7, and the file is named by its own name, not the working folder; what
    was there before is there still."""
    home = folder / "home"
    small_disk(home, "size=64k")
    shell = machine(home, "schema = 1\n")
    settings(shell, "[defaults]\nretries = 3\n")
    with contextlib.suppress(OSError), (home / "hog").open("wb", buffering=0) as hog:
        while hog.write(bytes(4096)):
            pass
    changes = {
        "config set connections 4": ".config/mdl/config.toml",
        "add new https://host/x.bin": "catalog.toml",
    }
    for words, name in changes.items():
        before = (home / name).read_bytes()
        ran = shell.run(*words.split())
        assert (ran.code, (home / name).read_bytes()) == (7, before), ran
        assert f"{home / name}: No space left on device" in ran.err, ran
    assert not [path for path in home.rglob("*") if path.name.endswith(".mdl-tmp")]


def too_long(folder: Path) -> None:
    """A limit on the size of files (ulimit -f, FAT) is 7, and when it is gone the download goes on."""
    bench = Bench(folder, pytest.MonkeyPatch())
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, resource.RLIM_INFINITY))
        check(bench.run(file), "SPACE", "File too large")
        assert bench.strangers() == []
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert bench.run(file).code == 0


def no_inodes(folder: Path) -> None:
    """With room for bytes and none for files it is 7, and files are called missing, however many inodes there are; a
    file is whole or not there, and a later run ends well."""
    bench = bench_on(folder, "size=32m,nr_inodes=64")
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        for count in range(2, 24):
            resize(bench.store.root, f"nr_inodes={count}")
            run = bench.run(file)
            if run.code == 0:
                break
            check(run, "SPACE", "No space left on device")
            assert "inode" in f"{run.error['message']} {run.error['hint']}", run.error
            assert not bench.final.exists() or bench.final.read_bytes() == DATA
    assert (run.code, bench.final.read_bytes() == DATA) == (0, True)
    assert count > 4


def read_only(folder: Path) -> None:
    """On a file system that may not be written what is here is kept; what is not is 7 before a byte is asked for."""
    bench = bench_on(folder, "size=32m")
    with FaultyServer(faults.honest(DATA)) as server:
        here, other = (pinned(f"{server.url}/{name}", DATA, path=name) for name in ("here", "other"))
        assert bench.run(here).code == 0
        resize(bench.store.root, "ro")
        run = bench.run(here, other)
        assert [row.action for row in run.report.models[0].files] == ["kept", "failed"]
        check(run, "LOCALIO", "Read-only file system")
        assert [request.path for request in server.requests] == ["/here"]


def forbidden(folder: Path) -> None:
    """A folder of the models folder that may not be written, or not even entered, is 7, and the place is named; with
    permission the same command ends well."""
    for mode in (0o500, 0o000):
        for name in ("", ".mdl", ".mdl/partials", ".mdl/receipts", f".mdl/receipts/{record_name('m')}", "m"):
            bench = Bench(folder / f"{mode:o}-{name.replace('/', '-')}", pytest.MonkeyPatch())
            place = bench.store.root / name
            place.mkdir(parents=True)
            place.chmod(mode)
            with FaultyServer(faults.honest(DATA)) as server:
                file = pinned(server.url + "/f", DATA)
                run = bench.run(file)
                check(run, "LOCALIO", "Permission denied")
                assert str(bench.store.root) in "{message} {hint} {item}".format(**run.error), run.error
                place.chmod(0o700)
                assert bench.run(file).code == 0, (name, mode)
            assert bench.final.read_bytes() == DATA


def left_forbidden(folder: Path) -> None:
    """A leftover whose data or journal may not be written is 7 and stays as it is; with permission it goes on."""
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


@pytest.mark.parametrize(
    ("scene", "kind"),
    [
        pytest.param(too_small, MOUNTS, marks=pytest.mark.fault(98)),
        pytest.param(filling, MOUNTS, marks=pytest.mark.fault(99, 100)),
        pytest.param(full_of_settings, MOUNTS, marks=pytest.mark.fault(104)),
        pytest.param(too_long, MOUNTS, marks=pytest.mark.fault(101)),
        pytest.param(no_inodes, MOUNTS, marks=pytest.mark.fault(102)),
        pytest.param(read_only, MOUNTS, marks=pytest.mark.fault(103)),
        pytest.param(forbidden, USER, marks=pytest.mark.fault(103, 104)),
        pytest.param(left_forbidden, USER, marks=pytest.mark.fault(104)),
    ],
)
def test_a_disk(tmp_path: Path, scene: Callable[[Path], None], kind: tuple[str, ...]) -> None:
    """Each scene tells what must happen on such a disk."""
    apart(scene, tmp_path, kind)
