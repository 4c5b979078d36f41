"""Client: settings become objects, and operations run on them. The one composition root: no Typer, no Rich, no signals.

What an operation needs is opened, and imported, when it is first used.
"""

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
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict, Unpack

from mdl import places
from mdl.cancel import CancelToken
from mdl.config import Config, Settings, client_settings
from mdl.errors import (
    Cancelled,
    DeadlineReached,
    LockError,
    MdlError,
    NotFound,
    UsageError,
    storage_error,
)
from mdl.listener import Listener, silence
from mdl.units import parse_duration, parse_rate, texts
from mdl.workspace import Folder, Workspace, check_into

if TYPE_CHECKING:
    from mdl.archive.directory import ArchiveLimits
    from mdl.catalog.model import Catalog, Model
    from mdl.engine.status import ModelStatus
    from mdl.engine.store import Store
    from mdl.files import RemoteFile
    from mdl.http.client import HttpClient
    from mdl.operations.clean import Waste
    from mdl.operations.configure import SettingValue
    from mdl.operations.delete import DeleteReport, Deletion
    from mdl.operations.export import Export
    from mdl.operations.fetch import FetchReport
    from mdl.operations.import_folder import How
    from mdl.operations.import_report import ImportReport
    from mdl.operations.inventory import Inventory
    from mdl.operations.lock import LockReport
    from mdl.operations.outdated import OutdatedReport
    from mdl.operations.remote import CleanedJob, RemoteReport
    from mdl.operations.remote_model import RemoteModel
    from mdl.operations.tools import Tools
    from mdl.operations.update import UpdateReport
    from mdl.operations.verify import VerifyReport
    from mdl.redact import Secrets
    from mdl.remote_tables import RemoteSettings
    from mdl.remotes import Remote
    from mdl.reports import PlanReport, Report
    from mdl.sources import Context

Targets: TypeAlias = "str | Model | Sequence[str | Model]"
"""Names and groups of the catalog, ``hf:org/repo[@revision][/path]``, pages of the hub, any URL, or models."""


Texts: TypeAlias = "str | Iterable[str]"
"""One text, or several."""


class ClientOptions(Settings, total=False):
    """The settings, plus the listener, the progress bars, the cancel token and who is told of warnings."""

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
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] in ("mdl", "functools", "contextlib"):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, MdlWarning, stacklevel=level)


