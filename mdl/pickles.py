"""Pickles: files that run code when they are loaded, told by name and first bytes. Nothing is loaded. Pure.

PyTorch's files are pickles, bare or in a zip whose first member is ``…/data.pkl``, NeMo's a tar of one:
https://pytorch.org/docs/stable/notes/serialization.html. NumPy's arrays of objects are pickles behind a header:
https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Keras keeps the code of Lambda layers as it
was compiled, and what names them as JSON. Safetensors hold numbers alone.
"""

from __future__ import annotations

import re

_SUFFIXES = (
    *(".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".pck", ".pcl"),
    *(".pth.tar", ".pt.tar", ".ckpt.tar", ".nemo"),
)
_LAYERED = (".keras", ".h5", ".hdf5")
_HEAD, _LAYERED_HEAD = 512, 2**20
_NEWEST_PROTOCOL = 5
_ZIP, _ZIP_NAME_AT = b"PK\x03\x04", 30
_NUMPY = b"\x93NUMPY"
_OBJECTS = rb"(?:'descr': ?|, ?)'[|<>=]?O[0-9]*'"
_LAMBDA = rb'"class_name"\s*:\s*"(?:Lambda|__lambda__)"'


def head_of(name: str) -> int:
    """How many bytes of a file of that name are to be looked at."""
    return _LAYERED_HEAD if name.lower().endswith(_LAYERED) else _HEAD


def is_pickle(name: str, head: bytes) -> bool:
    """Whether a file of that name, beginning with these bytes, is one, as far as name and bytes tell."""
    name = name.lower()
    if name.endswith(_LAYERED) and re.search(_LAMBDA, head):
        return True
    return name.endswith(_SUFFIXES) or _begins_as_pickle(head)


def _begins_as_pickle(head: bytes) -> bool:
    if head[:1] == b"\x80" and len(head) > 1 and 2 <= head[1] <= _NEWEST_PROTOCOL:
        return True
    if not head.startswith(_ZIP) or len(head) < _ZIP_NAME_AT:
        return _holds_objects(head)
    name_size, extra_size = (int.from_bytes(head[at : at + 2], "little") for at in (26, 28))
    name = head[_ZIP_NAME_AT : _ZIP_NAME_AT + name_size]
    return name.endswith(b"data.pkl") or _holds_objects(head[_ZIP_NAME_AT + name_size + extra_size :])


def _holds_objects(head: bytes) -> bool:
    """An array of NumPy's whose elements are pickled, as its header says."""
    return head.startswith(_NUMPY) and re.search(_OBJECTS, head[len(_NUMPY) + 4 :].split(b"\n", 1)[0]) is not None


def warning(names: list[str]) -> str:
    """What is said of a model that holds these."""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{shown}: loading a pickle runs the code in it; mdl never does; prefer safetensors, or trust the source"
