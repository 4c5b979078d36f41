"""Hugging Face's cache: the shapes that it may have, where in it a file's bytes are, and the repositories that it tells
of, whoever brought them.

The usual shape is described at https://huggingface.co/docs/huggingface_hub/guides/manage-cache: the bytes are in
``blobs/<etag>`` of a repository's folder, and ``snapshots/<commit>/<path>`` is a relative link to them. Others occur:

- On a disk without links, and after a copy that followed them, the bytes are in ``snapshots`` as plain files, and there
  may be no ``blobs``.
- Since version 2 the hub's client may keep bytes once for several repositories, in ``<cache>/blobs/<2 hex>/<64 hex>``:
  then ``blobs/<etag>`` is a link to them, and ``<64 hex>.refs`` lists these links.
- Each of the cache's own folders may be a link that its user made, to have it on another disk.
- A download of the hub's client that is not finished is ``blobs/<etag>.incomplete``, or has a mark before that ending.

What a link of another user's leads to is never touched, nor what the names of a hub's files or branches would lead to.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mdl.bounds import LARGEST_JSON, LARGEST_NOTE, parse_json
from mdl.disk.mutex import try_lock, unlock_and_close
from mdl.disk.safe_open import is_untrusted_link, names_below, open_for_reading, open_parent, read_whole, trusted_owners
from mdl.errors import MdlError, Unsafe
from mdl.files import HubFile, RemoteFile
from mdl.hashing import Digest
from mdl.paths import RelPath
from mdl.sources import CachedListing
from mdl.sources.gguf import quantised_as
from mdl.sources.hub_origin import HubOrigin, parse_reference
from mdl.values import value_class

BLOBS = "blobs"
SNAPSHOTS = "snapshots"
REFS = "refs"
TREES = "trees"
"""The folders of a repository. In ``trees`` the hub's client keeps listings."""
UNFINISHED = ".incomplete"
"""How the names of files end that the hub's client has not finished."""
REFS_OF_SHARED = ".refs"
"""What the hub's client adds to the name of a shared file, for the list of links to it."""
_MARKER = ".huggingface-shared-blobs"
"""What tells the shared store from any other folder of that name."""
_SHARED_NAME = re.compile(r"[0-9a-f]{64}")
_SHARED = re.compile(r"blobs/([0-9a-f]{2})/(\1[0-9a-f]{62})")

_FOLDER = re.compile(r"(model|dataset|space)s--(.+)")

Place = tuple[Path, RelPath]
"""A folder, and the path of a file below it, no part of which may be a link. The folder itself may be a link that the
user or root made."""


def repo_folder(repo_type: str, repo: str) -> str:
    """Return the name of a repository's folder: ``models--org--name``."""
    return "--".join([f"{repo_type}s", *repo.split("/")])


def repo_folder_of(hub: HubFile) -> str:
    """Return the name of the folder of the repository that has this file."""
    return repo_folder(hub.repo_type, hub.repo)


