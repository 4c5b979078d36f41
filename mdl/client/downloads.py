"""Downloads: bring models here, verify them, keep them up to date, adopt what is here already."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from mdl.cancel import CancelToken
from mdl.client.base import CallOptions, Targets
from mdl.client.catalogs import Catalogs
from mdl.config import places
from mdl.context import Folder
from mdl.errors import LockError, NotFound, UsageError, online_hint
from mdl.listener import Listener

if TYPE_CHECKING:
    from mdl.catalog.model import Model
    from mdl.files import RemoteFile
    from mdl.local.import_folder import How
    from mdl.local.import_report import ImportReport
    from mdl.local.verify import VerifyReport
    from mdl.net.client import HttpClient
    from mdl.ops.outdated import OutdatedReport
    from mdl.ops.update import UpdateReport
    from mdl.reports import PlanReport, Report


class Downloads(Catalogs):
    """What a client downloads and verifies."""

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
        model = self._one(target, is_asked=not self.workspace.config.is_offline)
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
        """Bring every file of ``targets`` to this disk, verified, and say how it went. What is here is kept.

        ``revision`` replaces that of every source that has revisions; ``force`` fetches all anew and replaces files
        that are not mdl's; for the other options see `CallOptions`. What fails for one file hinders no other and is in
        the report: see `Report.error` and `Report.raise_for_errors`. Raises `NotFound`, `UsageError` and `CatalogError`
        for targets, `NoSpace` before the first byte if the whole does not fit, `Busy` if another process is at work on
        the same models for too long, `Deadline` outside of ``window`` or after ``max_duration``, and `Cancelled`, with
        the report so far as ``so_far``.
        """
        from mdl.ops.get import get

        models = self.models(targets, revision=revision)
        with self.tools(models, **options) as tools:
            report = get(models, tools, force=force)
        if not self.workspace.config["frozen"]:
            self.workspace.remember_first(models, report)
        return report

    def plan(
        self, targets: Targets, *, revision: str | None = None, force: bool = False, **options: Unpack[CallOptions]
    ) -> PlanReport:
        """What `download` would do, and how much room it needs. Sources are asked; only their answers
        are kept."""
        from mdl.ops.get import plan

        models = self.models(targets, revision=revision)
        with self.tools(models, **options) as tools:
            return plan(models, tools, force=force)

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
        from mdl.local.verify import verify
        from mdl.net.allowlist import host_of

        work = self.workspace
        models = self.verifiable(targets, into=options.get("into"), revision=revision)
        with self.tools(models, **options, online=False) as tools, contextlib.ExitStack() as stack:

            def connect(urls: Sequence[str]) -> HttpClient | None:
                """Only a repair needs the network, and is held to window and duration."""
                stack.enter_context(time_limit(work.time_limit(), tools.store.cancel))
                if work.config.is_offline:
                    return None
                located = self._located(urls)
                network = work.network([*models, *located], tools.store.cancel, map(host_of, urls))
                resolver = work.resolver(tools.store, network)
                for origin in {origin for model in located for origin in model.sources}:
                    resolver.source(origin)  # from now on the client knows how to locate its files
                return network.http

            def ask(model: Model) -> Sequence[RemoteFile]:
                """What the hub has of a model; nothing offline."""
                if work.config.is_offline:
                    return ()
                network = stack.enter_context(work.network([model], tools.store.cancel))
                return work.resolver(tools.store, network, tools.on_event).resolve_each(model).files

            return verify(models, tools, connect=connect if repair else None, ask=ask, force=force, strict=strict)

    @staticmethod
    def _located(urls: Iterable[str]) -> list[Model]:
        """What the files of the URLs come from that are no URLs of http: buckets, and jobs of remotes."""
        from mdl.catalog.model import Model
        from mdl.results import job_of_url
        from mdl.sources import parse

        jobs = {job_of_url(url) for url in urls if url.startswith("job://")}
        objects = {parse(url, ()) for url in urls if url.startswith("s3://")}
        return [Model(str(origin), sources=(origin,)) for origin in (*jobs, *objects)]

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
        from mdl.ops.outdated import outdated

        lock = self.workspace.lock
        models = self.updatable(targets)
        if targets is None:
            here = {model.name for model in models}
            models += [one for one in self.catalog.meant() if one.name in lock.models and one.name not in here]
        with self.tools(models, on_event=on_event, cancel=cancel, exact=True, keeps=False) as tools:
            return outdated(models, tools, lock, beyond_pins=beyond_pins)

    def updatable(self, targets: Targets | None, *, into: Folder | None = None) -> list[Model]:
        """As `verifiable`: the models that `outdated` and `update` look at. Those that no catalog has come from where
        their receipts say. Raises `LockError` offline, when nobody can be asked what is newest."""
        from mdl.ops.outdated import by_receipts

        if self.workspace.config.is_offline:
            hint = online_hint(self.workspace.config.offline_by)
            raise LockError("offline: nobody can be asked what is newest", hint=hint)
        models = self.verifiable(targets, into=into)
        store = self.workspace.store(models, into)
        resolver = self.workspace.resolver(store)
        return [
            by_receipts(model, store.receipts.in_order(model.name), store.receipts.wanted(model.name), resolver)
            for model in models
        ]

    def update(self, targets: Targets, *, force: bool = False, **options: Unpack[CallOptions]) -> UpdateReport:
        """Bring the newest version of ``targets``: resolve them anew, as `lock` with ``upgrade`` if there is a lock,
        then fetch what changed, as `download`.

        A model whose commit the catalog names stays there. If this is killed after the lock was written, the next
        `download` brings the rest. What fails is in the report. Raises as `download`; `LockError` offline, and
        `UsageError` with the settings ``locked`` and ``frozen``.
        """
        from mdl.ops.outdated import is_pinned, versions_here
        from mdl.ops.update import update_report
        from mdl.reports import ModelReport

        work = self.workspace
        into = options.get("into")
        models = self._to_update(targets, into)
        store = work.store(models, into)
        resolver = work.resolver(store)
        lock = work.locked
        before = {model.name: versions_here(store.receipts.in_order(model.name)) for model in models}
        pinned = [model.name for model in models if is_pinned(model, resolver)]
        failed = {}
        if lock is not None and (names := [model.name for model in models if model.is_of_catalog]):
            on_event = options.get("on_event")
            cancel = options.get("cancel")
            failed = self.lock(names, upgrade=names, on_event=on_event, cancel=cancel).failures
        report = self.download([model for model in models if model.name not in failed], force=force, **options)
        broken = [ModelReport(name, store.folder(name), "missing", error=error) for name, error in failed.items()]
        return update_report(report, before, broken, pinned)

    def plan_update(self, targets: Targets, *, force: bool = False, **options: Unpack[CallOptions]) -> PlanReport:
        """What `update` would fetch; nothing is written, not even the lock. Raises as `plan` and `update`."""
        from mdl.ops.get import plan

        models = self._to_update(targets, options.get("into"))
        with self.tools(models, **options, exact=True, keeps=False) as tools:
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
        `mdl.local.import_folder` does, and `UsageError` for the layout of the hub's cache.
        """
        from mdl.local.import_folder import import_folder
        from mdl.local.known_files import catalog_files

        if self.workspace.is_cache:
            raise UsageError("an import goes into a plain models folder", item="layout", hint="unset MDL_LAYOUT")
        models = list(self.catalog.models.values())
        with self.tools(models, on_event=on_event, cancel=cancel, online=False) as tools:
            place = Path(os.path.realpath(places.place_of(folder, "DIR")))
            return import_folder(
                place, tools, catalog_files(models, tools.resolver), name=name, how=how, dry_run=dry_run
            )
