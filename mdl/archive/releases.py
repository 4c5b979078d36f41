"""Releases: archives put into service, one folder each, and ``current``, a link that is switched in one step.

``DIR/releases/<version>/`` is complete and read-only. ``DIR/current`` is a relative link, and it alone says what is
served. ``DIR/releases.json`` remembers the order in which releases came and were served, whatever their names and
times are. A release is recorded after the switch, a rollback before it: so whenever mdl is killed, a link that the
record does not know of means a release that was not recorded yet, or a rollback that did not happen.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Container
from dataclasses import asdict, field, replace
from pathlib import Path

from mdl.archive.manifest import NAME, Manifest, ManifestEntry
from mdl.archive.unpack import FindCopy
from mdl.bounds import LARGEST_JSON, parse_json
from mdl.disk import publish
from mdl.disk.safe_open import UNREADABLE_ERRNOS, open_parent, read_whole
from mdl.errors import NotFound, Occupied, ProtocolError, StateError, Unsafe, UsageError
from mdl.formatting import listed, utc_now
from mdl.hashing import fingerprint
from mdl.paths import RelPath
from mdl.values import value_class

SCHEMA = "mdl.releases/1"
_REMEMBERED = 1000
"""How many switches are kept."""


@value_class
class Switch:
    """One change of what is served: when (UTC), from and to which version, ``why`` (``release`` or ``rollback``), and
    by which user and process."""

    time: str
    before: str
    after: str
    why: str
    by: str = ""


@value_class
class History:
    """``releases`` are in the order they came; ``served`` are the versions that a rollback goes back through, the
    active one last; ``switches`` the last thousand changes. ``unless_switched`` is what ``served`` was before the last
    change, if that is a rollback that may not have happened: it is recorded before and after the switch."""

    releases: tuple[str, ...] = ()
    served: tuple[str, ...] = ()
    switches: tuple[Switch, ...] = field(default=(), repr=False)
    unless_switched: tuple[str, ...] = ()

    @property
    def active(self) -> str:
        return self.served[-1] if self.served else ""

    @property
    def previous(self) -> str:
        """The version that a rollback returns to, or ''."""
        return self.served[-2] if len(self.served) > 1 else ""

    @property
    def withdrawn(self) -> tuple[str, ...]:
        """The versions that were rolled back from, and not served again since."""
        once_served = {switch.after for switch in self.switches} - set(self.served)
        return tuple(version for version in self.releases if version in once_served)

    def released(self, version: str, switch: Switch) -> History:
        """The history once ``version`` is active."""
        before = [earlier for earlier in self.served if earlier != version]
        return History(self._with_release(version), (*before, version), self._with(switch))

    def rolled_back(self, switch: Switch) -> History:
        """The history once ``switch.after`` is active again: a version that was served before, or one that was rolled
        back from."""
        version = switch.after
        served = self.served
        if version in served:
            served = served[: served.index(version)]
        return History(self._with_release(version), (*served, version), self._with(switch), unless_switched=self.served)

    def _with_release(self, version: str) -> tuple[str, ...]:
        return self.releases if version in self.releases else (*self.releases, version)

    def not_rolled_back(self, active: str) -> History | None:
        """The history without its last change, if that is a rollback that did not happen, for ``active`` is served
        still."""
        if self.unless_switched[-1:] != (active,):
            return None
        return History(self.releases, self.unless_switched, self.switches[:-1])

    def kept(self, keep: int, here: Container[str]) -> History:
        """Without the versions that are not ``here`` any more, and without the oldest beyond ``keep``; the active and
        the previous version always stay."""
        present = [version for version in self.releases if version in here]
        removable = [version for version in present if version not in (self.active, self.previous)]
        over = max(len(present) - max(keep, 1), 0)
        kept = {self.active, *present}.difference(removable[:over])
        releases = tuple(version for version in self.releases if version in kept)
        served = tuple(version for version in self.served if version in kept)
        return replace(self, releases=releases, served=served)

    def _with(self, switch: Switch) -> tuple[Switch, ...]:
        return (*self.switches, switch)[-_REMEMBERED:]


def to_json(history: History) -> bytes:
    facts = {
        "schema": SCHEMA,
        "active": history.active,
        "previous": history.previous,
        "releases": history.releases,
        "served": history.served,
        "unless_switched": history.unless_switched,
        "withdrawn": history.withdrawn,
        "switches": [asdict(switch) for switch in history.switches],
    }
    return json.dumps(facts, indent=1).encode() + b"\n"


def from_json(data: bytes) -> History:
    """Raises `ValueError`, `KeyError`, `TypeError`, `AttributeError`, `Unsafe` if this is not a history."""
    facts = parse_json(data)
    if facts["schema"] != SCHEMA:
        raise ValueError(facts["schema"])

    def names(key: str) -> tuple[str, ...]:
        return tuple(RelPath.parse(name).text for name in facts[key])

    switches = []
    for row in facts["switches"]:
        switches.append(Switch(**{key: str(value) for key, value in row.items()}))
    return History(names("releases"), names("served"), tuple(switches), names("unless_switched"))


# The folder of the releases

Watch = Callable[[int], None]
_CURRENT = "current"
_RELEASES = "releases"
_HISTORY = "releases.json"
_VERSION = re.compile(r"(step-[0-9]+|model)-[0-9a-f]{12}")
_DAMAGED = "this file of the release is damaged or gone"


class ReleaseDir:
    """A folder of releases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current = folder / _CURRENT
        self.releases = folder / _RELEASES

    def path_of(self, version: str) -> Path:
        return self.releases / version

    def has(self, version: str) -> bool:
        return bool(version) and self.path_of(version).is_dir()

    def check_place(self) -> None:
        """Raises `Occupied` if this folder is inside the releases of another one: those are read-only, and removed."""
        place = self.folder.resolve()
        for above in (place, *place.parents):
            if above.name == _RELEASES and (above.parent / _HISTORY).is_file():
                message = f"it is inside the releases of {above.parent}, which are removed when they are old"
                raise Occupied(message, item=str(self.folder), hint=f"--to {above.parent} releases it there")

    def prepare(self) -> None:
        """Make the folders, remove what killed processes left, and refuse what does not belong to mdl.

        Raises `Occupied`, `Unsafe`, `OSError`.
        """
        if os.path.lexists(self.current) and not self.active():
            hint = "move it away; mdl makes it a link into releases/"
            raise Occupied("'current' is not a release of mdl's", item=str(self.current), hint=hint)
        if self.releases.is_symlink():
            hint = "move it away; to have releases on another disk, link the folder above"
            raise Unsafe(f"refused: {self.releases} is a symbolic link", item=str(self.releases), hint=hint)
        self.releases.mkdir(parents=True, exist_ok=True)
        publish.sweep(self.releases)
        publish.sweep(self.folder)

    def active(self) -> str:
        """The version that ``current`` leads to, or ''."""
        try:
            head, _, version = os.readlink(self.current).rpartition("/")
        except OSError:
            return ""
        if head == _RELEASES and version not in ("", ".", ".."):
            return version
        return ""

    def served(self) -> str:
        """The version that is served: ``current`` leads to it, and it is here. '' if there is none."""
        active = self.active()
        return active if self.has(active) else ""

    def history(self) -> History:
        """Return what happened here, with the switch that a killed mdl made and did not record. Raises `StateError`,
        `OSError`."""
        recorded = self.recorded()
        active = self.active()
        if active in ("", recorded.active) or not self.has(active):
            return recorded
        before_rollback = recorded.not_rolled_back(active)
        if before_rollback:
            return before_rollback
        return recorded.released(active, new_switch(recorded.active, active, "release"))

    def recorded(self) -> History:
        """The history as it is on the disk. If it was moved away, the releases that are here came before any other one.
        Raises `StateError`, `OSError`."""
        path = self.folder / _HISTORY
        hint = "move it away; 'current' and the releases stay as they are"
        try:
            return from_json(read_whole(path, LARGEST_JSON))
        except FileNotFoundError:
            return History(tuple(sorted(self.here(), key=self._age)))
        except OSError as error:
            if error.errno not in UNREADABLE_ERRNOS:
                raise
            message = f"the history of releases cannot be read: {error.strerror}"
            raise StateError(message, item=str(path), hint=hint) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Unsafe) as error:
            raise StateError("the history of releases cannot be read", item=str(path), hint=hint) from error

    def _age(self, version: str) -> tuple[int, str]:
        """A sort key: the oldest release first."""
        return self.path_of(version).stat().st_mtime_ns, version

    def record(self, history: History) -> None:
        """Write the history, unless that is what the file says already. Raises `OSError`."""
        path = self.folder / _HISTORY
        data = to_json(history)
        if not path.exists() or read_whole(path, LARGEST_JSON) != data:
            publish.write_file(path, data, mode=0o644)

    def serve_release(self, after: History) -> None:
        """Serve the active version of ``after`` and record it. A full disk is noticed before the switch.

        Raises `Unsafe`, `OSError`.
        """
        with open_parent(self.folder, RelPath(_HISTORY)) as place:
            staged = publish.stage(self.folder, _HISTORY, to_json(after), mode=0o644)
            try:
                self.switch_to(after.active)
                publish.publish(staged, place)
            finally:
                staged.unlink(missing_ok=True)

    def switch_to(self, version: str) -> None:
        """Serve a version, in one step: a reader of ``current`` sees the old one or this one. Raises `OSError`."""
        publish.switch_link(self.current, f"{_RELEASES}/{version}")

    def here(self) -> set[str]:
        """The versions whose folders are here, whether or not they are recorded."""
        return {entry.name for entry in self.releases.iterdir() if _VERSION.fullmatch(entry.name) and entry.is_dir()}

    def prune(self, history: History) -> tuple[str, ...]:
        """Record the history, and remove the folders that it does not keep; returns the versions removed."""
        self.record(history)
        gone = tuple(sorted(self.here() - set(history.releases) - {history.active}))
        for version in gone:
            publish.retire(self.path_of(version))
        return gone

    def check_used(self, history: History) -> None:
        """Raises `NotFound` if nothing was ever released here."""
        if not history.active:
            hint = "mdl unpack ARCHIVE --to DIR --release"
            raise NotFound("nothing was released here", item=str(self.folder), hint=hint)

    def chosen(self, history: History, name: str) -> str:
        """The version called ``name``, or the only one that has it in its name.

        Raises `NotFound` or `UsageError` with the versions that are meant.
        """
        self.check_used(history)
        here = self.here()
        if name in here:
            return name
        matching = sorted(version for version in here if name and name in version)
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise UsageError(f"{len(matching)} releases match", item=name, hint=listed(matching))
        known = [version for version in history.releases if version in here]
        raise NotFound("no such release", item=name, hint=f"there are: {listed(known)}")

    def rollback_target(self, history: History) -> str:
        """The version that a rollback goes to. Raises `NotFound` if there is no such version."""
        self.check_used(history)
        previous = history.previous
        item = str(self.folder)
        if not previous:
            hint = f"nothing was changed; 'mdl releases {item}' lists them, and --to VERSION serves any of them"
            raise NotFound(f"no release was served before {history.active}", item=item, hint=hint)
        if not self.has(previous):
            why = f"the release served before, {previous}, does not exist any more"
            raise NotFound(why, item=item, hint="nothing was changed")
        return previous

    def manifest(self, version: str) -> Manifest | None:
        """Return what a release holds, as it was recorded; None if that cannot be read."""
        try:
            return Manifest.from_json(read_whole(self.path_of(version) / NAME, LARGEST_JSON))
        except (OSError, ProtocolError, StateError):
            return None

    def quick_check(self, version: str) -> None:
        """See that every file of a release is there and as long as it was, without reading it: a rollback must be
        quick. Raises `ProtocolError`."""
        hint = f"nothing was changed; unpack {version} again"
        missing = self.first_missing(version, self._readable_manifest(version, hint))
        if missing:
            raise ProtocolError(_DAMAGED, item=f"{version}/{missing}", hint=hint)

    def first_missing(self, version: str, manifest: Manifest) -> str:
        """The first file of a release that is not there or is not as long as it was; "" if all are."""
        for entry in manifest.files:
            path = self._file(version, entry)
            if not path.is_file() or path.stat().st_size != entry.size:
                return entry.path
        return ""

    def full_check(self, version: str, watch: Watch | None = None) -> Manifest:
        """Read a release again and compare it with its manifest; ``watch`` is called with the bytes read of a file, and
        may raise to stop. Raises `ProtocolError` naming what is wrong."""
        hint = f"remove {self.path_of(version)} and unpack the archive again"
        manifest = self._readable_manifest(version, hint)
        for entry in manifest.files:
            if not _matches(self._file(version, entry), entry, watch):
                raise ProtocolError(_DAMAGED, item=f"{version}/{entry.path}", hint=hint)
        return manifest

    def _readable_manifest(self, version: str, hint: str) -> Manifest:
        manifest = self.manifest(version)
        if manifest is None:
            raise ProtocolError("this release has no readable manifest", item=version, hint=hint)
        return manifest

    def copies_in(self, version: str, watch: Watch | None = None) -> FindCopy:
        """Finds the same bytes in a release; they are read again and their digest compared before they are offered.
        ``watch`` is as in `full_check`."""
        known: set[ManifestEntry] = set()
        manifest = self.manifest(version)
        if manifest:
            known.update(manifest.files)

        def find(entry: ManifestEntry) -> Path | None:
            if entry in known:
                path = self._file(version, entry)
                if _matches(path, entry, watch):
                    return path
            return None

        return find

    def _file(self, version: str, entry: ManifestEntry) -> Path:
        return RelPath.parse(entry.path).under(self.path_of(version))


