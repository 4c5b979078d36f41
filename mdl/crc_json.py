"""JSON lines with checksums: one fact a line after its own CRC-32, so that damage is noticed and a torn line says
nothing.

``<8 hex> <json>\\n``. mdl's own records (journals, receipts, listings, jobs) are written this way. Pure.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from mdl.bounds import parse_json


def dumps(fact: Any) -> bytes:
    """One line, with its newline."""
    body = json.dumps(fact, separators=(",", ":"), ensure_ascii=True).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def loads(line: bytes) -> Any | None:
    """The fact in one line without its newline; None if the line is torn or damaged."""
    check, _, body = line.partition(b" ")
    try:
        if len(check) != 8 or int(check, 16) != zlib.crc32(body):
            return None
        return parse_json(body)
    except ValueError:
        return None
