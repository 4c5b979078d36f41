"""The stores of a client: the models folder in use, the one of the other layout, and where the same bytes may be."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mdl.cancel import CancelToken
from mdl.config import places
from mdl.config.settings import Config
from mdl.errors import UsageError, storage_error

if TYPE_CHECKING:
    from mdl.catalog.model import Model
    from mdl.downloader.copies import LocalCopies
    from mdl.downloader.store import Store
    from mdl.sources import CachedListing

Folder = str | os.PathLike[str]


class Stores:
    """Opens stores. ``catalog_id`` names the catalog in use; the receipts of its files have it."""

    def __init__(self, config: Config, cancel: CancelToken, catalog_id: Callable[[], str]) -> None:
        self._config = config
        self._cancel = cancel
        self._catalog_id = catalog_id

    @property
    def is_cache(self) -> bool:
        """Whether models go into the cache of the hub's own client."""
        return bool(self._config["layout"] == "hf-cache")

    def open(
        self, models: Sequence[Model] = (), into: Folder | None = None, cancel: CancelToken | None = None
    ) -> Store:
        """The models folder, for work on ``models``. Raises `UsageError` for ``into`` with several models,
        `StorageError` if it is no folder."""
        from mdl.downloader.layouts import HubCache
        from mdl.downloader.store import Store

        catalog = None
        if any(model.is_of_catalog for model in models):
            catalog = self._catalog_id()
        cancel = cancel or self._cancel
        if into is not None:
            if self.is_cache:
                raise UsageError("--into and --layout hf-cache do not go together", hint="--to (home=) names the cache")
            if self._config.flags and self._config.given.get("home") is not None:
                raise UsageError(
                    "--into and --to do not go together", hint="--into DIR is where the files go; leave out --to"
                )
            check_into(len(models))
            folder = places.place_of(into, "--into")
            _check_folder(folder)
            flags = ["--into", os.fspath(into), *self._config.given_flags("catalog")]
            return Store(folder, into=True, catalog=catalog, cancel=cancel, flags=flags)
        folder = self._config.home.path
        _check_folder(folder)
        layout = HubCache if self.is_cache else None
        flags = self._config.given_flags("home", "layout", "catalog")
        return Store(folder, layout=layout, catalog=catalog, cancel=cancel, flags=flags)

    def all(self) -> list[Store]:
        """The models folder in use; and, unless folder or layout were given for this run, the one of the other layout:
        the usual models folder, or the hub's cache."""
        from mdl.downloader.layouts import HubCache
        from mdl.downloader.store import Store

        stores = [self.open()]
        if self._config.given.get("home") is None and self._config.given.get("layout") is None:
            with contextlib.suppress(UsageError):
                if self.is_cache:
                    stores.append(Store(self._usual_home, cancel=self._cancel))
                else:
                    stores.append(Store(places.hub_cache(self._config.environ), layout=HubCache, cancel=self._cancel))
        return stores

    @property
    def _usual_home(self) -> Path:
        """The models folder of the layout ``plain``, whatever is given for this run. Raises `UsageError`."""
        return replace(self._config, given={"layout": "plain"}).home.path

    def _caches(self, store: Store) -> list[Path]:
        """The folders of the hub's own client: ``store`` if it is one, the usual one, and those of libraries."""
        caches: list[Path] = []
        if store.layout.is_by_digest:
            caches.append(store.root)
        with contextlib.suppress(UsageError):
            caches.append(places.hub_cache(self._config.environ))
            caches += places.further_hub_caches(self._config.environ)
        return list(dict.fromkeys(caches))

    def local_copies(self, store: Store) -> LocalCopies | None:
        """Where on this machine the same bytes may be: ``store`` itself, the usual models folder, the hub's cache,
        ``[stores] also``. None if ``[stores] link`` says that nothing is to be taken from there."""
        from mdl.downloader.copies import LocalCopies
        from mdl.downloader.store import Store

        link = self._config["stores.link"]
        if link == "none":
            return None
        others: list[Store] = []
        with contextlib.suppress(UsageError):
            if self._usual_home != store.root:
                others.append(Store(self._usual_home))
        return LocalCopies(store, others, tuple(self._caches(store)), self._config["stores.also"], link)

    def cached_listing(self, store: Store, reference: str) -> CachedListing | None:
        """What the hub's cache has of the revision of a repository: the cache that is ``store``, and the usual one."""
        from mdl.downloader.hub_cache import cached_listing
        from mdl.sources.hub_origin import parse_reference

        return cached_listing(self._caches(store), parse_reference(reference))


def _check_folder(folder: Path) -> None:
    """Raises `StorageError` if something else than a folder is there, or in its path: it is named once, before any file
    of a model fails for it."""
    for place in (folder, *folder.parents):
        try:
            mode = os.stat(place).st_mode
        except OSError:
            continue  # nothing is there yet
        if not stat.S_ISDIR(mode):
            raise storage_error(NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)), str(place))
        return


def check_into(count: int, flag: str = "--into") -> None:
    """Raises `UsageError` if several models are to go into one folder."""
    if count != 1:
        raise UsageError(f"{flag} takes one target, not {count}", hint="use --to (home=) for several")
