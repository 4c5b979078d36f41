"""Partials of other programs: what wget, curl, a browser, ``hf`` or aria2 have left unfinished of a wanted file.

Their bytes are borrowed: copied (or cloned) into a partial of mdl's, never moved or changed. Nobody vouches for them,
so they are looked for only if a digest is known, which decides in the end. A file that another program still writes is
only read.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from mdl.bounds import LARGEST_SMALL_FILE
from mdl.disk.copy import data_ranges
from mdl.disk.own_files import read_own
from mdl.disk.safe_open import open_for_reading
from mdl.downloader.content_check import check_message
from mdl.downloader.hub_cache import UNFINISHED, CachedRepo
from mdl.files import HalfFile, LocalFile, RemoteFile
from mdl.net.ranges import RangeSet
from mdl.net.server_messages import LONGEST_POINTER, impostor, is_error_text
from mdl.weights.known_formats import BEGINNING, kind_of

_ENDINGS = (
    *(".part", ".partial", ".crdownload", ".download", ".incomplete", ".opdownload", ".tmp", ".temp"),
    *("-partial", ".filepart", ".downloading", ".unfinished", ".!qB", ".!ut", ".bc!", ".fdmdownload", ".dltmp"),
    *(".downloadInProgress", "_.gstmp"),  # llama.cpp; gsutil and gcloud
)
_NAMES = (
    ("{name}(?:" + "|".join(map(re.escape, _ENDINGS)) + ")", "most programs"),
    (r"{stem}\.[\w+-]{{8}}{suffix}\.part", "Firefox"),
    (r"{name}\.[\w+-]{{8}}\.part", "Firefox, of a name without an extension"),
    (r"\.{name}\.[A-Za-z0-9]{{6}}", "rsync"),
    (r"{name}\.[0-9a-f]{{8}}\.partial", "rclone"),
    (r"{name}\.[0-9a-f]{{32}}\.partial", "torch.hub"),
    (r"{name}\.[0-9A-Fa-f]{{8}}", "aws s3 cp, boto3"),
    (r"{name}[\w]{{8}}\.part", "gdown"),
    (r"\.azDownload-[0-9a-f-]{{36}}-{name}", "azcopy"),
    (r"downloading_{name}\.part", "LM Studio"),
)
"""How programs call a file until all of it has come, and which. (aria2 and axel use the final name, and note where they
are in a file beside it: see `pieces_there`.)"""
_NAMELESS = (
    (r"Unconfirmed [0-9]+\.crdownload", "Chrome and its relatives"),
    (r"\.(?:com\.google\.Chrome|org\.chromium\.Chromium|com\.microsoft\.Edge)\.[A-Za-z0-9]{6}", "the same"),
    (r"[\w+-]{8}\.[A-Za-z0-9.]+\.part", "Firefox"),
)
"""Names that do not tell which file it will be. Such a file is taken only if it begins as that one must."""
_ANY_NAMELESS = re.compile("|".join(pattern for pattern, _ in _NAMELESS), re.ASCII)
_LOCAL_DIRS = (Path(".cache", "huggingface", "download"), Path(".huggingface", "download"))
"""Where ``hf download --local-dir`` keeps unfinished files, below the folder that was given; the second is that of
version 0.23."""
_MODELSCOPE = "._____temp"
"""Where ModelScope's client keeps unfinished files, below the folder of the model."""
_GIT_LFS = Path(".git", "lfs", "incomplete")
"""Where git-lfs keeps unfinished files, each called after its digest, below the folder of the clone."""
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*?oid sha256:([0-9a-f]{64})\n")
"""What git leaves in the place of a large file that it has not fetched, and of which file it is."""
_ARIA2 = ".aria2"
"""How aria2 calls its control file, beside the unfinished one. The format is in its manual, "Control file": a version,
a bitfield of the pieces of one length that are complete, then the pieces that are being fetched, each with one of its
blocks of 16 KiB."""
_ARIA2_BLOCK = 16 * 1024
_ARIA2_VERSION = 1
"""Of its control file: the one in network byte order, which aria2 has written since 2009."""


def find_half(
    final: Path, folder: Path, remote: RemoteFile, in_cache: Mapping[str, Sequence[Path]], half_final: LocalFile | None
) -> HalfFile | None:
    """Return the unfinished file that has most of ``remote``: the one under its ``final`` name, if that is
    ``half_final``, beside it, where the hub's client leaves one in the model's ``folder``, or ``in_cache``, by its
    digest. None if there is none, or no digest."""
    if remote.digest is None or remote.size == 0:
        return None
    if half_final and half_final.size:
        ranges = half_final.written
        if ranges is None:
            ranges = ((0, half_final.size),)
        if ranges:
            return HalfFile(final, ranges, is_final=True)
    digits = remote.digest.hex
    in_local_dir: list[Path] = []
    for notes in _LOCAL_DIRS:
        in_local_dir += _of_hub_client(folder / notes / remote.path.text, digits)
    in_clone = [folder / _MODELSCOPE / remote.path.text, *_matching(folder / _GIT_LFS, re.compile(rf"{digits}.*"))]
    named = [*_beside(final), *in_clone, *in_local_dir, *in_cache.get(digits, ())]
    return _largest(named, remote.size) or _largest(_nameless(final), remote.size)


def _largest(places: Iterable[Path], size: int | None) -> HalfFile | None:
    """Return the unfinished file of most bytes among those at these ``places`` that have at most ``size`` bytes."""
    halves = [_half_at(place, size) for place in places]
    return max(filter(None, halves), key=attrgetter("size"), default=None)


