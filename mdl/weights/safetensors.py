"""Safetensors: a file is ``<u64 length><JSON header><tensors>``, and its header says how long the whole must be. Pure.

Format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from mdl.bounds import LARGEST_NUMBER, parse_json, whole_number
from mdl.values import value_class

LONGEST_HEADER = 100 * 2**20
"""The format's own limit for a header."""
_WORTH_READING = 8 * 2**20
"""Bytes of header above which the JSON is not parsed: that would cost more memory than it is worth."""


def why_not_exact(size: int, head: Callable[[int], bytes]) -> str | None:
    """Return what shows that a file of ``size`` bytes is no whole safetensors file: it ends too early, its header
    cannot be read, or something stands behind its last tensor. None if it ends where its header says.

    ``head(count)`` gives the file's first ``count`` bytes.
    """
    if not size:
        return "an empty safetensors file"
    length = int.from_bytes(head(8), "little")
    if 2 <= length <= LONGEST_HEADER and size < 8 + length:
        return "a safetensors file shorter than its header"
    if _WORTH_READING < length <= LONGEST_HEADER:
        return None
    header = read_header(head)
    if header is None:
        return "it is no safetensors file: its header cannot be read"
    if header.size != size:
        return f"a safetensors file of {size:,} bytes, its header says {header.size:,}"
    return None


@value_class
class Header:
    """``size`` is the length that the whole file must have, in bytes; ``metadata`` is the trainer's own."""

    size: int
    metadata: dict[str, str] = field(default_factory=dict)


def read_header(head: Callable[[int], bytes]) -> Header | None:
    """The header of a safetensors file; None if it has none that can be read.

    ``head(count)`` gives the file's first ``count`` bytes.
    """
    length = int.from_bytes(head(8), "little")
    if not 2 <= length <= LONGEST_HEADER:
        return None
    text = head(8 + length)[8:]
    if len(text) < length:
        return None
    try:
        table = parse_json(text, most=LONGEST_HEADER)
        ends = [whole_number(facts["data_offsets"][1]) for name, facts in table.items() if name != "__metadata__"]
        metadata = {str(key): str(value) for key, value in table.get("__metadata__", {}).items()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None
    size = 8 + length + max(ends, default=0)
    return Header(size, metadata) if size <= LARGEST_NUMBER else None
