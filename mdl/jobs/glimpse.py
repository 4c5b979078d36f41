"""Glimpse: what a record says of its job at first sight, as most of many are never looked at more closely. Pure."""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple

from mdl.jobs.job import VERSION

# A quote inside a name is written \" in a record: what is between these quotes is never a part of a name.
_RECORD = re.compile(
    rb'{"mdl-job":%d,"id":"([^"\\]+)",.*,"started_at":"([^"\\]*)",.*,"status":"([a-z]+)",' % VERSION, re.DOTALL
)


class Glimpse(NamedTuple):
    """``started_at`` is ISO 8601 in UTC; ``status`` is what was written down, not what became of it since."""

    started_at: str
    id: str
    status: str


def glimpse(line: bytes) -> Glimpse | None:
    """The glimpse of a record's one line without its newline; None if the whole record must be parsed to tell."""
    body = line[9:]
    found = _RECORD.match(body)
    if found is None or line[:9] != b"%08x " % zlib.crc32(body):
        return None
    name, started_at, status = (part.decode() for part in found.groups())
    return Glimpse(started_at, name, status)