class CacheFolders:
    """The cache's own folders, each looked at once: those that are links of the user or root are followed."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._bases: dict[tuple[str, ...], tuple[Path, str]] = {}
        self._refs: dict[tuple[str, str], Place] = {}

    def place(self, folders: tuple[str, ...], path: RelPath) -> Place:
        """Return the place of ``path`` below ``folders``, each in the one before. Raises `Unsafe` for names of folders
        that lead elsewhere."""
        if folders not in self._bases:
            self._bases[folders] = self._base(folders)
        base, front = self._bases[folders]
        return base, RelPath(f"{front}{path.text}")

    def _base(self, folders: tuple[str, ...]) -> tuple[Path, str]:
        """Return where the last link leads to, and the folders below that."""
        RelPath.of_repository("/".join(folders))
        base = self.cache
        steps: list[str] = []
        for folder in folders:
            steps.append(folder)
            here = base.joinpath(*steps)
            if _is_own_link(here):
                if base != self.cache:
                    here = Path(os.path.realpath(here.parent)) / folder
                base = here
                steps = []
        return base, "".join(f"{step}/" for step in steps)

    def snapshot(self, hub: HubFile) -> Place:
        """Return where programs look for a file: in the snapshot of its commit."""
        path = RelPath.of_repository(hub.path)
        return self.place((repo_folder_of(hub), SNAPSHOTS, hub.revision), path)

    def blob(self, hub: HubFile, digest_hex: str) -> Place:
        """Return where the bytes of a file are, or would be, under the name of their digest."""
        return self.place((repo_folder_of(hub), BLOBS), RelPath(digest_hex))

    def ref(self, hub: HubFile) -> Place:
        """Return where the commit of the branch of a file is recorded. Raises `Unsafe`."""
        repo = repo_folder_of(hub)
        key = repo, hub.branch or "main"
        if key not in self._refs:
            RelPath.parse(f"{repo}/{REFS}/{key[1]}")
            self._refs[key] = self.place((repo, REFS), RelPath(key[1]))
        return self._refs[key]

    def bytes_of(self, hub: HubFile, digest_hex: str, *, has_links: bool = True) -> Place:
        """Return where the bytes of a file are: in its snapshot, in its blob, or in the shared store to which that is a
        link. If they are nowhere, where they are to go: into the blob, or on a disk without links into the snapshot."""
        snapshot = self.snapshot(hub)
        if is_plain_file(snapshot):
            return snapshot
        blob = self.blob(hub, digest_hex)
        if shared := shared_target(self.cache, f"{blob[0]}/{blob[1].text}"):
            return shared
        if not has_links and not os.path.lexists(path_of(blob)):
            return snapshot
        return blob


def followed(folder: Path) -> Path:
    """Return the folder that a link of the user or root leads to; any other path as it is."""
    return Path(os.path.realpath(folder)) if _is_own_link(folder) else folder


def _is_own_link(path: Path) -> bool:
    with contextlib.suppress(OSError):
        status = path.lstat()
        return stat.S_ISLNK(status.st_mode) and not is_untrusted_link(path, status)
    return False


def shared_target(cache: Path, blob: str | Path) -> Place | None:
    """Return the place in the shared store to which a blob is a link; None if it is none."""
    try:
        link = os.readlink(blob)
    except OSError:
        return None
    target = os.path.join(os.path.realpath(Path(blob).parent), link)
    text = os.path.relpath(os.path.normpath(target), os.path.realpath(cache))
    match = _SHARED.fullmatch(text)
    return CacheFolders(cache).place((BLOBS, match[1]), RelPath(match[2])) if match else None


def shared_links(cache: Path, blobs: Iterable[Path]) -> dict[Path, set[Path]]:
    """Return which of these blobs are links into the shared store, by the file there."""
    links_by_file: dict[Path, set[Path]] = {}
    for blob in blobs:
        if target := shared_target(cache, blob):
            links_by_file.setdefault(path_of(target), set()).add(blob)
    return links_by_file


def shared_files(cache: Path) -> list[Path]:
    """Return the files of the shared store, if it is one that the hub's client has made."""
    store = followed(cache / BLOBS)
    if not (store / _MARKER).is_file() or store.is_symlink():
        return []
    return [path for path in names_below(store) if _SHARED_NAME.fullmatch(path.name) and not path.is_symlink()]


def remove_shared(cache: Path, shared: Path, is_referred_to: Callable[[], bool]) -> None:
    """Remove a file of the shared store and the list of its links, unless it ``is_referred_to``, which is asked while
    the hub's client cannot add a link to it. Raises `OSError`, `Unsafe`."""
    lock = os.open(
        shared.with_name(f"{shared.name}.lock"), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
    )
    try:
        if try_lock(lock) is False or is_referred_to():
            return
        with open_parent(shared.parent, RelPath(shared.name), make=False) as entry:
            os.unlink(entry.name, dir_fd=entry.folder)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{entry.name}{REFS_OF_SHARED}", dir_fd=entry.folder)
    finally:
        unlock_and_close(lock)


