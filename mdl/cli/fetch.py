"""fetch: the results of jobs that ran elsewhere, from a remote of ``config.toml``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import mdl
from mdl import UsageError
from mdl.cli import completion
from mdl.cli.command import command
from mdl.cli.flags import FOREVER, DownloadSettings, DryRun, Force, Globs, JobFlags, argument, check_alone, flag
from mdl.cli.get import begin, run_job, show, show_plan
from mdl.cli.session import Session
from mdl.cli.unpack import BombFlags, Check, Keep, released_facts, show_release
from mdl.values import value_class

if TYPE_CHECKING:  # it brings all that asks remotes, of which help needs nothing
    from mdl import FetchReport


@value_class
class WhatFlags:
    """Which results of a job."""

    checkpoint: Annotated[
        str | None,
        flag(
            "--checkpoint NAME",
            "One checkpoint: its name, its step, latest or best.",
            autocompletion=completion.by_role,
        ),
    ] = None
    logs: Annotated[bool, flag("--logs", "The logs, and nothing else.")] = False
    everything: Annotated[
        bool, flag("--all", "All files: pictures, logs, all checkpoints, what file managers left there.")
    ] = False
    into: Annotated[str | None, flag("--into DIR", "Put the files of one job directly into DIR.", panel="Where")] = None
    wait: Annotated[
        str | None,
        flag(
            "--wait TIME",
            "How long to wait for jobs that still run; without TIME, until they end.",
            panel="Speed and hours",
        ),
    ] = None
    allow_running: Annotated[bool, flag("--allow-running", "Download what is there of a job that still runs.")] = False
    keep_archive: Annotated[bool, flag("--keep-archive", "Keep the archive beside the folder.")] = False


@value_class
class ServiceFlags:
    """How the results are put into service."""

    release: Annotated[
        str | None,
        flag("--release DIR", "One job: serve it, as DIR/releases/<version> and DIR/current.", panel="Afterwards"),
    ] = None
    keep: Keep = 3
    check: Check = None


@command(
    "fetch",
    "mdl fetch gpu p-17  # the results of one job",
    "mdl fetch box job-3 --checkpoint best --wait 2h  # once it is finished",
    "mdl fetch store p-17 p-18 --include 'lora/*'  # some files of two jobs",
    "mdl fetch box job-3 --release /srv/tts  # and into service",
)
def fetch(
    session: Session,
    remote: Annotated[str, argument("REMOTE", "A name of [remotes] in config.toml.")],
    jobs: Annotated[list[str], argument("JOB", "Ids of its jobs.")],
    what: WhatFlags,
    globs: Globs,
    bounds: BombFlags,
    service: ServiceFlags,
    settings: DownloadSettings,
    job: JobFlags,
    dry_run: DryRun = False,
    force: Force = False,
) -> int:
    """Download the results of training jobs; the last lines are the folders. Run it again to continue."""
    _check(what, service, jobs)
    client = session.client(settings)
    models = client.results(
        remote, jobs, checkpoint=what.checkpoint or "", logs=what.logs, everything=what.everything, **globs.globs
    )
    folders = begin(session, client, models, what.into)
    method = "s3" if client.network.remotes[remote].kind == "bucket" else "http"
    if dry_run:
        plan = partial(client.plan_fetch, models, allow_running=what.allow_running, into=what.into, force=force)
        return show_plan(session, plan, method)
    work = partial(
        client.fetch,
        models,
        wait=True if what.wait == FOREVER else what.wait or False,
        allow_running=what.allow_running,
        keep_archive=what.keep_archive,
        limits=mdl.ArchiveLimits(bounds.max_members, bounds.max_ratio),
        force=force,
        into=what.into,
        release=service.release,
        keep=service.keep,
        check=service.check,
    )
    report = run_job(session, models, folders, job, method, work)
    return _show(session, report) if report else 0


def _check(what: WhatFlags, service: ServiceFlags, jobs: list[str]) -> None:
    """Raises `UsageError` for flags that exclude each other."""
    if what.checkpoint == "":  # as of a variable of a script that is not set
        hint = "name one, as --checkpoint latest, or leave it out for the complete model"
        raise UsageError("the name of the checkpoint is empty", item="--checkpoint", hint=hint)
    if what.everything:
        check_alone("--all", {"--checkpoint": what.checkpoint, "--logs": what.logs}, "takes all files of a job")
    if what.logs:
        check_alone("--logs", {"--checkpoint": what.checkpoint}, "belong to a job, not to a checkpoint")
    if service.release is None:
        if service.check is not None:
            raise UsageError("--check belongs to --release", hint="add --release DIR, or leave out --check")
        return
    check_alone("--release", {"--into": what.into, "--logs": what.logs}, "puts the model of one job into service")
    if len(jobs) > 1:
        raise UsageError("puts the model of one job into service", item="--release", hint="name one job")


def _show(session: Session, report: FetchReport) -> int:
    """The folders, or that of the release; nothing if the release failed."""
    done = report.release
    released = released_facts(done) if done else None
    code = show(session, report, folders=not done and not report.release_error, release=released)
    if done and not session.common.json:
        show_release(session, done)
    return code
