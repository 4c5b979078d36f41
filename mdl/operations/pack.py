"""Story 2, the way out: discover a trained run, select, write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mdl.archive.compression import Mode
from mdl.archive.manifest import Manifest
from mdl.archive.meter import Meter
from mdl.archive.outlet import Outlet
from mdl.archive.selection import Rules, Selection
from mdl.archive.writer import Written, write_archive
from mdl.errors import Occupied, StorageError, storage_trouble
from mdl.events import Listener, silence
from mdl.fs.staging import StagedFile
from mdl.paths import RelPath
from mdl.trainers.checkpoints import Checkpoint
from mdl.trainers.runs import Run

STDOUT = 1
_WHEN_FULL = "free some space, or pack to another disk with -o; nothing was left behind"


@dataclass(frozen=True)
class Packing:
    """A plan: what of which run goes where. ``out`` is None for standard output."""

    run: Run
    selection: Selection
    out: Path | None
    name: str

    @property
    def archive(self) -> str:
        """The name the archive bears where it goes."""
        return self.out.name if self.out else self.name


def plan_pack(folder: Path, out: Path | None, *, to_stdout: bool, pick: str | None, rules: Rules) -> Packing:
    """Decide everything before the first byte is written.

    ``out`` is a file or an existing folder, None for the current folder. Raises `NotFound`, `Unsafe`, `StorageError`.
    """
    run = Run.find(folder)
    checkpoint = run.checkpoint(pick) if pick is not None else None
    name = archive_name(run, checkpoint, logs=rules.logs)
    place = None
    if not to_stdout:
        out = Path(name) if out is None else out
        place = Path(os.path.realpath(out / name if out.is_dir() else out))
        _check_place(run, place)
    own = {str(place)} if place else set()
    own |= {str(run.tree.root / entry.real) for entry in run.tree.children() if _is_own(entry.name, run.name)}
    passed_over = run.passed_over(checkpoint) if checkpoint and pick in ("latest", "best") else ()
    return Packing(run, Selection.of(run, checkpoint, rules, own, passed_over), place, name)


def archive_name(run: Run, checkpoint: Checkpoint | None, *, logs: bool = False) -> str:
    """``model_<run>.zip``, ``model_<run>_<checkpoint>.zip`` or ``logs_<run>.zip``. Raises `Unsafe`."""
    if logs:
        return RelPath.parse(f"logs_{run.name}.zip").name
    return RelPath.parse(f"model_{run.name}{f'_{checkpoint.name}' if checkpoint else ''}.zip").name


def pack(
    plan: Packing,
    *,
    mode: Mode = "auto",
    allow_changing: bool = False,
    digest: bool = False,
    tell: Listener = silence,
) -> Written:
    """Carry a plan out: to its file, which is seen whole or not at all, or to standard output. With ``digest`` the
    archive's own sha256 is made too.

    Raises `MdlError`, `OSError`.
    """
    selection = plan.selection
    meter = Meter(tell, plan.archive, "pack", len(selection.members), selection.bytes)
    if plan.out is None:
        written = write_archive(
            selection, Outlet(STDOUT, "standard output"), meter, mode=mode, allow_changing=allow_changing
        )
    else:
        with storage_trouble(plan.out, _WHEN_FULL), StagedFile(plan.out) as staged:
            outlet = Outlet(staged.fd, str(plan.out), sync=True, digest=digest)
            try:
                written = write_archive(selection, outlet, meter, mode=mode, allow_changing=allow_changing)
            finally:
                outlet.close()
            staged.publish()
    meter.finish(written.bytes, "packed")
    return written


def skipped_facts(manifest: Manifest | Selection) -> list[dict[str, str]]:
    return [{"path": one.path, "why": one.why} for one in manifest.skipped]


def _is_own(name: str, run: str) -> bool:
    """An archive of this very run, packed into its own folder."""
    heads: Sequence[str] = (f"model_{run}.", f"model_{run}_", f"logs_{run}.")
    return name.endswith(".zip") and name.startswith(tuple(heads))


def _check_place(run: Run, place: Path) -> None:
    """An archive replaces a file, but not one that it is made of. Raises `Occupied`, `StorageError`."""
    hint = "choose another name with -o"
    if not place.parent.is_dir():
        raise StorageError("no such folder", item=str(place.parent), hint="make it first, or choose another with -o")
    if os.path.lexists(place) and not place.is_file():
        raise Occupied("this is no file, and is not replaced by one", item=str(place), hint=f"{hint}; -o - is a pipe")
    inside = any(place == run.tree.root / entry.real for entry in run.tree.entries if entry.kind != "folder")
    if inside and place.suffix != ".zip":
        raise Occupied("this is a file of the run itself", item=str(place), hint=hint)
