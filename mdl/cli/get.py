"""get: the main job."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from mdl.cli.command import command
from mdl.cli.flags import Choice, DownloadSettings, JobFlags
from mdl.cli.session import Session
from mdl.cli.words import in_background
from mdl.describe import ended_by
from mdl.errors import Busy, Cancelled, Deadline, MdlError
from mdl.formatting import human_bytes
from mdl.jobs.background import is_background
from mdl.paths import shown
from mdl.reports import PlanReport, Report
from mdl.workspace import check_into


def register(app: typer.Typer) -> None:
    command(app, "get", aliases=("download",), epilog=_EXAMPLES)(get_models)


_EXAMPLES = """Examples: mdl get bert-fa --to /models · mdl get hf:gpt2@main --include '*.json' ·
mdl get https://host/file.gguf --into . · mdl get -n z-image-turbo"""


def get_models(
    session: Session,
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET", help="Catalog name, group, hf:org/repo[@rev][/path], hub page or any URL."),
    ],
    choice: Choice,
    settings: DownloadSettings,
    job: JobFlags,
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="Show the plan and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Fetch anew, and replace files that are not mdl's.")] = False,
) -> int:
    """Download models; the last line is the folder. Run it again to go on after any interruption."""
    request = Request(targets, choice, settings, job, force)
    if dry_run:
        return show_plan(session, request)
    try:
        done = download(session, request)
    except (Cancelled, Deadline) as stopped:
        if isinstance(stopped.so_far, Report):
            session.empty = session.empty | payload(stopped.so_far)
        raise
    return show(session, done)


@dataclass(frozen=True)
class Request:
    """What is to be downloaded, and how."""

    targets: list[str]
    choice: Choice
    settings: DownloadSettings
    job: JobFlags
    force: bool = False


@dataclass(frozen=True)
class Downloaded:
    """How it went; ``report`` is None if it goes on in the background as ``job``."""

    job: str
    report: Report | None


def download(
    session: Session,
    request: Request,
    turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    *,
    replaces: bool = False,
) -> Downloaded:
    """Carry the request out as a job. ``turn`` is held by the process that does it; ``replaces``: it goes on with what
    an earlier one of the same targets left when its time was over.

    Raises `MdlError` if nothing could be begun, `Cancelled` with the `Report` so far.
    """
    choice, client = request.choice, session.client(request.settings)
    if choice.into is not None:
        check_into(len(request.targets))
    models = client.models(request.targets, revision=choice.revision)
    client.folders(models, into=choice.into)
    client.workspace.time_limit()
    session.signals.poll()
    with ExitStack() as stack:
        stack.enter_context(turn())
        names, folders = [model.name for model in models], lambda: client.folders(models, into=choice.into)
        run = session.job(client, names, folders, request.job, client.workspace.config["via"])
        if request.job.detach:
            if not is_background():
                stack.close()
            try:
                if run.start_in_background(in_background(session.words)):
                    return Downloaded(run.id, None)
            except Busy:
                with turn():  # which says so if another prefetch was quicker
                    raise
        session.empty = session.empty | {"job": run.id or None}
        report = None
        try:
            with run as on_event:
                if replaces:
                    run.replace_earlier()
                report = client.download(
                    models,
                    into=choice.into,
                    include=choice.include or (),
                    exclude=choice.exclude or (),
                    force=request.force,
                    on_event=on_event,
                )
                if error := report.error:
                    on_event(ended_by(error))
        except (Cancelled, Deadline) as stopped:
            stopped.so_far = stopped.so_far or report
            raise
        return Downloaded(run.id, report)


def show_plan(session: Session, request: Request) -> int:
    """``--dry-run``: what would be fetched, kept and refused, and the room for it. Returns the exit code."""
    choice, client = request.choice, session.client(request.settings)
    if choice.into is not None:
        check_into(len(request.targets))
    models = client.models(request.targets, revision=choice.revision)
    client.workspace.time_limit()
    session.signals.poll()
    with session.console.watch(method=client.workspace.config["via"]) as on_event:
        report = client.plan(
            models,
            into=choice.into,
            include=choice.include or (),
            exclude=choice.exclude or (),
            force=request.force,
            on_event=on_event,
        )
        if error := report.error:
            on_event(ended_by(error))
    _tell_failures(session, report)
    facts = {"job": None} | payload(report) | _space(report)
    return session.show(facts, lambda: _tell_plan(session, report), error=report.error)


def show(session: Session, done: Downloaded, *, folders: bool = True) -> int:
    """How it went, and ``folders`` last; of a job in the background only its id. Returns the exit code."""
    report = done.report
    if report is None:
        return show_job(session, done.job)
    _tell_failures(session, report)

    def tell_folders() -> None:
        for model in report.models if folders else ():
            if model.is_whole:
                session.console.data(str(model.path))

    return session.show({"job": done.job or None} | payload(report), tell_folders, error=report.error)


def show_job(session: Session, job: str) -> int:
    """It goes on in the background: its id is all there is to say."""
    from mdl.schemas import empty

    return session.show(empty(session.command) | {"job": job}, lambda: session.console.data(job))


def payload(report: Report) -> dict[str, Any]:
    """What ``--json`` tells of a report."""
    return {
        "bytes_fetched": report.bytes_fetched,
        "bytes_kept": report.bytes_kept,
        "bytes_discarded": report.bytes_discarded,
        "seconds": round(report.seconds, 3),
        "models": [vars(model) | {"files": [vars(file) for file in model.files]} for model in report.models],
    }


def _space(report: PlanReport) -> dict[str, int]:
    """What ``--json`` tells of the room that a plan needs."""
    return {
        "bytes_to_fetch": report.bytes_to_fetch,
        "bytes_free": report.bytes_free,
        "bytes_total": report.bytes_total,
        "bytes_elsewhere": report.bytes_elsewhere,
        "bytes_to_copy": report.bytes_to_copy,
    }


def _tell_failures(session: Session, report: Report) -> None:
    """One line a failure, file by file; the rest was kept."""
    error, failures = report.error, report.failures
    if error and len(failures) < 2:
        session.console.error(error)
    elif error:
        for item, one in failures:
            session.console.error(MdlError(one.message, item=item, hint=one.advice))


def _tell_plan(session: Session, report: PlanReport) -> None:
    rows = [
        (
            row.way or {"planned": "fetch", "kept": "keep", "failed": "refuse"}.get(row.action, "-"),
            human_bytes(row.size) if row.size is not None else "?",
            human_bytes(row.resumed_at) if row.resumed_at else "-",
            shown(f"{model.name}/{row.path}"),
        )
        for model in report.models
        for row in model.files
    ]
    session.console.table(("ACTION", "SIZE", "HERE", "FILE"), rows)
    copied = f", of which {human_bytes(report.bytes_to_copy)} are copied" if report.bytes_to_copy else ""
    near = report.bytes_elsewhere
    linked = f"elsewhere on this disk: {human_bytes(near)}{copied}; " if near else ""
    fetch, free = human_bytes(report.bytes_to_fetch), human_bytes(report.bytes_free)
    session.console.note(f"to fetch: {fetch}; {linked}free on the disk: {free}")
