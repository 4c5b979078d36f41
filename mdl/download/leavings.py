"""Leavings: what killed processes left in mdl's own place that nobody goes on with: removed with the next download."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

from mdl import staging
from mdl.download.partial import is_held

_OWNED = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{12}-[0-9]+-[0-9]+")


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
    """The folders of processes that are gone, in ``side`` or ``partials``; none where that is a link, for then it is
    somebody else's."""
    with contextlib.suppress(OSError):
        if not place.is_symlink():
            return sorted(one for one in place.iterdir() if _OWNED.fullmatch(one.name) and not is_held(one))
    return []
