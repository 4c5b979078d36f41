"""Releases: what a folder of releases holds, which one is served, and what was served when. Nothing is written."""

from __future__ import annotations

import os
from dataclasses import field
from pathlib import Path

from mdl.archive.releases import History, ReleaseDir, Switch
from mdl.config.places import place_of
from mdl.values import value_class


@value_class
class ReleaseVersion:
    """One release of a folder.

    ``state`` is ``current`` (served now), ``previous`` (what a rollback returns to), ``withdrawn`` (rolled back from)
    or ``kept``. ``released_at`` is when it came and ``served_at`` when it was last switched to, ISO 8601 in UTC; None
    if the history does not say. ``files`` and ``bytes`` are as its manifest says, None without one. ``is_complete``:
    every file is there, and as long as it was.
    """

    version: str
    path: Path
    state: str
    released_at: str | None
    served_at: str | None
    files: int | None
    bytes: int | None
    is_complete: bool


@value_class
class ReleaseList:
    """The releases of a folder in the order they came; ``current`` is served now. ``switches`` are the changes of what
    was served, the last thousand."""

    folder: Path
    current: str
    versions: tuple[ReleaseVersion, ...]
    switches: tuple[Switch, ...] = field(repr=False)


def releases(folder: str | os.PathLike[str]) -> ReleaseList:
    """The releases of ``folder``, which of them is served, and what was served when. Nothing is written.

    Raises `NotFound` if nothing was released there, `StateError` if the history cannot be read, `OSError`.
    """
    place = ReleaseDir(Path(os.path.abspath(place_of(folder, "folder"))))
    if not place.releases.is_dir():
        place.check_used(History())
    history = place.history()
    here = place.here()
    place.check_used(history)
    known = [one for one in history.releases if one in here]
    versions = tuple(_version(place, history, one) for one in (*known, *sorted(here.difference(known))))
    return ReleaseList(place.folder, history.active, versions, history.switches)


def _version(place: ReleaseDir, history: History, version: str) -> ReleaseVersion:
    states = {history.active: "current", history.previous: "previous"} | dict.fromkeys(history.withdrawn, "withdrawn")
    moments = [(one.time, one.why) for one in history.switches if one.after == version]
    manifest = place.manifest(version)
    return ReleaseVersion(
        version,
        place.path_of(version),
        states.get(version, "kept"),
        released_at=next((time for time, why in moments if why == "release"), None),
        served_at=moments[-1][0] if moments else None,
        files=len(manifest.files) if manifest else None,
        bytes=manifest.size if manifest else None,
        is_complete=manifest is not None and not place.first_missing(version, manifest),
    )
