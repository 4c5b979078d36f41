"""mirror clean: what in a mirror nobody needs any more: shown, and then deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime
from typing import Literal

from mdl.catalog.lock import Lock, LockedModel
from mdl.catalog.mirror_layout import MirrorPlace
from mdl.errors import MdlError, NotFound
from mdl.formatting import human_age
from mdl.plugins.mirror.marker import MARKER
from mdl.plugins.mirror.operation import Held, Mirror, held_by
from mdl.sources.object_store import PartedUpload
from mdl.values import value_class

Version = tuple[str, str]
"""The name of a model, and a version of it."""


@value_class
class MirrorItem:
    """One thing in a mirror that `clean` judged, and what became of it: ``would delete``, ``deleted`` or ``kept``.
    ``error`` is why it could not be deleted."""

    kind: Literal["upload", "superseded", "incomplete"]
    name: str
    url: str
    bytes: int
    why: str
    action: Literal["would delete", "deleted", "kept"]
    keys: tuple[str, ...] = field(default=(), repr=False)
    marker: str = field(default="", repr=False)
    upload: PartedUpload | None = field(default=None, repr=False)
    error: MdlError | None = None


def clean(
    mirror: Mirror, lock: Lock, names: Sequence[str] | None, *, older_than: float, remove: bool, now: float
) -> list[MirrorItem]:
    """Judge what in the mirror nobody needs any more, and delete it only with ``remove``: uploads that were begun and
    not ended, versions that the lock has left behind, versions without a marker.

    What is younger than ``older_than`` seconds stays, and so does whatever the lock names. A version is superseded once
    the locked one is complete in the mirror, if that was written later: else it is the lock that was left behind. Of
    models that the lock does not have, only what is unfinished is judged. What cannot be deleted hinders no other.
    ``now`` in seconds since 1970.
    """
    held_versions = held_by(mirror, names=names)
    items: list[MirrorItem] = []
    busy: set[Version] = set()
    for upload in mirror.bucket.uploads(mirror.place.prefix):
        parts = mirror.place.split(upload.key)
        if parts is None:
            continue
        name, version, _ = parts
        if names is not None and name not in names:
            continue
        item = _judge_upload(upload, parts, mirror, older_than, now)
        if item is None:
            continue
        items.append(item)
        if item.action == "kept":
            busy.add((name, version))
    marked = {(held.name, held.version): held.marked for held in held_versions if held.marked}
    for held in held_versions:
        item = judge(held, lock, marked, busy, mirror.place, older_than, now)
        if item:
            items.append(item)
    items.sort(key=lambda item: (item.name, item.kind, item.url))
    if remove:
        items = [_deleted(item, mirror) for item in items]
    return items


def _deleted(item: MirrorItem, mirror: Mirror) -> MirrorItem:
    """The item after it was deleted, if it was to be; kept if it could not be, or if a push that began meanwhile has
    written into it."""
    if item.action == "kept":
        return item
    try:
        if item.upload:
            mirror.bucket.abort(item.upload)
        if _is_changed(item, mirror):
            return replace(item, action="kept", why="a push is at work on it")
        mirror.bucket.delete(item.keys)
        if _is_changed(item, mirror):  # nobody may take what is left for complete
            mirror.bucket.delete([item.marker])
    except MdlError as error:
        return replace(item, action="kept", why=f"it could not be deleted: {error.message}", error=error)
    return replace(item, action="deleted")


def _is_changed(item: MirrorItem, mirror: Mirror) -> bool:
    """Whether there are objects in the folder of an incomplete version that were not there when it was judged."""
    if item.kind != "incomplete":
        return False
    prefix = item.marker.removesuffix(MARKER)
    return any(set(held.keys) - set(item.keys) for held in held_by(mirror, prefix))


def judge(
    held: Held,
    lock: Lock,
    marked: Mapping[Version, datetime],
    busy: set[Version],
    place: MirrorPlace,
    older_than: float,
    now: float,
) -> MirrorItem | None:
    """What is to happen to a version; None if it is one that is needed, or another catalog's. ``marked`` tells when
    each complete version got its marker, ``busy`` are those into which something is being sent."""
    locked = lock.models.get(held.name)
    kind: Literal["superseded", "incomplete"] = "incomplete"
    why = "it has no marker"
    if held.is_complete:
        if locked is None or locked.version == held.version:
            return None
        kind = "superseded"
        why = f"the lock names {locked.version}"
    age = 0.0
    if held.modified:
        age = now - held.modified.timestamp()
    why += f"; written {human_age(age)}"
    is_kept = age < older_than or (held.name, held.version) in busy
    reason = _why_it_stays(held, locked, marked) if locked else ""
    if reason:
        is_kept = True
        why = reason
    marker = place.key(held.name, held.version, MARKER)
    keys = sorted(held.keys, key=lambda key: key != marker)  # without its marker nobody takes the rest for complete
    action: Literal["would delete", "kept"] = "kept" if is_kept else "would delete"
    url = place.url(held.name, held.version)
    return MirrorItem(kind, held.name, url, held.bytes, why, action, tuple(keys), marker)


def _why_it_stays(held: Held, locked: LockedModel, marked: Mapping[Version, datetime]) -> str:
    """Why a version stays however old it is; '' if nothing speaks for it."""
    if locked.version == held.version:
        return "the lock names it; a push continues it"
    if held.marked is None:
        return ""
    successor = marked.get((held.name, locked.version))
    if successor is None:
        return f"the locked version {locked.version} is not complete here"
    if successor < held.marked:
        return f"it is newer than {locked.version}, which the lock names: is this lock an old one?"
    return ""


def _judge_upload(
    upload: PartedUpload, place: tuple[str, str, str], mirror: Mirror, older_than: float, now: float
) -> MirrorItem | None:
    """What is to happen to an upload; None if it has ended. It is as old as its newest part: a push may take days."""
    try:
        parts = mirror.bucket.parts(upload)
    except NotFound:
        return None
    name = place[0]
    url = mirror.place.url(*place)
    size = sum(part.size for part in parts)
    times = [part.modified for part in parts if part.modified]
    if upload.begun_at:
        times.append(upload.begun_at)
    if not times:
        return MirrorItem("upload", name, url, size, "the store does not say when it was begun", "kept")
    age = now - max(times).timestamp()
    why = f"not ended; the last of it came {human_age(age)}"
    action: Literal["would delete", "kept"] = "kept" if age < older_than else "would delete"
    return MirrorItem("upload", name, url, size, why, action, upload=upload)
