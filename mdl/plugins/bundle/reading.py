"""Reading: a bundle is a tar, in one file or in parts. All that it says of itself is checked before any of it is used.

Somebody else made it: mdl believes nothing in it that does not fit the bundle's own list and lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from glob import escape
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from mdl.archive.tar import ByteSource, TarMember, TarReader, truncated
from mdl.bounds import LARGEST_DOCUMENT, LARGEST_RECORD, MOST_ITEMS
from mdl.catalog.lock import Lock, LockedFile, LockedModel
from mdl.catalog.lock_file import parse_lock
from mdl.catalog.model import Model
from mdl.catalog.reader import parse_catalog
from mdl.disk.safe_open import open_for_reading, read_whole
from mdl.errors import (
    CatalogError,
    DigestMismatch,
    MdlError,
    NotFound,
    ProtocolError,
    StateError,
    Unsafe,
    UsageError,
    storage_error,
    storage_trouble,
)
from mdl.hashing import fingerprint
from mdl.paths import RelPath, clashing, shown
from mdl.plugins.bundle.export import PART, sums_name
from mdl.plugins.bundle.manifest import CATALOG, HEAD, LOCK, README, SUMS, TOP, place_of, read_sums
from mdl.sources import parse
from mdl.toml import parse_toml
from mdl.values import value_class

AGAIN = "copy the bundle again; what was imported is kept"


# The tar and its parts


class BundleTar:
    """The tar of a bundle, in one file or in several parts."""

    def __init__(self, paths: Sequence[Path], digests: Mapping[str, str]) -> None:
        """``digests`` are those of the parts, by their names; none if there is no list of them. Raises
        `StorageError`."""
        self.name = paths[0].name
        self._paths = paths
        self._digests = digests
        self._bytes = _JoinedFiles(paths)
        self._tar = TarReader(self._bytes, _path_in_tar)

    @classmethod
    def find(cls, place: Path) -> BundleTar:
        """The bundle at ``place``: a tar, any of its parts, or the name of the tar that the parts make. Raises
        `NotFound`, also for a part that is missing, `UsageError` for a folder, `ProtocolError`, `StorageError`."""
        if place.is_dir():
            hint = (
                "name the tar or its first part; an unpacked bundle is packed again by: tar -cf models.tar mdl-bundle"
            )
            raise UsageError("a bundle is a tar, and this is a folder", item=str(place), hint=hint)
        part = PART.fullmatch(place.name)
        if part is None and place.exists():
            return cls([place], {})
        whole = place.with_name(part["whole"]) if part else place
        paths: dict[int, Path] = {}
        for path in whole.parent.glob(f"{escape(whole.name)}.*"):
            part = PART.fullmatch(path.name)
            if part and part["whole"] == whole.name:
                paths[int(part["number"])] = path
        if not paths:
            raise NotFound("no such file", item=str(place), hint="name the tar or its first part")
        listed = whole.with_name(sums_name(whole.name))
        digests: dict[str, str] = {}
        count = max(paths) + 1
        if listed.is_file():
            digests = read_sums(read_whole(listed, LARGEST_RECORD), listed.name)
            count = len(digests)
        some_path = next(iter(paths.values()))
        digits = len(some_path.suffix) - 1
        for number in range(count):
            if number not in paths:
                name = f"{whole.name}.{number:0{digits}}"
                hint = "copy it into the folder of the others"
                raise NotFound("this part of the bundle is missing", item=name, hint=hint)
        return cls([paths[number] for number in range(count)], digests)

    def members(self) -> Iterator[TarMember]:
        """Yield its files from the first to the last, each with its path in the bundle. Raises `ProtocolError`,
        `Unsafe`, `StorageError`."""
        self.close()
        self._bytes = _JoinedFiles(self._paths)
        self._tar = TarReader(self._bytes, _path_in_tar)
        for member in self._tar:
            if member.is_folder:
                continue  # files imply them
            top, _, path = member.path.text.partition("/")
            if top != TOP or not path:
                raise Unsafe("refused: it is not in the folder of a bundle", item=member.path.text)
            yield TarMember(RelPath.of_repository(path), member.size)

    def read_into(self, view: memoryview) -> int:
        """Fill ``view`` with the next bytes of the current file; returns 0 at its end. Raises as `members`."""
        return self._tar.read_into(view)

    def read(self, member: TarMember) -> bytes:
        """Return all bytes of the current ``member``, a small one. Raises as `members`."""
        data = bytearray(member.size)
        if self.read_into(memoryview(data)) < member.size:
            raise ProtocolError("it ends too early", item=member.path.text, hint=AGAIN)
        return bytes(data)

    def damaged_part(self, watch: Callable[[int], None]) -> str:
        """Return the name of the first part that does not have its digest; '' if all have, or no list has theirs.
        ``watch`` is called with the bytes that are read of each."""
        for path in self._paths:
            if path.name not in self._digests:
                continue
            with open_for_reading(path) as fd:
                actual = fingerprint(fd, "sha256", watch=watch).digest.hex
            if actual != self._digests[path.name]:
                return path.name
        return ""

    def close(self) -> None:
        """Close what is open."""
        self._bytes.close()


def _path_in_tar(name: str) -> RelPath:
    """A bundle has the files of repositories, with their names. Raises `Unsafe`."""
    return RelPath.of_repository(name.removesuffix("/"))


class _JoinedFiles(ByteSource):
    """The bytes of several files, as if they were one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = iter(paths)
        self._fd = -1
        self._open_next()

    def read_into(self, view: memoryview) -> int:
        done = 0
        while done < len(view):
            try:
                count = os.readv(self._fd, [view[done:]])
            except OSError as error:
                raise storage_error(error, str(self._path)) from error
            if count == 0 and not self._open_next():
                break
            done += count
        return done

    def skip(self, count: int) -> None:
        while True:
            at = os.lseek(self._fd, 0, os.SEEK_CUR)
            left = os.fstat(self._fd).st_size - at
            if count <= left:
                os.lseek(self._fd, count, os.SEEK_CUR)
                return
            count -= left
            if not self._open_next():
                raise truncated()

    def _open_next(self) -> bool:
        """Go on to the next file; returns False if there is none. Raises `StorageError`."""
        path = next(self._paths, None)
        if path is None:
            return False
        self.close()
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise storage_error(error, str(path)) from error
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