def _half_at(path: Path, size: int | None) -> HalfFile | None:
    with contextlib.suppress(OSError), open_for_reading(path, os.O_NOFOLLOW) as fd:
        length = os.fstat(fd).st_size
        ranges = data_ranges(fd)
        is_longer = size is not None and length > size
        if ranges and not is_longer:
            return HalfFile(path, tuple(ranges))
    return None


def _beside(final: Path) -> list[Path]:
    """Return the files beside ``final`` whose names tell that they are to become it."""
    parts = {"name": re.escape(final.name), "stem": re.escape(final.stem), "suffix": re.escape(final.suffix)}
    names = re.compile("|".join(pattern.format(**parts) for pattern, _ in _NAMES), re.ASCII)
    of_safari = final.with_name(f"{final.name}.download") / final.name  # which makes a folder
    return [of_safari, *_matching(final.parent, names)]


def _nameless(final: Path) -> Iterator[Path]:
    """Yield the files beside ``final`` whose names do not tell what they are to become, and that begin as it must."""
    kind = kind_of(final.name)
    if kind is None:
        return
    for place in _matching(final.parent, _ANY_NAMELESS):
        with contextlib.suppress(OSError), open_for_reading(place, os.O_NOFOLLOW) as fd:
            if kind.can_begin_with(os.pread(fd, BEGINNING, 0), os.fstat(fd).st_size):
                yield place


def _matching(folder: Path, names: re.Pattern[str]) -> list[Path]:
    """Return what in a folder has one of these names, sorted; nothing if it cannot be listed."""
    with contextlib.suppress(OSError):
        return [entry for entry in sorted(folder.iterdir()) if names.fullmatch(entry.name)]
    return []


def _of_hub_client(final: Path, digits: str) -> list[Path]:
    """Return what the hub's client has left unfinished beside ``final`` of the file whose digest has these digits."""
    return _matching(final.parent, re.compile(rf".*\.{digits}(\..*)?{re.escape(UNFINISHED)}"))


def unfinished_blobs(repos: Sequence[CachedRepo]) -> dict[str, list[Path]]:
    """Return what the hub's client has left unfinished in its cache, by the digests that the whole files will have."""
    by_digest: dict[str, list[Path]] = {}
    for repo in repos:
        for blob in repo.blobs:
            if blob.name.endswith(UNFINISHED):
                by_digest.setdefault(blob.name.partition(".")[0], []).append(blob)
    return by_digest


# Which parts of a file were written: aria2 may give it its whole length from the start.


def written_ranges(path: Path, remote: RemoteFile) -> tuple[tuple[int, int], ...] | None:
    """Return the ranges of ``remote`` that were written into a file, if it has holes or aria2 noted which pieces are
    there: none at all if it is git's pointer to that file. Else None."""
    noted = pieces_there(path)
    if noted is not None:
        return noted
    with contextlib.suppress(OSError), open_for_reading(path, os.O_NOFOLLOW) as fd:
        pointer = _POINTER.match(os.pread(fd, LONGEST_POINTER, 0))
        if pointer and remote.digest and pointer[1].decode() == remote.digest.hex:
            return ()
        ranges = data_ranges(fd)
        if ranges != [(0, os.fstat(fd).st_size)]:
            return tuple(ranges)
    return None


def why_no_part(path: Path, name: str) -> str:
    """Return why a shorter file cannot be the beginning of the file of this ``name``: it is a web page, an error of an
    API, or a pointer; '' if it can be. Whatever else it begins with, the digest of the whole decides."""
    with contextlib.suppress(OSError), open_for_reading(path, os.O_NOFOLLOW) as fd:
        beginning = os.pread(fd, BEGINNING, 0)
        is_message = check_message(name, beginning, os.fstat(fd).st_size) is not None
        if is_message and (impostor(beginning) or is_error_text(beginning.decode(errors="replace"))):
            return "it is a message or a pointer"
    return ""


def pieces_there(final: Path) -> tuple[tuple[int, int], ...] | None:
    """Return the ranges of an unfinished file that aria2 noted as there, each from a first byte to before a last one;
    None if it noted nothing, or nothing that can be read."""
    try:
        data = read_own(final.with_name(final.name + _ARIA2), LARGEST_SMALL_FILE)
        if data is None:
            return None
        return tuple((part.start, part.stop) for part in _aria2_ranges(data))
    except (OSError, struct.error, ValueError):
        return None


def _aria2_ranges(data: bytes) -> RangeSet:
    """Return the ranges that a control file notes. Raises `struct.error` and `ValueError` for what is none."""
    version, _, hash_length = struct.unpack_from(">HII", data)
    at = struct.calcsize(">HII") + hash_length
    piece, total, _, field_length = struct.unpack_from(">IQQI", data, at)
    at += struct.calcsize(">IQQI")
    if version != _ARIA2_VERSION or not piece or field_length != (-(-total // piece) + 7) // 8:
        raise ValueError("no control file of aria2")
    complete = RangeSet()
    for number in _bits(data[at : at + field_length]):
        complete.add(number * piece, (number + 1) * piece)
    at += field_length
    (count,) = struct.unpack_from(">I", data, at)
    at += 4
    for _ in range(count):
        number, length, field_length = struct.unpack_from(">III", data, at)
        at += struct.calcsize(">III")
        for block in _bits(data[at : at + field_length]):
            start = number * piece + block * _ARIA2_BLOCK
            complete.add(start, min(start + _ARIA2_BLOCK, number * piece + length))
        at += field_length
    complete.remove(total, 2**63)
    return complete


def _bits(field: bytes) -> Iterator[int]:
    """Yield the numbers of the bits that are set, of which the first is the highest one of the first byte."""
    for number in range(8 * len(field)):
        if field[number // 8] & (0x80 >> number % 8):
            yield number
