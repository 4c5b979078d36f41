"""Tree: what is in a run's folder, scanned once; and the only way its files are opened.

Links are followed only if they stay inside the folder. FIFOs, sockets and devices are never opened. A file is opened
without following any link on the way to it, and only if it is still the file that was scanned: a program that
writes to the run cannot make mdl pack a file from elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

from mdl.bounds import DEEPEST_PATH, LARGEST_RECORD, MOST_ITEMS, parse_json
from mdl.errors import NotFound, ProtocolError, Unsafe
from mdl.files import Stamp
from mdl.runs.default_excludes import why_excluded
from mdl.values import small_value_class, value_class
from mdl.weights.end_records import read_at
from mdl.weights.junk import is_log
from mdl.weights.known_formats import Kind as WeightsKind
from mdl.weights.known_formats import weights_kind
from mdl.weights.safetensors import read_header

_STATE_LIMIT = 128 * 2**20
_NOWHERE = Path("/dev/null/listing")
"""The root of a tree whose files are elsewhere: no file can be opened below it."""
NO_STAMP = Stamp(0, 0, 0)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LEADS_NOWHERE = {errno.ENOENT: "a dangling link", errno.ELOOP: "a link that leads to itself"}
_SPECIAL = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFBLK: "device", stat.S_IFCHR: "device"}
IsName = Callable[[str], object]
"""Says whether a name is one of those that are looked for; a pattern's ``fullmatch`` will do."""
Kind = Literal["file", "folder", "excluded", "escapes", "special", "unreadable"]
FILES: tuple[Kind, ...] = ("file", "escapes")
"""Names of files, whether or not they may be packed."""


@small_value_class
class Entry:
    """One name in the run. ``path`` is its path as seen, ``real`` its path with links resolved, both below the run's
    folder.

    ``kind``: ``excluded`` is a secret or junk, ``escapes`` a link out of the run, ``special`` a dangling link, a loop
    or not a file at all, ``unreadable`` what could not even be looked at. For these four, ``why`` gives the reason.
    """

    path: str
    kind: Kind
    stamp: Stamp = NO_STAMP
    real: str = ""
    is_executable: bool = False
    why: str = ""
    name: str = field(init=False, repr=False, compare=False)
    weights_kind: WeightsKind | None = field(init=False, repr=False, compare=False)
    """Which kind of weights a file of this name holds, be they a model's or an optimizer's; None if it holds none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.path.rsplit("/", 1)[-1])
        object.__setattr__(self, "weights_kind", weights_kind(self.name))

    @property
    def folder(self) -> str:
        """The path of the folder that it is in; "" is the run's own folder."""
        return self.path.rpartition("/")[0]

    @property
    def is_file(self) -> bool:
        """Whether it is the name of a file, be it one that may be packed or a link out of the run."""
        return self.kind in FILES

    @property
    def is_weights(self) -> bool:
        """Whether it is called like a file of weights."""
        return self.weights_kind is not None

    @property
    def is_weights_file(self) -> bool:
        """Whether it is a file that may be packed, and is called like one of weights."""
        return self.kind == "file" and self.weights_kind is not None

    @property
    def is_excluded_folder(self) -> bool:
        """Whether it is a folder that is left out with all that is in it."""
        return self.kind == "excluded" and self.stamp == NO_STAMP

    def is_same_as(self, status: os.stat_result) -> bool:
        """Tell whether a file of this status is the one that was scanned, unchanged. A log may have grown meanwhile."""
        if self.stamp.is_of(status):
            return True
        has_grown = status.st_ino == self.stamp.inode and status.st_size >= self.stamp.size
        return has_grown and is_log(self.name)


@value_class
class Contents:
    """What the bytes of a file of weights tell. ``lacks``: what shows that it is not whole, "" if nothing does.
    ``metadata``: what the trainer wrote into the header of a safetensors file."""

    lacks: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


_NOTHING_TOLD = Contents()
"""Of a whole file without metadata, as most are, of one that is no weights, and of one that cannot be read."""


