"""Sending: files of this disk become objects of a mirror, large ones in parts, which a later run goes on with.

mdl relies on no earlier digest: it hashes each file from its first byte to its last, part by part and in order, just
before a part is sent. The object appears only when the last part is there and the digest is the one of the lock.
A part is read a second time, from memory mostly, when it is sent: if it is not the part that was hashed, its last
block is kept back and the file fails.
"""

from __future__ import annotations

import hashlib
import math
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from mdl.catalog.mirror_layout import part_size
from mdl.errors import DigestMismatch, MdlError, NetworkError, NotFound, StorageError, storage_error
from mdl.events import Event, Failed, FileProgress, Finished, Listener, Progressed, Retrying, Started
from mdl.fs.entries import open_for_reading
from mdl.hashing import Digest, new_hasher, read_blocks
from mdl.http.allowlist import host_of
from mdl.http.body import NO_LIMIT
from mdl.http.policy import Again
from mdl.plugins.mirror.objects import Head, Objects, PartedUpload, UploadedPart, checksum_of
from mdl.threads import in_parallel, in_thread
from mdl.units import Speed

_BLOCK = 2**18
_TICK = 0.1
_LOOKS = 3
_MOST_WORKERS = 4
"""The most parts that are sent at once: each may have to be sent again after a kill."""
_LONGEST_PART = 10.0
"""Seconds that a part may take by the rate limit before fewer are sent at once: what a short run sends must count."""


class OpenFile:
    """A file that is closed once no part of it is used any more: a step that fails does not close it for the others."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError`, also for a link."""
        self.fd = -1
        with open_for_reading(path, os.O_NOFOLLOW) as fd:
            self.fd = os.dup(fd)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class LocalPart:
    """The bytes ``[start, stop)`` of an open file, as they were when they were hashed: a `Payload`."""

    def __init__(self, sending: Sending, file: OpenFile, start: int, stop: int, sha256: str, md5: str) -> None:
        self._sending, self._file, self._start, self._stop = sending, file, start, stop
        self.size, self.sha256, self.md5 = stop - start, sha256, md5
        self._sent = 0

    def __iter__(self) -> Iterator[bytes]:
        """Raises `StorageError` before its last block if the bytes are not the same any more."""
        again, sending = hashlib.sha256(), self._sending
        sending.sent(-self._sent)
        self._sent = 0
        for view in read_blocks(self._file.fd, self._start, self._stop, bytearray(_BLOCK)):
            block = bytes(view)
            again.update(block)
            if self._sent + len(block) == self.size and again.hexdigest() != self.sha256:
                raise sending.changed()
            sending.throttle.take(len(block), sending.objects.http.cancel)
            self._sent += len(block)
            sending.sent(len(block))
            yield block
        if self._sent < self.size:
            raise sending.changed()

    def is_same_as(self, part: UploadedPart) -> bool:
        """Whether the bucket has these very bytes already, as far as it tells."""
        if part.checksum:
            return part.checksum == checksum_of(self.sha256)
        return part.size == self.size and part.etag.strip('"').lower() == self.md5


