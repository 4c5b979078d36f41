"""Held secrets: whether a file of a run holds a secret, before it is packed. Weights are looked at in part."""

from __future__ import annotations

import os

from mdl.archive.secret_scan import ReadAt, secret_in
from mdl.errors import ProtocolError
from mdl.paths import matches
from mdl.runs.completeness import RESUME_GLOBS
from mdl.runs.tree import Entry, Tree
from mdl.values import value_class
from mdl.weights.end_records import ZIP_MEMBER

_SETTINGS = 2**20
"""Bytes of a pickle with tensors that are looked at: the trainer's settings are there."""
_DIRECTORY = 2**20
_BARE_PICKLE = b"\x80"
_OLD_TORCH = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
"""The number with which torch's files of before 2020 begin, behind the pickle's protocol."""


@value_class
class HeldSecret:
    """The ``kind`` of a secret in a file, in words, and whether that file is weights, by its name."""

    kind: str
    is_in_weights: bool


def held_secret(tree: Tree, entry: Entry) -> HeldSecret | None:
    """Return the secret that a file holds; None if none is seen, or if the file cannot be read any more, which is left
    to the writer. Weights that are no pickle are not looked at."""
    kind = entry.weights_kind
    is_model = kind is not None and not matches(entry.name, RESUME_GLOBS)
    if is_model and kind and kind.loaded_with != "torch":
        return None
    try:
        fd, size = tree.open(entry, strict=False)
        with os.fdopen(fd, "rb", buffering=0):

            def read(at: int, count: int) -> bytes:
                return os.pread(fd, count, at)

            is_in_weights = is_model and _has_tensors(read, size)
            if is_in_weights:
                size = min(size, _SETTINGS)
            secret = secret_in(read, size)
    except (OSError, ProtocolError):
        return None
    if not secret:
        return None
    return HeldSecret(secret, is_in_weights)


def _has_tensors(read: ReadAt, size: int) -> bool:
    """Tell whether a pickle may hold tensors: a torch file of either kind with any. A bare pickle without torch's own
    number is a few values, like a trainer's arguments."""
    head = read(0, len(_OLD_TORCH) + 2)
    if head.startswith(ZIP_MEMBER):
        return b"/data/" in read(max(0, size - _DIRECTORY), _DIRECTORY)
    return not head.startswith(_BARE_PICKLE) or _OLD_TORCH in head