class Client:
    """Everything that mdl does with models, under one set of settings.

    Settings are keyword arguments (`mdl.Settings` lists them). What is not given is read as the command line reads it:
    from ``MDL_…`` variables, then ``config.toml``, then the defaults. ``on_event`` is called with every event of an
    operation, in the thread that called it (see `mdl.events`); ``progress`` draws bars on stderr instead. Once
    ``cancel`` is set, from any thread, the running operation and all later ones raise `Cancelled`; what was fetched is
    kept. ``on_warning`` is told what may hurt later, in words; the default is `warnings.warn`.

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
        """``config`` holds settings that were read already; it replaces ``settings``. ``secrets`` is told the token,
        which must be kept out of everything that is shown. Raises ``TypeError`` for an unknown setting."""
        for name in settings:
            if name not in client_settings():
                near = get_close_matches(name, client_settings(), 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"mdl has no setting {name!r}{hint}")
        self.workspace = Workspace(config or Config(settings), cancel or CancelToken(), on_warning or _warn, secrets)
        self._on_event, self._progress = on_event, progress

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open between two operations."""

    @property
    def catalog(self) -> Catalog:
        """The catalog in use. Raises `CatalogError` with every mistake in it."""
        return self.workspace.catalog

    def limit_rate(self, rate: str) -> None:
        """Keep to another rate from now on, also in an operation that runs in another thread.

        ``rate`` is in bytes a second, ``20M`` or a timetable ``08:00,2M 22:00,off``; ``off`` is no limit. Raises
        `UsageError`.
        """
        self.workspace.throttle.change(parse_rate(rate, "limit_rate"))

    @contextlib.contextmanager
    def _tools(
        self,
        models: Sequence[Model],
        *,
        into: Folder | None = None,
        include: Texts = (),
        exclude: Texts = (),
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
        online: bool = True,
        exact: bool = False,
        keeps: bool = True,
    ) -> Iterator[Tools]:
        """What one operation works with; `CallOptions` are those of its caller. ``exact`` resolves to commits, past the
        lock; what sources answer is kept if it ``keeps``. Window and duration limit an operation that is ``online`` and
        not ``exact``: one that downloads."""
        from mdl.deadline import time_limit
        from mdl.operations.tools import Tools, with_sources
        from mdl.sources import page_hosts

        work, stop = self.workspace, CancelToken(self.workspace.cancel)
        if cancel:
            cancel.link(stop)
        with contextlib.ExitStack() as stack:
            listener = self._on_event if on_event is None else on_event
            if listener is None and self._progress:
                from mdl.console import progress_bars

                listener = stack.enter_context(progress_bars())
            listener = silence if listener is None else with_sources(listener, models, page_hosts(work.endpoint))
            if online and not exact:
                stack.enter_context(time_limit(work.time_limit(), stop))
            store, network = work.store(models, into, stop), None
            if online and not work.config.is_offline:
                network = stack.enter_context(work.network(models, stop, with_lock=not exact))
                listener = stack.enter_context(work.xet(network, listener))
            resolver = work.resolver(
                store, network, listener, texts(include), texts(exclude), exact=exact, is_strict=True, keeps=keeps
            )
            stack.enter_context(_interrupts())
            wait, hub_client, copies = work.config["lock_wait"], work.hub_client(models), work.local_copies(store)
            yield Tools(resolver, store, network, wait, hub_client, copies, listener, work.config["max_size"])

    # Settings.

    def settings(self) -> list[SettingValue]:
        """Every setting in effect, with where it is from, and what is wrong with it. Raises `UsageError` if
        ``config.toml`` cannot be read."""
        from mdl.operations.configure import effective

        return effective(self.workspace.config, lambda: self.workspace.catalog_paths)

    def configure(self, name: str, value: Texts | None) -> Path:
        """Write one setting into ``config.toml``, or with None take it out; its comments stay. Returns the path.
        ``value`` is as a person writes it. This client keeps the settings that it has. Raises `UsageError` for an
        unknown setting and for a wrong value, `Unsafe` if the file is a link out of its folder, `Busy`."""
        from mdl.operations.configure import set_value, unset

        path = places.config_file()
        if value is None:
            unset(path, name)
        else:
            set_value(path, name, texts(value))
        return path

    # Models and what of them is on this disk.

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

        wanted = [targets] if isinstance(targets, str | Model) else list(targets)
        catalog, hosts = self.catalog if needs_catalog(wanted) else Catalog(), page_hosts(self.workspace.endpoint)
        found = models_of(wanted, catalog, hosts, revision, output=output, sha256=sha256)
        if into is not None:
            check_into(len(found))
        return found

    def statuses(
        self,
        patterns: Texts | None = None,
        *,
        kind: str | None = None,
        tag: str | None = None,
        status: Texts | None = None,
    ) -> list[tuple[Model, ModelStatus]]:
        """The catalog's models, each with what of it is on this disk: those whose name holds or matches one of
        ``patterns``, of this ``kind``, with this ``tag``, of one of these statuses. What is None does not narrow, and
        an empty list fits nothing. Contacts nothing."""
        look, fits = self._looker([]), self._filter(patterns, kind, tag)
        rows = [(model, look(model)) for model in self.catalog.models.values() if fits(model)]
        return [row for row in rows if status is None or row[1].status in texts(status)]

    def _filter(self, patterns: Texts | None, kind: str | None, tag: str | None) -> Callable[[Model], bool]:
        groups = self.catalog.groups
        globs = ["*"] if patterns is None else [text.lower() for text in texts(patterns)]
        members = {name for text in texts(patterns or ()) for name in groups.get(text, ())}

        def fits(model: Model) -> bool:
            name = model.name.lower()
            named = model.name in members or any(glob in name or fnmatchcase(name, glob) for glob in globs)
            return named and (not kind or model.kind == kind) and (not tag or tag in model.tags)

        return fits

    def inventory(self, patterns: Texts | None = None, *, kind: str | None = None, tag: str | None = None) -> Inventory:
        """Everything that is on this disk, whether or not the catalog has it: in the models folder and in the hub's
        cache, or only in the one that ``home`` or ``layout`` name. What narrows it is as in `statuses`. Contacts
        nothing. Raises `StateError`, `StorageError`, `CatalogError`."""
        from mdl.operations.inventory import take_inventory

        work = self.workspace
        models, fits = self.catalog.models, self._filter(patterns, kind, tag)
        return take_inventory(work.stores(), models, self._known(), work.endpoint.url, fits)

    def _known(self) -> Callable[[Store, Model], Sequence[RemoteFile]]:
        """Says which files a model has, as far as that is known in a store; none if it is not."""
        resolver_of = cache(self.workspace.resolver)

        def known(store: Store, model: Model) -> Sequence[RemoteFile]:
            with contextlib.suppress(MdlError):
                return resolver_of(store).known(model) or ()
            return ()

        return known

    def delete(self, targets: Targets, *, dry_run: bool = False, force: bool = False) -> DeleteReport:
        """Take models from this disk: names and groups of the catalog, names of folders, references. With ``dry_run``
        nothing is deleted, and the report says what would be.

        What other models or programs have too stays, and so do files of a model's folder that were changed or added,
        unless ``force`` is set. With the layout ``hf-cache`` a name stands for what mdl brought for it, and a reference
        for the whole repository, whoever brought it. What fails for one model is in the report and hinders no other:
        `NotFound`, `Busy`, `StorageError`. Raises `Cancelled`, `CatalogError`.
        """
        from mdl.catalog.model import Model
        from mdl.operations.delete import delete, plan

        stores, known = self.workspace.stores(), self._known()
        deletions: list[Deletion] = []
        errors: list[MdlError] = []
        for target in dict.fromkeys([targets] if isinstance(targets, str | Model) else targets):
            try:
                for model in self._models_here(target):
                    deletions += plan(model, stores, known, force=force)
            except MdlError as error:
                errors.append(error.on(str(target)))
        return delete(stores[0], deletions, errors, dry_run=dry_run)

    def _models_here(self, target: str | Model) -> list[Model]:
        """As `models`, also for a name that no catalog knows, if anything of it is in the models folder. Raises
        `NotFound`, which says what is near."""
        from mdl.operations.inventory import model_of
        from mdl.sources import is_reference

        receipts = self.workspace.store([]).receipts
        try:
            if isinstance(target, str) and "/" in target and not is_reference(target):  # REMOTE/JOB, or org/repo
                remote, _, job = target.partition("/")
                if target in receipts.models() or remote in self.remotes:
                    raise NotFound("not on this disk", item=target, hint=f"mdl fetch {remote} {job}")
            return self.models(target)
        except NotFound as error:
            here = receipts.models()
            if target in here:
                return [model_of(str(target), receipts.in_order(str(target)))]
            if get_close_matches(str(target), here, 1, 0.5):
                near = get_close_matches(str(target), {*here, *self.catalog.models, *self.catalog.groups}, 3, 0.5)
                error.hint = f"did you mean {', '.join(near)}? 'mdl list --local' shows what is on this disk"
            raise

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

    def path(self, target: str | Model) -> Path:
        """The folder of one model, whether or not anything is in it. Raises as `status`."""
        model = self._one(target)
        if not model.is_of_catalog and isinstance(target, str):
            return self.status(target)[1].path
        if self.workspace.is_cache:
            return self._looker([model])(model).path
        return self.workspace.store([model]).folder(model.name)

    def locked_commits(self, model: Model) -> list[str]:
        """The commits at which the lock has a model's files; none if it does not cover it. Raises `StateError`."""
        lock = self.workspace.locked
        files = lock.models[model.name].files if lock and lock.covers(model) else ()
        return list(dict.fromkeys(filter(None, (file.revision for file in files))))

    def remote_model(self, target: str | Model, *, cancel: CancelToken | None = None) -> tuple[Model, RemoteModel]:
        """One model as its source has it now: files, sizes, licence, and whether access is restricted. No file is
        fetched. Raises `UsageError` for a group, `NotFound`, `AuthError`, `NetworkError`, `ProtocolError`, and
        `LockError` offline."""
        from mdl.operations.remote_model import ask

        model = self._one(target)
        with self._tools([model], cancel=cancel) as tools:
            return model, ask(model, tools)

    def folders(self, models: Sequence[Model], *, into: Folder | None = None) -> dict[str, Path]:
        """The folder that each model's files go to, by its name."""
        store = self.workspace.store(models, into)
        return {model.name: store.folder(model.name) for model in models}

    def _one(self, target: str | Model) -> Model:
        """The model that ``target`` means; also one of which no catalog knows, if anything of it is here."""
        models = self._models_here(target)
        if len(models) != 1:
            members = ", ".join(model.name for model in models)
            raise UsageError("a group, not a model", item=str(target), hint=f"it holds {members}")
        return models[0]

    def _looker(
        self, models: Sequence[Model], into: Folder | None = None, include: Texts = (), exclude: Texts = ()
    ) -> Callable[[Model], ModelStatus]:
        from mdl.engine.status import model_status

        store = self.workspace.store(models, into)
        resolver = self.workspace.resolver(store, include=texts(include), exclude=texts(exclude))
        return partial(model_status, resolver=resolver, store=store)

    def repo(self, model: Model) -> str:
        """The id of what a model comes from: ``hf:org/name``, a URL without its query, ``s3://bucket/prefix``. It is ''
        if there are several."""
        from mdl.sources import page_hosts

        return model.repo_of("", page_hosts(self.workspace.endpoint))

    # Remotes: where trained results are.

    @property
    def remotes(self) -> Mapping[str, RemoteSettings]:
        """The remotes of ``config.toml``, by their names. Contacts nothing. Raises `UsageError` with every mistake in
        them."""
        return self.workspace.remotes

    @contextlib.contextmanager
    def _asking(self, name: str, cancel: CancelToken | None = None) -> Iterator[Context]:
        """What it takes to ask the remote of that name. Every error names the remote. Raises `UsageError`,
        `LockError`."""
        from mdl.catalog.model import Model
        from mdl.remote_tables import remote_named
        from mdl.remotes import JobOrigin, of_remote
        from mdl.sources import Context

        work, stop = self.workspace, CancelToken(self.workspace.cancel)
        if cancel:
            cancel.link(stop)
        remote_named(name, work.remotes)
        if work.config.is_offline:
            raise LockError("offline: no remote can be asked", item=name, hint="unset MDL_OFFLINE and HF_HUB_OFFLINE")
        try:
            with work.network([Model(name, sources=(JobOrigin(name, "any"),))], stop, with_lock=False) as network:
                yield Context(work.endpoint, Path(os.devnull), network, environ=work.environ, remotes=work.remotes)
        except MdlError as error:
            of_remote(error, name)
            raise

    @contextlib.contextmanager
    def remote(self, name: str, *, cancel: CancelToken | None = None) -> Iterator[Remote]:
        """The remote of that name (``[remotes.NAME]``), to ask it about its jobs. Raises `UsageError`, `LockError`."""
        from mdl.remotes import open_remote

        with self._asking(name, cancel) as context:
            yield open_remote(self.remotes[name], context)

    def check_remote(
        self, name: str, *, metrics: Folder | None = None, cancel: CancelToken | None = None
    ) -> RemoteReport:
        """Whether a remote can be reached and used, part by part; what fails is in the report. The file ``metrics`` is
        replaced by what was found, with the numbers of workers and jobs, as Prometheus text. Raises `UsageError`,
        `LockError`."""
        from mdl.operations.remote import check, write_metrics

        with self.remote(name, cancel=cancel) as remote:
            report = check(name, remote, self.remotes[name].kind, measure=metrics is not None)
        if metrics is not None:
            try:
                write_metrics(Path(metrics), report, now=time.time())
            except OSError as error:
                self.workspace.warn(f"the metrics file {metrics}: {error.strerror}")
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

        ``on_found`` is told what was found, before the first is deleted; nothing else is deleted then. A job that runs,
        whose record tells no time or cannot be read, that changes meanwhile, and results without a record are kept. One
        process cleans a bucket at a time. Raises `Busy`, `UsageError` for a remote without a bucket, and as `Remote`.
        """
        from mdl.operations.remote import clean
        from mdl.remote_tables import remote_named

        settings = remote_named(name, self.remotes)
        bucket = settings if settings.kind == "bucket" else self.remotes.get(settings.get("bucket"))
        if bucket is None:
            raise UsageError("it has no bucket, and nothing else can be cleaned", item=name, hint="give it its bucket")
        seconds = parse_duration(str(older_than), "--older-than", least=0)
        with self._asking(name, cancel) as context:
            yield from clean(bucket, context, older_than=seconds, remove=remove, on_found=on_found)

    def remote_url(self, name: str, job: str, *, include: Texts = (), cancel: CancelToken | None = None) -> str:
        """The link to the result of a job, good for a limited time: whoever has it can read the result. If there are
        several, ``include`` has to name one; it picks among everything, while without it pictures and logs are left
        out. Raises `NotFound`, `UsageError`, and as `Remote.files`."""
        from mdl.operations.remote import link_to
        from mdl.remotes import JobOrigin, check_job_id

        with self._asking(name, cancel) as context:
            origin = JobOrigin(name, check_job_id(job), everything=bool(texts(include)))
            return link_to(origin, texts(include), context)

    # Operations.

    def get(
        self,
        target: str | Model,
        *,
        revision: str | None = None,
        force: bool = False,
        **options: Unpack[CallOptions],
    ) -> Path:
        """As `download`, of one model: returns its folder, and raises the error if anything failed."""
        report = self.download([self._one(target)], revision=revision, force=force, **options)
        report.raise_for_errors()
        return report.models[0].path

    def download(
        self, targets: Targets, *, revision: str | None = None, force: bool = False, **options: Unpack[CallOptions]
    ) -> Report:
        """Bring every file of ``targets`` to this disk, verified, and say how it went. What is here is kept.

        ``revision`` replaces that of every source that has revisions; ``force`` fetches all anew and replaces files
        that are not mdl's; for the other options see `CallOptions`. What fails for one file hinders no other and is in
        the report: see `Report.error` and `Report.raise_for_errors`. Raises `NotFound`, `UsageError` and `CatalogError`
        for targets, `NoSpace` before the first byte if the whole does not fit, `Busy` if another process is at work on
        the same models for too long, `Deadline` outside of ``window`` or after ``max_duration``, and `Cancelled`, with
        the report so far as ``so_far``.
        """
        from mdl.operations.get import get

        models = self.models(targets, revision=revision)
        with self._tools(models, **options) as tools:
            report = get(models, tools, force=force)
        if not self.workspace.config["frozen"]:
            self.workspace.remember_first(models, report)
        return report

    def plan(
        self, targets: Targets, *, revision: str | None = None, force: bool = False, **options: Unpack[CallOptions]
    ) -> PlanReport:
        """What `download` would do, and how much room it needs. Sources are asked; nothing is written."""
        from mdl.operations.get import plan

        models = self.models(targets, revision=revision)
        with self._tools(models, **options) as tools:
            return plan(models, tools, force=force)

    def results(
        self,
        remote: str,
        jobs: Texts,
        *,
        checkpoint: str = "",
        logs: bool = False,
        include: Texts = (),
        exclude: Texts = (),
    ) -> list[Model]:
        """The results of ``jobs`` of a remote as models, which are called ``REMOTE/JOB`` (``REMOTE/JOB_CHECKPOINT``):
        to `fetch`, `plan` or `verify`. ``checkpoint`` is a name, a step, ``latest`` or ``best``; ``logs`` are the logs
        alone. By default pictures and logs are left out; ``include`` picks among everything. Contacts nothing. Raises
        `UsageError` for a remote or an id that cannot be one."""
        from mdl.catalog.model import Model
        from mdl.remote_tables import remote_named
        from mdl.remotes import JobOrigin, check_checkpoint, check_job_id

        name = remote_named(remote, self.workspace.remotes).name
        checkpoint = checkpoint and check_checkpoint(checkpoint)
        origins = [JobOrigin(name, check_job_id(job), checkpoint, logs, bool(include)) for job in texts(jobs)]
        model = Model("", include=texts(include), exclude=texts(exclude))
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
        """Bring the `results` of jobs to this disk, verified as far as that is possible, and say how it went.

        ``wait`` for jobs that still run, in seconds (in all) or as "2h", or with True until they end; ``allow_running``
        takes what is there of them. The zip of a training server is checked and unpacked; ``keep_archive`` keeps it
        beside its folder, ``limits`` says how much it may hold. The results of one job may be put into service in the
        folder ``release``, as `mdl.release` does with ``keep`` and ``check``: what was fetched of it, without logs.
        What fails is in the report, and for one job hinders no other: `NotFinished`, `NotFound`, `ProtocolError`, what
        `download` has there, and what `mdl.release` raises. Raises as `download`.
        """
        from mdl.archive.directory import ArchiveLimits
        from mdl.operations.fetch import FetchOptions, Service, fetch

        if into is not None or release is not None:
            check_into(len(models), "--into" if into is not None else "--release")
        seconds = math.inf if wait is True else parse_duration(str(wait or 0), "wait", least=0)
        service = Service(places.place_of(release, "--release"), keep, check) if release is not None else None
        options = FetchOptions(seconds, allow_running, keep_archive, force, limits or ArchiveLimits(), service)
        with self._tools(models, into=into, on_event=on_event, cancel=cancel) as tools:
            return fetch(models, tools, options)

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
        from mdl.operations.fetch import FetchOptions, plan_fetch

        options = FetchOptions(allow_running=allow_running, force=force)
        with self._tools(models, into=into, on_event=on_event, cancel=cancel) as tools:
            return plan_fetch(models, tools, options)

    def verifiable(
        self, targets: Targets | None = None, *, into: Folder | None = None, revision: str | None = None
    ) -> list[Model]:
        """The models that `verify` looks at: ``targets``, which may be folders that the catalog does not know, or
        everything that is here."""
        from mdl.catalog.model import Model

        store = self.workspace.store([Model("")], into)
        try:
            os.scandir(store.own / "receipts").close()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise storage_error(error, str(store.own)) from error
        names = store.receipts.models()
        known = self.catalog.models
        here = {name: known.get(name) or Model(name) for name in names}
        if targets is None:
            return list(here.values())
        found: dict[str, Model] = {}
        for target in [targets] if isinstance(targets, str | Model) else targets:
            is_here = isinstance(target, str) and target in here and not revision
            models = [here[target]] if is_here else self.models(target, revision=revision)  # type: ignore[index]
            found.update((model.name, model) for model in models)
        return list(found.values())

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

        ``repair`` fetches what is wrong, and only that; with ``force`` also files that are not mdl's. With ``strict`` a
        file without a published digest counts as corrupt. What is wrong is in the report. Raises as `download`.
        """
        from mdl.deadline import time_limit
        from mdl.http.allowlist import host_of
        from mdl.http.network import Network
        from mdl.operations.verify import verify

        work, models = self.workspace, self.verifiable(targets, into=options.get("into"), revision=revision)
        with self._tools(models, **options, online=False) as tools, contextlib.ExitStack() as stack:

            def connect(urls: Sequence[str]) -> HttpClient | None:
                """Only a repair needs the network, and is held to window and duration."""
                stack.enter_context(time_limit(work.time_limit(), tools.store.cancel))
                if work.config.is_offline:
                    return None
                located = self._located(urls)
                http = work.http([*models, *located], tools.store.cancel, map(host_of, urls))
                network = Network.of(http)
                stack.enter_context(work.xet(network, tools.on_event))
                resolver = work.resolver(tools.store, network)
                for origin in {origin for model in located for origin in model.sources}:
                    resolver.source(origin)  # from now on the client knows how to locate its files
                return http

            return verify(models, tools, connect=connect if repair else None, force=force, strict=strict)

    @staticmethod
    def _located(urls: Iterable[str]) -> list[Model]:
        """What the files of the URLs come from that are no URLs of http: buckets, and jobs of remotes."""
        from mdl.catalog.model import Model
        from mdl.remotes import job_of_url
        from mdl.sources import parse

        jobs = {job_of_url(url) for url in urls if url.startswith("job://")}
        objects = {parse(url, ()) for url in urls if url.startswith("s3://")}
        return [Model(str(origin), sources=(origin,)) for origin in (*jobs, *objects)]

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

    def outdated(
        self,
        targets: Targets | None = None,
        *,
        beyond_pins: bool = False,
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
    ) -> OutdatedReport:
        """Compare what is here, and what is locked, with what is newest at the sources: of ``targets``, or of every
        model that is here or locked. Nothing is written.

        ``beyond_pins`` asks for the newest commit even if the catalog pins one. What cannot be asked is in the report.
        Raises `NotFound`, `CatalogError`, `StateError`, `Cancelled`, and `LockError` offline.
        """
        from mdl.catalog.lock import Lock
        from mdl.operations.outdated import outdated

        lock, models = self.workspace.locked or Lock(), self.updatable(targets)
        if targets is None:
            here = {model.name for model in models}
            models += [one for name, one in self.catalog.models.items() if name in lock.models and name not in here]
        with self._tools(models, on_event=on_event, cancel=cancel, exact=True, keeps=False) as tools:
            return outdated(models, tools, lock, beyond_pins=beyond_pins)

    def updatable(self, targets: Targets | None, *, into: Folder | None = None) -> list[Model]:
        """As `verifiable`: the models that `outdated` and `update` look at. Those that no catalog has come from where
        their receipts say. Raises `LockError` offline, when nobody can be asked what is newest."""
        from mdl.operations.outdated import by_receipts

        if self.workspace.config.is_offline:
            raise LockError("offline: nobody can be asked what is newest", hint="run it again online")
        models = self.verifiable(targets, into=into)
        store = self.workspace.store(models, into)
        resolver = self.workspace.resolver(store)
        return [by_receipts(model, store.receipts.in_order(model.name), resolver) for model in models]

    def update(self, targets: Targets, *, force: bool = False, **options: Unpack[CallOptions]) -> UpdateReport:
        """Bring the newest version of ``targets``: resolve them anew, as `lock` with ``upgrade`` if there is a lock,
        then fetch what changed, as `download`.

        A model whose commit the catalog names stays there. If this is killed after the lock was written, the next
        `download` brings the rest. What fails is in the report. Raises as `download`; `LockError` offline, and
        `UsageError` with the settings ``locked`` and ``frozen``.
        """
        from mdl.operations.outdated import is_pinned, versions_here
        from mdl.operations.update import update_report
        from mdl.reports import ModelReport

        work, into = self.workspace, options.get("into")
        models = self._to_update(targets, into)
        store = work.store(models, into)
        resolver, lock = work.resolver(store), work.locked
        before = {model.name: versions_here(store.receipts.in_order(model.name)) for model in models}
        pinned = [model.name for model in models if is_pinned(model, resolver)]
        failed = {}
        if lock is not None and (names := [model.name for model in models if model.is_of_catalog]):
            on_event, cancel = options.get("on_event"), options.get("cancel")
            failed = self.lock(names, upgrade=names, on_event=on_event, cancel=cancel).failures
        report = self.download([model for model in models if model.name not in failed], force=force, **options)
        broken = [ModelReport(name, store.folder(name), "missing", error=error) for name, error in failed.items()]
        return update_report(report, before, broken, pinned)

    def plan_update(self, targets: Targets, *, force: bool = False, **options: Unpack[CallOptions]) -> PlanReport:
        """What `update` would fetch; nothing is written, not even the lock. Raises as `plan` and `update`."""
        from mdl.operations.get import plan

        models = self._to_update(targets, options.get("into"))
        with self._tools(models, **options, exact=True, keeps=False) as tools:
            return plan(models, tools, force=force)

    def _to_update(self, targets: Targets, into: Folder | None) -> list[Model]:
        """Raises as `update` does before it begins."""
        for name in ("locked", "frozen"):
            if self.workspace.config[name]:
                hint = f"unset it (--{name}, MDL_{name.upper()}); 'mdl get' brings what is locked"
                raise UsageError("an update goes past the lock", item=name, hint=hint)
        models = self.updatable(targets, into=into)
        for model in models:
            if not (model.sources or model.files or model.gone):
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
        how: How = "auto",
        dry_run: bool = False,
        on_event: Listener | None = None,
        cancel: CancelToken | None = None,
    ) -> ImportReport:
        """Adopt what another program has in ``folder``: ComfyUI's models, a ``--local-dir`` of the hub's client,
        Ollama's store, or any folder, which is one model.

        Every file is hashed. What the catalog or the lock has becomes a file of that model; the rest becomes models of
        their own, or the one model ``name``. ``how`` the bytes come: ``auto`` shares them with the original if the file
        system can, else copies; ``link``, ``copy``, or ``move``, which takes the original away. Contacts nothing. With
        ``dry_run`` nothing is hashed or written. What fails is in the report. Raises as `import_folder` of
        `mdl.operations.import_folder` does, and `UsageError` for the layout of the hub's cache.
        """
        from mdl.operations.import_folder import import_folder
        from mdl.operations.matching import catalog_files

        if self.workspace.is_cache:
            raise UsageError("an import goes into a plain models folder", item="layout", hint="unset MDL_LAYOUT")
        models = list(self.catalog.models.values())
        with self._tools(models, on_event=on_event, cancel=cancel, online=False) as tools:
            place = Path(os.path.realpath(places.place_of(folder, "DIR")))
            return import_folder(
                place, tools, catalog_files(models, tools.resolver), name=name, how=how, dry_run=dry_run
            )

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

    def clean(self, *, remove: bool = False, unlisted: bool = False) -> list[tuple[Waste, bool]]:
        """What mdl has on this disk and nothing needs any more, each with whether it was removed: only with
        ``remove``, and never what `Waste.kept` says must stay. Models that the catalog does not name must stay too,
        unless ``unlisted`` is set."""
        from mdl.operations import clean

        store, state = self.workspace.store([]), None
        with contextlib.suppress(MdlError):
            store.catalog = self.workspace.catalog_id
        with contextlib.suppress(UsageError):
            state = places.state_dir()

        def known(name: str) -> Sequence[RemoteFile] | None:
            try:
                model = self.catalog.models.get(name)
                return self.workspace.resolver(store).known(model) if model else None
            except MdlError:
                return None

        found = clean.find_waste(store, known, clean.wanted_by_jobs(known, state))
        with contextlib.suppress(UsageError):  # without a catalog nobody knows what it names
            found += clean.unlisted(store, self.catalog.models, keep=not unlisted)
        return [(waste, remove and not waste.kept and clean.remove(waste)) for waste in found]

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
        from mdl.operations.edit import BEGINNING, EMPTY, add_model

        sources, paths = texts(source), self.workspace.catalog_paths[0]
        entry = {key: facts[key] for key in facts if key in ("title", "kind", "license", "tags")}
        entry["source"] = sources[0] if len(sources) == 1 else sources
        has_none = self.workspace.has_shipped_catalog
        path = add_model(
            [places.config_dir() / places.CATALOG_NAME] if has_none else paths,
            name,
            {**entry, **facts},
            texts(groups),
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
            raise KeyboardInterrupt from stopped
        raise
