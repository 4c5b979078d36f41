"""Sending: files of this disk become objects of a mirror, large ones in parts, which a later run goes on with.

mdl relies on no earlier digest: it hashes each file from its first byte to its last, part by part. A part is read into
memory and sent from there, so that what is sent is what was hashed. The last part leaves only if the whole digest is
the one of the lock, and only then is there an object.
"""

from __future__ import annotations

import hashlib
import math
import os
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from mdl.disk.pool import Pool, in_parallel, in_thread
from mdl.disk.safe_open import open_for_reading
from mdl.errors import (
    Cancelled,
    DigestMismatch,
    MdlError,
    NetworkError,
    NotFound,
    StorageError,
    internal_error,
    storage_trouble,
)
from mdl.events import Event, Failed, FileProgress, Finished, Listener, Progressed, Retrying, Started
from mdl.hashing import Digest, new_hasher, read_blocks
from mdl.net.policy import Again
from mdl.plugins.mirror.marker import part_size
from mdl.sources.object_store import Bucket, PartedUpload, S3Object, UploadedPart, checksum_of
from mdl.units import Speed

_TICK = 0.1
_LOOKS = 3
_MOST_WORKERS = 4
"""The most parts that are sent at once: each may have to be sent again after a kill."""
_LONGEST_PART = 10.0
"""Seconds that a part may take by the rate limit before fewer are sent at once: what a short run sends must count."""


class MovingFile:
    """A file of ``model`` whose bytes are on their way: ``done`` of ``size``, ``bytes_sent`` of them over the
    network."""

    def __init__(self, model: str, name: str, size: int) -> None:
        self.model = model
        self.name = name
        self.size = size
        self.done = 0
        self.bytes_sent = 0
        self.is_running = False

    @property
    def item(self) -> str:
        return f"{self.model}/{self.name}"


