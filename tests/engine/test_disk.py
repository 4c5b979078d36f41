"""The engine and the disk: full, broken, occupied, tampered with (faults, group F)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support import faults
from support.bench import NAME, Bench, pinned
from support.body_writes import judge_writes
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Request

from mdl.errors import NoSpace
from mdl.paths import RelPath

DATA, OTHER, TINY = noise(4 * MIB), noise(4 * MIB, 1), noise(1000, 2)
SIZE = len(DATA)


def test_too_small_a_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the whole does not fit, nothing is asked for, and need and have are told (F98)."""
    monkeypatch.setattr(bench.store, "free_space", lambda: SIZE + 10)
    with FaultyServer(faults.honest(DATA)) as server:
        files = [pinned(f"{server.url}/{name}", DATA, path=name) for name in "ab"]
        with pytest.raises(NoSpace, match=f"{2 * SIZE} bytes and {SIZE + 10} are free") as caught:
            bench.run(*files)
        assert server.requests == []
    assert caught.value.exit_code == 7


def test_what_is_here_needs_no_space(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of a part are not needed again (F98)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        at = bench.half(file, server, DATA)
        server.handler = faults.honest(DATA)
        monkeypatch.setattr(bench.store, "free_space", lambda: SIZE - at)
        assert bench.run(file).code == 0


@pytest.mark.usefixtures("way")
@pytest.mark.fault(105)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS])
def test_the_disk_gives_up_midway(bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A disk that fills or breaks midway: 7 at once, what was written is kept, and a later run goes on (F99, F101)."""
    limit = SIZE // 2

    def verdict(offset: int, count: int) -> int:
        if offset + count > limit:
            raise OSError(code, os.strerror(code))
        return count

    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        with monkeypatch.context() as patch:
            judge_writes(patch, verdict)
            run = bench.run(file)
        full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        assert (run.code, run.error["code"], run.retries) == (7, "SPACE" if full else "LOCALIO", 0)
        assert os.strerror(code) in run.error["message"]
        kept = bench.claimed
        assert kept > 0
        assert not bench.final.exists()
        again = bench.run(file)
    assert (again.code, again.row.resumed_at, again.report.bytes_fetched) == (0, kept, SIZE - kept)
    assert bench.final.read_bytes() == DATA


@pytest.mark.usefixtures("way")
@pytest.mark.fault(108)
def test_short_writes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that takes only a part of the bytes is gone on with (F108)."""
    judge_writes(monkeypatch, lambda offset, count: min(count, 10_000))
    with FaultyServer(faults.honest(DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
    assert run.code == 0
    assert bench.final.read_bytes() == DATA


@pytest.mark.usefixtures("way")
@pytest.mark.fault(108)
def test_a_lying_write(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that claims more than it wrote is found by the digest; nothing wrong is published (F108)."""
    lies = iter([True])

    def verdict(offset: int, count: int) -> int:
        return 0 if offset > MIB and next(lies, False) else count

    judge_writes(monkeypatch, verdict)
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        run = bench.run(file)
        assert run.code in (0, 6)
        assert run.code == 0 or not bench.final.exists()
        assert bench.run(file).code == 0
    assert bench.final.read_bytes() == DATA


@pytest.mark.usefixtures("way")
@pytest.mark.fault(106)
def test_sync_fails_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed sync nothing unsynced is claimed; a later run fetches it again and ends right (F106)."""
    real, broken = os.fdatasync, iter([True])

    def fdatasync(fd: int) -> None:
        if next(broken, False):
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with FaultyServer(faults.stall_in_body(DATA, SIZE // 2)) as server:
        file = pinned(server.url + "/f", DATA)
        run = bench.run(file)
        assert (run.code, run.error["code"], bench.claimed) == (7, "LOCALIO", 0)
        server.handler = faults.honest(DATA)
        assert bench.run(file).code == 0
    assert bench.final.read_bytes() == DATA


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
def test_publishing_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str, data: bytes) -> None:
    """Where the last step fails nothing is under the final name, and a later run finishes (F106, F107)."""
    real = os.fsync

    def fails(*what: object, **_: object) -> None:
        if call == "fsync" and isinstance(what[0], int) and os.fstat(what[0]).st_size < len(data):
            return real(what[0])  # the journal's
        raise OSError(errno.EIO, "Input/output error")

    with FaultyServer(faults.honest(data)) as server:
        file = pinned(server.url + "/f", data)
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", fails)  # so that the name is given by a rename
            patch.setattr(os, call, fails)
            run = bench.run(file)
        assert (run.code, bench.final.exists(), bench.strangers()) == (7, False, [])
        again = bench.run(file)
    assert (again.code, again.report.bytes_fetched) == (0, 0 if data is DATA else len(data))
    assert bench.final.read_bytes() == data


@pytest.mark.fault(110, 153)
@pytest.mark.parametrize("offset", [0, 100, SIZE // 2 - 1])
def test_a_flipped_bit_in_the_part(bench: Bench, offset: int) -> None:
    """A part that rotted while it lay there is found by the digest and fetched anew, aloud (F110)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        bench.half(file, server, DATA)
        flip(bench.partials[0], offset)
        server.handler = faults.honest(DATA)
        run = bench.run(file)
    assert run.code == 0
    assert run.rewound > 0
    assert bench.final.read_bytes() == DATA


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.mark.fault(146, 147)
@pytest.mark.parametrize("damage", ["torn", "empty", "garbage", "gone", "claims too much"])
def test_a_damaged_journal(bench: Bench, damage: str) -> None:
    """A damaged journal costs bytes at most, never rightness (F100)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        bench.half(file, server, DATA)
        [place] = bench.store.partials.glob("*/journal")
        text = place.read_bytes()
        if damage == "gone":
            place.unlink()
        elif damage == "claims too much":
            from mdl import crc_json

            place.write_bytes(text + crc_json.dumps([0, SIZE]))
        else:
            place.write_bytes({"torn": text[:-5], "empty": b"", "garbage": b"\xff\0" * 500}[damage])
        server.handler = faults.honest(DATA)
        run = bench.run(file)
    assert run.code == 0
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(177)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
@pytest.mark.parametrize("where", ["file", "folder", "dangling"])
def test_links_in_the_way(bench: Bench, tmp_path: Path, where: str, data: bytes) -> None:
    """A symbolic link under the final name or on the way there is refused, and what it leads to untouched (F119)."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "victim").write_text("mine")
    at = bench.store.root / "m" / ("sub" if where == "folder" else "x.bin")
    at.parent.mkdir(parents=True)
    at.symlink_to({"file": elsewhere / "victim", "folder": elsewhere, "dangling": elsewhere / "none"}[where])
    path = "sub/x.bin" if where == "folder" else "x.bin"
    with FaultyServer(faults.honest(data)) as server:
        for force in (False, True):
            run = bench.run(pinned(server.url + "/f", data, path=path), force=force)
            assert (run.code, run.error["code"]) == (11, "UNSAFE")
        assert server.requests == []
    assert sorted(entry.name for entry in elsewhere.iterdir()) == ["victim"]
    assert (elsewhere / "victim").read_text() == "mine"


@pytest.mark.fault(177)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
def test_link_that_comes_while_fetching(bench: Bench, tmp_path: Path, data: bytes) -> None:
    """A link put there while the bytes come is refused as well, and nothing is made where it leads (F117, I5)."""
    elsewhere, sub = tmp_path / "elsewhere", bench.store.root / "m" / "sub"
    elsewhere.mkdir()
    right = faults.honest(data)

    def handler(request: Request, number: int) -> Answer:
        sub.parent.mkdir(parents=True, exist_ok=True)
        sub.symlink_to(elsewhere)
        return right(request, number)

    with FaultyServer(handler) as server:
        run = bench.run(pinned(server.url + "/f", data, path="sub/deep/x.bin"))
    assert list(elsewhere.iterdir()) == []
    assert run.code == 11


def test_pipe_in_the_way(bench: Bench) -> None:
    """A pipe under the final name is refused without being opened (F119)."""
    bench.final.parent.mkdir(parents=True)
    os.mkfifo(bench.final)
    with FaultyServer(faults.honest(DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
        assert server.requests == []
    assert run.code == 11


@pytest.mark.parametrize("kind", ["folder", "file for a folder"])
def test_folder_in_the_way(bench: Bench, kind: str) -> None:
    """A folder where the file should be, or a file where a folder should be: 7, also with --force (F119)."""
    place = bench.store.root / "m" / "sub"
    place.parent.mkdir(parents=True)
    place.mkdir() if kind == "folder" else place.write_text("mine")
    path = "sub" if kind == "folder" else "sub/x"
    with FaultyServer(faults.honest(DATA)) as server:
        for force in (False, True):
            run = bench.run(pinned(server.url + "/f", DATA, path=path), force=force)
            assert (run.code, run.error["code"]) == (7, "OCCUPIED")
        assert server.requests == []


@pytest.mark.parametrize("theirs", [OTHER, b"mine"], ids=["same size", "other size"])
def test_strangers_file(bench: Bench, theirs: bytes, tmp_path: Path) -> None:
    """A stranger's other bytes are left alone (7 and a hint); --force replaces the name, not the inode (F119, F120)."""
    bench.final.parent.mkdir(parents=True)
    bench.final.write_bytes(theirs)
    twin = tmp_path / "twin"
    os.link(bench.final, twin)
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        run = bench.run(file)
        assert (run.code, run.error["code"], server.requests) == (7, "OCCUPIED", [])
        assert "--force" in run.error["hint"]
        assert bench.final.read_bytes() == theirs
        forced = bench.run(file, force=True)
    assert forced.code == 0
    assert bench.final.read_bytes() == DATA
    assert twin.read_bytes() == theirs


def test_force_that_fails_keeps_the_old(bench: Bench) -> None:
    """A forced download that fails leaves the file that stood there (F119)."""
    bench.final.parent.mkdir(parents=True)
    bench.final.write_bytes(b"mine")
    with FaultyServer(faults.answers(404)) as server:
        run = bench.run(pinned(server.url + "/f", DATA), force=True)
    assert (run.code, bench.final.read_bytes()) == (3, b"mine")


def test_right_bytes_are_adopted(bench: Bench) -> None:
    """Right bytes that stand there already are kept, without a request (F119)."""
    bench.final.parent.mkdir(parents=True)
    bench.final.write_bytes(DATA)
    with FaultyServer(faults.honest(DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
        assert (run.code, run.row.action, server.requests) == (0, "kept", [])


def test_own_damaged_file_is_fetched_again(bench: Bench) -> None:
    """A file of mdl's own that the disk damaged and a check distrusts, or whose source has a newer one, is replaced
    without --force."""
    with FaultyServer(faults.honest(DATA)) as server:
        assert bench.run(pinned(server.url + "/f", DATA)).code == 0
        before = bench.final.stat()
        flip(bench.final, 5)
        os.utime(bench.final, ns=(before.st_atime_ns, before.st_mtime_ns))
        bench.store.receipts.distrust("m", RelPath.parse(NAME))
        assert bench.run(pinned(server.url + "/f", DATA)).row.action == "fetched"
        assert bench.final.read_bytes() == DATA
        server.handler = faults.honest(OTHER, etag='"v2"')
        assert bench.run(pinned(server.url + "/f", OTHER)).code == 0
    assert bench.final.read_bytes() == OTHER