# What the bundle says of itself


@value_class
class Bundle:
    """A bundle that is open, and all of whose headers were read: ``models`` with their ``lock``, and the digests of its
    files by their paths in it. A line of the lock is ``bundled`` as long as nobody else says the same."""

    tar: BundleTar
    sums: Mapping[str, str]
    models: Sequence[Model]
    lock: Lock

    @property
    def files(self) -> dict[str, tuple[str, LockedFile]]:
        """The files of its models by their paths in it, each with the name of its model."""
        files = {}
        for name, model in sorted(self.lock.models.items()):
            for file in model.files:
                files[place_of(name, file.path.text)] = (name, file)
        return files


@contextmanager
def open_bundle(place: Path, watch: Callable[[int], None]) -> Iterator[Bundle]:
    """Open the bundle at ``place`` and look at every member before any is used. Within the block an error says which
    part of the bundle is damaged, if that is known; ``watch`` is called with the bytes that are read to find it.

    Raises `NotFound`, `UsageError`, `ProtocolError` for a damaged bundle, `Unsafe`, `StorageError`.
    """
    with storage_trouble(place, ""):
        tar = BundleTar.find(place)
    with closing(tar):
        try:
            yield _read(tar)
        except ProtocolError as error:
            damaged = tar.damaged_part(watch)
            if damaged:
                why = f"{damaged} is damaged: it is not as it was written"
                raise DigestMismatch(why, item=error.item, hint=AGAIN) from error
            raise error.on(tar.name) from None
        except MdlError as error:
            raise error.on(tar.name) from None