def link_text(pointer: Place, blob: Place) -> str:
    """Return what a link in a snapshot says to lead to a blob: relative, so that it holds when the cache is moved."""
    if pointer[0] == blob[0]:
        return os.path.relpath(blob[1].text, Path(pointer[1].text).parent)
    real_blob = os.path.join(os.path.realpath(path_of(blob).parent), blob[1].name)
    return os.path.relpath(real_blob, os.path.realpath(path_of(pointer).parent))


def is_plain_file(place: Place) -> bool:
    """Return whether a regular file is there, and no link."""
    try:
        return stat.S_ISREG(os.lstat(f"{place[0]}/{place[1].text}").st_mode)
    except (OSError, ValueError):
        return False


def path_of(place: Place) -> Path:
    """Return the path of a place, unchecked."""
    return place[0] / place[1].text


def files_in(folder: Path) -> Iterator[Path]:
    """Yield everything below one of the cache's own folders, with the path that links of the user lead to."""
    place = followed(folder)
    return iter(()) if place.is_symlink() else names_below(place)


# The repositories in a cache.


@value_class
class CachedFile:
    """One name in a snapshot. ``blob`` is the name of its bytes; None if they are in the snapshot itself. ``shared`` is
    the file in the cache's shared store to which the blob is a link, if it is one. ``size`` is None if the bytes are
    missing."""

    commit: str
    path: str
    pointer: Path
    blob: Path | None
    shared: Path | None
    size: int | None
    since: float | None

    @property
    def digest(self) -> Digest | None:
        """The digest that its blob is named by; None if it has none."""
        return Digest.of_etag(self.blob.name) if self.blob else None

    def remote(self, origin: HubOrigin, endpoint: str) -> RemoteFile | None:
        """Return the file at the hub whose URL is ``endpoint``; None if its name cannot be one."""
        try:
            hub = HubFile(origin.repo, origin.repo_type, self.commit, self.path)
            url = origin.file_url(endpoint, self.commit, self.path)
            return RemoteFile(
                RelPath.of_repository(self.path), url, self.size, self.digest, commit=self.commit, hub=hub
            )
        except MdlError:
            return None


