"""Releases: archives put into service, one folder each, and ``current``, a link that is switched in one step.

``DIR/releases/<version>/`` is complete and read-only; ``DIR/current`` a relative link; ``DIR/releases.json`` the
history. The order of releases is the recorded one, never that of names or times.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from mdl.archive.history import History, Switch, from_json, to_json
from mdl.archive.manifest import NAME, Line, Manifest
from mdl.archive.unpacking import Reuse
from mdl.errors import NotFound, Occupied, ProtocolError, StateError, Unsafe
from mdl.fs import staging
from mdl.fs.private import UNREADABLE_ERRNOS, read_whole
from mdl.hashing import fingerprint
from mdl.paths import RelPath

_CURRENT, _RELEASES, _HISTORY = "current", "releases", "releases.json"
_LARGEST = 256 * 2**20
"""Bytes of a history, and of a manifest of a million members."""
_VERSION = re.compile(r"(step-[0-9]+|model)-[0-9a-f]{12}")


class Shelf:
    """A folder of releases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current, self.releases = folder / _CURRENT, folder / _RELEASES

    def place(self, version: str) -> Path:
        return self.releases / version

    def has(self, version: str) -> bool:
        return bool(version) and self.place(version).is_dir()

    def prepare(self) -> None:
        """Make the folders, sweep, and see that nothing foreign is in the way. Raises `Occupied`, `Unsafe`,
        `OSError`."""
        if os.path.lexists(self.current) and not self.active():
            hint = "move it away; mdl makes it a link into releases/"
            raise Occupied("'current' is not a release of mdl's", item=str(self.current), hint=hint)
        if self.releases.is_symlink():
            hint = "move it away; to have releases on another disk, link the folder above"
            raise Unsafe(f"refused: {self.releases} is a symbolic link", item=str(self.releases), hint=hint)
        self.releases.mkdir(parents=True, exist_ok=True)
        staging.sweep(self.releases)
        staging.sweep(self.folder)

    def history(self) -> History:
        """What happened here; the link itself has the last word. Raises `StateError`, `OSError`."""
        path = self.folder / _HISTORY
        try:
            found, coming = from_json(read_whole(path, _LARGEST))
        except FileNotFoundError:
            found, coming = History(), None
        except OSError as error:
            if error.errno not in UNREADABLE_ERRNOS:
                raise
            hint = "move it away; 'current' and the releases stay as they are"
            raise StateError(
                f"the history of releases cannot be read: {error.strerror}", item=str(path), hint=hint
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Unsafe) as error:
            hint = "move it away; 'current' and the releases stay as they are"
            raise StateError("the history of releases cannot be read", item=str(path), hint=hint) from error
        active = self.active()
        if coming and active == coming.active:
            return coming
        if active in ("", found.active) or not self.has(active):
            return found
        return found.released(active, switched(found.active, active, "release"))

    def active(self) -> str:
        """The version that ``current`` leads to, or ''."""
        try:
            head, _, version = os.readlink(self.current).rpartition("/")
        except OSError:
            return ""
        return version if head == _RELEASES and version not in ("", ".", "..") else ""

    def switch(self, before: History, after: History) -> None:
        """Serve what is active in ``after``, in one step; a crash on the way leaves one or the other, and known."""
        self._record(before, after)
        staging.switch_link(self.current, f"{_RELEASES}/{after.active}")
        self._record(after)

    def here(self) -> set[str]:
        """The versions whose folders are here, whether or not the history knows them."""
        return {entry.name for entry in self.releases.iterdir() if _VERSION.fullmatch(entry.name) and entry.is_dir()}

    def settle(self, history: History) -> tuple[str, ...]:
        """Remove the folders that the history does not keep, also those a crash left; tells which they were."""
        self._record(history)
        gone = tuple(sorted(self.here() - set(history.releases) - {history.active}))
        for version in gone:
            staging.retire(self.place(version))
        return gone

    def manifest(self, version: str) -> Manifest | None:
        """What a release holds, as it was recorded; None where that cannot be read."""
        try:
            return Manifest.from_json(read_whole(self.place(version) / NAME, _LARGEST))
        except (OSError, ProtocolError, StateError):
            return None

    def glance(self, version: str) -> None:
        """See that every file of a release is there and as long as it was; its bytes are not read, for a way back must
        be quick. Raises `ProtocolError`."""
        manifest = self.manifest(version)
        for line in manifest.files if manifest else ():
            place = RelPath.parse(line.path).under(self.place(version))
            if not place.is_file() or place.stat().st_size != line.size:
                hint = f"nothing was changed; unpack {version} again"
                raise ProtocolError(
                    "this file of the release is damaged or gone", item=f"{version}/{line.path}", hint=hint
                )

    def check(self, version: str) -> Manifest:
        """Read a release again and hold it against its manifest. Raises `ProtocolError` naming what is wrong."""
        manifest = self.manifest(version)
        hint = f"remove {self.place(version)} and unpack the archive again"
        if manifest is None:
            raise ProtocolError("this release has no readable manifest", item=version, hint=hint)
        for line in manifest.files:
            if not _holds(RelPath.parse(line.path).under(self.place(version)), line):
                what = "this file of the release is damaged or gone"
                raise ProtocolError(what, item=f"{version}/{line.path}", hint=hint)
        return manifest

    def reuse(self, version: str) -> Reuse:
        """Where the same bytes are in a release already, once they were read and their digest matched."""
        manifest = self.manifest(version) if version else None
        known = {line.path: line for line in manifest.files} if manifest else {}

        def offer(line: Line) -> Path | None:
            place = RelPath.parse(line.path).under(self.place(version))
            return place if known.get(line.path) == line and _holds(place, line) else None

        return offer

    def _record(self, history: History, coming: History | None = None) -> None:
        path, data = self.folder / _HISTORY, to_json(history, coming)
        if not path.exists() or read_whole(path, _LARGEST) != data:
            staging.write_file(path, data, mode=0o644)


