"""Bundles: models as one plain tar for machines without a network, and back into a models folder there.

from mdl.plugins import bundle

bundle.export_bundle(mdl.Client(), ["bert-fa"], "models.tar")
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mdl.cancel import CancelToken
from mdl.config import places
from mdl.listener import Listener
from mdl.plugin import Plugin, PluginCommand
from mdl.units import parse_size

if TYPE_CHECKING:
    from mdl.catalog.model import Catalog
    from mdl.catalog.targets import Targets
    from mdl.client import Client
    from mdl.plugins.bundle.manifest import BundleExport, BundleImport
    from mdl.stores import Folder

PLUGIN = Plugin(
    commands={"bundle": PluginCommand("mdl.plugins.bundle.command", "Export models for machines without a network")},
    heading="Many machines",
    habits=dict.fromkeys(
        ("save", "load"), "mdl bundle export NAME -o FILE, and mdl bundle import FILE on the other machine"
    ),
)


def export_bundle(
    client: Client,
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
    from mdl.plugins.bundle.export import export_bundle

    wanted = [targets] if isinstance(targets, str) or not isinstance(targets, Sequence) else targets
    models = list({model.name: model for target in wanted for model in client.models_here(target)}.values())
    size = parse_size(split, "--split") if isinstance(split, str) else split
    path = places.place_of(output, "-o").absolute()
    with client.context(models, on_event=on_event, cancel=cancel, online=False) as context:
        return export_bundle(models, context, client.catalogs.lock, path, split=size, force=force)


def import_bundle(
    client: Client,
    place: Folder,
    *,
    replace: bool = False,
    on_event: Listener | None = None,
    cancel: CancelToken | None = None,
) -> BundleImport:
    """Bring the models of a bundle into the models folder, and their entries into the catalog and its lock. Nothing
    is contacted.

    ``place`` is a tar, or any of its parts. Other entries of these names in catalog and lock are an `Occupied` error,
    or they are ``replace``d. Raises `NotFound`, `UsageError` for a folder,
    `ProtocolError` for a damaged bundle, `DigestMismatch`, `Unsafe`, `NoSpace` before the first byte,
    `StorageError`, `Busy`, `Cancelled`; what was published before stays.
    """
    from mdl.catalog.lock_file import update_lock
    from mdl.ops.sub_catalog import entry_facts
    from mdl.plugins.bundle.importing import changes, confirmed, import_files, with_locked
    from mdl.plugins.bundle.manifest import BundleImport
    from mdl.plugins.bundle.reading import open_bundle

    path = places.place_of(place, "FILE")
    stop = client.stopped_by(cancel)
    with open_bundle(path, lambda _done: stop.check()) as bundle:
        catalog_here = _catalog_in_use(client)
        lock_here = client.catalogs.lock
        with client.context(bundle.models, on_event=on_event, cancel=cancel, online=False, exact=True) as context:
            bundle = confirmed(bundle, context, catalog_here, lock_here)
            added, locked = changes(bundle, catalog_here, lock_here, may_replace=replace)
            files = import_files(bundle, context, may_replace=replace)
            folders = {model.name: context.store.folder(model.name) for model in bundle.models}
    if added and client.catalogs.is_shipped:
        # the catalog that is made here takes the place of the shipped one, with its entries
        added = list(bundle.models)
    for model in added:
        client.put_entry(model.name, entry_facts(model), replace=True)
    catalog = client.catalogs.paths[0]
    known = client.catalog.models
    update_lock(client.catalogs.lock_path, catalog, lambda now: with_locked(now, bundle, locked, known))
    client.catalogs.forget_lock()
    names = tuple(model.name for model in added)
    return BundleImport(path, files, folders, names, tuple(locked), catalog, client.catalogs.lock_path)


def _catalog_in_use(client: Client) -> Catalog:
    """The catalog in use, or an empty one if the one that was named is still to be made."""
    from mdl.catalog.model import Catalog

    paths = client.catalogs.paths
    return client.catalog if len(paths) > 1 or os.path.lexists(paths[0]) else Catalog()
