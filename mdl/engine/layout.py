"""Layouts: where the files of a models folder are, and what is there: a folder for each model, or Hugging Face's cache.

The cache's layout is described at https://huggingface.co/docs/huggingface_hub/guides/manage-cache: the bytes in
``blobs/<etag>``, a relative link to them in ``snapshots/<commit>/<path>``, the commit of a branch in ``refs/<branch>``.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from mdl.errors import StorageError, UsageError, storage_error
from mdl.files import HubFile, LocalFile, RemoteFile, Stamp
from mdl.fs import look_anew, reading_error, staging
from mdl.fs.entries import is_untrusted_link, open_parent, user_name
from mdl.fs.private import is_trusted_owner, make_private_dir
from mdl.fs.staging import OpenFolders
from mdl.paths import RelPath

_LONGEST_REF = 1000
_ABSENT = LocalFile()
_SHARED = re.compile(r"blobs/[0-9a-f]{2}/[0-9a-f]{64}")
"""How the hub's client names a file that several repositories share."""


class Layout:
    """``<root>/<model>/<path>``; with ``into`` the files of one model are in ``root`` itself. ``own`` is mdl's folder
    there."""

    name = "plain"
    """As the setting ``layout`` has it."""
    is_by_digest = False
    """Whether files are named by their digest, so that models and other programs share them."""

    def __init__(self, root: Path, *, into: bool = False) -> None:
        self._root, self._into = root, into
        self.own = root / ".mdl"
        self._folders: dict[str, Path] = {}

    def folder(self, model: str) -> Path:
        """The folder that is shown as the place of a model."""
        if model not in self._folders:
            self._folders[model] = self._root if self._into else RelPath.parse(model).under(self._root)
        return self._folders[model]

    def place(self, model: str, remote: RemoteFile) -> tuple[Path, RelPath]:
        """A folder, and the file's path below it, which must not lead out of it. Raises `UsageError`."""
        return self.folder(model), remote.path

    def expect(self, model: str, remote: RemoteFile) -> None:
        """Take note that the file is one of the model's current files. Raises as `place` does."""

    def pointer(self, remote: RemoteFile) -> Path | None:
        """The second name by which programs find a file; None if it has only one."""
        return None

    def expose(self, remote: RemoteFile, folders: OpenFolders) -> None:
        """Make a published file findable by its second name, in one of ``folders``, which the caller syncs. Raises
        `UsageError`, `OSError`."""

    def mark_complete(self, remotes: Sequence[RemoteFile], *, is_news: bool) -> None:
        """All files of a model are there, as their source lists them; ``is_news`` if it was asked just now. Raises
        `OSError`."""


class HubCache(Layout):
    """The cache of huggingface_hub. mdl's own folder is below ``.locks``, which the hub's tools ignore."""

    name, is_by_digest = "hf-cache", True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.own = root / ".locks" / ".mdl"
        self._snapshots: dict[str, set[Path]] = {}

    def folder(self, model: str) -> Path:
        """The snapshot, if it is known and there is only one; else the cache."""
        found = self._snapshots.get(model, set())
        return next(iter(found)) if len(found) == 1 else self._root

    def place(self, model: str, remote: RemoteFile) -> tuple[Path, RelPath]:
        hub = _hub_file(remote)
        RelPath.parse(f"refs/{hub.branch or 'main'}")
        blob = RelPath.parse(f"{_repo_folder(hub)}/blobs/{_blob(remote)}")
        link = blob.under(self._root)
        if link.is_symlink() and not link.parent.is_symlink() and not link.parent.parent.is_symlink():
            target = os.path.relpath(os.path.normpath(link.parent / os.readlink(link)), self._root)
            if _SHARED.fullmatch(target):  # the hub's client keeps the bytes in its shared store
                return self._root, RelPath.parse(target)
        return self._root, blob

    def expect(self, model: str, remote: RemoteFile) -> None:
        hub = _hub_file(remote)
        snapshot = self._root / _repo_folder(hub) / "snapshots" / hub.revision
        self._snapshots.setdefault(model, set()).add(snapshot)

    def expose(self, remote: RemoteFile, folders: OpenFolders) -> None:
        hub = _hub_file(remote)
        up = "../" * (2 + hub.path.count("/"))
        found = folders.entry(self._root, _pointer(hub))
        here = found.stat()
        wanted = f"{up}blobs/{_blob(remote)}"
        is_link = here is not None and stat.S_ISLNK(here.st_mode)
        if not (is_link and os.readlink(found.name, dir_fd=found.folder) == wanted):
            stage = make_private_dir(self.own / "stage")
            staging.give_name(staging.stage_link(stage, found.name, wanted), found)

    def pointer(self, remote: RemoteFile) -> Path | None:
        return _pointer(_hub_file(remote)).under(self._root)

    def mark_complete(self, remotes: Sequence[RemoteFile], *, is_news: bool) -> None:
        """Record the commit of the branch. If only the commit was asked for, or the source was not asked just now,
        record it only if nothing is recorded for the branch."""
        for hub in {remote.hub for remote in remotes if remote.hub}:
            with open_parent(self._root, RelPath.parse(f"{_repo_folder(hub)}/refs/{hub.branch or 'main'}")) as ref:
                known = ref.read(_LONGEST_REF)
                if known is None or (hub.branch and is_news and known != hub.revision.encode()):
                    stage = make_private_dir(self.own / "stage")
                    staged = staging.stage(stage, ref.name, hub.revision.encode(), mode=0o644)
                    staging.publish(staged, ref)


