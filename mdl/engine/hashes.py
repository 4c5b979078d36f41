"""Hashes: what files of other programs turned out to hold, so that those of the same size are read once, not each time.

Only ever a reason to pass a file over: what is taken is hashed once more. Where this is lost or damaged, files are
read again and it is written anew.
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
"""Files that are remembered; the oldest are forgotten."""
_LARGEST = 16 * 2**20


class Hashes:
    """What is remembered in one file of mdl's own."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._known = _read(place)
        self._is_new = False

    def is_other(self, path: Path, stamp: Stamp, digest: Digest) -> bool:
        """The file, untouched since, was read and had another digest of this kind."""
        known = self._known.get((str(path), digest.algorithm))
        return known is not None and known[0] == stamp and known[1] != digest

    def note(self, path: Path, stamp: Stamp, digest: Digest) -> None:
        """This is what the file had, read when it bore ``stamp``."""
        self._known.pop((str(path), digest.algorithm), None)
        self._known[str(path), digest.algorithm] = stamp, digest
        self._is_new = True

    def save(self) -> None:
        """Keep what was noted, if anything was; whole or not at all. Where it cannot be kept it is found out again."""
        if not self._is_new:
            return
        rows = [
            [path, stamp.size, stamp.mtime_ns, stamp.inode, str(digest)]
            for (path, _), (stamp, digest) in list(self._known.items())[-_MOST:]
        ]
        with contextlib.suppress(OSError):
            make_private_dir(self._place.parent)
            staging.write_file(self._place, crc_json.dumps({"mdl-hashes": VERSION, "files": rows}), durable=False)
            self._is_new = False


_Known = dict[tuple[str, str], tuple[Stamp, Digest]]


def _read(place: Path) -> _Known:
    try:
        facts = crc_json.loads((read_regular(place, _LARGEST) or b"").rstrip(b"\n"))
        if not isinstance(facts, dict) or facts["mdl-hashes"] != VERSION:
            return {}
        return dict(_row(*row) for row in facts["files"])
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError, ProtocolError):
        return {}


def _row(path: Any, size: Any, mtime_ns: Any, inode: Any, text: Any) -> tuple[tuple[str, str], tuple[Stamp, Digest]]:
    algorithm, _, value = text.partition(":")
    return (str(path), algorithm), (Stamp(int(size), int(mtime_ns), int(inode)), Digest.parse(algorithm, value))
