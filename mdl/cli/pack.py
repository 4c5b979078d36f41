"""checkpoints, pack and push: what a trained run holds, and taking it away, as a zip or to the hub."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import mdl
from mdl import Settings, StorageError, UsageError
from mdl.cli import completion
from mdl.cli.command import all_or_nothing, command
from mdl.cli.flags import DryRun, Exclude, LogFile, argument, bare_flag, check_alone, flag
from mdl.cli.session import Session
from mdl.config.places import place_of
from mdl.formatting import counted, first_of, human_bytes, if_known, local_time, utc_time
from mdl.paths import shown
from mdl.values import value_class

if TYPE_CHECKING:
    from pathlib import Path

    from mdl import PackPlan, PackRequest, PackResult, PushResult, Run
    from mdl.jobs.log import OperationLog

_STDOUT = 1
RunFolder = Annotated[str, argument("RUN", "The folder of a training.")]


@value_class
class SelectionFlags:
    """What of a run is packed."""

    include: Annotated[
        list[str] | None,
        flag("--include GLOB", "Only files that match; the plain name of a left-out file adds it; repeatable."),
    ] = None
    exclude: Exclude = None
    checkpoint: Annotated[
        str | None,
        flag(
            "--checkpoint NAME",
            "One checkpoint: its name or step, latest or best.",
            autocompletion=completion.checkpoints,
        ),
    ] = None
    inference_only: Annotated[bool, flag("--inference-only", "Only what inference needs, no optimizer state.")] = False
    logs: Annotated[bool, flag("--logs", "The run's logs, and nothing else.")] = False
    everything: Annotated[
        bool, bare_flag("--all", "Everything in the folder, also the checkpoints beside a finished model.")
    ] = False
    allow_secrets: Annotated[
        bool, bare_flag("--allow-secrets", "With --include NAME: pack that file even if it holds a secret.")
    ] = False


@value_class
class OutputFlags:
    """Where an archive goes, and how it is written."""

    output: Annotated[str | None, flag("-o --output FILE", "The archive; - is standard output.", panel="Where")] = None
    dry_run: Annotated[bool, flag("-n --dry-run", "Show what would be packed, and stop.")] = False
    compress: Annotated[
        Literal["auto", "store", "deflate"], flag("--compress", "auto: deflate if that makes a sample smaller.")
    ] = "auto"
    allow_incomplete: Annotated[bool, flag("--allow-incomplete", "Also pack an incomplete checkpoint.")] = False
    force: Annotated[
        bool, bare_flag("--force", "Replace a file that is not an archive of this run.", panel="Where")
    ] = False
    allow_changing: Annotated[
        bool, flag("--allow-changing", "Pack files as they are read, even while they are written.")
    ] = False


@command(
    "checkpoints",
    "mdl checkpoints runs/tts  # name, step, size, latest, best",
    "mdl checkpoints runs/tts --json  # for a script",
)
def checkpoints(session: Session, run: RunFolder) -> int:
    """List the checkpoints of a training: which is the latest, which the best, and whether each is complete."""
    session.empty = {"run": run}
    found = mdl.checkpoints(place_of(run, "RUN"))
    rows: list[dict[str, Any]] = []
    for checkpoint in found.checkpoints:
        rows.append(
            {
                "name": checkpoint.name,
                "step": checkpoint.step,
                "epoch": checkpoint.epoch,
                "bytes": checkpoint.bytes,
                "complete": checkpoint.complete,
                "latest": checkpoint.latest,
                "best": checkpoint.best,
                "note": checkpoint.note,
                "files": len(checkpoint.files),
                "modified_at": utc_time(checkpoint.modified_ns / 1e9),
            }
        )
    below: list[dict[str, Any]] = [{"path": path, "checkpoints": count} for path, count in found.runs_below]
    facts = {"run": str(found.tree.root), "layout": found.layout, "checkpoints": rows}
    facts |= {"latest_note": found.latest_note, "best_note": found.best_note, "also": below}

    def show() -> None:
        _show_checkpoints(session, found, rows)
        for path, count in found.runs_below:
            session.console.note(f"also: {os.path.join(run, path)} ({counted(count, 'checkpoint')})")

    return session.show(facts, show)


def _show_checkpoints(session: Session, found: Run, rows: list[dict[str, Any]]) -> None:
    unseen = [entry for entry in found.tree.entries if entry.kind in ("unreadable", "escapes")]
    for line in first_of([f"not looked at: {entry.path} ({entry.why})" for entry in unseen]):
        session.console.note(line)
    if not rows:
        session.console.note(found.latest_note or f"there is no model in {found.tree.root}")
        return
    table = []
    for row, checkpoint in zip(rows, found.checkpoints, strict=True):
        counts = (if_known(row["step"], str), if_known(row["epoch"], str), human_bytes(row["bytes"]), str(row["files"]))
        words = (local_time(row["modified_at"] or ""), checkpoint.state, shown(checkpoint.note))
        table.append((shown(checkpoint.name), *counts, *words))
    session.console.table(
        ("NAME", "STEP", "EPOCH", "SIZE", "FILES", "TIME", "STATE", "NOTE"),
        table,
        drop=("FILES", "TIME", "EPOCH", "SIZE", "STEP"),
        below="NOTE",
    )
    if found.latest_note:
        session.console.note(f"latest: {found.latest_note}")
    if not any(row["best"] for row in rows):
        session.console.note(f"layout {found.layout}; best: {found.best_note or 'none is recorded'}")


@command(
    "pack",
    "mdl pack runs/tts  # the model: model_tts.zip",
    "mdl pack runs/tts --checkpoint latest  # one checkpoint",
    "mdl pack runs/tts --logs  # the logs alone",
    "mdl pack runs/tts -o - | ssh host 'cat > tts.zip'  # to another machine",
)
def pack(session: Session, run: RunFolder, what: SelectionFlags, how: OutputFlags, log_file: LogFile = None) -> int:
    """Pack a trained model as one zip: model_<run>.zip, model_<run>_<checkpoint>.zip or logs_<run>.zip."""
    request = _request(session, run, what, how)
    if how.dry_run:
        return _show_plan(session, mdl.plan_pack(request))
    with session.operation_log(log_file) as log:
        packed = _write(session, request, log)
        where = packed.path or "standard output"
        log.note(packed.name, f"wrote {where}, {counted(packed.files, 'file')}, {packed.bytes} bytes")
    for line in first_of([f"{path} changed while it was read; it is packed as it was read" for path in packed.changed]):
        session.console.warn(line)
    facts = {
        "archive": packed.name,
        "bytes": packed.bytes,
        "files": packed.files,
        "sha256": packed.sha256,
        "skipped": packed.skipped,
        "path": packed.path,
        "changed": packed.changed,
    }

    def show() -> None:
        if packed.path is not None:
            session.console.data(str(packed.path))

    return session.show(facts, show)


def _request(session: Session, run: str, what: SelectionFlags, how: OutputFlags) -> PackRequest:
    """What the flags ask for. Raises `UsageError` for flags that exclude each other."""
    to_stdout = how.output == "-"
    _check_pack(session, what, to_stdout=to_stdout and not how.dry_run)
    output: Path | int | None = None
    if to_stdout:
        output = _STDOUT
    elif how.output is not None:
        output = place_of(how.output, "-o")
    return mdl.PackRequest(
        place_of(run, "RUN"),
        output,
        checkpoint=what.checkpoint,
        include=what.include or (),
        exclude=what.exclude or (),
        inference_only=what.inference_only,
        logs=what.logs,
        allow_incomplete=how.allow_incomplete,
        whole_run=what.everything,
        allow_secrets=what.allow_secrets,
        force=how.force,
        compress=how.compress,
        allow_changing=how.allow_changing,
        digest=session.common.json,
    )


def _write(session: Session, request: PackRequest, log: OperationLog) -> PackResult:
    plan = mdl.plan_pack(request)
    _show_left_out(session, plan)
    left = "nothing was written" if plan.path else "what was written so far is no complete archive"
    with session.console.watch(method="inline", others=[log]) as on_event, all_or_nothing(left):
        return mdl.write_pack(
            plan,
            compress=request.compress,
            allow_changing=request.allow_changing,
            digest=request.digest,
            on_event=on_event,
        )


def _check_pack(session: Session, what: SelectionFlags, *, to_stdout: bool) -> None:
    """Raises `UsageError` for flags that exclude each other, `StorageError` for a stdout that takes no archive."""
    part = {"--checkpoint": what.checkpoint, "--inference-only": what.inference_only}
    if what.logs:
        check_alone("--logs", part, "packs the run's logs and nothing else")
    if what.everything:
        check_alone("--all", part | {"--logs": what.logs}, "packs the complete folder")
    if not to_stdout:
        return
    if session.common.json:
        raise UsageError(
            "standard output takes the archive or the document, not both", item="--json", hint="use -o FILE"
        )
    if sys.stdout is None:
        raise StorageError("standard output is closed", item="-o -", hint="use -o FILE")
    if sys.stdout.isatty():
        raise UsageError("an archive is not written to a terminal", item="-o -", hint="use -o FILE, or a pipe")


def _show_plan(session: Session, plan: PackPlan) -> int:
    selection = plan.selection
    sizes = [(member.path.text, None if member.is_folder else member.size) for member in selection.members]
    facts = {
        "archive": plan.name,
        "bytes": selection.bytes,
        "files": selection.file_count,
        "sha256": None,
        "skipped": selection.skipped,
        "path": plan.path,
        "members": [{"path": path, "size": size or 0} for path, size in sizes],
    }

    def show() -> None:
        rows = [(if_known(size, human_bytes), path) for path, size in sizes]
        session.console.table(("SIZE", "PATH"), rows)
        _show_left_out(session, plan)
        amount = f"{counted(selection.file_count, 'file')}, {human_bytes(selection.bytes)}"
        session.console.note(f"{amount}, to {plan.path or 'standard output'}")

    return session.show(facts, show)


def _show_left_out(session: Session, plan: PackPlan) -> None:
    for note in plan.selection.notes:
        session.console.note(note)
    for line in first_of([f"left out: {one.path} ({one.why})" for one in plan.left_out]):
        session.console.note(line)


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
    return session.show(facts, lambda: _show_push(session, report))


def _show_push(session: Session, report: PushResult) -> None:
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
