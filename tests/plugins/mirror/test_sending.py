"""What is sent: the bytes that were hashed, and no others."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from support.cases import each

from mdl.cancel import CancelToken
from mdl.errors import Cancelled, DigestMismatch, MdlError, NetworkError, NotFound, StorageError
from mdl.events import Event
from mdl.hashing import Digest
from mdl.net.policy import RetryPolicy
from mdl.plugins.mirror import marker
from mdl.plugins.mirror.upload import Sender, Sending, is_same, watched, workers
from mdl.sources.object_store import Bucket, PartedUpload, S3Object, UploadedPart

PART = 2**20
DATA = bytes(range(256)) * 4096 * 3


class _Http:
    cancel = CancelToken()
    policy = RetryPolicy(first=0.0, longest=0.0)


class _Bucket:
    """A bucket in memory. ``at_part`` is called before a part is stored."""

    host, lists_checksums = "h", False

    def __init__(self, at_part: Callable[[int], None] = lambda _number: None) -> None:
        self.http, self.at_part = _Http(), at_part
        self.parts_sent: dict[int, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.aborted = 0

    def head(self, key: str) -> S3Object:
        if key not in self.objects:
            raise NotFound("there is no such object")
        data = self.objects[key]
        return S3Object(key, len(data), sha256=Digest("sha256", hashlib.sha256(data).hexdigest()))

    def uploads(self, prefix: str) -> list[PartedUpload]:
        return []

    def begin(self, key: str, metadata: object) -> PartedUpload:
        return PartedUpload(key, "u")

    def send_part(self, upload: PartedUpload, number: int, data: bytes, on_sent: Callable[[int], None]) -> UploadedPart:
        self.at_part(number)
        self.parts_sent[number] = data
        on_sent(len(data))
        return UploadedPart(number, len(data), "")

    def complete(self, upload: PartedUpload, parts: list[UploadedPart]) -> None:
        self.objects[upload.key] = b"".join(self.parts_sent[part.number] for part in parts)

    def abort(self, upload: PartedUpload) -> None:
        self.aborted += 1
        self.parts_sent.clear()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of three parts."""
    monkeypatch.setattr(marker, "PART", PART)
    path = tmp_path / "f.bin"
    path.write_bytes(DATA)
    return path


def sent(path: Path, bucket: _Bucket, most: int = 2) -> Sending:
    """The file after it was sent."""
    told: list[Event] = []
    file = Sending("one", "f.bin", path, len(DATA), Digest("sha256", hashlib.sha256(DATA).hexdigest()), key="k")
    Sender(cast("Bucket", bucket), most, told.append, reads_back=False).send([file])
    return file


@pytest.mark.parametrize("most", [1, 2, 4])
def test_parts_make_the_file(path: Path, most: int) -> None:
    """All parts are there, in their order, whoever sends them."""
    bucket = _Bucket()
    file = sent(path, bucket, most)
    assert (file.action, file.error, file.done, file.bytes_sent) == ("pushed", None, len(DATA), len(DATA))
    assert bucket.objects == {"k": DATA}


@pytest.mark.fault(563)
@pytest.mark.parametrize("at", [0, 3 * PART - 1])
def test_a_file_that_changes_while_it_is_sent(path: Path, at: int) -> None:
    """A part that was hashed is sent as it was hashed; a part that changes before that is found, and then there is no
    object, no last part, and nothing of the others."""

    def change(number: int) -> None:
        if number == 1:
            with path.open("r+b") as file:
                file.seek(at)
                file.write(bytes([DATA[at] ^ 1]))

    bucket = _Bucket(change)
    file = sent(path, bucket, 1)
    if at == 0:
        assert (file.action, bucket.objects) == ("pushed", {"k": DATA})
        return
    assert isinstance(file.error, DigestMismatch)
    assert (bucket.objects, bucket.parts_sent, bucket.aborted) == ({}, {}, 1)


def test_a_file_that_is_cut_while_it_is_sent(path: Path) -> None:
    """It fails, and not one byte is made up for what is missing."""

    def cut(number: int) -> None:
        with path.open("r+b") as file:
            file.truncate(PART)

    file = sent(path, _Bucket(cut), 1)
    assert isinstance(file.error, StorageError)
    assert "the file changed" in file.error.message
    assert file.error.item == "one/f.bin"


def test_a_part_that_fails_ends_its_file(path: Path) -> None:
    """The error is that of the part, and what follows in the file is not sent."""
    tried: list[int] = []

    def fail(number: int) -> None:
        tried.append(number)
        raise NetworkError("no", final=True)

    bucket = _Bucket(fail)
    assert str(sent(path, bucket, 1).error) == "no"
    assert (bucket.objects, tried) == ({}, [1])


def test_whatever_fails_fails_its_file(path: Path) -> None:
    """Also what nobody expects, such as too little memory: else the marker would name a file that is not there."""

    def fail(_number: int) -> None:
        raise MemoryError

    file = sent(path, _Bucket(fail))
    assert file.error is not None
    assert (file.action, file.error.message) == ("failed", "there is not enough memory")


def test_which_part_of_the_bucket_is_the_same() -> None:
    """By its checksum if the store keeps one, else by its size and its MD5; an ETag that is no MD5 is not believed."""
    md5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
    checksum = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
    rows: list[tuple[Any, bool]] = [
        (UploadedPart(1, len(DATA), f'"{md5}"'), True),
        (UploadedPart(1, len(DATA), '"an-encrypted-one"'), False),
        (UploadedPart(1, len(DATA) + 1, f'"{md5}"'), False),
        (UploadedPart(1, len(DATA), '"x"', checksum), True),
        (UploadedPart(1, len(DATA), f'"{md5}"', "AAAA"), False),
    ]
    assert [is_same(row, DATA) for row, _ in rows] == [expected for _, expected in rows]


def test_no_link_is_followed(path: Path) -> None:
    """A file that was replaced by a link is not opened."""
    (path.parent / "link").symlink_to(path)
    bucket = _Bucket()
    assert isinstance(sent(path.parent / "link", bucket).error, StorageError)
    assert bucket.objects == {}


@each(
    ("connections", "rate", "most"),
    [(16, None, 4), (2, None, 2), (16, 1e9, 4), (16, 20e6, 4), (16, 10e6, 2), (16, 1e6, 1), (1, 1e9, 1)],
)
def test_a_low_rate_is_not_shared_by_many_parts(connections: int, rate: float | None, most: int) -> None:
    """What is sent in ten seconds are whole parts, as far as the rate allows: unfinished ones are lost with a kill."""
    assert workers(connections, rate) == most


@pytest.mark.parametrize("most", [1, 3])
def test_calls_are_watched_also_if_there_is_one(most: int) -> None:
    """Results come in order, an error is a result, and what the watcher raises ends it."""
    cancel = CancelToken()

    def fail() -> int:
        raise MdlError("no")

    found = list(watched([lambda: 1, fail], most, cancel.check))
    assert (found[0], str(found[1])) == (1, "no")
    cancel.set()
    gate = threading.Event()
    with pytest.raises(Cancelled):
        list(watched([gate.wait], most, cancel.check))
    gate.set()
