"""The engine and the disk: full, broken, occupied, changed by others (faults, group F)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support import faults
from support.bench import NAME, Bench, pinned
from support.body_writes import free_bytes, judge_writes
from support.data import MIB, flip, noise
from support.faulty_server import FaultyServer

from mdl import crc_json
from mdl.errors import NoSpace, Occupied
from mdl.paths import RelPath

DATA, OTHER, TINY = noise(4 * MIB), noise(4 * MIB, 1), noise(1000, 2)
SIZE = len(DATA)
BOTH_SIZES = pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])


def test_too_small_a_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the whole does not fit, nothing is requested, and the message has what is needed and what is free (F98)."""
    free_bytes(monkeypatch, lambda: SIZE + 10)
    with FaultyServer(faults.honest(DATA)) as server:
        files = [pinned(f"{server.url}/{name}", DATA, path=name) for name in "ab"]
        with pytest.raises(NoSpace, match=r"8\.4 MB and 4\.2 MB are free: 4\.2 MB short") as caught:
            bench.run(*files)
        assert (caught.value.exit_code, server.requests) == (7, [])


def test_what_is_here_needs_no_space(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of a part are not needed again (F98)."""
    free_bytes(monkeypatch, lambda: SIZE - bench.claimed)
    assert bench.fetch(faults.honest(DATA), DATA, half=True).code == 0


@pytest.mark.fault(105)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS])
def test_the_disk_gives_up_midway(bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A disk that fills or breaks midway: 7 at once, what was written is kept, and a later run goes on (F99, F101)."""

    def verdict(offset: int, count: int) -> int:
        if offset + count > SIZE // 2:
            raise OSError(code, os.strerror(code))
        return count

    with monkeypatch.context() as patch:
        judge_writes(patch, verdict)
        run = bench.fetch(faults.honest(DATA), DATA)
    full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    assert (run.code, run.error["code"], run.retries) == (7, "SPACE" if full else "LOCALIO", 0)
    assert os.strerror(code) in run.error["message"]
    kept = bench.claimed
    assert (kept > 0, bench.final.exists()) == (True, False)
    again = bench.fetch(faults.honest(DATA), DATA)
    assert (again.code, again.row.resumed_at, again.report.bytes_fetched) == (0, kept, SIZE - kept)
    assert bench.has(DATA)


@pytest.mark.fault(108)
def test_short_writes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that takes only a part of the bytes is continued (F108)."""
    judge_writes(monkeypatch, lambda offset, count: min(count, 10_000))
    assert bench.fetch(faults.honest(DATA), DATA).code == 0
    assert bench.has(DATA)


@pytest.mark.fault(108)
def test_a_lying_write(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that claims more than it wrote is found by the digest; nothing wrong is published (F108)."""
    lies = iter([True])
    judge_writes(monkeypatch, lambda offset, count: 0 if offset > MIB and next(lies, False) else count)
    run = bench.fetch(faults.honest(DATA), DATA)
    assert run.code == 0 or (run.code == 6 and not bench.final.exists())
    assert bench.fetch(faults.honest(DATA), DATA).code == 0
    assert bench.has(DATA)


@pytest.mark.fault(106)
def test_sync_fails_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed sync nothing unsynced is claimed; a later run fetches it again and ends right (F106)."""
    real, broken = os.fdatasync, iter([True])

    def fdatasync(fd: int) -> None:
        if next(broken, False):
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    run = bench.fetch(faults.stall_in_body(DATA, SIZE // 2), DATA)
    assert (run.code, run.error["code"], bench.claimed) == (7, "LOCALIO", 0)
    assert bench.fetch(faults.honest(DATA), DATA).code == 0
    assert bench.has(DATA)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@BOTH_SIZES
def test_publishing_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str, data: bytes) -> None:
    """If the last step fails nothing is under the final name, and a later run finishes (F106, F107)."""
    real = os.fsync

    def fails(*what: object, **_: object) -> None:
        if call == "fsync" and isinstance(what[0], int) and os.fstat(what[0]).st_size < len(data):
            return real(what[0])  # the journal's
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fails)  # so that the name is given by a rename
        patch.setattr(os, call, fails)
        assert bench.fetch(faults.honest(data), data).code == 7
    assert bench.is_untouched
    again = bench.fetch(faults.honest(data), data)
    assert (again.code, again.report.bytes_fetched) == (0, 0 if data is DATA else len(data))
    assert bench.has(data)


@pytest.mark.fault(110, 153)
@pytest.mark.parametrize("offset", [0, 100, SIZE // 2 - 1])
def test_a_flipped_bit_in_the_part(bench: Bench, offset: int) -> None:
    """A part whose bytes changed on the disk is found by the digest and fetched anew, which is reported (F110)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        bench.half(file, server, DATA)
        flip(bench.partials[0], offset)
        server.handler = faults.honest(DATA)
        run = bench.run(file)
    assert (run.code, run.rewound > 0, bench.has(DATA)) == (0, True, True)


@pytest.mark.fault(146, 147)
@pytest.mark.parametrize("damage", ["torn", "empty", "garbage", "first line", "gone", "claims too much"])
def test_a_damaged_journal(bench: Bench, damage: str) -> None:
    """A damaged journal costs bytes at most, never a right file; what it costs is reported (F100)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        bench.half(file, server, DATA)
        [place] = bench.store.partials.glob("*/journal")
        text = place.read_bytes()
        if damage == "gone":
            place.unlink()
        else:
            written = {"torn": text[:-5], "empty": b"", "garbage": b"\xff\0" * 500, "first line": b"X" + text[1:]}
            place.write_bytes({**written, "claims too much": text + crc_json.dumps([0, SIZE])}[damage])
        server.handler = faults.honest(DATA)
        run = bench.run(file)
    assert (run.code, bench.has(DATA)) == (0, True)
    assert run.rewound == run.report.bytes_discarded
    assert run.rewound > 0 or damage in ("torn", "claims too much")


@pytest.mark.fault(177)
@BOTH_SIZES
@pytest.mark.parametrize("where", ["file", "folder", "inner folder", "dangling"])
def test_links_in_the_way(bench: Bench, tmp_path: Path, where: str, data: bytes) -> None:
    """A symbolic link under the final name or on the way there is refused, and its target is untouched (F119)."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "victim").write_text("mine")
    path = {"folder": "sub/x.bin", "inner folder": "sub/deep/er/x.bin"}.get(where, "x.bin")
    at = bench.store.root / "m" / {"folder": "sub", "inner folder": "sub/deep"}.get(where, path)
    at.parent.mkdir(parents=True)
    at.symlink_to({"file": elsewhere / "victim", "dangling": elsewhere / "none"}.get(where, elsewhere))
    for force in (False, True):
        run = bench.fetch(faults.honest(data), data, path=path, force=force)
        assert (run.code, run.error["code"], run.requests) == (11, "UNSAFE", [])
        assert run.error["hint"] == Occupied.default_hint
    assert os.listdir(elsewhere) == ["victim"]
    assert (elsewhere / "victim").read_text() == "mine"


@pytest.mark.fault(177)
@BOTH_SIZES
@pytest.mark.parametrize("where", ["sub", "sub/deep", "sub/deep/x.bin"])
def test_link_that_comes_while_fetching(bench: Bench, tmp_path: Path, data: bytes, where: str) -> None:
    """A link that appears while the bytes come is refused as well, and nothing is made at its target (F117, I5)."""
    elsewhere, at = tmp_path / "elsewhere", bench.store.root / "m" / where
    elsewhere.mkdir()

    def plant() -> None:
        at.parent.mkdir(parents=True, exist_ok=True)
        at.symlink_to(elsewhere / "new" if where.endswith("bin") else elsewhere)

    assert bench.fetch(faults.acting(plant, faults.honest(data)), data, path="sub/deep/x.bin").code == 11
    assert list(elsewhere.iterdir()) == []


def test_pipe_in_the_way(bench: Bench) -> None:
    """A pipe under the final name is refused without being opened (F119)."""
    bench.final.parent.mkdir(parents=True)
    os.mkfifo(bench.final)
    run = bench.fetch(faults.honest(DATA), DATA)
    assert (run.code, run.requests) == (11, [])
    assert f"{bench.final} is a device, pipe or socket" in run.error["message"]
    assert run.error["hint"] == Occupied.default_hint


@pytest.mark.parametrize("kind", ["folder", "file for a folder"])
def test_folder_in_the_way(bench: Bench, kind: str) -> None:
    """A folder where the file should be, or a file where a folder should be: 7, also with --force (F119)."""
    place = bench.store.root / "m" / "sub"
    place.parent.mkdir(parents=True)
    place.mkdir() if kind == "folder" else place.write_text("mine")
    for force in (False, True):
        run = bench.fetch(faults.honest(DATA), DATA, path="sub" if kind == "folder" else "sub/x", force=force)
        assert (run.code, run.error["code"], run.requests) == (7, "OCCUPIED", [])
        assert f"{place} is a {'folder' if kind == 'folder' else 'file where'}" in run.error["message"]


@pytest.mark.parametrize("theirs", [OTHER, DATA + b"mine"], ids=["same size", "longer"])
def test_strangers_file(bench: Bench, theirs: bytes, tmp_path: Path) -> None:
    """A stranger's other bytes are left alone (7 and a hint), also if a forced download fails; --force replaces the
    name, not the inode (F119, F120)."""
    bench.final.parent.mkdir(parents=True)
    bench.final.write_bytes(theirs)
    os.link(bench.final, tmp_path / "twin")
    run = bench.fetch(faults.honest(DATA), DATA)
    assert (run.code, run.error["code"], run.requests) == (7, "OCCUPIED", [])
    assert "--force" in run.error["hint"]
    assert bench.fetch(faults.answers(404), DATA, force=True).code == 3
    assert bench.final.read_bytes() == theirs
    assert bench.fetch(faults.honest(DATA), DATA, force=True).code == 0
    assert bench.has(DATA)
    assert (tmp_path / "twin").read_bytes() == theirs


def test_right_bytes_are_adopted(bench: Bench) -> None:
    """Right bytes that are there already are kept, without a request (F119)."""
    bench.final.parent.mkdir(parents=True)
    bench.final.write_bytes(DATA)
    run = bench.fetch(faults.honest(DATA), DATA)
    assert (run.code, run.row.action, run.requests) == (0, "kept", [])


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
    assert bench.has(OTHER)
