"""Releases: archives put into service, one folder each, and ``current``, a link that is switched in one step.

``DIR/releases/<version>/`` is complete and read-only; ``DIR/current`` a relative link; ``DIR/releases.json`` the
history. The order of releases is the recorded one, never that of names or times.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mdl import staging
from mdl.archive.manifest import NAME, Line, Manifest
from mdl.archive.unpacking import Reuse
from mdl.digests import fingerprint
from mdl.errors import NotFound, Occupied, ProtocolError, StateError
from mdl.paths import RelPath

SCHEMA = "mdl.releases/1"
_CURRENT, _RELEASES, _HISTORY = "current", "releases", "releases.json"


@dataclass(frozen=True)
class Switch:
    """One change of what is served: when (UTC), from and to which version, and why: ``release`` or ``rollback``."""

    time: str
    before: str
    after: str
    why: str
    by: str = ""


@dataclass(frozen=True)
class History:
    """``releases`` in the order they came; ``served`` the versions that a rollback goes back through, the last active;
    ``withdrawn`` those that were rolled back from; ``switches`` everything that happened."""

    releases: tuple[str, ...] = ()
    served: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    switches: tuple[Switch, ...] = field(default=(), repr=False)

    @property
    def active(self) -> str:
        return self.served[-1] if self.served else ""

    @property
    def previous(self) -> str:
        """What a rollback returns to, or ''."""
        return self.served[-2] if len(self.served) > 1 else ""

    def released(self, version: str, switch: Switch) -> History:
        """``version`` is active now."""
        served = (*(one for one in self.served if one != version), version)
        known = self.releases if version in self.releases else (*self.releases, version)
        withdrawn = tuple(one for one in self.withdrawn if one != version)
        return History(known, served, withdrawn, (*self.switches, switch))

    def rolled_back(self, switch: Switch) -> History:
        """The one before is active again, and the one that was active is marked."""
        withdrawn = (*self.withdrawn, self.active)
        return replace(self, served=self.served[:-1], withdrawn=withdrawn, switches=(*self.switches, switch))

    def superfluous(self, keep: int) -> list[str]:
        """The versions to remove so that ``keep`` stay: the oldest first, never the active or the previous one."""
        safe = {self.active, self.previous}
        over = len(self.releases) - max(keep, 1)
        return [one for one in self.releases if one not in safe][: max(over, 0)]

    def without(self, gone: list[str]) -> History:
        def left(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(one for one in names if one not in gone)

        return replace(self, releases=left(self.releases), served=left(self.served), withdrawn=left(self.withdrawn))


class Shelf:
    """A folder of releases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current, self.releases = folder / _CURRENT, folder / _RELEASES

    def place(self, version: str) -> Path:
        return self.releases / version

    def prepare(self) -> None:
        """Make the folders, and see that nothing foreign is in the way. Raises `Occupied`, `OSError`."""
        if os.path.lexists(self.current) and not self.current.is_symlink():
            hint = "move it away; mdl makes it a link"
            raise Occupied("'current' is not a link here", item=str(self.current), hint=hint)
        self.releases.mkdir(parents=True, exist_ok=True)
        staging.sweep(self.releases)
        staging.sweep(self.folder)

    def history(self) -> History:
        """What happened here; the link itself has the last word. Raises `StateError`, `OSError`."""
        path = self.folder / _HISTORY
        try:
            found = _parsed(path.read_bytes())
        except FileNotFoundError:
            found = History()
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            hint = "move it away; 'current' and the releases stay as they are"
            raise StateError("the history of releases cannot be read", item=str(path), hint=hint) from error
        return self._as_served(found)

    def _as_served(self, found: History) -> History:
        """A crash between the switch and its record leaves the link ahead by one."""
        active = self.active()
        if active in ("", found.active) or not self.place(active).is_dir():
            return found
        if active == found.previous:
            return found.rolled_back(_switch(found.active, active, "rollback"))
        return found.released(active, _switch(found.active, active, "release"))

    def active(self) -> str:
        """The version that ``current`` leads to, or ''."""
        try:
            target = os.readlink(self.current)
        except OSError:
            return ""
        head, _, version = target.rpartition("/")
        return version if head == _RELEASES else ""

    def serve(self, version: str) -> None:
        """Switch ``current``, in one step."""
        staging.switch_link(self.current, f"{_RELEASES}/{version}")

    def record(self, history: History) -> None:
        facts = {"schema": SCHEMA, "active": history.active, "previous": history.previous} | asdict(history)
        data = json.dumps(facts, indent=1).encode() + b"\n"
        staging.write_file(self.folder / _HISTORY, data, mode=0o644)

    def remove(self, versions: list[str]) -> None:
        for version in versions:
            staging.remove(self.place(version))

    def manifest(self, version: str) -> Manifest | None:
        """What a release holds, as it was recorded; None where that cannot be read."""
        try:
            return Manifest.from_json((self.place(version) / NAME).read_bytes())
        except (OSError, ProtocolError, StateError):
            return None

    def check(self, version: str) -> None:
        """Read a release again and hold it against its manifest. Raises `ProtocolError` naming what is wrong."""
        manifest = self.manifest(version)
        hint = f"remove {self.place(version)} and unpack the archive again"
        if manifest is None:
            raise ProtocolError("this release has no readable manifest", item=version, hint=hint)
        for line in manifest.files:
            if not _holds(RelPath.parse(line.path).under(self.place(version)), line):
                raise ProtocolError(
                    "this file of the release is damaged or gone", item=f"{version}/{line.path}", hint=hint
                )

    def reuse(self, version: str) -> Reuse:
        """Where the same bytes are in a release already, once they were read and their digest matched."""
        manifest = self.manifest(version) if version else None
        known = {line.path: line for line in manifest.files} if manifest else {}

        def offer(line: Line) -> Path | None:
            place = RelPath.parse(line.path).under(self.place(version))
            return place if known.get(line.path) == line and _holds(place, line) else None

        return offer