def _hub_file(remote: RemoteFile) -> HubFile:
    if remote.hub is None or len(remote.hub.revision) != 40 or remote.digest is None:
        hint = "take it into a plain folder, without --layout"
        why = "the hub's cache stores only files of the hub that have a commit and a digest"
        raise UsageError(why, item=str(remote.path), hint=hint)
    return remote.hub


def _pointer(hub: HubFile) -> RelPath:
    return RelPath.parse(f"{_repo_folder(hub)}/snapshots/{hub.revision}/{hub.path}")


def _repo_folder(hub: HubFile) -> str:
    return "--".join([f"{hub.repo_type}s", *hub.repo.split("/")])


def _blob(remote: RemoteFile) -> str:
    assert remote.digest is not None
    return remote.digest.hex


def inspect_path(at: Path, path: RelPath, own: Path) -> LocalFile:
    """What is at ``path`` below the folder ``at``: a file with its stamp, or in words what is in the way. No part of
    the path may be a link. A file is foreign if its owner is not trusted beside mdl's folder ``own``.

    Raises `StorageError`.
    """
    here, final = os.fspath(at), f"{at}/{path}"
    for segment in ("", *path.text.split("/")):
        here = f"{here}/{segment}" if segment else here
        last = here == final
        try:
            status = _status(here)
        except (FileNotFoundError, NotADirectoryError):
            return _absent(final)
        except OSError as error:
            raise reading_error(error, Path(here), Path(here).parent) from error
        if stat.S_ISLNK(status.st_mode) and (last or segment):
            return LocalFile("link", why=f"{here} is a symbolic link")
        if is_untrusted_link(at, status):
            return LocalFile("link", why=f"{at} is a symbolic link of {user_name(status.st_uid)}")
        if not last and segment and not stat.S_ISDIR(status.st_mode):
            return LocalFile("folder", why=f"{here} is a file where a folder is needed")
    if stat.S_ISREG(status.st_mode):
        return LocalFile("file", Stamp.of(status), foreign=not is_trusted_owner(status.st_uid, own))
    if stat.S_ISDIR(status.st_mode):
        return LocalFile("folder", why=f"{here} is a folder")
    return LocalFile("special", why=f"{here} is a device, pipe or socket")


def _status(path: str) -> os.stat_result:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        look_anew(Path(path).parent)
        return os.lstat(path)


def _absent(final: str) -> LocalFile:
    """Nothing is there. Raises `StorageError` if nothing can be: a name that the system or the locale cannot store is
    found before the download."""
    try:
        os.lstat(final)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise storage_error(error, final) from error
    except UnicodeEncodeError as error:
        hint = "set PYTHONUTF8=1, or a locale of UTF-8 (LC_ALL=C.UTF-8)"
        raise StorageError(f"the current locale ({error.encoding}) cannot encode this file name", hint=hint) from error
    return _ABSENT
