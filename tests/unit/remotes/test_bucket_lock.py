"""The lock of those who clean a bucket: a marker object, which may be ignored, lost, or left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from mdl.errors import Busy, NotFound
from mdl.process import ProcessId
from mdl.remotes import bucket_lock as room
from mdl.remotes.bucket_lock import Holder, bucket_lock

KEY = "p/.mdl-clean"


class Shelf:
    """A bucket in memory. Without ``knows_conditions`` it writes an object that is there already."""

    def __init__(self, *, knows_conditions: bool = True) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.knows_conditions, self.writes = knows_conditions, 0

    def create(self, key: str, data: bytes) -> bool:
        if key in self.objects and self.knows_conditions:
            return False
        self.write(key, data)
        return True

    def write(self, key: str, data: bytes) -> None:
        self.writes += 1
        self.objects[key] = (data, time.time())

    def read(self, key: str, most: int) -> bytes:
        if key not in self.objects:
            raise NotFound("there is no such object", item=key)
        return self.objects[key][0]

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            self.objects.pop(key, None)

    def discard(self, key: str) -> None:
        self.delete([key])

    def age(self, key: str) -> float:
        return time.time() - self.objects[key][1]

    def put(self, holder: Holder, age: float = 0.0) -> None:
        """The marker of somebody else, written so many seconds ago."""
        self.objects[KEY] = (holder.marker, time.time() - age)


def other(process: str = "0123456789ab-77-1-1") -> Holder:
    """A holder on another machine, of which nothing can be seen from here."""
    return Holder("box-7", process, "07:00:00 UTC", "0" * 16)


def ended() -> Holder:
    """A process of this machine that has ended."""
    script = "from mdl.process import ProcessId; print(ProcessId.current().text)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return other(found.stdout.strip())


def test_one_at_a_time() -> None:
    """A second one is told who holds the lock; when it is given back, nothing of it is left."""
    shelf = Shelf()
    with bucket_lock(shelf, KEY) as check:
        check()
        with pytest.raises(Busy, match=rf"process {os.getpid()}, since .* is cleaning it"), bucket_lock(shelf, KEY):
            pytest.fail("two hold it")
        check()
    assert shelf.objects == {}


@pytest.mark.parametrize(
    ("holder", "age", "is_taken"),
    [
        (other, 0.0, False),
        (other, 3500.0, False),
        (other, 3700.0, True),
        (ended, 0.0, True),
        (lambda: other(ProcessId.current().text), 0.0, False),
        (lambda: other("?"), 0.0, False),
    ],
    ids=["new", "not an hour old", "an hour old", "of a process that ended", "of one that runs", "of nobody known"],
)
def test_a_marker_that_was_left_behind(holder: Callable[[], Holder], age: float, is_taken: bool) -> None:
    """Only a marker that nobody renewed for an hour, or whose process is seen to have ended, gives way."""
    shelf = Shelf()
    shelf.put(holder(), age)
    if is_taken:
        with bucket_lock(shelf, KEY) as check:
            check()
        return
    with pytest.raises(Busy, match=r"box-7 \(process .*, since 07:00:00 UTC\)"), bucket_lock(shelf, KEY):
        pytest.fail("two hold it")
    assert Holder.of(shelf.read(KEY, 999)).host == "box-7"


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", json.dumps({"host": "h"}).encode()])
def test_a_marker_that_says_nothing(data: bytes) -> None:
    """It holds as any other until it is an hour old."""
    shelf = Shelf()
    shelf.objects[KEY] = (data, time.time())
    with pytest.raises(Busy, match="another machine"), bucket_lock(shelf, KEY):
        pytest.fail("two hold it")


@pytest.mark.parametrize("way", ["taken over", "gone", "ignored condition"])
def test_a_lock_that_is_lost(way: str) -> None:
    """Before its next step the one that lost it is told, and what the other one holds is left alone."""
    shelf = Shelf(knows_conditions=way != "ignored condition")
    with pytest.raises(Busy), bucket_lock(shelf, KEY) as check:
        check()
        if way == "gone":
            shelf.delete([KEY])
        elif way == "taken over":
            shelf.put(other())
        else:
            shelf.create(KEY, other().marker)
        check()
    assert [Holder.of(data).host for data, _ in shelf.objects.values()] == ([] if way == "gone" else ["box-7"])


def test_a_long_clean_renews_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """After ten minutes the marker is written again, and not before."""
    shelf = Shelf()
    with bucket_lock(shelf, KEY) as check:
        check()
        assert shelf.writes == 1
        monkeypatch.setattr(room, "_RENEW_SECONDS", 0.0)
        check()
        assert shelf.writes == 2
