"""verify: what is on this disk, compared with its digests; and its repair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from mdl import UsageError
from mdl.cli import completion
from mdl.cli.command import command
from mdl.cli.flags import Choice, DownloadSettings, JobFlags, argument, flag
from mdl.cli.session import Session, typed, with_flags
from mdl.formatting import counted, human_bytes, human_elapsed
from mdl.paths import shown
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl import Client, VerifyReport


@value_class
class RepairFlags:
    """Flags that say what is done about wrong files."""

    repair: Annotated[bool, flag("--repair", "Download only what is wrong.")] = False
    dry_run: Annotated[bool, flag("-n --dry-run", "With --repair: only say what is wrong.")] = False
    force: Annotated[
        bool, flag("--force", "With --repair: also replace files that were changed, or that mdl did not write.")
    ] = False
    strict: Annotated[bool, flag("--strict", "A file that was changed or has no published hash counts as wrong.")] = (
        False
    )


@command(
    "verify",
    "mdl verify  # all that is here",
    "mdl verify bert-fa --repair  # fetch what is wrong, and only that",
    "mdl verify --strict --json  # for a script; unverified counts as wrong",
)
def verify(
    session: Session,
    repairing: RepairFlags,
    choice: Choice,
    settings: DownloadSettings,
    job: JobFlags,
    names: Annotated[
        list[str] | None,
        argument("NAME", "Models to check; without one, all that are here.", autocompletion=completion.here),
    ] = None,
) -> int:
    """Read what is on disk again and compare it with its digests."""
    client = session.client(settings)
    models = client.verifiable(names, into=choice.into, revision=choice.revision)
    is_job = repairing.repair and not repairing.dry_run
    if job.detach and not is_job:
        raise UsageError("only a repair can go on in the background", item="--detach", hint="add --repair")
    run = session.job(models, client.folders(models, into=choice.into), job, choice.globs) if is_job else None
    if run and session.is_detached(job):
        return session.start_in_background(run)
    session.signals.poll()
    with run.running() if run else session.console.watch() as on_event:
        report = client.verify(
            models, **choice.files, repair=is_job, force=repairing.force, strict=repairing.strict, on_event=on_event
        )
        on_event.end_with(report.error)
    models_facts = [{"name": name, "files": files} for name, files in report.models.items()]
    report = _spelled(report, client.labels(models, into=choice.into))
    note = report.note_on_changed()
    if names or choice.into or settings.get("home"):
        note = report.note_on_changed(_command(session, "replace"))
        if report.wrong and report.remedy:
            hint = report.remedy.hint(_command(session, report.remedy.kind))
            report = replace(report, wrong=report.wrong.but(hint=hint))
    if note and not (report.remedy and report.remedy.kind == "replace"):  # else the error's hint says it
        session.console.note(note)
    for failure in report.errors if session.common.json else report.failures:
        session.console.error(failure)
    return session.show({"models": models_facts}, lambda: _show_verified(session, report, client), error=report.error)


def _spelled(report: VerifyReport, labels: Mapping[str, str]) -> VerifyReport:
    """The report with the names of the models as people write them."""
    spelled = replace(report, models={labels.get(name, name): files for name, files in report.models.items()})
    if not report.wrong or not report.remedy:
        return spelled
    remedy = replace(report.remedy, models=tuple(labels.get(name, name) for name in report.remedy.models))
    return replace(spelled, remedy=remedy, wrong=report.wrong.but(hint=remedy.hint()))


def _command(session: Session, kind: str) -> str:
    """The command that was just typed, with the same models and folders, as one that gets, repairs or replaces."""
    words = [word for word in session.words if word not in ("-n", "--dry-run", "--force", "--strict")]
    if kind == "get":
        return typed(["get", *words[1:]])
    wanted = ["--repair", "--force"] if kind == "replace" else ["--repair"]
    return typed(with_flags(words, [flag for flag in wanted if flag not in words]))


def _show_verified(session: Session, report: VerifyReport, client: Client) -> None:
    """Show what is not ok, and one line for the whole; the digests of all if that was asked for."""
    console = session.console
    counts = Counter[str]()
    rows: list[tuple[str, str]] = []
    for model, file in report.files:
        name = shown(f"{model}/{file.path}")
        counts[file.status] += 1
        if file.status != "ok":
            rows.append((file.status, name))
        if console.verbose:
            console.data(name)
            console.data(f"    {file.actual or '-'}")
            if file.expected not in (None, file.actual):
                console.data(f"    expected {file.expected}")
    if rows:
        console.table(("STATUS", "FILE"), rows)
    ok = counts.pop("ok", 0)
    summary = f"{counted(ok, 'file')} ok, {human_bytes(report.bytes_read)}, {human_elapsed(report.seconds)}"
    if counts:
        others = ", ".join(f"{count:,} {status}" for status, count in counts.items())
        summary = f"{others}; {summary}"
    if report.wrong:
        console.error(type(report.wrong)(summary, hint=report.wrong.hint))
    elif ok or counts:
        console.note(summary)
    elif not report.errors:
        unread = sum(status.files_present for _, status in client.inventory().models)
        others = f"; {counted(unread, 'file')} of other programs not read, see: mdl list --local" if unread else ""
        console.note(f"nothing of mdl's is here to verify{others}")
