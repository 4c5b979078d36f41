"""What is sent: the bytes that were hashed, and no others."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from mdl.cancel import CancelToken
from mdl.errors import Cancelled, MdlError, StorageError
from mdl.hashing import Digest
from mdl.plugins.mirror.objects import Objects, UploadedPart
from mdl.plugins.mirror.sending import LocalPart, OpenFile, Sending, watched, workers

DATA = bytes(range(256)) * 4096


class _Http:
    def __init__(self) -> None:
        self.cancel = CancelToken()


class _Objects:
    def __init__(self) -> None:
        self.http = _Http()


@pytest.fixture
def part(tmp_path: Path) -> LocalPart:
    """All but the first and the last byte of a file, as they were just hashed."""
    path = tmp_path / "f.bin"
    path.write_bytes(DATA)
    objects = cast("Objects", _Objects())
    digest = Digest("sha256", hashlib.sha256(DATA).hexdigest())
    sending = Sending("one", "f.bin", path, len(DATA), digest, key="k", objects=objects)
    inner = DATA[1:-1]
    md5 = hashlib.md5(inner, usedforsecurity=False).hexdigest()
    return LocalPart(sending, OpenFile(path), 1, len(DATA) - 1, hashlib.sha256(inner).hexdigest(), md5)


def test_a_part_is_sent_as_often_as_it_takes(part: LocalPart) -> None:
    """It can be iterated over again, and what was sent in vain does not count as done."""
    assert b"".join(part) == DATA[1:-1]
    iterator = iter(part)
    next(iterator)
    assert b"".join(part) == DATA[1:-1]
    assert part._sending.done == part.size
    assert part._sending.bytes_sent > part.size


@pytest.mark.fault(563)
@pytest.mark.parametrize("at", [1, len(DATA) // 2, len(DATA) - 2])
def test_a_file_that_changes_while_it_is_sent(part: LocalPart, tmp_path: Path, at: int) -> None:
    """Whichever byte changed after the part was hashed: its last block is not sent, and the error names the file."""
    with (tmp_path / "f.bin").open("r+b") as file:
        file.seek(at)
        file.write(bytes([DATA[at] ^ 1]))
    sent = bytearray()
    with pytest.raises(StorageError, match=r"one/f.bin: the file changed") as caught:
        for block in part:
            sent += block
    assert len(sent) < part.size
    assert caught.value.exit_code == 7


def test_a_file_that_is_cut_while_it_is_sent(part: LocalPart, tmp_path: Path) -> None:
    """It fails as well, and not one byte is made up for what is missing."""
    with (tmp_path / "f.bin").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(StorageError, match="changed"):
        b"".join(part)


def test_which_part_of_the_bucket_is_the_same(part: LocalPart) -> None:
    """By its checksum if the store keeps one, else by its size and its MD5; an ETag that is no MD5 is not believed."""
    import base64

    checksum = base64.b64encode(bytes.fromhex(part.sha256)).decode()
    same = UploadedPart(1, part.size, f'"{part.md5}"')
    rows: list[tuple[Any, bool]] = [
        (same, True),
        (UploadedPart(1, part.size, '"an-encrypted-one"'), False),
        (UploadedPart(1, part.size + 1, f'"{part.md5}"'), False),
        (UploadedPart(1, part.size, '"x"', checksum), True),
        (UploadedPart(1, part.size, f'"{part.md5}"', "AAAA"), False),
    ]
    assert [part.is_same_as(row) for row, _ in rows] == [expected for _, expected in rows]


def test_no_link_is_followed(tmp_path: Path) -> None:
    """A file that was replaced by a link is not opened."""
    (tmp_path / "secret").write_bytes(b"of somebody else")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        OpenFile(tmp_path / "link")


@pytest.mark.parametrize(
    ("connections", "rate", "most"),
    [(16, None, 4), (2, None, 2), (16, 1e9, 4), (16, 20e6, 2), (16, 1e6, 1), (1, 1e9, 1)],
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