class Sending(MovingFile):
    """One file on its way into a mirror. ``key`` is that of its object, ``digest`` that of the lock.

    Afterwards it has an ``error``, or its ``action`` is ``pushed`` or ``kept``. ``bytes_sent`` of it went over the
    network, ``resumed_at`` were in the bucket as parts.
    """

    def __init__(
        self, model: str, name: str, path: Path, size: int, digest: Digest, *, key: str, remedy: str = ""
    ) -> None:
        """``remedy`` is what to do if the file has other bytes."""
        super().__init__(model, name, size)
        self.path = path
        self.digest = digest
        self.key = key
        self.remedy = remedy
        self.sha256 = digest.hex if digest.algorithm == "sha256" else ""
        self.part_size = part_size(size)
        self.parts = max(1, -(-size // self.part_size))
        self.action = "failed"
        self.error: MdlError | None = None
        self.has_lost_part = False
        """A part could not be sent, so that the others need not be."""
        self.resumed_at = 0
        self._counting = threading.Lock()

    @property
    def bytes_kept(self) -> int:
        """The bytes that were in the mirror before."""
        return self.size if self.action == "kept" else self.resumed_at

    def sent(self, count: int) -> None:
        """Note that ``count`` bytes went over the network; it is negative for bytes that have to go again."""
        with self._counting:
            self.done += count
            self.bytes_sent += max(count, 0)

    def found(self, count: int) -> None:
        """Note that ``count`` bytes were in the bucket already."""
        with self._counting:
            self.done += count

    def size_of(self, number: int) -> int:
        """Bytes of part ``number`` (from 1)."""
        return max(0, min(self.part_size, self.size - (number - 1) * self.part_size))

    def is_object(self, found: S3Object | None) -> bool:
        """Whether that is the object of this file, as far as the bucket tells."""
        return found is not None and (found.size, found.sha256) == (self.size, Digest("sha256", self.sha256))

    def other_bytes(self, why: str) -> MdlError:
        return DigestMismatch(why, item=self.item, hint=self.remedy)


class Sender:
    """Sends files into a bucket, at most ``most`` parts at once. ``post`` is told what happens, by any thread. With
    ``reads_back`` every object is read and hashed once it is there."""

    def __init__(self, bucket: Bucket, most: int, post: Callable[[Event], None], *, reads_back: bool) -> None:
        self._bucket = bucket
        self._most = most
        self._post = post
        self._reads_back = reads_back
        self._in_memory: deque[Future[UploadedPart]] = deque()
        self._is_closed = False

    def close(self) -> None:
        """Begin no further part."""
        self._is_closed = True

    def send(self, files: Sequence[Sending]) -> None:
        """Send all files; what becomes of one is in it. The parts of a file are read and hashed here, in order, and
        sent by the workers; small files are left to them whole."""
        with Pool(self._most, "mdl-push") as workers:
            for index, file in enumerate(files, 1):
                place = (index, len(files))
                if file.parts == 1:
                    workers.submit(self._guarded, file, self._send_small, place)
                else:
                    self._guarded(file, self._send_large, place, workers)

    def _guarded(self, file: Sending, send: Callable[..., None], *args: object) -> None:
        """Do a step of a file; if it fails, the file does: nobody else looks at what a worker raised."""
        try:
            with storage_trouble(file.path, ""):
                send(file, *args)
        except Exception as error:
            why = error if isinstance(error, MdlError) else internal_error(error)
            file.error = why
            file.is_running = False
            self._post(Failed(file.model, file.name, why.code, why.message, why.advice, why.item))

    def _send_small(self, file: Sending, place: tuple[int, int]) -> None:
        with open_for_reading(file.path, os.O_NOFOLLOW) as fd:
            if self._is_kept(file, fd):
                return
            self._tell_start(file, place)
            whole = new_hasher(file.digest.algorithm, file.size)
            data = self._read(file, fd, 1, whole)
        self._bucket.put(file.key, data, {"sha256": file.sha256}, file.sent)
        self._check_made(file)

    def _send_large(self, file: Sending, place: tuple[int, int], workers: Pool) -> None:
        with open_for_reading(file.path, os.O_NOFOLLOW) as fd:
            if self._is_kept(file, fd):
                return
            found = self._find_upload(file)
            if found is None and self._is_kept(file, fd):
                return
            upload, there = found or (None, {})
            file.resumed_at = sum(part.size for part in there.values())
            self._tell_start(file, place)
            is_own = upload is None
            if upload is None:
                upload = self._bucket.begin(file.key, {"sha256": file.sha256})
            whole = new_hasher(file.digest.algorithm, file.size)
            parts: list[Future[UploadedPart]] = []
            try:
                for number in range(1, file.parts + 1):
                    self._wait_for_memory()
                    if file.has_lost_part:
                        break
                    data = self._read(file, fd, number, whole)
                    part = workers.submit(self._send_part, file, upload, number, data, there.get(number))
                    parts.append(part)
                    self._in_memory.append(part)
            except DigestMismatch:
                for part in parts:
                    part.exception()  # a part that comes after the abort would stay
                if is_own:
                    self._bucket.abort(upload)
                raise
        workers.submit(self._guarded, file, self._finish, upload, parts)

    def _is_kept(self, file: Sending, fd: int) -> bool:
        """Whether the mirror has the object already; then nothing is left to do. A small file whose sha256 nobody told
        is hashed first."""
        file.is_running = True
        if (size := os.fstat(fd).st_size) != file.size:
            raise file.other_bytes(f"it has {size} bytes, not {file.size}")
        if not file.sha256:
            sha256 = hashlib.sha256()
            for view in read_blocks(fd, 0, file.size):
                sha256.update(view)
            file.sha256 = sha256.hexdigest()
        if not file.is_object(self._look(file)) or (self._reads_back and self._wrong_bytes(file)):
            return False
        file.action = "kept"
        file.is_running = False
        file.done = file.size
        self._post(Finished(file.model, file.name, file.size, "mirrored", "sha256" if self._reads_back else ""))
        return True

    def _find_upload(self, file: Sending) -> tuple[PartedUpload | None, Mapping[int, UploadedPart]] | None:
        """The upload of this file that has come furthest, with its parts. None if one was ended meanwhile: the object
        may be there now. An upload that has a part of another size is another program's: its object would not have the
        metadata of a mirror."""
        bucket = self._bucket
        is_sure = True
        best: PartedUpload | None = None
        there: dict[int, UploadedPart] = {}
        for upload in bucket.uploads(file.key):
            if upload.key != file.key or (bucket.lists_checksums and not upload.keeps_checksums):
                continue
            try:
                parts = bucket.parts(upload)
            except NotFound:
                is_sure = False
                continue
            if len(parts) > len(there) and all(part.size == file.size_of(part.number) for part in parts):
                best = upload
                there = {part.number: part for part in parts}
        return (best, there) if is_sure else None

    def _tell_start(self, file: Sending, place: tuple[int, int]) -> None:
        index, count = place
        self._post(
            Started(
                file.model,
                file.name,
                host=self._bucket.host,
                index=index,
                count=count,
                total=file.size,
                resumed_at=file.resumed_at,
            )
        )

    def _wait_for_memory(self) -> None:
        """Wait until fewer than ``most`` parts are in memory."""
        while len(self._in_memory) >= self._most:
            self._in_memory.popleft().exception()

    def _read(self, file: Sending, fd: int, number: int, whole: hashlib._Hash) -> bytes:
        """The bytes of part ``number``, which ``whole`` hashes too. Raises `DigestMismatch` at the last one if the file
        is not the locked one."""
        start = (number - 1) * file.part_size
        blocks: list[bytes] = []
        for view in read_blocks(fd, start, start + file.size_of(number)):
            self._check_open()
            whole.update(view)
            blocks.append(bytes(view))
        data = b"".join(blocks)
        if len(data) < file.size_of(number):
            raise StorageError("the file changed while it was sent", item=file.item, hint="run the same command again")
        if number == file.parts and whole.hexdigest() != file.digest.hex:
            raise file.other_bytes("its bytes are not the ones that the lock names")
        return data

    def _check_open(self) -> None:
        self._bucket.http.cancel.check()
        if self._is_closed:
            raise Cancelled

    def _send_part(
        self, file: Sending, upload: PartedUpload, number: int, data: bytes, there: UploadedPart | None
    ) -> UploadedPart:
        """Send one part, unless the bucket has it."""
        self._check_open()
        if there and is_same(there, data):
            file.found(len(data))
            return there
        try:
            return self._bucket.send_part(upload, number, data, file.sent)
        except MdlError as error:  # mostly NotFound
            if not file.is_object(self._made(file)):
                file.has_lost_part = True
                raise self._ended(file, error) from error
        return UploadedPart(number, len(data), "")  # another process was faster, and completed the upload

    def _finish(self, file: Sending, upload: PartedUpload, parts: Sequence[Future[UploadedPart]]) -> None:
        """Make the object once all parts are there, and look what the mirror has then."""
        sent = [part.result() for part in parts]
        try:
            self._bucket.complete(upload, sent)
        except NotFound as error:  # completed by another process, or before an answer that was lost
            if self._made(file) is None:
                raise self._ended(file, error) from error
        self._check_made(file)

    def _check_made(self, file: Sending) -> None:
        """Compare what the mirror now tells of the object, and read it back if that is wanted."""
        if not file.is_object(self._made(file)):
            hint = "does another program write there? does the store keep metadata?"
            raise DigestMismatch("the mirror has another object there than was sent", item=file.item, hint=hint)
        if self._reads_back and (why := self._wrong_bytes(file)):
            raise why
        file.action = "pushed"
        file.is_running = False
        self._post(Finished(file.model, file.name, file.size, "pushed", "sha256"))

    def _ended(self, file: Sending, error: MdlError) -> MdlError:
        """What it means that the bucket refuses a part: an upload that it does not have any more can be begun anew."""
        if error.server_code != "NoSuchUpload":
            return error
        hint = "a clean, or a rule of the bucket, did that; run the same command again"
        return NetworkError(f"its upload was thrown away meanwhile: {error.message}", item=file.item, hint=hint)

    def _made(self, file: Sending) -> S3Object | None:
        """What the bucket tells of the object, which this process or another one has just made. It is asked up to three
        times: not every store shows an object whole at once, and the other process may not be done."""
        http = self._bucket.http
        for failure in range(1, _LOOKS):
            if file.is_object(found := self._look(file)):
                return found
            http.cancel.wait(http.policy.delay(failure, random.random()))
        return self._look(file)

    def _look(self, file: Sending) -> S3Object | None:
        try:
            return self._bucket.head(file.key)
        except NotFound:
            return None

    def _wrong_bytes(self, file: Sending) -> MdlError | None:
        """Read the object back: what is wrong with it."""
        found = hash_object(self._bucket, file.key)
        if found == file.sha256:
            return None
        return DigestMismatch(f"the mirror's object has the sha256 {found}, not {file.sha256}", item=file.item)


def is_same(part: UploadedPart, data: bytes) -> bool:
    """Whether the bucket has these very bytes as that part, as far as it tells: by its checksum, else by its MD5."""
    if part.checksum:
        return part.checksum == checksum_of(data)
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return part.size == len(data) and part.etag.strip('"').lower() == md5


def hash_object(bucket: Bucket, key: str, watch: Callable[[int], None] = lambda _count: None) -> str:
    """The sha256 of an object, of which every byte is read; ``watch`` is called with the bytes so far. Raises as
    `Bucket`."""

    def read() -> str:
        sha256 = hashlib.sha256()
        done = 0
        for block in bucket.blocks(key):
            sha256.update(block)
            done += len(block)
            watch(done)
        return sha256.hexdigest()

    return bucket.http.retry(bucket.url, read)


class Reporter:
    """Tells what several threads do from the one thread that calls `look`: their events, and the progress of
    ``files``."""

    def __init__(self, tell: Listener) -> None:
        self.tell = tell
        self.files: Sequence[MovingFile] = ()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._speed = Speed(time.monotonic())
        self._told_at = 0.0

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
        done = sum(one.done for one in self.files)
        total = sum(one.size for one in self.files)
        rate = self._speed.observe(moment, sum(one.bytes_sent for one in self.files))
        running = [(number, one) for number, one in enumerate(self.files, 1) if one.is_running]
        rows = tuple(FileProgress(one.model, one.name, number, one.done, one.size) for number, one in running)
        self.tell(Progressed("", bytes_done=done, bytes_total=total, bytes_per_second=rate, files=rows))


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
