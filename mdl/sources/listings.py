"""Listings: what a repository held at a commit. A commit never changes, so its listing is kept for good.

Kept beside the models, one small file for each revision that was asked; a branch's file says which
commit it was last seen at.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from mdl import crc_json
from mdl.errors import MdlError
from mdl.fs import staging
from mdl.fs.private import make_private_dir, read_regular
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.sources.hub_origin import HubOrigin

VERSION = 1
_LARGEST = 256 * 2**20


@dataclass(frozen=True)
class Entry:
    """One file of a repository."""

    path: RelPath
    size: int
    digest: Digest | None


@dataclass(frozen=True)
class Listing:
    commit: str
    entries: tuple[Entry, ...]


class Listings:
    """The listings kept in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, endpoint: str, origin: HubOrigin) -> Listing | None:
        """The last listing seen for the revision as asked, or None. Damage counts as none."""
        try:
            data = crc_json.loads((read_regular(self._place(endpoint, origin), _LARGEST) or b"").rstrip(b"\n"))
            if not isinstance(data, dict) or data["mdl-listing"] != VERSION:
                return None
            entries = tuple(Entry(RelPath.parse(path), int(size), _digest(text)) for path, size, text in data["files"])
            return Listing(str(data["commit"]), entries)
        except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError, MdlError):
            return None

    def put(self, endpoint: str, origin: HubOrigin, listing: Listing) -> None:
        """Keep a listing. Raises `OSError`."""
        files = [[e.path.text, e.size, str(e.digest) if e.digest else None] for e in listing.entries]
        data = {"mdl-listing": VERSION, "source": str(origin), "commit": listing.commit, "files": files}
        make_private_dir(self._folder)
        staging.write_file(self._place(endpoint, origin), crc_json.dumps(data), durable=False)

    def _place(self, endpoint: str, origin: HubOrigin) -> Path:
        key = f"{endpoint}\0{origin.repo_type}\0{origin.repo}\0{origin.revision or 'main'}"
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _digest(text: str | None) -> Digest | None:
    if text is None:
        return None
    algorithm, _, value = text.partition(":")
    return Digest.parse(algorithm, value)
