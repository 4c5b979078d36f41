"""Models, and what of them is on this disk: what a target means, what is here, what may go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdl.cancel import CancelToken
from mdl.client.base import ClientBase, Targets, Texts
from mdl.config import places
from mdl.context import Folder, check_into
from mdl.errors import MdlError, NotFound, UsageError, storage_error
from mdl.units import texts

if TYPE_CHECKING:
    from mdl.catalog.model import Model
    from mdl.downloader.store import Store
    from mdl.files import RemoteFile
    from mdl.local.clean import Waste
    from mdl.local.delete import DeleteReport
    from mdl.local.delete_plan import Deletion
    from mdl.local.inventory import Inventory
    from mdl.local.status import ModelStatus
    from mdl.ops.remote_model import RemoteModel


class Disk(ClientBase):
    """What a client tells of the models of this disk, and takes away."""

    def models(
        self,
        targets: Targets,
        *,
        into: Folder | None = None,
        revision: str | None = None,
        output: str | None = None,
        sha256: str | None = None,
    ) -> list[Model]:
        """What ``targets`` mean, each model once: names and groups of the catalog, ``org/repo``, ``hf:org/repo:Q8_0``,
        URLs, models; what follows a repository and names no other target is a file of it.

        The catalog is read only if one of them may be a name. ``revision`` replaces that of every source that has
        revisions; the one file of a URL may be called ``output`` and have a ``sha256``. Raises `NotFound`,
        `CatalogError`, and `UsageError`, also if several are to go ``into`` one folder.
        """
        from mdl.catalog.model import Catalog, Model
        from mdl.catalog.targets import models_of, needs_catalog
        from mdl.sources import page_hosts

        given: Any = targets
        wanted = [given] if isinstance(given, str | Model) or not isinstance(given, Iterable) else list(given)
        for one in wanted:
            if not isinstance(one, str | Model):
                raise TypeError(f"{one!r} is no target: give a name, a reference like 'org/repo', or a mdl.Model")
        catalog = self.catalog if needs_catalog(wanted) else Catalog()
        hosts = page_hosts(self.workspace.endpoint)
        found = models_of(wanted, catalog, hosts, revision, output=output, sha256=sha256)
        if into is not None:
            check_into(len(found))
        return found

    def verifiable(
        self, targets: Targets | None = None, *, into: Folder | None = None, revision: str | None = None
    ) -> list[Model]:
        """The models that `verify` looks at: ``targets``, which may be folders that the catalog does not know, or
        everything that is here."""
        from mdl.catalog.model import Model
        from mdl.local.inventory import cached_models

        store = self.workspace.store([Model("")], into)
        try:
            os.scandir(store.own / "receipts").close()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            if targets is None or not isinstance(error, PermissionError):  # named files can be read without records
                raise storage_error(error, str(store.own)) from error
        names = store.receipts.models()
        known = self.catalog.models
        here = {name: known.get(name) or Model(name) for name in names}
        if targets is None:
            others = cached_models(store) if store.layout.is_by_digest else ()
            return [*(one for name, one in here.items() if not self.catalog.is_only_extended(name)), *others]
        found: dict[str, Model] = {}
        for target in [targets] if isinstance(targets, str | Model) else targets:
            is_here = isinstance(target, str) and target in here and not revision
            models = [here[target]] if is_here else self.models(target, revision=revision)  # type: ignore[index]
            found.update((model.name, model) for model in models)
        return list(found.values())

    def _one(self, target: str | Model, *, is_asked: bool = False) -> Model:
        """The model that ``target`` means; also one of which no catalog knows, if anything of it is here. If its source
        ``is_asked``, a reference means the hub in use."""
        models = self.models_here(target, is_asked=is_asked)
        if len(models) != 1:
            members = ", ".join(model.name for model in models)
            raise UsageError("a group, not a model", item=str(target), hint=f"it holds {members}")
        return models[0]

    def folders(self, models: Sequence[Model], *, into: Folder | None = None) -> dict[str, Path]:
        """The folder that each model's files go to, by its name."""
        store = self.workspace.store(models, into)
        return {model.name: store.folder(model.name) for model in models}

    def repo(self, model: Model) -> str:
        """The id of what a model comes from: ``hf:org/name``, a URL without its query, ``s3://bucket/prefix``. It is ''
        if there are several."""
        from mdl.sources import page_hosts

        return model.repos(page_hosts(self.workspace.endpoint)).whole

    def statuses(
        self,
        patterns: Texts | None = None,
        *,
        kind: str | None = None,
        tag: str | None = None,
        status: Texts | None = None,
    ) -> list[tuple[Model, ModelStatus]]:
        """The catalog's own models, each with what of it is on this disk; or those of it, and of what it extends, whose
        name holds or matches one of ``patterns``. Of this ``kind``, with this ``tag``, of one of these statuses. What
        is None does not narrow, and an empty list fits nothing. Contacts nothing."""
        look = self._looker([])
        fits = self._filter(patterns, kind, tag)
        asked = None if status is None else texts(status)
        models = self.catalog.meant() if patterns is None else self.catalog.models.values()
        rows = [(model, look(model)) for model in models if fits(model)]
        return [row for row in rows if asked is None or row[1].status in asked]

    def _filter(self, patterns: Texts | None, kind: str | None, tag: str | None) -> Callable[[Model], bool]:
        asked = ("*",) if patterns is None else texts(patterns)
        globs = [text.lower() for text in asked]
        members = {name for text in asked for name in self.catalog.groups.get(text, ())}

        def fits(model: Model) -> bool:
            name = model.name.lower()
            named = model.name in members or any(glob in name or fnmatchcase(name, glob) for glob in globs)
            return named and (not kind or model.kind == kind) and (not tag or tag in model.tags)

        return fits

    def _looker(
        self, models: Sequence[Model], into: Folder | None = None, include: Texts = (), exclude: Texts = ()
    ) -> Callable[[Model], ModelStatus]:
        from mdl.local.status import model_status

        store = self.workspace.store(models, into)
        resolver = self.workspace.resolver(store, include=texts(include), exclude=texts(exclude))
        return partial(model_status, resolver=resolver, store=store)

    def status(
        self, target: str | Model, *, into: Folder | None = None, include: Texts = (), exclude: Texts = ()
    ) -> tuple[Model, ModelStatus]:
        """One model, and what of it is on this disk. Contacts nothing. Raises `UsageError` for a group."""
        model = self._one(target)
        found = self._looker([model], into, include, exclude)(model)
        return (into is None and self._local(target, model, found)) or (model, found)

    def _local(self, target: str | Model, model: Model, found: ModelStatus) -> tuple[Model, ModelStatus] | None:
        """What is on this disk of a model that no catalog has, if that is not what was ``found`` by its reference."""
        from mdl.catalog.model import Model
        from mdl.sources import is_reference

        if model.is_of_catalog or isinstance(target, Model) or (is_reference(target) and found.is_here):
            return None
        repositories = {origin.repository for origin in model.sources} - {""}
        for row in self.inventory().models:
            if row[0].name == target or {origin.repository for origin in row[0].sources} & repositories:
                return row
        return None

    def path(self, target: str | Model, *, file: bool = False) -> Path:
        """The folder on this disk in which one model is; with ``file`` the path of its one file. Raises `NotFound` if
        nothing of it is here, `UsageError` if it has several files, and as `status`."""
        from mdl.local.status import path_of_file

        _, found = self.status(target)
        if not found.files_present:
            raise NotFound("not on this disk", item=str(target), hint=f"'mdl get {target}' downloads it")
        return path_of_file(self._one(target), found) if file else found.path

    def inventory(self, patterns: Texts | None = None, *, kind: str | None = None, tag: str | None = None) -> Inventory:
        """Everything that is on this disk, whether or not the catalog has it: in the models folder and in the hub's
        cache, or only in the one that ``home`` or ``layout`` name. What narrows it is as in `statuses`. Contacts
        nothing. Raises `StateError`, `StorageError`, `CatalogError`."""
        from mdl.local.inventory import take_inventory

        work = self.workspace
        models = self.catalog.models
        fits = self._filter(patterns, kind, tag)
        return take_inventory(work.stores(), models, self._known(), work.endpoint.url, fits)

    def _known(self) -> Callable[[Store, Model], Sequence[RemoteFile]]:
        """Says which files a model has, as far as that is known in a store; none if it is not."""
        resolver_of = cache(self.workspace.resolver)

        def known(store: Store, model: Model) -> Sequence[RemoteFile]:
            with contextlib.suppress(MdlError):
                return resolver_of(store).known(model) or ()
            return ()

        return known

    def remote_model(self, target: str | Model, *, cancel: CancelToken | None = None) -> tuple[Model, RemoteModel]:
        """One model as its source has it now: files, sizes, licence, and whether access is restricted. No file is
        fetched. Raises `UsageError` for a group, `NotFound`, `AuthError`, `NetworkError`, `ProtocolError`, and
        `LockError` offline."""
        from mdl.ops.remote_model import ask

        model = self._one(target)
        with self.tools([model], cancel=cancel) as tools:
            return model, ask(model, tools)

    def locked_commits(self, model: Model) -> list[str]:
        """The commits at which the lock has a model's files; none if it does not cover it. Raises `StateError`."""
        lock = self.workspace.lock
        files = lock.models[model.name].files if lock.covers(model) else ()
        return list(dict.fromkeys(filter(None, (file.revision for file in files))))

    def models_here(self, target: str | Model, *, is_asked: bool = False) -> list[Model]:
        """As `models`, also for a name that no catalog knows, if anything of it is in the models folder. A reference
        means the hub that its files came from, unless the source ``is_asked``: then the hub in use. Raises `NotFound`,
        which says what is near."""
        from mdl.local.inventory import at_its_hub, model_of
        from mdl.sources import is_reference

        receipts = self.workspace.store([]).receipts
        try:
            if isinstance(target, str) and "/" in target and not is_reference(target):  # REMOTE/JOB, or org/repo
                remote, _, job = target.partition("/")
                if target in receipts.models() or remote in self.workspace.remotes:
                    raise NotFound("not on this disk", item=target, hint=f"mdl fetch {remote} {job}")
            models = self.models(target)
            return [
                model if is_asked or model.is_of_catalog else at_its_hub(model, receipts.in_order(model.name))
                for model in models
            ]
        except NotFound as error:
            here = receipts.models()
            if target in here:
                return [model_of(str(target), receipts.in_order(str(target)))]
            if get_close_matches(str(target), here, 1, 0.5):
                near = get_close_matches(str(target), {*here, *self.catalog.models, *self.catalog.groups}, 3, 0.5)
                hint = f"did you mean {', '.join(near)}? 'mdl list --local' shows what is on this disk"
                raise error.but(hint=hint) from error
            raise

    def delete(self, targets: Targets, *, dry_run: bool = False, force: bool = False) -> DeleteReport:
        """Take models from this disk: names and groups of the catalog, names of folders, references. With ``dry_run``
        nothing is deleted, and the report says what would be.

        What other models or programs have too stays, and so do files of a model's folder that were changed or added,
        unless ``force`` is set. A reference to a part of a repository (``org/repo:Q8_0``, a file, a revision), or to
        one URL, stands for these files alone. With the layout ``hf-cache`` a name stands for what mdl brought for it,
        and a reference for what is there, also if another program brought it. What fails for one model is in the
        report and hinders no other: `NotFound`, `Busy`, `StorageError`. Raises `Cancelled`, `CatalogError`.
        """
        from mdl.catalog.model import Model
        from mdl.local.delete import delete
        from mdl.local.delete_plan import plan

        stores = self.workspace.stores()
        known = self._known()
        deletions: list[Deletion] = []
        errors: list[MdlError] = []
        for target in dict.fromkeys([targets] if isinstance(targets, str | Model) else targets):
            try:
                for model in self.models_here(target):
                    deletions += plan(model, stores, known, force=force)
            except MdlError as error:
                named = error.on(str(target))
                if isinstance(error, NotFound) and (error.hint or "").startswith("'mdl list'"):
                    named = named.but(hint="'mdl list --local' shows what is on this disk")
                errors.append(named)
        return delete(stores[0], deletions, errors, dry_run=dry_run)

    def clean(self, *, remove: bool = False, unlisted: bool = False) -> list[tuple[Waste, bool]]:
        """What mdl has on this disk and nothing needs any more, each with whether it was removed: only with
        ``remove``, and never what `Waste.kept` says must stay. Models that the catalog does not name must stay too,
        unless ``unlisted`` is set."""
        from mdl.local import clean

        store = self.workspace.store([])
        state = None
        resolver_of = cache(self.workspace.resolver)
        with contextlib.suppress(MdlError):
            store.catalog = self.workspace.catalog_id
        with contextlib.suppress(UsageError):
            state = places.state_dir()

        def known(name: str) -> Sequence[RemoteFile] | None:
            try:
                model = self.catalog.models.get(name)
                return resolver_of(store).known(model) if model else None
            except MdlError:
                return None

        found = clean.find_waste(store, known, clean.wanted_by_jobs(known, state))
        with contextlib.suppress(UsageError):  # without a catalog nobody knows what it names
            found += clean.unlisted(store, self.catalog.models, keep=not unlisted)
        return [(waste, remove and not waste.kept and clean.remove(waste)) for waste in found]
