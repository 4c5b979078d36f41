"""The catalog in use and its lock: which files they are, and what they say. Each is read when it is first needed."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from mdl.config import places
from mdl.config.settings import Config
from mdl.errors import LockError, MdlError, UsageError

if TYPE_CHECKING:
    from mdl.catalog.lock import Lock
    from mdl.catalog.model import Catalog, Model
    from mdl.net.client import HttpClient
    from mdl.reports import Report


class CatalogInUse:
    """The catalog that the settings name, or that is found, and the lock beside it.

    ``connect`` opens an HTTP client that may ask one host; a catalog on the web needs it. ``warn`` is called with a
    sentence about what may hurt later.
    """

    def __init__(self, config: Config, warn: Callable[[str], None], connect: Callable[[str], HttpClient]) -> None:
        self._config = config
        self._warn = warn
        self._connect = connect

    # The catalog.

    @cached_property
    def found(self) -> tuple[tuple[Path, ...], str]:
        """The catalog files in use, and why mdl uses these. It warns of a file that another user may have written."""
        try:
            folder = places.config_dir()
        except UsageError:
            folder = places.working_folder()
        given = self._config.given.get("catalog") or ()
        named = [given] if isinstance(given, str | os.PathLike) else given
        where = "--catalog" if self._config.flags else "catalog"
        files = [places.expanded(file, where) for file in named]
        paths, why = places.find_catalogs(files, self._config.environ, places.working_folder(), folder)
        if doubt := places.why_untrusted(paths[0], why):
            self._warn(f"{paths[0]} was found {why}, and {doubt}: if you trust it, name it with --catalog (catalog=)")
        return paths, why

    @property
    def paths(self) -> tuple[Path, ...]:
        """The catalog files in use; an earlier one has precedence."""
        return self.found[0]

    @property
    def is_shipped(self) -> bool:
        """Return whether it is the catalog that comes with mdl, and the user named none."""
        paths, why = self.found
        return paths == (places.SHIPPED,) and not why.startswith("given")

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog that the files hold. Raises `CatalogError` with every mistake in them."""
        from mdl.catalog.reader import read_catalog

        return read_catalog(self.paths, self.web_base)

    @property
    def catalog_as_kept(self) -> Catalog:
        """The same, with the copies of catalogs on the web however old they are: one that has no copy is asked for."""
        from mdl.catalog.reader import read_catalog

        return read_catalog(self.paths, partial(self.web_base, prefers_copies=True))

    def web_base(self, url: str, named: str, *, prefers_copies: bool = False) -> str:
        """The text of the catalog at ``url``, which the catalog in use extends; ``named`` is the URL that the file on
        this disk has. Raises `MdlError`."""
        from mdl.catalog.extends import WebBases
        from mdl.net.allowlist import host_of

        connect = None
        if not self._config.is_offline:
            connect = lambda place: self._connect(host_of(place))  # noqa: E731
        folder = None
        with contextlib.suppress(UsageError):  # a user without a home folder
            folder = places.state_dir() / "catalogs"
        bases = WebBases(
            folder,
            connect,
            self._warn,
            prefers_copies=prefers_copies or self._config["frozen"],
            offline_by=self._config.offline_by,
        )
        return bases(url, named)

    def place_of(self, model: Model) -> str:
        """Where a model was read: the file and line of its entry, or that it was named on the command line."""
        from mdl.catalog.reader import place_of

        if not model.is_of_catalog:
            return model.origin
        return place_of(model.name, Path(model.origin)) or model.origin

    @cached_property
    def id(self) -> str:
        """Names this catalog in the receipts of its files."""
        paths = ["shipped" if path == places.SHIPPED else os.path.realpath(path) for path in self.paths]
        return hashlib.sha256(os.fsencode("\0".join(sorted(paths)))).hexdigest()[:16]

    # The lock.

    @cached_property
    def lock_path(self) -> Path:
        """Beside the catalog that it locks; the catalog that comes with mdl is locked in the user's config folder."""
        first = self.paths[0]
        folder = places.config_dir() if first == places.SHIPPED else first.absolute().parent
        return folder / places.LOCK_NAME

    @cached_property
    def locked(self) -> Lock | None:
        """The lock in the lock file; None if there is none. Raises `StateError` for a broken one, `Unsafe` for one of
        another user."""
        try:
            if not os.path.lexists(self.lock_path):
                return None
            if doubt := places.why_untrusted(self.lock_path, self.found[1]):
                self._warn(f"{self.lock_path}: {doubt}")
        except UsageError:
            return None  # a user without a home folder has no settings and no lock
        from mdl.catalog.lock_file import read_lock

        return read_lock(self.lock_path, self.paths[0])

    @property
    def lock(self) -> Lock:
        """The lock in the lock file; an empty lock if there is none. Raises as `locked`."""
        from mdl.catalog.lock import Lock

        return self.locked or Lock()

    @cached_property
    def shipped_lock(self) -> Lock:
        """The lock of the catalog that comes with mdl. It pins nothing: list and show use it for an
        entry whose source was never asked, and which the user's own lock does not cover."""
        from mdl.catalog.lock_file import parse_lock

        return parse_lock(places.SHIPPED_LOCK.read_text("utf-8"))

    @property
    def locked_names(self) -> list[str]:
        """The catalog's own models that are locked: what a command that reads the lock means if it is given no name."""
        return [model.name for model in self.catalog.meant() if model.name in self.lock.models]

    def none_locked(self) -> LockError:
        """The error of a command that reads a lock in which nothing is locked."""
        return LockError("nothing is locked", item=str(self.lock_path), hint="'mdl lock' writes the lock")

    def remember_first(self, models: Sequence[Model], report: Report) -> None:
        """Trust on first use: write the digests of files for which nobody published one into the lock.

        The lock is read again for that, because another process may have written it meanwhile. Trouble is a warning.
        """
        if self.locked is None:
            return
        from mdl.catalog.lock_file import update_lock, with_first_digests

        try:
            update_lock(self.lock_path, self.paths[0], lambda lock: with_first_digests(lock, models, report))
            self.forget_lock()
        except MdlError as error:
            self._warn(f"the lock could not be updated: {error.message}")

    # What was read may be written by this very process.

    def forget(self) -> None:
        """A catalog was just written: find and read it again when it is needed."""
        for name in ("found", "catalog", "id", "lock_path"):
            self.__dict__.pop(name, None)
        self.forget_lock()

    def forget_lock(self) -> None:
        """The lock was just written: read it again when it is needed."""
        self.__dict__.pop("locked", None)
