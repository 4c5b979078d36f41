"""Unpack: look into an archive, check every byte of it, or unpack it into a new folder, all of it or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import field
from operator import attrgetter
from pathlib import Path

from mdl.archive.base import AnyArchive, ArchiveLimits
from mdl.archive.manifest import Manifest
from mdl.archive.streaming import Progress
from mdl.archive.unpack import (
    check_bytes,
    check_free_space,
    check_target,
    extract,
    model_in_an_archive,
    open_archive,
    publish_folder,
    staged_folder,
)
from mdl.cancel import CancelToken
from mdl.config.places import place_of
from mdl.errors import storage_trouble
from mdl.events import Listener, Noticed, silence
from mdl.notebook import Tabular
from mdl.values import value_class

StrPath = str | os.PathLike[str]
_SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar")
_WHEN_FULL = "free some space; nothing was left behind"
_DEFAULT_LIMITS = ArchiveLimits()


@value_class
class ArchiveMember(Tabular):
    """One file of an archive: its path, its size in bytes as it is and ``packed`` (None if it is packed together with
    the others), and its SHA-256: as the manifest says, or as `verify_archive` read it; None if neither is known."""

    path: str
    size: int
    packed: int | None
    sha256: str | None


@value_class
class UnpackRequest:
    """Which archive is unpacked, and where to.

    ``archive`` is a zip, a tar or a tar.gz, mdl's own or any other; its content tells which, not its name. ``to`` is a
    folder that is absent or empty; None means a folder in the current one, called like the archive. ``limits`` says how
    much an archive may hold.
    """

    archive: StrPath
    to: StrPath | None = None
    limits: ArchiveLimits = _DEFAULT_LIMITS

    @property
    def target(self) -> Path:
        """The absolute path of the folder to unpack into."""
        if self.to is not None:
            return Path(os.path.abspath(place_of(self.to, "to")))
        name = place_of(self.archive, "archive").name
        for suffix in _SUFFIXES:
            if name.endswith(suffix) and name != suffix:
                return Path(os.path.abspath(name.removesuffix(suffix)))
        return Path(os.path.abspath(f"{name}.unpacked"))


@value_class
class UnpackResult(Tabular):
    """An archive that was unpacked.

    ``path`` is the folder; ``files`` and ``bytes`` count what was unpacked into it, without mdl's manifest.
    ``manifest`` lists the files with their digests, also for an archive that came without one. ``verified`` says what
    the bytes were compared with: ``sha256`` if the archive has mdl's manifest, else ``crc32`` of a zip or tar.gz and
    ``size`` of a plain tar.
    """

    path: Path
    files: int
    bytes: int
    manifest: Manifest = field(repr=False)
    verified: str = "crc32"


def contents(
    archive: StrPath,
    *,
    limits: ArchiveLimits | None = None,
    cancel: CancelToken | None = None,
    on_event: Listener = silence,
) -> list[ArchiveMember]:
    """The files of ``archive``, by their paths. What it says of itself is checked as for `unpack`; the bytes of its
    files are not looked at, and nothing is written. ``cancel`` stops the work from another thread. ``on_event`` is
    told of a file that programs load as it is, such as a torch file.

    Raises `ProtocolError` if it is damaged, `Unsafe` if it holds what must not be unpacked or exceeds ``limits``.
    """
    with open_archive(place_of(archive, "archive"), limits or _DEFAULT_LIMITS, cancelled_by(cancel)) as opened:
        notice_model(opened, on_event)
        return _members(opened, opened.digests)


def verify_archive(
    archive: StrPath,
    *,
    limits: ArchiveLimits = _DEFAULT_LIMITS,
    cancel: CancelToken | None = None,
    on_event: Listener = silence,
) -> list[ArchiveMember]:
    """Read and check all of an archive as `unpack` does, and write nothing: every byte is unpacked and compared with
    its CRC-32, if the archive has one, and with the manifest if there is one.

    ``archive``, ``limits``, ``cancel`` and ``on_event`` are as for `unpack`.
    Returns the files, by their paths, each with the SHA-256 of what was read.
    Raises what `unpack` raises, but for what concerns the folder to unpack into.
    """
    place = place_of(archive, "archive")
    with open_archive(place, limits, cancelled_by(cancel)) as opened:
        notice_model(opened, on_event)
        progress = Progress(on_event, place.name, "check", opened.file_count, opened.size, cancel)
        digests = check_bytes(opened, progress)
        progress.finish(opened.size, "checked", opened.compared_with)
        return _members(opened, digests)


def _members(archive: AnyArchive, digests: Mapping[str, str]) -> list[ArchiveMember]:
    rows = []
    for member in archive.members:
        if not member.is_folder:
            path = member.path.text
            rows.append(ArchiveMember(path, member.size, member.packed, digests.get(path)))
    return sorted(rows, key=attrgetter("path"))


def unpack(
    archive: UnpackRequest | StrPath,
    to: StrPath | None = None,
    *,
    limits: ArchiveLimits = _DEFAULT_LIMITS,
    cancel: CancelToken | None = None,
    on_event: Listener = silence,
) -> UnpackResult:
    """Unpack an archive into a new folder, all of it or nothing. It is checked in full before the first byte is
    written.

    ``archive`` is an `UnpackRequest`, or its archive; then ``to`` and ``limits`` are the fields of the request.
    ``cancel`` stops the work from another thread. ``on_event`` is called with every event.

    Returns the folder, and how many files and bytes are in it.
    Raises `NotFound` if there is no such archive, `ProtocolError` if it is damaged, `Unsafe` if it holds what must not
    be unpacked or exceeds the limits, `Occupied` if the folder is not empty, `NoSpace`, `StorageError`, `StateError`
    for a manifest of a newer mdl, `Cancelled`, `OSError`.
    """
    request = archive if isinstance(archive, UnpackRequest) else UnpackRequest(archive, to, limits)
    place = place_of(request.archive, "archive")
    target = request.target
    with open_archive(place, request.limits, cancelled_by(cancel)) as opened:
        notice_model(opened, on_event)
        check_target(target)
        check_free_space(opened, target.parent)
        with storage_trouble(target, _WHEN_FULL), staged_folder(target) as staged:
            progress = Progress(on_event, place.name, "unpack", opened.file_count, opened.size, cancel)
            manifest, _ = extract(opened, staged, progress)
            publish_folder(staged, target)
        progress.finish(manifest.size, "unpacked", opened.compared_with)
        return UnpackResult(target, len(manifest.files), manifest.size, manifest, opened.compared_with)


def cancelled_by(cancel: CancelToken | None) -> Callable[[int], None]:
    """A watch for `open_archive`: it raises `Cancelled` once the work is cancelled, whenever some bytes were read."""

    def check(_count: int) -> None:
        if cancel:
            cancel.check()

    return check


def notice_model(archive: AnyArchive, on_event: Listener) -> None:
    """Tell of an archive that programs load as it is, such as a torch file, what it is."""
    if archive.manifest:
        return
    names = {member.path.text for member in archive.members if not member.is_folder}
    model = model_in_an_archive(archive.path.name, names)
    if model:
        message = f"{archive.path.name} is {model}: programs load it as it is; unpacking takes it apart"
        on_event(Noticed(archive.path.name, message=message))
