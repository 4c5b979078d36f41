"""Files that run code when they are loaded, recognised by name and first bytes. Nothing is loaded here. Pure.

PyTorch's files are pickles, bare or in a zip whose first member is ``…/data.pkl``; NeMo's are a tar of one:
https://pytorch.org/docs/stable/notes/serialization.html. NumPy's object arrays are pickles behind a header:
https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Keras stores the compiled code of a Lambda
layer, and describes the layers in JSON.
"""

from __future__ import annotations

import re

_SUFFIXES = (
    *(".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".pck", ".pcl"),
    *(".pth.tar", ".pt.tar", ".ckpt.tar", ".nemo"),
)
_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_HEAD = 512
_KERAS_HEAD = 2**20

_ZIP = b"PK\x03\x04"
_ZIP_NAME_AT = 30
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\x93NUMPY(?s:.{4})[^\n]*(?:'descr': ?|, ?)'[|<>=]?O[0-9]*'")
"""A pickle's protocol, or the header of a NumPy array whose elements are pickled objects."""

_LAMBDA_LAYER = re.compile(rb'"class_name"\s*:\s*"(?:Lambda|__lambda__)"')


def head_of(name: str) -> int:
    """How many bytes `is_pickle` needs of a file of that name."""
    return _KERAS_HEAD if name.lower().endswith(_KERAS_SUFFIXES) else _HEAD


def is_pickle(name: str, head: bytes) -> bool:
    """Whether a file with that name and these first bytes runs code when it is loaded, as far as they show it."""
    name = name.lower()
    if name.endswith(_SUFFIXES) or (name.endswith(_KERAS_SUFFIXES) and _LAMBDA_LAYER.search(head)):
        return True
    member, head = _first_member(head)
    return member.endswith(b"data.pkl") or _PICKLE.match(head) is not None


def _first_member(head: bytes) -> tuple[bytes, bytes]:
    """Name and first bytes of a zip's first member; of any other file no name, and its own first bytes."""
    if not head.startswith(_ZIP) or len(head) < _ZIP_NAME_AT:
        return b"", head
    name_size, extra_size = (int.from_bytes(head[at : at + 2], "little") for at in (26, 28))
    end = _ZIP_NAME_AT + name_size
    return head[_ZIP_NAME_AT:end], head[end + extra_size :]


def warning(names: list[str]) -> str:
    """What to say of a model that has these files."""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{shown}: loading a pickle runs the code in it; mdl never does; prefer safetensors, or trust the source"
