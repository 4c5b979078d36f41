"""Unpack: open the archive that a file is, as its content tells; check it, and write it into a new folder."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from mdl.archive.base import AnyArchive, ArchiveEntry, ArchiveLimits
from mdl.archive.manifest import NAME, Manifest, ManifestEntry
from mdl.archive.streaming import BackgroundSync, Progress
from mdl.archive.tar import BLOCK, TarArchive, first_bytes
from mdl.archive.zip_read import ZipArchive
from mdl.archive.zip_records import END, END_RECORD, FULL16
from mdl.disk import disk_space, publish
from mdl.errors import NoSpace, NotFound, Occupied, ProtocolError, storage_trouble
from mdl.paths import shown
from mdl.values import value_class
from mdl.weights.end_records import ReadableFile, read_at, zip_names
from mdl.weights.known_formats import (
    BEGINNING,
    Kind,
    archive_kind,
    is_tar_header,
    is_weights,
    kind_of,
    weights_kind,
)

_UNPACKS = "mdl unpacks zip, tar and tar.gz"


@value_class
class Format:
    """One format of a file: how it begins, and the command that unpacks it; without one, the file is used as it is, for
    it holds a model or a text."""

    name: str
    begins: tuple[bytes, ...]
    command: str = ""
    at: int = 0


_FORMATS = (
    Format("a 7z archive", (b"7z\xbc\xaf\x27\x1c",), "7z x"),
    Format("a rar archive", (b"Rar!\x1a\x07",), "unrar x"),
    Format("packed with Zstandard", (b"\x28\xb5\x2f\xfd",), "tar --zstd -xf"),
    Format("packed with xz", (b"\xfd7zXZ\0",), "tar -xJf"),
    Format("packed with bzip2", (b"BZh",), "tar -xjf"),
    Format("packed with lz4", (b"\x04\x22\x4d\x18",), "lz4 -d"),
    Format("packed with lzip", (b"LZIP",), "tar --lzip -xf"),
    Format("packed with compress", (b"\x1f\x9d",), "tar -xZf"),
    Format("a cabinet archive", (b"MSCF",), "7z x"),
    Format("a Debian package or a static library", (b"!<arch>\n",), "ar x"),
    Format("a squashfs image", (b"hsqs",), "unsquashfs"),
    Format("a GGUF file", (b"GGUF",)),
    Format("an HDF5 file", (b"\x89HDF\r\n\x1a\n",)),
    Format("a NumPy array", (b"\x93NUMPY",)),
    Format("a TensorFlow Lite file", (b"TFL3",), at=4),
    Format("a pickle, perhaps of torch", (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")),
    Format("a Parquet file", (b"PAR1",)),
    Format("an Arrow file", (b"ARROW1",)),
)
"""One row a format, by its first bytes."""
_LONGEST_MAGIC = max(len(magic) for known in _FORMATS for magic in known.begins)


def not_an_archive(beginning: bytes, name: str) -> ProtocolError:
    """The error for a file called ``name`` that is neither a zip nor a tar."""
    for known in _FORMATS:
        if beginning[known.at :].startswith(known.begins):
            return _named(known.name, known.command, name)
    if beginning[8:9] == b"{" and int.from_bytes(beginning[:8], "little") < 2**32:
        return _named("a safetensors file", "", name)
    text = beginning[:512].lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return ProtocolError("this is a web page, no archive", hint="fetch it again; a login may be needed")
    if text.startswith(b"version https://git-lfs"):
        return ProtocolError("this is a Git LFS pointer, no archive", hint="fetch the file itself with 'git lfs pull'")
    if not beginning:
        return ProtocolError("this file is empty", hint="fetch or pack the archive again")
    what = f"this is no archive that mdl knows: {_UNPACKS}"
    if not beginning.strip(b"\0"):
        what = "this file begins with zeros: it was not written to its end, or is no archive"
    return ProtocolError(what, hint="fetch or pack the archive again, or name a zip, a tar or a tar.gz")


_ESTIMATOR = re.compile(r".+\.(joblib|pkl|pickle)(\.\w+)?", re.IGNORECASE)
"""What joblib and pickle write, which may be compressed: it is loaded as it is."""


def check_not_packed(folder: Path, paths: Collection[str]) -> None:
    """Raise `ProtocolError` if all files ``paths`` of a ``folder`` are archives of kinds that mdl does not unpack, for
    nothing could load them; weights and estimators are none. Raises `StorageError`."""
    refused = None
    for path in paths:
        if is_weights(path) or _ESTIMATOR.fullmatch(path):
            return
        with storage_trouble(folder / path, ""), os.fdopen(_opened(folder / path), "rb") as file:
            beginning = file.read(_LONGEST_MAGIC)
        packed = [known for known in _FORMATS if known.command and beginning.startswith(known.begins)]
        if not packed:
            return
        refused = refused or _named(packed[0].name, packed[0].command, shown(path)).on(str(folder / path))
    if refused:
        raise refused


def _named(what: str, command: str, name: str) -> ProtocolError:
    if not command:
        return ProtocolError(f"this is {what}, no archive", hint="it is used as it is: there is nothing to unpack")
    hint = f"unpack it with '{command} {name}', then pack it again as a zip or a tar.gz"
    return ProtocolError(f"this is {what}; {_UNPACKS}", hint=hint)


_TORCH = re.compile(r"(?P<top>[^/]+/)(?:data\.pkl|archive_format)|serialized_exported_program\.json")
"""What stands beside the ``version`` in a zip of ``torch.save`` and of ``torch.export``."""
_MODELS = (
    ("a Keras model", frozenset({"metadata.json", "config.json", "model.weights.h5"})),
    ("a model of stable-baselines3", frozenset({"data", "policy.pth"})),
    ("a torch file", frozenset({"sys_info", "pickle", "storages", "tensors"})),
)
"""Models that are an archive with these names in it."""


def model_in_an_archive(name: str, members: Collection[str]) -> str:
    """Return what a file called ``name`` is if programs load it as it is, though it is an archive too; "" if it is
    nothing else than one. ``members`` are the names in it. Of a torch file they alone tell, whatever it is called."""
    for match in filter(None, map(_TORCH.fullmatch, members)):
        if f"{match['top'] or ''}version" in members:
            return "a torch file"
    for what, names in _MODELS:
        if names.issubset(members):
            return what
    kind = kind_of(name)
    if kind is None or not kind.holds_weights or kind.loaded_with == "torch":
        return ""
    return f"a {kind.name} file"


# Opening

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
    """Tell whether a file is an archive of files: it begins as a zip, a tar or a tar.gz, or ``is_called_so``; and it is
    not itself what programs load, as a torch file is.

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
                return NAME in members or not model_in_an_archive(path.name, members)
        if archive == "tar.gz" and not _holds_tar(path, fd):
            archive = None
    return is_called_so or (archive is not None and not is_called_a_model)


