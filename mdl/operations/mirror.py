"""mirror: what the lock holds, put into an object store, looked at there, and fetched from it; and its cleaning."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal, TypeVar

from mdl import __version__
from mdl.catalog.lock import Lock, LockedModel
from mdl.catalog.model import Model
from mdl.errors import Cancelled, DigestMismatch, LockError, MdlError, NotFound, ProtocolError, UsageError
from mdl.events import Listener, Planned
from mdl.formatting import human_age
from mdl.http.body import Throttle
from mdl.mirror.layout import LARGEST_MARKER, MARKER, MarkedFile, Marker, MirrorPlace
from mdl.mirror.objects import Head, Objects, PartedUpload
from mdl.mirror.sending import Reading, Reporter, Sending, send_all, watched, workers
from mdl.operations.get import get
from mdl.operations.tools import Tools
from mdl.reports import ModelReport, Report, error_of, failures_of
from mdl.sources.object_store import Bucket

Found = TypeVar("Found")
_PUSH = "'mdl mirror push' puts it there"


@dataclass(frozen=True)
class MirroredFile:
    """One file of a version in a mirror. ``status``: after a push ``pushed``, ``kept`` (it was there) or ``failed``;
    after a check ``ok``, ``corrupt``, ``missing`` or ``unverified``. ``resumed_at`` bytes were there as parts."""

    path: str
    size: int
    sha256: str | None
    status: str
    error: MdlError | None = None
    resumed_at: int = 0


@dataclass(frozen=True)
class MirrorVersion:
    """One version of a model in a mirror: the ``url`` of its folder, how many ``objects`` and ``bytes`` it has, and
    what its marker says. ``is_complete`` if it has one; ``is_locked`` if it is the one that the lock names."""

    name: str
    version: str
    url: str
    is_complete: bool = False
    is_locked: bool = False
    objects: int = 0
    bytes: int = 0
    commit: str = ""
    license: str = ""
    written_at: str = ""
    files: tuple[MirroredFile, ...] = ()
    error: MdlError | None = None


@dataclass(frozen=True)
class MirrorReport:
    """How a push or a check went. ``bytes_sent`` went over the network; ``bytes_kept`` were in the mirror before;
    ``bytes_read`` of it were read and hashed."""

    models: tuple[MirrorVersion, ...] = ()
    bytes_sent: int = 0
    bytes_kept: int = 0
    bytes_read: int = 0
    seconds: float = 0.0

    @property
    def failures(self) -> list[tuple[str, MdlError]]:
        """What failed, as ``model`` or ``model/file``, and why: first the models, then the files."""
        return failures_of(self.models)

    @property
    def error(self) -> MdlError | None:
        """The one error that stands for all failures; None if all is well. What is corrupt counts more than what is
        missing, as in a `VerifyReport`."""
        found = self.failures
        corrupt = [row for row in found if isinstance(row[1], ProtocolError)]
        total = sum(len(model.files) or 1 for model in self.models)
        is_check = all(isinstance(error, ProtocolError | NotFound) for _, error in found)
        return error_of(corrupt if corrupt and is_check else found, total)

    def raise_for_errors(self) -> None:
        """Raises `error` if anything failed."""
        if error := self.error:
            raise error


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


@dataclass(frozen=True)
class Mirror:
    """A mirror, open: where it is, and how it is asked. ``tell`` gets the events; ``connections`` at once, at most."""

    place: MirrorPlace
    bucket: Bucket
    objects: Objects
    tell: Listener
    connections: int
    reporter: Reporter

    def marker(self, name: str, version: str) -> Marker | None:
        """The marker of a version; None if it has none. Raises `ProtocolError`, and `NotFound` if there is no such
        bucket."""
        key = self.place.key(name, version, MARKER)
        try:
            data = self.bucket.read(key, LARGEST_MARKER)
        except NotFound as error:
            if "NoSuchBucket" in error.message:
                raise
            return None
        found = Marker.from_json(data, f"{self.bucket}/{key}")
        if (found.name, found.version) != (name, version):
            raise ProtocolError("it is the marker of something else", item=f"{self.bucket}/{key}")
        return found

    def look(self) -> None:
        """Tell what happened meanwhile. Raises `Cancelled`."""
        self.objects.http.cancel.check()
        self.reporter.look()


# Push.


def push(
    models: Sequence[Model], lock: Lock, tools: Tools, mirror: Mirror, throttle: Throttle, *, read_back: bool = False
) -> MirrorReport:
    """Put the locked files of ``models`` into the mirror, and the marker of each model last.

    What is there already is kept after its size and sha256 were compared; with ``read_back`` every object is read and
    hashed. What fails for one file or model is in the report, and hinders no other. Raises `NotFound` if there is no
    such bucket, `AuthError` before anything is sent, `Cancelled`.
    """
    began = time.monotonic()
    _at_once([partial(mirror.marker, model.name, lock.models[model.name].version) for model in models], mirror)
    pinned = [(lock.pin(model, stale=True), lock.models[model.name]) for model in models]
    plans: list[tuple[Model, LockedModel, list[Sending], MdlError | None]] = []
    for model, locked in pinned:
        try:
            plans.append((model, locked, _sendings(model, locked, tools, mirror, throttle, read_back=read_back), None))
        except MdlError as error:
            plans.append((model, locked, [], error.on(model.name)))
    files = [one for _, _, sendings, _ in plans for one in sendings]
    total = sum(one.size for one in files)
    counts = tuple((model.name, len(sendings)) for model, _, sendings, _ in plans)
    mirror.tell(Planned(models=counts, files=len(files), bytes_total=total, bytes_to_fetch=total, verb="push"))
    mirror.reporter.files = files
    try:
        send_all(files, mirror.reporter, workers(mirror.connections, throttle.rate), mirror.objects.http.cancel.check)
    except Cancelled as stopped:
        stopped.hint = "the parts that were sent are kept; run the same command again to go on"
        raise
    found = tuple(_pushed(*plan, mirror) for plan in plans)
    kept = sum(one.size if one.action == "kept" else one.resumed_at for one in files)
    return MirrorReport(found, sum(one.bytes_sent for one in files), kept, seconds=time.monotonic() - began)


def _sendings(
    model: Model, locked: LockedModel, tools: Tools, mirror: Mirror, throttle: Throttle, *, read_back: bool
) -> list[Sending]:
    """The files of a model as they are to be sent. Raises `LockError` for a file without a digest, `UsageError` for one
    with the marker's name, `NotFound` for one that is not here."""
    found, store = [], tools.store
    for remote in tools.resolver.known(model) or ():
        if remote.digest is None:
            hint = f"'mdl get {model.name}' brings it, and the lock then has the digest of what came"
            raise LockError("the lock has no digest of it", item=f"{model.name}/{remote.path}", hint=hint)
        if remote.path.folded == MARKER:
            raise UsageError("a mirror has a file of its own with that name", item=f"{model.name}/{remote.path}")
        local = store.quick_check(model.name, remote)
        if local.kind != "file" or local.stamp is None:
            item = f"{model.name}/{remote.path}"
            raise NotFound(local.why or "not on this disk", item=item, hint=f"mdl get {model.name}")
        key = mirror.place.key(model.name, locked.version, remote.path.text)
        size = local.stamp.size if remote.size is None else remote.size
        path = store.final_path(model.name, remote)
        sending = Sending(model.name, remote.path.text, path, size, remote.digest, key=key, objects=mirror.objects)
        sending.throttle, sending.reads_back = throttle, read_back
        found.append(sending)
    return found


