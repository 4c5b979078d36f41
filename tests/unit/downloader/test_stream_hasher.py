"""The stream hasher: the digest of the whole, prefix digests on the way, and each bad block reported once."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.data import MIB, noise, sha256
from support.polling import until

from mdl import hashing
from mdl.downloader import stream_hasher as hashers
from mdl.downloader.journal import Identity
from mdl.downloader.partial import FileModified, Partial
from mdl.downloader.stream_hasher import StreamHasher
from mdl.errors import Cancelled
from mdl.hashing import Fingerprint, fingerprint
from mdl.net.ranges import ByteRange

STEP = 4096
SIZE = 5 * STEP + 123
DATA = hashlib.shake_128(b"hasher").digest(SIZE)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefix digests every 4 KiB instead of every 16 MiB."""
    for room in (hashing, hashers):
        monkeypatch.setattr(room, "PREFIX_STEP", STEP)


@pytest.fixture
def partial(tmp_path: Path) -> Iterator[Partial]:
    opened = Partial.open(tmp_path, "k" * 32, Identity("https://h/m", SIZE, "sha256:" + "ab" * 32, None, None))
    opened.set_length(SIZE)
    yield opened
    opened.close()


def prefixes_of(data: bytes) -> tuple[str, ...]:
    return tuple(sha256(data[:stop]) for stop in range(STEP, len(data) + 1, STEP))


EXPECTED = (*prefixes_of(DATA), sha256(DATA))


def result(hasher: StreamHasher) -> Fingerprint:
    found = hasher.result(lambda _done: None)
    assert found
    return found


def is_of(found: Fingerprint, data: bytes) -> bool:
    return (found.digest.hex, found.size, found.prefixes) == (sha256(data), len(data), prefixes_of(data))


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 4, 2]])
def test_digests_are_right_in_any_order(partial: Partial, order: list[int]) -> None:
    """The digest of the whole and of each prefix are hashlib's own, whichever piece was written first. Bytes behind a
    gap are not hashed; without all of them there is no result yet."""
    hasher = StreamHasher(partial, "sha256", SIZE)
    for n in order:
        assert hasher.result(lambda _done: None) is None
        partial.write(n * STEP, DATA[n * STEP : (n + 1) * STEP])
        hasher.wake()
        assert hasher.done <= partial.front
    assert is_of(result(hasher), DATA)


@pytest.mark.parametrize("algorithm", ["sha256", "git-sha1"])
@pytest.mark.parametrize("size", [1, STEP - 1, STEP, STEP + 1, 3 * STEP])
def test_sizes_at_the_edges(tmp_path: Path, size: int, algorithm: str) -> None:
    """One byte, a step, and one more or less: digest and prefixes as `fingerprint` finds them in the file."""
    partial = Partial.open(tmp_path, "k" * 32, Identity("https://h/m", size, None, '"a"', None))
    partial.write(0, DATA[:size])
    found = result(StreamHasher(partial, algorithm, size))
    assert found == fingerprint(partial.fd, algorithm)
    assert algorithm != "sha256" or is_of(found, DATA[:size])
    partial.close()


def test_a_file_that_was_cut_is_an_error(partial: Partial) -> None:
    """If the file is shorter than what was written, the result is an error and not a digest."""
    partial.write(0, DATA)
    os.ftruncate(partial.fd, 2 * STEP)
    with pytest.raises(FileModified):
        result(StreamHasher(partial, "sha256", SIZE))


