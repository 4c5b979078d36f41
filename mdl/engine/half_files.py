"""Half files: what another program has left unfinished of a file that is wanted: wget, curl, a browser, ``hf``, aria2.

Their bytes are borrowed: copied (or cloned) into a partial, never moved or changed. Nobody vouches for them, so they
are looked for only if a digest is known, which decides in the end. A file that another program still writes is only
read.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mdl.engine.hub_cache import UNFINISHED
from mdl.engine.hub_repos import CachedRepo
from mdl.files import HalfFile, LocalFile, RemoteFile
from mdl.fs.copying import data_ranges
from mdl.fs.entries import open_for_reading

_ENDINGS = (
    *(".part", ".partial", ".crdownload", ".download", ".incomplete", ".opdownload", ".tmp", ".temp"),
    *("-partial", ".filepart", ".downloading", ".unfinished", ".!qB", ".!ut", ".bc!", ".fdmdownload", ".dltmp"),
)
"""What programs add to the name of a file until all of it has come. (aria2 and axel use the final name, and note where
they are in a file beside it.)"""
_RSYNC = re.compile(r"[A-Za-z0-9]{6}")
_LOCAL_DIR = Path(".cache", "huggingface", "download")
"""Where ``hf download --local-dir`` keeps unfinished files, below the folder that was given."""


def find_half(
    final: Path, folder: Path, remote: RemoteFile, in_cache: Mapping[str, Sequence[Path]], half_final: LocalFile | None
) -> HalfFile | None:
    """The unfinished file that has most of ``remote``: the one under its ``final`` name, if that is ``half_final``,
    beside it, where the hub's client leaves one in the model's ``folder``, or ``in_cache``, by its digest. None if
    there is none, or no digest."""
    if remote.digest is None or remote.size == 0:
        return None
    if half_final and half_final.stamp and half_final.stamp.size:
        ranges = ((0, half_final.stamp.size),) if half_final.written is None else half_final.written
        if ranges:
            return HalfFile(final, ranges, is_final=True)
    places = [*_beside(final), *_of_hub_client(folder, remote), *in_cache.get(remote.digest.hex, ())]
    found = [half for place in places if (half := _half_at(place, remote.size))]
    return max(found, key=lambda half: half.size, default=None)


def _half_at(path: Path, size: int | None) -> HalfFile | None:
    """The unfinished file under ``path``; None if there is none, or if it has more than ``size`` bytes."""
    with contextlib.suppress(OSError), open_for_reading(path, os.O_NOFOLLOW) as fd:
        length = os.fstat(fd).st_size
        ranges = data_ranges(fd)
        is_longer = size is not None and length > size
        if length and ranges and not is_longer:
            return HalfFile(path, tuple(ranges))
    return None


def _beside(final: Path) -> Iterator[Path]:
    for ending in _ENDINGS:
        yield final.with_name(f"{final.name}{ending}")
    yield final.with_name(f"{final.name}.download") / final.name  # Safari makes a folder
    with contextlib.suppress(OSError):
        start = f".{final.name}."
        for entry in final.parent.iterdir() if final.parent.is_dir() else ():
            if entry.name.startswith(start) and _RSYNC.fullmatch(entry.name.removeprefix(start)):
                yield entry


def _of_hub_client(folder: Path, remote: RemoteFile) -> Iterator[Path]:
    assert remote.digest is not None
    place = (folder / _LOCAL_DIR / remote.path.text).parent
    with contextlib.suppress(OSError):
        for entry in sorted(place.iterdir()):
            if entry.name.endswith(UNFINISHED) and f".{remote.digest.hex}." in entry.name:
                yield entry


def unfinished_blobs(repos: Sequence[CachedRepo]) -> dict[str, list[Path]]:
    """What the hub's client has left unfinished in its cache, by the digests that the whole files will have."""
    found: dict[str, list[Path]] = {}
    for repo in repos:
        for blob in repo.blobs:
            if blob.name.endswith(UNFINISHED):
                found.setdefault(blob.name.partition(".")[0], []).append(blob)
    return found
