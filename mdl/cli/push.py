"""push: a trained model becomes a repository of the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from mdl import Settings
from mdl.cli.command import command
from mdl.cli.flags import DryRun, argument, bare_flag
from mdl.cli.session import Session
from mdl.formatting import counted, first_of, human_bytes
from mdl.paths import shown

if TYPE_CHECKING:
    from mdl import PushResult

_NAMED = 10
"""How many files that stay here are named, without --verbose."""


@command(
    "push",
    "mdl push runs/tts hf:org/tts -n  # which files would go, and what stays here",
    "mdl push model_tts.zip hf:org/tts  # a private repository",
    "mdl push runs/tts hf:org/tts@v2 --public  # to a branch; everybody may read it",
)
def push(
    session: Session,
    source: Annotated[str, argument("ARCHIVE|FOLDER", "A folder of a training or a model, or what 'mdl pack' wrote.")],
    repository: Annotated[
        str, argument("REF", "hf:org/repo or hf:org/repo@branch; mdl creates what does not exist.", autocompletion=None)
    ],
    settings: Annotated[Settings, ("stall", "offline")],
    public: Annotated[bool, bare_flag("--public", "Let everyone read the repository; else it is private.")] = False,
    dry_run: DryRun = False,
) -> int:
    """Upload a trained model to the hub with huggingface_hub; the last line is the commit.

    What 'mdl pack' leaves out stays here, and so does every file that holds a token or key.
    """
    client = session.client(settings)
    with session.console.watch(method="hub") as on_event:
        report = client.push(source, repository, public=public, dry_run=dry_run, on_event=on_event)
        on_event.end_with(None)
    facts = {**vars(report), "files": len(report.files), "bytes": report.bytes, "members": list(report.files)}
    return session.show(facts, lambda: _show(session, report))


def _show(session: Session, report: PushResult) -> None:
    console = session.console
    if report.commit is None:
        console.table(("SIZE", "PATH"), [(human_bytes(file.size), shown(file.path)) for file in report.files])
    lines = [f"stays here: {skipped.path}: {skipped.why}" for skipped in report.skipped]
    for line in lines if session.common.verbose else first_of(lines, most=_NAMED):
        console.note(line)
    amount = f"{counted(len(report.files), 'file')}, {human_bytes(report.bytes)}"
    place = f"{report.repo}@{report.branch}"
    if report.commit is None:
        console.note(f"{amount} to {place}; nothing was uploaded")
        return
    access = "private" if report.private else "public"
    console.note(f"{amount} are in {place} ({access}): {report.url}")
    console.data(f"{report.repo}@{report.commit}")
