"""Bucket lock: only one process cleans a bucket at a time, on any number of machines.

The holder's marker is an object that is made only if there is none of its name (``If-None-Match: *``). A store may
ignore that condition, and a marker that nobody renewed for an hour is taken over, by two at once perhaps; so the holder
looks before every step whether the marker is still its own. What is done under this lock must be safe if two do it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import field

from mdl.bounds import parse_json
from mdl.errors import Busy, NotFound
from mdl.paths import shown
from mdl.process import ProcessId, hostname
from mdl.sources.object_store import Bucket
from mdl.values import value_class

_STALE_SECONDS = 3600.0
_RENEW_SECONDS = 600.0
_LARGEST = 2**16
_TRIES = 3


@value_class
class Holder:
    """Who holds the lock: a process of a machine. ``token`` differs each time."""

    host: str
    process: str
    since: str
    token: str = field(repr=False)

    @classmethod
    def me(cls) -> Holder:
        since = time.strftime("%H:%M:%S UTC", time.gmtime())
        return cls(hostname(), ProcessId.current().text, since, secrets.token_hex(8))

    @classmethod
    def of(cls, data: bytes) -> Holder:
        """Whose marker this is. Any other text counts as that of a machine about which nothing is known."""
        try:
            facts = parse_json(data)
            return cls(*(str(facts[key])[:100] for key in ("host", "process", "since", "token")))
        except (ValueError, TypeError, KeyError):
            return cls("another machine", "", "?", "")

    @property
    def marker(self) -> bytes:
        facts = {"host": self.host, "process": self.process, "since": self.since, "token": self.token}
        return json.dumps(facts).encode()

    def busy(self) -> Busy:
        pid = ProcessId(self.process).pid
        who = f"another mdl on {shown(self.host)} (process {pid or '?'}, since {shown(self.since)})"
        return Busy(f"{who} is cleaning it", hint="run it again when that one has ended")


@contextlib.contextmanager
def bucket_lock(bucket: Bucket, key: str) -> Iterator[Callable[[], None]]:
    """Hold the lock whose marker is the object ``key``. What this yields is to be called before each step: it raises
    `Busy` if somebody else holds the lock by now. Raises `Busy`, which names the holder, and as `Bucket.list`."""
    mine = Holder.me()
    _take(bucket, key, mine)
    is_mine, renewed = True, time.monotonic()

    def check() -> None:
        nonlocal is_mine, renewed
        other = _holder(bucket, key)
        is_mine = other == mine
        if not is_mine:
            raise (other or Holder.of(b"")).busy()
        if time.monotonic() - renewed > _RENEW_SECONDS:
            bucket.write(key, mine.marker)
            renewed = time.monotonic()

    try:
        yield check
    finally:
        if is_mine:
            bucket.discard(key)


def _take(bucket: Bucket, key: str, mine: Holder) -> None:
    """Write the marker. One that is stale, or whose process is seen to be gone, gives way to it."""
    for _ in range(_TRIES):
        if bucket.create(key, mine.marker):
            return
        other = _holder(bucket, key)
        if other is None:
            continue
        is_dead = ProcessId(other.process).is_alive() is False
        if not is_dead and bucket.age(key) < _STALE_SECONDS:
            raise other.busy()
        bucket.delete([key])
    raise Holder.of(b"").busy()


def _holder(bucket: Bucket, key: str) -> Holder | None:
    """Who holds the lock; None if there is no marker."""
    try:
        return Holder.of(bucket.read(key, _LARGEST))
    except NotFound:
        return None
