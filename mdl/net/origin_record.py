"""What one origin can, as this run has seen it. Pure: the caller has the clock.

Ranges and parallel connections are a wish of mdl's own. What an origin does not serve is remembered here until the run
ends, so that it costs once and not once a file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

_USUAL_FACTOR = 4.0
_SLACK = 0.25
"""Seconds. A first byte is not late within four times the usual time and these."""
_LATE_SHARE = 0.3
"""Of the time in which one connection brings all bytes before an offset. Who fetches these first takes longer."""
_LONGEST_WAIT = 2.0
"""Seconds. Far away in a large file, a first byte is late after so long."""
_LATE_BEGINNING = 1.0
"""Seconds that the first answer of a file may take that goes on in the middle."""


@dataclass
class OriginRecord:
    """What one origin can. It lives as long as the run.

    ``has_answered``: it has sent a response, or accepted a connection. ``serves_ranges`` and ``serves_parallel`` (more
    than one connection for a file) are None as long as it is not known. ``is_asked``: a second connection has been
    opened to find that out, and the answer is awaited. ``refusals_are_final``: it has refused a plain request on its
    only connection too, so that a refusal has nothing to do with ranges. ``range_troubles``: how many requests for
    the first byte of a file were refused for the moment. ``first_byte``: the shortest time in seconds
    that an answer took. ``silences``: how often it accepted a connection and sent nothing in time, the last time at the
    moment ``silent_at``. Each time it gets twice the time.
    """

    has_answered: bool = False
    serves_ranges: bool | None = None
    serves_parallel: bool | None = None
    is_asked: bool = False
    refusals_are_final: bool = False
    range_troubles: int = 0
    first_byte: float | None = None
    silences: int = 0
    silent_at: float = -math.inf

    @property
    def may_have_two(self) -> bool:
        """Whether a second connection for a file is worth a try, or is known to be served."""
        return self.serves_ranges is not False and self.serves_parallel is not False

    def note_silence(self, began: float, now: float) -> None:
        """A request that ``began`` at that moment brought no answer in time. Those that overlap count once."""
        if began >= self.silent_at:
            self.silences = self.silences + 1
            self.silent_at = now

    def first_byte_limit(self, stall: float, patience: float) -> float:
        """Seconds within which an answer must begin, if ``stall`` is the usual time and ``patience`` the longest."""
        return max(stall, min(patience, stall * 2.0 ** min(self.silences, 20)))

    def note_refused_range(self) -> None:
        """The whole file came where a part was asked for, or after that was refused. An origin that has served ranges
        before still does: it was about that file, or about one of several servers."""
        if self.serves_ranges is None:
            self.serves_ranges = False

    def note_answer(self, seconds: float) -> None:
        """A response began after ``seconds``."""
        self.has_answered = True
        self.first_byte = seconds if self.first_byte is None else min(self.first_byte, seconds)

    def is_late_beginning(self, seconds: float, offset_seconds: float) -> bool:
        """Whether the first answer of a file that goes on in its middle was late: its first byte took ``seconds``, and
        one connection would bring all bytes before it in ``offset_seconds``."""
        return seconds > max(_LATE_BEGINNING, _LATE_SHARE * offset_seconds)

    def judge_second(self, seconds: float, offset_seconds: float) -> Literal["served", "late", "unclear"]:
        """What it means that the first byte of a second connection took ``seconds``, or has not come for so long.

        One connection would bring all bytes before it in ``offset_seconds``. A cache that fetches the whole file for
        each range takes that long; any other server takes as long as for each answer.
        """
        usual = _USUAL_FACTOR * (self.first_byte or 0.0) + _SLACK
        if seconds > max(usual, min(_LONGEST_WAIT, _LATE_SHARE * offset_seconds)):
            return "late"
        return "served" if seconds <= _LATE_SHARE * offset_seconds else "unclear"
