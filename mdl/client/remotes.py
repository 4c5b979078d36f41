"""Remotes: where trained results are, and how they come here."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mdl.cancel import CancelToken
from mdl.client.base import Texts
from mdl.client.downloads import Downloads
from mdl.config import places
from mdl.context import Folder, check_into
from mdl.errors import LockError, MdlError, UsageError, online_hint
from mdl.listener import Listener
from mdl.units import as_text, parse_duration, texts

if TYPE_CHECKING:
    from mdl.archive.base import ArchiveLimits
    from mdl.catalog.model import Model
    from mdl.config.remotes import RemoteSettings
    from mdl.ops.fetch import FetchReport
    from mdl.ops.remote import CleanedJob, RemoteReport
    from mdl.reports import PlanReport
    from mdl.results import Remote
    from mdl.sources import Context


class Remotes(Downloads):
    """What a client asks of remotes, and fetches from them."""

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
        from mdl.config.remotes import remote_named
        from mdl.results import JobOrigin, of_remote

        work = self.workspace
        stop = self.stopped_by(cancel)
        remote_named(name, work.remotes)
        if work.config.is_offline:
            raise LockError("offline: no remote can be asked", item=name, hint=online_hint(work.config.offline_by))
        try:
            with work.network([Model(name, sources=(JobOrigin(name, "any"),))], stop, with_lock=False) as network:
                yield work.context(network)
        except MdlError as error:
            raise of_remote(error, name) from error

    @contextlib.contextmanager
    def remote(self, name: str, *, cancel: CancelToken | None = None) -> Iterator[Remote]:
        """The remote of that name (``[remotes.NAME]``), to ask it about its jobs. Raises `UsageError`, `LockError`."""
        from mdl.results import open_remote

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
        from mdl.config.remotes import remote_named
        from mdl.ops.remote import clean

        settings = remote_named(name, self.remotes)
        bucket = settings if settings.kind == "bucket" else self.remotes.get(settings.get("bucket"))
        if bucket is None:
            raise UsageError("it has no bucket, and nothing else can be cleaned", item=name, hint="give it its bucket")
        seconds = parse_duration(as_text(older_than), "--older-than", least=0)
        with self._asking(name, cancel) as context:
            yield from clean(bucket, context, older_than=seconds, remove=remove, on_found=on_found)

    def remote_url(self, name: str, job: str, *, include: Texts = (), cancel: CancelToken | None = None) -> str:
        """The link to the result of a job, good for a limited time: anybody who has it can read the result. If there
        are several, ``include`` has to name one; it picks among everything, while without it pictures and logs are left
        out. Raises `NotFound`, `UsageError`, and as `Remote.files`."""
        from mdl.ops.remote import link_to
        from mdl.results import JobOrigin, check_job_id

        wanted = texts(include)
        with self._asking(name, cancel) as context:
            return link_to(JobOrigin(name, check_job_id(job), everything=bool(wanted)), wanted, context)

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
        from mdl.results import JobOrigin, check_checkpoint, check_job_id

        name = remote_named(remote, self.workspace.remotes).name
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
        """Bring the `results` of jobs to this disk, verified as far as that is possible, and say how it went.

        ``wait`` for jobs that still run, in seconds (in all) or as "2h", or with True until they end; ``allow_running``
        takes what is there of them. A zip, tar or tar.gz is checked and unpacked; ``keep_archive`` keeps it
        beside its folder, ``limits`` says how much it may hold. The results of one job may be put into service in the
        folder ``release``, as `mdl.release` does with ``keep`` and ``check``: what was fetched of it, without logs.
        What fails is in the report, and for one job hinders no other: `NotFinished`, `NotFound`, `ProtocolError`, what
        `download` has there, and what `mdl.release` raises. Raises as `download`.
        """
        from mdl.archive.base import ArchiveLimits
        from mdl.ops.fetch import FetchOptions, Service, fetch

        if into is not None or release is not None:
            check_into(len(models), "--into" if into is not None else "--release")
        seconds = math.inf if wait is True else parse_duration(as_text(wait or 0), "wait", least=0)
        service = Service(places.place_of(release, "--release"), keep, check) if release is not None else None
        options = FetchOptions(seconds, allow_running, keep_archive, force, limits or ArchiveLimits(), service)
        with self.tools(models, into=into, on_event=on_event, cancel=cancel) as tools:
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
        from mdl.ops.fetch import FetchOptions, plan_fetch

        options = FetchOptions(allow_running=allow_running, force=force)
        with self.tools(models, into=into, on_event=on_event, cancel=cancel) as tools:
            return plan_fetch(models, tools, options)