def seal(folder: Path, manifest: Manifest) -> None:
    """Make a staged release whole: its manifest in it, nothing writable. Raises `OSError`."""
    path = folder / NAME
    if not path.exists():
        staging.write_file(path, manifest.to_json(), mode=0o644)
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place) / name
            file.chmod(stat.S_IMODE(file.lstat().st_mode) & 0o555)


def switched(before: str, after: str, why: str) -> Switch:
    return _switch(before, after, why)


def back(shelf: Shelf, history: History) -> str:
    """The version a rollback goes to. Raises `NotFound` where there is none."""
    previous = history.previous
    if not history.active:
        raise NotFound(
            "nothing was released here", item=str(shelf.folder), hint="mdl unpack ARCHIVE --to DIR --release"
        )
    if not previous:
        raise NotFound(
            f"no release was served before {history.active}", item=str(shelf.folder), hint="nothing was changed"
        )
    if not shelf.place(previous).is_dir():
        raise NotFound(
            f"the release served before, {previous}, is gone", item=str(shelf.folder), hint="nothing was changed"
        )
    return previous


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


def _switch(before: str, after: str, why: str, clock: Callable[[], float] = time.time) -> Switch:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock()))
    return Switch(moment, before, after, why, by=f"{os.environ.get('USER', '')}:{os.getpid()}")


def _parsed(data: bytes) -> History:
    facts = json.loads(data)
    if facts["schema"] != SCHEMA:
        raise ValueError(facts["schema"])

    def names(key: str) -> tuple[str, ...]:
        return tuple(RelPath.parse(name).text for name in facts[key])

    switches = tuple(Switch(**{key: str(value) for key, value in one.items()}) for one in facts["switches"])
    return History(names("releases"), names("served"), names("withdrawn"), switches)


def facts_of(history: History) -> dict[str, Any]:
    return {"active": history.active, "previous": history.previous or None}
