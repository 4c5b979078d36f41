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
    held_versions = [held for held in held_by(mirror) if names is None or held.name in names]
    items: list[MirrorItem] = []
    busy: set[tuple[str, str]] = set()
    for upload in mirror.bucket.uploads(mirror.place.prefix):
        parts = mirror.place.split(upload.key)
        if parts is None or (names is not None and parts[0] not in names):
            continue
        item = _judge_upload(upload, parts, mirror, older_than, now)
        if item:
            items.append(item)
            if item.action == "kept":
                busy.add(parts[:2])
    marked = {(held.name, held.version): held.marked for held in held_versions if held.marked}
    for held in held_versions:
        item = judge(held, lock, marked, busy, mirror.place, older_than, now)
        if item:
            items.append(item)
    done = []
    for item in sorted(items, key=lambda item: (item.name, item.kind, item.url)):
        if remove and item.action == "would delete":
            try:
                item = _deleted(item, mirror)
            except MdlError as error:
                item = replace(item, action="kept", why=f"it could not be deleted: {error.message}", error=error)
        done.append(item)
    return done


def _deleted(item: MirrorItem, mirror: Mirror) -> MirrorItem:
    """The item after it was deleted, or kept because a push that began meanwhile has written into it."""
    if item.upload:
        mirror.bucket.abort(item.upload)
    if item.kind == "incomplete" and _is_changed(item, mirror):
        return replace(item, action="kept", why="a push is at work on it")
    mirror.bucket.delete(item.keys)
    if item.kind == "incomplete" and _is_changed(item, mirror):  # nobody may take what is left for complete
        mirror.bucket.delete([item.marker])
    return replace(item, action="deleted")


def _is_changed(item: MirrorItem, mirror: Mirror) -> bool:
    """Whether there are objects in this folder that were not there when it was judged."""
    prefix = item.marker.removesuffix(MARKER)
    return any(set(one.keys) - set(item.keys) for one in held_by(mirror, prefix))


def judge(
    held: Held,
    lock: Lock,
    marked: Mapping[tuple[str, str], datetime],
    busy: set[tuple[str, str]],
    place: MirrorPlace,
    older_than: float,
    now: float,
) -> MirrorItem | None:
    """What is to happen to a version; None if it is one that is needed, or another catalog's. ``marked`` tells when
    each complete version got its marker, ``busy`` are those into which something is being sent."""
    locked = lock.models.get(held.name)
    is_locked = locked is not None and locked.version == held.version
    if held.is_complete and (locked is None or is_locked):
        return None
    age = now - held.modified.timestamp() if held.modified else 0.0
    reason = _why_it_stays(held, locked, marked)
    if held.is_complete and locked:
        kind: Literal["superseded", "incomplete"] = "superseded"
        why = f"the lock names {locked.version}; written {human_age(age)}"
    else:
        kind = "incomplete"
        why = f"it has no marker; written {human_age(age)}"
    stays = bool(reason) or age < older_than or (held.name, held.version) in busy
    marker = place.key(held.name, held.version, MARKER)
    keys = sorted(held.keys, key=lambda key: key != marker)  # without its marker nobody takes the rest for complete
    return MirrorItem(
        kind,
        held.name,
        place.url(held.name, held.version),
        held.bytes,
        reason or why,
        "kept" if stays else "would delete",
        tuple(keys),
        marker,
    )


def _why_it_stays(held: Held, locked: LockedModel | None, marked: Mapping[tuple[str, str], datetime]) -> str:
    """Why a version stays however old it is; '' if nothing speaks for it."""
    if locked is None:
        return ""
    if locked.version == held.version:
        return "the lock names it; a push goes on with it"
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
        return MirrorItem("upload", name, url, size, "the store does not tell when it was begun", "kept")
    age = now - max(times).timestamp()
    why = f"not ended; the last of it came {human_age(age)}"
    return MirrorItem("upload", name, url, size, why, "kept" if age < older_than else "would delete", upload=upload)
