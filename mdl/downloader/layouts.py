"""Layouts: where the files of a models folder are, and what is there: a folder for each model, or Hugging Face's cache.

`mdl.downloader.hub_cache` says what shapes the cache may have.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from mdl.bounds import LARGEST_NOTE
from mdl.disk import is_unsupported, look_anew, publish, reading_error, user_name
from mdl.disk.names import is_name_too_long, name_too_long
from mdl.disk.own_files import is_trusted_owner, make_private_dir
from mdl.disk.publish import OpenFolders
from mdl.disk.safe_open import is_untrusted_link, open_parent
from mdl.downloader import hub_cache
from mdl.errors import Occupied, StorageError, UsageError
from mdl.files import HubFile, LocalFile, Receipt, RemoteFile, Stamp
from mdl.paths import RelPath

_ABSENT = LocalFile()


class Layout:
    """``<root>/<model>/<path>``; with ``into`` the files of one model are in ``root`` itself. ``own`` is mdl's folder
    there."""

    name = "plain"
    """As the setting ``layout`` has it."""
    is_by_digest = False
    """Whether files are named by their digest, so that models and other programs share them."""

    def __init__(self, root: Path, *, into: bool = False) -> None:
        self._root = root
        self._into = into
        self.own = root / ".mdl"
        self._folders: dict[str, Path] = {}

    def folder(self, model: str) -> Path:
        """Return the folder that is shown as the place of a model."""
        if model not in self._folders:
            self._folders[model] = self._root if self._into else RelPath.parse(model).under(self._root)
        return self._folders[model]

    def place(self, model: str, remote: RemoteFile) -> tuple[Path, RelPath]:
        """Return a folder, and the file's path below it, which must not lead out of it. Raises `UsageError`."""
        return self.folder(model), remote.path

    def names_digest(self, remote: RemoteFile, place: tuple[Path, RelPath]) -> bool:
        """Return whether the name of a file at this place is its digest, so that no other bytes can be meant there."""
        return False

    def is_of_same_file(self, receipt: Receipt, remote: RemoteFile) -> bool:
        """Return whether the receipt is of the file on the disk that ``remote`` means, and not of one beside it."""
        return True

    def expect(self, model: str, remote: RemoteFile) -> None:
        """Take note that the file is one of the model's current files. Raises as `place` does."""

    def prepare(self) -> None:
        """Find out what the disk can do, before files get their names there. Raises `OSError`, `Unsafe`."""

    @property
    def note(self) -> str:
        """What its user should know of how files were published; '' if that is nothing."""
        return ""

    def pointer(self, remote: RemoteFile) -> Path | None:
        """Return the second name by which programs find a file; None if it has only one."""
        return None

    def expose(self, remote: RemoteFile, folders: OpenFolders) -> None:
        """Make a published file findable by its second name, in one of ``folders``, which the caller syncs. Raises
        `UsageError`, `OSError`."""

    def mark_complete(self, remotes: Sequence[RemoteFile], *, is_news: bool) -> None:
        """All files of a model are there, as their source lists them; ``is_news`` if it was asked just now. Raises
        `OSError`."""


class HubCache(Layout):
    """The cache of huggingface_hub. mdl's own folder is below ``.locks``, which the hub's tools ignore."""

    name = "hf-cache"
    is_by_digest = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.own = root / ".locks" / ".mdl"
        self.has_links = True
        """Whether this disk has symbolic links, as far as `prepare` has found out."""
        self._is_prepared = False
        self._places = hub_cache.CacheFolders(root)
        self._snapshots: dict[str, set[Path]] = {}

    def folder(self, model: str) -> Path:
        """Return the snapshot, if it is known and there is only one; else the cache."""
        snapshots = self._snapshots.get(model, set())
        return next(iter(snapshots)) if len(snapshots) == 1 else self._root

    def place(self, model: str, remote: RemoteFile) -> tuple[Path, RelPath]:
        hub = _hub_file(remote)
        self._places.ref(hub)
        if remote.digest is None:
            snapshot = self._places.snapshot(hub)
            if hub_cache.is_plain_file(snapshot):
                return snapshot
        return self._places.bytes_of(hub, _digest_of(remote), has_links=self.has_links)

    def names_digest(self, remote: RemoteFile, place: tuple[Path, RelPath]) -> bool:
        return place != self._places.snapshot(_hub_file(remote))

    def is_of_same_file(self, receipt: Receipt, remote: RemoteFile) -> bool:
        if receipt.digest == remote.digest:
            return True
        if receipt.hub is None or remote.hub is None:
            return False
        return receipt.hub.revision == remote.hub.revision

    def expect(self, model: str, remote: RemoteFile) -> None:
        hub = _hub_file(remote)
        snapshot = self._root / hub_cache.repo_folder_of(hub) / hub_cache.SNAPSHOTS / hub.revision
        self._snapshots.setdefault(model, set()).add(snapshot)

    def prepare(self) -> None:
        if not self._is_prepared:
            self.has_links = publish.can_link(make_private_dir(self.own / "stage"))
            self._is_prepared = True

    @property
    def note(self) -> str:
        return "" if self.has_links else "this disk has no links: the files are in the cache's snapshots themselves"

    def expose(self, remote: RemoteFile, folders: OpenFolders) -> None:
        hub = _hub_file(remote)
        pointer = self._places.snapshot(hub)
        if hub_cache.is_plain_file(pointer):
            return  # its bytes are there: see `place`
        blob = self._places.blob(hub, _digest_of(remote))
        entry = folders.entry(*pointer)
        status = entry.stat()
        wanted = hub_cache.link_text(pointer, blob)
        if (
            status is not None
            and stat.S_ISLNK(status.st_mode)
            and os.readlink(entry.name, dir_fd=entry.folder) == wanted
        ):
            return
        self.prepare()
        if self.has_links:
            try:
                publish.publish_link(make_private_dir(self.own / "stage"), wanted, entry)
                return
            except OSError as error:  # the snapshots may be on another disk than mdl's own folder
                if not is_unsupported(error):
                    raise
            self.has_links = False
        if hub_cache.is_plain_file(blob):  # once on the disk, under the name by which programs find it
            publish.give_name(hub_cache.path_of(blob), entry)

    def pointer(self, remote: RemoteFile) -> Path | None:
        return hub_cache.path_of(self._places.snapshot(_hub_file(remote)))

    def mark_complete(self, remotes: Sequence[RemoteFile], *, is_news: bool) -> None:
        """Record the commit of the branch. If only the commit was asked for, or the source was not asked just now,
        record it only if nothing is recorded for the branch."""
        for hub in {remote.hub for remote in remotes if remote.hub}:
            with open_parent(*self._places.ref(hub)) as ref:
                known = ref.read(LARGEST_NOTE)
                if known is None or (hub.branch and is_news and known != hub.revision.encode()):
                    stage = make_private_dir(self.own / "stage")
                    staged = publish.stage(stage, ref.name, hub.revision.encode(), mode=0o644)
                    publish.publish(staged, ref)


