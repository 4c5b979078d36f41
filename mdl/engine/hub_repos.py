"""Repositories in Hugging Face's cache, whoever brought them, as the cache itself tells of them.

See `mdl.engine.layout` for the layout. Nothing is followed out of a repository's folder but a link of its ``blobs`` to
the store in which the hub's client keeps bytes that several repositories share.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from mdl.errors import MdlError
from mdl.files import HubFile, RemoteFile
from mdl.fs.entries import names_below, open_for_reading
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.sources.hub_origin import HubOrigin, parse_reference
from mdl.values import value_class

_FOLDER = re.compile(r"(model|dataset|space)s--(.+)")
_LONGEST_REF = 1000


@value_class
class CachedFile:
    """One name in a snapshot. ``blob`` is the name of its bytes; None if they are in the snapshot itself. ``size`` is
    None if they are missing."""

    commit: str
    path: str
    pointer: Path
    blob: Path | None
    size: int | None
    since: float | None

    def remote(self, origin: HubOrigin, endpoint: str) -> RemoteFile | None:
        """The file at the hub whose URL is ``endpoint``; None if its name cannot be one."""
        try:
            digest = Digest.of_etag(self.blob.name) if self.blob else None
            hub = HubFile(origin.repo, origin.repo_type, self.commit, self.path)
            url = origin.file_url(endpoint, self.commit, self.path)
            return RemoteFile(RelPath.parse(self.path), url, self.size, digest, commit=self.commit, hub=hub)
        except MdlError:
            return None


@value_class
class CachedRepo:
    """One repository's folder in the cache."""

    folder: Path
    origin: HubOrigin

    @cached_property
    def refs(self) -> dict[Path, str]:
        """The commit of each branch, by the file that says so."""
        found: dict[Path, str] = {}
        for path in _entries_below(self.folder / "refs"):
            with contextlib.suppress(OSError), open_for_reading(path, os.O_NOFOLLOW) as fd:
                found[path] = os.read(fd, _LONGEST_REF).decode("ascii", "replace").strip()
        return found

    @cached_property
    def files(self) -> tuple[CachedFile, ...]:
        """Every name of every snapshot, in order."""
        snapshots = self.folder / "snapshots"
        return tuple(_file(path, snapshots, self.folder / "blobs") for path in _entries_below(snapshots))

    @cached_property
    def blobs(self) -> frozenset[Path]:
        """All bytes that are kept for it, also of unfinished downloads."""
        return frozenset(_entries_below(self.folder / "blobs"))

    @property
    def is_there(self) -> bool:
        """Whether the folder is there, and is no link."""
        return self.folder.is_dir() and not self.folder.is_symlink()

    @cached_property
    def unfinished(self) -> int:
        """Bytes of downloads of the hub's client that are not finished."""
        return sum(path.lstat().st_blocks * 512 for path in self.blobs if path.suffix == ".incomplete")

    def commit_of(self, revision: str) -> str | None:
        """The commit that a branch, tag or commit means here; None if it is not here."""
        ref = self.refs.get(self.folder / "refs" / revision, revision)
        return ref if any(file.commit == ref for file in self.files) else None


def cached_repos(cache: Path) -> list[CachedRepo]:
    """Every repository in the cache, by name."""
    found: list[CachedRepo] = []
    with contextlib.suppress(OSError):
        for entry in sorted(cache.iterdir()):
            repo = _repo_at(entry)
            if repo and repo.is_there:
                found.append(repo)
    return found


def _repo_at(folder: Path) -> CachedRepo | None:
    """The repository that a folder of the cache is for, by its name; None if it is for none."""
    if match := _FOLDER.fullmatch(folder.name):
        kind = "" if match[1] == "model" else f"{match[1]}s/"
        with contextlib.suppress(MdlError):
            return CachedRepo(folder, parse_reference(f"hf:{kind}{match[2].replace('--', '/')}"))
    return None


def repo_in(cache: Path, origin: HubOrigin) -> CachedRepo:
    """The place of a repository in the cache, whether or not anything of it is there."""
    whole = replace(origin, revision=None, subpath="")
    return CachedRepo(cache / f"{origin.repo_type}s--{origin.repo.replace('/', '--')}", whole)


def _file(path: Path, snapshots: Path, blobs: Path) -> CachedFile:
    commit, _, name = str(path.relative_to(snapshots)).partition(os.sep)
    blob, size, since = None, None, None
    with contextlib.suppress(OSError):
        if path.is_symlink():
            target = Path(os.path.normpath(path.parent / os.readlink(path)))
            blob = target if target.parent == blobs else None
        if blob or not path.is_symlink():
            status = os.stat(blob or path)
            size, since = status.st_size, status.st_mtime
    return CachedFile(commit, name, path, blob, size, since)


def _entries_below(folder: Path) -> Iterator[Path]:
    return iter(()) if folder.is_symlink() else names_below(folder)
