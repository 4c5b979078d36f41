"""verify: what is on disk compared with its digests, and mended if it is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from mdl.cli.command import command
from mdl.cli.flags import Choice, DownloadSettings, JobFlags
from mdl.cli.get import show_job
from mdl.cli.session import Session
from mdl.cli.words import in_background
from mdl.describe import ended_by
from mdl.errors import UsageError
from mdl.formatting import human_bytes
from mdl.paths import shown
from mdl.reports import VerifyReport


@dataclass(frozen=True)
class RepairFlags:
    """What is done about what is wrong."""

    repair: Annotated[bool, typer.Option("--repair", help="Fetch what is wrong, and only that.")] = False
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="With --repair: only say what is wrong.")] = False
    force: Annotated[bool, typer.Option("--force", help="With --repair: replace files that are not mdl's.")] = False
    strict: Annotated[bool, typer.Option("--strict", help="A file without a published hash counts as wrong.")] = False


def register(app: typer.Typer) -> None:
    command(app, "verify")(verify)


def verify(
    session: Session,
    repairing: RepairFlags,
    choice: Choice,
    settings: DownloadSettings,
    job: JobFlags,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Models to check; all that are here without one.")
    ] = None,
) -> int:
    """Read what is on disk again and compare it with its digests."""
    client = session.client(settings)
    models = client.verifiable(names, into=choice.into, revision=choice.revision)
    is_job = repairing.repair and not repairing.dry_run
    if job.detach and not is_job:
        raise UsageError("only a repair can go on in the background", item="--detach", hint="add --repair")
    run = None
    if is_job:
        folders = lambda: client.folders(models, into=choice.into)  # noqa: E731
        run = session.job(client, [model.name for model in models], folders, job)
        if job.detach and run.start_in_background(in_background(session.words)):
            return show_job(session, run.id)
    session.signals.poll()
    with run or session.console.watch() as on_event:
        report = client.verify(
            models,
            repair=is_job,
            force=repairing.force,
            strict=repairing.strict,
            into=choice.into,
            include=choice.include or (),
            exclude=choice.exclude or (),
            on_event=on_event,
        )
        if report.bytes_fetched is not None and not report.errors:
            session.console.note(f"repaired; fetched {human_bytes(report.bytes_fetched)}")
        if error := report.error:
            on_event(ended_by(error))
    for failure in report.errors:
        session.console.error(failure)
    models_facts = [{"name": name, "files": [vars(file) for file in files]} for name, files in report.models.items()]
    return session.show({"models": models_facts}, lambda: _tell(session, report), error=report.error)


def _tell(session: Session, report: VerifyReport) -> None:
    rows = [(file.status, shown(f"{name}/{file.path}"), file.actual or "-") for name, file in report.files]
    if rows:
        session.console.table(("STATUS", "FILE", "DIGEST"), rows)
    elif not report.errors:
        session.console.note("nothing of mdl's is here to verify")