def _pushed(
    model: Model, locked: LockedModel, sendings: Sequence[Sending], error: MdlError | None, mirror: Mirror
) -> MirrorVersion:
    """How the push of one model went; if every file is there, its marker is written now."""
    place, name = mirror.place, model.name
    files = tuple(
        MirroredFile(one.name, one.size, one.sha256 or None, one.action, one.error, one.resumed_at) for one in sendings
    )
    found = MirrorVersion(
        name, locked.version, place.url(name, locked.version), is_locked=True, license=model.license, files=files
    )
    found = replace(found, objects=len(files), bytes=sum(file.size for file in files))
    if error or any(file.error for file in files):
        return replace(found, error=error)
    try:
        marker = _mark(model, locked, files, mirror)
    except MdlError as failed:
        return replace(found, error=failed.on(name))
    return replace(found, is_complete=True, objects=len(files) + 1, commit=marker.commit, written_at=marker.written_at)


def _mark(model: Model, locked: LockedModel, files: Sequence[MirroredFile], mirror: Mirror) -> Marker:
    """Write the marker of a version of which every file is there, unless it has one. Raises `ProtocolError` if that one
    tells of other files."""
    marked = [MarkedFile(file.path, file.size, file.sha256 or "") for file in files]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    marker = Marker.of(model, locked, marked, now, __version__)
    key = mirror.place.key(model.name, locked.version, MARKER)
    if mirror.bucket.create(key, marker.to_json()):
        return marker
    there = mirror.marker(model.name, locked.version)
    if there is None or there.files != marker.files:
        hint = f"somebody else wrote it; 'mdl mirror check {mirror.place}' tells more"
        raise ProtocolError("the marker there tells of other files", item=f"{mirror.bucket}/{key}", hint=hint)
    return there


