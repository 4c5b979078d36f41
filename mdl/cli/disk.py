"""rm, mv and clean: models deleted from this disk or moved to another one, and what nothing needs any more."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from mdl import Settings
from mdl.cli import completion
from mdl.cli.command import command
from mdl.cli.flags import LookSettings, argument, bare_flag, flag
from mdl.cli.model_table import age_since
from mdl.cli.session import Session
from mdl.errors import MdlError
from mdl.formatting import counted, human_bytes, utc_time

if TYPE_CHECKING:
    from mdl import DeletedModel, DeleteReport, KeptFile, MovedModel, MoveReport, Waste

_NOT_YET = "nothing was deleted; --yes deletes it, and frees {}"
_NAMED = 5
"""The number of files that stay and are named for each model, without --verbose."""


@command(
    "rm",
    "mdl rm bert-fa  # shows what would go and how much, and asks",
    "mdl rm bert-fa org--repo --yes  # deletes two models",
    "mdl rm org/repo:Q8_0 --yes  # one quantisation of it, and nothing else",
    "mdl rm hf:org/repo --layout hf-cache  # from Hugging Face's cache",
    asks=True,
)
def rm(
    session: Session,
    settings: LookSettings,
    names: Annotated[
        list[str], argument("NAME|REF", "Models as 'mdl list --local' names them.", autocompletion=completion.here)
    ],
    force: Annotated[
        bool, flag("--force", "Also what you changed or added, and what another program downloaded for it.")
    ] = False,
) -> int:
    """Delete models from this disk; the catalog keeps them. mdl shows what would be deleted, and asks or needs --yes.

    mdl keeps what another model or program shares, and files that you changed or added.
    """
    client = session.client(settings)
    if session.common.yes:
        return _end_deletion(session, client.delete(names, force=force), is_done=True)
    report = client.delete(names, dry_run=True, force=force)
    if not session.common.json:
        _show_models(session, report, is_done=False)
    if not _is_wanted(session, report):
        return _end_deletion(session, report, is_done=False)
    return _end_deletion(session, client.delete(names, force=force), is_done=True)


def _is_wanted(session: Session, report: DeleteReport) -> bool:
    """Ask whether to delete what was shown, if there is anything."""
    going = [model for model in report.models if _action(model, is_done=False) != "kept"]
    if not going:
        return False
    what = f"{len(going)} models"
    if len(going) == 1:
        what = f"{going[0].label} ({counted(going[0].files, 'file')})"  # which may be a part of it
    size = human_bytes(report.bytes_freed)
    answer = session.confirm(f"Delete {what} and free {size}?")
    if not answer and not session.common.json:
        session.console.note(_NOT_YET.format(size) if answer is None else "nothing was deleted")
    return bool(answer)


def _end_deletion(session: Session, report: DeleteReport, *, is_done: bool) -> int:
    """Say how it went; what was only planned has been shown before the question."""
    session.errors(report.all_errors)
    models = [_facts(model) | {"action": _action(model, is_done=is_done)} for model in report.models]
    facts = {"models": models, "bytes_freed": report.bytes_freed}

    def show_done() -> None:
        if is_done:
            _show_models(session, report, is_done=True)

    return session.show(facts, show_done, error=report.error)


def _facts(model: DeletedModel | MovedModel) -> dict[str, Any]:
    """The fields of a row in JSON, which names a model as a folder."""
    facts = dict(vars(model))
    del facts["label"]
    return facts


def _action(model: DeletedModel, *, is_done: bool) -> str:
    if model.error or model.has_only_kept:
        return "kept"
    return "deleted" if is_done else "would delete"


def _show_models(session: Session, report: DeleteReport, *, is_done: bool) -> None:
    console = session.console
    rows: list[tuple[str, ...]] = []
    for model in report.models:
        size = human_bytes(model.bytes_freed)
        rows.append((_action(model, is_done=is_done), model.label, str(model.files), size, str(model.path)))
    if rows:
        console.table(("ACTION", "NAME", "FILES", "FREES", "FOLDER"), rows, cut=("FOLDER",), drop=("FOLDER",))
    for model in report.models:
        if model.bytes_shared:
            size = human_bytes(model.bytes_shared)
            console.note(f"{model.label}: {size} more have another name elsewhere, and stay")
        if model.files_imported and not is_done:
            count = counted(model.files_imported, "file")
            console.warn(f"{model.label}: {count} came from a folder of this machine, and mdl cannot fetch them again")
        _name_kept(session, model.label, model.kept)
    if is_done and rows:
        console.note(f"{human_bytes(report.bytes_freed)} freed")


@command(
    "mv",
    "mdl mv bert-fa --to /mnt/large/models  # to another disk, verified",
    "mdl mv org/repo other --to ../models  # two models",
)
def mv(
    session: Session,
    settings: Annotated[Settings, ("layout", "lock_wait")],
    names: Annotated[
        list[str], argument("NAME|REF", "Models as 'mdl list --local' names them.", autocompletion=completion.here)
    ],
    to: Annotated[str, bare_flag("--to DIR", "The other models folder.", panel="Where")],
) -> int:
    """Move models to another models folder, with receipts and partial files; the last line is where they are now.

    Bytes that go to another file system are verified before the old ones are removed. Run it again if it was stopped.
    """
    report = session.watched(partial(session.client(settings).move, names, to))
    session.errors(report.all_errors)
    models = [_facts(model) for model in report.models]
    return session.show({"models": models}, lambda: _show_moved(session, report), error=report.error)


def _show_moved(session: Session, report: MoveReport) -> None:
    console = session.console
    for model in report.models:
        _name_kept(session, model.label, model.kept)
        if model.error:
            continue
        moved = "nothing was left to move"
        if model.files:
            moved = f"{counted(model.files, 'file')}, {human_bytes(model.bytes)} moved"
        if model.bytes_copied:
            moved += f", {human_bytes(model.bytes_copied)} of it copied"
        console.note(f"{model.label}: {moved}")
    for model in report.models:
        if not model.error:
            console.data(str(model.path))


def _name_kept(session: Session, name: str, kept: Sequence[KeptFile]) -> None:
    """Say which files of a model stay, and why; of many the first ones."""
    named = kept if session.common.verbose else kept[:_NAMED]
    for file in named:
        session.console.note(f"{name}: {file.path} stays: {file.why}")
    if len(kept) > len(named):
        session.console.note(f"{name}: {len(kept) - len(named)} more files stay; -v names them")


@command(
    "clean",
    "mdl clean  # what would be removed, and why",
    "mdl clean --yes  # remove it",
    asks=True,
)
def clean(session: Session, settings: LookSettings) -> int:
    """Show unfinished downloads that no running or paused job needs, files that a model no longer has, and leftovers;
    --yes removes them. Models stay: 'mdl rm' deletes them."""
    is_asked = session.common.yes
    rows: list[tuple[Waste, str]] = []
    total = 0
    client = session.client(settings)
    if not session.common.json:
        with contextlib.suppress(MdlError):  # a record that is damaged, or of a newer mdl, keeps nobody from cleaning
            session.labels = {model.name: model.label for model, _ in client.inventory().models}
    for waste, is_removed in client.clean(remove=is_asked):
        action = "would delete"
        if is_removed:
            action = "deleted"
        elif waste.kept or is_asked:
            action = "kept"
        if action != "kept":
            total += waste.bytes
        rows.append((waste, action))
    items = [_waste_facts(waste, action) for waste, action in rows]
    return session.show({"items": items, "bytes": total}, lambda: _show_waste(session, rows, total))


def _waste_facts(waste: Waste, action: str) -> dict[str, Any]:
    return {
        "kind": waste.kind,
        "path": str(waste.path),
        "model": waste.model or None,
        "file": waste.file or None,
        "bytes": waste.bytes,
        "modified_at": utc_time(waste.since),
        "why": waste.reason,
        "action": action,
    }


def _show_waste(session: Session, rows: Sequence[tuple[Waste, str]], total: int) -> None:
    """Show what goes, and why."""
    console = session.console
    if not rows:
        console.note("nothing to clean; 'mdl rm NAME' deletes a model, 'mdl list --local' shows what is here")
        return
    headers = ("ACTION", "WHAT", "MODEL", "FILE", "SIZE", "AGE", "WHY")
    console.table(headers, [_waste_row(session, *row) for row in rows], cut=("FILE",), drop=("AGE",), below="WHY")
    if console.verbose:
        for waste, _ in rows:
            console.note(f"{waste.kind}: {waste.path}")
    is_any_going = any(action != "kept" for _, action in rows)
    if not is_any_going:
        console.note("nothing to clean: what is listed is kept for its job; 'mdl jobs' shows it")
    elif session.common.yes:
        console.note(f"{human_bytes(total)} freed")
    else:
        console.note(_NOT_YET.format(human_bytes(total)))


def _waste_row(session: Session, waste: Waste, action: str) -> tuple[str | None, ...]:
    file = waste.file
    if not waste.model:
        file = file or str(waste.path)
    why = waste.reason
    if waste.model and waste.kind == "partial":  # these say what it is: its URL is in the document
        why = waste.kept or "unfinished"
    age = age_since(waste.since)
    return action, waste.kind, session.spelled(waste.model), file, human_bytes(waste.bytes), age, why
