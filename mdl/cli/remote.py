"""remote: where trained results are: which remotes there are, whether they work, their jobs, and what is too old."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from mdl import MdlError, UsageError
from mdl.cli.command import all_or_nothing, command
from mdl.cli.flags import Metrics, argument, flag
from mdl.cli.session import Session
from mdl.config import places
from mdl.errors import joint_error
from mdl.formatting import human_age, human_bytes, if_known
from mdl.paths import shown

if TYPE_CHECKING:
    from mdl import CleanedJob, RemoteJob

Name = Annotated[str, argument("REMOTE", "The remote, as config.toml calls it.")]
JobId = Annotated[str, argument("JOB", "The job's id.")]
OlderThan = Annotated[str, flag("--older-than TIME", "How long ago their records were last changed, as 30d.")]
_TRIES = 2
"""How often a remote is asked whether it works."""
_EXAMPLE = """\
[remotes.store]
kind = "bucket"
url  = "s3://training/prefix"

[remotes.gpu]
kind     = "runpod"
endpoint = "abc123"
bucket   = "store\""""


@command(
    "remote",
    "mdl remote  # list the remotes of config.toml",
    "mdl remote check gpu  # does it work?",
    "mdl remote jobs gpu  # list its jobs; mdl fetch gpu JOB downloads the results",
    group_help="Ask buckets, RunPod endpoints and training servers about jobs; 'mdl fetch' downloads results.",
)
@command(
    "remote list",
    "mdl remote list  # names, kinds and addresses",
    "mdl remote list --json  # for a script",
)
def list_remotes(session: Session) -> int:
    """List the remotes of config.toml. Nothing is contacted."""
    rows = [(remote.name, remote.kind, remote.address) for remote in session.client().remotes.values()]

    def show() -> None:
        if rows:
            session.console.table(("NAME", "KIND", "ADDRESS"), rows)
        else:
            session.console.note(f"there is no remote; add one to {_config_file()}, for example:\n\n{_EXAMPLE}")

    facts = [dict(zip(("name", "kind", "address"), row, strict=True)) for row in rows]
    return session.show({"remotes": facts}, show)


def _config_file() -> str:
    try:
        return str(places.config_file())
    except UsageError:  # this user has no home folder
        return "config.toml"


@command(
    "remote check",
    "mdl remote check store  # part by part",
    "mdl remote check gpu --metrics gpu.prom  # for Prometheus",
)
def check(session: Session, name: Name, metrics: Metrics = None) -> int:
    """Check that a remote can be reached and used. The exit code is that of the part that fails."""
    place = places.output_file(metrics, "--metrics")
    console = session.console
    report = session.client({"retries": _TRIES}).check_remote(name, metrics=place)
    checks = []
    for part in report.checks:
        console.entry("ok    " if part.ok else "FAIL  ", console.clean(f"{part.name}: {part.detail}"))
        checks.append({"name": part.name, "ok": part.ok, "detail": part.detail})
    session.errors(report.errors)
    return session.show({"checks": checks}, error=report.error)


@command(
    "remote jobs",
    "mdl remote jobs store  # the newest first",
    "mdl remote jobs store --json  # for a script",
)
def jobs(session: Session, name: Name) -> int:
    """List the jobs of a remote, the newest first.

    If an endpoint has no bucket, one of its workers answers, and RunPod bills that.
    """
    with session.client().remote(name) as remote:
        found = remote.jobs()

    def show() -> None:
        if not found:
            session.console.note("no jobs")
            return
        rows = [(shown(job.id), job.status, _age(job), human_bytes(job.bytes)) for job in found]
        session.console.table(("JOB", "STATUS", "CHANGED", "SIZE"), rows, cut=(), drop=("CHANGED", "SIZE"))
        for job in found:
            if job.error and not job.is_over:
                session.console.warn(f"{shown(job.id)}: {job.error}")
        failed = sum(bool(job.error) and job.is_over for job in found)
        if failed:
            session.console.note(f"{failed} ended with an error: 'mdl remote status {name} JOB' shows it")

    return session.show({"jobs": found}, show)


@command(
    "remote status",
    "mdl remote status gpu p-17  # the status of one job",
    "mdl remote status gpu p-17 --json  # for a script",
)
def status(session: Session, name: Name, job_id: JobId) -> int:
    """Show the status of one job. If an endpoint has no bucket, one of its workers answers, and RunPod bills that."""
    with session.client().remote(name) as remote:
        job = remote.status(job_id)
    lines = {
        "job": job.id,
        "status": job.status,
        "created": job.created_at,
        "changed": job.updated_at and f"{job.updated_at} ({_age(job)})",
        "results": if_known(job.bytes, human_bytes),
        "error": job.error,
    }
    return session.show({"jobs": [job]}, lambda: session.console.entries(lines))


@command(
    "remote cancel",
    "mdl remote cancel gpu p-17  # what it has written stays",
    "mdl remote cancel gpu p-17 --json  # for a script",
)
def cancel(session: Session, name: Name, job_id: JobId) -> int:
    """Cancel a job of a remote. What the job has written stays."""
    with session.client().remote(name) as remote:
        job = remote.cancel(job_id)
    return session.show({"jobs": [job]}, lambda: session.console.note(f"{job.id}: {job.status}"))


@command(
    "remote clean",
    "mdl remote clean store --older-than 30d  # what would be deleted",
    "mdl remote clean store --older-than 30d --yes  # delete it",
    asks=True,
)
def clean(session: Session, name: Name, older_than: OlderThan) -> int:
    """Show the old jobs in a bucket; --yes deletes them: their results, then their records.

    The age of a job is the time in its own record. mdl keeps jobs that are not over, jobs whose record has no time or
    cannot be read, and results without a record.
    """
    is_asked = session.common.yes
    console = session.console
    rows: list[dict[str, Any]] = []
    errors: list[MdlError] = []
    session.empty = {"jobs": rows}

    def show(found: Sequence[CleanedJob]) -> None:
        if not found:
            console.note("no jobs")
        elif not session.common.json:
            words = {"would delete": "delete"} if is_asked else {}
            table = [
                (
                    shown(one.job.id),
                    human_bytes(one.job.bytes),
                    words.get(one.action, one.action),
                    console.clean(one.why[:200]),
                )
                for one in found
            ]
            console.table(("JOB", "SIZE", "ACTION", "WHY"), table, below="WHY")

    with all_or_nothing("only the jobs listed as deleted are deleted; run it again to continue"):
        for one in session.client().clean_remote(name, older_than=older_than, remove=is_asked, on_found=show):
            rows.append({**vars(one.job), "action": one.action, "why": one.why})
            if one.error:
                errors.append(one.error)
            elif is_asked and (one.action == "deleted" or one.is_changed):
                console.note(f"{one.job.id}: {one.action}" + (f", {one.why}" if one.is_changed else ""))
    session.errors(errors)
    gone = [row["bytes"] or 0 for row in rows if row["action"] != "kept"]
    count = f"jobs: {len(gone)}, {human_bytes(sum(gone))}"
    if is_asked:
        console.note(f"deleted {count}")
    else:
        console.note(f"would delete {count}" + ("; --yes does" if gone else ""))
    return session.show({"jobs": rows}, error=joint_error(errors))


def _age(job: RemoteJob) -> str:
    return human_age(job.age(time.time()))
