"""Layouts: how a models folder is laid out: one folder a model, or as Hugging Face's own cache.

The cache's layout is described at https://huggingface.co/docs/huggingface_hub/guides/manage-cache: the bytes in
``blobs/<etag>``, a relative link to them in ``snapshots/<commit>/<path>``, the commit of a branch in ``refs/<branch>``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mdl import staging
from mdl.errors import MdlError, UsageError
from mdl.files import HubFile, RemoteFile
from mdl.paths import RelPath


class Layout(Protocol):
    """Where files of a models folder are. ``own`` is mdl's place in it, on the same file system."""

    own: Path

    def folder(self, model: str) -> Path:
        """What is shown as the place of a model."""

    def place(self, model: str, remote: RemoteFile) -> tuple[Path, RelPath]:
        """The folder that nothing leads out of, and the file's path below it. Raises `UsageError`."""

    def expose(self, remote: RemoteFile) -> None:
        """Make a published file findable under its name. Raises `OSError`."""

    def settle(self, remotes: Sequence[RemoteFile]) -> None:
        """All of a model's files are there. Raises `OSError`."""


class Plain:
    """``<root>/<model>/<path>``; with ``into`` the one model's files are in ``root`` itself."""

    def __init__(self, root: Path, *, into: bool = False) -> None:
        self._root, self._into = root, into
        self.own = root / ".mdl"

    def folder(self, model: str) -> Path:
        return self._root if self._into else RelPath.parse(model).under(self._root)

    def place(self, model: str, remote: RemoteFile) -> tuple[Path, RelPath]:
        return self.folder(model), remote.path

    def expose(self, remote: RemoteFile) -> None:
        """A file is under its own name already."""

    def settle(self, remotes: Sequence[RemoteFile]) -> None:
        """Nothing else says what is there."""


class HubCache:
    """As huggingface_hub lays its cache out. mdl's own place is below ``.locks``, which the hub's tools pass over."""

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
        self._snapshots.setdefault(model, set()).add(self._snapshot(hub))
        blob = RelPath.parse(f"{_repo_folder(hub)}/blobs/{_blob(remote)}")
        return self._root, self._shared(blob) or blob

    def expose(self, remote: RemoteFile) -> None:
        link = RelPath.parse(_hub_file(remote).path).under(self._snapshot(_hub_file(remote)))
        target = self._root / _repo_folder(_hub_file(remote)) / "blobs" / _blob(remote)
        wanted = os.path.relpath(target, link.parent)
        if link.is_symlink() and os.readlink(link) == wanted:
            return
        link.parent.mkdir(parents=True, exist_ok=True)
        staging.switch_link(link, wanted)

    def settle(self, remotes: Sequence[RemoteFile]) -> None:
        """Note which commit the branch is at; of a commit asked for by itself only where no branch is known."""
        for hub in {remote.hub for remote in remotes if remote.hub}:
            ref = RelPath.parse(hub.branch or "main").under(self._root / _repo_folder(hub) / "refs")
            if (hub.branch or not ref.exists()) and (not ref.exists() or ref.read_text() != hub.revision):
                staging.write_file(ref, hub.revision.encode(), mode=0o644)

    def _snapshot(self, hub: HubFile) -> Path:
        return self._root / _repo_folder(hub) / "snapshots" / hub.revision

    def _shared(self, blob: RelPath) -> RelPath | None:
        """Where the hub's client keeps the bytes in its store for several repositories, and only links them here."""
        link = blob.under(self._root)
        if not link.is_symlink():
            return None
        target = os.path.normpath(link.parent / os.readlink(link))
        try:
            return RelPath.parse(os.path.relpath(target, self._root))
        except MdlError:
            return None


def _hub_file(remote: RemoteFile) -> HubFile:
    if remote.hub is None or len(remote.hub.revision) != 40 or remote.digest is None:
        hint = "take it into a plain folder, without --layout"
        raise UsageError(
            "the hub's cache has no place for it: it is no file of a hub", item=str(remote.path), hint=hint
        )
    return remote.hub


def _repo_folder(hub: HubFile) -> str:
    return "--".join([f"{hub.repo_type}s", *hub.repo.split("/")])


def _blob(remote: RemoteFile) -> str:
    assert remote.digest is not None
    return remote.digest.hex
