"""Clearing: the place where a file that was brought gets its name, and what may be replaced there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from mdl.errors import Occupied
from mdl.files import LocalFile, RemoteFile, Stamp
from mdl.fs.entries import EntryAt, open_parent
from mdl.paths import RelPath


@contextlib.contextmanager
def cleared(
    place: tuple[Path, RelPath], remote: RemoteFile, seen: LocalFile | None, is_ours: Callable[[], bool]
) -> Iterator[EntryAt]:
    """The spot of a file. What came there since it was ``seen`` stays, unless it ``is_ours``; without ``seen`` any file
    goes. Raises `Unsafe`, `Occupied`, `OSError`."""
    with open_parent(*place) as found:
        found.refuse_special()
        now = found.stat() if seen else None
        if now and seen and not (seen.stamp and Stamp.of(now) == seen.stamp) and not is_ours():
            raise _came_meanwhile(remote)
        try:
            yield found.as_new() if seen and now is None else found
        except FileExistsError:
            raise _came_meanwhile(remote) from None


def _came_meanwhile(remote: RemoteFile) -> Occupied:
    hint = "use --force to replace it, or --to for another folder"
    return Occupied("another file was put there meanwhile", item=remote.path.text, hint=hint)