# Check and list.


def check(models: Sequence[Model], lock: Lock, mirror: Mirror, *, deep: bool = False) -> MirrorReport:
    """Compare what the mirror has of the locked ``models`` with the lock and with its marker: the size and the sha256
    in the metadata of every object, and with ``deep`` its bytes. What is wrong is in the report. Raises `LockError`,
    `AuthError`, `NetworkError`, `NotFound` if there is no such bucket."""
    began = time.monotonic()
    locked = [lock.models[model.name] for model in models]
    markers = _at_once([partial(mirror.marker, one.name, one.version) for one in locked], mirror)
    rows: list[tuple[int, Reading]] = []
    for number, (one, marker) in enumerate(zip(locked, markers, strict=True)):
        sizes = {file.path: file for file in marker.files} if isinstance(marker, Marker) else {}
        for file in one.files:
            told = sizes.get(file.path.text)
            sha256 = (
                file.digest.hex if file.digest and file.digest.algorithm == "sha256" else told.sha256 if told else ""
            )
            size = file.size if file.size is not None else told.size if told else None
            key = mirror.place.key(one.name, one.version, file.path.text)
            rows.append((number, Reading(one.name, file.path.text, key, size, sha256, mirror.objects, deep=deep)))
    mirror.reporter.files = [reading for _, reading in rows]
    heads = list(_at_once([reading.step for _, reading in rows], mirror))
    files = [(number, _judged(reading, head)) for (number, reading), head in zip(rows, heads, strict=True)]
    found = []
    for number, (one, marker) in enumerate(zip(locked, markers, strict=True)):
        mine = tuple(file for at, file in files if at == number)
        found.append(_checked(one, marker, mine, mirror.place))
    read = sum(reading.done for _, reading in rows)
    return MirrorReport(tuple(found), bytes_read=read, seconds=time.monotonic() - began)


def _at_once(calls: Sequence[Callable[[], Found]], mirror: Mirror) -> list[Found | MdlError]:
    """The results of the calls, of which several are made at once. An error that is not about one object is raised; a
    `ProtocolError` is a result."""
    found = list(watched(calls, mirror.connections, mirror.look))
    for one in found:
        if isinstance(one, MdlError) and not isinstance(one, ProtocolError):
            raise one
    return found


