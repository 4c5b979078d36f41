"""The feeder: the one node of a swarm that fetches what no node has, and by which rule it is this one.

Nobody is asked who it is: every node sees the ids of the others, and the lowest of them feeds. When it leaves, the next
one does. If nothing comes for a while, as when it is frozen or may not have the files, the others feed as well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from zlib import crc32

from mdl.errors import Cancelled, MdlError, ProtocolError, internal_error
from mdl.files import RemoteFile
from mdl.http.client import HttpClient
from mdl.http.ranges import ByteRange
from mdl.http.responses import Accept, Invalid, content_length, judge
from mdl.threads import start_threads

PATIENCE = 10.0
"""Seconds without a byte after which the next node feeds too."""
_MOST = 8
_BRIEF = 3.0
"""If a piece comes within this many seconds, one more is asked for at the same time, else one fewer."""


def pieces_to_feed(
    mine: bytes, others: Collection[bytes], missing: Iterable[int], availability: Sequence[int], idle: float
) -> list[int]:
    """The pieces that this node should fetch from the origin, the rarest first. Each node begins elsewhere, so that two
    that do not see each other yet seldom fetch the same.

    ``mine`` is its id and ``others`` are those of the peers that still want something; ``missing`` are the pieces that
    it wants, ``availability`` says how many peers have each piece, and ``idle`` for how many seconds nothing came.
    """
    rank, count = sum(other < mine for other in others), len(availability)
    first = crc32(mine) % max(count, 1)
    rarest = sorted(missing, key=lambda piece: (availability[piece], (piece - first) % count))
    if idle >= PATIENCE * max(rank, 1):
        return rarest
    return [piece for piece in rarest if not availability[piece]] if rank == 0 else []


class Feeder:
    """Fetches pieces in threads of its own. ``part_of`` says which bytes of which file a piece is; ``deliver`` gets
    each piece, and is called by those threads."""

    def __init__(
        self, http: HttpClient, part_of: Callable[[int], tuple[RemoteFile, ByteRange]], deliver: Callable[..., None]
    ) -> None:
        self._http, self._part_of, self._deliver = http, part_of, deliver
        self._lock, self._under_way, self._width = threading.Lock(), set[int](), 2
        self.bytes_fetched = 0
        self.error: MdlError | None = None
        self._asked, self._again, self._brought = set[int](), set[int](), set[int]()
        """What was asked for, what of it once more, and what came. libtorrent never finishes a piece that it is given
        twice, unless it was wrong the first time."""
        self.is_over = False

    @property
    def connections(self) -> int:
        """How many requests are under way."""
        return len(self._under_way)

    def feed(self, pieces: Iterable[int]) -> None:
        """Begin to fetch the first of ``pieces`` that were not fetched yet, as many as may be under way at once."""
        with self._lock:
            new = [piece for piece in pieces if piece not in self._asked]
            new = new[: max(0, self._width - len(self._under_way))]
            self._under_way.update(new)
            self._asked.update(new)
        started = start_threads("mdl-feeder", [partial(self._bring, piece) for piece in new])
        with self._lock:
            self._asked.difference_update(new[len(started) :])
            self._under_way.difference_update(new[len(started) :])

    def has_fetched(self, piece: int) -> bool:
        """Whether this piece came from the origin, whole."""
        with self._lock:
            return piece in self._brought

    def was_wrong(self, piece: int) -> bool:
        """Note that a piece was not as the torrent says: it may be fetched once more, for a peer may have sent a part
        of it. Returns whether the origin itself has other bytes."""
        is_ours = self.has_fetched(piece)
        with self._lock:
            if is_ours and piece not in self._again:
                self._again.add(piece)
                self._asked.discard(piece)
                self._brought.discard(piece)
                return False
            return is_ours

    def _bring(self, piece: int) -> None:
        began = time.monotonic()
        try:
            data = self._fetch(*self._part_of(piece))
            if not self.is_over:
                with self._lock:
                    self._brought.add(piece)
                self._deliver(piece, bytes(data))
            wider = time.monotonic() - began < _BRIEF
            self._width = max(1, min(_MOST, self._http.connections, self._width + (1 if wider else -1)))
        except Cancelled:
            pass  # the thread that waits for the pieces raises it
        except Exception as error:
            self.error = error if isinstance(error, MdlError) else internal_error(error)
        finally:
            with self._lock:
                self._under_way.discard(piece)

    def _fetch(self, remote: RemoteFile, part: ByteRange) -> bytearray:
        """These bytes of the file, from the first of its places that has them. Raises `MdlError`."""
        data, lost = bytearray(), list[MdlError]()
        for url in remote.places or (remote.url, *remote.mirrors):
            try:
                while len(data) < part.length and not self.is_over:
                    self._http.retry(url, partial(self._read, url, remote, part, data))
                return data
            except MdlError as error:
                lost.append(error)
        raise lost[0]

    def _read(self, url: str, remote: RemoteFile, part: ByteRange, data: bytearray) -> None:
        """Ask for what ``data`` lacks, and add what comes to it. Raises `MdlError`."""
        asked = ByteRange(part.start + len(data), part.stop)
        with self._http.open("GET", url, {"Range": asked.header}) as opened:
            names = (remote.path.text, url)
            verdict = judge(
                opened.status, opened.headers, asked=asked, size=remote.size, validator=None, pinned=True, names=names
            )
            if isinstance(verdict, Invalid):
                raise verdict.error
            if not isinstance(verdict, Accept) or not verdict.ranged:
                raise ProtocolError("the server does not serve ranges, or has another file")
            for block in self._http.body(opened, content_length(opened.headers)):
                if self.is_over:
                    return
                data += block[: part.length - len(data)]
                count = len(block)
                with self._lock:
                    self.bytes_fetched += count
