"""Output: the files that a bundle is written to: one tar, or parts of it for a disk of small files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from mdl.archive.tar import header
from mdl.archive.zip_write import ArchiveSink
from mdl.disk import publish, sync
from mdl.disk.safe_open import create, open_for_reading
from mdl.errors import NotFound, Occupied, UsageError
from mdl.plugins.bundle.manifest import README, TOP, BundlePart, sums
from mdl.values import value_class

PART = re.compile(r"(?P<whole>.+)\.(?P<number>[0-9]{3,})")
"""The name of a part: that of the whole tar, and its number."""
_LEAST = 2**20
"""The least bytes of a part."""


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
        paths = [self.path.with_name(name) for name in self.names]
        may_replace = force or _begins_a_bundle(paths[0])
        if self.sums is not None:
            paths.append(self.path.with_name(self.sums))
        for path in paths:
            if not os.path.lexists(path):
                continue
            is_file = path.is_file()
            if may_replace and is_file and not path.is_symlink():
                continue
            hint = "choose another name with -o"
            if is_file:
                hint += ", or replace it with --force"
            raise Occupied("this file exists already, and is not a bundle of mdl", item=str(path), hint=hint)

    def stale(self) -> Iterator[Path]:
        """Parts of an earlier, longer bundle, which would be taken for the end of this one."""
        if self.split is None:
            return
        names = set(self.names)
        for path in self.path.parent.iterdir():
            part = PART.fullmatch(path.name)
            is_part = part is not None and part["whole"] == self.path.name
            if is_part and path.name not in names and path.is_file():
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
        self._fd = create(self._path, flags=os.O_RDWR)
        self._stack.callback(os.close, self._fd)
        self._sink = self._stack.enter_context(ArchiveSink(self._fd, sync=True, digest=True))
        return self._sink

    def end_part(self) -> None:
        """End the part that is being written, if there is one, and begin no other yet. Raises `OSError`."""
        sink = self._sink
        if sink is None:
            return
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
