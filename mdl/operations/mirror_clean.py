"""mirror clean: what in a mirror nobody needs any more: shown, and then deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mdl.catalog.lock import Lock
from mdl.formatting import human_age
from mdl.mirror.layout import MARKER, MirrorPlace
from mdl.mirror.objects import PartedUpload
from mdl.operations.mirror import Held, Mirror, held_by


@dataclass(frozen=True)
class MirrorItem:
    """One thing in a mirror that `clean` judged, and what became of it: ``would delete``, ``deleted`` or ``kept``."""

    kind: Literal["upload", "superseded", "incomplete"]
    name: str
    url: str
    bytes: int
    why: str
    action: Literal["would delete", "deleted", "kept"]
    keys: tuple[str, ...] = field(default=(), repr=False)
    upload: PartedUpload | None = field(default=None, repr=False)


def clean(
    mirror: Mirror, lock: Lock, names: Sequence[str] | None, *, older_than: float, remove: bool, now: float
) -> list[MirrorItem]:
    """Judge what in the mirror nobody needs any more, and delete it only with ``remove``: uploads that were begun and
    not ended, versions that the lock has left behind, versions without a marker.

    What is younger than ``older_than`` seconds stays, and so does whatever the lock names. A superseded version stays
    until the locked one is complete in the mirror; of models that the lock does not have, only what is unfinished is
    judged. ``now`` in seconds since 1970.
    """
    held = [one for one in held_by(mirror) if names is None or one.name in names]
    whole = {(one.name, one.version) for one in held if one.is_complete}
    items: list[MirrorItem] = []
    busy: set[tuple[str, str]] = set()
    for upload in mirror.objects.uploads(mirror.place.prefix):
        parts = mirror.place.split(upload.key)
        if parts and (names is None or parts[0] in names):
            items.append(_judge_upload(upload, parts, mirror, older_than, now))
            busy |= {parts[:2]} if items[-1].action == "kept" else set()
    items += [item for one in held if (item := _judge(one, lock, whole, busy, mirror.place, older_than, now))]
    done = []
    for item in sorted(items, key=lambda item: (item.name, item.kind, item.url)):
        if remove and item.action == "would delete":
            if item.upload:
                mirror.objects.abort(item.upload)
            mirror.bucket.delete(item.keys)
            item = replace(item, action="deleted")
        done.append(item)
    return done


def _judge(
    held: Held,
    lock: Lock,
    whole: set[tuple[str, str]],
    busy: set[tuple[str, str]],
    place: MirrorPlace,
    older_than: float,
    now: float,
) -> MirrorItem | None:
    """What is to happen to a version; None if it is one that is needed, or another catalog's. ``whole`` are the
    versions with a marker, ``busy`` those into which something is being sent."""
    locked = lock.models.get(held.name)
    is_locked = locked is not None and locked.version == held.version
    if held.is_complete and (locked is None or is_locked):
        return None
    kind: Literal["superseded", "incomplete"] = "superseded" if held.is_complete else "incomplete"
    age = now - held.modified.timestamp() if held.modified else 0.0
    why = f"the lock names {locked.version}" if held.is_complete and locked else "it has no marker"
    why += f"; written {human_age(age)}"
    stays = is_locked or age < older_than or (held.name, held.version) in busy
    if is_locked:
        why = "the lock names it; a push goes on with it"
    elif locked and held.is_complete and (held.name, locked.version) not in whole:
        stays, why = True, f"the locked version {locked.version} is not complete here"
    marker = place.key(held.name, held.version, MARKER)
    keys = sorted(held.keys, key=lambda key: key != marker)  # without its marker nobody takes the rest for complete
    url = place.url(held.name, held.version)
    return MirrorItem(kind, held.name, url, held.bytes, why, "kept" if stays else "would delete", tuple(keys))


def _judge_upload(
    upload: PartedUpload, place: tuple[str, str, str], mirror: Mirror, older_than: float, now: float
) -> MirrorItem:
    """What is to happen to an upload. It is as old as its newest part: a push may take days."""
    parts, name, url = mirror.objects.parts(upload), place[0], mirror.place.url(*place)
    size = sum(part.size for part in parts)
    times = [one for one in (upload.begun_at, *(part.modified for part in parts)) if one]
    if not times:
        return MirrorItem("upload", name, url, size, "the store does not tell when it was begun", "kept")
    age = now - max(times).timestamp()
    why = f"not ended; the last of it came {human_age(age)}"
    return MirrorItem("upload", name, url, size, why, "kept" if age < older_than else "would delete", (), upload)
