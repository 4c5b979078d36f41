"""Sizes, rates and durations: what people write for them, how they add up, and how a speed is measured. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from mdl.errors import UsageError
from mdl.values import value_class

_DAY = 24 * 60
_SLOWEST = 1000
_MOST = 366 * 86400.0
_SPEED_SECONDS = 8.0
_SENDABLE = re.compile(r"[!-~]+")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def as_text(value: object) -> str:
    """A number of seconds, or of bytes, as a person writes it: no exponent, and no more decimals than are read here."""
    return f"{value:.9f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def is_sendable(secret: str) -> bool:
    """Whether a key, a token or a name can stand in a header: one word of visible ASCII."""
    return _SENDABLE.fullmatch(secret) is not None


def total_size(sizes: Iterable[int | None]) -> int | None:
    """The sum of sizes in bytes; None if one of them is not known."""
    total = 0
    for size in sizes:
        if size is None:
            return None
        total += size
    return total


_BYTE_ORDER_MARK = "\ufeff"
"""What some editors put before a text."""


def as_meant(text: str) -> str:
    """A URL, path, number, list or token without what editors, shells and .env files put around it: blanks and line
    ends, a byte-order mark, and one pair of quotes."""
    before = ""
    while before != text:
        before = text
        text = text.strip().strip(_BYTE_ORDER_MARK)
    quote = text[:1]
    if len(text) > 1 and quote in ("'", '"') and text.endswith(quote) and quote not in text[1:-1]:
        return as_meant(text[1:-1])
    return text


def parse_duration(text: str, flag: str, *, least: float = 0.1) -> float:
    """``90``, ``90s``, ``15m``, ``2h`` or ``30d`` in seconds, from ``least`` to a year.

    Raises `UsageError` naming ``flag``.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([smhd]?)", text.strip().lower())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else -1.0
    if not least <= seconds <= _MOST:
        raise UsageError(f"{text!r} is not a usable duration", item=flag, hint="write 90, 90s, 15m, 2h or 30d")
    return seconds


def parse_size(text: str, flag: str) -> int:
    """``20M`` is 20 * 10**6 bytes, ``20Mi`` 20 * 2**20. Raises `UsageError` naming ``flag``."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if not match or (match[3] and not match[2]):
        raise UsageError(f"{text!r} is not a size", item=flag, hint="write 20M (20 million bytes) or 20Mi (20 * 2^20)")
    power = " kmgt".index(match[2] or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


@value_class
class Timetable:
    """Rates in bytes a second (None: no limit), each from a minute of the local day on until the next one's."""

    rates: Sequence[tuple[int, float | None]]

    def rate_at(self, minute: int) -> float | None:
        """The rate in force at ``minute`` of the day; before the first entry that is the last one of the day before."""
        current = self.rates[-1][1]
        for start, rate in self.rates:
            if start <= minute % _DAY:
                current = rate
        return current


NO_RATE_LIMIT = Timetable(((0, None),))


def parse_rate(text: str, flag: str) -> Timetable:
    """``20M`` bytes a second all day, or a timetable ``08:00,2M 22:00,off``. Raises `UsageError` naming ``flag``."""
    words = text.split()
    if len(words) == 1 and "," not in words[0]:
        return Timetable(((0, _rate(words[0], flag)),))
    entries = []
    for word in words:
        moment, comma, rate = word.partition(",")
        if not comma:
            raise UsageError(f"{word!r} is not an entry of a timetable", item=flag, hint="write 08:00,2M 22:00,off")
        entries.append((parse_moment(moment, flag), _rate(rate, flag)))
    if not entries:
        raise UsageError("no rate", item=flag, hint="write 20M, or 08:00,2M 22:00,off")
    return Timetable(tuple(sorted(entries, key=lambda entry: entry[0])))


def _rate(text: str, flag: str) -> float | None:
    if text.lower() in ("off", "none"):
        return None
    rate = parse_size(text.removesuffix("/s"), flag)
    if rate < _SLOWEST:
        raise UsageError(f"{text} a second is too slow to be meant", item=flag, hint="write 20M for 20 million bytes")
    return float(rate)


def parse_moment(text: str, flag: str) -> int:
    """``22:00`` as a minute of the day. Raises `UsageError` naming ``flag``."""
    match = re.fullmatch(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", text)
    if not match:
        raise UsageError(f"{text!r} is not a time of day", item=flag, hint="write 22:00")
    return int(match[1]) * 60 + int(match[2])


@value_class
class Window:
    """Hours of every day: from minute ``start`` until minute ``stop`` of the clock on the wall, also past midnight; the
    whole day if they are the same."""

    start: int
    stop: int

    @classmethod
    def parse(cls, text: str, flag: str) -> Window:
        """``22:00-06:00``. Raises `UsageError` naming ``flag``."""
        first, dash, last = text.partition("-")
        if not dash:
            raise UsageError(f"{text!r} is not a window of time", item=flag, hint="write START-END, as in 22:00-06:00")
        return cls(parse_moment(first.strip(), flag), parse_moment(last.strip(), flag))

    def __str__(self) -> str:
        return "-".join(f"{moment // 60:02d}:{moment % 60:02d}" for moment in (self.start, self.stop))

    def is_open(self, minute: float) -> bool:
        """At this minute of the local day. Asked again and again, for clocks are set, and machines sleep."""
        return (minute - self.start) % _DAY < ((self.stop - self.start) % _DAY or _DAY)


class Speed:
    """The speed of a transfer that began at ``now``. Bytes of an earlier transfer are not counted."""

    def __init__(self, now: float) -> None:
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])

    def observe(self, now: float, done: int) -> float:
        """Take note of ``done`` bytes so far; returns bytes per second over the last 8 seconds."""
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > _SPEED_SECONDS:
            self._samples.popleft()
        then, before = self._samples[0]
        return (done - before) / (now - then) if now > then else 0.0


_TRUE = {"1", "on", "yes", "true"}


def is_true(text: str | None) -> bool:
    """A flag variable as the hub's client reads it: 1, ON, YES or TRUE in any case."""
    return as_meant(text or "").lower() in _TRUE


Texts: TypeAlias = "str | Iterable[str]"
"""One text, or several."""


def texts(value: Texts) -> tuple[str, ...]:
    """One text, or several: a single string is never taken for a list of its letters. Raises ``TypeError``."""
    given: Any = value
    is_single = isinstance(given, str) or not isinstance(given, Iterable)
    found: tuple[str, ...] = (given,) if is_single else tuple(given)
    for one in found:
        if not isinstance(one, str):
            raise TypeError(f"{one!r} is not a text")
    return found
