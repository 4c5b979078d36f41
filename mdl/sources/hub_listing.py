"""Listings: what a repository of a hub held at a commit, and the listings that are kept on this disk."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from mdl.bounds import LARGEST_LIST, parse_json, whole_number
from mdl.disk.own_files import read_own
from mdl.errors import MdlError
from mdl.files import ACCESSES, Access, RefusedFile, Voucher
from mdl.hashing import Digest
from mdl.paths import RelPath, why_not_kept
from mdl.sources.answer_cache import keep, kept_path, read_kept
from mdl.sources.hub_origin import HubOrigin, parse_reference
from mdl.values import small_value_class, value_class

VERSION = 1
"""Of the file that a listing is kept in."""
_KIND = "mdl-listing"
_HEAD = re.compile(rb'[0-9a-f]{8} \{"mdl-listing":\d+,"source":("[^"]*"),"endpoint":("[^"]*"),')
"""How the file of a listing begins."""
_LONGEST_HEAD = 2**12
_REMEMBERED = 4


@small_value_class
class Entry:
    """A file of a repository. ``size`` is None if the hub names files only."""

    path: RelPath
    size: int | None
    digest: Digest | None


@value_class
class Listing:
    """The files of a repository at a commit. A commit never changes, so its listing is kept for good. ``modified_at``
    is when that was, as the hub just said it; it is not kept. ``access`` is unknown if the hub was not asked for it.
    ``refused`` are files whose names cannot be kept on this system. ``unlisted`` is the URL at which a hub without
    lists was asked; '' if it has them. ``vouched_by`` says who says which digests the files have."""

    commit: str
    entries: tuple[Entry, ...]
    modified_at: str | None = field(default=None, compare=False)
    access: Access = field(default="unknown", compare=False)
    refused: tuple[RefusedFile, ...] = ()
    unlisted: str = ""
    vouched_by: Voucher = "hub"

    def below(self, path: str) -> Sequence[Entry]:
        """The file at ``path``, or every file in the folder of that name; all files if ``path`` is ''."""
        if not path:
            return self.entries
        if path in self._by_path:
            return [self._by_path[path]]
        return [entry for entry in self.entries if entry.path.text.startswith(f"{path}/")]

    def entry(self, path: str) -> Entry | None:
        """The file at ``path``; None if there is none."""
        return self._by_path.get(path)

    def refused_below(self, path: str) -> list[RefusedFile]:
        """As `below`, of the refused files."""
        if not path:
            return list(self.refused)
        return [file for file in self.refused if file.path == path or file.path.startswith(f"{path}/")]

    @cached_property
    def _by_path(self) -> Mapping[str, Entry]:
        return {entry.path.text: entry for entry in self.entries}


@dataclass
class FileList:
    """The files of a listing as they come."""

    entries: list[Entry] = field(default_factory=list)
    refused: list[RefusedFile] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.entries) + len(self.refused)

    def add(self, name: str, size: int | None, digest: Digest | None) -> None:
        """Add a file by its name."""
        reason = why_not_kept(name)
        if reason:
            self.refused.append(RefusedFile(name, reason, size))
        else:
            self.entries.append(Entry(RelPath(name), size, digest))

    def listing(self, commit: str, **more: Any) -> Listing:
        """All files in order; a hub that names a file twice, and says the same of it, has it once."""
        entries: list[Entry] = []
        for entry in sorted(self.entries, key=lambda entry: entry.path):
            if not entries or entry != entries[-1]:
                entries.append(entry)
        return Listing(commit, tuple(entries), refused=tuple(self.refused), **more)


class Listings:
    """The listings kept in one folder, one file for each revision that was asked for. A branch's file says at which
    commit the branch was last. The last few are remembered: a catalog may name thousands of files of one repository."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read = lru_cache(_REMEMBERED)(_read_listing)

    def get(self, endpoint: str, origin: HubOrigin) -> Listing | None:
        """The last listing seen for the revision as asked; None if there is none, or it is damaged."""
        return self._read(self._path(endpoint, origin))

    def all_of(self, endpoint: str, repository: str) -> list[Listing]:
        """Every listing that is kept of a ``repository`` (``hf:org/repo``) of this hub, of each commit the newest."""
        newest: dict[str, Listing] = {}
        for path in self._by_repository.get((endpoint, repository), []):
            listing = self._read(path)
            if listing:
                newest[listing.commit] = listing
        return list(newest.values())

    @cached_property
    def _by_repository(self) -> dict[tuple[str, str], list[Path]]:
        """The files of the listings by hub and repository, the newest at the end."""
        files: dict[tuple[str, str], list[Path]] = {}
        with contextlib.suppress(OSError):
            for path in sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime):
                head = _HEAD.match(read_own(path, _LONGEST_HEAD) or b"")
                if not head:
                    continue
                with contextlib.suppress(ValueError, MdlError):
                    repository = parse_reference(parse_json(head[1])).repository
                    files.setdefault((parse_json(head[2]), repository), []).append(path)
        return files

    def put(self, endpoint: str, origin: HubOrigin, listing: Listing) -> None:
        """Keep a listing. Raises `OSError`, `Unsafe`."""
        facts = {"source": str(origin), "endpoint": endpoint, "commit": listing.commit}
        if listing.access != "unknown":
            facts["access"] = listing.access
        keep(self._path(endpoint, origin), _KIND, VERSION, facts, "files", _facts_of_files(listing))
        self._read.cache_clear()

    def _path(self, endpoint: str, origin: HubOrigin) -> Path:
        key = f"{endpoint}\0{origin.repo_type}\0{origin.repo}\0{origin.revision or 'main'}"
        return kept_path(self._folder, key, ".json")


def _facts_of_files(listing: Listing) -> Iterator[list[Any]]:
    """The files of a listing as they are kept."""
    for entry in listing.entries:
        yield [entry.path.text, entry.size, str(entry.digest) if entry.digest else None]
    for file in listing.refused:
        yield [file.path, file.size, None]


def _read_listing(path: Path) -> Listing | None:
    """A kept listing; None if there is none, or it is damaged."""
    files = FileList()

    def take(facts: Any) -> None:
        name, size, digest = facts
        files.add(
            name,
            None if size is None else whole_number(size),
            None if digest is None else Digest.parse(*digest.split(":", 1)),
        )

    try:
        facts = read_kept(path, _KIND, VERSION, LARGEST_LIST, {"files": take})
        if facts is None or "files" not in facts:
            return None
        access = facts.get("access")
        return files.listing(str(facts["commit"]), access=access if access in ACCESSES else "unknown")
    except (ValueError, KeyError, TypeError, AttributeError, MdlError):
        return None
