"""Opening: the archive that a file is, told by its content and not by its name."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from mdl.archive.directory import ArchiveLimits
from mdl.archive.formats import BEGINNING, archive_kind, model_in_an_archive, not_an_archive
from mdl.archive.manifest import NAME as MANIFEST
from mdl.archive.reader import AnyArchive, ZipArchive
from mdl.archive.tar_format import BLOCK, is_header
from mdl.archive.tar_reader import TarArchive, first_bytes
from mdl.archive.zip_format import END, END_RECORD, FULL16
from mdl.errors import NotFound, ProtocolError, storage_trouble
from mdl.paths import shown
from mdl.weights.end_records import zip_names
from mdl.weights.table import kind_of

_ZIP_TAIL = END_RECORD.size + FULL16


def open_archive(path: Path, limits: ArchiveLimits, watch: Callable[[int], None] = lambda _count: None) -> AnyArchive:
    """Open a zip, a tar or a tar.gz, and check all that it says of itself.

    A tar is read to its end for that; ``watch`` is called with the number of bytes of each step. Raises `NotFound`,
    `ProtocolError` for damage and for a file that is no such archive, which it names, `Unsafe` for what must not be
    unpacked, `StateError`, `StorageError`.
    """
    fd = _opened(path)
    try:
        with storage_trouble(path, ""):
            beginning = os.pread(fd, BEGINNING, 0)
            kind = archive_kind(beginning)
            if kind is None and not _has_zip_end(fd):
                raise not_an_archive(beginning, shown(path.name)).on(str(path))
            if kind == "tar.gz" and not _holds_tar(path, fd):
                what = "this is packed with gzip, and holds no tar"
                hint = f"unpack it with 'gunzip {shown(path.name)}'; mdl unpacks zip, tar and tar.gz"
                raise ProtocolError(what, item=str(path), hint=hint)
    except BaseException:
        os.close(fd)
        raise
    if kind in ("tar", "tar.gz"):
        return TarArchive(path, fd, limits, is_gzip=kind == "tar.gz", watch=watch)
    return ZipArchive(path, fd, limits)


def is_to_be_unpacked(path: Path, *, is_called_so: bool) -> bool:
    """Whether a file is an archive of files: it begins as a zip, a tar or a tar.gz, or ``is_called_so``; and it is not
    itself what programs load, as a torch file is.

    A zip is told by the names in it, a tar by its own name. Raises `NotFound`, `ProtocolError`, `StorageError`.
    """
    kind = kind_of(path.name)
    is_called_a_model = kind is not None and kind.holds_weights and kind.is_certain
    with os.fdopen(_opened(path), "rb") as file, storage_trouble(path, ""):
        fd = file.fileno()
        archive = archive_kind(os.pread(fd, BEGINNING, 0))
        if archive == "zip":
            members = zip_names(file, os.fstat(fd).st_size)
            if members:
                return MANIFEST in members or not model_in_an_archive(path.name, members)
        if archive == "tar.gz" and not _holds_tar(path, fd):
            archive = None
    return is_called_so or (archive is not None and not is_called_a_model)


def _holds_tar(path: Path, fd: int) -> bool:
    return is_header(first_bytes(path, fd, BLOCK))


def _opened(path: Path) -> int:
    with storage_trouble(path, ""):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            hint = "name the archive that was fetched or packed"
            raise NotFound("no such archive", item=str(path), hint=hint) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        hint = "name a zip, a tar or a tar.gz; a pipe cannot be read"
        raise ProtocolError("this is not an archive, and not even a file", item=str(path), hint=hint)
    return fd


def _has_zip_end(fd: int) -> bool:
    """Whether the end record of a zip is where one may be."""
    size = os.fstat(fd).st_size
    return END in os.pread(fd, _ZIP_TAIL, max(0, size - _ZIP_TAIL))