@value_class
class Tree:
    """Everything below ``root``, sorted by the parts of each path. ``root`` is absolute and free of links; ``identity``
    is its device and inode. What the bytes of a file told is kept: many layouts ask, and a file is opened once for
    them all (ADR 131)."""

    root: Path
    identity: tuple[int, int]
    entries: tuple[Entry, ...]
    _by_path: dict[str, Entry] = field(repr=False)
    _children: dict[str, list[Entry]] = field(repr=False)
    _read: Callable[[str], bytes] | None = field(default=None, repr=False, compare=False)
    _contents: dict[str, Contents] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def scan(cls, folder: Path) -> Tree:
        """Look at every name once. Raises `NotFound`, `OSError`, and `Unsafe` for more than a million entries."""
        try:
            root = Path(os.path.realpath(folder, strict=True))
        except OSError as error:
            raise NotFound(f"no such run: {error.strerror}", item=str(folder), hint=_run_hint(folder)) from error
        if not root.is_dir():
            raise NotFound("a run is a folder, but this is a file", item=str(folder), hint=_run_hint(folder))
        identity = _identity(root.stat())
        walk = _Walk(str(root))
        walk.folder("", "", (identity,))
        return cls._of(root, identity, walk.entries)

    @classmethod
    def _of(
        cls,
        root: Path,
        identity: tuple[int, int],
        entries: Iterable[Entry],
        read: Callable[[str], bytes] | None = None,
    ) -> Tree:
        by_path: dict[str, Entry] = {}
        children: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            by_path[entry.path] = entry
            children[entry.path.rpartition("/")[0]].append(entry)
        return cls(root, identity, tuple(by_path.values()), by_path, dict(children), read)

    @classmethod
    def of_listing(cls, files: Mapping[str, int], read: Callable[[str], bytes] | None) -> Tree:
        """The tree of files that are elsewhere, from their paths and sizes in bytes. ``read`` brings a small file, or
        is None if none can be read; weights are not read. What `why_excluded` leaves out of a folder is left out of
        this one as well."""
        entries: dict[str, Entry] = {}
        for path, size in files.items():
            if _why_path_excluded(path, is_folder=False):
                continue
            for folder in filter(None, folders_above(path)):
                entries.setdefault(folder, Entry(folder, "folder", real=folder))
            entries[path] = Entry(path, "file", Stamp(size, 0, 0), path)
        return cls._of(_NOWHERE, (0, 0), sorted(entries.values(), key=_segments), read)

    @property
    def can_be_read(self) -> bool:
        """Whether small files can be read; of a listing alone no more than the names and sizes is known."""
        return self._read is not None or self.root != _NOWHERE

    def get(self, path: str) -> Entry | None:
        return self._by_path.get(path)

    def find(self, path: str) -> Entry | None:
        """The entry at ``path``, also if that is in a folder which is left out: it is looked into only now. What is
        there is excluded as its folder is. Raises `Unsafe` as `scan`."""
        known = self._by_path
        while path not in known:
            outer = next(filter(None, map(known.get, folders_above(path))), None)
            if outer is None or not outer.is_excluded_folder:
                return None
            walk = _Walk(str(self.root))
            try:
                walk.folder(outer.path, outer.real, (self.identity,))
            except OSError as error:
                return _unseen(path, outer.real, error)
            known = {}
            for entry in walk.entries:
                known[entry.path] = replace(entry, kind="excluded", why=outer.why) if entry.kind == "file" else entry
        return known[path]

    def is_file(self, path: str) -> bool:
        entry = self._by_path.get(path)
        return entry is not None and entry.kind == "file"

    def is_folder(self, path: str) -> bool:
        entry = self._by_path.get(path)
        return path == "" or (entry is not None and entry.kind == "folder")

    def children(self, folder: str = "") -> list[Entry]:
        """The entries directly in ``folder``; "" is the run's own folder."""
        return self._children.get(folder, [])

    def names(self, folder: str = "") -> list[str]:
        """The names directly in ``folder``."""
        return [entry.name for entry in self.children(folder)]

    def below(self, path: str = "") -> tuple[Entry, ...]:
        """Every entry under a folder, or the one entry of a file."""
        own = self._by_path.get(path)
        if own is None:
            return () if path else self.entries
        if own.kind != "folder":
            return (own,)
        *above, name = segments = _segments(own)
        start = bisect_right(self.entries, segments, key=_segments)
        return self.entries[start : bisect_left(self.entries, [*above, f"{name}\0"], start, key=_segments)]

    def subfolders(self, folder: str = "") -> list[Entry]:
        """The folders directly in ``folder``."""
        return [entry for entry in self.children(folder) if entry.kind == "folder"]

    def files_named(self, folder: str, is_name: IsName) -> list[Entry]:
        """The files directly in ``folder`` that have such a name."""
        return [entry for entry in self.children(folder) if entry.is_file and is_name(entry.name)]

    def with_contents(self, entry: Entry) -> list[Entry]:
        """An entry, and all that is below it."""
        return [entry, *self.below(entry.path)] if entry.kind == "folder" else [entry]

    def all_but(self, base: str, taken: Collection[str]) -> tuple[Entry, ...]:
        """All that is in ``base``, except the ``taken`` paths in it and what is below them."""
        left_out = set(taken) - {base, *folders_above(base)}
        return tuple(
            entry for entry in self.below(base) if left_out.isdisjoint((entry.path, *folders_above(entry.path)))
        )

    def is_unchanged(self, entry: Entry) -> bool:
        """Tell whether the file is still the one that was scanned."""
        try:
            return entry.is_same_as(os.lstat(f"{self.root}/{entry.real}"))
        except OSError:
            return False

    def change_of(self, entry: Entry) -> ProtocolError:
        """The error for a file that is not any more what was scanned."""
        is_there = os.path.lexists(f"{self.root}/{entry.real}")
        return changed_error(entry) if is_there else gone_error(entry)

    def open(self, entry: Entry, *, strict: bool = True) -> tuple[int, int]:
        """Open the file that was scanned, and return its descriptor and its size in bytes; if not ``strict``, those of
        whatever file is there now. The size of a log that has grown is the one that was scanned.

        Raises `ProtocolError` if another file is there now, or none, and `OSError`.
        """
        folder, _, name = entry.real.rpartition("/")
        try:
            folder_fd = self._open_folder(folder, entry)
            try:
                fd = os.open(name, _FILE, dir_fd=folder_fd)
            finally:
                os.close(folder_fd)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise gone_error(entry) from error
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                raise changed_error(entry) from error
            raise
        facts = os.fstat(fd)
        is_same = entry.is_same_as(facts)
        if not stat.S_ISREG(facts.st_mode) or (strict and not is_same):
            os.close(fd)
            raise changed_error(entry)
        return fd, entry.stamp.size if is_same else facts.st_size

    def _open_folder(self, path: str, entry: Entry) -> int:
        """Open the folder at ``path`` below the root, reached without following a link."""
        fd = os.open(self.root, _FOLDER)
        try:
            if _identity(os.fstat(fd)) != self.identity:
                raise changed_error(entry)
            for step in filter(None, path.split("/")):
                above = fd
                fd = os.open(step, _FOLDER, dir_fd=above)
                os.close(above)
        except BaseException:
            os.close(fd)
            raise
        return fd

    @contextlib.contextmanager
    def opened(self, entry: Entry, *, strict: bool = True) -> Iterator[BinaryIO | None]:
        """A context with the file of an entry, open as by `open`; None if there is no file that can be read."""
        try:
            fd, _ = self.open(entry, strict=strict)
        except (OSError, ProtocolError):
            yield None
            return
        with os.fdopen(fd, "rb") as file:
            yield file

    def contents(self, entry: Entry) -> Contents:
        """Return what the bytes of a file of weights tell; nothing of any other, or if it cannot be read."""
        if entry.weights_kind is None:
            return _NOTHING_TOLD
        if entry.path not in self._contents:
            self._contents[entry.path] = self.contents_as(entry, entry.weights_kind)
        return self._contents[entry.path]

    def contents_as(self, entry: Entry, kind: WeightsKind) -> Contents:
        """Return what the bytes of a file tell if it is of this kind, whatever its name says."""
        if entry.kind == "file":
            with contextlib.suppress(OSError), self.opened(entry) as file:
                if file:
                    return _contents_of(file, entry.stamp.size, kind)
        return _NOTHING_TOLD

    def head(self, path: str, count: int) -> bytes:
        """The first ``count`` bytes of a file; empty if there is no file that can be read."""
        if not self.is_file(path):
            return b""
        entry = self._by_path[path]
        if self._read is None:
            with self.opened(entry) as file:
                return file.read(count) if file else b""
        if entry.is_weights_file or entry.stamp.size > LARGEST_RECORD:
            return b""
        return self._read(path)[:count]

    def json(self, path: str) -> dict[str, Any]:
        """The object in a small JSON file; empty if there is no such file, or it holds something else."""
        try:
            value = parse_json(self.head(path, _STATE_LIMIT).decode("utf-8", "replace"), allow_nan=True)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


