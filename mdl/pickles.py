"""Pickles: files that run code when they are loaded, told by name and first bytes. Nothing is loaded. Pure.

PyTorch's files are pickles, bare or in a zip whose first member is ``…/data.pkl``:
https://pytorch.org/docs/stable/notes/serialization.html. Safetensors hold numbers alone.
"""

from __future__ import annotations

HEAD = 512
"""How many bytes of a file are looked at."""

_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".pck", ".pcl")
_NEWEST_PROTOCOL = 5
_ZIP, _ZIP_NAME_AT = b"PK\x03\x04", 30


def is_pickle(name: str, head: bytes) -> bool:
    """Whether a file of that name, beginning with these bytes, is one, as far as name and bytes tell."""
    return name.lower().endswith(_SUFFIXES) or _begins_as_pickle(head)


def _begins_as_pickle(head: bytes) -> bool:
    if head[:1] == b"\x80" and len(head) > 1 and 2 <= head[1] <= _NEWEST_PROTOCOL:
        return True
    if not head.startswith(_ZIP) or len(head) < _ZIP_NAME_AT:
        return False
    length = int.from_bytes(head[26:28], "little")
    return head[_ZIP_NAME_AT : _ZIP_NAME_AT + length].endswith(b"data.pkl")


def warning(names: list[str]) -> str:
    """What is said of a model that holds these."""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{shown}: loading a pickle runs the code in it; mdl never does; prefer safetensors, or trust the source"
