"""What people write for sizes, rates and durations. Pure."""

from __future__ import annotations

import re

from mdl.errors import UsageError

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """``90``, ``90s``, ``15m``, ``2h`` or ``30d`` in seconds. Raises `UsageError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    if not match:
        raise UsageError("not a duration", item=text, hint="write 90, 90s, 15m, 2h or 30d")
    return float(match[1]) * _SECONDS[match[2]]
