"""mirror: what the lock holds, in an object store of one's own, and back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from mdl.cli.command import command
from mdl.cli.flags import DOWNLOAD, Choice, Force, JobFlags, LockedNames, LogFile, argument, flag
from mdl.cli.get import begin, run_job, show, show_failures
from mdl.cli.session import Session
from mdl.config.settings import Settings
from mdl.errors import UsageError, joint_error
from mdl.formatting import counted, human_bytes, human_elapsed
from mdl.paths import shown
from mdl.plugins import mirror as mirrors

if TYPE_CHECKING:
    from mdl.plugins.mirror.cleaning import MirrorItem
    from mdl.plugins.mirror.operation import MirrorReport, MirrorVersion

_TRANSFER = ("home", "layout", "connections", "patience", "retries", "stall", "limit_rate", "max_duration", "window")
PushSettings = Annotated[Settings, _TRANSFER]
PullSettings = Annotated[Settings, tuple(name for name in DOWNLOAD if name not in ("mirror", "via"))]
MirrorSettings = Annotated[Settings, ("connections", "patience", "retries", "stall")]
Url = Annotated[str, argument("URL", "The mirror: s3://bucket/prefix.")]
Held = Annotated[list[str] | None, argument("NAME", "Models; without one, all of the mirror.")]
OlderThan = Annotated[str, flag("--older-than TIME", "Keep what is younger than this.")]


@command(
    "mirror",
    "mdl mirror push s3://models/mirror bert-fa  # put the locked files there",
    "mdl mirror list s3://models/mirror  # what is there",
    "mdl mirror pull s3://models/mirror bert-fa  # and back",
    group_help="Keep what the lock holds in your own object store: push, check, pull.",
)
def mirror(session: Session) -> int:
    """What the lock holds, in an object store of your own."""
    hint = "mdl mirror push, pull, check, list or clean, and s3://bucket/prefix; see --help"
    raise UsageError("push, pull, check, list or clean is missing", item="mdl mirror", hint=hint)


@command(
    "mirror push",
    "mdl mirror push s3://models/mirror  # all that is locked and on this disk",
    "mdl mirror push s3://models/mirror bert-fa --verify  # read every byte back",
    "mdl mirror push s3://models/mirror --window 22:00-06:00  # at night",
)
def push(
    session: Session,
    url: Url,
    settings: PushSettings,
    names: LockedNames = None,
    verify: Annotated[bool, flag("--verify", "Read every object back and compare its digest.")] = False,
    log_file: LogFile = None,
) -> int:
    """Put locked files of this disk into a mirror; what is there is kept. Run it again after any interruption.

    Every byte is hashed while it is sent, and an object appears only if its file is the one that the lock names.
    """
    client = session.client(settings)
    session.signals.poll()
    with (
        session.operation_log(log_file) as log,
        session.console.watch(method="s3", others=[log]) as tell,
    ):
        report = mirrors.push(client, url, names or None, read_back=verify, on_event=tell)
        tell.end_with(report.error)
    show_failures(session, report)
    return _show_report(session, url, report, _pushed)


@command(
    "mirror pull",
    "mdl mirror pull s3://models/mirror bert-fa  # the last line is the folder",
    "mdl mirror pull s3://models/mirror nightly --to /models  # a group",
)
def pull(
    session: Session,
    url: Url,
    choice: Choice,
    settings: PullSettings,
    job: JobFlags,
    names: LockedNames = None,
    force: Force = False,
) -> int:
    """Download locked models from a mirror alone; the lock says what is right. Run it again to go on."""
    session.empty = {"mirror": url}
    if choice.revision:
        raise UsageError("--revision: the lock says which one", hint="mdl lock --upgrade NAME, or mdl get --revision")
    client = session.client(settings)
    models = client.locked_models(names or None)
    folders = begin(session, client, models, choice.into)
    work = partial(mirrors.pull, client, url, models, **choice.files, force=force)
    report = run_job(session, models, folders, job, choice.globs, "s3", work)
    return show(session, report) if report else 0


@command(
    "mirror check",
    "mdl mirror check s3://models/mirror  # sizes and metadata",
    "mdl mirror check s3://models/mirror bert-fa --deep  # every byte",
)
def check(
    session: Session,
    url: Url,
    settings: MirrorSettings,
    names: LockedNames = None,
    deep: Annotated[bool, flag("--deep", "Read every byte of it, and compare the digests.")] = False,
) -> int:
    """Compare a mirror with the lock: sizes and metadata, or every byte.

    The exit code is 6 if anything is corrupt, and 3 if anything is missing.
    """
    client = session.client(settings)
    session.signals.poll()
    with session.console.watch(method="s3") as tell:
        report = mirrors.check(client, url, names or None, deep=deep, on_event=tell)
        tell.end_with(report.error)
    show_failures(session, report)
    return _show_report(session, url, report, _checked)


@command(
    "mirror list",
    "mdl mirror list s3://models/mirror  # every version of every model",
    "mdl mirror list s3://models/mirror bert-fa --json  # with its files",
)
def list_versions(session: Session, url: Url, settings: MirrorSettings, names: Held = None) -> int:
    """List the versions of models in a mirror: how much, since when, and which one the lock names."""
    found = mirrors.versions(session.client(settings), url, names or None)
    console = session.console

    def show_table() -> None:
        rows = [
            (
                shown(one.name),
                one.version,
                ("complete" if one.is_complete else "incomplete") + (", locked" if one.is_locked else ""),
                human_bytes(one.bytes),
                shown(one.commit)[:7] or "-",
                shown(one.written_at) or "-",
                one.url,
            )
            for one in found
        ]
        if rows:
            heads = ("NAME", "VERSION", "STATUS", "SIZE", "COMMIT", "WRITTEN", "URL")
            console.table(heads, rows, cut=("URL",), drop=("COMMIT", "WRITTEN", "URL"))
        else:
            console.note("no model is there; 'mdl mirror push' puts what is locked there")
        for one in found:
            if one.error:
                console.warn(f"{one.error}")

    return session.show({"mirror": url, "models": [_version(one) for one in found]}, show_table)


@command(
    "mirror clean",
    "mdl mirror clean s3://models/mirror  # what would be deleted, and why",
    "mdl mirror clean s3://models/mirror --older-than 30d --yes  # delete it",
    asks=True,
)
def clean(
    session: Session, url: Url, settings: MirrorSettings, names: Held = None, older_than: OlderThan = "1d"
) -> int:
    """Show what nothing needs any more in a mirror; --yes deletes it.

    These are unfinished uploads, versions that the lock has replaced, and versions without a marker.
    """
    is_asked = session.common.yes
    console = session.console
    found = mirrors.clean(session.client(settings), url, names or None, older_than=older_than, remove=is_asked)
    going = [one for one in found if one.action != "kept"]

    def show_table() -> None:
        if found:
            rows = [(one.action, one.kind, human_bytes(one.bytes), console.clean(one.url), one.why) for one in found]
            console.table(("ACTION", "WHAT", "SIZE", "URL", "WHY"), rows, below="WHY")
        total = human_bytes(sum(one.bytes for one in going))
        if going:
            console.note(f"{total} {'deleted' if is_asked else 'would be deleted; with --yes it is'}")
        else:
            console.note("nothing to clean")

    errors = [one.error for one in found if one.error]
    error = joint_error(errors)
    for failed in [error] if error and console.is_machine_readable else errors:
        console.error(failed)
    return session.show({"mirror": url, "items": [_item(one) for one in found]}, show_table, error=error)


def _show_report(session: Session, url: str, report: MirrorReport, words: Any) -> int:
    facts = {key: value for key, value in vars(report).items() if key.startswith("bytes_")}
    facts |= {"mirror": url, "models": [_version(one) for one in report.models], "seconds": round(report.seconds, 3)}

    def show_urls() -> None:
        for model in report.models:
            if model.is_complete and not (model.error or any(file.error for file in model.files)):
                session.console.data(model.url)
        session.console.note(words(report))

    return session.show(facts, show_urls, error=report.error)


def _pushed(report: MirrorReport) -> str:
    files = [file for model in report.models for file in model.files]
    sent = human_bytes(report.bytes_sent)
    kept = f"; {human_bytes(report.bytes_kept)} were there" if report.bytes_kept else ""
    failed = sum(file.error is not None for file in files)
    count = f"{failed} of {counted(len(files), 'file')} failed" if failed else counted(len(files), "file")
    return f"{count}, {sent} sent in {human_elapsed(report.seconds)}{kept}"


def _checked(report: MirrorReport) -> str:
    files = [file for model in report.models for file in model.files]
    read = f", {human_bytes(report.bytes_read)} read" if report.bytes_read else ""
    statuses = {status: sum(file.status == status for file in files) for status in ("corrupt", "missing", "unverified")}
    wrong = "".join(f"{count} {status}, " for status, count in statuses.items() if count)
    return f"{wrong}{counted(sum(file.status == 'ok' for file in files), 'file')} ok{read}"


def _version(one: MirrorVersion) -> dict[str, Any]:
    facts = {key: value or None for key, value in vars(one).items() if key in ("commit", "license", "written_at")}
    return vars(one) | facts


def _item(one: MirrorItem) -> dict[str, Any]:
    return {key: value for key, value in vars(one).items() if key not in ("keys", "marker", "upload", "error")}