def make_readonly(folder: Path, manifest: Manifest) -> None:
    """Complete a staged release: its manifest is written, and no file of it stays writable. Raises `OSError`."""
    path = folder / NAME
    if not path.exists():
        publish.write_file(path, manifest.to_json(), mode=0o644)
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place, name)
            file.chmod(stat.S_IMODE(file.lstat().st_mode) & 0o555)


_TICK = 0.02
"""Seconds; longer than a step of the kernel's clock for file times."""


class ChangeWatch:
    """Tells what a user's command changed in a release that it looked at.

    No program can set a file's ctime, so a file is read again only if its ctime has moved.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        data = (folder / NAME).read_bytes()
        own = ManifestEntry(NAME, len(data), hashlib.sha256(data).hexdigest())
        self._entries = {entry.path: entry for entry in (*manifest.files, own)}
        self._before = _statuses(folder)
        time.sleep(_TICK)

    def changed(self) -> list[str]:
        """The names that were added, removed, replaced, written to, or given other modes, owners or times."""
        after = _statuses(self._folder)
        changed = self._before.keys() ^ after.keys()
        for name in self._before.keys() & after.keys():
            if self._is_changed(name, self._before[name], after[name]):
                changed.add(name)
        return sorted(changed)

    def _is_changed(self, name: str, before: os.stat_result, after: os.stat_result) -> bool:
        if _fixed(before) != _fixed(after):
            return True
        if stat.S_ISDIR(after.st_mode) or before.st_ctime_ns == after.st_ctime_ns:
            return False
        return not _matches(self._folder / name, self._entries[name])


def _statuses(folder: Path) -> dict[str, os.stat_result]:
    """Every file and folder of a release by its name, and the release's own folder as ``.``."""
    statuses = {}
    for place, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            path = Path(place, name)
            statuses[str(path.relative_to(folder))] = path.lstat()
    return statuses


def _fixed(status: os.stat_result) -> tuple[int, ...]:
    """Return what must stay as it is. A folder's size and time tell nothing: a file may come and go in it."""
    own = (status.st_mode, status.st_uid, status.st_gid, status.st_dev, status.st_ino)
    if stat.S_ISDIR(status.st_mode):
        return own
    return (*own, status.st_size, status.st_mtime_ns)


def new_switch(before: str, after: str, why: str) -> Switch:
    """A switch that happens now; ``why`` is ``release`` or ``rollback``."""
    return Switch(utc_now("seconds"), before, after, why, by=f"{os.environ.get('USER') or os.getuid()}:{os.getpid()}")


def _matches(path: Path, entry: ManifestEntry, watch: Watch | None = None) -> bool:
    """Tell whether the file there is a regular one with the entry's size and digest."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size != entry.size:
            return False
        return fingerprint(fd, "sha256", watch=watch).digest.hex == entry.sha256
    except OSError:
        return False
    finally:
        os.close(fd)
