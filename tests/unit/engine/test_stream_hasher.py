"""The hasher: one digest of the whole, prefix hashing on the way, and bad blocks handed back once."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.polling import until

from mdl import hashing
from mdl.engine import stream_hasher as hashers
from mdl.engine.journal import Identity
from mdl.engine.partial import Partial
from mdl.engine.stream_hasher import StreamHasher
from mdl.hashing import fingerprint
from mdl.http.ranges import ByteRange

STEP = 4096
SIZE = 5 * STEP + 123
DATA = hashlib.shake_128(b"hasher").digest(SIZE)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefix hashing every 4 KiB instead of every 16 MiB."""
    for room in (hashing, hashers):
        monkeypatch.setattr(room, "PREFIX_STEP", STEP)
    monkeypatch.setattr(hashing, "_READ", STEP)


@pytest.fixture
def partial(tmp_path: Path) -> Iterator[Partial]:
    opened = Partial.open(tmp_path, "k" * 32, Identity("https://h/m", SIZE, "sha256:" + "ab" * 32, None, None))
    opened.set_length(SIZE)
    yield opened
    opened.close()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def prefixes_of(data: bytes, step: int = STEP) -> tuple[str, ...]:
    return tuple(sha256(data[:stop]) for stop in range(step, len(data) + 1, step))


def ticked(_done: int) -> None:
    """Nothing to do while the hasher finishes."""


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 4, 2]])
def test_hashing_are_right_in_whatever_order_bytes_come(partial: Partial, order: list[int]) -> None:
    """The digest of the whole and of each prefix are hashlib's own, whichever piece was written first."""
    hasher = StreamHasher(partial, "sha256", SIZE)
    for n in order:
        partial.write(n * STEP, DATA[n * STEP : (n + 1) * STEP])
        hasher.wake()
    found = hasher.result(ticked)
    assert found is not None
    assert (found.digest.hex, found.size, found.prefixes) == (sha256(DATA), SIZE, prefixes_of(DATA))


@pytest.mark.parametrize("algorithm", ["sha256", "git-sha1"])
@pytest.mark.parametrize("size", [1, STEP - 1, STEP, STEP + 1, 3 * STEP])
def test_sizes_at_the_edges(tmp_path: Path, size: int, algorithm: str) -> None:
    """One byte, a step, and one more or less: digest and prefixes as `fingerprint` finds them in the file."""
    partial = Partial.open(tmp_path, "k" * 32, Identity("https://h/m", size, None, '"a"', None))
    partial.write(0, DATA[:size])
    found = StreamHasher(partial, algorithm, size).result(ticked)
    assert found is not None
    assert found.prefixes == prefixes_of(DATA[:size]) or algorithm != "sha256"
    assert found == fingerprint(partial.fd, algorithm)
    partial.close()


def test_only_the_front_is_followed(partial: Partial) -> None:
    """Bytes behind a gap are not hashed; without all of them there is no result yet."""
    hasher = StreamHasher(partial, "sha256", SIZE)
    partial.write(STEP, DATA[STEP:])
    hasher.wake()
    assert hasher.result(ticked) is None
    assert hasher.done == 0
    partial.write(0, DATA[:STEP])
    found = hasher.result(ticked)
    assert found is not None
    assert found.digest.hex == sha256(DATA)


def test_data_cut_behind_its_back_is_told(partial: Partial) -> None:
    """Where the file is shorter than what was written, the result is an error and not a digest."""
    partial.write(0, DATA)
    os.ftruncate(partial.fd, 2 * STEP)
    hasher = StreamHasher(partial, "sha256", SIZE)
    with pytest.raises(OSError, match="shorter"):
        hasher.result(ticked)


