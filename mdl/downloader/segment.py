"""Segments: one range of a file that one worker fetches. Pure: the caller has the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mdl.net.ranges import ByteRange


@dataclass(eq=False)
class Segment:
    """A range that is being fetched, written up to ``at``. ``stop`` moves closer if another connection takes the tail.
    ``origin`` and ``mirrors`` (how many were left) say which server it is asked of. It ``began`` at that moment, and
    ``received`` bytes came for it.

    ``is_whole``: the whole file is asked for, without a range. ``answer_end`` is where the answer will end, whose first
    byte came at the moment ``answered``. ``is_probe``: it tells whether the origin serves a second connection for a
    file; one connection brings all bytes before it in ``offset_seconds``. ``is_unwanted``: mdl closed it, which is
    nobody's fault. ``_block_end`` is where the block ends that is being written (ADR 161)."""

    stop: int | None
    at: int
    is_whole: bool = False
    began: float = 0.0
    first: int = 0
    received: int = 0
    asked_url: str = ""
    asked_range: ByteRange | None = None
    origin: str = ""
    mirrors: int = 0
    answer_end: int | None = None
    answered: float | None = None
    is_probe: bool = False
    offset_seconds: float = 0.0
    is_unwanted: bool = False
    abort: Callable[[], None] | None = None
    _block_end: int = 0

    def __post_init__(self) -> None:
        self.first = self.at

    @property
    def asked(self) -> ByteRange | None:
        """The range to ask for; None for the whole file."""
        if self.is_whole or self.stop is None:
            return None
        return ByteRange(self.at, self.stop)

    def start(self, now: float, origin: str, mirrors: int) -> None:
        """Note that it is about to be asked of this ``origin``, while so many ``mirrors`` are left."""
        self.began = now
        self.origin = origin
        self.mirrors = mirrors

    def probe_parallel(self, offset_seconds: float) -> None:
        """Have it tell whether its origin serves a second connection; `is_probe` says more."""
        self.is_probe = True
        self.offset_seconds = offset_seconds

    def ask(self, url: str, abort: Callable[[], None] | None = None) -> None:
        """Note that it is being asked for at this ``url``, of a request that ``abort`` ends."""
        self.asked_url = url
        self.asked_range = self.asked
        self.abort = abort

    @property
    def is_answered(self) -> bool:
        """Whether the body of its answer has begun."""
        return self.answered is not None or self.at > self.first

    def seconds_to_answer(self, now: float) -> float:
        """Return how long its answer took to begin, or has not come until ``now``."""
        return (now if self.answered is None else self.answered) - self.began

    @property
    def left(self) -> int:
        """Bytes that are still to come; 0 if the end is not known."""
        return 0 if self.stop is None else self.stop - self.at

    def note_answer_end(self, stop: int | None) -> None:
        """Record where the answer ends, if that is known."""
        self.answer_end = stop

    def begin_answer(self, now: float) -> None:
        """Note that the body of its answer begins."""
        self.answered = now

    def end_question(self) -> None:
        """Record that this request has shown whether the server accepts a second connection."""
        self.is_probe = False

    def count(self, received: int) -> None:
        """Record that ``received`` more bytes arrived."""
        self.received += received

    def begin_block(self, length: int) -> int:
        """Return how many of the next ``length`` bytes belong to the segment; the caller writes them now, and no cut
        takes them. 0 if another connection fetches all of them."""
        if self.stop is not None:
            length = min(length, max(0, self.stop - self.at))
        self._block_end = self.at + length
        return length

    def wrote(self, count: int) -> None:
        """Record that ``count`` more bytes arrived and were written."""
        self.at += count
        self.received += count

    def expect_whole(self, size: int | None) -> None:
        """Record that the answer contains the whole file, of ``size`` bytes if that is known."""
        self.asked_range = None
        self.at = 0
        self.first = 0
        self.stop = size

    def can_extend_to(self, start: int, stop: int) -> bool:
        """Return whether it ends at ``start``, and its answer would go on to ``stop`` without a further request."""
        is_going_on = self.answer_end is not None and self.answer_end >= stop
        return self.stop == start and is_going_on and not self.is_unwanted

    def extend(self, stop: int) -> None:
        """Extend the segment to ``stop``: the answer continues that far."""
        self.stop = stop

    def end_request(self) -> None:
        """End its request, if it has one."""
        if self.abort:
            self.abort()

    def give_up(self) -> None:
        """End its request, which is not wanted any more."""
        self.is_unwanted = True
        self.end_request()

    def cut(self, stop: int) -> ByteRange | None:
        """End the segment at ``stop``, or behind the block that is being written; returns what others can fetch, if
        that leaves anything. A byte that two connections write could be hashed before the second one writes it."""
        assert self.stop is not None
        start = max(stop, self._block_end)
        if start >= self.stop:
            return None
        rest = ByteRange(start, self.stop)
        self.stop = start
        return rest
