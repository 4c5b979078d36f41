"""Kept answers: what servers said, each in a private file of mdl's own, so that it is known later and offline.

Such a file is one line of `mdl.crc_json`. Its first key says what kind of answer it is, and the value of that key is
the version of the format. A long list is written and read item by item, so that its parsed form is never in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mdl import crc_json
from mdl.disk import publish
from mdl.disk.own_files import make_private_dir, read_own
from mdl.json_stream import Take, read_json

_BLOCK = 2**18


def kept_path(folder: Path, key: str, suffix: str) -> Path:
    """The file of an answer in ``folder``. Nothing of its ``key``, which may have a secret in it, is in the name."""
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}{suffix}"


def read_kept(
    path: Path, kind: str, version: int, most: int, lists: Mapping[str, Take] | None = None
) -> dict[str, Any] | None:
    """The facts of an answer. None if there is no such file, if it is damaged, too large, or not mdl's own, and if it
    is of another kind or version. Lists whose keys are in ``lists`` are read item by item, as `read_json` reads them.
    Raises what ``lists`` raise."""
    try:
        body = crc_json.checked((read_own(path, most) or b"").rstrip(b"\n"))
    except OSError:
        return None
    if body is None:
        return None
    try:
        facts = read_json(_blocks(body), lists or {}, most)
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) and facts.get(kind) == version else None


def _blocks(body: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(body), _BLOCK):
        yield body[start : start + _BLOCK]


def keep(
    path: Path, kind: str, version: int, facts: Mapping[str, Any], key: str = "", items: Iterable[Any] = ()
) -> None:
    """Keep an answer in place of an older one: its facts, and after them, if there is a ``key``, the list of ``items``.
    It can be asked for again, so it is not synced. Raises `OSError`, `Unsafe`."""
    make_private_dir(path.parent)
    whole = {kind: version, **facts}
    data = crc_json.dumps_with_list(whole, key, items) if key else crc_json.dumps(whole)
    publish.write_file(path, data, durable=False)
