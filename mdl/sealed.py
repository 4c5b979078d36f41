"""Sealed lines: one JSON fact a line behind its own CRC-32, so that damage is seen and a torn line claims nothing.

``<8 hex> <json>\\n``. What mdl keeps for itself (journals, receipts, listings) is written this way. Pure.
"""

from __future__ import annotations

import json
import zlib
from typing import Any


def line_of(fact: Any) -> bytes:
    body = json.dumps(fact, separators=(",", ":"), ensure_ascii=True).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def parse_line(line: bytes) -> Any | None:
    """The fact of one line without its newline; None where the line is torn or damaged."""
    check, _, body = line.partition(b" ")
    try:
        if len(check) != 8 or int(check, 16) != zlib.crc32(body):
            return None
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
