"""Media: the files that a bundle is on: one tar, a tar in parts for a disk of small files, or a folder with what was in
it. Written are the first two; all are read from the first byte to the last."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from mdl.archive.tar import ByteSource, TarMember, TarReader, header, truncated
from mdl.archive.zip_write import ArchiveSink
from mdl.bounds import LARGEST_RECORD
from mdl.disk import publish, sync
from mdl.disk.safe_open import open_for_reading, open_parent, read_whole
from mdl.errors import NotFound, Occupied, Unsafe, UsageError, storage_error
from mdl.formatting import listed
from mdl.hashing import fingerprint
from mdl.paths import RelPath
from mdl.plugins.bundle.manifest import HEAD, README, SUMS, TOP, BundlePart, read_sums, sums
from mdl.values import value_class

_PART = re.compile(r"(.+)\.([0-9]{3,})")
_LEAST = 2**20
"""The least bytes of a part."""


# Written: a tar, or its parts.


@value_class
class BundleOutput:
    """Where a bundle of ``total`` bytes goes: to the file ``path``, or to parts of at most ``split`` bytes beside it,
    called ``path.000`` and so on."""

    path: Path
    total: int
    split: int | None = None

    @property
    def names(self) -> list[str]:
        """The names of its parts."""
        if self.split is None:
            return [self.path.name]
        count = -(-self.total // self.split)
        digits = max(3, len(str(count - 1)))
        return [f"{self.path.name}.{number:0{digits}}" for number in range(count)]

    @property
    def sums(self) -> str | None:
        """The name of the file with the digests of the parts."""
        return None if self.split is None else sums_name(self.path.name)

    def check(self, *, force: bool) -> None:
        """See that nothing is there but an earlier bundle, which may be replaced; with ``force`` any file. Raises
        `Occupied`, `UsageError`, `NotFound`."""
        if self.split is not None and self.split < _LEAST:
            raise UsageError("a part must have at least 1Mi", item="--split", hint="--split 4G is for FAT32")
        if not self.path.parent.is_dir():
            hint = "make it first, or choose another with -o"
            raise NotFound("no such folder", item=str(self.path.parent), hint=hint)
        first, *others = [self.path.with_name(name) for name in (*self.names, *filter(None, [self.sums]))]
        is_ours = force or _begins_a_bundle(first)
        for path in (first, *others):
            if os.path.lexists(path) and not (is_ours and path.is_file() and not path.is_symlink()):
                hint = "choose another name with -o" + (", or replace it with --force" if path.is_file() else "")
                raise Occupied("it is there already, and is not a bundle of mdl", item=str(path), hint=hint)

    def stale(self) -> Iterator[Path]:
        """Parts of an earlier, longer bundle, which would be taken for the end of this one."""
        if self.split is not None:
            for path in self.path.parent.iterdir():
                match = _PART.fullmatch(path.name)
                if match and match[1] == self.path.name and path.name not in self.names and path.is_file():
                    yield path


def sums_name(name: str) -> str:
    return f"{name}.sha256sums"


def _begins_a_bundle(path: Path) -> bool:
    """Whether a file begins as a bundle does."""
    start = header(f"{TOP}/{README}", 0)[: len(f"{TOP}/{README}") + 1]
    try:
        with open_for_reading(path, os.O_NOFOLLOW) as fd:
            return os.pread(fd, len(start), 0) == start
    except OSError:
        return False


class BundleWriter:
    """Takes the bytes of a bundle to files in ``folder``, a hidden one beside the output; `publish` gives them their
    names. Each is synced, and its digest is made, on the way."""

    def __init__(self, output: BundleOutput, folder: Path) -> None:
        self._output = output
        self._folder = folder
        self._names = iter(output.names)
        self._sink: ArchiveSink | None = None
        self._stack = ExitStack()
        self.parts: list[BundlePart] = []

    def write(self, data: bytes | memoryview) -> None:
        """Write ``data``, whose bytes must not change before the next call. Raises `OSError`."""
        view = memoryview(data)
        while view:
            sink = self._sink or self._begin()
            room = len(view) if self._output.split is None else self._output.split - sink.at
            sink.write(view[:room])
            view = view[room:]
            if sink.at == self._output.split:
                self.end_part()

    def _begin(self) -> ArchiveSink:
        self._path = self._folder / next(self._names)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o666)
        self._stack.callback(os.close, self._fd)
        self._sink = self._stack.enter_context(ArchiveSink(self._fd, sync=True, digest=True))
        return self._sink

    def end_part(self) -> None:
        """What was written is a whole part, if anything was. Raises `OSError`."""
        if self._sink is not None:
            sink = self._sink
            self._sink = None
            sink.close()
            sync(self._fd)
            self.parts.append(BundlePart(self._output.path.with_name(self._path.name), sink.at, sink.sha256 or ""))
            self._stack.close()

    def publish(self) -> Path | None:
        """Give all parts their names, the first one first, and then the list of their digests, without which a bundle
        in parts is not whole; returns its path. Raises `OSError`."""
        self.end_part()
        place = self._output.path.parent
        name = self._output.sums
        if name:
            publish.unpublish(place / name)
        for part in self.parts:
            publish.replace_file(self._folder / part.path.name, part.path)
        for path in self._output.stale():
            publish.unpublish(path)
        publish.sync_folder(place)
        if name is None:
            return None
        text = sums({part.path.name: part.sha256 for part in self.parts})
        publish.write_file(place / name, text.encode(), mode=0o666 & ~publish.umask())
        return place / name

    def close(self) -> None:
        """Close what is open; nothing is published."""
        self._stack.close()


# Read: a tar, its parts, or a folder.


class BundleTar:
    """A bundle in one tar, or in its parts."""

    def __init__(self, paths: Sequence[Path], known: Mapping[str, str]) -> None:
        """``known`` are the digests of the parts by their names, if there is a list of them."""
        self.name = paths[0].name
        self._known = known
        self._paths = paths
        self._begin()

    def _begin(self) -> None:
        self._source = _Files(self._paths)
        self._tar = TarReader(self._source, _path_in_tar)

    def members(self) -> Iterator[TarMember]:
        """Its files from the first to the last, each with its path in the bundle. Raises `ProtocolError`, `Unsafe`,
        `NotFound`, `StorageError`."""
        self.close()
        self._begin()
        for member in self._tar:
            if member.is_folder:
                continue  # files imply them
            top, _, path = member.path.text.partition("/")
            if top != TOP or not path:
                raise Unsafe("refused: it is not in the folder of a bundle", item=member.path.text)
            yield TarMember(RelPath.of_repository(path), member.size)

    def read_into(self, view: memoryview) -> int:
        """Fill ``view`` with the next bytes of the current file; 0 at its end. Raises as `members`."""
        return self._tar.read_into(view)

    def why_damaged(self, stoppable: Callable[[int], None]) -> str:
        """Which part is not as it was written, if that is known; looked for when something is wrong."""
        for path in self._paths:
            if path.name in self._known:
                with open_for_reading(path) as fd:
                    if fingerprint(fd, "sha256", watch=stoppable).digest.hex != self._known[path.name]:
                        return f"{path.name} is damaged: it is not as it was written"
        return ""

    def close(self) -> None:
        self._source.close()


def _path_in_tar(name: str) -> RelPath:
    """A bundle has the files of repositories, with their names. Raises `Unsafe`."""
    return RelPath.of_repository(name.removesuffix("/"))


class _Files(ByteSource):
    """The bytes of several files, as if they were one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._stack = ExitStack()
        self._at = 0
        self._index = 0
        self._paths = paths
        self._fd = self._stack.enter_context(open_for_reading(paths[0]))

    def read_into(self, view: memoryview) -> int:
        done = 0
        try:
            while done < len(view):
                count = os.preadv(self._fd, [view[done:]], self._at)
                if not count and not self._next():
                    break
                self._at += count
                done += count
        except OSError as error:
            raise storage_error(error, str(self._paths[self._index])) from error
        return done

    def skip(self, count: int) -> None:
        while (left := os.fstat(self._fd).st_size - self._at) < count:
            count -= max(0, left)
            if not self._next():
                raise truncated()
        self._at += count

    def _next(self) -> bool:
        """Go on to the next file; False if there is none."""
        if self._index + 1 == len(self._paths):
            self._at = os.fstat(self._fd).st_size
            return False
        self._stack.close()
        self._index = self._index + 1
        self._at = 0
        self._fd = self._stack.enter_context(open_for_reading(self._paths[self._index]))
        return True

    def close(self) -> None:
        self._stack.close()


