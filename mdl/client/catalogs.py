"""The catalog and its lock: what is written into them, and what is read out of them for others."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mdl.cancel import CancelToken
from mdl.client.base import Targets, Texts
from mdl.client.disk import Disk
from mdl.config import places
from mdl.context import Folder
from mdl.errors import LockError, UsageError
from mdl.listener import Listener
from mdl.units import texts

if TYPE_CHECKING:
    from mdl.catalog.model import Model
    from mdl.ops.edit import Entry
    from mdl.ops.export import Export
    from mdl.ops.lock import LockReport
    from mdl.sources.hub_search import FoundRepo


class Catalogs(Disk):
    """What a client does with catalogs and locks."""

    def lock(
        self,
        names: Texts | None = None,
        *,
        check: bool = False,
        upgrade: Texts = (),
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
    ) -> LockReport:
        """Resolve the models and groups ``names`` of the catalog, or all that is its own, and write what they are to
        ``mdl.lock`` beside it.

        What the lock covers is not asked for again, except for ``upgrade``. ``check`` compares catalog and lock, and
        neither asks nor writes; a lock that does not fit is then the report's error. Raises `NotFound`,
        `CatalogError`, `StateError`, `UsageError`, `AuthError`, `Cancelled`.
        """
        from mdl.ops.lock import lock

        path = self.workspace.lock_path
        asked = None if names is None else texts(names)
        models = [] if check else list(self.catalog.models.values())
        with self.tools(models, on_event=on_event, cancel=cancel, exact=True, online=not check) as tools:
            report = lock(self.catalog, path, tools, names=asked, check=check, upgrade=texts(upgrade))
        self.workspace.forget_lock()
        return report

    def search(
        self,
        text: str,
        *,
        kind: str = "model",
        sort: str = "downloads",
        limit: int = 20,
        cancel: CancelToken | None = None,
    ) -> list[FoundRepo]:
        """The repositories of the hub whose names hold ``text``: at most ``limit`` (1 to 100) of the ``kind`` model or
        dataset, the most of ``sort`` (downloads, likes, modified) first. Raises `UsageError`, `LockError` offline,
        `AuthError`, `NetworkError`, `ProtocolError`."""
        from mdl.sources.hub_search import search

        work = self.workspace
        stop = self.stopped_by(cancel)
        with contextlib.ExitStack() as stack:
            online = not work.config.is_offline
            network = stack.enter_context(work.network([], stop, with_lock=False)) if online else None
            return search(work.context(network), text, kind=kind, sort=sort, limit=limit)

    def export(self, names: Texts | None = None, *, list_format: str = "urls") -> Export:
        """The files of the locked models and groups ``names``, or of all of the catalog's own that is locked, as a list
        that other programs read: ``urls``, ``aria2``, ``metalink`` or ``sha256sums``. Contacts nothing. Raises
        `LockError` if the lock does not cover them, `UsageError` for another format, `NotFound`, `CatalogError`,
        `StateError`."""
        from mdl.ops.export import FORMATS, export

        if list_format not in FORMATS:
            raise UsageError(
                f"{list_format!r} is not a format", item="--format", hint=f"choose one of {', '.join(FORMATS)}"
            )
        lock = self.workspace.lock
        names = texts(names) if names is not None else self._own_locked()
        if not names:
            raise LockError("nothing is locked", item=str(self.workspace.lock_path), hint="'mdl lock' writes the lock")
        models = {model.name: lock.pin(model) for name in names for model in self.catalog.find(name)}
        resolver = self.workspace.resolver(self.workspace.store([]))
        return export({name: resolver.known(model) or () for name, model in models.items()}, list_format)

    def _own_locked(self) -> list[str]:
        """What a command that reads the lock means without names: the catalog's own models that are locked."""
        return [model.name for model in self.catalog.meant() if model.name in self.workspace.lock.models]

    def locked_models(self, targets: Targets | None = None) -> list[Model]:
        """The models that ``targets`` mean, or all of the catalog's own that are locked. Raises `LockError` if the lock
        does not cover them, `NotFound`, `CatalogError`, `StateError`."""
        lock = self.workspace.lock
        if targets is None:
            targets = self._own_locked()
        models = self.models(targets)
        if not models:
            raise LockError("nothing is locked", item=str(self.workspace.lock_path), hint="'mdl lock' writes the lock")
        for model in models:
            lock.pin(model, stale=self.workspace.config["frozen"])
        return models

    def init(self, place: Folder | None = None) -> Path:
        """Begin a catalog of the user's own, with nothing in it; returns its path. ``place`` is
        a folder or a file ``….toml``; by default it is ``catalog.toml`` in the user config folder. Raises `Occupied`
        if there is something."""
        from mdl.ops.edit import begin_catalog

        path = places.config_dir() if place is None else places.place_of(place, "PLACE").absolute()
        path = path if path.suffix == ".toml" and not path.is_dir() else path / places.CATALOG_NAME
        begin_catalog(path)
        self.workspace.forget_catalog()
        return path

    def add(self, name: str, source: str | Sequence[str], *, groups: Texts = (), **facts: str | Sequence[str]) -> Path:
        """Put a model into the catalog, whose comments stay, and into ``groups`` of it; returns the catalog's path. A
        user who has no catalog gets one, as by `init`. ``source`` is what `models` takes, but no name. ``facts`` are
        further keys of the entry. Raises `UsageError` if it is no source, the name is taken or the catalog is not the
        user's own, `CatalogError`."""
        from mdl.sources import HUB_HOSTS, parse
        from mdl.sources.shorthand import reference_in

        sources = [reference_in(one, HUB_HOSTS) or str(parse(one)) for one in texts(source)]
        entry = {key: facts[key] for key in facts if key in ("title", "kind", "license", "tags")}
        entry["source"] = sources[0] if len(sources) == 1 else sources
        return self.put_entry(name, {**entry, **facts}, texts(groups))

    def put_entry(self, name: str, entry: Entry, groups: Sequence[str] = (), *, replace: bool = False) -> Path:
        """Put an entry into the user's catalog, as `add` does, or in the place of the one of this name."""
        from mdl.ops.edit import BEGINNING, EMPTY, add_model

        has_none = self.workspace.has_shipped_catalog
        path = add_model(
            [places.config_dir() / places.CATALOG_NAME] if has_none else self.workspace.catalog_paths[0],
            name,
            entry,
            groups,
            replace=replace,
            beginning=BEGINNING if has_none else EMPTY,
            fetch=self.workspace.web_base,
        )
        self.workspace.forget_catalog()
        return path

    def remove(self, name: str) -> Path:
        """Take a model out of the catalog; its files stay on the disk. Returns the catalog's path. Raises `NotFound`,
        `UsageError`, `CatalogError`."""
        from mdl.ops.edit import remove_model

        path = remove_model(self.workspace.catalog_paths[0], name, fetch=self.workspace.web_base)
        self.workspace.forget_catalog()
        return path
