"""Pack: find a trained run, select what goes into the archive, write it."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, field, replace
from pathlib import Path
from typing import TypedDict, Unpack, get_args

from mdl.archive.base import ArchiveLimits
from mdl.archive.manifest import NAME, Manifest, Skipped
from mdl.archive.select import COUNTED, Member, PackRules, Selection, select
from mdl.archive.streaming import Progress
from mdl.archive.unpack import open_archive
from mdl.archive.zip_records import Compression
from mdl.archive.zip_write import ArchiveSink, write_archive
from mdl.cancel import CancelToken
from mdl.config.places import place_of
from mdl.disk.publish import staged_file
from mdl.errors import MdlError, NotFound, Occupied, StorageError, UsageError, storage_trouble
from mdl.events import Listener, silence
from mdl.formatting import counted, human_bytes
from mdl.notebook import Tabular, html_table
from mdl.paths import RelPath
from mdl.runs import find_run
from mdl.runs.checkpoint import Checkpoint
from mdl.runs.run import Run
from mdl.runs.tree import Tree
from mdl.units import texts
from mdl.values import shows_keywords, value_class
from mdl.weights.junk import is_log

_WHEN_FULL = "free some space, or pack to another disk with -o; nothing was left behind"
StrPath = str | os.PathLike[str]
Output = StrPath | int | None
"""A file or an existing folder; None for the current folder; a number for an open file descriptor, like a pipe."""


@value_class
class PackRequest(PackRules):
    """What of a run is packed, where to, and how.

    ``run`` is the folder of a training. ``output`` is a file, an existing folder, None for the current folder, or the
    number of an open descriptor. ``checkpoint`` is a checkpoint's name or step, ``latest`` or ``best``; None packs the
    finished model. `PackRules` say which of its files. ``force`` replaces a file that is no archive of this run.

    ``compress`` is ``auto`` (deflate a member if that makes it smaller), ``store`` or ``deflate``. ``allow_changing``
    packs a file that changes while it is read as it was read. ``digest`` also makes the archive's own SHA-256.
    """

    run: StrPath
    output: Output = None
    _: KW_ONLY
    checkpoint: str | int | None = None
    force: bool = False
    compress: Compression = "auto"
    allow_changing: bool = False
    digest: bool = True


class PackOptions(TypedDict, total=False):
    """The fields of a `PackRequest` as keywords, for calls from a program."""

    checkpoint: str | int | None
    include: Sequence[str]
    exclude: Sequence[str]
    inference_only: bool
    logs: bool
    allow_incomplete: bool
    whole_run: bool
    allow_secrets: bool
    force: bool
    compress: Compression
    allow_changing: bool
    digest: bool


_shows_options = shows_keywords(
    PackOptions,
    """``checkpoint`` is a checkpoint's name or step, ``latest`` or ``best``; None packs the finished model.
``include`` and ``exclude`` are globs for the names in the archive. ``inference_only`` leaves out what only a resumed
training reads; ``logs`` packs the logs alone; ``whole_run`` packs everything. ``force`` replaces a file that is no
archive of this run. ``allow_incomplete`` also packs a checkpoint that lacks bytes, ``allow_secrets`` a file that holds
a secret if ``include`` has its name, ``allow_changing`` a file that changes while it is read. ``compress`` is ``auto``,
``store`` or ``deflate``; ``digest`` also makes the archive's own SHA-256.""",
)


def _request_of(run: PackRequest | StrPath, output: Output, options: PackOptions) -> PackRequest:
    """The request, or the one that these words make. Raises `UsageError` for what excludes each other."""
    request = run if isinstance(run, PackRequest) else PackRequest(run, output, **options)
    is_part = request.checkpoint is not None or request.inference_only
    if request.logs and is_part:
        raise UsageError("logs are packed alone", hint="leave out the checkpoint and inference_only")
    if request.whole_run and (is_part or request.logs):
        raise UsageError("whole_run packs the complete run", hint="leave out whole_run, or the part")
    return replace(request, include=texts(request.include), exclude=texts(request.exclude))