def test_the_callback_may_stop_the_wait(partial: Partial, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the callback raises ends the wait for a result."""
    partial.write(0, DATA)
    hold, real = threading.Event(), os.preadv

    def held(*args: object) -> int:
        hold.wait(30)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "preadv", held)
    hasher = StreamHasher(partial, "sha256", SIZE)

    def cancelled(_done: int) -> None:
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            hasher.result(cancelled)
    finally:
        hold.set()
        hasher.stop()


@pytest.mark.fault(226)
def test_a_stopped_hasher_has_no_digest(partial: Partial) -> None:
    """The digest of a part is not a result: a hasher that was stopped before the end says so."""
    hasher = StreamHasher(partial, "sha256", SIZE)
    partial.write(0, DATA[:1000])
    hasher.stop()
    assert hasher.thread
    assert not hasher.thread.is_alive()
    with pytest.raises(Cancelled):
        result(hasher)


def test_an_error_of_the_thread_is_raised_by_result(partial: Partial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if there is no memory left: no digest of a part, and nothing that is only printed."""

    def full(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr(os, "preadv", full)
    hasher = StreamHasher(partial, "sha256", SIZE)
    partial.write(0, DATA)
    hasher.wake()
    with pytest.raises(MemoryError):
        result(hasher)


def joined(partial: Partial, on_bad: Callable[[ByteRange], bool]) -> StreamHasher:
    """A hasher that knows the digests beforehand, once its thread has ended."""
    hasher = StreamHasher(partial, "sha256", SIZE, expected=EXPECTED, on_bad=on_bad)
    assert hasher.thread
    hasher.thread.join()
    return hasher


@pytest.mark.parametrize("blocks", [(), (0,), (2,), (4,), (5,), (0, 1), (1, 3, 5), (0, 1, 2, 3, 4, 5)])
def test_bad_block_is_reported_once(partial: Partial, blocks: tuple[int, ...]) -> None:
    """Each damaged block, and no other, is reported once; when it is right the digest of the whole is right."""
    damaged, bad = bytearray(DATA), list[ByteRange]()
    for n in blocks:
        damaged[n * STEP + 7] ^= 1
    partial.write(0, bytes(damaged))

    def fetch_again(lost: ByteRange) -> bool:
        bad.append(lost)
        partial.write(lost.start, DATA[lost.start : lost.stop])
        return len(bad) < 20

    assert is_of(result(joined(partial, fetch_again)), DATA)
    assert bad == [ByteRange(n * STEP, min(SIZE, (n + 1) * STEP)) for n in blocks]


def test_a_bad_last_block_does_not_block_the_result(partial: Partial) -> None:
    """If the last block is found bad while a thread waits for the result, that thread learns that bytes are missing."""
    found, waited_for = threading.Event(), threading.Event()
    partial.write(0, DATA[:-1] + b"?")

    def on_bad(lost: ByteRange) -> bool:
        found.set()
        assert waited_for.wait(10)
        partial.mark_missing(lost)
        return True

    hasher = StreamHasher(partial, "sha256", SIZE, expected=EXPECTED, on_bad=on_bad)
    assert found.wait(30)
    assert hasher.result(lambda _done: waited_for.set()) is None
    partial.write(5 * STEP, DATA[5 * STEP :])
    assert is_of(result(hasher), DATA)


def test_a_block_that_is_not_fetched_again(partial: Partial) -> None:
    """If a bad block is not wanted again, the digest is that of the bytes as they are."""
    damaged = DATA[:STEP] + b"?" + DATA[STEP + 1 :]
    partial.write(0, damaged)
    assert is_of(result(joined(partial, lambda _bad: False)), damaged)


def test_only_what_passed_is_claimed_in_a_repair(partial: Partial) -> None:
    """While blocks are compared with their digests, none beyond the last that passed can be claimed."""
    partial.claim_below = 0
    partial.write(0, DATA[: 2 * STEP] + b"?" * (SIZE - 2 * STEP))
    partial.sync()
    assert partial.unsynced == SIZE

    def lose(bad: ByteRange) -> bool:
        partial.mark_missing(ByteRange(bad.start, SIZE))
        return True

    hasher = StreamHasher(partial, "sha256", SIZE, expected=EXPECTED, on_bad=lose)
    until(lambda: partial.front == 2 * STEP)
    hasher.stop()
    assert partial.claim_below == 2 * STEP
    partial.sync()
    assert partial.unsynced == 0


def test_short_reads_lose_no_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that reads less than it was asked for makes no prefix digest go missing."""
    (tmp_path / "data").write_bytes(DATA)
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: real(fd, [views[0][:1000]], at))
    with (tmp_path / "data").open("rb") as file:
        assert is_of(fingerprint(file.fileno(), "sha256"), DATA)


def test_what_is_written_while_it_hashes_wakes_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait ends by its time-out: a hasher that caught up is woken by the next bytes at once."""
    piece = noise(4 * MIB)  # a shorter one wakes nothing
    partial = Partial.open(tmp_path, "k" * 32, Identity("https://h/m", 4 * len(piece), None, '"a"', None))
    heard, waiting = list[bool](), threading.Event()
    reading, go_on = threading.Event(), threading.Event()
    wait, preadv = threading.Condition.wait, os.preadv

    def waited(self: threading.Condition, timeout: float | None = None) -> bool:
        if not threading.current_thread().name.startswith("mdl-hasher"):
            return wait(self, timeout)
        waiting.set()
        heard.append(wait(self, 10))
        waiting.clear()
        return heard[-1]

    def gated(*arguments: object) -> int:
        reading.set()
        assert go_on.wait(60)
        return preadv(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "preadv", gated)
    monkeypatch.setattr(threading.Condition, "wait", waited)
    hasher = StreamHasher(partial, "sha256", 4 * len(piece))
    for n in range(3):
        partial.write(n * len(piece), piece)
        hasher.wake()
        assert reading.wait(60)  # the first piece is being read when the second comes
    go_on.set()
    until(lambda: hasher.done == 3 * len(piece) and waiting.is_set())
    partial.write(3 * len(piece), piece)
    hasher.wake()
    assert result(hasher).digest.hex == sha256(4 * piece)
    assert all(heard)
    partial.close()
