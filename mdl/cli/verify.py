"""verify: what is on this disk, compared with its digests; and its repair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
    from mdl import VerifyReport
    from mdl.jobs.run import JobRun


_NOT_REPEATED = ("-n", "--dry-run", "--force", "--repair", "--strict")
"""The flags that a command in a hint does not repeat as they were typed."""


@value_class
class RepairFlags:
    """Flags that say what is done about wrong files."""

    repair: Annotated[bool, flag("--repair", "Download only what is wrong.")] = False
    dry_run: Annotated[bool, flag("-n --dry-run", "With --repair: only say what is wrong.")] = False
    force: Annotated[
        bool, flag("--force", "With --repair: also replace files that were changed, or that mdl did not write.")
    ] = False
    strict: Annotated[bool, flag("--strict", "A file that was changed or has no published digest counts as wrong.")] = (
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
    """Hash the files on this disk again, and compare them with their digests."""
    client = session.client(settings)
    models = client.verifiable(names, into=choice.into, revision=choice.revision)
    is_job = repairing.repair and not repairing.dry_run
    if job.detach and not is_job:
        raise UsageError("only a repair can run in the background", item="--detach", hint="add --repair")
    if repairing.force and not repairing.repair:
        raise UsageError("only a repair replaces files", item="--force", hint="add --repair")
    run: JobRun | None = None
    if is_job:
        run = session.job(models, client.folders(models, into=choice.into), job)
        if session.is_detached(job):
            return session.start_in_background(run)
    session.signals.poll()
    session.labels = client.labels(models, into=choice.into)
    with run.running() if run else session.console.watch() as on_event:
        report = client.verify(
            models, **choice.files, repair=is_job, force=repairing.force, strict=repairing.strict, on_event=on_event
        )
        on_event.end_with(report.error)
    facts = {"models": [{"name": name, "files": files} for name, files in report.models.items()]}
    words: Sequence[str] = ()
    if names or choice.into or settings.get("home") or settings.get("layout"):
        words = session.words
    report = _spelled(session, report, words, named=bool(names))
    note = report.note_on_changed(_command(words, "replace"))
    is_in_hint = report.remedy is not None and report.remedy.kind == "replace"
    if note and not is_in_hint:
        session.console.note(note)
    for failure in report.errors if session.common.json else report.failures:
        session.error(failure)
    return session.show(facts, lambda: _show_verified(session, report), error=report.error)


def _spelled(session: Session, report: VerifyReport, words: Sequence[str], *, named: bool) -> VerifyReport:
    """The report with the names of the models as people write them. Its hint is as `_command` has it of ``words``;
    ``named`` says that they name models."""
    models = {session.spelled(name): files for name, files in report.models.items()}
    spelled = replace(report, models=models)
    remedy = report.remedy
    if remedy is None or report.wrong is None:
        return spelled
    remedy = replace(remedy, models=tuple(map(session.spelled, remedy.models)))
    if words and remedy.kind == "replace" and not named:  # without a name it replaces what was changed in others too
        words = [*words, *remedy.models]
    hint = remedy.hint(_command(words, remedy.kind))
    return replace(spelled, remedy=remedy, wrong=report.wrong.but(hint=hint))


def _command(words: Sequence[str], kind: str) -> str:
    """The command that was just typed, whose ``words`` name models or folders, as one that gets, repairs or replaces
    these; '' without words, and for a lock, when the usual command does that."""
    if not words or kind == "lock":
        return ""
    repeated = [word for word in words if word not in _NOT_REPEATED]
    if kind == "get":
        return typed(["get", *repeated[1:]])
    if kind == "replace":
        return typed(with_flags(repeated, ["--repair", "--force"]))
    return typed(with_flags(repeated, ["--repair"]))


def _show_verified(session: Session, report: VerifyReport) -> None:
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
        shows = session.client().stores.open().command("list", "--local")
        console.note(f"mdl has no files here to verify; '{shows}' shows what other programs put here")