def _hub_file(remote: RemoteFile) -> HubFile:
    if remote.hub is None or len(remote.hub.revision) != 40:
        raise _no_place(remote)
    return remote.hub


def _digest_of(remote: RemoteFile) -> str:
    if remote.digest is None:
        raise _no_place(remote)
    return remote.digest.hex


def _no_place(remote: RemoteFile) -> UsageError:
    hint = "take it into a plain folder, without --layout"
    why = "the hub's cache stores only files of the hub that have a commit and a digest"
    return UsageError(why, item=str(remote.path), hint=hint)


def inspect_path(at: Path, path: RelPath, own: Path) -> LocalFile:
    """Return what is at ``path`` below the folder ``at``: a file with its stamp, or in words what is in the way. No
    part of the path may be a link. A file is foreign if its owner is not trusted beside mdl's folder ``own``.

    Raises `StorageError`.
    """
    here = os.fspath(at)
    final = f"{at}/{path}"
    for segment in ("", *path.text.split("/")):
        here = f"{here}/{segment}" if segment else here
        try:
            status = _status(here)
        except (FileNotFoundError, NotADirectoryError):
            return _absent(final)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return _unstorable(Path(final))
            raise reading_error(error, Path(here), Path(here).parent) from error
        if is_untrusted_link(Path(here), status):
            hint = "take another folder: --to DIR, or HF_HUB_CACHE for Hugging Face's cache"
            return LocalFile("link", why=f"{here} is a symbolic link of {user_name(status.st_uid)}", hint=hint)
        if not segment:  # the folder itself may be a link of its user
            continue
        if stat.S_ISLNK(status.st_mode):
            return LocalFile("link", why=f"{here} is a symbolic link", hint=Occupied.default_hint)
        if here != final and not stat.S_ISDIR(status.st_mode):
            return LocalFile("folder", why=f"{here} is a file where a folder is needed")
    if stat.S_ISREG(status.st_mode):
        return LocalFile("file", Stamp.of(status), foreign=not is_trusted_owner(status.st_uid, own))
    if stat.S_ISDIR(status.st_mode):
        return LocalFile("folder", why=f"{here} is a folder")
    return LocalFile("special", why=f"{here} is a device, pipe or socket", hint=Occupied.default_hint)


def _status(path: str) -> os.stat_result:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        look_anew(path.rpartition("/")[0])
        return os.lstat(path)


def _absent(final: str) -> LocalFile:
    """Nothing is there; it says why if nothing can be, for its name is too long. Raises `StorageError` if the locale
    cannot encode it."""
    try:
        if is_name_too_long(final):
            return _unstorable(Path(final))
    except UnicodeEncodeError as error:
        hint = "set PYTHONUTF8=1, or a locale of UTF-8 (LC_ALL=C.UTF-8)"
        raise StorageError(f"the current locale ({error.encoding}) cannot encode this file name", hint=hint) from error
    return _ABSENT


def _unstorable(final: Path) -> LocalFile:
    """Nothing is there, nor can be."""
    too_long = name_too_long(final)
    return LocalFile(why=too_long.message, hint=too_long.hint or "")
