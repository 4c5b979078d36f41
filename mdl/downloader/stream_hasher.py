"""Stream hasher: hashes the contiguous front of a partial while it downloads.

So verification ends as the last byte arrives. The running digest is copied every 16 MiB: these prefix digests go into
the receipt. If they are known beforehand (a repair), each block is compared with its own, a bad one is reported to be
fetched again, and only blocks that passed are claimed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from mdl.disk.pool import start_threads
from mdl.downloader.partial import FileModified, Partial
from mdl.errors import Cancelled
from mdl.hashing import PREFIX_STEP, Digest, Fingerprint, new_hasher, read_blocks
from mdl.net.ranges import ByteRange

_BUFFER = 1024 * 1024
"""Bytes that are read and hashed in one piece."""
_WAKE = 4 * 1024 * 1024
"""The thread is woken for this many new bytes. Each time costs two changes of thread; a lag of 4 MiB costs 3 ms."""


class InOrderHasher:
    """Hashes what is written to a partial in order, as it is written. ``size`` is that of the file, if it is known. It
    is used as a `StreamHasher` is."""

    def __init__(self, partial: Partial, algorithm: str, size: int | None) -> None:
        self._partial = partial
        self._algorithm = algorithm
        self._hasher = new_hasher(algorithm, size or 0)
        self._prefixes: list[str] = []
        self.done = 0

    def feed(self, data: memoryview | bytes) -> None:
        """Hash the next bytes."""
        left = memoryview(data)
        while left:
            block = left[: PREFIX_STEP - self.done % PREFIX_STEP]
            self._hasher.update(block)
            self.done += len(block)
            left = left[len(block) :]
            if self.done % PREFIX_STEP == 0:
                self._prefixes.append(self._hasher.copy().hexdigest())

    def wake(self) -> None:
        """It never sleeps."""

    def stop(self, *, wait: bool = True) -> None:
        """It has no thread."""

    def result(self, on_bytes: Callable[[int], None]) -> Fingerprint | None:
        """Return the fingerprint of what was written; None if something is missing."""
        if self.done != self._partial.total:
            return None
        return Fingerprint(Digest(self._algorithm, self._hasher.hexdigest()), self.done, tuple(self._prefixes))


def _is_final(block: ByteRange) -> bool:
    """Return that a bad block will not be fetched again."""
    return False


class StreamHasher:
    """A thread that reads and hashes one partial of ``size`` bytes behind its front.

    ``expected`` are the prefix digests and the digest, as hex, if they are known. ``on_bad`` is called with a block
    that is wrong; it returns whether the block will be fetched again.
    """

    def __init__(
        self,
        partial: Partial,
        algorithm: str,
        size: int,
        *,
        expected: Sequence[str] = (),
        on_bad: Callable[[ByteRange], bool] = _is_final,
    ) -> None:
        self._partial = partial
        self._algorithm = algorithm
        self._size = size
        self._expected = expected
        self._on_bad = on_bad
        self._hasher = new_hasher(algorithm, size)
        self._good = self._hasher.copy()
        self._prefixes: list[str] = []
        self._moved = threading.Condition()
        self._seen = self._stop = False
        self._error: Exception | None = None
        self.done = 0
        self._threads: list[threading.Thread] = []
        """None if none can be started: then `result` hashes everything at the end."""
        start_threads("mdl-hasher", [self._run], self._threads)

    @property
    def thread(self) -> threading.Thread | None:
        """What hashes; None if no thread could be started."""
        return self._threads[0] if self._threads else None

    def wake(self) -> None:
        """Say that the front may have moved. It is cheap to call this after every write."""
        if not self._seen and self._partial.front - self.done >= min(_WAKE, self._size - self.done):
            with self._moved:
                self._seen = True
                self._moved.notify()

    def stop(self, *, wait: bool = True) -> None:
        """End the thread; wait for that unless told otherwise."""
        with self._moved:
            self._stop = True
            self._moved.notify()
        if wait and self.thread:
            self.thread.join()

    def result(self, on_bytes: Callable[[int], None]) -> Fingerprint | None:
        """Wait until every byte is hashed; ``on_bytes`` is called with the bytes done meanwhile and may raise.

        None if a block turned out to be bad and has to be fetched again first. Raises `OSError` if reading back
        failed, `MemoryError`, and `Cancelled` if `stop` came before the last byte was hashed.
        """
        if self.thread is None and self._partial.front >= self._size:
            self._run()
        while self.thread and self.thread.is_alive():  # whose last block may still be found bad
            if self._partial.front < self._size:
                return None
            self.wake()
            self.thread.join(0.05)
            on_bytes(self.done)
        if self._error:
            raise self._error
        if self.done < self._size:
            if self._stop:
                raise Cancelled
            return None
        return Fingerprint(Digest(self._algorithm, self._hasher.hexdigest()), self.done, tuple(self._prefixes))

    def _run(self) -> None:
        try:
            buffer = bytearray(_BUFFER)
            while self.done < self._size and not self._stop:
                self._follow(buffer)
                if self.thread is None and self._partial.front < self._size:
                    return  # a block was bad and is missing again
        except Exception as error:  # `result` raises it
            self._error = error

    def _follow(self, buffer: bytearray) -> None:
        with self._moved:
            self._seen = False  # before the look: what is written after it wakes this thread
            if self._partial.front <= self.done and not self._stop:
                self._moved.wait(0.5)
        front = self._partial.front
        while self.done < front and not self._stop:
            edge = min(front, (self.done // PREFIX_STEP + 1) * PREFIX_STEP)
            for block in read_blocks(self._partial.fd, self.done, edge, buffer):
                self._hasher.update(block)
                self.done += len(block)
            if self.done != edge:
                raise FileModified  # it is shorter than what was written to it
            if self.done % PREFIX_STEP == 0 or (self.done == self._size and self._expected):
                self.end_block()
            front = self._partial.front

    def end_block(self) -> None:
        """Take the block that was hashed last, or go back to its start if it is bad and will be fetched again."""
        index = (self.done - 1) // PREFIX_STEP
        block = ByteRange(index * PREFIX_STEP, self.done)
        prefix = self._hasher.copy().hexdigest()
        is_bad = index < len(self._expected) and self._expected[index] != prefix
        if is_bad and self._on_bad(block):
            self._hasher = self._good.copy()
            self.done = block.start
            return
        if self._expected:
            self._partial.claim_only_below(self.done)
        if self.done % PREFIX_STEP == 0:
            self._prefixes.append(prefix)
        self._good = self._hasher.copy()