@value_class
class CachedRepo:
    """One repository's ``folder`` in the ``cache``."""

    cache: Path
    folder: Path
    origin: HubOrigin

    @cached_property
    def real_folder(self) -> Path:
        """The folder itself, if its user has put a link in its place."""
        return followed(self.folder)

    @property
    def real_blobs(self) -> Path:
        """The folder of its blobs itself."""
        return followed(self.real_folder / BLOBS)

    def listed(self, commit: str) -> dict[str, tuple[int | None, Digest]]:
        """Return the size and digest of each of a commit's files, by its path, as the hub's client has noted them; none
        if it has not."""
        if commit not in self._listings:
            self._listings[commit] = self._listing(commit)
        return self._listings[commit]

    @cached_property
    def _listings(self) -> dict[str, dict[str, tuple[int | None, Digest]]]:
        return {}

    def _listing(self, commit: str) -> dict[str, tuple[int | None, Digest]]:
        try:
            place = self.real_folder / TREES / f"{commit}.json"
            listing = parse_json(read_whole(place, LARGEST_JSON, owners=trusted_owners(self.cache)))
        except (OSError, ValueError, Unsafe):
            return {}
        described_files: dict[str, tuple[int | None, Digest]] = {}
        match listing:
            case {"files": dict(entries)}:
                for path, facts in entries.items():
                    described = _described(facts)
                    if described:
                        described_files[path] = described
        return described_files

    def listing_of(self, commit: str) -> list[tuple[str, int | None, Digest]]:
        """Return what it tells of a commit: the path, size and digest of each file. Without a listing of the hub's
        client, these are the files that are here; nothing if the digest of one of them is not known."""
        listed = self.listed(commit)
        if listed:
            return [(path, size, digest) for path, (size, digest) in listed.items()]
        described_files: list[tuple[str, int | None, Digest]] = []
        for file in self.files:
            if file.commit != commit:
                continue
            if file.digest is None:
                return []
            described_files.append((file.path, file.size, file.digest))
        return described_files

    @cached_property
    def refs(self) -> dict[Path, str]:
        """The commit of each branch, by the file that says so."""
        commits: dict[Path, str] = {}
        for path in files_in(self._refs):
            with contextlib.suppress(OSError), open_for_reading(path, os.O_NOFOLLOW) as fd:
                commits[path] = os.read(fd, LARGEST_NOTE).decode("ascii", "replace").strip()
        return commits

    def commit_meant(self, revision: str | None) -> str | None:
        """Return the commit that a revision means here. Without one that is the commit of ``main``, or the only one
        that is here; None if there is no such commit."""
        if revision:
            return self.commit_of(revision)
        commits = {file.commit for file in self.files}
        return self.commit_of("main") or (commits.pop() if len(commits) == 1 else None)

    def branch_of(self, commit: str) -> str | None:
        """Return the branch or tag that leads to a commit, ``main`` before others; None if none does."""
        names = [path.relative_to(self._refs).as_posix() for path, ref in self.refs.items() if ref == commit]
        return "main" if "main" in names else next(iter(names), None)

    @cached_property
    def files(self) -> tuple[CachedFile, ...]:
        """Every name of every snapshot, in order."""
        blobs = self.real_blobs
        cached_files: list[CachedFile] = []
        for commit in self.commits:
            snapshot = followed(commit)
            cached_files += [_file(self.cache, commit.name, path, snapshot, blobs) for path in files_in(snapshot)]
        return tuple(cached_files)

    @cached_property
    def commits(self) -> list[Path]:
        """The folders of its snapshots."""
        snapshots = followed(self.real_folder / SNAPSHOTS)
        with contextlib.suppress(OSError):
            if not snapshots.is_symlink():
                return [entry for entry in sorted(snapshots.iterdir()) if followed(entry).is_dir()]
        return []

    @property
    def _refs(self) -> Path:
        return followed(self.real_folder / REFS)

    @property
    def has_own_links(self) -> bool:
        """Whether its user has put links in the place of some of its folders."""
        folders = [self.folder, *(self.real_folder / name for name in (BLOBS, SNAPSHOTS, REFS)), *self.commits]
        return any(folder.is_symlink() for folder in folders)

    def pieces(self, blobs: Iterable[Path]) -> list[Path]:
        """Return what is to go of it one after another, if its user has put links in the place of some of its folders:
        the links, and what the hub's client or mdl put where they lead to, with these ``blobs``; never a folder of the
        user's itself."""
        pieces = list(self.refs)
        pieces += self._own_link(REFS)
        for commit in self.commits:
            if commit.is_symlink():
                pieces += files_in(commit)
            pieces.append(commit)
        pieces += self._own_link(SNAPSHOTS)
        pieces += sorted(blobs)
        pieces += self._own_link(BLOBS)
        pieces += [self.real_folder / TREES, self.real_folder / ".no_exist"]
        if self.folder.is_symlink():
            pieces.append(self.folder)
        return pieces

    def _own_link(self, name: str) -> list[Path]:
        """Return the folder of this name if it is a link of its user, which goes alone."""
        place = self.real_folder / name
        return [place] if _is_own_link(place) else []

    @cached_property
    def blobs(self) -> frozenset[Path]:
        """All bytes that are kept for it, also of unfinished downloads."""
        return frozenset(files_in(self.real_folder / BLOBS))

    @property
    def is_there(self) -> bool:
        """Whether the folder is there, and is no link of another user's."""
        return self.real_folder.is_dir() and not self.real_folder.is_symlink()

    @cached_property
    def unfinished(self) -> int:
        """Bytes of downloads of the hub's client that are not finished. A file that has come since then, by whichever
        program, is whole."""
        whole = {path.name for path in self.blobs}
        unfinished = 0
        for path in self.blobs:
            if path.suffix == UNFINISHED and path.name.partition(".")[0] not in whole:
                unfinished += path.lstat().st_blocks * 512
        return unfinished

    def commit_of(self, revision: str) -> str | None:
        """Return the commit that a branch, tag or commit means here; None if it is not here."""
        ref = self.refs.get(self._refs / revision, revision)
        return ref if any(file.commit == ref for file in self.files) else None


