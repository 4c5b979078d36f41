"""Leavings: what killed processes left in mdl's own place that nobody goes on with: removed with the next download."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

from mdl.engine.partial import is_held
from mdl.fs import staging
from mdl.locks import may_be_alive
from mdl.process import PATTERN, ProcessId

_OWNED = re.compile(rf"[0-9a-f]{{32}}\.({PATTERN})")


def tidy(own: Path, models: Iterable[str]) -> None:
    """Remove from ``own`` what was staged for these models, copies that were on their way to a name, and partials whose
    bytes have theirs already. Half a download is kept, and whatever belongs to a living process."""
    for folder in (own / "stage", own / "listings", *(own / "receipts" / model for model in models)):
        staging.sweep(folder)
    for folder in of_the_dead(own / "side"):
        staging.remove(folder)
    for folder in of_the_dead(own / "partials"):
        if not (folder / "data").exists():
            staging.remove(folder)


def of_the_dead(place: Path) -> list[Path]:
    """The folders of processes that are gone, in ``side`` or ``partials``; none if that is a link, for then it is
    somebody else's."""
    in_use = is_held if place.name == "partials" else _is_side_of_the_living
    with contextlib.suppress(OSError):
        if not place.is_symlink():
            return sorted(one for one in place.iterdir() if _OWNED.fullmatch(one.name) and not in_use(one))
    return []


def _is_side_of_the_living(folder: Path) -> bool:
    """Whether the process that has this folder of ``side``, which it keeps locked, lives or may live."""
    owner = folder.name.partition(".")[2]
    alive = ProcessId(owner).is_alive()
    return may_be_alive(folder, folder.rglob("*"), holds_locks=ProcessId(owner).holds_locks) if alive is None else alive
