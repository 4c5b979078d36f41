"""Pack: discover a trained run, select what goes into the archive, write it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import nullcontext
from dataclasses import field, replace
from pathlib import Path
from typing import get_args

from mdl.archive.base import ArchiveLimits
from mdl.archive.manifest import NAME, Manifest, Skipped
from mdl.archive.select import A_CHECKPOINT, Member, PackOptions, Selection, select
from mdl.archive.streaming import Progress
from mdl.archive.unpack import open_archive
from mdl.archive.zip_records import Compression
from mdl.archive.zip_write import ArchiveSink, write_archive
from mdl.cancel import CancelToken
from mdl.config.places import place_of
from mdl.disk.publish import staged_file
from mdl.errors import MdlError, NotFound, Occupied, StorageError, UsageError, storage_trouble
from mdl.events import Listener, silence
from mdl.junk import is_log
from mdl.paths import RelPath
from mdl.runs import find_run
from mdl.runs.runs import Run
from mdl.runs.tree import Tree
from mdl.units import texts
from mdl.values import value_class

_WHEN_FULL = "free some space, or pack to another disk with -o; nothing was left behind"
Output = str | os.PathLike[str] | int | None
"""A file or an existing folder; None for the current folder; a number for an open file descriptor, like a pipe."""


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

    @property
    def left_out(self) -> list[Skipped]:
        """What is skipped, without the checkpoints that a note counts."""
        return [one for one in self.selection.skipped if one.why != A_CHECKPOINT]


@value_class
class PackResult:
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


def plan_pack(
    run: str | os.PathLike[str],
    output: Output = None,
    *,
    checkpoint: str | int | None = None,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    inference_only: bool = False,
    logs: bool = False,
    allow_incomplete: bool = False,
    whole_run: bool = False,
    allow_secrets: bool = False,
    force: bool = False,
) -> PackPlan:
    """Decide what of a run is packed, and where to, before the first byte is written.

    ``run`` is the folder of a training. ``output`` is a file, an existing folder, None for the current folder, or the
    number of an open descriptor. ``checkpoint`` is a checkpoint's name or step, ``latest`` or ``best``; None packs the
    finished model. ``include`` and ``exclude`` are globs for the names in the archive; an ``include`` that is the
    very name of a file that would be left out adds that file. ``inference_only`` leaves out what only a resumed
    training reads; ``logs`` packs the logs and nothing else; ``allow_incomplete`` also packs a
    checkpoint of which bytes are missing; ``whole_run`` packs the checkpoints beside the finished model too.
    ``allow_secrets`` packs a file that ``include`` names although it holds a secret. ``force`` replaces a file that is
    no archive of this run.

    Returns the plan: its members, their size in bytes, what is skipped and why. Nothing is written.
    Raises `NotFound` if there is no such run, checkpoint or model, `Unsafe` for an unsafe path or link, `StorageError`
    if a file cannot be read or the output cannot be written, `ProtocolError` for an incomplete checkpoint,
    `UsageError`, `OSError`.
    """
    if logs and (checkpoint is not None or inference_only):
        raise UsageError("logs are packed alone", hint="leave out the checkpoint and inference_only")
    if whole_run and (checkpoint is not None or inference_only or logs):
        raise UsageError("the whole run is packed, or a part of it", hint="leave out whole_run, or name no part")
    found = find_run(place_of(run, "run"))
    chosen = found.checkpoint(str(checkpoint)) if checkpoint is not None else None
    tail = f"_{chosen.name}" if chosen else ""
    name = RelPath.parse(f"{'logs' if logs else 'model'}_{found.name}{tail}.zip").name
    replaced = None
    if not isinstance(output, int):
        wanted = Path(name) if output is None else place_of(output, "output")
        output = Path(os.path.realpath(wanted / name if wanted.is_dir() else wanted))
        name = output.name
        replaced = _check_output(found, output, force=force)
    heads = (f"model_{found.name}.", f"model_{found.name}_", f"logs_{found.name}.")
    archives = (one for one in found.tree.children() if one.name.endswith(".zip") and one.name.startswith(heads))
    real = (found.tree.root / one.real for one in archives)
    own = {str(output), *(str(path) for path in real if _manifest_of(path))}
    passed_over = found.incomplete_after(chosen) if chosen and checkpoint in ("latest", "best") else ()
    options = PackOptions(
        texts(include), texts(exclude), inference_only, logs, allow_incomplete, whole_run, allow_secrets
    )
    selection = select(found, chosen, options, own, passed_over)
    if inference_only and replaced and not replaced.inference_only:
        note = f"{name} is replaced: it had all of the checkpoint, and now gets only what inference needs"
        selection = replace(selection, notes=(*selection.notes, note))
    return PackPlan(found, selection, output, name)


def plan_files(folder: Path, paths: Collection[str], output: Path) -> PackPlan:
    """Decide to pack exactly the files ``paths`` of a ``folder``, under these paths; logs are left out.

    ``output`` is the file to be written. Raises `NotFound` if nothing is left, and as `plan_pack`.
    """
    tree = Tree.scan(folder)
    wanted = frozenset(paths) - {NAME}
    found = [one for one in tree.entries if one.kind == "file" and one.path in wanted and not is_log(one.name)]
    if not found:
        raise NotFound("nothing but logs, or nothing at all, is there to be packed", item=str(folder))
    members = tuple(Member(RelPath.parse(one.path), one) for one in found)
    selection = Selection(tree, members, Manifest((), run=folder.name), bytes=sum(one.stamp.size for one in found))
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

    ``compress`` is ``auto`` (deflate a member if that makes it smaller), ``store`` or ``deflate``. ``allow_changing``
    packs a file that changes while it is read as it was read. ``digest`` also makes the archive's own SHA-256.
    ``cancel`` stops the work from another thread. ``on_event`` is called with every event.

    Returns where the archive is, its size in bytes, its digest, and what was left out.
    Raises `ProtocolError` for a file that changed, `StorageError` (`NoSpace` for a full disk), `Cancelled`,
    `BrokenPipeError` if the reader of a pipe is gone, `OSError`.
    """
    if compress not in get_args(Compression):
        raise UsageError(f"{compress!r} is not one of {', '.join(get_args(Compression))}", item="compress")
    selection = plan.selection
    progress = Progress(on_event, plan.name, "pack", len(selection.members), selection.bytes, cancel)

    place = plan.path or ("standard output" if plan.output == 1 else f"descriptor {plan.output}")
    output = nullcontext(plan.output) if isinstance(plan.output, int) else staged_file(plan.output)
    is_file = not isinstance(plan.output, int)
    with storage_trouble(place, _WHEN_FULL), output as fd, ArchiveSink(fd, sync=is_file, digest=digest) as sink:
        manifest = write_archive(selection, sink, progress, compress=compress, allow_changing=allow_changing)
    progress.finish(sink.at, "packed")
    files = len(manifest.files)
    skipped = manifest.skipped
    changed = manifest.changed
    return PackResult(plan.path, plan.name, sink.at, sink.sha256, files, skipped, changed, manifest)