class BundleFolder:
    """A bundle that was unpacked; it is read as a `BundleTar` is. What `SUMS` does not list is not looked at."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self._folder = folder
        self._fd = -1
        self._at = 0

    def members(self) -> Iterator[TarMember]:
        with self._open(RelPath.parse(SUMS)) as size:
            text = os.pread(self._fd, min(size, LARGEST_RECORD), 0)
        for name in (*HEAD, *sorted(read_sums(text).keys() - {*HEAD})):
            path = RelPath.of_repository(name)
            with self._open(path) as size:
                yield TarMember(path, size)

    @contextlib.contextmanager
    def _open(self, path: RelPath) -> Iterator[int]:
        """Have a file open, whose size in bytes this is. No link is followed."""
        try:
            with open_parent(self._folder, path, make=False) as entry:
                entry.file_stat()
                self._fd = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=entry.folder)
        except FileNotFoundError as error:
            raise NotFound("the bundle lacks this file", item=path.text, hint="copy the bundle again") from error
        except OSError as error:
            raise storage_error(error, path.text) from error
        try:
            self._at = 0
            yield os.fstat(self._fd).st_size
        finally:
            os.close(self._fd)
            self._fd = -1

    def read_into(self, view: memoryview) -> int:
        try:
            count = os.preadv(self._fd, [view], self._at)
        except OSError as error:
            raise storage_error(error, str(self._folder)) from error
        self._at += count
        return count

    def why_damaged(self, _stoppable: Callable[[int], None]) -> str:
        return ""

    def close(self) -> None:
        """Nothing is open between two files."""


BundleMedium = BundleTar | BundleFolder


def open_medium(place: Path) -> BundleMedium:
    """Find a bundle: a tar, the first of its parts or the tar's name without number, a folder with either of them, or
    the unpacked folder.

    Raises `NotFound`, also for a part that is missing, `UsageError` if several are there, `StorageError`.
    """
    if place.is_dir():
        for folder in (place, place / TOP):
            if (folder / SUMS).is_file():
                return BundleFolder(folder)
        there = [one for one in place.iterdir() if one.is_file() and not one.name.startswith(".")]
        firsts = {_whole(one) for one in there if _is_first(one)}
        others = {_whole(one) for one in there}
        found = sorted(firsts or others - {*there})  # without a first part, the error names it
        if len(found) != 1:
            hint = "name the tar, its first part, or the folder that was unpacked"
            names = listed([one.name for one in found])
            why = f"several are there: {names}" if found else "there is no bundle"
            raise (UsageError if found else NotFound)(why, item=str(place), hint=hint)
        place = found[0]
    whole = _whole(place)
    try:
        if whole != place or not place.exists():
            return BundleTar(*_parts(whole))
        return BundleTar([place], {})
    except OSError as error:
        raise storage_error(error, str(place)) from error


def _is_first(path: Path) -> bool:
    """Whether a file is a tar, or the first part of one."""
    match = _PART.fullmatch(path.name)
    return int(match[2]) == 0 if match else path.suffix.lower() == ".tar"


def _whole(path: Path) -> Path:
    """The tar that a file is a part of; the file itself if it is not a part."""
    match = _PART.fullmatch(path.name)
    return path.with_name(match[1]) if match else path


def _parts(whole: Path) -> tuple[list[Path], dict[str, str]]:
    """The parts of a tar in their order, and the digests that are known of them. Raises `NotFound`, naming the first
    part that is missing."""
    found: dict[int, Path] = {}
    if whole.parent.is_dir():
        for path in whole.parent.iterdir():
            match = _PART.fullmatch(path.name)
            if match and match[1] == whole.name:
                found[int(match[2])] = path
    if not found:
        raise NotFound("no such file", item=str(whole), hint="name the tar, its first part, or the unpacked folder")
    listed = whole.with_name(sums_name(whole.name))
    known = dict[str, str]()
    if listed.is_file():
        known = read_sums(read_whole(listed, LARGEST_RECORD), listed.name)
    digits = len(next(iter(found.values())).name) - len(whole.name) - 1
    count = len(known) or max(found) + 1
    for number in range(count):
        name = f"{whole.name}.{number:0{digits}}"
        if number not in found or (known and name not in known):
            hint = "copy it into the folder of the others"
            raise NotFound("this part of the bundle is missing", item=name, hint=hint)
    return [found[number] for number in range(count)], known
