"""render: manifests for the schedulers that users have already."""

from __future__ import annotations

from typing import Annotated, Literal

from mdl import UsageError
from mdl.cli.command import command
from mdl.cli.flags import LockedNames, bare_flag
from mdl.cli.session import Session, warn_of_queries
from mdl.config.places import place_of
from mdl.plugins import render as renders
from mdl.redact import Requested, has_secret

To = Annotated[str | None, bare_flag("--to DIR", "The models folder.", panel="Where")]
Program = Annotated[str | None, bare_flag("--mdl CMD", "The command that runs mdl there.", panel="Where")]
Rate = Annotated[str | None, bare_flag("--limit-rate RATE", "The most bytes per second.", panel="Speed and hours")]
Window = Annotated[
    str | None, bare_flag("--window FROM-TO", "Only at these hours. [default: 22:00-06:00]", panel="Speed and hours")
]


@command(
    "render",
    "mdl render k8s bert-fa | kubectl apply --server-side -f -  # a shared volume",
    "mdl render slurm bert-fa > get.sbatch  # a batch script",
    "mdl render cron nightly  # a line for your crontab",
    group_help="Print a manifest for a scheduler. It runs mdl again only after trouble that passes.",
)
def render(session: Session) -> int:
    """Refused: the scheduler must be named."""
    raise UsageError("the scheduler is missing", item="mdl render", hint="mdl render k8s, slurm, systemd or cron")


@command(
    "render k8s",
    "mdl render k8s bert-fa --image registry/mdl:1  # into a shared volume",
    "mdl render k8s nightly --shape daemonset --to /nvme  # onto every node",
)
def k8s(
    session: Session,
    names: LockedNames = None,
    shape: Annotated[
        Literal["job", "daemonset"],
        bare_flag("--shape", "job: into a volume claim; daemonset: on the disk of each node."),
    ] = "job",
    image: Annotated[str | None, bare_flag("--image IMAGE", "The container image of mdl. [default: mdl]")] = None,
    claim: Annotated[
        str | None, bare_flag("--claim NAME", "The volume claim of a job. [default: models]", panel="Where")
    ] = None,
    to: Annotated[
        str | None, bare_flag("--to DIR", "On the nodes of a daemonset. [default: /var/lib/mdl/models]", panel="Where")
    ] = None,
    secret: Annotated[
        str | None, bare_flag("--secret NAME", "The secret with HF_TOKEN, or NAME/KEY. [default: hf-token/token]")
    ] = None,
    limit_rate: Rate = None,
) -> int:
    """Print a Job that fills a shared volume, or a DaemonSet for the disks of all nodes.

    Catalog and lock are in it; the token of the hub is taken from a secret of the cluster."""
    options = {"shape": shape, "image": image, "claim": claim, "home": to, "secret": secret}
    return _render(session, "k8s", names, limit_rate=limit_rate, **options)


@command(
    "render slurm",
    "mdl render slurm bert-fa --to /shared > get.sbatch  # then: sbatch get.sbatch",
    "mdl render slurm nightly | sbatch  # at once",
)
def slurm(
    session: Session, names: LockedNames = None, to: To = None, program: Program = None, limit_rate: Rate = None
) -> int:
    """Print a batch script that is stopped in time, and requeued after trouble that passes."""
    return _render(session, "slurm", names, home=_home(session, to), program=program, limit_rate=limit_rate)


@command(
    "render systemd",
    "mdl render systemd nightly  # service and timer, and how to install them",
    "mdl render systemd nightly --unit timer > mdl-prefetch.timer  # one of them",
)
def systemd(
    session: Session,
    names: LockedNames = None,
    unit: Annotated[
        Literal["service", "timer"] | None, bare_flag("--unit", "Only the service, or only the timer.")
    ] = None,
    to: Annotated[str | None, bare_flag("--to DIR", "The models folder. [default: /srv/models]", panel="Where")] = None,
    program: Program = None,
    limit_rate: Rate = None,
    window: Window = None,
    schedule: Annotated[
        str | None, bare_flag("--schedule TIME", "When it runs, in the form of OnCalendar=.", panel="Speed and hours")
    ] = None,
) -> int:
    """Print a hardened service that downloads by night, and its timer."""
    options = {"home": to, "program": program, "limit_rate": limit_rate, "window": window, "schedule": schedule}
    return _render(session, "systemd", names, part=unit, **options)


@command(
    "render cron",
    "mdl render cron nightly  # to be added by crontab -e",
    "mdl render cron nightly --window 01:00-05:00  # at these hours",
)
def cron(
    session: Session,
    names: LockedNames = None,
    to: To = None,
    program: Program = None,
    limit_rate: Rate = None,
    window: Window = None,
    schedule: Annotated[
        str | None, bare_flag("--schedule TIME", "The five time fields of a crontab line.", panel="Speed and hours")
    ] = None,
    mail_to: Annotated[
        str | None, bare_flag("--mail-to ADDRESS", "The address to which cron mails what fails.", panel="Afterwards")
    ] = None,
) -> int:
    """Print a line for a crontab that downloads by night, silent if nothing failed."""
    options = {"program": program, "limit_rate": limit_rate, "window": window, "schedule": schedule, "mail_to": mail_to}
    return _render(session, "cron", names, home=_home(session, to), **options)


def _home(session: Session, to: str | None) -> str | None:
    """The models folder of this user, if it is not the one that ``config.toml`` or the defaults say."""
    home = to or session.environ.get("MDL_HOME")
    return str(place_of(home, "--to").absolute()) if home else None


def _render(
    session: Session, name: str, names: list[str] | None, *, part: str | None = None, **options: str | None
) -> int:
    given = {key: value for key, value in options.items() if value}
    if has_secret(session.environ.get("HF_ENDPOINT", "")):
        session.console.warn("HF_ENDPOINT holds a password, so the manifest leaves it out: set it there from a secret")
    found = renders.manifest(session.client(), name, names or None, **given)
    files = [file for file in found.files if file.name.endswith(part or "")]
    text = files[0].text if len(files) == 1 else found.text
    session.console.check_file(text)
    warn_of_queries(session, found.left_out)
    for words in found.warnings:
        session.console.warn(words)
    facts = {
        "format": name,
        "text": Requested(text),
        "files": [{"name": file.name, "text": Requested(file.text)} for file in files],
        "queries_left_out": found.left_out,
    }
    return session.show(facts, lambda: session.console.file(text))