def _contents_of(file: BinaryIO, size: int, kind: WeightsKind) -> Contents:
    lacks = kind.why_not_whole(file, size) or ""
    header = None
    if kind.loaded_with == "safetensors":
        header = read_header(partial(read_at, file, 0))
    if header and header.metadata:
        return Contents(lacks, header.metadata)
    return Contents(lacks) if lacks else _NOTHING_TOLD


_PARTS = re.compile(r"[0-9]+|[^0-9]+")


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key by which ``checkpoint-1000`` comes after ``checkpoint-500``: runs of digits count as numbers."""
    parts = _PARTS.findall(name)
    return tuple((0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts)


def join(folder: str, name: str) -> str:
    """The path of ``name`` in ``folder``; "" is the run's own folder."""
    return f"{folder}/{name}" if folder else name


def folders_above(path: str) -> list[str]:
    """Return the folders that a path is in, the innermost first, and the run's own, "", last; none of ""."""
    folders = []
    while path:
        path = path.rpartition("/")[0]
        folders.append(path)
    return folders


def is_in(path: str, folders: AbstractSet[str]) -> bool:
    """Tell whether a path is one of some folders, or is in one, however deep."""
    return not folders.isdisjoint((path, *folders_above(path)))


def _segments(entry: Entry) -> list[str]:
    """The key by which the entries of a tree are sorted: a folder stands right before all that is below it."""
    return entry.path.split("/")


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


