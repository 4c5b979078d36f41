"""mirror: what the lock holds, in an object store of one's own, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from mdl.cli.command import command
from mdl.cli.flags import DOWNLOAD, Choice, Force, JobFlags, LockedNames, LogFile, argument, flag
from mdl.cli.get import begin, run_job, show, show_failures
from mdl.cli.session import Session
from mdl.config.settings import Settings
from mdl.errors import UsageError
from mdl.formatting import counted, human_bytes, human_elapsed
from mdl.paths import shown
from mdl.plugins import mirror as mirrors

if TYPE_CHECKING:
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
    "mdl mirror list s3://models/mirror  # the versions in it",
    "mdl mirror pull s3://models/mirror bert-fa  # and back",
    group_help="Keep what the lock holds in your own object store: push, check, pull.",
)
def mirror(session: Session) -> int:
    """What the lock holds, in an object store of your own."""
    hint = "mdl mirror push, pull, check, list or clean, and s3://bucket/prefix; see --help"
    raise UsageError("push, pull, check, list or clean is missing", item="mdl mirror", hint=hint)


@command(
    "mirror push",
    "mdl mirror push s3://models/mirror  # all that is locked",
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
    """Put locked files of this disk into a mirror; what is there is kept. Run it again to continue after an
    interruption.

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
    """Download locked models from a mirror alone; the lock says what is right. Run it again to continue."""
    session.empty = {"mirror": url}
    if choice.revision:
        raise UsageError("--revision: the lock says which one", hint="mdl lock --upgrade NAME, or mdl get --revision")
    client = session.client(settings)
    models = client.locked_models(names or None)
    folders = begin(session, client, models, choice.into)
    work = partial(mirrors.pull, client, url, models, **choice.files, force=force)
    report = run_job(session, models, folders, job, "s3", work)
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
    report = session.watched(partial(mirrors.check, client, url, names or None, deep=deep), "s3")
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
        absent = set(names or ()) - {version.name for version in found}
        if absent:
            console.note(f"the mirror has none of: {', '.join(map(shown, sorted(absent)))}")
        elif not found:
            console.note("it has no model yet; 'mdl mirror push' uploads what is locked")
        if not found:
            return
        rows = []
        for version in found:
            status = "complete" if version.is_complete else "incomplete"
            if version.is_locked:
                status += ", locked"
            commit = shown(version.commit)[:7]
            written = shown(version.written_at)
            size = human_bytes(version.bytes)
            rows.append((shown(version.name), version.version, status, size, commit, written, version.url))
        heads = ("NAME", "VERSION", "STATUS", "SIZE", "COMMIT", "WRITTEN", "URL")
        console.table(heads, rows, cut=("URL",), drop=("COMMIT", "WRITTEN", "URL"))
        for version in found:
            if version.error:
                console.warn(str(version.error))

    return session.show({"mirror": url, "models": _versions(found)}, show_table)


@command(
    "mirror clean",
    "mdl mirror clean s3://models/mirror  # what would be deleted, and why",
    "mdl mirror clean s3://models/mirror --older-than 30d --yes  # delete it",
    asks=True,
)
def clean(
    session: Session, url: Url, settings: MirrorSettings, names: Held = None, older_than: OlderThan = "1d"
) -> int:
    """Show what a mirror no longer needs; --yes deletes it.

    These are unfinished uploads, versions that the lock has replaced, and versions without a marker.
    """
    console = session.console
    remove = session.common.yes
    items = mirrors.clean(session.client(settings), url, names or None, older_than=older_than, remove=remove)
    errors = []
    total = 0
    facts = []
    rows = []
    for item in items:
        if item.error:
            errors.append(item.error)
        if item.action != "kept":
            total += item.bytes
        facts.append({name: getattr(item, name) for name in _SHOWN_OF_ITEM})
        rows.append((item.action, item.kind, human_bytes(item.bytes), console.clean(item.url), item.why))

    def show_table() -> None:
        if rows:
            console.table(("ACTION", "WHAT", "SIZE", "URL", "WHY"), rows, below="WHY")
        if all(item.action == "kept" for item in items):
            console.note("nothing to clean")
        elif remove:
            console.note(f"{human_bytes(total)} deleted")
        else:
            console.note(f"{human_bytes(total)} would be deleted; with --yes it is")

    return session.show({"mirror": url, "items": facts}, show_table, error=session.errors(errors))


_SHOWN_OF_ITEM = ("kind", "name", "url", "bytes", "why", "action")
"""What ``--json`` shows of an item."""


def _show_report(session: Session, url: str, report: MirrorReport, words: Callable[[MirrorReport], str]) -> int:
    facts = {
        "mirror": url,
        "models": _versions(report.models),
        "bytes_sent": report.bytes_sent,
        "bytes_kept": report.bytes_kept,
        "bytes_read": report.bytes_read,
        "seconds": round(report.seconds, 3),
    }

    def show_urls() -> None:
        failed = {failure.model for failure in report.failed}
        for model in report.models:
            if model.is_complete and model.name not in failed:
                session.console.data(model.url)
        session.console.note(words(report))

    return session.show(facts, show_urls, error=report.error)


def _pushed(report: MirrorReport) -> str:
    """How a push went, in one line."""
    statuses = _statuses(report)
    count = counted(statuses.total(), "file")
    if statuses["failed"]:
        count = f"{statuses['failed']} of {count} failed"
    text = f"{count}, {human_bytes(report.bytes_sent)} sent in {human_elapsed(report.seconds)}"
    if report.bytes_kept:
        text += f"; {human_bytes(report.bytes_kept)} were there"
    return text


def _checked(report: MirrorReport) -> str:
    """How a check went, in one line."""
    statuses = _statuses(report)
    text = ""
    for status in ("corrupt", "missing", "unverified"):
        if statuses[status]:
            text += f"{statuses[status]} {status}, "
    text += f"{counted(statuses['ok'], 'file')} ok"
    if report.bytes_read:
        text += f", {human_bytes(report.bytes_read)} read"
    return text


def _statuses(report: MirrorReport) -> Counter[str]:
    """How many files have each status."""
    statuses: Counter[str] = Counter()
    for model in report.models:
        statuses.update(file.status for file in model.files)
    return statuses


def _versions(versions: Sequence[MirrorVersion]) -> list[dict[str, Any]]:
    """What ``--json`` shows of versions."""
    rows = []
    for version in versions:
        facts = dict(vars(version))
        for name in ("commit", "license", "written_at"):
            facts[name] = facts[name] or None
        rows.append(facts)
    return rows
