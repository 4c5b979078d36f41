"""The header of a safetensors file: how long the file must be, and what the trainer wrote into it.

``<u64 length><JSON header><tensors>``; https://github.com/huggingface/safetensors#format. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

SUFFIX = ".safetensors"
_MOST = 100 * 2**20
"""The format's own limit for a header."""
_WORTH_READING = 8 * 2**20
"""Bytes of header above which the JSON is not parsed: that would cost more memory than it is worth."""
_IMPOSSIBLE = 2**63


@dataclass(frozen=True)
class Header:
    """``size`` is the length that the whole file must have, in bytes; ``metadata`` is the trainer's own."""

    size: int
    metadata: dict[str, str] = field(default_factory=dict)


def read_header(head: Callable[[int], bytes]) -> Header | str:
    """The header, or a text that says what is wrong with it. ``head(count)`` gives the file's first ``count`` bytes."""
    first = head(8)
    if len(first) < 8:
        return "a safetensors file shorter than its header"
    length = int.from_bytes(first, "little")
    if not 2 <= length <= _MOST:
        return "a safetensors file with an impossible header"
    text = head(8 + length)[8:]
    if len(text) < length:
        return "a safetensors file shorter than its header"
    try:
        table = json.loads(text)
        ends = [max(0, int(facts["data_offsets"][1])) for name, facts in table.items() if name != "__metadata__"]
        metadata = {str(key): str(value) for key, value in table.get("__metadata__", {}).items()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError):
        return "a safetensors file with a broken header"
    if max(ends, default=0) >= _IMPOSSIBLE:
        return "a safetensors file with a broken header"
    return Header(8 + length + max(ends, default=0), metadata)


def why_truncated(size: int, head: Callable[[int], bytes]) -> str | None:
    """What shows that a safetensors file of ``size`` bytes is shorter than it must be, or None.

    A file that is not in this format at all is not judged: mdl copies files, it does not load them.
    """
    length = int.from_bytes(head(8), "little")
    if size == 0:
        return "an empty safetensors file"
    if 2 <= length <= _MOST and 8 <= size < 8 + length:
        return "a safetensors file shorter than its header"
    header = read_header(head) if length <= _WORTH_READING else ""
    if isinstance(header, str) or header.size <= size:
        return None
    return f"a safetensors file of {size} bytes, its header says {header.size}"