def seal(folder: Path, manifest: Manifest) -> None:
    """Make a staged release whole: its manifest in it, no file writable. Raises `OSError`."""
    path = folder / NAME
    if not path.exists():
        staging.write_file(path, manifest.to_json(), mode=0o644)
    for file in _files(folder):
        file.chmod(stat.S_IMODE(file.lstat().st_mode) & 0o555)


class Watch:
    """A release while a command of the user's looks at it: what of it is another afterwards.

    No program can set a file's ctime, so a file is read again only if its ctime has moved, or may have without being
    seen: file systems count in ticks of some milliseconds, old ones in seconds.
    """

    _TICK = 0.02
    """Seconds; more than the kernel's clock of file times takes for a step."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._lines = {line.path: line for line in (*manifest.files, _line_of(folder / NAME))}
        self._before = _looks(folder)
        time.sleep(self._TICK)
        self._since = time.time_ns() - int(self._TICK / 2 * 1e9)

    def changed(self) -> list[str]:
        """The names that were added, removed, replaced, written to, or given other modes, owners or times."""
        after = _looks(self._folder)
        return sorted(name for name in self._before.keys() | after.keys() if self._is_changed(name, after.get(name)))

    def _is_changed(self, name: str, after: _Look | None) -> bool:
        before = self._before.get(name)
        if before is None or after is None or before.facts != after.facts:
            return True
        if stat.S_ISDIR(after.facts[0]):
            return False
        is_settled = before.ctime_ns < self._since and before.ctime_ns % 10**9
        if is_settled and before.ctime_ns == after.ctime_ns:
            return False
        line = self._lines.get(name)
        return before.ctime_ns != after.ctime_ns if line is None else not _holds(self._folder / name, line)


@dataclass(frozen=True)
class _Look:
    """One entry: what must stay as it is, its mode first, and the time of its last change of any kind."""

    facts: tuple[int, ...]
    ctime_ns: int


def _looks(folder: Path) -> dict[str, _Look]:
    """Every file and folder of a release by its name, and the release's own folder as ``.``."""
    found = {}
    for place, folders, files in os.walk(folder):
        for path in (Path(place), *(Path(place, name) for name in (*folders, *files))):
            facts = path.lstat()
            fixed: tuple[int, ...] = (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_dev, facts.st_ino)
            if not stat.S_ISDIR(facts.st_mode):
                fixed += (facts.st_size, facts.st_mtime_ns)
            found[str(path.relative_to(folder))] = _Look(fixed, facts.st_ctime_ns)
    return found


def _line_of(path: Path) -> Line:
    data = path.read_bytes()
    return Line(path.name, len(data), hashlib.sha256(data).hexdigest())


def switched(before: str, after: str, why: str) -> Switch:
    """A switch that happens now; ``why`` is ``release`` or ``rollback``."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Switch(moment, before, after, why, by=f"{os.environ.get('USER') or os.getuid()}:{os.getpid()}")


def back(shelf: Shelf, history: History) -> str:
    """The version a rollback goes to. Raises `NotFound` where there is none."""
    previous, item = history.previous, str(shelf.folder)
    if not history.active:
        raise NotFound("nothing was released here", item=item, hint="mdl unpack ARCHIVE --to DIR --release")
    if not previous:
        raise NotFound(f"no release was served before {history.active}", item=item, hint="nothing was changed")
    if not shelf.has(previous):
        raise NotFound(f"the release served before, {previous}, is gone", item=item, hint="nothing was changed")
    return previous


def _files(folder: Path) -> list[Path]:
    return [Path(place) / name for place, _, names in os.walk(folder) for name in names]


def _holds(path: Path, line: Line) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size != line.size:
            return False
        return fingerprint(fd, "sha256").digest.hex == line.sha256
    except OSError:
        return False
    finally:
        os.close(fd)