def _judged(reading: Reading, head: Head | MdlError | None) -> MirroredFile:
    """What is wrong with one object, by what the bucket told of it and what was read."""
    item, expected = f"{reading.model}/{reading.name}", reading.sha256
    result = MirroredFile(reading.name, reading.size or 0, expected or None, "ok")
    hint = f"push it again: mdl mirror push … {reading.model} --verify"
    if isinstance(head, MdlError):
        return replace(result, status="corrupt", error=head.on(item))
    if head is None:
        return replace(result, status="missing", error=NotFound("it is not in the mirror", item=item, hint=_PUSH))
    if reading.size not in (None, head.size):
        why = f"the mirror's object has {head.size} bytes, not {reading.size}"
        return replace(result, status="corrupt", error=DigestMismatch(why, item=item, hint=hint))
    result = replace(result, size=head.size)
    actual = reading.actual or (head.sha256.hex if head.sha256 else "")
    if expected and actual not in ("", expected):
        what = "its bytes have" if reading.actual else "its metadata tells"
        why = f"{what} the sha256 {actual}, expected {expected}"
        return replace(result, status="corrupt", error=DigestMismatch(why, item=item, hint=hint))
    return result if expected and actual else replace(result, status="unverified")


def _checked(
    locked: LockedModel, marker: Marker | MdlError | None, files: tuple[MirroredFile, ...], place: MirrorPlace
) -> MirrorVersion:
    url = place.url(locked.name, locked.version)
    found = MirrorVersion(locked.name, locked.version, url, is_locked=True, files=files)
    found = replace(found, objects=len(files), bytes=sum(file.size for file in files))
    if marker is not None:
        return _marked(found, marker)
    if all(file.status == "missing" for file in files):
        return replace(
            found, files=(), objects=0, error=NotFound("the mirror does not have it", item=locked.name, hint=_PUSH)
        )
    return replace(
        found, error=NotFound("it is not complete in the mirror: it has no marker", item=locked.name, hint=_PUSH)
    )


def versions(mirror: Mirror, lock: Lock, names: Sequence[str] | None = None) -> list[MirrorVersion]:
    """Every version of a model that has an object in the mirror, by name; only of ``names`` if they are given."""
    held = [one for one in _held(mirror) if names is None or one.name in names]
    markers = _at_once([partial(mirror.marker, one.name, one.version) for one in held], mirror)
    found = []
    for one, marker in zip(held, markers, strict=True):
        locked, url = lock.models.get(one.name), mirror.place.url(one.name, one.version)
        is_locked = locked is not None and locked.version == one.version
        version = MirrorVersion(one.name, one.version, url, is_locked=is_locked, objects=len(one.keys), bytes=one.bytes)
        found.append(_marked(version, marker))
    return sorted(found, key=lambda one: (one.name, not one.is_locked, one.written_at))


def _marked(version: MirrorVersion, marker: Marker | MdlError | None) -> MirrorVersion:
    """The version with what its marker says."""
    if not isinstance(marker, Marker):
        return replace(version, error=marker)
    files = version.files or tuple(MirroredFile(one.path, one.size, one.sha256, "unverified") for one in marker.files)
    return replace(
        version,
        is_complete=True,
        commit=marker.commit,
        license=marker.license,
        written_at=marker.written_at,
        files=files,
    )


@dataclass
class _Held:
    """The objects of one version; ``modified`` is when the newest was written."""

    name: str
    version: str
    keys: list[str] = field(default_factory=list)
    bytes: int = 0
    modified: datetime | None = None
    is_complete: bool = False


def _held(mirror: Mirror) -> list[_Held]:
    found: dict[tuple[str, str], _Held] = {}
    for one in mirror.bucket.list(mirror.place.prefix):
        mirror.look()
        if (parts := mirror.place.split(one.key)) is None:
            continue
        name, version, path = parts
        held = found.setdefault((name, version), _Held(name, version))
        held.keys.append(one.key)
        held.bytes += one.size
        held.modified = max(held.modified or one.modified, one.modified)
        held.is_complete = held.is_complete or path == MARKER
    return list(found.values())