def test_teller_may_stop_the_wait(partial: Partial, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the teller raises ends the wait for a result."""
    partial.write(0, DATA)
    hold = threading.Event()
    real = hashers.read_blocks

    def held(*args: object) -> object:
        hold.wait(30)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(hashers, "read_blocks", held)
    hasher = StreamHasher(partial, "sha256", SIZE)

    def cancelled(_done: int) -> None:
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            hasher.result(cancelled)
    finally:
        hold.set()
        hasher.stop()


class Mending:
    """A partial whose damaged blocks are right once the hasher, having handed them back, asks for the front again."""

    def __init__(self, fd: int, damaged: bytes) -> None:
        self.fd, self._main = fd, threading.current_thread()
        self.bad: list[ByteRange] = []
        self.claim_below: int | None = None
        self._lost: list[ByteRange] = []
        self._front = SIZE
        os.pwrite(fd, damaged, 0)

    def lose(self, lost: ByteRange) -> bool:
        self.bad.append(lost)
        assert len(self.bad) < 20
        self._lost.append(lost)
        self._front = lost.start
        return True

    @property
    def front(self) -> int:
        if threading.current_thread() is not self._main and self._lost:
            for lost in self._lost:
                os.pwrite(self.fd, DATA[lost.start : lost.stop], lost.start)
            self._lost.clear()
            self._front = SIZE
        return self._front


def _repaired(tmp_path: Path, *blocks: int) -> tuple[list[ByteRange], str]:
    """The blocks handed back when these are damaged, and the digest in the end."""
    damaged = bytearray(DATA)
    for n in blocks:
        damaged[n * STEP + 7] ^= 1
    fd = os.open(tmp_path / "data", os.O_RDWR | os.O_CREAT)
    mending = Mending(fd, bytes(damaged))
    expected = (*prefixes_of(DATA), sha256(DATA))
    hasher = StreamHasher(mending, "sha256", SIZE, expected=expected, on_bad=mending.lose)  # type: ignore[arg-type]
    hasher.thread.join()
    found = hasher.result(ticked)
    os.close(fd)
    assert found is not None
    assert found.prefixes == prefixes_of(DATA)
    return mending.bad, found.digest.hex


def _block(n: int) -> ByteRange:
    return ByteRange(n * STEP, min(SIZE, (n + 1) * STEP))


@pytest.mark.parametrize("blocks", [(), (0,), (2,), (4,), (5,), (0, 1), (1, 3, 5), (0, 1, 2, 3, 4, 5)])
def test_bad_block_is_handed_back_once(tmp_path: Path, blocks: tuple[int, ...]) -> None:
    """Each damaged block, and no other, is handed back once; when it is right the digest of the whole is right."""
    assert _repaired(tmp_path, *blocks) == ([_block(n) for n in blocks], sha256(DATA))


def test_block_given_up_is_gone_on_from(partial: Partial) -> None:
    """Where a bad block is not wanted back, the digest is that of the bytes as they are."""
    damaged = DATA[:STEP] + b"?" + DATA[STEP + 1 :]
    partial.write(0, damaged)
    hasher = StreamHasher(
        partial, "sha256", SIZE, expected=(*prefixes_of(DATA), sha256(DATA)), on_bad=lambda _bad: False
    )
    hasher.thread.join()
    found = hasher.result(ticked)
    assert found is not None
    assert found.digest.hex == sha256(damaged)
    assert found.prefixes == prefixes_of(damaged)


def test_only_what_passed_is_claimed_in_a_repair(partial: Partial) -> None:
    """While blocks are held against their hashing, none beyond the last that passed can be claimed."""
    partial.claim_below = 0
    partial.write(0, DATA[: 2 * STEP] + b"?" * (SIZE - 2 * STEP))
    partial.sync_and_claim()
    assert partial.unclaimed == SIZE

    def lose(bad: ByteRange) -> bool:
        partial.mark_missing(ByteRange(bad.start, SIZE))
        return True

    hasher = StreamHasher(partial, "sha256", SIZE, expected=(*prefixes_of(DATA), sha256(DATA)), on_bad=lose)
    while partial.front > 2 * STEP:
        hasher.thread.join(0.01)
    hasher.stop()
    assert partial.claim_below == 2 * STEP
    partial.sync_and_claim()
    assert partial.unclaimed == 0


def test_short_reads_lose_no_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that reads less than it was asked for makes no prefix digest go missing."""
    (tmp_path / "data").write_bytes(DATA)
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: real(fd, [views[0][:1000]], at))
    fd = os.open(tmp_path / "data", os.O_RDONLY)
    found = fingerprint(fd, "sha256")
    os.close(fd)
    assert found.digest.hex == sha256(DATA)
    assert found.prefixes == prefixes_of(DATA)


def test_what_is_written_while_it_hashes_wakes_it_again(partial: Partial, monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait is ended by its time-out: whoever caught up hears of the next bytes at once."""
    heard: list[bool] = []
    waiting: list[threading.Condition] = []
    reading, go_on = threading.Event(), threading.Event()

    class Heard(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            waiting.append(self)
            heard.append(super().wait(10))
            waiting.clear()
            return heard[-1]

    def gated(*arguments: object) -> Iterator[memoryview]:
        reading.set()
        assert go_on.wait(60)
        return hashing.read_blocks(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hashers, "_STEP", STEP)
    monkeypatch.setattr(hashers, "read_blocks", gated)
    monkeypatch.setattr(hashers, "threading", SimpleNamespace(Condition=Heard, Thread=threading.Thread))
    hasher = StreamHasher(partial, "sha256", SIZE)
    for n in range(3):
        partial.write(n * STEP, DATA[n * STEP : (n + 1) * STEP])
        hasher.wake()
        assert reading.wait(60)  # the first piece is being read when the second comes
    go_on.set()
    until(lambda: hasher.done == 3 * STEP and bool(waiting))
    partial.write(3 * STEP, DATA[3 * STEP :])
    hasher.wake()
    found = hasher.result(ticked)
    assert found is not None
    assert found.digest.hex == sha256(DATA)
    assert all(heard)


def test_what_ends_the_thread_is_told_to_who_waits(partial: Partial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is no memory left: no digest of a part, and nothing that is only printed."""

    def full(*_: object) -> Iterator[memoryview]:
        raise MemoryError

    monkeypatch.setattr(hashers, "read_blocks", full)
    hasher = StreamHasher(partial, "sha256", SIZE)
    partial.write(0, DATA)
    hasher.wake()
    with pytest.raises(MemoryError):
        hasher.result(ticked)
