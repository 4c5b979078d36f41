"""Story 2, the way out: discover a trained run, select, write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mdl.archive.checkpoints import Checkpoint
from mdl.archive.compression import Mode
from mdl.archive.meter import Meter
from mdl.archive.outlet import Outlet
from mdl.archive.runs import Run
from mdl.archive.selection import Rules, Selection
from mdl.archive.writer import Written, write_archive
from mdl.errors import Occupied
from mdl.events import Listener, silence
from mdl.paths import RelPath
from mdl.staging import StagedFile

STDOUT = 1


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
    checkpoint = run.checkpoint(pick) if pick else None
    name = archive_name(run, checkpoint, logs=rules.logs)
    place = None
    if not to_stdout:
        out = Path(name) if out is None else out
        place = Path(os.path.realpath(out / name if out.is_dir() else out))
        _refuse_own_file(run, place)
    own = {str(place)} if place else set()
    own |= {str(run.tree.root / entry.real) for entry in run.tree.children() if _is_own(entry.name, run.name)}
    return Packing(run, Selection.of(run, checkpoint, rules, own), place, name)


def archive_name(run: Run, checkpoint: Checkpoint | None, *, logs: bool = False) -> str:
    """``model_<run>.zip``, ``model_<run>_<checkpoint>.zip`` or ``logs_<run>.zip``. Raises `Unsafe`."""
    if logs:
        return RelPath.parse(f"logs_{run.name}.zip").name
    return RelPath.parse(f"model_{run.name}{f'_{checkpoint.name}' if checkpoint else ''}.zip").name


def pack(plan: Packing, *, mode: Mode = "auto", allow_changing: bool = False, tell: Listener = silence) -> Written:
    """Carry a plan out: to its file, which is seen whole or not at all, or to standard output.

    Raises `MdlError`, `OSError`.
    """
    selection = plan.selection
    meter = Meter(tell, plan.archive, "pack", len(selection.members), selection.bytes)
    if plan.out is None:
        written = write_archive(selection, Outlet(STDOUT), meter, mode=mode, allow_changing=allow_changing)
    else:
        with StagedFile(plan.out) as staged:
            outlet = Outlet(staged.fd, sync=True)
            try:
                written = write_archive(selection, outlet, meter, mode=mode, allow_changing=allow_changing)
            finally:
                outlet.close()
            staged.publish()
    meter.finish(written.bytes, "packed")
    return written


def skipped_facts(selection: Selection) -> list[dict[str, str]]:
    return [{"path": one.path, "why": one.why} for one in selection.skipped]


def _is_own(name: str, run: str) -> bool:
    """An archive of this very run, packed into its own folder."""
    heads: Sequence[str] = (f"model_{run}.", f"model_{run}_", f"logs_{run}.")
    return name.endswith(".zip") and name.startswith(tuple(heads))


def _refuse_own_file(run: Run, place: Path) -> None:
    """An archive must not replace what it is made of."""
    inside = any(place == run.tree.root / entry.real for entry in run.tree.files())
    if inside and place.suffix != ".zip":
        raise Occupied("this is a file of the run itself", item=str(place), hint="choose another name with -o")
    if place.is_dir():
        raise Occupied("this is a folder", item=str(place), hint="choose another name with -o")
