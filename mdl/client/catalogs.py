"""The catalog and its lock: what is written into them, and what is read out of them for others."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdl import places
from mdl.cancel import CancelToken
from mdl.client.base import Targets, Texts
from mdl.client.disk import Disk
from mdl.errors import LockError, UsageError
from mdl.listener import Listener
from mdl.units import parse_size, texts
from mdl.workspace import Folder

if TYPE_CHECKING:
    from mdl.catalog.model import Catalog
    from mdl.fleet.report import FleetReport
    from mdl.operations.bundle.contents import BundleExport, BundleImport
    from mdl.operations.edit import Entry
    from mdl.operations.export import Export
    from mdl.operations.fleet import OnNode
    from mdl.operations.lock import LockReport
    from mdl.operations.render.work import Rendered
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
        """Resolve the models and groups ``names`` of the catalog, or all of it, and write what they are to ``mdl.lock``
        beside it.

        What the lock covers is not asked for again, except for ``upgrade``. ``check`` writes nothing; a lock that is
        not up to date is then the report's error. Raises `NotFound`, `CatalogError`, `StateError`, `Cancelled`.
        """
        from mdl.operations.lock import lock

        path = self.workspace.lock_path
        models = list(self.catalog.models.values())
        asked = None if names is None else texts(names)
        with self._tools(models, on_event=on_event, cancel=cancel, exact=True) as tools:
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
        from mdl.sources import Context
        from mdl.sources.hub_search import search

        work, stop = self.workspace, CancelToken(self.workspace.cancel)
        if cancel:
            cancel.link(stop)
        with contextlib.ExitStack() as stack:
            online = not work.config.is_offline
            network = stack.enter_context(work.network([], stop, with_lock=False)) if online else None
            context = Context(work.endpoint, Path(os.devnull), network, environ=work.environ)
            return search(context, text, kind=kind, sort=sort, limit=limit)

    def export(self, names: Texts | None = None, *, list_format: str = "urls") -> Export:
        """The files of the locked models and groups ``names``, or of all that is locked, as a list that other programs
        read: ``urls``, ``aria2``, ``metalink`` or ``sha256sums``. Contacts nothing. Raises `LockError` if the lock does
        not cover them, `UsageError` for another format, `NotFound`, `CatalogError`, `StateError`."""
        from mdl.catalog.lock import Lock
        from mdl.operations.export import FORMATS, export

        if list_format not in FORMATS:
            raise UsageError(f"{list_format!r} is no format", item="--format", hint=f"there is {', '.join(FORMATS)}")
        lock = self.workspace.locked or Lock()
        names = texts(names) if names is not None else [name for name in self.catalog.models if name in lock.models]
        if not names:
            raise LockError("nothing is locked", item=str(self.workspace.lock_path), hint="'mdl lock' writes the lock")
        models = {model.name: lock.pin(model) for name in names for model in self.catalog.find(name)}
        resolver = self.workspace.resolver(self.workspace.store([]))
        return export({name: resolver.known(model) or () for name, model in models.items()}, list_format)

    def fleet(
        self,
        task: str,
        names: Texts,
        *,
        on: str,
        nodes: int | None = None,
        hosts: Texts = (),
        shared: Folder | None = None,
        fan_out: str = "",
        repair: bool = False,
        program: str = "mdl",
        on_node: OnNode = lambda _node, _done, _asked: None,
        on_note: Callable[[str], None] = lambda _text: None,
        cancel: CancelToken | None = None,
    ) -> FleetReport:
        """Have every node of an engine ``get``, ``verify`` or look at the ``status`` of the models and groups
        ``names``, as the lock has them. Settings that this client was given go along; all others are the nodes' own.

        ``on`` is ``slurm``, ``ray`` or ``ssh``; it takes so many ``nodes``, or these ``hosts``. All nodes of Slurm see
        the folder ``shared``; with the ``fan_out`` ``sbcast`` one of them downloads, and Slurm copies. A verify may
        ``repair``. ``program`` calls mdl there. ``on_node`` is told of each node that has answered, how many have, and
        of how many; ``on_note`` of what else happens.

        Raises `LockError` if the lock does not cover a model, `UsageError`, `NotFound`, `NetworkError`; `Cancelled`,
        after which nothing goes on."""
        from mdl.catalog.lock import Lock
        from mdl.fleet.engine import Nodes
        from mdl.operations.fleet import fleet, given_flags, work_of
        from mdl.process import split_command

        work, stop = self.workspace, CancelToken(self.workspace.cancel)
        if cancel:
            cancel.link(stop)
        models = {model.name: model for name in texts(names) for model in self.catalog.find(name)}
        lock, given = work.locked or Lock(), work.config.given
        home = os.fspath(given["home"]) if given.get("home") else None
        words = split_command(program, "--mdl")
        flags = [*(["--repair"] if repair else []), *given_flags(given, task)]
        wanted = work_of(task, list(models.values()), lock, flags=flags, program=words, home=home)
        where = Nodes(
            nodes, tuple(texts(hosts)), os.fspath(shared) if shared else None, fan_out, on_note, stop, work.environ
        )
        return fleet(task, wanted, lock, on, where, on_node)

    def init(self, place: Folder | None = None) -> Path:
        """Begin a catalog of the user's own, which extends the one that comes with mdl; returns its path. ``place`` is
        a folder or a file ``….toml``; by default it is ``catalog.toml`` in the user config folder. Raises `Occupied`
        if there is something."""
        from mdl.operations.edit import begin_catalog

        path = places.config_dir() if place is None else places.place_of(place, "PLACE").absolute()
        path = path if path.suffix == ".toml" and not path.is_dir() else path / places.CATALOG_NAME
        begin_catalog(path)
        self.workspace.forget_catalog()
        return path

    def add(self, name: str, source: str | Sequence[str], *, groups: Texts = (), **facts: str | Sequence[str]) -> Path:
        """Put a model into the catalog, whose comments stay, and into ``groups`` of it; returns the catalog's path. A
        user who has no catalog gets one, as by `init`. ``facts`` are further keys of the entry. Raises `UsageError` if
        the name is taken or the catalog is not the user's own, `CatalogError`."""
        sources = texts(source)
        entry = {key: facts[key] for key in facts if key in ("title", "kind", "license", "tags")}
        entry["source"] = sources[0] if len(sources) == 1 else sources
        return self._put(name, {**entry, **facts}, texts(groups))

    def _put(self, name: str, entry: Entry, groups: Sequence[str] = (), *, replace: bool = False) -> Path:
        """Put an entry into the user's catalog, as `add` does, or in the place of the one of this name."""
        from mdl.operations.edit import BEGINNING, EMPTY, add_model

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
        from mdl.operations.edit import remove_model

        path = remove_model(self.workspace.catalog_paths[0], name, fetch=self.workspace.web_base)
        self.workspace.forget_catalog()
        return path

    def export_bundle(
        self,
        targets: Targets,
        output: Folder,
        *,
        split: int | str | None = None,
        force: bool = False,
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
    ) -> BundleExport:
        """Write models that are on this disk to one tar, ``output``, for machines without a network: with their catalog
        entries, their lock and ``SHA256SUMS``. Nothing is contacted.

        ``split`` is the most bytes of a part (``"4G"`` for FAT32); the parts are called ``output.000`` and so on.
        ``force`` replaces files that are no bundle. Raises `NotFound` if a file is not here, `LockError`,
        `DigestMismatch`, `Occupied`, `NoSpace` before the first byte, `StorageError`, `Busy`, `Cancelled`.
        """
        from mdl.catalog.lock import Lock
        from mdl.operations.bundle.export import export_bundle

        wanted = [targets] if isinstance(targets, str) or not isinstance(targets, Sequence) else targets
        models = list({model.name: model for target in wanted for model in self._models_here(target)}.values())
        size = parse_size(split, "--split") if isinstance(split, str) else split
        path, lock = places.place_of(output, "-o").absolute(), self.workspace.locked or Lock()
        with self._tools(models, on_event=on_event, cancel=cancel, online=False) as tools:
            return export_bundle(models, tools, lock, path, split=size, force=force)

    def import_bundle(
        self,
        place: Folder,
        *,
        replace: bool = False,
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
    ) -> BundleImport:
        """Bring the models of a bundle into the models folder, and their entries into the catalog and its lock. Nothing
        is contacted.

        ``place`` is a tar, the first of its parts, a folder of parts, or the unpacked folder. Other entries of these
        names in catalog and lock are an `Occupied` error, or they are ``replace``d. Raises `NotFound`,
        `ProtocolError` for a damaged bundle, `DigestMismatch`, `Unsafe`, `NoSpace` before the first byte,
        `StorageError`, `Busy`, `Cancelled`; what was published before stays.
        """
        from mdl.operations.bundle.contents import BundleImport
        from mdl.operations.bundle.importing import changes, import_files, open_bundle, with_locked
        from mdl.operations.excerpt import entry_facts
        from mdl.operations.lock_file import update_lock

        path, work = places.place_of(place, "FILE"), self.workspace
        with open_bundle(path, lambda _done: work.cancel.check()) as bundle:
            added, locked = changes(bundle, self._catalog(), work.locked, replace=replace)
            with self._tools(bundle.models, on_event=on_event, cancel=cancel, online=False, exact=True) as tools:
                files = import_files(bundle, tools)
                folders = {model.name: tools.store.folder(model.name) for model in bundle.models}
        for model in added:
            self._put(model.name, entry_facts(model), replace=True)
        catalog, known = work.catalog_paths[0][0], self.catalog.models
        update_lock(work.lock_path, catalog, lambda now: with_locked(now, bundle, locked, known))
        work.forget_lock()
        names = tuple(model.name for model in added)
        return BundleImport(path, files, folders, names, tuple(locked), catalog, work.lock_path)

    def _catalog(self) -> Catalog:
        """The catalog in use, or an empty one if the one that was named is still to be made."""
        from mdl.catalog.model import Catalog

        paths = self.workspace.catalog_paths[0]
        return self.catalog if len(paths) > 1 or os.path.lexists(paths[0]) else Catalog()

    def render(
        self,
        name: str,
        names: Texts | None = None,
        *,
        limit_rate: str | None = None,
        window: str | None = None,
        **options: Any,
    ) -> Rendered:
        """A manifest that has a scheduler bring the models and groups ``names``, or all that is locked. ``name`` is the
        format: ``k8s``, ``slurm``, ``systemd`` or ``cron``. Nothing is contacted.

        ``window`` are the hours in which systemd and cron begin a run. ``options`` are texts: ``home``, ``program``,
        ``schedule``, ``mail_to``, ``shape``, ``image``, ``claim``, ``secret``. Raises `LockError` if
        Kubernetes is to have a model that is not locked, or nothing is named and nothing locked, `UsageError`,
        `NotFound`, `CatalogError`.
        """
        from mdl.operations.render import render
        from mdl.operations.render.plan import work_of

        work = self.workspace
        path = "" if work.has_shipped_catalog else os.pathsep.join(str(one.absolute()) for one in work.catalog_paths[0])
        variables = {name: value for name in ("HF_ENDPOINT",) if (value := work.environ.get(name))}
        options |= {"limit_rate": limit_rate, "window": window, "catalog": path, "variables": variables}
        return render(name, work_of(name, texts(names or ()), self.catalog, work.locked, **options))