class Sending:
    """One file on its way into a mirror. ``key`` is that of its object, ``digest`` that of the lock.

    Afterwards it has an ``error``, or its ``action`` is ``pushed`` or ``kept``. ``bytes_sent`` of it went over the
    network, ``resumed_at`` were in the bucket as parts. `step` is called as often as there are ``steps``, by any
    threads.
    """

    def __init__(
        self,
        model: str,
        name: str,
        path: Path,
        size: int,
        digest: Digest,
        *,
        key: str,
        objects: Objects,
    ) -> None:
        self.model, self.name, self.size, self.key = model, name, size, key
        self.objects, self.throttle, self.reads_back = objects, NO_LIMIT, False
        self.sha256 = digest.hex if digest.algorithm == "sha256" else ""
        self.action = "failed"
        self.error: MdlError | None = None
        self.bytes_sent = self.resumed_at = self.done = 0
        self._file: OpenFile | None = None
        self._path, self._digest = path, digest
        self._part_size = part_size(size)
        self.steps = max(1, -(-size // self._part_size))
        self._reading, self._counting = threading.Lock(), threading.Lock()
        self._is_begun = self.is_over = self._is_own = False
        self._hashed = 0
        self._upload: PartedUpload | None = None
        self._there: dict[int, UploadedPart] = {}
        self._parts: dict[int, UploadedPart] = {}
        self._whole, self._sha256 = new_hasher(digest.algorithm, size), hashlib.sha256()

    @property
    def is_running(self) -> bool:
        return self._is_begun and not self.is_over

    def sent(self, count: int) -> None:
        """Note that ``count`` bytes went over the network; it is negative for bytes that have to go again."""
        with self._counting:
            self.done += count
            self.bytes_sent += max(count, 0)

    def changed(self) -> MdlError:
        """What is wrong with a file whose bytes are not the ones that were hashed."""
        return StorageError("the file changed while it was sent", item=self._item, hint="run the same command again")

    def step(self, post: Callable[[Event], None], index: int, count: int) -> None:
        """Send the next part; the first step begins the file, and the one that ends last makes the object."""
        try:
            self._step(post, index, count)
        except (MdlError, OSError) as error:
            why = storage_error(error, str(self._path)) if isinstance(error, OSError) else error
            with self._counting:
                is_first, self.error, self.is_over = self.error is None, self.error or why, True
            self._file = None  # it is closed once no part of it is being sent
            if is_first:
                post(Failed(self.model, self.name, why.code, why.message, why.advice, why.item))

    def _step(self, post: Callable[[Event], None], index: int, count: int) -> None:
        with self._reading:
            if self.is_over:
                return
            if not self._is_begun:
                if self._is_there(post) or (not self._find_upload() and self._is_there(post)):
                    return
                self._begin()
                host = host_of(self.objects.bucket.access.url)
                at = {"index": index, "count": count, "total": self.size, "resumed_at": self.resumed_at}
                post(Started(self.model, self.name, host=host, **at))  # type: ignore[arg-type]
            part, number = self._hash_next(), self._hashed
        self._send(part, number)
        with self._counting:
            is_last = len(self._parts) == self.steps
        if is_last and not self.is_over:
            self._end(post)

    def _is_there(self, post: Callable[[Event], None]) -> bool:
        """Whether the mirror has the object already; then nothing is left to do. A small file whose sha256 nobody told
        is hashed first."""
        self._is_begun = True
        file = self._open()
        if not self.sha256:
            for view in read_blocks(file.fd, 0, self.size):
                self._sha256.update(view)
            self.sha256, self._sha256 = self._sha256.hexdigest(), hashlib.sha256()
        if not self._is_right(self.objects.head(self.key)) or (self.reads_back and self._wrong_bytes()):
            return False
        self.action, self.is_over, self.done, self._file = "kept", True, self.size, None
        post(Finished(self.model, self.name, self.size, "mirrored", "sha256" if self.reads_back else ""))
        return True

    def _is_right(self, head: Head | None) -> bool:
        return head == Head(self.size, Digest("sha256", self.sha256))

    def _open(self) -> OpenFile:
        self._file = file = OpenFile(self._path)
        if (size := os.fstat(file.fd).st_size) != self.size:
            raise self._other_bytes(f"it has {size} bytes, not {self.size}")
        return file

    def _find_upload(self) -> bool:
        """Find the upload of this file that has come furthest. False if one was ended meanwhile: the object may be
        there now."""
        is_sure = True
        for one in self.objects.uploads(self.key) if self.steps > 1 else ():
            if one.key != self.key or (self.objects.keeps_checksums and not one.keeps_checksums):
                continue
            try:
                parts = self.objects.parts(one)
            except NotFound:
                is_sure = False
                continue
            if len(parts) > len(self._there) and all(part.size == self._size_of(part.number) for part in parts):
                self._upload, self._there = one, {part.number: part for part in parts}
        return is_sure

    def _begin(self) -> None:
        """Go on with the upload that was found, or begin one. A file of one part needs none."""
        self.resumed_at = sum(part.size for part in self._there.values())
        if self._upload is None and self.steps > 1:
            self._upload, self._is_own = self.objects.begin(self.key, {"sha256": self.sha256}), True

    def _size_of(self, number: int) -> int:
        """Bytes of that part. An upload that has a part of another size is another program's: its object would not
        have the metadata of a mirror."""
        return max(0, min(self._part_size, self.size - (number - 1) * self._part_size))

    def _hash_next(self) -> LocalPart:
        """Read the next part and hash it. Raises `DigestMismatch` at the last one if the file is not the locked one."""
        file, start = self._file, self._hashed * self._part_size
        if file is None:
            raise self.changed()
        stop = min(self.size, start + self._part_size)
        sha256, md5, came = hashlib.sha256(), hashlib.md5(usedforsecurity=False), start
        needs_md5 = any(not part.checksum for part in self._there.values())
        for view in read_blocks(file.fd, start, stop):
            self.objects.http.cancel.check()
            for hasher in (self._whole, sha256, *((md5,) if needs_md5 else ())):
                hasher.update(view)
            came += len(view)
        if came < stop:
            raise self.changed()
        self._hashed += 1
        if self._hashed == self.steps and self._whole.hexdigest() != self._digest.hex:
            if self._upload and self._is_own:
                self.objects.abort(self._upload)
            raise self._other_bytes("its bytes are not the ones that the lock names")
        return LocalPart(self, file, start, stop, sha256.hexdigest(), md5.hexdigest())

    def _other_bytes(self, why: str) -> MdlError:
        return DigestMismatch(why, item=self._item, hint=f"'mdl verify {self.model} --repair' brings the right ones")

    def _send(self, part: LocalPart, number: int) -> None:
        """Send one part, unless the bucket has it; a file of one part is sent as a whole."""
        there = self._there.get(number)
        if self._upload is None:
            self.objects.put(self.key, part, {"sha256": self.sha256})
            there = UploadedPart(number, part.size, "")
        elif there and part.is_same_as(there):
            there = replace(there, checksum=checksum_of(part.sha256) if self._upload.keeps_checksums else "")
            with self._counting:
                self.done += part.size
        else:
            try:
                there = self.objects.send_part(self._upload, number, part)
            except MdlError as error:  # mostly NotFound
                if not self._is_right(self._made()):
                    raise self._ended(error) from error
                there = UploadedPart(number, part.size, "")  # another process was faster, and completed the upload
        with self._counting:
            self._parts[number] = there

    def _ended(self, error: MdlError) -> MdlError:
        """What it means that the bucket refuses a part: an upload that it does not have any more can be begun anew."""
        if not isinstance(error, NotFound) or "NoSuchUpload" not in error.message:
            return error
        hint = "a clean, or a rule of the bucket, did that; run the same command again"
        return NetworkError(f"its upload was thrown away meanwhile: {error.message}", item=self._item, hint=hint)

    def _end(self, post: Callable[[Event], None]) -> None:
        """Make the object, compare what the mirror now tells of it, and read it back if that is wanted."""
        gone: NotFound | None = None
        if self._upload:
            try:
                self.objects.complete(self._upload, [self._parts[number] for number in sorted(self._parts)])
            except NotFound as error:  # completed by another process, or before an answer that was lost
                gone = error
        head = self._made()
        if gone and head is None:
            raise self._ended(gone)
        if not self._is_right(head):
            hint = "does another program write there? does the store keep metadata?"
            raise DigestMismatch("the mirror has another object there than was sent", item=self._item, hint=hint)
        if self.reads_back and (why := self._wrong_bytes()):
            raise why
        self.action, self.is_over, self._file = "pushed", True, None
        post(Finished(self.model, self.name, self.size, "pushed", "sha256"))

    def _made(self) -> Head | None:
        """What the bucket tells of the object, which this process or another one has just made. It is asked up to three
        times: not every store shows an object whole at once, and the other process may not be done."""
        http = self.objects.http
        for failure in range(1, _LOOKS):
            if self._is_right(head := self.objects.head(self.key)):
                return head
            http.cancel.wait(http.policy.delay(failure, random.random()))
        return self.objects.head(self.key)

    def _wrong_bytes(self) -> MdlError | None:
        """Read the object back: what is wrong with it."""
        found = hash_object(self.objects, self.key)
        if found == self.sha256:
            return None
        return DigestMismatch(f"the mirror's object has the sha256 {found}, not {self.sha256}", item=self._item)

    @property
    def _item(self) -> str:
        return f"{self.model}/{self.name}"


def hash_object(objects: Objects, key: str, watch: Callable[[int], None] = lambda _count: None) -> str:
    """The sha256 of an object, of which every byte is read; ``watch`` is called with the bytes so far. Raises as
    `Objects`."""

    def read() -> str:
        sha256, done = hashlib.sha256(), 0
        for block in objects.read(key):
            sha256.update(block)
            done += len(block)
            watch(done)
        return sha256.hexdigest()

    return objects.http.retry(objects.bucket.access.url, read)


class Reading:
    """One object of a mirror that is looked at, and if it is ``deep`` read. ``expected_size`` in bytes and ``sha256``
    are what is expected, if that is known. ``actual`` is the sha256 of the bytes that were read."""

    def __init__(
        self, model: str, name: str, key: str, size: int | None, sha256: str, objects: Objects, *, deep: bool
    ) -> None:
        self.model, self.name, self.key, self.sha256 = model, name, key, sha256
        self.expected_size, self.size = size, size or 0
        self.done = self.bytes_sent = 0
        self.is_running, self.actual = False, ""
        self._objects, self._deep = objects, deep

    def step(self) -> Head | None:
        """What the bucket tells of it; None if it is not there. Raises as `Objects`."""
        head = self._objects.head(self.key)
        if head and self._deep and self.expected_size in (None, head.size):
            self.size, self.is_running = head.size, True
            self.actual = hash_object(self._objects, self.key, self._read)
            self.is_running = False
        return head

    def _read(self, done: int) -> None:
        self.done = self.bytes_sent = done


class Reporter:
    """Tells what several threads do from the one thread that calls `look`: their events, and the progress of
    ``files``."""

    def __init__(self, tell: Listener) -> None:
        self.tell = tell
        self.files: Sequence[Sending | Reading] = ()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._speed, self._told_at = Speed(time.monotonic()), 0.0

    def post(self, event: Event) -> None:
        """Any thread may call this."""
        self._events.put(event)

    def on_retry(self, again: Again) -> None:
        """A request failed and is sent again."""
        if again.failure:
            self.post(Retrying.of(again))

    def look(self, *, now: bool = False) -> None:
        """Tell the events that were posted, and the progress ten times a second, or ``now``."""
        for _ in range(self._events.qsize()):
            self.tell(self._events.get())
        moment = time.monotonic()
        if moment - self._told_at < _TICK and not now:
            return
        self._told_at = moment
        done, total = sum(one.done for one in self.files), sum(one.size for one in self.files)
        rate = self._speed.observe(moment, sum(one.bytes_sent for one in self.files))
        running = [(number, one) for number, one in enumerate(self.files, 1) if one.is_running]
        rows = tuple(FileProgress(one.model, one.name, number, one.done, one.size) for number, one in running)
        left = (total - done) / rate if rate else None
        self.tell(
            Progressed("", bytes_done=done, bytes_total=total, bytes_per_second=rate, eta_seconds=left, files=rows)
        )


def workers(connections: int, rate: float | None) -> int:
    """How many parts are sent at once, over at most ``connections``, with a limit of ``rate`` bytes a second in all, or
    None for no limit."""
    slow = math.inf if rate is None else rate * _LONGEST_PART / part_size(0)
    return max(1, int(min(connections, _MOST_WORKERS, slow)))


Result = TypeVar("Result")


def watched(calls: Sequence[Callable[[], Result]], most: int, look: Callable[[], None]) -> Iterator[Result | MdlError]:
    """As `in_parallel`, but ``look`` is called also while a single call runs."""
    if min(most, len(calls)) > 1:
        yield from in_parallel(calls, most, look)
        return
    for call in calls:
        try:
            yield in_thread(call, look)
        except MdlError as error:
            yield error
