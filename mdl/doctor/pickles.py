"""Pickles in the models folder: files that run code when somebody loads them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from mdl.doctor.finding import Finding
from mdl.errors import MdlError
from mdl.fs.private import read_regular
from mdl.pickles import head_of, is_pickle, warning

_MOST = 20_000


def pickles(place: Callable[[], Path]) -> Iterator[Finding]:
    """Whether there are any, by name and first bytes. It is not wrong to have them, so this never fails."""
    try:
        folder = place()
    except MdlError:
        return
    names = [name for name in islice(_files(folder), _MOST) if is_pickle(name, _head(folder / name, head_of(name)))]
    if names:
        yield Finding("pickles", True, warning(sorted(names)))


def _files(folder: Path) -> Iterator[str]:
    for at, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (os.path.relpath(os.path.join(at, name), folder) for name in names)


def _head(path: Path, count: int) -> bytes:
    with contextlib.suppress(OSError):
        return read_regular(path, count, is_own=False) or b""
    return b""