def gone_error(entry: Entry) -> ProtocolError:
    """The error for a file that was deleted since it was scanned, as trainers delete old checkpoints."""
    hint = "run the same command again, which packs the files as they are now"
    return ProtocolError("it was deleted while it was read", item=entry.path, hint=hint)


def changed_error(entry: Entry) -> ProtocolError:
    """The error for a file that changed since it was scanned."""
    hint = "pack when the training is done or pauses; --allow-changing packs it as it is read"
    return ProtocolError("it changed while it was read", item=entry.path, hint=hint)


def _run_hint(folder: Path) -> str:
    others = []
    with contextlib.suppress(OSError):
        others = sorted(entry.name for entry in folder.parent.iterdir() if entry.is_dir())[:8]
    if not others:
        return "name the folder that the trainer wrote"
    return f"in {folder.parent} there are: {', '.join(others)}"


class _Walk:
    """One scan: links are resolved against ``root``, and a folder that contains itself is not entered again.

    ``entries`` are what was seen, each folder right before all that is below it.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._count = 0
        self.entries: list[Entry] = []

    def folder(self, path: str, real: str, above: tuple[tuple[int, int], ...]) -> None:
        """Find what is in the folder seen at ``path`` and really at ``real``; ``above`` are the device and inode of
        that folder and of those that it is in. Raises `OSError`."""
        with os.scandir(os.path.join(self._root, real)) as listing:
            names = sorted(listing, key=lambda name: name.name)
        if path:
            self.entries.append(Entry(path, "folder", real=real))
        for name in names:
            self._count += 1
            if self._count > MOST_ITEMS:
                raise Unsafe(f"more than {MOST_ITEMS:,} entries", item=self._root, hint="name a folder inside it")
            seen = join(path, name.name)
            really = seen if real == path else join(real, name.name)
            try:
                self._entry(name, seen, really, above)
            except OSError as error:
                self.entries.append(_unseen(seen, really, error))

    def _entry(self, name: os.DirEntry[str], path: str, real: str, above: tuple[tuple[int, int], ...]) -> None:
        """Add one entry, and all that is below it. Raises `OSError` if it cannot be looked at."""
        why = why_excluded(name.name, is_folder=name.is_dir())
        if name.is_symlink():
            target = os.path.realpath(name.path, strict=True)
            if target != self._root and not target.startswith(self._root + os.sep):
                self.entries.append(Entry(path, "escapes", real=real, why=f"a link to {target}, outside the run"))
                return
            real = os.path.relpath(target, self._root)
            why = why or _why_path_excluded(real, is_folder=name.is_dir())  # a link to a secret is one too
            facts = os.stat(target, follow_symlinks=False)
        else:
            facts = name.stat(follow_symlinks=False)
        if stat.S_ISREG(facts.st_mode):
            is_executable = bool(facts.st_mode & stat.S_IXUSR)
            kind: Kind = "excluded" if why else "file"
            self.entries.append(Entry(path, kind, Stamp.of(facts), real, is_executable, why or ""))
        elif why:
            self.entries.append(Entry(path, "excluded", real=real, why=why))
        elif stat.S_ISDIR(facts.st_mode):
            self._subfolder(path, real, _identity(facts), above)
        else:
            what = _SPECIAL.get(stat.S_IFMT(facts.st_mode), "special file")
            self.entries.append(Entry(path, "special", real=real, why=f"a {what}, not a file"))

    def _subfolder(self, path: str, real: str, own: tuple[int, int], above: tuple[tuple[int, int], ...]) -> None:
        if own in above:
            self.entries.append(Entry(path, "special", real=real, why="a link that leads to itself"))
            return
        if len(above) > DEEPEST_PATH:
            raise Unsafe(f"folders more than {DEEPEST_PATH} deep", item=path, hint="name a folder inside it")
        self.folder(path, real, (*above, own))


def _why_path_excluded(path: str, *, is_folder: bool) -> str | None:
    """Return why what is at a path is excluded, by its own name or that of a folder that it is in; or None."""
    for folder in folders_above(path):
        why = why_excluded(folder.rpartition("/")[2], is_folder=True)
        if why:
            return why
    return why_excluded(path.rpartition("/")[2], is_folder=is_folder)


def _unseen(path: str, real: str, error: OSError) -> Entry:
    """An entry that could not be looked at: special if it leads nowhere, else unreadable."""
    if error.errno in _LEADS_NOWHERE:
        return Entry(path, "special", real=real, why=_LEADS_NOWHERE[error.errno])
    return Entry(path, "unreadable", real=real, why=error.strerror or str(error))
