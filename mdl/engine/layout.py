"""Layouts: how a models folder is laid out: one folder a model, or as Hugging Face's own cache.

The cache's layout is described at https://huggingface.co/docs/huggingface_hub/guides/manage-cache: the bytes in
``blobs/<etag>``, a relative link to them in ``snapshots/<commit>/<path>``, the commit of a branch in ``refs/<branch>``.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mdl.errors import UsageError
from mdl.files import HubFile, RemoteFile
from mdl.fs import staging
from mdl.fs.entries import open_parent
from mdl.fs.private import make_private_dir
from mdl.paths import RelPath

_LONGEST_REF = 1000
_SHARED = re.compile(r"blobs/[0-9a-f]{2}/[0-9a-f]{64}")
"""How the hub's client names the bytes that it keeps for several repositories."""


class Layout(Protocol):
    """Where files of a models folder are. ``own`` is mdl's place in it, on the same file system. ``is_by_digest``:
    a file is named by its bytes, so whoever puts one there puts the same."""

    own: Path
    is_by_digest: bool

    def folder(self, model: str) -> Path:
        """What is shown as the place of a model."""

    def place(self, model: str, remote: RemoteFile) -> tuple[Path, RelPath]:
        """The folder that nothing leads out of, and the file's path below it. Raises `UsageError`."""

    def expect(self, model: str, remote: RemoteFile) -> None:
        """The file is one of the model's as it is now. Raises `UsageError`."""

    def expose(self, remote: RemoteFile) -> None:
        """Make a published file findable under its name. Raises `OSError`."""

    def pointer(self, remote: RemoteFile) -> Path | None:
        """The second name by which programs find a file; None where it has only one."""

    def settle(self, remotes: Sequence[RemoteFile], *, is_news: bool) -> None:
        """All of a model's files are there, as their source says (now, if ``is_news``). Raises `OSError`."""


class Plain:
    """``<root>/<model>/<path>``; with ``into`` the one model's files are in ``root`` itself."""

    is_by_digest = False

    def __init__(self, root: Path, *, into: bool = False) -> None:
        self._root, self._into = root, into
        self.own = root / ".mdl"

    def folder(self, model: str) -> Path:
        return self._root if self._into else RelPath.parse(model).under(self._root)

    def place(self, model: str, remote: RemoteFile) -> tuple[Path, RelPath]:
        return self.folder(model), remote.path

    def expect(self, model: str, remote: RemoteFile) -> None:
        """The folder does not depend on it."""

    def expose(self, remote: RemoteFile) -> None:
        """A file is under its own name already."""

    def pointer(self, remote: RemoteFile) -> Path | None:
        return None

    def settle(self, remotes: Sequence[RemoteFile], *, is_news: bool) -> None:
        """Nothing else says what is there."""


class HubCache:
    """As huggingface_hub lays its cache out. mdl's own place is below ``.locks``, which the hub's tools pass over."""

    is_by_digest = True

    def __init__(self, root: Path) -> None:
        self._root = root
        self.own = root / ".locks" / ".mdl"
        self._snapshots: dict[str, set[Path]] = {}

    def folder(self, model: str) -> Path:
        """The snapshot, once it is known and there is only one; else the cache."""
        found = self._snapshots.get(model, set())
        return next(iter(found)) if len(found) == 1 else self._root

    def place(self, model: str, remote: RemoteFile) -> tuple[Path, RelPath]:
        hub = _hub_file(remote)
        RelPath.parse(f"refs/{hub.branch or 'main'}")
        blob = RelPath.parse(f"{_repo_folder(hub)}/blobs/{_blob(remote)}")
        return self._root, self._shared(blob) or blob

    def expect(self, model: str, remote: RemoteFile) -> None:
        self._snapshots.setdefault(model, set()).add(self._snapshot(_hub_file(remote)))

    def expose(self, remote: RemoteFile) -> None:
        hub = _hub_file(remote)
        path = _pointer(hub)
        up = "../" * (2 + hub.path.count("/"))
        with open_parent(self._root, path) as found:
            here = found.stat()
            wanted = f"{up}blobs/{_blob(remote)}"
            is_link = here is not None and stat.S_ISLNK(here.st_mode)
            if not (is_link and os.readlink(found.name, dir_fd=found.folder) == wanted):
                stage = make_private_dir(self.own / "stage")
                staging.publish(staging.stage_link(stage, found.name, wanted), found)

    def pointer(self, remote: RemoteFile) -> Path | None:
        return _pointer(_hub_file(remote)).under(self._root)

    def settle(self, remotes: Sequence[RemoteFile], *, is_news: bool) -> None:
        """Note which commit the branch is at; of a commit asked for by itself, and of what nobody was asked for just
        now, only where no branch is known."""
        for hub in {remote.hub for remote in remotes if remote.hub}:
            with open_parent(self._root, RelPath.parse(f"{_repo_folder(hub)}/refs/{hub.branch or 'main'}")) as ref:
                known = ref.read(_LONGEST_REF)
                if known is None or (hub.branch and is_news and known != hub.revision.encode()):
                    stage = make_private_dir(self.own / "stage")
                    staged = staging.stage(stage, ref.name, hub.revision.encode(), mode=0o644)
                    staging.publish(staged, ref)

    def _snapshot(self, hub: HubFile) -> Path:
        return self._root / _repo_folder(hub) / "snapshots" / hub.revision

    def _shared(self, blob: RelPath) -> RelPath | None:
        """Where the hub's client keeps the bytes in its store for several repositories, and only links them here."""
        link = blob.under(self._root)
        repo = [self._root / blob.text.split("/")[0], link.parent]
        if not link.is_symlink() or any(folder.is_symlink() for folder in repo):
            return None
        target = os.path.relpath(os.path.normpath(link.parent / os.readlink(link)), self._root)
        return RelPath.parse(target) if _SHARED.fullmatch(target) else None


def _hub_file(remote: RemoteFile) -> HubFile:
    if remote.hub is None or len(remote.hub.revision) != 40 or remote.digest is None:
        hint = "take it into a plain folder, without --layout"
        raise UsageError(
            "the hub's cache has no place for it: it is no file of a hub", item=str(remote.path), hint=hint
        )
    return remote.hub


def _pointer(hub: HubFile) -> RelPath:
    return RelPath.parse(f"{_repo_folder(hub)}/snapshots/{hub.revision}/{hub.path}")


def _repo_folder(hub: HubFile) -> str:
    return "--".join([f"{hub.repo_type}s", *hub.repo.split("/")])


def _blob(remote: RemoteFile) -> str:
    assert remote.digest is not None
    return remote.digest.hex