@value_class
class PackPlan:
    """What is packed of a run, and the output. Nothing is written yet.

    ``selection`` holds the members, their ``bytes`` (uncompressed), what is ``skipped`` and why, and ``notes`` for the
    user. ``output`` is the file to be written, or the number of an open descriptor. ``name`` is what the archive is
    called.
    """

    run: Run
    selection: Selection
    output: Path | int
    name: str

    @property
    def path(self) -> Path | None:
        """The file to be written, or None if the archive goes to a descriptor."""
        return None if isinstance(self.output, int) else self.output

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each member, and how much it is."""
        rows = [("" if one.is_folder else human_bytes(one.size), one.path.text) for one in self.selection.members]
        amount = f"{counted(self.selection.file_count, 'file')}, {human_bytes(self.selection.bytes)}"
        return html_table(("Size", "Path"), rows, f"{amount}, to {self.path or 'an open descriptor'}")

    @property
    def left_out(self) -> list[Skipped]:
        """What is skipped, without the checkpoints that a note counts."""
        return [skipped for skipped in self.selection.skipped if skipped.why not in COUNTED]


@value_class
class PackResult(Tabular):
    """An archive that was written.

    ``path`` is its file, or None if it went to a descriptor; ``name`` what it is called. ``bytes`` is its size and
    ``sha256`` its digest (None if that was not asked for). ``files`` counts the files in it, without the manifest.
    ``skipped`` are the paths of the run that were left out, with the reasons; ``changed`` the files that were packed
    although they changed meanwhile.
    """

    path: Path | None
    name: str
    bytes: int
    sha256: str | None
    files: int
    skipped: tuple[Skipped, ...]
    changed: tuple[str, ...]
    manifest: Manifest = field(repr=False)


@_shows_options
def pack(
    run: PackRequest | StrPath,
    output: Output = None,
    *,
    cancel: CancelToken | None = None,
    on_event: Listener = silence,
    **options: Unpack[PackOptions],
) -> PackResult:
    """Pack a trained run, one checkpoint of it or its logs as one zip: `plan_pack`, then `write_pack`.

    ``run`` is a `PackRequest`, or the folder of a training. ``output`` is a file, an existing folder, None for the
    current folder, or the number of an open descriptor. ``cancel`` stops the work from another thread; ``on_event`` is
    called with every event.

    Returns where the archive is, its size in bytes, its SHA-256 and what was left out. Raises as `plan_pack` and
    `write_pack`.
    """
    request = _request_of(run, output, options)
    return write_pack(
        plan_pack(request),
        compress=request.compress,
        allow_changing=request.allow_changing,
        digest=request.digest,
        cancel=cancel,
        on_event=on_event,
    )


@_shows_options
def plan_pack(run: PackRequest | StrPath, output: Output = None, **options: Unpack[PackOptions]) -> PackPlan:
    """Decide what of a run is packed, and where to, before the first byte is written.

    ``run`` is a `PackRequest`, or the folder of a training. ``output`` is a file, an existing folder, None for the
    current folder, or the number of an open descriptor.

    Returns the plan: its members, their size in bytes, what is skipped and why. Nothing is written.
    Raises `NotFound` if there is no such run, checkpoint or model, `Unsafe` for an unsafe path or link, `StorageError`
    if a file cannot be read or the output cannot be written, `ProtocolError` for an incomplete checkpoint,
    `UsageError`, `OSError`.
    """
    request = _request_of(run, output, options)
    found = find_run(place_of(request.run, "run"))
    chosen: Checkpoint | None = None
    passed_over: tuple[Checkpoint, ...] = ()
    if request.checkpoint is not None:
        chosen = found.checkpoint(str(request.checkpoint))
        if request.checkpoint in ("latest", "best"):
            passed_over = found.incomplete_after(chosen)
    name = _archive_name(found, chosen, logs=request.logs)
    if isinstance(request.output, int):
        target: Path | int = request.output
        replaced = None
    else:
        target = _target(request.output, name)
        name = target.name
        replaced = _check_output(found, target, force=request.force)
    selection = select(found, chosen, request, _archives_in(found), passed_over, str(target))
    if request.inference_only and replaced and not replaced.inference_only:
        note = f"{name} is replaced: it had all of the checkpoint, and now gets only what inference needs"
        selection = replace(selection, notes=(*selection.notes, note))
    return PackPlan(found, selection, target, name)


def _archive_name(run: Run, chosen: Checkpoint | None, *, logs: bool) -> str:
    """``model_RUN.zip``, ``model_RUN_CHECKPOINT.zip`` or ``logs_RUN.zip``. Raises `Unsafe`."""
    head = "logs" if logs else "model"
    tail = f"_{chosen.name}" if chosen else ""
    return RelPath.parse(f"{head}_{run.name}{tail}.zip").name


def _target(output: StrPath | None, name: str) -> Path:
    """The file to be written: in the current folder, in the folder ``output``, or ``output`` itself."""
    if output is None:
        return Path(os.path.realpath(name))
    place = place_of(output, "output")
    if place.is_dir():
        place = place / name
    return Path(os.path.realpath(place))


def _archives_in(run: Run) -> set[str]:
    """The real paths of the archives that mdl made of this run and left in its folder under the usual names."""
    heads = (f"model_{run.name}.", f"model_{run.name}_", f"logs_{run.name}.")
    archives = set()
    for entry in run.tree.children():
        if entry.name.startswith(heads) and entry.name.endswith(".zip"):
            place = run.tree.root / entry.real
            if _manifest_of(place):
                archives.add(str(place))
    return archives


def plan_files(folder: Path, paths: Collection[str], output: Path) -> PackPlan:
    """Decide to pack exactly the files ``paths`` of a ``folder``, under these paths; logs are left out.

    ``output`` is the file to be written. Raises `NotFound` if nothing is left, and as `plan_pack`.
    """
    tree = Tree.scan(folder)
    wanted = frozenset(paths) - {NAME}
    members = []
    size = 0
    for entry in tree.entries:
        if entry.kind == "file" and entry.path in wanted and not is_log(entry.name):
            members.append(Member(RelPath.parse(entry.path), entry))
            size += entry.stamp.size
    if not members:
        raise NotFound("there is nothing to pack, or only logs", item=str(folder))
    selection = Selection(tree, tuple(members), Manifest((), run=folder.name), bytes=size)
    return PackPlan(Run(folder.name, tree, "plain", ()), selection, output, output.name)


def write_pack(
    plan: PackPlan,
    *,
    compress: Compression = "auto",
    allow_changing: bool = False,
    digest: bool = True,
    cancel: CancelToken | None = None,
    on_event: Listener = silence,
) -> PackResult:
    """Write the archive of a plan: as a file that appears complete or not at all, or to an open descriptor.

    ``compress``, ``allow_changing`` and ``digest`` are as in a `PackRequest`. ``cancel`` stops the work from another
    thread. ``on_event`` is called with every event.

    Returns where the archive is, its size in bytes, its digest, and what was left out.
    Raises `ProtocolError` for a file that changed, `StorageError` (`NoSpace` for a full disk), `Cancelled`,
    `BrokenPipeError` if the reader of a pipe is gone, `OSError`.
    """
    if compress not in get_args(Compression):
        raise UsageError(f"{compress!r} is not one of {', '.join(get_args(Compression))}", item="compress")
    selection = plan.selection
    progress = Progress(on_event, plan.name, "pack", selection.file_count, selection.bytes, cancel)
    output: AbstractContextManager[int]
    if isinstance(plan.output, int):
        place = "standard output" if plan.output == 1 else f"descriptor {plan.output}"
        trouble = storage_trouble(place, _WHEN_FULL)
        output = nullcontext(plan.output)
    else:
        trouble = storage_trouble(plan.output, _WHEN_FULL)
        output = staged_file(plan.output)
    is_file = plan.path is not None
    with trouble, output as fd, ArchiveSink(fd, sync=is_file, digest=digest) as sink:
        manifest = write_archive(selection, sink, progress, compress=compress, allow_changing=allow_changing)
    progress.finish(sink.at, "packed")
    return PackResult(
        plan.path,
        plan.name,
        sink.at,
        sink.sha256,
        len(manifest.files),
        manifest.skipped,
        manifest.changed,
        manifest,
    )


def _check_output(run: Run, path: Path, *, force: bool) -> Manifest | None:
    """An archive may replace one of the same run; another file only with ``force``, and none that it is made of.

    Returns the manifest of the archive that it replaces, if there is one. Raises `Occupied`, `StorageError`.
    """
    hint = "choose another name with -o"
    if not path.parent.is_dir():
        raise StorageError("no such folder", item=str(path.parent), hint="make it first, or choose another with -o")
    if os.path.lexists(path) and not path.is_file():
        message = "this is not a file, and is not replaced by one"
        raise Occupied(message, item=str(path), hint=f"{hint}; -o - is a pipe")
    real = str(path).removeprefix(os.path.join(run.tree.root, ""))
    files_of_run = {entry.real for entry in run.tree.entries if entry.kind != "folder"}
    before = _manifest_of(path) if path.exists() else None
    if real in files_of_run and (before is None or before.run != run.name):
        raise Occupied("this is a file of the run itself", item=str(path), hint=hint)
    if not path.exists():
        return None
    is_of_this_run = before is not None and before.run == run.name
    if not is_of_this_run and not force:
        message = f"this file exists already, and is not an archive that mdl made of {run.name}"
        raise Occupied(message, item=str(path), hint=f"{hint}, or replace it with --force")
    return before


def _manifest_of(path: Path) -> Manifest | None:
    """The manifest of the archive at ``path``; None if no archive that mdl made is there."""
    try:
        with open_archive(path, ArchiveLimits()) as archive:
            return archive.manifest
    except (MdlError, OSError):
        return None