# Pull.


def pull(models: Sequence[Model], lock: Lock, tools: Tools, mirror: Mirror, *, force: bool = False) -> Report:
    """Fetch locked models from the mirror alone, as `get` does; ``tools`` has a resolver that asks it. A model that is
    not complete in the mirror is a `NotFound` in the report. Raises as `get`, and `LockError`."""
    locked = [lock.models[model.name] for model in models]
    markers = _at_once([partial(mirror.marker, one.name, one.version) for one in locked], mirror)
    failed: dict[str, MdlError] = {}
    for one, marker in zip(locked, markers, strict=True):
        if not isinstance(marker, Marker):
            why = NotFound(f"the mirror has no complete version {one.version} of it", item=one.name, hint=_PUSH)
            failed[one.name] = marker or why
    report = get([model for model in models if model.name not in failed], tools, force=force)
    lost = [ModelReport(name, tools.store.folder(name), "missing", error=error) for name, error in failed.items()]
    return replace(report, models=(*report.models, *lost))


# Clean.


def clean(
    mirror: Mirror, lock: Lock, names: Sequence[str] | None, *, older_than: float, remove: bool, now: float
) -> list[MirrorItem]:
    """Judge what in the mirror nobody needs any more, and delete it only with ``remove``: uploads that were begun and
    not ended, versions that the lock has left behind, versions without a marker.

    What is younger than ``older_than`` seconds stays, and so does whatever the lock names. A superseded version stays
    until the locked one is complete in the mirror; of models that the lock does not have, only what is unfinished is
    judged. ``now`` in seconds since 1970.
    """
    held = [one for one in _held(mirror) if names is None or one.name in names]
    whole = {(one.name, one.version) for one in held if one.is_complete}
    items = [item for one in held if (item := _judge(one, lock, whole, mirror.place, older_than, now))]
    for upload in mirror.objects.uploads(mirror.place.prefix):
        parts = mirror.place.split(upload.key)
        if parts and (names is None or parts[0] in names):
            items.append(_judge_upload(upload, parts[0], mirror, older_than, now))
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
    held: _Held, lock: Lock, whole: set[tuple[str, str]], place: MirrorPlace, older_than: float, now: float
) -> MirrorItem | None:
    """What is to happen to a version; None if it is one that is needed, or another catalog's."""
    locked = lock.models.get(held.name)
    is_locked = locked is not None and locked.version == held.version
    if held.is_complete and (locked is None or is_locked):
        return None
    kind: Literal["superseded", "incomplete"] = "superseded" if held.is_complete else "incomplete"
    age = now - held.modified.timestamp() if held.modified else 0.0
    why = f"the lock names {locked.version}" if held.is_complete and locked else "it has no marker"
    why += f"; written {human_age(age)}"
    stays = is_locked or age < older_than
    if is_locked:
        why = "the lock names it; a push goes on with it"
    elif locked and held.is_complete and (held.name, locked.version) not in whole:
        stays, why = True, f"the locked version {locked.version} is not complete here"
    marker = place.key(held.name, held.version, MARKER)
    keys = sorted(held.keys, key=lambda key: key != marker)  # without its marker nobody takes the rest for complete
    url = place.url(held.name, held.version)
    return MirrorItem(kind, held.name, url, held.bytes, why, "kept" if stays else "would delete", tuple(keys))


def _judge_upload(upload: PartedUpload, name: str, mirror: Mirror, older_than: float, now: float) -> MirrorItem:
    size = sum(part.size for part in mirror.objects.parts(upload))
    url = f"s3://{mirror.place.bucket}/{upload.key}"
    if upload.begun_at is None:
        return MirrorItem("upload", name, url, size, "the store does not tell when it was begun", "kept")
    age = now - upload.begun_at.timestamp()
    why = f"begun {human_age(age)}, and not ended"
    return MirrorItem("upload", name, url, size, why, "kept" if age < older_than else "would delete", (), upload)
