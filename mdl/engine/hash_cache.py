"""Hash cache: what files of other programs turned out to be, so that each is read once and not at every download.

Fine-tuned models have files of exactly the same size as their base model: without this all of them would be hashed
again whenever one is missing. The cache only ever rules a file out: a file that is used is hashed once more. If the
cache is lost or damaged, files are read again and it is written anew.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from mdl import crc_json
from mdl.errors import ProtocolError
from mdl.files import Stamp
from mdl.fs import staging
from mdl.fs.private import make_private_dir, read_regular
from mdl.hashing import Digest

VERSION = 1
_MOST = 10_000
"""So many files are remembered; the oldest are forgotten."""
_LARGEST = 16 * 2**20
_Known = dict[tuple[str, str], tuple[Stamp, Digest]]


class HashCache:
    """What is remembered in the file ``path`` of mdl's own."""

    def __init__(self, path: Path) -> None:
        self._path, self._known, self._is_new = path, _read(path), False

    def is_other(self, file: Path, stamp: Stamp, digest: Digest) -> bool:
        """Whether ``file``, which still has this ``stamp``, was read and has another digest of the same algorithm."""
        known = self._known.get((str(file), digest.algorithm))
        return known is not None and known[0] == stamp and known[1] != digest

    def note(self, file: Path, stamp: Stamp, digest: Digest) -> None:
        """Remember the digest of a file that had this ``stamp`` when it was read."""
        self._known.pop((str(file), digest.algorithm), None)
        self._known[str(file), digest.algorithm] = stamp, digest
        self._is_new = True

    def save(self) -> None:
        """Write what is new, completely or not at all. An error is ignored: the files would be read again."""
        if not self._is_new:
            return
        rows = [
            [file, stamp.size, stamp.mtime_ns, stamp.inode, str(digest)]
            for (file, _), (stamp, digest) in list(self._known.items())[-_MOST:]
        ]
        with contextlib.suppress(OSError):
            make_private_dir(self._path.parent)
            staging.write_file(self._path, crc_json.dumps({"mdl-hashes": VERSION, "files": rows}), durable=False)
            self._is_new = False


def _read(path: Path) -> _Known:
    try:
        facts = crc_json.loads((read_regular(path, _LARGEST) or b"").rstrip(b"\n"))
        if not isinstance(facts, dict) or facts["mdl-hashes"] != VERSION:
            return {}
        return dict(_row(*row) for row in facts["files"])
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError, ProtocolError):
        return {}


def _row(file: Any, size: Any, mtime_ns: Any, inode: Any, text: Any) -> tuple[tuple[str, str], tuple[Stamp, Digest]]:
    algorithm, _, value = text.partition(":")
    return (str(file), algorithm), (Stamp(int(size), int(mtime_ns), int(inode)), Digest.parse(algorithm, value))