def _read(tar: BundleTar) -> Bundle:
    sizes: dict[str, int] = {}
    texts: dict[str, bytes] = {}
    for member in tar.members():
        path = member.path.text
        if path in sizes:
            raise Unsafe("refused: it occurs twice", item=path)
        if len(sizes) == MOST_ITEMS:
            raise Unsafe(f"refused: there are more than {MOST_ITEMS:,} files", item=path)
        sizes[path] = member.size
        if path in HEAD:
            if member.size > LARGEST_DOCUMENT:
                raise Unsafe(f"refused: it has {member.size:,} bytes", item=path)
            texts[path] = tar.read(member)
    for name in HEAD:
        if name not in texts:
            raise ProtocolError(f"{name} is missing: this is not a bundle, or it is damaged", hint=AGAIN)
    sums = read_sums(texts[SUMS])
    for name in (README, CATALOG, LOCK):
        if sha256(texts[name]).hexdigest() != sums.get(name):
            raise DigestMismatch("it does not have the digest of SHA256SUMS", item=name, hint=AGAIN)
    models, lock = _models(texts[CATALOG], texts[LOCK])
    bundle = Bundle(tar, sums, models, lock)
    _check_members(bundle, sizes)
    return bundle


def _models(catalog: bytes, lock: bytes) -> tuple[Sequence[Model], Lock]:
    """Parse the models of a bundle, and their lock, which must agree. Raises `ProtocolError`, `Unsafe`."""
    try:
        text = catalog.decode()
        if parse_toml(text).keys() - {"schema", "models"}:
            raise Unsafe("refused: the catalog of a bundle has models only", item=CATALOG)
        models = parse_catalog(text, Path(CATALOG)).models
        parsed = parse_lock(lock.decode())
    except (CatalogError, StateError, ValueError) as error:
        raise ProtocolError(f"its catalog or lock cannot be read: {error}", hint="it may be of a newer mdl") from error
    if parsed.models.keys() != models.keys() or not all(map(parsed.covers, models.values())):
        raise ProtocolError("its catalog and its lock are not of the same models", item=LOCK)
    bundled = {}
    for name, locked in parsed.models.items():
        for file in locked.files:
            if file.digest is None or file.size is None:
                raise ProtocolError("its lock has no digest of this file", item=f"{name}/{file.path}")
        _check_sources(models[name], locked)
        bundled[name] = replace(locked, files=tuple(replace(file, bundled=True) for file in locked.files))
    return list(models.values()), Lock(bundled)


def _check_sources(model: Model, locked: LockedModel) -> None:
    """See that the lock has the files come from where the entry says. Otherwise later downloads would ask a host or a
    repository that the entry, which the user may know well, does not name. Raises `Unsafe`, `ProtocolError`."""
    named = set(model.sources)
    for url in model.urls:
        parts = urlsplit(url)
        pages = (parts.netloc, parts.hostname or "")  # if it is a hub's, the lock has hf:… for the URL
        named |= {parse(url, ()), parse(url, pages)}
    for file in locked.files:
        for text in (file.source, *file.mirrors):
            try:
                place = parse(text, ())
            except UsageError as error:
                raise ProtocolError(f"its lock cannot be read: {error}", item=LOCK, hint=AGAIN) from error
            if not any(origin.holds(place) for origin in named):
                why = f"the lock of the bundle has it come from {shown(text)[:200]}, which its entry does not name"
                raise Unsafe(f"refused: {why}", item=f"{model.name}/{file.path}")


def _check_members(bundle: Bundle, sizes: Mapping[str, int]) -> None:
    """See that the members, SHA256SUMS and the lock have the same files. Raises `ProtocolError`, `Unsafe`."""
    files = bundle.files
    for place in sorted(sizes.keys() - files.keys() - {*HEAD}):
        raise Unsafe("refused: no model in the bundle's lock has this file", item=place)
    for place in sorted(bundle.sums.keys() - sizes.keys()):
        raise ProtocolError("this file is missing from the bundle", item=place, hint=AGAIN)
    for place, (_, file) in files.items():
        if place not in bundle.sums:
            raise Unsafe("refused: SHA256SUMS does not list it", item=place)
        if sizes[place] != file.size:
            why = f"it has {sizes[place]:,} bytes, and the lock of the bundle says {file.size:,}"
            raise ProtocolError(why, item=place, hint=AGAIN)
    paths = [RelPath.of_repository(place) for place in files]
    for number, other in clashing(paths).items():
        raise Unsafe(f"refused: {shown(other.text)} is a file too", item=paths[number].text)
