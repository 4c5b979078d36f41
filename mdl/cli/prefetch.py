"""prefetch: get for cron: silent when all is well, one at a time, within its hours and its bandwidth."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import mdl
from mdl import Cancelled, Deadline, MdlError, UsageError
from mdl.cli.command import command, exit_code_of
from mdl.cli.flags import Choice, DownloadSettings, DryRun, Force, JobFlags, Metrics, argument, flag
from mdl.cli.get import Request, download, payload, plan, show
from mdl.cli.session import Session
from mdl.config import places
from mdl.jobs.prefetch import PrefetchBusy, prefetch_lock, write_metrics
from mdl.jobs.processes import is_background, lower_priority

if TYPE_CHECKING:
    from mdl import Report


@command(
    "prefetch",
    "mdl prefetch nightly --window 22:00-06:00  # a group, by night",
    "mdl prefetch --all --limit-rate 20M  # everything in the catalog, slowly",
    "mdl prefetch nightly --metrics mdl.prom  # and numbers for Prometheus",
    checks_config=True,
)
def prefetch(
    session: Session,
    choice: Choice,
    settings: DownloadSettings,
    job: JobFlags,
    names: Annotated[
        list[str] | None,
        argument("NAME|GROUP", "Models and groups to download; --all without a name: all of your own catalog."),
    ] = None,
    dry_run: DryRun = False,
    force: Force = False,
    skip_if_running: Annotated[
        bool, flag("--skip-if-running", "While another prefetch runs, end with exit code 0, not 9.")
    ] = False,
    metrics: Metrics = None,
) -> int:
    """Download from cron: silent unless something fails, one run at a time; the next run continues."""
    if not names:
        if not choice.everything:
            hint = "name models or groups, or write --all for all of your own catalog"
            raise UsageError("no model is named", hint=hint)
        choice = replace(choice, everything=False)  # all models, and of each one set of weights
    request = Request(names or [], choice, settings, job, force)
    if dry_run:
        session.check_config()
        return plan(session, _with_targets(session, request))
    session.console.only_failures()
    place = places.output_file(metrics, "--metrics")
    lower_priority()
    began = time.monotonic()
    report = None
    try:
        session.check_config()
        request = _with_targets(session, request)
        report = download(session, request, lambda: prefetch_lock(_lock_folders(session, settings)), replaces=True)
        if report is None:
            return 0
        code = show(session, report, folders=False)
        if code:
            session.console.note(f"log: mdl jobs log {session.empty['job']}", always=True)
    except PrefetchBusy:
        if not skip_if_running or is_background():
            raise
        return session.show({})
    except (Exception, KeyboardInterrupt, Cancelled) as error:
        if isinstance(error, Cancelled | Deadline) and isinstance(error.so_far, mdl.Report):
            report = error.so_far
        _measure(session, place, request, report, began, exit_code_of(error))
        if not isinstance(error, Deadline):
            raise
        if session.console.is_machine_readable:
            session.console.error(error)
        return session.show(payload(report or mdl.Report()), error=error)
    _measure(session, place, request, report, began, code)
    return code


def _with_targets(session: Session, request: Request) -> Request:
    """If no target was named, all models of one's own catalog that can still be fetched."""
    if request.targets:
        return request
    models = session.client(request.settings).catalog.meant()
    return replace(request, targets=[model.name for model in models if not model.gone])


def _measure(
    session: Session, place: Path | None, request: Request, report: Report | None, began: float, code: int
) -> None:
    """Replace the metrics file, if there is to be one. If it cannot be written a warning says so."""
    if not place:
        return
    if not report or not report.models:
        report = _present(session, request)
    try:
        write_metrics(place, report, exit_code=code, seconds=time.monotonic() - began, ended=time.time())
    except OSError as error:
        session.console.warn(f"the metrics file {place}: {error.strerror}")


def _present(session: Session, request: Request) -> Report:
    """What is on this disk of the models of a run that could not begin, as far as that is known."""
    try:
        client = session.client(request.settings)
        choice = request.choice
        models = client.models(request.targets, into=choice.into, revision=choice.revision)
        found = [client.status(model, **choice.files) for model in models]
    except (MdlError, OSError):
        return mdl.Report()
    return mdl.Report(tuple(mdl.ModelReport(model.name, status.path, status.status) for model, status in found))


def _lock_folders(session: Session, settings: DownloadSettings) -> Iterator[Path]:
    """Where the lock of this user's prefetches may be: the state folder, else the models folder."""
    with contextlib.suppress(UsageError):
        yield places.state_dir() / "locks"
    yield session.client(settings).stores.open().locks
