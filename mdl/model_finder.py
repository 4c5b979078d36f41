"""ModelFinder: which models the words of a user mean, in the catalog, at a hub or on this disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from mdl.catalog.in_use import CatalogInUse
from mdl.errors import LockError, MdlError, NotFound, UsageError, online_hint, storage_error
from mdl.network_access import NetworkAccess
from mdl.stores import Folder, Stores, check_into
from mdl.units import Texts, texts

if TYPE_CHECKING:
    from mdl.catalog.model import Model
    from mdl.catalog.resolver import Resolver
    from mdl.catalog.targets import Targets
    from mdl.config.settings import Config
    from mdl.downloader.receipts import Receipts
    from mdl.downloader.store import Store


class ModelFinder:
    """Finds models by what a user asks for: against the catalog in use, the models folder and the hub in use."""

    def __init__(
        self,
        config: Config,
        catalogs: CatalogInUse,
        stores: Stores,
        network: NetworkAccess,
        resolver_of: Callable[[Store], Resolver],
    ) -> None:
        self._config = config
        self._catalogs = catalogs
        self._stores = stores
        self._network = network
        self._resolver_of = resolver_of

    def models(
        self,
        targets: Targets,
        *,
        into: Folder | None = None,
        revision: str | None = None,
        output: str | None = None,
        sha256: str | None = None,
    ) -> list[Model]:
        """As `mdl.Client.models`, which says what the arguments mean and what is raised."""
        from mdl.catalog.model import Catalog
        from mdl.catalog.targets import as_targets, models_of, needs_catalog
        from mdl.sources import page_hosts

        wanted = as_targets(targets)
        catalog = self._catalogs.catalog if needs_catalog(wanted) else Catalog()
        hosts = page_hosts(self._network.endpoint)
        models = models_of(wanted, catalog, hosts, revision, output=output, sha256=sha256)
        if into is not None:
            check_into(len(models))
        return models

    def one(self, target: str | Model, *, is_asked: bool = False) -> Model:
        """The model that ``target`` means; also one of which no catalog knows, if anything of it is here. If its source
        ``is_asked``, a reference means the hub in use. Raises `UsageError` for a group, and as `here`."""
        models = self.here(target, is_asked=is_asked)
        if len(models) != 1:
            members = ", ".join(model.name for model in models)
            raise UsageError("a group, not a model", item=str(target), hint=f"it holds {members}")
        return models[0]

    def here(self, target: str | Model, *, is_asked: bool = False) -> list[Model]:
        """As `models`, also for a name that no catalog knows, if anything of it is in the models folder. A reference
        means the hub that its files came from, unless the source ``is_asked``: then the hub in use. Raises `NotFound`
        with a hint that names what is near."""
        from mdl.local.from_receipts import at_its_hub, model_of

        receipts = self._stores.open().receipts
        try:
            models = self._meant(target, receipts)
        except NotFound as error:
            if receipts.may_have(str(target)):
                return [model_of(str(target), receipts.in_order(str(target)))]
            raise self._with_near(error, str(target), receipts.models(), is_asked=is_asked) from error
        if is_asked:
            return models
        return [model if model.is_of_catalog else at_its_hub(model, receipts.in_order(model.name)) for model in models]

    def _meant(self, target: str | Model, receipts: Receipts) -> list[Model]:
        """As `models`, but ``REMOTE/JOB`` is the result of a job and no repository. Raises `NotFound` for one."""
        from mdl.sources import is_reference

        if isinstance(target, str) and "/" in target and not is_reference(target):
            remote, _, job = target.partition("/")
            if remote in self._network.remotes or receipts.may_have(target):
                raise NotFound("not on this disk", item=target, hint=f"mdl fetch {remote} {job}")
        return self.models(target)

    def _with_near(
        self, error: NotFound, target: str, names_here: Collection[str], *, is_asked: bool = False
    ) -> MdlError:
        """The error with what is near, here or in the catalog. What a name could mean at a hub helps only if a source
        ``is_asked``."""
        near = get_close_matches(target, names_here, 3, 0.5)
        if not near and (is_asked or "/" in target):
            return error
        near += [name for name in self._catalogs.catalog.near(target) if name not in near]
        meant = f"did you mean {', '.join(near)}? " if near else ""
        command = self._stores.open().command("list", "--local")
        return error.but(hint=f"{meant}'{command}' shows what is on this disk")

    def verifiable(
        self, targets: Targets | None = None, *, into: Folder | None = None, revision: str | None = None
    ) -> list[Model]:
        """The models that can be verified: ``targets``, which may be folders that the catalog does not know, or
        everything that is here. Raises as `models`, and `StorageError`."""
        from mdl.catalog.model import Model
        from mdl.catalog.targets import as_targets
        from mdl.local.on_disk import cached_models

        store = self._stores.open([Model("")], into)
        try:
            os.scandir(store.own / "receipts").close()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            if targets is None or not isinstance(error, PermissionError):  # named files can be read without records
                raise storage_error(error, str(store.own)) from error
        catalog = self._catalogs.catalog
        here = {name: catalog.models.get(name) or Model(name) for name in store.receipts.models()}
        if targets is None:
            models = [model for name, model in here.items() if not catalog.is_only_extended(name)]
            if store.layout.is_by_digest:
                models += cached_models(store)
            return models
        chosen: dict[str, Model] = {}
        for target in as_targets(targets):
            if isinstance(target, str) and target in here and not revision:
                chosen[target] = here[target]
                continue
            try:
                models = self.models(target, revision=revision)
            except NotFound as error:
                raise self._with_near(error, str(target), here) from error
            chosen |= {model.name: model for model in models}
        return list(chosen.values())

    def updatable(self, targets: Targets | None, *, into: Folder | None = None) -> list[Model]:
        """As `verifiable`: the models that `outdated` and `update` look at. Those that no catalog has come from where
        their receipts say. Raises `LockError` offline, when nobody can be asked what is newest."""
        from mdl.local.from_receipts import model_to_ask

        if self._config.is_offline:
            hint = online_hint(self._config.offline_by)
            raise LockError("offline: mdl cannot ask what is newest", hint=hint)
        models = self.verifiable(targets, into=into)
        store = self._stores.open(models, into)
        resolver = self._resolver_of(store)
        receipts = store.receipts
        return [
            model_to_ask(model, receipts.in_order(model.name), receipts.wanted(model.name), resolver)
            for model in models
        ]

    def locked(self, targets: Targets | None = None) -> list[Model]:
        """The models that ``targets`` mean, or all of the catalog's own that are locked. Raises `LockError` if the lock
        does not cover them, `NotFound`, `CatalogError`, `StateError`."""
        lock = self._catalogs.lock
        models = self.models(self._catalogs.locked_names if targets is None else targets)
        if not models:
            raise self._catalogs.none_locked()
        for model in models:
            lock.pin(model, stale=self._config["frozen"])
        return models

    def filter(self, patterns: Texts | None, kind: str | None, tag: str | None) -> Callable[[Model], bool]:
        """Whether a model's name holds or matches one of ``patterns``, or is in a group of that name; and the model is
        of this ``kind``, and has this ``tag``. What is None does not narrow."""
        asked = ("*",) if patterns is None else texts(patterns)
        globs = [pattern.lower() for pattern in asked]
        groups = self._catalogs.catalog.groups
        members: set[str] = set()
        for name in asked:
            members.update(groups.get(name, ()))

        def fits(model: Model) -> bool:
            if kind and model.kind != kind:
                return False
            if tag and tag not in model.tags:
                return False
            folder = model.name.lower()
            spellings = (folder, folder.replace("--", "/"))  # as people type it, too: org/repo
            is_named = any(glob in name or fnmatchcase(name, glob) for glob in globs for name in spellings)
            return is_named or model.name in members

        return fits