def _described(facts: Any) -> tuple[int | None, Digest] | None:
    """Return the size and digest of a file, of which the hub's client has noted these ``facts``; None if they tell no
    digest."""
    match facts:
        case {"lfs_sha256": str(name)} | {"blob_id": str(name)}:
            digest = Digest.of_etag(name)
            size = facts.get("size")
            if digest:
                return (size if isinstance(size, int) else None), digest
    return None


def cached_repos(cache: Path) -> list[CachedRepo]:
    """Return every repository in the cache, by name."""
    repositories: list[CachedRepo] = []
    with contextlib.suppress(OSError):
        for entry in sorted(cache.iterdir()):
            repo = _repo_at(entry)
            if repo and repo.is_there:
                repositories.append(repo)
    return repositories


def _repo_at(folder: Path) -> CachedRepo | None:
    """Return the repository that a folder of the cache is for, by its name; None if it is for none."""
    match = _FOLDER.fullmatch(folder.name)
    if match is None:
        return None
    kind, name = match.groups()
    at = name.replace("--", "/")
    if kind != "model":
        at = f"{kind}s/{at}"
    with contextlib.suppress(MdlError):
        return CachedRepo(folder.parent, folder, parse_reference(f"hf:{at}"))
    return None


def all_shared_links(cache: Path) -> dict[Path, set[Path]]:
    """Return which blobs of all repositories lead to each file of the shared store."""
    links_by_file: dict[Path, set[Path]] = {}
    for repo in cached_repos(cache):
        for shared, links in shared_links(cache, repo.blobs).items():
            links_by_file.setdefault(shared, set()).update(links)
    return links_by_file


def cached_listing(caches: Iterable[Path], origin: HubOrigin) -> CachedListing | None:
    """Return what the first of these caches that has the revision tells of it; None if none has."""
    for cache in caches:
        repo = repo_in(cache, origin)
        commit = repo.commit_of(origin.revision or "main")
        if commit is None:
            continue
        files = repo.listing_of(commit)
        if files:
            return commit, files, bool(repo.listed(commit))
    return None


def repo_in(cache: Path, origin: HubOrigin) -> CachedRepo:
    """Return the place of a repository in the cache, whether or not anything of it is there."""
    whole = replace(origin, revision=None, subpath="")
    return CachedRepo(cache, cache / repo_folder(origin.repo_type, origin.repo), whole)


def part_of(origin: HubOrigin, paths: Collection[str]) -> Collection[str]:
    """Return those of ``paths`` that a reference to a part of a repository means."""
    part = paths
    if origin.subpath:
        part = [path for path in paths if path == origin.subpath or path.startswith(f"{origin.subpath}/")]
    if origin.quant:
        return quantised_as(part, origin.quant)
    return part


def _file(cache: Path, commit: str, path: Path, snapshot: Path, blobs: Path) -> CachedFile:
    blob: Path | None = None
    shared: Path | None = None
    size: int | None = None
    since: float | None = None
    place = path
    with contextlib.suppress(OSError):
        if path.is_symlink():
            target = Path(os.path.normpath(path.parent / os.readlink(path)))
            if target.parent != blobs:  # perhaps its user has put a link in the place of that folder
                target = followed(target.parent) / target.name
            if target.parent == blobs:
                blob = place = target
                in_shared_store = shared_target(cache, blob)
                if in_shared_store:
                    shared = place = path_of(in_shared_store)
        if not place.is_symlink():
            status = place.stat()
            size = status.st_size
            since = status.st_mtime
    return CachedFile(commit, str(path.relative_to(snapshot)), path, blob, shared, size, since)