def pack(
    run: str | os.PathLike[str],
    output: Output = None,
    *,
    checkpoint: str | int | None = None,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    inference_only: bool = False,
    logs: bool = False,
    allow_incomplete: bool = False,
    whole_run: bool = False,
    allow_secrets: bool = False,
    force: bool = False,
    allow_changing: bool = False,
    compress: Compression = "auto",
    cancel: CancelToken | None = None,
    on_event: Listener = silence,
) -> PackResult:
    """Pack a trained run, one checkpoint of it or its logs as one zip: `plan_pack`, then `write_pack`.

    The arguments, and what is raised, are those of the two. Returns where the archive is, its size in bytes, its
    SHA-256 and what was left out.
    """
    plan = plan_pack(
        run,
        output,
        checkpoint=checkpoint,
        include=include,
        exclude=exclude,
        inference_only=inference_only,
        logs=logs,
        allow_incomplete=allow_incomplete,
        whole_run=whole_run,
        allow_secrets=allow_secrets,
        force=force,
    )
    return write_pack(plan, compress=compress, allow_changing=allow_changing, cancel=cancel, on_event=on_event)


def _check_output(run: Run, path: Path, *, force: bool) -> Manifest | None:
    """An archive may replace one of the same run; another file only with ``force``, and none that it is made of.

    Returns the manifest of the archive that it replaces, if there is one. Raises `Occupied`, `StorageError`.
    """
    hint = "choose another name with -o"
    if not path.parent.is_dir():
        raise StorageError("no such folder", item=str(path.parent), hint="make it first, or choose another with -o")
    if os.path.lexists(path) and not path.is_file():
        what = "this is not a file, and is not replaced by one"
        raise Occupied(what, item=str(path), hint=f"{hint}; -o - is a pipe")
    real = str(path).removeprefix(os.path.join(run.tree.root, ""))
    inside = any(entry.real == real for entry in run.tree.entries if entry.kind != "folder")
    if inside and path.suffix != ".zip":
        raise Occupied("this is a file of the run itself", item=str(path), hint=hint)
    before = _manifest_of(path) if path.exists() else None
    if path.exists() and not force and (before is None or before.run != run.name):
        what = f"this file is there already, and is not an archive that mdl made of {run.name}"
        raise Occupied(what, item=str(path), hint=f"{hint}, or replace it with --force")
    return before


def _manifest_of(path: Path) -> Manifest | None:
    """The manifest of the archive at ``path``; None if no archive that mdl made is there."""
    try:
        with open_archive(path, ArchiveLimits()) as archive:
            return archive.manifest
    except (MdlError, OSError):
        return None
