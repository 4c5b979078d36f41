"""What people write for sizes, rates and durations. Pure."""

from __future__ import annotations

import re

from mdl.errors import UsageError

_MOST = 366 * 86400.0
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str, flag: str, *, least: float = 0.1) -> float:
    """``90``, ``90s``, ``15m``, ``2h`` or ``30d`` in seconds, from ``least`` to a year.

    Raises `UsageError` naming ``flag``.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([smhd]?)", text.strip().lower())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else -1.0
    if not least <= seconds <= _MOST:
        raise UsageError(f"{text!r} is no usable duration", item=flag, hint="write 90, 90s, 15m, 2h or 30d")
    return seconds


def parse_size(text: str, flag: str) -> int:
    """``20M`` is 20 * 10**6 bytes, ``20Mi`` 20 * 2**20. Raises `UsageError` naming ``flag``."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if not match or (match[3] and not match[2]):
        raise UsageError(f"{text!r} is no size", item=flag, hint="write 20M (20 million bytes) or 20Mi (20 * 2^20)")
    power = " kmgt".index(match[2] or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)
