"""import: adopt what another program downloaded."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from mdl import Settings, UsageError
from mdl.cli.command import command
from mdl.cli.flags import DryRun, argument, bare_flag, flag
from mdl.cli.session import Session
from mdl.formatting import counted, first_of, human_bytes
from mdl.paths import shown

if TYPE_CHECKING:
    from mdl import ImportedFile, ImportReport

_LAYOUTS = {
    "ollama": "Ollama's store",
    "hf-local-dir": "a folder of the hub's client",
    "comfyui": "ComfyUI's models",
    "plain": "a plain folder",
}
_NAMED = 5
"""The number of files that were left out and are named."""


@command(
    "import",
    "mdl import ~/ComfyUI/models -n  # show what would be adopted, and as what",
    "mdl import ~/.ollama/models  # link what Ollama has; Ollama keeps it",
    "mdl import ./bert-base --as bert --move  # one folder, moved",
    "mdl import ./bert-base --from hf:org/bert  # as if mdl got it",
)
def import_folder(
    session: Session,
    folder: Annotated[str, argument("DIR", "A folder with models of another program.")],
    settings: Annotated[Settings, ("home", "offline")],
    name: Annotated[str | None, flag("--as NAME", "The name of the one model in it.", autocompletion=None)] = None,
    source: Annotated[
        str | None,
        bare_flag("--from REF", "The repository that it is a copy of: hf:org/repo[@rev].", autocompletion=None),
    ] = None,
    link: Annotated[bool, flag("--link", "Hard-link every file; fail if that is not possible.", panel="Where")] = False,
    copy: Annotated[bool, flag("--copy", "Copy every file.", panel="Where")] = False,
    move: Annotated[bool, flag("--move", "Move every file out of the folder.", panel="Where")] = False,
    dry_run: DryRun = False,
) -> int:
    """Take over models that another program downloaded: hash them, match them with the catalog, and note where they are
    from.

    Without --link, --copy or --move, mdl shares the bytes with the original if the file system can; otherwise it
    copies them."""
    if link + copy + move > 1:
        raise UsageError("only one of --link, --copy and --move can be meant", item="--move")
    how: Literal["auto", "link", "copy", "move"] = "auto"
    if link:
        how = "link"
    elif copy:
        how = "copy"
    elif move:
        how = "move"
    client = session.client(settings)
    work = partial(client.import_folder, folder, name=name, source=source, how=how, dry_run=dry_run)
    report = session.watched(work)
    session.labels = report.labels
    session.errors(report.all_errors)
    facts = dict(vars(report))
    del facts["labels"]
    left_out = facts.pop("left_out")
    facts["skipped"] = [{"path": path, "why": why} for path, why in left_out.items()]
    return session.show(facts, lambda: _show(session, report), error=report.error)


def _show(session: Session, report: ImportReport) -> None:
    """Show one line a model, and what is not one."""
    console = session.console
    models: dict[str, list[ImportedFile]] = {}
    for file in report.files:
        models.setdefault(file.model, []).append(file)
    rows = [_row(session.spelled(name), models[name]) for name in models]
    console.table(("NAME", "FILES", "SIZE", "HOW", "VERIFIED"), rows, cut=(), drop=("FILES", "HOW", "VERIFIED"))
    left_out = [f"left out: {shown(path)}: {why}" for path, why in report.left_out.items()]
    for line in first_of(left_out, most=_NAMED):
        console.note(line)
    if not report.files:
        console.note("there is no model in this folder")
    here: list[ImportedFile] = []
    came: list[ImportedFile] = []
    for file in report.files:
        if file.action == "kept":
            here.append(file)
        elif file.action != "failed":
            came.append(file)
    if here:
        console.note(f"here already: {_amount(here)}")
    if came:
        console.note(_summary(came, report, len(models)))


def _summary(came: list[ImportedFile], report: ImportReport, count: int) -> str:
    """Sum up what was or is to be imported, of so many models."""
    verb = "to import" if came[0].action == "planned" else "imported"
    summary = f"{verb} from {_LAYOUTS[report.format]}: {_amount(came)}"
    copied = sum(file.size for file in came if file.way == "copy")
    if copied:
        summary += f", {human_bytes(copied)} of it copied"
    known = {file.model for file in report.files if file.of_catalog}
    if known:
        summary += f"; {len(known)} of {counted(count, 'model')} known to the catalog"
    return summary


def _amount(files: list[ImportedFile]) -> str:
    return f"{counted(len(files), 'file')}, {human_bytes(sum(file.size for file in files))}"


def _row(name: str, files: list[ImportedFile]) -> tuple[str, ...]:
    ways: set[str] = set()
    verified: set[str] = set()
    size = 0
    for file in files:
        size += file.size
        if file.error:
            ways.add("failed")
            continue
        if file.action == "kept":
            ways.add("keep")
        else:
            ways.add(file.way or "in place")
        verified.add("unverified" if file.verified in ("none", "size") else file.verified)
    known = ",".join(sorted(verified))
    if any(file.action == "planned" for file in files):
        known = "the catalog's, by its size" if files[0].of_catalog else ""
    return name, str(len(files)), human_bytes(size), ",".join(sorted(ways)), known
