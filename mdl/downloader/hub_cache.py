"""The shapes that Hugging Face's cache may have: what its folders are called, and where in them a file's bytes are.

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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mdl.disk.mutex import try_lock, unlock_and_close
from mdl.disk.safe_open import is_untrusted_link, names_below, open_parent
from mdl.files import HubFile
from mdl.paths import RelPath

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
    found: dict[Path, set[Path]] = {}
    for blob in blobs:
        if target := shared_target(cache, blob):
            found.setdefault(path_of(target), set()).add(blob)
    return found


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
    """Everything below one of the cache's own folders, with the path that links of the user lead to."""
    place = followed(folder)
    return iter(()) if place.is_symlink() else names_below(place)