def _holds_tar(path: Path, fd: int) -> bool:
    return is_tar_header(first_bytes(path, fd, BLOCK))


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
    """Tell whether the end record of a zip is where one may be."""
    size = os.fstat(fd).st_size
    return END in os.pread(fd, _ZIP_TAIL, max(0, size - _ZIP_TAIL))


# Checking and writing

FindCopy = Callable[[ManifestEntry], Path | None]
"""Finds a file with the same bytes that is on the disk already, to which a hard link may be made."""
_SYNCERS = 4


@contextlib.contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A new, private folder beside ``final``. It is removed at the end unless it was renamed."""
    final.parent.mkdir(parents=True, exist_ok=True)
    publish.sweep(final.parent)
    folder = publish.staged_name(final)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        publish.remove(folder)


def check_target(target: Path) -> None:
    """See that ``target`` is absent, or an empty folder that can be replaced. Raises `Occupied`."""
    if target.is_symlink():
        raise Occupied("this is a link; nothing is unpacked through it", item=str(target))
    if not target.exists():
        return
    if not target.is_dir():
        raise Occupied("this is not a folder", item=str(target))
    if os.path.ismount(target):
        hint = "name a folder inside it with --to"
        raise Occupied("this is a mount point, which cannot be replaced in one step", item=str(target), hint=hint)
    if any(target.iterdir()):
        raise Occupied("this folder is not empty", item=str(target), hint="name a new folder with --to")
    if os.path.samefile(target, os.curdir):
        raise Occupied("this is the working folder itself", item=str(target), hint="name a new folder with --to")


def publish_folder(staged: Path, target: Path) -> None:
    """Rename the staged folder. Raises `Occupied` if another program filled ``target`` meanwhile, `OSError`."""
    mode = 0o777 & ~publish.umask()
    if target.is_dir():
        mode = stat.S_IMODE(target.stat().st_mode)
    staged.chmod(mode)
    try:
        publish.publish_folder(staged, target)
    except OSError as error:
        if target.is_dir() and not target.is_symlink() and any(target.iterdir()):
            raise Occupied("this folder is not empty any more", item=str(target)) from error
        raise


def check_free_space(archive: AnyArchive, folder: Path) -> None:
    """See that the disk has room for all of an archive below ``folder``, which need not exist yet.

    Raises `NoSpace` with the bytes needed and free, before anything is written.
    """
    space = disk_space(folder)
    hint = "free some space, or unpack to another disk; nothing was written"
    free = space.free_bytes
    if free is not None and archive.size > free:
        what = f"it unpacks to {archive.size:,} bytes and {free:,} are free: {archive.size - free:,} short"
        raise NoSpace(what, item=str(folder), hint=hint)
    if space.free_files is not None and len(archive.members) > space.free_files:
        what = f"it unpacks to {len(archive.members):,} files and the disk has inodes for {space.free_files:,} more"
        raise NoSpace(what, item=str(folder), hint=hint)


def check_bytes(archive: AnyArchive, progress: Progress) -> dict[str, str]:
    """Read every member and check it as `extract` does, and write nothing; returns the SHA-256 of each file by its
    path. Raises `ProtocolError`."""
    digests: dict[str, str] = {}
    with archive.named():
        for member in archive.members:
            if member.is_folder:
                continue
            name = member.path.text
            progress.add(0, name)
            digests[name] = archive.copy(member, None, partial(progress.add, file=name))
            kind = _kind_to_check(archive, name)
            if kind:
                _check_whole(member, kind, archive.open(member), to_serve=False)
        archive.check_unchanged()
    return digests


def extract(
    archive: AnyArchive,
    folder: Path,
    progress: Progress,
    find_copy: FindCopy = lambda _entry: None,
    *,
    to_serve: bool = False,
) -> tuple[Manifest, int]:
    """Write every member into ``folder``, checked and synced; returns the list of the files, and how many of them are
    hard links to what ``find_copy`` found. ``to_serve``: they are to be put into service.

    Raises `ProtocolError`, `OSError`.
    """
    entries = []
    linked = 0
    root = os.fspath(folder)
    made = {""}
    with archive.named(), BackgroundSync(_SYNCERS) as sync:
        for member in archive.members:
            name = member.path.text
            parent = name if member.is_folder else name.rpartition("/")[0]
            if parent not in made:
                Path(root, parent).mkdir(parents=True, exist_ok=True)
                made.add(parent)
            if not member.size:
                progress.add(0, name)  # there may be a million of these
            if member.is_folder:
                continue
            place = f"{root}/{name}"
            sha256, is_linked = _written(archive, member, place, find_copy, progress, sync, to_serve=to_serve)
            linked += is_linked
            if name != NAME:
                entries.append(ManifestEntry(name, member.size, sha256))
        archive.check_unchanged()
    listed = tuple(sorted(entries, key=lambda entry: entry.path))
    return archive.manifest or Manifest(listed), linked


def _written(
    archive: AnyArchive,
    member: ArchiveEntry,
    place: str,
    find_copy: FindCopy,
    progress: Progress,
    sync: BackgroundSync,
    *,
    to_serve: bool,
) -> tuple[str, bool]:
    """Make the file of one member, as a hard link if its bytes are on the disk already; returns its SHA-256, and
    whether it is a link."""
    name = member.path.text
    sha256 = archive.digests.get(name, "")
    if sha256 and _link(find_copy(ManifestEntry(name, member.size, sha256)), member, place):
        progress.add(member.size, name)
        return sha256, True
    written = _write(archive, member, place, progress, sync, to_serve=to_serve)
    if sha256 or name == NAME:
        return written, False
    return written, _link(find_copy(ManifestEntry(name, member.size, written)), member, place)


def _link(source: Path | None, member: ArchiveEntry, place: str) -> bool:
    """Make ``place`` a hard link to a file with the same bytes, if there is one and the system allows it."""
    if source is None or bool(source.stat().st_mode & stat.S_IXUSR) != member.executable:
        return False
    try:
        publish.link(source, Path(place))
    except OSError:
        return False
    return True


def _write(
    archive: AnyArchive, member: ArchiveEntry, place: str, progress: Progress, sync: BackgroundSync, *, to_serve: bool
) -> str:
    """Write one member to a new file; returns its SHA-256."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(place, flags, 0o777 if member.executable else 0o666)
    name = member.path.text

    def wrote(count: int) -> None:
        progress.add(count, name)
        sync.wrote(fd, count)

    try:
        sha256 = archive.copy(member, fd, wrote)
        kind = _kind_to_check(archive, name)
        if kind:
            with open(fd, "rb", closefd=False) as file:
                _check_whole(member, kind, file, to_serve=to_serve)
    except BaseException:
        os.close(fd)
        raise
    sync.close(fd, member.size)
    return sha256


def _kind_to_check(archive: AnyArchive, name: str) -> Kind | None:
    """Return the kind of weights that a member is by its name; None if it is none, or if the manifest says that it was
    packed incomplete."""
    if archive.manifest and name in archive.manifest.incomplete:
        return None
    return weights_kind(name)


def _check_whole(member: ArchiveEntry, kind: Kind, file: ReadableFile, *, to_serve: bool) -> None:
    """See that a file of weights has its end.

    ``file`` is the member, open. What only has a name of weights, and holds something else, may be unpacked, but not
    put into service: ``to_serve``. Raises `ProtocolError`.
    """
    if not to_serve and kind.is_contradicted_by(read_at(file, 0, BEGINNING), member.size):
        return
    why = kind.why_not_whole(file, member.size)
    if why:
        raise ProtocolError(why, item=member.shown)
