"""Machines: models for other machines: every node of an engine, those without a network, what a scheduler starts."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mdl import places
from mdl.cancel import CancelToken
from mdl.client.base import Targets, Texts
from mdl.client.mirrors import Mirrors
from mdl.listener import Listener
from mdl.units import parse_size, texts
from mdl.workspace import Folder

if TYPE_CHECKING:
    from mdl.catalog.model import Catalog
    from mdl.fleet.report import FleetReport
    from mdl.operations.bundle.contents import BundleExport, BundleImport
    from mdl.operations.fleet import OnNode
    from mdl.operations.render.work import Rendered


class Machines(Mirrors):
    """What a client does for other machines."""

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

        ``on`` is ``slurm``, ``ray`` or ``ssh``; ``nodes`` says how many nodes, or ``hosts`` which. All nodes of Slurm
        see the folder ``shared``; with the ``fan_out`` ``sbcast`` one of them downloads, and Slurm copies. A verify may
        ``repair``. ``program`` calls mdl there. ``on_node`` is told of each node that has answered, how many have, and
        how many were asked; ``on_note`` of what else happens.

        Raises `LockError` if the lock does not cover a model, `UsageError`, `NotFound`, `NetworkError`; `Cancelled`,
        after which nothing goes on."""
        from mdl.fleet.engine import Nodes
        from mdl.operations.fleet import fleet, given_flags, work_of
        from mdl.process import split_command

        work, stop = self.workspace, self._stopped_by(cancel)
        models = {model.name: model for name in texts(names) for model in self.catalog.find(name)}
        lock, given = work.lock, work.config.given
        home = os.fspath(given["home"]) if given.get("home") else None
        words = split_command(program, "--mdl")
        flags = [*(["--repair"] if repair else []), *given_flags(given, task)]
        wanted = work_of(task, list(models.values()), lock, flags=flags, program=words, home=home)
        where = Nodes(
            nodes, tuple(texts(hosts)), os.fspath(shared) if shared else None, fan_out, on_note, stop, work.environ
        )
        return fleet(task, wanted, lock, on, where, on_node)

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
        from mdl.operations.bundle.export import export_bundle

        wanted = [targets] if isinstance(targets, str) or not isinstance(targets, Sequence) else targets
        models = list({model.name: model for target in wanted for model in self._models_here(target)}.values())
        size = parse_size(split, "--split") if isinstance(split, str) else split
        path = places.place_of(output, "-o").absolute()
        with self._tools(models, on_event=on_event, cancel=cancel, online=False) as tools:
            return export_bundle(models, tools, self.workspace.lock, path, split=size, force=force)

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
        from mdl.operations.bundle.importing import changes, import_files, known_here, open_bundle, with_locked
        from mdl.operations.excerpt import entry_facts
        from mdl.operations.lock_file import update_lock

        path, work, stop = places.place_of(place, "FILE"), self.workspace, self._stopped_by(cancel)
        with open_bundle(path, lambda _done: stop.check()) as bundle:
            catalog_here, lock_here = self._catalog(), work.lock
            with self._tools(bundle.models, on_event=on_event, cancel=cancel, online=False, exact=True) as tools:
                bundle = bundle.confirmed_by(known_here(bundle, tools, catalog_here, lock_here))
                added, locked = changes(bundle, catalog_here, lock_here, may_replace=replace)
                files = import_files(bundle, tools, may_replace=replace)
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
        ``schedule``, ``mail_to``, ``shape``, ``image``, ``claim``, ``secret``. Without a ``program`` it is the ``mdl``
        of this PATH, for systemd only if a service can run that. Raises `LockError` if Kubernetes is to have a model
        that is not locked, or nothing is named and nothing locked, `UsageError`, `NotFound`, `CatalogError`.
        """
        from mdl.operations.render.plan import render
        from mdl.operations.render.programs import is_reachable
        from mdl.operations.render.work import USUAL_PROGRAM

        work = self.workspace
        path = "" if work.has_shipped_catalog else os.pathsep.join(str(one.absolute()) for one in work.catalog_paths[0])
        variables = {name: value for name in ("HF_ENDPOINT",) if (value := work.environ.get(name))}
        warnings: list[str] = []
        here = shutil.which("mdl", path=work.environ.get("PATH"))
        if here and not options.get("program"):
            here = os.path.abspath(here)
            if name == "cron" or (name == "systemd" and is_reachable(here)):
                options["program"] = shlex.quote(here)
            elif name == "systemd" and not is_reachable(USUAL_PROGRAM):
                options["lacks_program"] = True
                warnings.append(
                    f"the unit starts {USUAL_PROGRAM}, which is not there, because no service can run {here}; "
                    f"the unit has the line that installs mdl for all users"
                )
        options |= {"limit_rate": limit_rate, "window": window, "catalog": path, "variables": variables}
        found = render(name, texts(names or ()), self.catalog, work.lock, **options)
        return replace(found, warnings=tuple(warnings))
