"""Kept answers: what servers said, each in a private file of mdl's own, so that it is known later and offline.

Such a file is one line of `mdl.crc_json`. Its first key says what kind of answer it is, and the value of that key is
the version of the format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdl import crc_json
from mdl.fs import staging
from mdl.fs.private import make_private_dir, read_regular


def kept_path(folder: Path, key: str, suffix: str) -> Path:
    """The file of an answer in ``folder``. Nothing of its ``key``, which may have a secret in it, is in the name."""
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}{suffix}"


def read_kept(path: Path, kind: str, version: int, most: int) -> dict[str, Any] | None:
    """The facts of an answer. None if there is no such file, if it is damaged, too large, or not mdl's own, and if it
    is of another kind or version."""
    try:
        facts = crc_json.loads((read_regular(path, most) or b"").rstrip(b"\n"))
    except OSError:
        return None
    return facts if isinstance(facts, dict) and facts.get(kind) == version else None


def keep(path: Path, kind: str, version: int, facts: Mapping[str, Any]) -> None:
    """Keep an answer in place of an older one. It can be asked for again, so it is not synced. Raises `OSError`,
    `Unsafe`."""
    make_private_dir(path.parent)
    staging.write_file(path, crc_json.dumps({kind: version, **facts}), durable=False)
