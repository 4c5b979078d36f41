"""Client: the settings, and every operation under them. It knows no Typer, no Rich and no signals."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypedDict, TypeGuard, Unpack

from mdl.cancel import CancelToken
from mdl.catalog.in_use import CatalogInUse
from mdl.config import places
from mdl.config.settings import Config, Settings, client_settings
from mdl.errors import Cancelled, DeadlineReached, LockError, MdlError, NotFound, UsageError, online_hint
from mdl.listener import Listener, silence
from mdl.model_finder import ModelFinder
from mdl.network_access import NetworkAccess
from mdl.redact import Secrets
from mdl.stores import Folder, Stores, check_into
from mdl.units import Texts, as_text, parse_duration, parse_rate, texts

if TYPE_CHECKING:
    from mdl.archive.base import ArchiveLimits
    from mdl.catalog.model import Catalog, Model
    from mdl.catalog.resolver import Resolver
    from mdl.catalog.targets import Targets
    from mdl.config.remotes import RemoteSettings
    from mdl.context import Context
    from mdl.downloader.hub_client import HubClient
    from mdl.downloader.store import Store
    from mdl.files import RemoteFile
    from mdl.local.clean import Waste
    from mdl.local.delete import DeleteReport
    from mdl.local.delete_plan import Deletion
    from mdl.local.import_folder import How, ImportReport
    from mdl.local.inventory import Inventory
    from mdl.local.move import MoveReport
    from mdl.local.status import ModelStatus
    from mdl.local.verify import VerifyReport
    from mdl.net.client import HttpClient
    from mdl.net.locators import Locate
    from mdl.net.network import Network
    from mdl.ops.configure import SettingValue
    from mdl.ops.edit_catalog import Entry
    from mdl.ops.export import Export
    from mdl.ops.fetch import FetchReport
    from mdl.ops.get import GetRequest
    from mdl.ops.lock import LockReport
    from mdl.ops.outdated import OutdatedReport, UpdateReport
    from mdl.ops.push import PushResult
    from mdl.ops.remote import CleanedJob, RemoteReport
    from mdl.ops.remote_model import RemoteModel
    from mdl.reports import PlanReport, Report
    from mdl.results.base import Remote
    from mdl.sources import SourceContext
    from mdl.sources.gguf import Quantisation
    from mdl.sources.hub_api import FoundRepo


class ClientOptions(Settings, total=False):
    """The settings, plus the listener, the progress bars, the cancel token and what is called with warnings."""

    on_event: Listener
    progress: bool
    cancel: CancelToken
    on_warning: Callable[[str], None]


class CallOptions(TypedDict, total=False):
    """What every operation on models takes. Files land in ``home/<model>/``, or in ``into`` itself for one target;
    ``include`` and ``exclude`` are globs on file names; ``on_event`` replaces the client's listener; ``cancel`` stops
    this one call."""

    into: Folder | None
    include: Texts
    exclude: Texts
    on_event: Listener | None
    cancel: CancelToken | None


class MdlWarning(UserWarning):
    """Something about the settings that may hurt later."""


def _warn(text: str) -> None:
    """Warn at the line that called mdl."""
    level = 1
    frame = sys._getframe()
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] in ("mdl", "functools", "contextlib"):
        level = level + 1
        frame = frame.f_back
    warnings.warn(text, MdlWarning, stacklevel=level)


_NAMED_ELSEWHERE = {
    "local_dir": "'into'",
    "cache_dir": "'home' with layout='hf-cache'",
    "to": "'home'",
    "allow_patterns": "'include'",
    "ignore_patterns": "'exclude'",
    "max_workers": "'connections'",
    "force_download": "'force'",
    "local_files_only": "'offline'",
    "token": "HF_TOKEN in the environment",
}
"""What huggingface_hub, or the command line, calls a setting."""


class Client:
    """Everything that mdl does with models, under one set of settings.

    Settings are keyword arguments (`mdl.Settings` lists them). What is not given is read as the command line reads it:
    from ``MDL_…`` variables, then ``config.toml``, then the defaults. ``on_event`` is called with every event of an
    operation, in the thread that called it (see `mdl.events`); ``progress`` draws bars on stderr instead. Once
    ``cancel`` is set, from any thread, the running operation and all later ones raise `Cancelled`; what was fetched is
    kept. ``on_warning`` is called with a sentence about what may hurt later; the default is `warnings.warn`.

    A client may be used from several threads at once. It installs no signal handler, writes nothing to stdout, and
    never ends the process.
    """

    def __init__(
        self,
        *,
        on_event: Listener | None = None,
        progress: bool = False,
        cancel: CancelToken | None = None,
        on_warning: Callable[[str], None] | None = None,
        config: Config | None = None,
        secrets: Secrets | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        """``config`` holds settings that were read already; it replaces ``settings``. ``secrets`` is given every token
        and password that may be sent, which must be kept out of everything that is shown. Raises ``TypeError`` for an
        unknown setting."""
        for name in settings:
            if name not in client_settings():
                near = get_close_matches(name, [*client_settings(), *CallOptions.__optional_keys__], 1)
                meant = _NAMED_ELSEWHERE.get(name) or (repr(near[0]) if near else "")
                raise TypeError(f"mdl has no setting {name!r}{meant and f'; did you mean {meant}?'}")
        self.config = config or Config(settings)
        self._cancel = cancel if _is_token(cancel) else CancelToken()
        self._warn = on_warning or _warn
        self._on_event = on_event
        self._progress = progress
        self.network = NetworkAccess(self.config, self._cancel, self._warn, secrets or Secrets())
        self.catalogs = CatalogInUse(self.config, self._warn, lambda host: self.network.http([host]))
        self.stores = Stores(self.config, self._cancel, lambda: self.catalogs.id)
        self._finder = ModelFinder(self.config, self.catalogs, self.stores, self.network, self.resolver)

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in self.config.given.items() if value is not None]
        return f"Client({', '.join(given)})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open between two operations."""

    @property
    def catalog(self) -> Catalog:
        """The catalog in use. Raises `CatalogError` with every mistake in it."""
        return self.catalogs.catalog

    def limit_rate(self, rate: str | float | None) -> None:
        """Keep to another rate from now on, also in an operation that runs in another thread.

        ``rate`` is in bytes a second, ``20M`` or a timetable ``08:00,2M 22:00,off``; None or ``off`` is no limit.
        Raises `UsageError`.
        """
        self.network.throttle.change(parse_rate("off" if rate is None else as_text(rate), "limit_rate"))

    def stopped_by(self, cancel: CancelToken | None) -> CancelToken:
        """What stops one operation: the client's own token, or the one that its caller gave."""
        stop = CancelToken(self._cancel)
        if _is_token(cancel):
            cancel.link(stop)
        return stop

    # What one operation works with.

    @contextlib.contextmanager
    def context(
        self,
        models: Sequence[Model],
        *,
        into: Folder | None = None,
        include: Texts | None = (),
        exclude: Texts | None = (),
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
        online: bool = True,
        exact: bool = False,
        keeps: bool = True,
        mirror: str = "",
        **unknown: object,
    ) -> Iterator[Context]:
        """What one operation on ``models`` works with; `CallOptions` are those of its caller. ``exact`` resolves to
        commits, past the lock; what sources answer is kept if it ``keeps``; a ``mirror`` is the only one asked for
        files. Window and duration limit an operation that is ``online`` and not ``exact``: one that downloads."""
        from mdl.context import Context, with_sources
        from mdl.downloader.deadline import time_limit
        from mdl.sources import page_hosts

        for name in unknown:
            where = f": give it to mdl.Client({name}=…)" if name in client_settings() else ""
            raise TypeError(f"{name!r} is no option of one call{where}")
        stop = self.stopped_by(cancel)
        lock = None if exact else self.catalogs.locked
        with contextlib.ExitStack() as stack:
            listener = self._on_event if on_event is None else on_event
            if listener is None and self._progress:
                from mdl.console import progress_bars

                listener = stack.enter_context(progress_bars())
            if listener is None:
                listener = silence
            else:
                described = self._described(models, into)
                listener = with_sources(listener, described, page_hosts(self.network.endpoint))
            if online and not exact:
                stack.enter_context(time_limit(self.network.time_limit(), stop))
            store = self.stores.open(models, into, stop)
            is_online = online and not self.config.is_offline
            open_network = partial(self.network.open, models, lock=lock, mirror=mirror, cancel=stop)
            resolver = self.resolver(
                store,
                (lambda locate: open_network(locate=locate)) if is_online else None,
                listener,
                include=() if include is None else texts(include),
                exclude=() if exclude is None else texts(exclude),
                exact=exact,
                is_strict=True,
                keeps=keeps,
                mirror=mirror,
            )
            network = resolver.network
            if network is not None:
                stack.enter_context(network)
            hub_client = None
            if self.config["via"] == "hub" and not mirror:
                hub_client = self.network.hub_client(self.network.hosts(models, lock=lock))
            stack.enter_context(_interrupts())
            context = Context(
                resolver,
                store,
                network,
                lock_wait=self.config["lock_wait"],
                hub_client=hub_client,
                local_copies=self.stores.local_copies(store),
                on_event=listener,
                max_size=self.config["max_size"],
                endpoint=self.network.endpoint.url,
                offline_by=self.config.offline_by,
            )
            try:
                yield context
            except BaseException:  # also of the listener, or of a signal handler: threads that are at work end as well
                stop.set()
                raise

    def resolver(
        self,
        store: Store,
        open_network: Callable[[Locate], Network] | None = None,
        on_event: Listener = silence,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        exact: bool = False,
        is_strict: bool = False,
        keeps: bool = True,
        mirror: str = "",
    ) -> Resolver:
        """What turns models into files; it asks the network that ``open_network`` opens. ``exact`` resolves to
        commits, past the lock; if it ``is_strict``, the settings ``locked`` and ``frozen`` hold: a model that the lock
        does not cover is then a `LockError`. What sources answer is kept for later if it ``keeps``. With a ``mirror``
        the lock must cover every model, and its files are asked of that mirror alone."""
        from mdl.catalog.resolver import Resolver
        from mdl.sources import SourceContext

        source_context = SourceContext(
            self.network.endpoint,
            store.listings,
            None,
            on_event,
            self.config.environ,
            self.network.remotes,
            keeps,
            self.config.offline_by,
            cached=partial(self.stores.cached_listing, store),
        )
        if exact:
            return Resolver(source_context, open_network, exact=True)
        lock = self.catalogs.locked
        must_cover = is_strict and self.config["locked"]
        is_frozen = is_strict and self.config["frozen"]

        def pin(model: Model, in_all_formats: bool) -> Model:
            if must_cover or is_frozen or mirror:
                is_stale = is_frozen and not must_cover
                pinned = self.catalogs.lock.pin(model, stale=is_stale, include=include, in_all_formats=in_all_formats)
            elif lock and lock.covers(model):
                if lock.leaves_out(model.name, include):
                    return lock.at_commits(model)
                pinned = lock.pin(model, in_all_formats=in_all_formats)
            else:
                return model
            mirrors = (mirror,) if mirror else self.config["mirror"]
            if lock is None or not (mirrors or model.mirrors):
                return pinned
            from mdl.catalog.mirror_layout import with_mirrors

            return with_mirrors(pinned, lock.models[model.name], mirrors, alone=bool(mirror))

        def describe(model: Model) -> Model | None:
            shipped = self.catalogs.shipped_lock
            return shipped.pin(model) if shipped.covers(model) else None

        return Resolver(source_context, open_network, include=include, exclude=exclude, pin=pin, describe=describe)

    # Which models, and what of them is on this disk.

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
        return self._finder.models(targets, into=into, revision=revision, output=output, sha256=sha256)

    def models_here(self, target: str | Model, *, is_asked: bool = False) -> list[Model]:
        """As `models`, also for a name that no catalog knows, if anything of it is in the models folder. A reference
        means the hub that its files came from, unless the source ``is_asked``: then the hub in use. Raises `NotFound`,
        which says what is near."""
        return self._finder.here(target, is_asked=is_asked)

    def verifiable(
        self, targets: Targets | None = None, *, into: Folder | None = None, revision: str | None = None
    ) -> list[Model]:
        """The models that `verify` looks at: ``targets``, which may be folders that the catalog does not know, or
        everything that is here."""
        return self._finder.verifiable(targets, into=into, revision=revision)

    def updatable(self, targets: Targets | None, *, into: Folder | None = None) -> list[Model]:
        """As `verifiable`: the models that `outdated` and `update` look at. Those that no catalog has come from where
        their receipts say. Raises `LockError` offline, when nobody can be asked what is newest."""
        return self._finder.updatable(targets, into=into)

    def labels(self, models: Sequence[Model], *, into: Folder | None = None) -> dict[str, str]:
        """The names of models as people write them, ``org/repo`` for a repository of the hub, by what mdl calls them.
        Of a model that no catalog names, the receipts say where it comes from."""
        return {model.name: model.label for model in self._described(models, into)}

    def _described(self, models: Sequence[Model], into: Folder | None) -> list[Model]:
        """The models; those that have no source with the repositories that their receipts name."""
        if all(model.has_source for model in models):
            return list(models)
        from mdl.local.from_receipts import model_of

        receipts = self.stores.open(models, into).receipts
        described: list[Model] = []
        for model in models:
            if not model.has_source:
                model = replace(model, sources=model_of(model.name, receipts.in_order(model.name)).sources)
            described.append(model)
        return described

    def locked_models(self, targets: Targets | None = None) -> list[Model]:
        """The models that ``targets`` mean, or all of the catalog's own that are locked. Raises `LockError` if the lock
        does not cover them, `NotFound`, `CatalogError`, `StateError`."""
        return self._finder.locked(targets)

    def folders(self, models: Sequence[Model], *, into: Folder | None = None) -> dict[str, Path]:
        """The folder that each model's files go to, by its name."""
        store = self.stores.open(models, into)
        return {model.name: store.folder(model.name) for model in models}

    def repo(self, model: Model) -> str:
        """The id of what a model comes from: ``hf:org/name``, a URL without its query, ``s3://bucket/prefix``. It is ''
        if there are several."""
        from mdl.sources import page_hosts

        return model.repos(page_hosts(self.network.endpoint)).whole

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
        fits = self._finder.filter(patterns, kind, tag)
        asked = None if status is None else texts(status)
        models = self.catalog.meant() if patterns is None else self.catalog.models.values()
        rows = [(model, look(model)) for model in models if fits(model)]
        return [row for row in rows if asked is None or row[1].status in asked]

    def _looker(
        self, models: Sequence[Model], into: Folder | None = None, include: Texts = (), exclude: Texts = ()
    ) -> Callable[[Model], ModelStatus]:
        from mdl.local.status import model_status

        store = self.stores.open(models, into)
        resolver = self.resolver(store, include=texts(include), exclude=texts(exclude))
        return partial(model_status, resolver=resolver, store=store)

    def status(
        self, target: str | Model, *, into: Folder | None = None, include: Texts = (), exclude: Texts = ()
    ) -> tuple[Model, ModelStatus]:
        """One model, and what of it is on this disk. Contacts nothing. Raises `UsageError` for a group."""
        model = self._finder.one(target)
        found = self._looker([model], into, include, exclude)(model)
        return (into is None and self._local(target, model, found)) or (model, found)

    def can_run_code(self, status: ModelStatus) -> dict[str, bool | None]:
        """Which files of a model can run code when they are loaded, by their paths; None for those of which nothing is
        known. Only the first bytes of what is on this disk are read, and nothing is loaded."""
        from mdl.local.status import can_run_code

        paths = [row.remote.path for row in status.rows]
        return {path.text: can_run_code(path.under(status.path), path.text) for path in paths}

    def _local(self, target: str | Model, model: Model, found: ModelStatus) -> tuple[Model, ModelStatus] | None:
        """What is on this disk of a model that no catalog has, if that is not what was ``found`` by its reference."""
        from mdl.catalog.model import COMMAND_LINE, Model
        from mdl.local.inventory import is_here

        is_reference_here = model.origin == COMMAND_LINE and found.is_here
        if model.is_of_catalog or isinstance(target, Model) or is_reference_here:
            return None
        rows: list[tuple[Model, ModelStatus]] = []
        for row in self.inventory().models:
            if row[0].name == target or any(is_here(origin, *row) for origin in model.sources):
                rows.append(row)
        return max(rows, key=lambda row: row[1].files_present, default=None)

    def path(self, target: str | Model, *, file: bool = False) -> Path:
        """The folder on this disk in which one model is; with ``file`` the path of its one file. Raises `NotFound` if
        it is not here, or not all that was asked for of it, `UsageError` if it has several files, and as `status`."""
        from mdl.local.status import path_of_file, usable

        _, found = self.status(target)
        model = self._finder.one(target)
        typed = target if isinstance(target, str) else target.target
        store = self.stores.open()
        found = usable(model, found, store, typed)
        return path_of_file(model, found, store, typed) if file else found.path

    def inventory(self, patterns: Texts | None = None, *, kind: str | None = None, tag: str | None = None) -> Inventory:
        """Everything that is on this disk, whether or not the catalog has it: in the models folder and in the hub's
        cache, or only in the one that ``home`` or ``layout`` name. What narrows it is as in `statuses`. Contacts
        nothing. Raises `StateError`, `StorageError`, `CatalogError`."""
        from mdl.local.inventory import take_inventory

        models = self.catalog.models
        fits = self._finder.filter(patterns, kind, tag)
        return take_inventory(self.stores.all(), models, self._known(), self.network.endpoint.url, fits)

    def _known(self) -> Callable[[Store, Model], Sequence[RemoteFile]]:
        """Says which files a model has, as far as that is known in a store; none if it is not."""
        resolver_of = cache(self.resolver)

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

        model = self._finder.one(target)
        with self.context([model], cancel=cancel) as context:
            return model, ask(model, context)

    def quantisations(
        self, models: Sequence[Model], **options: Unpack[CallOptions]
    ) -> dict[str, Sequence[Quantisation]]:
        """The models, by their names, of whose source only the user can say which quantisation is meant, with the
        quantisations that there are. Their sources are asked; what else is wrong with them is for `download` to say."""
        from mdl.ops.remote_model import quantisations

        with self.context(models, **options) as context:
            return quantisations(models, context)

    def locked_commits(self, model: Model) -> list[str]:
        """The commits at which the lock has a model's files; none if it does not cover it. Raises `StateError`."""
        lock = self.catalogs.lock
        files = lock.models[model.name].files if lock.covers(model) else ()
        return list(dict.fromkeys(filter(None, (file.revision for file in files))))

    def delete(self, targets: Targets, *, dry_run: bool = False, force: bool = False) -> DeleteReport:
        """Take models from this disk: names and groups of the catalog, names of folders, references. With ``dry_run``
        nothing is deleted, and the report says what would be.

        What other models or programs have too stays, and so do files of a model's folder that were changed or added,
        unless ``force`` is set. A reference to a part of a repository (``org/repo:Q8_0``, a file, a revision), or to
        one URL, means these files alone. With the layout ``hf-cache`` a name means what mdl downloaded for it,
        and a reference for what is there, also if another program downloaded it. What fails for one model is in the
        report and hinders no other: `NotFound`, `Busy`, `StorageError`. Raises `Cancelled`, `CatalogError`.
        """
        from mdl.catalog.targets import as_targets
        from mdl.local.delete import delete
        from mdl.local.delete_plan import plan

        stores = self.stores.all()
        known = self._known()
        deletions: list[Deletion] = []
        errors: list[MdlError] = []
        for target in dict.fromkeys(as_targets(targets)):
            typed = target if isinstance(target, str) else target.label
            try:
                models = self.models_here(target)
            except MdlError as error:
                named = error.on(typed)
                if isinstance(error, NotFound) and (error.hint or "").startswith("'mdl list'"):
                    named = named.but(hint=f"'{stores[0].command('list', '--local')}' shows what is on this disk")
                errors.append(named)
                continue
            for model in models:
                try:
                    deletions += plan(model, stores, known, force=force)
                except MdlError as error:
                    errors.append(error.on(typed if len(models) == 1 else model.label))
        return delete(stores[0], deletions, errors, dry_run=dry_run)

    def clean(self, *, remove: bool = False) -> list[tuple[Waste, bool]]:
        """What mdl has on this disk and nothing needs any more, each with whether it was removed: only with
        ``remove``, and never what `Waste.kept` says must stay. Models stay, named by a catalog or not: `delete` takes
        them."""
        from mdl.local import clean

        store = self.stores.open()
        state = None
        resolver_of = cache(self.resolver)
        with contextlib.suppress(MdlError):
            store.catalog = self.catalogs.id
        with contextlib.suppress(UsageError):
            state = places.state_dir()

        def known(name: str) -> Sequence[RemoteFile] | None:
            try:
                model = self.catalog.models.get(name)
                return resolver_of(store).known(model, in_all_formats=True) if model else None
            except MdlError:
                return None

        found = clean.find_waste(store, known, clean.wanted_by_jobs(known, state))
        return [(waste, remove and not waste.kept and clean.remove(waste)) for waste in found]

    def move(
        self,
        targets: Targets,
        to: Folder,
        *,
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
    ) -> MoveReport:
        """Move models to the models folder ``to``, which may be on another disk: files, receipts and unfinished
        downloads. ``targets`` are as in `delete`. Files that mdl did not write stay where they are.

        Bytes that are copied to another file system are verified, and the old files go when all of a model is in the
        new folder. What fails for one model is in the report and hinders no other: `NotFound`, `Busy`, `Occupied`,
        `DigestMismatch`, `StorageError`. Raises `NoSpace` before anything is moved, `UsageError` for the layout of the
        hub's cache and for the folder in which they are, `Cancelled`, `CatalogError`.
        """
        from mdl.catalog.model import Model
        from mdl.catalog.targets import as_targets
        from mdl.downloader.store import Store
        from mdl.local.move import MoveRequest, check_target, move

        if self.stores.is_cache:
            hint = "move the complete cache and set HF_HUB_CACHE, or get the model into a plain models folder"
            raise UsageError("models of Hugging Face's cache cannot be moved one by one", item="--layout", hint=hint)
        new_store = Store(places.place_of(to, "--to"))
        models: dict[str, Model] = {}
        absent: list[NotFound] = []
        for target in as_targets(targets):
            try:
                for model in self.models_here(target):
                    models[model.name] = model
            except NotFound as error:
                if isinstance(target, str) and new_store.receipts.may_have(target):
                    models[target] = Model(target)  # the same command moved it before
                else:
                    absent.append(error.on(str(target)))
        check_target(self.stores.open(), new_store, models)
        request = MoveRequest(tuple(models.values()), new_store.root, tuple(absent))
        with self.context(request.models, online=False, on_event=on_event, cancel=cancel) as context:
            return move(context, request, copies_in=self.stores.local_copies, known=self._known())

    def push(
        self,
        source: Folder,
        repository: str,
        *,
        public: bool = False,
        dry_run: bool = False,
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
    ) -> PushResult:
        """Upload a trained model, a folder or an archive of `mdl.pack`, to a ``repository`` of the hub
        (``hf:org/name@branch``) with huggingface_hub, in one commit.

        The rules of `mdl.pack` say which files go: what holds a secret stays here. A repository that is not there is
        made, and only you and your organisation may read it unless it is to be ``public``. What was uploaded before is
        not sent again, and a model card that is there stays. A ``dry_run`` contacts nothing. Raises as
        `mdl.plan_pack`, `UsageError`, `AuthError`, `NotFound`, `NetworkError`, `LockError` offline, `Cancelled`.
        """
        from mdl.ops.push import UPLOAD_HOSTS, PushRequest, check_repository, push

        [model] = self._finder.models([repository])
        origin = check_repository(model.sources[0] if len(model.sources) == 1 else None, repository)
        request = PushRequest(places.place_of(source, "SOURCE"), origin, public, dry_run)

        def connect() -> HubClient:
            if self.config.is_offline:
                raise LockError("offline: nothing can be uploaded", hint=online_hint(self.config.offline_by))
            return self.network.hub_client(self.network.hosts(more=UPLOAD_HOSTS))

        listener = on_event or self._on_event or silence
        return push(request, self.network.endpoint, connect, listener, self.stopped_by(cancel))

    # Downloads.

    def get(
        self,
        target: str | Model,
        *,
        revision: str | None = None,
        force: bool = False,
        **options: Unpack[CallOptions],
    ) -> Path:
        """As `download`, of one model: returns its folder, or the path of its file if exactly one was asked for, and
        raises the error if anything failed."""
        model = self._finder.one(target, is_asked=not self.config.is_offline)
        report = self.download([model], revision=revision, force=force, **options)
        report.raise_for_errors()
        [brought] = report.models
        return brought.file or brought.path

    def download(
        self,
        targets: Targets,
        *,
        revision: str | None = None,
        force: bool = False,
        **options: Unpack[CallOptions],
    ) -> Report:
        """Download every file of ``targets``, verify it, and report how it went. What is here is kept.

        ``revision`` replaces that of every source that has revisions; ``force`` downloads all again and replaces files
        that are not mdl's; for the other options see `CallOptions`. What fails for one file hinders no other and is in
        the report: see `Report.error` and `Report.raise_for_errors`. Raises `NotFound`, `UsageError` and `CatalogError`
        for targets, `NoSpace` before the first byte if not all of it fits, `Busy` if another process is at work on
        the same models for too long, `Deadline` outside of ``window`` or after ``max_duration``, and `Cancelled`, with
        the report so far as ``so_far``.
        """
        from mdl.ops.get import GetRequest, get

        models = self.models(targets, revision=revision)
        with self.context(models, **options) as context:
            report = get(context, GetRequest(tuple(models), force))
        if not self.config["frozen"]:
            self.catalogs.remember_first(models, report)
        return report

    def plan(
        self, targets: Targets, *, revision: str | None = None, force: bool = False, **options: Unpack[CallOptions]
    ) -> PlanReport:
        """What `download` would do, and how much room it needs. Sources are asked; only their answers
        are kept."""
        from mdl.ops.get import GetRequest, plan

        models = self.models(targets, revision=revision)
        with self.context(models, **options) as context:
            return plan(context, GetRequest(tuple(models), force))

    def verify(
        self,
        targets: Targets | None = None,
        *,
        repair: bool = False,
        strict: bool = False,
        revision: str | None = None,
        force: bool = False,
        **options: Unpack[CallOptions],
    ) -> VerifyReport:
        """Read what is on this disk again and compare it with its digests: ``targets``, or everything that is here.

        ``repair`` fetches what is wrong, and only that; with ``force`` also files that were changed after mdl wrote
        them, and files that are not mdl's. With ``strict`` a changed file, and one without a published digest, count as
        corrupt. What is wrong is in the report. Raises as `download`.
        """
        from mdl.downloader.deadline import time_limit
        from mdl.local.verify import VerifyRequest, verify
        from mdl.net.allowlist import host_of

        models = self.verifiable(targets, into=options.get("into"), revision=revision)
        with self.context(models, **options, online=False) as context, contextlib.ExitStack() as stack:

            def connect(urls: Sequence[str]) -> HttpClient | None:
                """Only a repair needs the network, and is held to window and duration."""
                stack.enter_context(time_limit(self.network.time_limit(), context.store.cancel))
                if self.config.is_offline:
                    return None
                located = self._located(urls)
                open_network = partial(
                    self.network.open,
                    [*models, *located],
                    lock=self.catalogs.locked,
                    more=[host_of(url) for url in urls],
                    cancel=context.store.cancel,
                )
                network = self.resolver(context.store, lambda locate: open_network(locate=locate)).network
                return network.http if network is not None else None

            @cache
            def resolver_to_ask() -> Resolver:
                cancel = context.store.cancel
                open_network = partial(self.network.open, models, lock=self.catalogs.locked, cancel=cancel)
                resolver = self.resolver(context.store, lambda locate: open_network(locate=locate), context.on_event)
                if resolver.network is not None:
                    stack.enter_context(resolver.network)
                return resolver

            def ask(model: Model) -> Sequence[RemoteFile]:
                """What the hub has of a model."""
                return resolver_to_ask().resolve_each(model).files

            request = VerifyRequest(tuple(models), force, strict)
            others = [] if options.get("into") else self.stores.all()[1:]
            report = verify(
                context,
                request,
                connect=connect if repair else None,
                ask=None if self.config.is_offline else ask,
                others=others,
            )
            return replace(report, labels=self.labels(models, into=options.get("into")))

    @staticmethod
    def _located(urls: Iterable[str]) -> list[Model]:
        """What the files of the URLs come from that are no URLs of http: buckets, and jobs of remotes."""
        from mdl.catalog.model import Model
        from mdl.results.base import job_of_url
        from mdl.sources import parse

        jobs = {job_of_url(url) for url in urls if url.startswith("job://")}
        objects = {parse(url, ()) for url in urls if url.startswith("s3://")}
        return [Model(str(origin), sources=(origin,)) for origin in (*jobs, *objects)]

    def outdated(
        self,
        targets: Targets | None = None,
        *,
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
    ) -> OutdatedReport:
        """Compare what is here, and what is locked, with what is newest at the sources: of ``targets``, or of every
        model that is here or locked. Nothing is written.

        What cannot be asked is in the report. Raises `NotFound`, `CatalogError`, `StateError`, `Cancelled`, and
        `LockError` offline.
        """
        from mdl.ops.outdated import outdated

        lock = self.catalogs.lock
        models = self.updatable(targets)
        if targets is None:
            here = {model.name for model in models}
            models += [one for one in self.catalog.meant() if one.name in lock.models and one.name not in here]
        with self.context(models, on_event=on_event, cancel=cancel, exact=True, keeps=False) as context:
            return outdated(context, models, lock)

    def update(self, targets: Targets, *, force: bool = False, **options: Unpack[CallOptions]) -> UpdateReport:
        """Download the newest version of ``targets``: resolve them again, as `lock` with ``upgrade`` if there is a
        lock, then fetch what changed, as `download`.

        A model whose commit the catalog names stays there. If this is killed after the lock was written, the next
        `download` gets the rest. What fails is in the report. Raises as `download`; `LockError` offline, and
        `UsageError` with the settings ``locked`` and ``frozen``.
        """
        from mdl.ops.outdated import UpdateRequest, update

        into = options.get("into")
        request = UpdateRequest(tuple(self._to_update(targets, into)), force)
        store = self.stores.open(request.models, into)

        def lock_again(names: Sequence[str]) -> Mapping[str, MdlError]:
            if self.catalogs.locked is None or not names:
                return {}
            on_event = options.get("on_event")
            return self.lock(names, upgrade=names, on_event=on_event, cancel=options.get("cancel")).failures

        def download(request: GetRequest) -> Report:
            return self.download(request.models, force=request.force, **options)

        return update(store, self.resolver(store), request, lock=lock_again, download=download)

    def plan_update(self, targets: Targets, *, force: bool = False, **options: Unpack[CallOptions]) -> PlanReport:
        """What `update` would fetch; nothing is written, not even the lock. Raises as `plan` and `update`."""
        from mdl.ops.get import GetRequest, plan

        models = self._to_update(targets, options.get("into"))
        with self.context(models, **options, exact=True, keeps=False) as context:
            return plan(context, GetRequest(tuple(models), force))

    def _to_update(self, targets: Targets, into: Folder | None) -> list[Model]:
        """Raises as `update` does before it begins."""
        for name in ("locked", "frozen"):
            if self.config[name]:
                hint = f"unset it (--{name}, MDL_{name.upper()}); 'mdl get' downloads what is locked"
                raise UsageError("an update goes past the lock", item=name, hint=hint)
        models = self.updatable(targets, into=into)
        for model in models:
            if not (model.has_source or model.gone):
                hint = "'mdl list' shows where models come from"
                raise NotFound(
                    "nothing says where it came from: it was imported or trained", item=model.name, hint=hint
                )
        return models

    def import_folder(
        self,
        folder: Folder,
        *,
        name: str | None = None,
        source: str | None = None,
        how: How = "auto",
        dry_run: bool = False,
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
    ) -> ImportReport:
        """Adopt what another program has in ``folder``: ComfyUI's models, a ``--local-dir`` of the hub's client,
        Ollama's store, or any folder, which is one model.

        Every file is hashed. What the catalog or the lock has becomes a file of that model; the rest becomes models of
        their own, or the one model ``name``. With ``source``, a repository of the hub (``hf:org/repo@revision``), they
        are compared with the files of this repository, and recorded as if mdl had fetched them from there: at this
        revision, else at the commit that the folder itself names, else at the newest one. Only this contacts the hub.

        ``how`` the bytes come: ``auto`` shares them with the original if the file system can, else copies; ``link``,
        ``copy``, or ``move``, which takes the original away. With ``dry_run`` nothing is hashed or written. What fails
        is in the report, `DigestMismatch` for a file that the repository has with other bytes. Raises as
        `import_folder` of `mdl.local.import_folder` does, `UsageError` for the layout of the hub's cache, and with a
        ``source`` `NotFound`, `AuthError`, `NetworkError`, and `LockError` offline.
        """
        from mdl.local.import_folder import import_folder
        from mdl.local.import_match import CatalogFiles, repository_files

        if self.stores.is_cache:
            raise UsageError("an import goes into a plain models folder", item="layout", hint="unset MDL_LAYOUT")
        place = Path(os.path.realpath(places.place_of(folder, "DIR")))
        catalogs = self.catalogs.paths
        if source is not None:
            if name is not None:
                raise UsageError("--as and --from do not go together", item="--as", hint="leave out one of the two")
            model = self._finder.one(source, is_asked=True)
            with self.context([model], on_event=on_event, cancel=cancel, exact=True) as context:
                find_known = partial(repository_files, model, context.resolver)
                report = import_folder(place, context, find_known, how=how, dry_run=dry_run, catalogs=catalogs)
                return replace(report, labels={model.name: model.label})
        models = list(self.catalog.models.values())
        with self.context(models, on_event=on_event, cancel=cancel, online=False) as context:
            known = CatalogFiles(models, context.resolver, name)
            return import_folder(place, context, lambda _commits: known, how=how, dry_run=dry_run, catalogs=catalogs)

    # The catalog and its lock.

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
        from mdl.ops.lock import LockRequest, lock

        asked = None if names is None else tuple(texts(names))
        catalog = self.catalogs.catalog_as_kept if check else self.catalog
        request = LockRequest(catalog, self.catalogs.lock_path, asked, tuple(texts(upgrade)), check)
        models = [] if check else list(catalog.models.values())
        with self.context(models, on_event=on_event, cancel=cancel, exact=True, online=not check) as context:
            report = lock(context, request)
        self.catalogs.forget_lock()
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
        from mdl.sources.hub_api import search

        stop = self.stopped_by(cancel)
        with contextlib.ExitStack() as stack:
            online = not self.config.is_offline
            network = stack.enter_context(self.network.open(cancel=stop)) if online else None
            return search(self.network.source_context(network), text, kind=kind, sort=sort, limit=limit)

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
        lock = self.catalogs.lock
        names = texts(names) if names is not None else self.catalogs.locked_names
        if not names:
            raise self.catalogs.none_locked()
        models = {model.name: lock.pin(model) for name in names for model in self.catalog.find(name)}
        resolver = self.resolver(self.stores.open())
        return export({name: resolver.known(model) or () for name, model in models.items()}, list_format)

    def init(self, place: Folder | None = None) -> Path:
        """Begin a catalog of the user's own, with nothing in it; returns its path. ``place`` is
        a folder or a file ``….toml``; by default it is ``catalog.toml`` in the user config folder. Raises `Occupied`
        if there is something."""
        from mdl.ops.edit_catalog import begin_catalog

        path = places.config_dir() if place is None else places.place_of(place, "PLACE").absolute()
        path = path if path.suffix == ".toml" and not path.is_dir() else path / places.CATALOG_NAME
        begin_catalog(path)
        self.catalogs.forget()
        return path

    def add(self, name: str, source: str | Sequence[str], *, groups: Texts = (), **facts: str | Sequence[str]) -> Path:
        """Put a model into the catalog, whose comments stay, and into ``groups`` of it; returns the catalog's path. A
        user who has no catalog gets one, as by `init`. ``source`` is what `models` takes, but no name. ``facts`` are
        further keys of the entry. Raises `UsageError` if it is no source, the name is taken or the catalog is not the
        user's own, `CatalogError`."""
        from mdl.catalog.targets import read_word
        from mdl.sources import HUB_HOSTS, parse

        sources = [str(read_word(reference, HUB_HOSTS) or parse(reference)) for reference in texts(source)]
        entry = {key: facts[key] for key in facts if key in ("title", "kind", "license", "tags")}
        entry["source"] = sources[0] if len(sources) == 1 else sources
        return self.put_entry(name, {**entry, **facts}, texts(groups))

    def put_entry(self, name: str, entry: Entry, groups: Sequence[str] = (), *, replace: bool = False) -> Path:
        """Put an entry into the user's catalog, as `add` does, or in the place of the one of this name."""
        from mdl.ops.edit_catalog import BEGINNING, EMPTY, add_model

        has_none = self.catalogs.is_shipped
        path = add_model(
            [places.config_dir() / places.CATALOG_NAME] if has_none else self.catalogs.paths,
            name,
            entry,
            groups,
            replace=replace,
            beginning=BEGINNING if has_none else EMPTY,
            fetch=self.catalogs.web_base,
        )
        self.catalogs.forget()
        return path

    def remove(self, name: str) -> Path:
        """Take a model out of the catalog; its files stay on the disk. Returns the catalog's path. Raises `NotFound`,
        `UsageError`, `CatalogError`."""
        from mdl.ops.edit_catalog import remove_model

        path = remove_model(self.catalogs.paths, name, fetch=self.catalogs.web_base)
        self.catalogs.forget()
        return path

    # Remotes: where trained results are, and how they come here.

    @property
    def remotes(self) -> Mapping[str, RemoteSettings]:
        """The remotes of ``config.toml``, by their names. Contacts nothing. Raises `UsageError` with every mistake in
        them."""
        return self.network.remotes

    @contextlib.contextmanager
    def _asking(self, name: str, cancel: CancelToken | None = None) -> Iterator[SourceContext]:
        """What it takes to ask the remote of that name. Every error names the remote. Raises `UsageError`,
        `LockError`."""
        from mdl.catalog.model import Model
        from mdl.config.remotes import remote_named
        from mdl.results.base import JobOrigin, of_remote

        stop = self.stopped_by(cancel)
        remote_named(name, self.network.remotes)
        if self.config.is_offline:
            raise LockError("offline: no remote can be asked", item=name, hint=online_hint(self.config.offline_by))
        model = Model(name, sources=(JobOrigin(name, "any"),))
        try:
            with self.network.open([model], cancel=stop) as network:
                yield self.network.source_context(network)
        except MdlError as error:
            raise of_remote(error, name) from error

    @contextlib.contextmanager
    def remote(self, name: str, *, cancel: CancelToken | None = None) -> Iterator[Remote]:
        """The remote of that name (``[remotes.NAME]``), to ask it about its jobs. Raises `UsageError`, `LockError`."""
        from mdl.results.base import open_remote

        with self._asking(name, cancel) as context:
            yield open_remote(self.remotes[name], context)

    def check_remote(
        self, name: str, *, metrics: Folder | None = None, cancel: CancelToken | None = None
    ) -> RemoteReport:
        """Whether a remote can be reached and used, part by part; what fails is in the report. The file ``metrics`` is
        replaced by what was found, with the numbers of workers and jobs, as Prometheus text. Raises `UsageError`,
        `LockError`."""
        from mdl.ops.remote import check, write_metrics

        with self.remote(name, cancel=cancel) as remote:
            report = check(name, remote, self.remotes[name].kind, measure=metrics is not None)
        if metrics is not None:
            try:
                write_metrics(Path(metrics), report, now=time.time())
            except OSError as error:
                self._warn(f"the metrics file {metrics}: {error.strerror}")
        return report

    def clean_remote(
        self,
        name: str,
        *,
        older_than: float | str,
        remove: bool = False,
        on_found: Callable[[Sequence[CleanedJob]], None] = lambda _found: None,
        cancel: CancelToken | None = None,
    ) -> Iterator[CleanedJob]:
        """Every job in the bucket of a remote, and what is or would be done with it: those that are over, and by their
        own record since ``older_than`` seconds (or "30d"), are deleted, results first, but only with ``remove``.

        ``on_found`` is called with what was found, before the first is deleted; nothing else is deleted then. A job
        that runs, whose record has no time or cannot be read, that changes meanwhile, and results without a record are
        kept. One process cleans a bucket at a time. Raises `Busy`, `UsageError` for a remote without a bucket, and as
        `Remote`.
        """
        from mdl.config.remotes import remote_named
        from mdl.ops.remote import clean

        settings = remote_named(name, self.remotes)
        bucket = settings if settings.kind == "bucket" else self.remotes.get(settings.get("bucket"))
        if bucket is None:
            hint = f"name its bucket in [remotes.{name}] of config.toml"
            raise UsageError("only a bucket can be cleaned, and this remote names none", item=name, hint=hint)
        seconds = parse_duration(as_text(older_than), "--older-than", least=0)
        with self._asking(name, cancel) as context:
            yield from clean(bucket, context, older_than=seconds, remove=remove, on_found=on_found)

    def results(
        self,
        remote: str,
        jobs: Texts,
        *,
        checkpoint: str = "",
        logs: bool = False,
        include: Texts = (),
        exclude: Texts = (),
        everything: bool = False,
    ) -> list[Model]:
        """The results of ``jobs`` of a remote as models, which are called ``REMOTE/JOB`` (``REMOTE/JOB_CHECKPOINT``):
        to `fetch`, `plan` or `verify`. ``checkpoint`` is a name, a step, ``latest`` or ``best``; ``logs`` are the logs
        alone. By default pictures, logs, litter and, of a folder in a bucket, what is no part of the model are left
        out; ``include`` picks among all but the litter, and ``everything`` takes all. Contacts nothing. Raises
        `UsageError` for a remote or an id that cannot be one.
        """
        from mdl.catalog.model import Model
        from mdl.config.remotes import remote_named
        from mdl.results.base import JobOrigin, check_checkpoint, check_job_id

        name = remote_named(remote, self.network.remotes).name
        checkpoint = checkpoint and check_checkpoint(checkpoint)
        model = Model("", include=texts(include), exclude=texts(exclude))
        is_all = everything or bool(model.include)
        origins = [JobOrigin(name, check_job_id(job), checkpoint, logs, is_all, everything) for job in texts(jobs)]
        found = {one.folder: replace(model, name=one.folder, sources=(one,)) for one in origins}
        return list(found.values())

    def fetch(
        self,
        models: Sequence[Model],
        *,
        wait: float | str | bool = False,
        allow_running: bool = False,
        keep_archive: bool = False,
        limits: ArchiveLimits | None = None,
        force: bool = False,
        release: Folder | None = None,
        keep: int = 3,
        check: str | Sequence[str] | None = None,
        into: Folder | None = None,
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
    ) -> FetchReport:
        """Download the `results` of jobs, verified as far as that is possible, and report how it went.

        ``wait`` for jobs that still run, in seconds (in all) or as "2h", or with True until they end; ``allow_running``
        takes what is there of them. A zip, tar or tar.gz is checked and unpacked; ``keep_archive`` keeps it
        beside its folder, ``limits`` says how much it may hold. The results of one job may be put into service in the
        folder ``release``, as `mdl.release` does with ``keep`` and ``check``: what was fetched of it, without logs.
        What fails is in the report, and for one job hinders no other: `NotFinished`, `NotFound`, `ProtocolError`, what
        `download` has there, and what `mdl.release` raises. Raises as `download`.
        """
        from mdl.archive.base import ArchiveLimits
        from mdl.ops.fetch import fetch
        from mdl.ops.job_files import FetchRequest, Service

        if into is not None or release is not None:
            check_into(len(models), "--into" if into is not None else "--release")
        seconds = math.inf if wait is True else parse_duration(as_text(wait or 0), "wait", least=0)
        service = Service(places.place_of(release, "--release"), keep, check) if release is not None else None
        request = FetchRequest(
            tuple(models), seconds, allow_running, keep_archive, force, limits or ArchiveLimits(), service
        )
        with self.context(models, into=into, on_event=on_event, cancel=cancel) as context:
            return fetch(context, request)

    def plan_fetch(
        self,
        models: Sequence[Model],
        *,
        allow_running: bool = False,
        force: bool = False,
        into: Folder | None = None,
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
    ) -> PlanReport:
        """What `fetch` would do now, with the arguments of that: nothing is written, and no job is waited for. The zip
        of a training server is one row of a size that is not known, unless what it holds is here. Raises as `plan`."""
        from mdl.ops.fetch import plan_fetch
        from mdl.ops.job_files import FetchRequest

        request = FetchRequest(tuple(models), allow_running=allow_running, force=force)
        with self.context(models, into=into, on_event=on_event, cancel=cancel) as context:
            return plan_fetch(context, request)

    # Settings.

    def settings(self) -> list[SettingValue]:
        """Every setting in effect, with where it is from, and what is wrong with it. Raises `UsageError` if
        ``config.toml`` cannot be read."""
        from mdl.ops.configure import effective

        return effective(self.config, lambda: self.catalogs.found)

    def configure(self, name: str, value: Texts | None) -> Path:
        """Write one setting into ``config.toml``, or with None take it out; its comments stay. Returns the path.
        ``value`` is as a person writes it. This client keeps the settings that it has. Raises `UsageError` for an
        unknown setting and for a wrong value, `Unsafe` if the file is a link out of its folder, `Busy`."""
        from mdl.ops.configure import set_value, unset

        path = places.config_file()
        if value is None:
            unset(path, name)
        else:
            set_value(path, name, texts(value))
        return path


def _is_token(cancel: CancelToken | None) -> TypeGuard[CancelToken]:
    """Whether a token was given. Raises ``TypeError`` for anything else."""
    if not isinstance(cancel, CancelToken | None):
        raise TypeError(f"cancel is a mdl.CancelToken, not {cancel!r}")
    return cancel is not None


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Once what was fetched is safe, a Ctrl-C that Python made a ``KeyboardInterrupt`` is one again, and a time limit
    is an ordinary error."""
    try:
        yield
    except DeadlineReached as stopped:
        raise stopped.as_deadline() from stopped
    except Cancelled as stopped:
        if isinstance(stopped.__cause__, KeyboardInterrupt):
            raise KeyboardInterrupt from None  # one traceback, of what was interrupted
        raise
